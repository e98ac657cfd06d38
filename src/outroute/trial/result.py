"""What a trial found: scores per repeat and site, means, paired differences, and all of it as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.trial.fold import SiteOut
from outroute.trial.intervals import LEVEL, Difference, difference, relative_margin
from outroute.trial.metrics import CLASS_METRICS, MIN_FOR_R2, MIN_PER_CLASS, NUMBER_METRICS
from outroute.trial.splits import Protocol

__all__ = ["Result", "SiteSize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSize:
    """How much of a site the trial saw.

    Attributes:
        rows: rows with an outcome.
        train, test: means over the repeats.
    """

    rows: int
    train: float
    test: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The finished repeats of one trial.

    Attributes:
        dataset: name of the data set.
        subject: the method that all others are compared with.
        methods: names of all methods, the subject first.
        sites: names of the sites.
        sizes: per site.
        classes: number of classes, 0 for numbers.
        values: per method and metric, float64[repeats, sites]; NaN where a site had nothing to score.
        counts: bool[repeats, sites], whether a site's AUC or R2 enters the mean (enough test cases, of every class).
        out: per method, per repeat and site, what left it.
        details: per method, one mapping per repeat.
        protocol, test_share, seed, margins: as the trial was run.
        asked: repeats that were asked for; fewer are in `values` when the trial was interrupted.
        seconds: per method, over all finished repeats.
        notes: what a reader must know: what the data set and the methods say, and what the trial warns of.
    """

    dataset: str
    subject: str
    methods: tuple[str, ...]
    sites: tuple[str, ...]
    sizes: Mapping[str, SiteSize]
    classes: int
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]
    counts: NDArray[np.bool_]
    out: Mapping[str, Sequence[Mapping[str, SiteOut]]]
    details: Mapping[str, Sequence[Mapping[str, Any]]]
    protocol: Protocol
    test_share: float
    seed: int
    margins: Mapping[str, float]
    asked: int
    seconds: Mapping[str, float]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the order in which they are shown."""
        return CLASS_METRICS if self.classes else NUMBER_METRICS

    @property
    def repeats(self) -> int:
        """Number of finished repeats."""
        return len(self.counts)

    def per_repeat(self, method: str, metric: str, sites: Sequence[str] | None = None) -> NDArray[np.float64]:
        """Mean over sites of every repeat, float64[repeats]; of some sites only, if named.

        Sites without a score (no test case; for AUC and R2, too few) are left out of that repeat's mean.
        """
        values = self.values[method][metric]
        if metric in ("auc", "r2"):
            values = np.where(self.counts, values, np.nan)
        if sites is not None:
            values = values[:, [self.sites.index(site) for site in sites]]
        known = ~np.isnan(values)
        number = known.sum(axis=1)
        total = np.where(known, values, 0.0).sum(axis=1)
        return np.where(number > 0, total / np.maximum(number, 1), np.nan)

    def score(self, method: str, metric: str, sites: Sequence[str] | None = None) -> float:
        """Mean over sites, then over repeats; NaN when no site had a score."""
        return _mean(self.per_repeat(method, metric, sites))

    def site_score(self, method: str, metric: str, site: str) -> float:
        """Mean over repeats at one site; an AUC or R2 of few cases is shown too."""
        return _mean(self.values[method][metric][:, self.sites.index(site)])

    def difference(self, other: str, metric: str, sites: Sequence[str] | None = None) -> Difference:
        """Subject minus another method, paired by repeat; over some sites only, if named."""
        names = self.sites if sites is None else sites
        train = sum(self.sizes[site].train for site in names)
        test = sum(self.sizes[site].test for site in names)
        return self._interval(
            self.per_repeat(self.subject, metric, sites) - self.per_repeat(other, metric, sites),
            other_mean=self.score(other, metric, sites),
            metric=metric,
            ratio=test / max(train, 1.0),
        )

    def site_difference(self, other: str, metric: str, site: str) -> Difference:
        """Subject minus another method at one site."""
        at, size = self.sites.index(site), self.sizes[site]
        return self._interval(
            self.values[self.subject][metric][:, at] - self.values[other][metric][:, at],
            other_mean=self.site_score(other, metric, site),
            metric=metric,
            ratio=size.test / max(size.train, 1.0),
        )

    def _interval(self, values: NDArray[np.float64], *, other_mean: float, metric: str, ratio: float) -> Difference:
        margin = relative_margin(metric, self.margins, 0.0 if math.isnan(other_mean) else other_mean)
        return difference(values.tolist(), metric=metric, margin=margin, test_to_train=ratio)

    def left(self, method: str, site: str | None = None) -> SiteOut:
        """What left all sites (or one), mean over repeats, rounded."""
        totals = np.zeros(3)
        for repeat in self.out[method]:
            for name, sent in repeat.items():
                if site is None or name == site:
                    totals += (sent.packets, sent.bytes_out, sent.records_out)
        packets, bytes_out, records = (round(total / max(self.repeats, 1)) for total in totals)
        return SiteOut(packets=packets, bytes_out=bytes_out, records_out=records)

    def to_json(self) -> dict[str, Any]:
        """One JSON object; what is not a finite number is null.

        ``packets``, ``bytes_out`` and ``records_out`` are those of the subject, means over the repeats.
        """
        others = [method for method in self.methods if method != self.subject]
        sent = self.left(self.subject)
        return {
            "dataset": self.dataset,
            "subject": self.subject,
            "sites": len(self.sites),
            "packets": sent.packets,
            "bytes_out": sent.bytes_out,
            "records_out": sent.records_out,
            "scores": {m: {x: _finite(self.score(m, x)) for x in self.metrics} for m in self.methods},
            "differences": {m: {x: self.difference(m, x).to_json() for x in self.metrics} for m in others},
            "per_site": {site: self._site_json(site, others) for site in self.sites},
            "out": {
                m: {"packets": s.packets, "bytes_out": s.bytes_out, "records_out": s.records_out}
                for m in self.methods
                for s in [self.left(m)]
            },
            "protocol": self.protocol.value,
            "test_share": self.test_share,
            "repeats": self.repeats,
            "repeats_asked": self.asked,
            "seed": self.seed,
            "level": LEVEL,
            "margins": dict(self.margins),
            "auc_needs_per_class": MIN_PER_CLASS,
            "r2_needs": MIN_FOR_R2,
            "seconds": {m: round(s, 3) for m, s in self.seconds.items()},
            "details": {m: dict(repeats[0]) for m, repeats in self.details.items() if repeats and repeats[0]},
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    def _site_json(self, site: str, others: Sequence[str]) -> dict[str, Any]:
        size, sent = self.sizes[site], self.left(self.subject, site)
        return {
            "rows": size.rows,
            "train": round(size.train, 1),
            "test": round(size.test, 1),
            "packets": sent.packets,
            "bytes_out": sent.bytes_out,
            "records_out": sent.records_out,
            "in_mean": round(float(self.counts[:, self.sites.index(site)].mean()), 3),
            "scores": {m: {x: _finite(self.site_score(m, x, site)) for x in self.metrics} for m in self.methods},
            "differences": {m: {x: self.site_difference(m, x, site).to_json() for x in self.metrics} for m in others},
        }


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
