"""Peers' packets, each predicted as if its node were the one asking: what a site without records has to go by.

A packet is predicted by the kernel, its own node's packets left out, and by the regression without its node's
intercept. The regression itself has seen the packet, as one of many on few coefficients; boosting would know it by
heart, and fits without each part of the peers take several times as long as the answer, so boosting has no say here:
intervals come out slightly too wide rather than too narrow.
Source: leave-one-group-out residuals, as in Dunn, Wasserman and Ramdas (2022), "Distribution-free prediction sets for
two-layer hierarchical models".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from outroute.synthesis.calculations import Peers, Problem
from outroute.synthesis.evidence import Floats
from outroute.synthesis.kernel import Kernel, Near
from outroute.synthesis.scores import Link, Sample

__all__ = ["LeftOut", "believed", "left_out"]

NODES_LEAST = 3
"""Nodes below which nobody is left out: one peer says nothing about how sites differ."""
ASKED_ROWS = 2_000
"""Packets that are predicted: 200 in the thinnest class of support place its quantiles to within two points."""
BELIEVED = (0.1, 2.0)
"""Bounds of what packets may claim about the scatter of outcomes; beyond them the fit is at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Packets and what others said of them.

    Attributes:
        sample: the packets.
        mixed, doubt: float64[n], what others said, and how far their calculations lie apart (squared).
        near: what lies near in others' packets.
    """

    sample: Sample
    mixed: Floats
    doubt: Floats
    near: Near


def left_out(problem: Problem, peers: Peers | None, kernel: Kernel, weight: Mapping[str, float]) -> LeftOut | None:
    """Ask peers about each other (numeric outcomes); None with fewer than `NODES_LEAST`.

    Args:
        problem: what is fitted.
        peers: fitted to all packets.
        kernel: over all packets and own records.
        weight: default weight by calculation.
    """
    if problem.link is not Link.NUMERIC or peers is None or problem.nodes < NODES_LEAST:
        return None
    asked = _every(problem.peers, ASKED_ROWS)
    near = replace(kernel, fold=kernel.sample.node).near(asked.x, fold=asked.node)
    names = [name for name in ("kernel", "regression") if name in ("kernel", *problem.settings.calculations)]
    raw = {"kernel": near.score, "regression": peers.raw(asked.x)["regression"]}
    shares = np.array([weight[name] for name in names])
    each = np.stack([raw[name] for name in names], axis=1)[:, :, 0]
    mixed = each @ shares / shares.sum()
    doubt = (each - mixed[:, None]) ** 2 @ shares / shares.sum()
    return LeftOut(sample=asked, mixed=mixed, doubt=doubt, near=near)


def _every(sample: Sample, most: int) -> Sample:
    """At most `most` rows, evenly spaced: packets are sorted by node, so every node keeps its share."""
    if sample.n <= most:
        return sample
    return sample.take(np.arange(most) * sample.n // most)


def believed(problem: Problem, peers: Peers | None, kernel: Kernel, rng: np.random.Generator) -> float:
    """How widely single outcomes scatter around what peers' calculations say, relative to what lies near."""
    if peers is None or problem.link is not Link.NUMERIC:
        return 1.0
    count = min(problem.peers.n, problem.settings.kernel_tuning_rows)
    part = problem.peers.take(np.sort(rng.choice(problem.peers.n, count, replace=False)))
    said = peers.raw(part.x)
    heard = np.mean([said[name] for name in ("regression", "boosting") if name in said], axis=0)
    gap = part.target[:, 0] - heard[:, 0] - peers.linear[0].intercepts[part.node]
    near = kernel.near(part.x).variance
    return float(np.clip((part.amount @ (gap**2 + part.within)) / max(float(part.amount @ near), 1e-12), *BELIEVED))
