"""What is laid before all sides of the coordinator's wall: the same sites, records and held-out cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute import trial
from outroute.datasets import Dataset
from outroute.trial.estimators import Layout, Standard, moments, standard
from outroute.trial.federated import linear_model
from outroute.walls.base import Plan
from outroute.walls.coordinator_model import Records, keep
from outroute.walls.coordinator_star import Shape

__all__ = ["ROWS_MOST", "SITES", "Stage", "in_pieces", "stage_of"]

SITES = 4
"""Sites that take part, those with most records; a table of fewer sites has its largest cut in pieces."""
SITES_QUICK = 3
ROWS_MOST = 1_000
"""Records of a site: what is measured is time, and more records would only slow everybody down."""
JUDGED = 200
"""Held-out cases at a site by which a result is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One split.

    Attributes:
        fold: sites, records and held-out cases.
        truth: outcomes of the held-out cases, by site.
        shape: of the linear model that the federations train.
        records: by site, in that model's form.
        note: what was cut or left out, "" if nothing.
        model: of conditions: standard scores; for numbers, the mean and spread of outcomes.
    """

    fold: trial.Fold
    truth: Mapping[str, NDArray[np.float64]]
    shape: Shape
    records: Mapping[str, Records]
    note: str
    model: tuple[Standard, float, float]

    @property
    def sites(self) -> list[str]:
        """Names."""
        return list(self.fold.train)

    def files(self, folder: Path) -> dict[str, Path]:
        """Write each site's records into a file of its own."""
        out = {}
        for number, (site, records) in enumerate(self.records.items()):
            out[site] = folder / f"records-{number}.npz"
            keep(out[site], records)
        return out

    def judged(self, site: str) -> int:
        """Held-out cases of a site that are asked about."""
        return min(JUDGED, len(self.truth[site]))

    def loss(self, site: str, estimate: NDArray[np.float64]) -> float:
        """Log-loss (numbers: absolute error) of estimates for the first held-out cases of a site."""
        if self.fold.classes == 2 and estimate.ndim == 1:
            estimate = np.column_stack([1 - estimate, estimate])
        found = trial.score(self.truth[site][: len(estimate)], estimate, self.fold.classes)
        return found["log_loss" if self.fold.classes else "mae"]

    def loss_of(self, weights: NDArray[np.float32], sites: list[str]) -> float:
        """The same of a model's weights, mean over sites."""
        scores, centre, spread = self.model
        model = linear_model(scores, weights.astype(np.float64), self.fold.classes, centre, spread)
        return float(np.mean([self.loss(site, model(self.fold.test[site].x[: self.judged(site)])) for site in sites]))


def in_pieces(data: Dataset, count: int, rng: np.random.Generator) -> tuple[Dataset, str]:
    """The largest `count` sites; where there are fewer, the largest is halved until there are enough."""
    sizes = {site: int((data.site == site).sum()) for site in data.sites}
    order = sorted(sizes, key=lambda site: -sizes[site])
    if len(order) >= count:
        note = "" if len(order) == count else f"the {count} largest of {len(order)} sites take part"
        return data.rows(np.isin(data.site, order[:count])), note
    site = data.site.astype(object).copy()
    while len(set(site.tolist())) < count:
        names, sizes_now = np.unique(site.astype(str), return_counts=True)
        largest = str(names[int(sizes_now.argmax())])
        rows = np.flatnonzero(site == largest)
        halves = np.array_split(rng.permutation(rows), 2)
        for number, half in enumerate(halves, 1):
            site[half] = f"{largest}.{number}"
    what = "one site" if len(order) == 1 else f"{len(order)} sites"
    return replace(data, site=site), f"the table has {what}: the largest is cut in pieces, so that there are {count}"


def stage_of(plan: Plan) -> Stage:
    """The same for every step of a plan."""
    rng = np.random.default_rng([plan.seed, 0xC00D])
    known = trial.prepare(plan.dataset).dataset
    data, note = in_pieces(known, SITES_QUICK if plan.quick else SITES, rng)
    kept = np.zeros(len(data), dtype=np.bool_)
    for site in data.sites:
        rows = np.flatnonzero(data.site == site)
        kept[rng.permutation(rows)[:ROWS_MOST]] = True
    prepared = trial.prepare(data.rows(kept))
    data = prepared.dataset
    protocol = trial.Protocol.ROWS if data.group is None else trial.Protocol.GROUPED
    parts = trial.split(data.site, data.group, protocol=protocol, repeat=0, seed=plan.seed)
    fold = trial.fold_of(prepared, parts, seed=plan.seed, protocol=protocol)
    train = fold.train
    sums = moments(np.concatenate([one.x for one in train.values()]))
    scores = standard(Layout.of(fold.schema), sums)
    every = np.concatenate([one.y for one in train.values()])
    centre, spread = (0.0, 1.0) if fold.classes else (float(every.mean()), float(every.std()) or 1.0)

    def records(one: trial.Rows) -> Records:
        z = np.concatenate([np.ones((len(one), 1)), scores(one.x)], axis=1).astype(np.float32)
        if fold.classes == 2:
            target = one.y[:, None]
        elif fold.classes:
            target = np.eye(fold.classes)[one.y.astype(np.int64)]
        else:
            target = (one.y[:, None] - centre) / spread
        return z, target.astype(np.float32)

    made = {site: records(one) for site, one in train.items()}
    first = next(iter(made.values()))
    shape = Shape(features=first[0].shape[1], outputs=first[1].shape[1], classes=fold.classes)
    truth = {site: prepared.y[of] for site, of in parts.test.items()}
    return Stage(fold=fold, truth=truth, shape=shape, records=made, note=note, model=(scores, centre, spread))
