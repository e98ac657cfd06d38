"""The calculations that answer a question: small, interchangeable, each with a name that stays the same.

``kernel``             similar packets and own records
``regression``         regression on peers' packets, an intercept per node
``boosting``           boosted correction of that regression, on the same packets
``adjusted``           regression on own records that corrects what peers say
``adjusted-boosting``  boosting on own records that corrects what peers say
``local``              regression on own records alone
``local-boosting``     boosting on own records alone

The first three never see own records other than as neighbours, so own records judge them as they are; the
others are cross-fitted before they are judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from outroute.synthesis.boosting import Boosted, fit_boosted
from outroute.synthesis.evidence import Floats, Ints
from outroute.synthesis.recalibration import Recalibration, recalibrate
from outroute.synthesis.regression import Design, Linear, design, fit_linear
from outroute.synthesis.scores import Link, Sample, logit, normalise, sigmoid
from outroute.synthesis.settings import Settings

__all__ = ["Own", "Peers", "Problem", "fit_own", "fit_peers", "finish"]

BOOST_PACKETS = 200
"""Packets below which boosting on packets is left out: ten leaves' worth; on fewer it was always the worst."""
OWN_LEAST = 8
"""Own records below which nothing is fitted on them alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is to be fitted: outcome, packets, own records (cross-fitting folds included)."""

    link: Link
    slots: Mapping[str, slice]
    weights: Floats
    peers: Sample
    nodes: int
    own: Sample
    fold: Ints
    folds: int
    settings: Settings

    @property
    def columns(self) -> int:
        """Number of score columns K."""
        return int(self.own.target.shape[1])


