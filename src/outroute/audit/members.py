"""Guessing every member of a packet: its counts of categories are exact, reference rows say what goes together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from outroute.audit.traces import distances
from outroute.schema import FieldKind

if TYPE_CHECKING:
    from outroute.audit.emission import Emission
    from outroute.audit.scores import FieldScale
    from outroute.schema import Schema

__all__ = ["MOST_MEMBERS", "members", "split_up"]

MOST_MEMBERS = 64
"""Larger packets are not taken apart: the attacker guesses their mean."""


def members(
    schema: Schema,
    scale: FieldScale,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    packet: NDArray[np.int64],
    emission: Emission,
    pool: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    own: bool,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Errors of one guess per member, and of guesses that know no packet, all matched to the members as fits best.

    The matching uses the truth, which an attacker does not have: it is the same favour to all.

    Args:
        schema, scale: of the errors.
        x: float64[r, D], the records, NaN where missing.
        y: float64[r], their outcomes.
        packet: int64[r], their packets.
        emission: the packets.
        pool: rows that the attacker has, conditions and outcomes.
        own: the pool is ``x`` itself: rows of the attacked packet are left out of it.
        rng: draws public rows.

    Returns:
        Three float64[r]: from the packet; public rows of the members' classes; the public mean taken apart as a packet
        would be.
    """
    guessed, public, apart = (np.full(len(x), np.nan) for _ in range(3))
    middle = distances(scale, scale.mean[None, :], pool[0])[0]
    near = distances(scale, emission.x, pool[0])
    for number in range(len(emission)):
        inside = np.flatnonzero(packet == number)
        if not len(inside):
            continue
        usable = np.arange(len(pool[0]))
        if own:
            usable = np.flatnonzero(packet != number)
        size = len(inside)
        if len(usable) < size or size > MOST_MEMBERS:
            guessed[inside] = scale.errors(x[inside], emission.x[[number] * size])
            public[inside] = apart[inside] = scale.errors(x[inside], np.tile(scale.mean, (size, 1)))
            continue
        closest = usable[np.argsort(near[number, usable], kind="stable")[:size]]
        made = split_up(schema, emission.x[number], pool[0][closest], scale.mean)
        guessed[inside] = _matched(scale, x[inside], made)
        alike = [_same_class(schema, pool[1], usable, value, rng) for value in y[inside]]
        public[inside] = _matched(scale, x[inside], pool[0][alike])
        central = usable[np.argsort(middle[usable], kind="stable")[:size]]
        apart[inside] = _matched(scale, x[inside], split_up(schema, scale.mean, pool[0][central], scale.mean))
    return guessed, public, apart


def _same_class(
    schema: Schema, outcomes: NDArray[np.float64], usable: NDArray[np.int64], value: float, rng: np.random.Generator
) -> int:
    """One public row whose outcome is that of the record (numbers: among the tenth nearest)."""
    if schema.outcome.has_classes:
        same = usable[outcomes[usable] == value]
    else:
        far = np.abs(outcomes[usable] - value)
        same = usable[np.argsort(far, kind="stable")[: max(1, len(usable) // 10)]]
    return int(rng.choice(same if len(same) else usable))


def split_up(
    schema: Schema, mean: NDArray[np.float64], rows: NDArray[np.float64], middle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """As many records as rows are given, moved so that their mean is the packet's, float64[s, D].

    Numbers keep the rows' differences; categories have exactly the packet's counts and go to the rows that are nearest
    to having them.

    Args:
        schema: fields.
        mean: float64[D], the packet's conditions, NaN where missing.
        rows: float64[s, D], reference rows.
        middle: float64[D], for what is missing in a row.
    """
    size = len(rows)
    filled = np.where(np.isnan(rows), middle, rows)
    moved = filled - filled.mean(axis=0) + mean
    for field in schema.fields:
        where = schema.slots[field.name]
        if field.kind is FieldKind.NUMERIC:
            moved[:, where] = np.clip(moved[:, where], 0.0, 1.0)
        elif not np.isnan(mean[where.start]):
            moved[:, where] = _shared_out(moved[:, where], mean[where], size)
    return np.asarray(moved)


def _shared_out(score: NDArray[np.float64], share: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """One category a row, as often as the shares say, float64[s, C]."""
    exact = share * size
    count = np.floor(exact + 1e-6).astype(np.int64)
    for category in np.argsort(count - exact, kind="stable")[: size - int(count.sum())]:
        count[category] += 1
    seats = np.repeat(np.arange(len(share)), count)[:size]
    rows, places = linear_sum_assignment(-score[:, seats])
    out = np.zeros_like(score)
    out[rows, seats[places]] = 1.0
    return out


def _matched(scale: FieldScale, truth: NDArray[np.float64], guess: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors of the members when guesses are given to them as fits best, float64[s]."""
    size = len(truth)
    cost = np.stack([scale.errors(truth, np.tile(one, (size, 1))) for one in guess], axis=1)
    cost = np.where(np.isnan(cost), 0.0, cost)
    rows, columns = linear_sum_assignment(cost)
    out = np.empty(size)
    out[rows] = cost[rows, columns]
    return out
