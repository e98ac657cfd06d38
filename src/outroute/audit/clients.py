"""A table's sites as clients of a federation, and back: standard scores to conditions in unit scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.audit.updates import Client
from outroute.schema import FieldKind, unit_scale
from outroute.trial.estimators import Layout, Standard, moments, standard

if TYPE_CHECKING:
    from outroute.distill import Observations
    from outroute.schema import Schema

__all__ = ["Clients", "clients_of", "declared_scores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """All sites as a federation sees them.

    Attributes:
        sites: by name.
        scores: conditions in unit scale -> what the model sees; made from all sites' moments, as federations do.
        classes: of the outcome; 2 for a numeric one, which is cut at its median here.
        x: by site, float64[n, D], conditions in unit scale, NaN where missing.
        low, high: float64, what a value that the model sees can be.
    """

    sites: Mapping[str, Client]
    scores: Standard
    classes: int
    x: Mapping[str, NDArray[np.float64]]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def back(self, seen: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the model sees as conditions in unit scale, float64[n, D]."""
        scale = self.scores.scale
        width = len(scale)
        moved = seen[:, :width] / np.where(scale > 0, scale, 1.0)
        return np.clip(np.where(scale > 0, self.scores.mean + moved, self.scores.mean), 0.0, 1.0)


def clients_of(schema: Schema, sites: Mapping[str, Observations], *, public: bool = False) -> Clients:
    """Clients of observations with known outcomes.

    Args:
        schema: the schema.
        sites: observations by site.
        public: standard scores follow from the declared ranges. The exact moments of the records, which sites share
            otherwise, are no part of what noise on gradients pays for.
    """
    rows = {name: of.take(np.flatnonzero(~np.isnan(of.outcome))) for name, of in sites.items()}
    x = {name: unit_scale(schema, of.codes) for name, of in rows.items()}
    if public:
        scores = declared_scores(schema)
    else:
        scores = standard(Layout.of(schema), reduce(add, [moments(part) for part in x.values()]))
    outcomes = {name: of.outcome for name, of in rows.items()}
    classes = len(schema.outcome.classes)
    if not schema.outcome.has_classes:
        middle = float(np.median(np.concatenate(list(outcomes.values()))))
        outcomes = {name: (y > middle).astype(np.float64) for name, y in outcomes.items()}
        classes = 2
    ends = []
    for value in (0.0, 1.0):
        plain = (value - scores.mean) * scores.scale
        ends.append(np.concatenate([plain, (value - scores.share) * scores.share_scale]))
    return Clients(
        sites={
            name: Client(x=scores(x[name]), y=outcomes[name].astype(np.int64), subject=rows[name].subject)
            for name in rows
        },
        scores=scores,
        classes=classes,
        x=x,
        low=ends[0],
        high=ends[1],
    )


def declared_scores(schema: Schema) -> Standard:
    """Scores as if values were even over their ranges and categories equally frequent; no indicators of what is
    missing."""
    mean, deviation = np.full(schema.width, 0.5), np.full(schema.width, np.sqrt(1 / 12))
    for field in schema.fields:
        if field.kind is FieldKind.CATEGORICAL:
            share = 1 / field.width
            mean[schema.slots[field.name]] = share
            deviation[schema.slots[field.name]] = np.sqrt(share * (1 - share))
    nothing = np.zeros(0)
    return Standard(
        mean=mean,
        scale=np.where(deviation > 0, 1 / np.maximum(deviation, 1e-9), 0.0),
        fields=np.zeros(0, dtype=np.int64),
        share=nothing,
        share_scale=nothing,
    )