def finish(raw: Floats, link: Link) -> Floats:
    """Columns fitted one by one to a score: one-against-rest logits become log-probabilities."""
    if link is not Link.CATEGORICAL:
        return raw
    return normalise(np.log(np.maximum(sigmoid(raw), 1e-9)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """Regression and boosting on peers' packets."""

    design: Design
    linear: tuple[Linear, ...]
    boosted: tuple[Boosted, ...]
    spread: float
    noise: float

    def raw(self, x: Floats) -> dict[str, Floats]:
        """Unfinished columns float64[m, K] by calculation name."""
        z = self.design(x)
        base = np.stack([model.score(z) for model in self.linear], axis=1)
        out = {"regression": base}
        if self.boosted:
            out["boosting"] = base + np.stack([model.score(x) for model in self.boosted], axis=1)
        return out


def fit_peers(problem: Problem, rng: np.random.Generator, without: Ints | None = None) -> Peers | None:
    """Fit the calculations that read packets only, but for the packets `without`; None without packets."""
    sample, settings = problem.peers, problem.settings
    if without is not None:
        sample = sample.take(np.setdiff1d(np.arange(sample.n), without))
    if not sample.n:
        return None
    part = _some(sample, settings.regression_rows, rng)
    plan = design(part.x, part.amount, problem.slots)
    z = plan(part.x)
    linear = tuple(
        fit_linear(
            z,
            part.target[:, c],
            part.amount,
            part.node,
            problem.nodes,
            link=problem.link,
            settings=settings,
            within=part.within,
        )
        for c in range(problem.columns)
    )
    boosted: tuple[Boosted, ...] = ()
    if sample.n >= BOOST_PACKETS and "boosting" in settings.calculations:
        part = _some(sample, settings.boost_rows, rng)
        z = plan(part.x)
        boosted = tuple(
            fit_boosted(
                part.x,
                part.target[:, c],
                part.amount,
                model.score(z) + model.intercepts[part.node],
                link=problem.link,
                settings=settings,
            )
            for c, model in enumerate(linear)
        )
    return Peers(
        design=plan,
        linear=linear,
        boosted=boosted,
        spread=float(np.mean([model.spread for model in linear])),
        noise=linear[0].noise,
    )


def _some(sample: Sample, most: int, rng: np.random.Generator) -> Sample:
    if sample.n <= most:
        return sample
    return sample.take(np.sort(rng.choice(sample.n, most, replace=False)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """Calculations fitted on own records; `offset` is what peers say about the same conditions."""

    design: Design
    local: tuple[Linear, ...]
    adjusted: tuple[Linear, ...]
    local_boosted: tuple[Boosted, ...]
    adjusted_boosted: tuple[Boosted, ...]
    start: Floats
    tilt: tuple[Recalibration, ...]
    link: Link

    def raw(self, x: Floats, offset: Floats | None) -> dict[str, Floats]:
        """Unfinished columns float64[m, K] by calculation name."""
        z = self.design(x)
        local = np.stack([model.score(z) for model in self.local], axis=1)
        out = {"local": local}
        if self.local_boosted:
            out["local-boosting"] = self.start + np.stack([model.score(x) for model in self.local_boosted], axis=1)
        if offset is not None and self.adjusted:
            offset = _tilted(self.tilt, offset, self.link)
            out["adjusted"] = offset + np.stack([model.score(z) for model in self.adjusted], axis=1)
            if self.adjusted_boosted:
                out["adjusted-boosting"] = out["adjusted"] + np.stack(
                    [model.score(x) for model in self.adjusted_boosted], axis=1
                )
        return out


def fit_own(problem: Problem, rows: Ints, offset: Floats | None, spread: float) -> Own | None:
    """Fit the calculations that read own records `rows`; None with too few.

    Args:
        problem: what is to be fitted.
        rows: indices into own records (a training part, or all).
        offset: float64[all own, K], what peers say about own records, or None without peers.
        spread: variance of the intercept between nodes.
    """
    if len(rows) < OWN_LEAST:
        return None
    settings, link = problem.settings, problem.link
    part = problem.own.take(rows)
    plan = design(part.x, part.amount, problem.slots)
    z = plan(part.x)
    nobody = np.zeros(len(rows), np.int64)
    columns = range(problem.columns)
    local = tuple(
        fit_linear(z, part.target[:, c], part.amount, nobody, 0, link=link, settings=settings) for c in columns
    )
    mean = part.target.mean(0)
    shrunk = (mean * len(rows) + 1.0 / max(2, len(mean))) / (len(rows) + 1.0)
    start = mean if link is Link.NUMERIC else logit(shrunk)
    boosting = len(rows) >= settings.boost_own_least
    if problem.own.n > settings.large_site:
        settings = replace(settings, boost_trees=settings.boost_trees_large)
    local_boosted: tuple[Boosted, ...] = ()
    adjusted: tuple[Linear, ...] = ()
    adjusted_boosted: tuple[Boosted, ...] = ()
    tilt: tuple[Recalibration, ...] = ()
    if boosting and "local-boosting" in settings.calculations:
        local_boosted = tuple(
            fit_boosted(
                part.x,
                part.target[:, c],
                part.amount,
                np.full(len(rows), start[c]),
                link=link,
                settings=settings,
            )
            for c in columns
        )
    if offset is not None:
        said = offset[rows]
        single = Link.NUMERIC if link is Link.NUMERIC else Link.BINARY
        tilt = tuple(
            recalibrate(
                said[:, c : c + 1],
                part.target[:, c : c + 1],
                link=single,
                intercept_variance=spread,
                slope_sd=settings.tilt_sd,
                noise=max(local[c].noise, 1e-9),
            )
            for c in columns
        )
        said = _tilted(tilt, said, single)
        adjusted = tuple(
            fit_linear(
                z,
                part.target[:, c],
                part.amount,
                nobody,
                0,
                link=link,
                settings=settings,
                offset=said[:, c],
                intercept_variance=spread,
            )
            for c in columns
        )
        if boosting and "adjusted-boosting" in settings.calculations:
            adjusted_boosted = tuple(
                fit_boosted(
                    part.x,
                    part.target[:, c],
                    part.amount,
                    said[:, c] + model.score(z),
                    link=link,
                    settings=settings,
                )
                for c, model in enumerate(adjusted)
            )
    return Own(
        design=plan,
        local=local,
        adjusted=adjusted,
        local_boosted=local_boosted,
        adjusted_boosted=adjusted_boosted,
        start=start,
        tilt=tilt,
        link=Link.NUMERIC if link is Link.NUMERIC else Link.BINARY,
    )


def _tilted(tilt: tuple[Recalibration, ...], offset: Floats, link: Link) -> Floats:
    """Peers' columns, recalibrated on the records that are about to correct them."""
    return np.concatenate([r(offset[:, c : c + 1], link) for c, r in enumerate(tilt)], axis=1)
