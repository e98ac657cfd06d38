"""Differencing: two looks at a site's packets, before and after one record was taken back.

Cohorts add up: size times conditions, summed over packets, is the sum of all records in them. So whoever regroups
everything without one record gives it away exactly. A node never does that: it withdraws the one packet, and what is
left of it leaves again only among k that are new (DESIGN section 4). Both are attacked here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.emission import cohorts, floor_of
from outroute.audit.scores import FieldScale, decibel
from outroute.schema import unit_scale

if TYPE_CHECKING:
    from outroute.audit.emission import Emission, Emitter
    from outroute.distill import Grouping, Observations
    from outroute.schema import Schema

__all__ = ["Differences", "Differencing", "difference", "differences", "guess"]

TARGETS = 12
"""Records that are taken back, one at a time, at each site."""
OLD = 0.5
"""Share of the records that were emitted first; the others are new when the packet is withdrawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Squared errors of one site, in field variances, one of each record that was taken back.

    Attributes:
        mean: of the site's mean.
        packet: of the conditions of the packet that held it, which needs no second look.
        regrouped: of the difference when everything is emitted anew without the record.
        reemitted: of the difference as a node does it; the better of two guesses for all targets together.
    """

    mean: NDArray[np.float64]
    packet: NDArray[np.float64]
    regrouped: NDArray[np.float64]
    reemitted: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Differencing:
    """Over all sites: error in standard deviations, and what a second look adds to the packet itself, in decibel."""

    error_packet: float
    error_regrouped: float
    error_reemitted: float
    gain_regrouped: float
    gain_reemitted: float
    targets: int

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "error_packet": self.error_packet,
            "error_regrouped": self.error_regrouped,
            "error_reemitted": self.error_reemitted,
            "gain_regrouped_db": self.gain_regrouped,
            "gain_reemitted_db": self.gain_reemitted,
            "targets": self.targets,
        }


def difference(
    schema: Schema,
    observations: Observations,
    k: int,
    rng: np.random.Generator,
    *,
    emit: Emitter | None = None,
    grouping: Grouping | None = None,
    scale: FieldScale | None = None,
    targets: int = TARGETS,
) -> Differences | None:
    """Attack one site; None where nothing left.

    Args:
        schema: the schema.
        observations: the site's.
        k: subjects in a packet.
        rng: of the targets, and of the emitter.
        emit: the distiller that is run twice in ``regrouped``; None: cohorts of k.
        grouping: how cohorts are formed.
        scale: units of errors; None: from these observations.
        targets: records that are taken back, one at a time.
    """
    rows = observations.take(np.flatnonzero(~np.isnan(observations.outcome)))
    emit = emit or cohorts(k, grouping)
    x = unit_scale(schema, rows.codes)
    scale = scale or FieldScale.of(schema, x)
    old = np.sort(rng.permutation(len(rows))[: round(OLD * len(rows))])
    new = np.setdiff1d(np.arange(len(rows)), old)
    first = emit(schema, rows.take(old), np.random.default_rng(0))
    inside = np.flatnonzero(first.packet_of >= 0)
    if not len(inside) or not len(first):
        return None
    errors: dict[str, list[float]] = {name: [] for name in ("mean", "packet", "regrouped", "a", "b")}
    for target in rng.permutation(inside)[:targets]:
        truth = x[old[target]][None, :]
        packet = first.packet_of[target]
        rest = np.delete(old, target)
        again = emit(schema, rows.take(rest), np.random.default_rng(0))
        after = _reemitted(schema, rows, first, old, target, new, k, grouping)
        guesses = {
            "mean": scale.mean,
            "packet": first.x[packet],
            "regrouped": guess(first, again, scale.mean),
            "a": guess(first, after, scale.mean) if after is not None else first.x[packet],
            "b": guess(first, after, scale.mean, new=True) if after is not None else first.x[packet],
        }
        for name, one in guesses.items():
            errors[name].append(float(scale.errors(truth, one[None, :])[0]))
    best = min(("a", "b"), key=lambda name: float(np.nanmean(errors[name])))
    return Differences(
        mean=np.array(errors["mean"]),
        packet=np.array(errors["packet"]),
        regrouped=np.array(errors["regrouped"]),
        reemitted=np.array(errors[best]),
    )


def _reemitted(
    schema: Schema,
    rows: Observations,
    first: Emission,
    old: NDArray[np.int64],
    target: int,
    new: NDArray[np.int64],
    k: int,
    grouping: Grouping | None,
) -> Emission | None:
    """What is seen after a withdrawal as a node does it; None where nothing but the withdrawal is seen."""
    own = floor_of(schema, k)
    packet = first.packet_of[target]
    left = old[np.flatnonzero(first.packet_of == packet)]
    left = left[left != old[target]]
    # Those that are left have left before; all others that were emitted stay in their packets.
    waiting = np.concatenate([left, new])
    stale = np.isin(waiting, left)
    pool = replace(rows.take(waiting), stale=stale)
    emitted = cohorts(k, grouping)(own, pool, np.random.default_rng(0))
    held = np.flatnonzero(emitted.packet_of >= 0)
    # Only packets that hold somebody who is stale differ from what would have left anyway.
    touched = np.unique(emitted.packet_of[held][stale[held]])
    if not len(touched):
        return None
    kept = np.arange(len(first)) != packet
    return _joined(_part(first, kept), _part(emitted, touched))


def _part(emission: Emission, which: NDArray[Any]) -> Emission:
    return replace(
        emission,
        x=emission.x[which],
        size=emission.size[which],
        outcome=emission.outcome[which],
        bucket=emission.bucket[which],
        facet=emission.facet[which],
    )


def _joined(a: Emission, b: Emission) -> Emission:
    return replace(
        a,
        x=np.vstack([a.x, b.x]),
        size=np.append(a.size, b.size),
        outcome=np.vstack([a.outcome, b.outcome]),
        bucket=np.append(a.bucket, b.bucket),
        facet=np.append(a.facet, b.facet),
    )


def guess(before: Emission, after: Emission, mean: NDArray[np.float64], *, new: bool = False) -> NDArray[np.float64]:
    """What two looks say about the record that is in the first only, float64[D].

    Args:
        before, after: packets at two times; those in both cancel.
        mean: float64[D], what the attacker takes for records that it knows nothing of.
        new: whether records may have come in besides (the others' number is then read off the sizes).
    """
    total, count = (_sum(before, mean)[i] - _sum(after, mean)[i] for i in (0, 1))
    gone = _part(before, ~_in(before, after))
    fallback = _sum(gone, mean)[0] / max(_sum(gone, mean)[1], 1.0) if len(gone) else mean
    if new:
        # One record left; whoever came in is taken for a mean record.
        return np.clip(total - (count - 1.0) * mean, 0.0, 1.0)
    return np.clip(total / count, 0.0, 1.0) if count >= 0.5 else fallback


def _in(a: Emission, b: Emission) -> NDArray[np.bool_]:
    """Which packets of ``a`` are in ``b``, bool[m]."""
    left, right = ([row.tobytes() for row in np.hstack([e.x, e.outcome, e.size[:, None]])] for e in (a, b))
    there = set(right)
    return np.array([row in there for row in left], dtype=bool)


def _sum(emission: Emission, mean: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Sum of the records in all packets, and their number."""
    filled = np.where(np.isnan(emission.x), mean, emission.x)
    return (filled * emission.size[:, None]).sum(axis=0), float(emission.size.sum())


def differences(sites: list[Differences]) -> Differencing | None:
    """One summary over the sites that were attacked; None where there is none."""
    if not sites:
        return None
    mean = {
        name: float(np.nanmean(np.concatenate([getattr(s, name) for s in sites])))
        for name in ("packet", "regrouped", "reemitted")
    }
    return Differencing(
        error_packet=float(np.sqrt(mean["packet"])),
        error_regrouped=float(np.sqrt(mean["regrouped"])),
        error_reemitted=float(np.sqrt(mean["reemitted"])),
        gain_regrouped=decibel(mean["packet"], mean["regrouped"]),
        gain_reemitted=decibel(mean["packet"], mean["reemitted"]),
        targets=sum(len(s.packet) for s in sites),
    )
