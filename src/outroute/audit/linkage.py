"""Re-identification: which packet is this person's?

The attacker has a person's conditions (all of them, or half) and looks for the packet that condenses them; that
packet's outcome is then what it believes of the person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.scores import FieldScale
from outroute.audit.traces import distances
from outroute.schema import unit_scale

if TYPE_CHECKING:
    from outroute.audit.emission import Emitter
    from outroute.distill import Observations
    from outroute.schema import Schema

__all__ = ["Linkage", "Links", "link", "linked"]

SURE = 0.1
"""Share of records of which the attacker is surest: those with the widest gap between the best and the next packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """One site: each record that left.

    Attributes:
        rank: float64[r], place of its packet among all packets of the site, from 0; ties in the middle.
        rank_half: the same when only half of the fields are known.
        gap: float64[r], how sure the attacker is.
        chance: float64[r], probability of the packet under a draw weighted by size.
    """

    rank: NDArray[np.float64]
    rank_half: NDArray[np.float64]
    gap: NDArray[np.float64]
    chance: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linkage:
    """How many records are linked to their packet, over all sites.

    Attributes:
        top1: share of records whose packet comes first; ``chance`` is the same for a draw weighted by size.
        top1_half: with half of the fields known.
        sure: share among the tenth of which the attacker is surest.
        median_rank: of a record's packet, from 1.
        records: how many.
    """

    top1: float
    top1_half: float
    sure: float
    chance: float
    median_rank: float
    records: int

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "top1": self.top1,
            "top1_half_of_the_fields": self.top1_half,
            "top1_surest_tenth": self.sure,
            "chance": self.chance,
            "median_rank": self.median_rank,
            "records": self.records,
        }


def link(
    schema: Schema, observations: Observations, emit: Emitter, rng: np.random.Generator, scale: FieldScale | None = None
) -> Links | None:
    """Attack one site; None where nothing left, and under ``private``, whose packets are there whoever is in them.

    Args:
        schema: the schema.
        observations: the site's.
        emit: the distiller under attack.
        rng: of the emitter, and which half of the fields is known.
        scale: units of distances; None: from these observations.
    """
    emission = emit(schema, observations, rng)
    rows = np.flatnonzero(emission.packet_of >= 0)
    if not len(rows) or not len(emission) or emission.noisy is not None:
        return None
    whole = unit_scale(schema, observations.codes)
    scale = scale or FieldScale.of(schema, whole)
    half = rng.permutation(len(schema.fields)) < max(1, len(schema.fields) // 2)
    only = np.repeat(half, np.diff(np.append(scale.first, schema.width)))
    own = emission.packet_of[rows]
    weight = np.maximum(emission.size, 0.0)
    apart = np.where(observations.facet[rows][:, None] != emission.facet[None, :], np.inf, 0.0)
    far = distances(scale, whole[rows], emission.x) + apart
    part = distances(scale, whole[rows], emission.x, only=only) + apart
    best = np.sort(far, axis=1)
    gap = best[:, 1] - best[:, 0] if len(emission) > 1 else np.zeros(len(rows))
    return Links(
        rank=_rank(far, own),
        rank_half=_rank(part, own),
        gap=np.nan_to_num(gap, posinf=1e9),
        chance=weight[own] / weight.sum(),
    )


def _rank(far: NDArray[np.float64], own: NDArray[np.int64]) -> NDArray[np.float64]:
    """Place of each record's own packet, from 0; packets as near as it count half."""
    mine = far[np.arange(len(own)), own][:, None]
    near = mine + 1e-9
    return np.asarray((far < mine - 1e-9).sum(axis=1) + ((np.abs(far - mine) <= near - mine).sum(axis=1) - 1) / 2)


def linked(sites: list[Links]) -> Linkage | None:
    """One summary over the sites that were attacked; None where there is none."""
    if not sites:
        return None
    rank, half, gap, chance = (np.concatenate([getattr(s, n) for s in sites]) for n in Links.__slots__)
    surest = np.argsort(-gap, kind="stable")[: max(1, round(SURE * len(gap)))]
    return Linkage(
        top1=float((rank < 0.5).mean()),
        top1_half=float((half < 0.5).mean()),
        sure=float((rank[surest] < 0.5).mean()),
        chance=float(chance.mean()),
        median_rank=float(np.median(rank)) + 1,
        records=len(rank),
    )
