"""Who contributed to an answer, and who saw something else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outroute.synthesis.evidence import Floats, Ints
from outroute.synthesis.kernel import Near
from outroute.synthesis.scores import Link, Scale
from outroute.synthesis.settings import Settings

__all__ = ["Witnesses", "witnesses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnesses:
    """Per question: contributors with their effective observations; nodes that disagree with their estimate."""

    contributors: Ints
    contributions: Floats
    disagreeing: Ints
    estimates: Floats


def witnesses(near: Near, link: Link, scale: Scale, settings: Settings, nodes: int) -> Witnesses:
    """Read contributions and disagreement off what lies near m questions.

    A node disagrees if its outcomes near the question lie outside the interval around what all nodes
    together saw there, by its own sampling error (`Settings.disagree_z`).
    """
    m = len(near.mass)
    top = settings.contributors
    contributors, contributions = np.full((m, top), -1, np.int64), np.zeros((m, top))
    disagreeing, estimates = np.full((m, top), -1, np.int64), np.full((m, top), np.nan)
    if not nodes:
        return Witnesses(
            contributors=contributors, contributions=contributions, disagreeing=disagreeing, estimates=estimates
        )
    mass = near.node_mass[:, :-1]
    count = min(top, nodes)
    best = np.argsort(-mass, axis=1, kind="stable")[:, :count]
    amount = np.take_along_axis(mass, best, 1)
    contributors[:, :count] = np.where(amount > 0, best, -1)
    contributions[:, :count] = amount
    mean = near.node_mean[:, :-1]
    middle = near.mean[:, None, :]
    if link is Link.NUMERIC:
        variance = np.broadcast_to(np.maximum(near.variance, 1e-12)[:, None, None], mean.shape)
    else:
        variance = np.broadcast_to(np.maximum(middle * (1.0 - middle), 1e-3), mean.shape)
    others = np.maximum(near.mass[:, None] - mass, 0.5)
    error = variance * (1.0 / np.maximum(mass, 1e-9) + 1.0 / others)[:, :, None]
    distance = np.abs(mean - middle) / np.sqrt(error)
    furthest = distance.argmax(2)
    z = np.where(mass >= settings.disagree_least, distance.max(2), 0.0)
    worst = np.argsort(-z, axis=1, kind="stable")[:, :count]
    far = np.take_along_axis(z, worst, 1) > settings.disagree_z
    said = np.take_along_axis(np.take_along_axis(mean, furthest[:, :, None], 2)[:, :, 0], worst, 1)
    if link is Link.NUMERIC:
        said = said * scale.spread + scale.centre
    disagreeing[:, :count] = np.where(far, worst, -1)
    estimates[:, :count] = np.where(far, said, np.nan)
    return Witnesses(
        contributors=contributors, contributions=contributions, disagreeing=disagreeing, estimates=estimates
    )
