"""Traces that a record leaves in an emission: the statistics that membership inference works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.audit.emission import outcome_numbers
from outroute.audit.solving import solve

if TYPE_CHECKING:
    from outroute.audit.emission import Emission
    from outroute.audit.scores import FieldScale
    from outroute.distill import Observations
    from outroute.schema import Schema

__all__ = ["NOISE_REACH", "could_hold", "distances", "traces"]

CHUNK_CELLS = 4_000_000
"""Numbers of one block of record x packet x slot: 32 MB."""
ROUNDING = 2.0 / 65534
"""A packet's numbers are rounded to 16 bits, shares by largest remainder: up to one code away, with a spare."""
NOISE_REACH = 3.0
"""Standard deviations of noise that an attacker allows for: more is seen in one slot of 400."""
MISSING_COST = 4.0
"""Squared distance, in field variances, of a packet that lacks a field which the record has: it cannot hold it."""
FAR = 1e3
"""Squared distance where no packet could hold the record, per field variance; every real distance is far below."""
KERNEL = 0.25
"""Bandwidth of the density of packets around a record: a quarter of the field variance, mean over fields."""


def distances(
    scale: FieldScale, x: NDArray[np.float64], packets: NDArray[np.float64], *, only: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Squared distance of records to packets in field variances, mean over the record's fields, float64[n, m].

    Args:
        scale: variances of the fields.
        x: float64[n, D], NaN where missing.
        packets: float64[m, D].
        only: bool[D], slots that the attacker knows; None: all.
    """
    weight = scale.weights() if only is None else np.where(only, scale.weights(), 0.0)
    known, there = ~np.isnan(x), ~np.isnan(packets)
    a, b = np.where(known, x - scale.mean, 0.0), np.where(there, packets - scale.mean, 0.0)
    # Three matrix products in place of a block of record x packet x slot.
    both = (a**2 * weight) @ there.T + known @ (b**2 * weight).T - 2 * (a * weight) @ b.T
    first = np.zeros(x.shape[1], dtype=bool)
    first[scale.first] = True
    counts = first & (weight > 0)
    lacking = (known & counts) @ (~there).T
    fields = np.maximum((known & counts).sum(axis=1), 1)
    return np.asarray((np.maximum(both, 0.0) + MISSING_COST * lacking) / fields[:, None])


def could_hold(x: NDArray[np.float64], outcome: NDArray[np.float64], emission: Emission) -> NDArray[np.bool_]:
    """Which packets could be means that include each record, by arithmetic alone, bool[n, m].

    A mean of s values between 0 and 1, one of which is v, lies between v / s and 1 - (1 - v) / s. The same holds for
    shares of categories and of classes. That excludes, for example, every packet without the record's category. Where
    the schema asks for noise, the attacker allows for as much of it as there ever is.

    Args:
        x: float64[n, D].
        outcome: float64[n, C], as in an emission.
        emission: packets.
    """
    values = np.hstack([x, outcome])
    packets = np.hstack([emission.x, emission.outcome])
    size = np.maximum(emission.size, 1.0)
    slack = np.full(values.shape[1], ROUNDING + NOISE_REACH * emission.noise)
    slack[x.shape[1] :] = 1.0 if emission.flip else ROUNDING
    out = np.empty((len(values), len(packets)), dtype=bool)
    step = max(1, CHUNK_CELLS // max(packets.size, 1))
    for at in range(0, len(values), step):
        part = values[at : at + step, None, :]
        fits = part / size[None, :, None] <= packets + slack
        fits &= packets <= 1 - (1 - part) / size[None, :, None] + slack
        # A field that the record lacks says nothing; one that only the packet lacks excludes it (NaN compares false).
        out[at : at + step] = (fits | np.isnan(part)).all(axis=2)
    return out


def traces(
    schema: Schema, scale: FieldScale, x: NDArray[np.float64], rows: Observations, emission: Emission
) -> NDArray[np.float64]:
    """Statistics of every record, float64[n, 9]; under ``private`` those of ``NoisySums``, float64[n, 3].

    In order: log distance to the nearest packet that could hold it; log distance to the nearest packet at all; log
    density of packets that could hold it; how many could; its place along the mean of all packets; log size of the
    nearest packet; how near that packet's outcome is to its own; its place along the mean of all outcomes; how far it
    is in a solution of the equations that packets are (:mod:`outroute.audit.solving`).

    Args:
        schema: the schema.
        scale: variances of the fields.
        x: float64[n, D], unit scale of ``rows``.
        rows: the records with their outcomes.
        emission: packets of one site.
    """
    if emission.noisy is not None:
        return emission.noisy.traces(rows)
    outcome = outcome_numbers(schema, rows.outcome)
    n = len(x)
    if not len(emission):
        return np.zeros((n, 9))
    square = distances(scale, x, emission.x)
    apart = rows.facet[:, None] != emission.facet[None, :]
    apart |= emission.bucket[None, :] < rows.bucket[:, None]
    possible = could_hold(x, outcome, emission) & ~apart
    held = np.where(possible, square, FAR)
    nearest = square.argmin(axis=1)
    every = np.arange(n)
    weight = scale.weights()
    mean = (emission.x * emission.size[:, None]).sum(axis=0) / max(float(emission.size.sum()), 1.0)
    shift = np.where(np.isnan(mean), 0.0, mean - scale.mean)
    along = (np.where(np.isnan(x), 0.0, x - scale.mean) * weight) @ shift
    total = (emission.outcome * emission.size[:, None]).sum(axis=0) / max(float(emission.size.sum()), 1.0)
    return np.stack(
        [
            np.log(held.min(axis=1) + 1e-6),
            np.log(square[every, nearest] + 1e-6),
            np.log((np.exp(-held / (2 * KERNEL)) * possible).sum(axis=1) + 1e-6),
            np.log1p(possible.sum(axis=1)),
            along,
            np.log(np.maximum(emission.size[nearest], 0.0) + 1.0),
            -((emission.outcome[nearest] - outcome) ** 2).sum(axis=1),
            (outcome - outcome.mean(axis=0)) @ total,
            solve(scale, x, outcome, emission, possible, square),
        ],
        axis=1,
    )
