"""Places for what is left over, and partners for cohorts whose outcomes all agree."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from outroute.distill.grouping import blocks_of

__all__ = ["MAX_PAIRS", "NEAREST_TRIED", "REGION_GROUPS", "absorb", "dissenting", "merge_agreeing", "number_parts"]

NEAREST_TRIED = 16
"""Cohorts that a left-over row tries to join, nearest first. Beyond them it would only blur a cohort it is unlike."""
MAX_PAIRS = 40_000_000
"""Pairs of groups compared without cutting them into regions first: about half a second."""
REGION_GROUPS = 4_096
"""Groups of a region; among so many a near one is near enough."""
_BLOCK_CELLS = 4_000_000
"""Distances held at once: 32 MB."""


def number_parts(*keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows with equal keys get equal numbers, int64[n], in the order of the keys' values."""
    number = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        values, at = np.unique(key, return_inverse=True)
        number = np.unique(number * max(len(values), 1) + at.ravel(), return_inverse=True)[1].ravel()
    return number.astype(np.int64)


def _centres(points: NDArray[np.float32], group: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean point and a first row of each group (groups are numbered without gaps)."""
    inside = np.flatnonzero(group >= 0)
    rows = inside[np.argsort(group[inside], kind="stable")]
    start = np.flatnonzero(np.diff(group[rows], prepend=-1))
    size = np.diff(np.append(start, len(rows)))
    return np.add.reduceat(points[rows].astype(np.float64), start, axis=0) / size[:, None], rows[start]


def _nearest(x: NDArray[np.float64], centres: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """The ``most`` nearest centres of each point, nearest first, int64[n, <= most]."""
    most = min(most, len(centres))
    out = np.empty((len(x), most), dtype=np.int64)
    step = max(1, _BLOCK_CELLS // max(1, len(centres)))
    square = (centres**2).sum(axis=1)
    for at in range(0, len(x), step):
        far = square[None, :] - 2.0 * (x[at : at + step] @ centres.T)
        best = np.sort(np.argpartition(far, most - 1, axis=1)[:, :most], axis=1)
        order = np.argsort(np.take_along_axis(far, best, axis=1), axis=1, kind="stable")
        out[at : at + step] = np.take_along_axis(best, order, axis=1)
    return out


def _compact(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same groups, numbered from 0 without gaps."""
    out = np.full(len(group), -1, dtype=np.int64)
    inside = group >= 0
    out[inside] = np.unique(group[inside], return_inverse=True)[1].ravel()
    return out


def absorb(
    points: NDArray[np.float32],
    part: NDArray[np.int64],
    subject: NDArray[np.int64],
    group: NDArray[np.int64],
    most: int,
) -> NDArray[np.int64]:
    """Let left-over rows join the nearest group of their part that has room and does not hold their subject yet.

    Args:
        points: float32[n, E].
        part, subject, group: int64[n]; -1 in ``group`` for left over.
        most: rows of a group at most.

    Returns:
        int64[n], groups as before with rows added.
    """
    group = _compact(group)
    if not (group >= 0).any() or not (group < 0).any():
        return group
    centres, first = _centres(points, group)
    home = part[first]
    members: dict[int, set[int]] = {}
    inside = np.flatnonzero(group >= 0)
    held = inside[np.argsort(group[inside], kind="stable")]
    start = np.append(np.flatnonzero(np.diff(group[held], prepend=-1)), len(held))
    free = np.flatnonzero(group < 0)
    ordered = free[np.argsort(part[free], kind="stable")]
    for rows in np.split(ordered, np.flatnonzero(np.diff(part[ordered])) + 1):
        here = np.flatnonzero(home == part[rows[0]])
        if not len(here):
            continue
        near = here[_nearest(points[rows].astype(np.float64), centres[here], NEAREST_TRIED)]
        for row, choices in zip(rows, near, strict=True):
            who = int(subject[row])
            for choice in choices.tolist():
                if choice not in members:
                    members[choice] = set(subject[held[start[choice] : start[choice + 1]]].tolist())
                # One row of a subject in a group: its rows and its subjects are equally many.
                if len(members[choice]) < most and who not in members[choice]:
                    group[row] = choice
                    members[choice].add(who)
                    break
    return group


def merge_agreeing(
    points: NDArray[np.float32],
    part: NDArray[np.int64],
    subject: NDArray[np.int64],
    label: NDArray[np.int64],
    group: NDArray[np.int64],
    dissent: int = 1,
) -> NDArray[np.int64]:
    """Join every group that holds (nearly) one label only to its nearest group of the same part that does not.

    Where no group of the part is mixed yet, groups of different labels are first joined in pairs. Rows whose
    subject is in the other group already, and groups of a part with one label only, are let go (-1).

    Args:
        points: float32[n, E].
        part, subject, label, group: int64[n].
        dissent: fewest rows of a group with another label than its most frequent one, 1 or more.

    Returns:
        int64[n], numbered from 0 without gaps.
    """
    group = _compact(group)
    if not (group >= 0).any():
        return group
    centres, first = _centres(points, group)
    home = part[first]
    m = len(first)
    low = np.full(m, np.iinfo(np.int64).max)
    inside = group >= 0
    np.minimum.at(low, group[inside], label[inside])
    others = dissenting(group, label, m)
    poor = others < dissent
    target = np.arange(m)
    holds = _subjects(group, subject, m)
    alone = np.flatnonzero(poor)
    ordered = alone[np.argsort(home[alone], kind="stable")]
    mixed_all = np.flatnonzero(~poor)
    mixed_all = mixed_all[np.argsort(home[mixed_all], kind="stable")]
    mixed_home = home[mixed_all]
    for mine in np.split(ordered, np.flatnonzero(np.diff(home[ordered])) + 1):
        if not len(mine):
            continue
        between = np.searchsorted(mixed_home, [home[mine[0]], home[mine[0]] + 1])
        mixed = mixed_all[between[0] : between[1]]
        if len(mixed):
            for some, hubs in _near_sets(centres, mine, mixed):
                _send(target, some, hubs, centres, holds)
            continue
        if dissent > 1:
            _gather(target, mine, centres, group, label, holds, dissent)
            continue
        values, number = np.unique(low[mine], return_counts=True)
        if len(values) > 1:
            common = low[mine] == values[number.argmax()]
            _send(target, mine[~common], mine[common], centres, holds)
            hubs = np.unique(target[mine[~common]])
            _send(target, np.setdiff1d(mine[common], hubs), hubs, centres, holds)
    return _join(group, target, subject, label, dissent)


def dissenting(group: NDArray[np.int64], label: NDArray[np.int64], m: int) -> NDArray[np.int64]:
    """Rows of each of m groups with another label than its most frequent one, int64[m]."""
    inside = np.flatnonzero(group >= 0)
    pairs, count = np.unique(np.column_stack([group[inside], label[inside]]), axis=0, return_counts=True)
    most = np.zeros(m, dtype=np.int64)
    np.maximum.at(most, pairs[:, 0], count)
    return np.asarray(np.bincount(group[inside], minlength=m) - most)


def _gather(
    target: NDArray[np.int64],
    mine: NDArray[np.int64],
    centres: NDArray[np.float64],
    group: NDArray[np.int64],
    label: NDArray[np.int64],
    holds: list[set[int]],
    dissent: int,
) -> None:
    """Join the groups of a part none of which holds enough dissent, half of them at a time, until the hubs do.

    The hubs are those that hold most of it. Whoever joins adds to the rows outside of the most frequent label and never
    takes from them.
    """
    hubs = mine
    while len(hubs) > 1:
        now = np.where(group >= 0, target[np.maximum(group, 0)], -1)
        others = dissenting(now, label, len(target))
        if (others[hubs] >= dissent).any():
            rich = hubs[others[hubs] >= dissent]
            _send(target, hubs[others[hubs] < dissent], rich, centres, holds)
            break
        order = hubs[np.argsort(-others[hubs], kind="stable")]
        hubs = np.sort(order[: (len(order) + 1) // 2])
        _send(target, np.sort(order[(len(order) + 1) // 2 :]), hubs, centres, holds)
    # Who went to a group that went on itself goes where that went.
    for _ in range(len(mine)):
        further = target[target[mine]]
        if np.array_equal(further, target[mine]):
            break
        target[mine] = further


def _near_sets(
    centres: NDArray[np.float64], mine: NDArray[np.int64], mixed: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Groups to place with the hubs to look at: all of them where that is affordable, else those of the same region.

    Without this, time would grow with the square of the number of groups.
    """
    if len(mine) * len(mixed) <= MAX_PAIRS:
        yield mine, mixed
        return
    everyone = np.sort(np.concatenate([mine, mixed]))
    is_hub = np.isin(np.arange(len(centres)), mixed)
    for block in blocks_of(centres.astype(np.float32), everyone, 1, REGION_GROUPS):
        hubs = block[is_hub[block]]
        yield block[~is_hub[block]], hubs if len(hubs) else mixed


def _subjects(group: NDArray[np.int64], subject: NDArray[np.int64], m: int) -> list[set[int]]:
    """Subjects of each of m groups."""
    out: list[set[int]] = [set() for _ in range(m)]
    inside = np.flatnonzero(group >= 0)
    for number, who in zip(group[inside].tolist(), subject[inside].tolist(), strict=True):
        out[number].add(who)
    return out


def _send(
    target: NDArray[np.int64],
    mine: NDArray[np.int64],
    hubs: NDArray[np.int64],
    centres: NDArray[np.float64],
    holds: list[set[int]],
) -> None:
    """Plan to join each group of ``mine`` to the nearest hub without any of its subjects, or with the fewest."""
    if not len(mine):
        return
    near = hubs[_nearest(centres[mine], centres[hubs], NEAREST_TRIED)]
    for number, choices in zip(mine.tolist(), near.tolist(), strict=True):
        best, fewest = choices[0], len(holds[number]) + 1
        for choice in choices:
            shared = len(holds[number] & holds[choice])
            if shared < fewest:
                best, fewest = choice, shared
            if not shared:
                break
        target[number] = best
        holds[best] |= holds[number]


def _join(
    group: NDArray[np.int64],
    target: NDArray[np.int64],
    subject: NDArray[np.int64],
    label: NDArray[np.int64],
    dissent: int,
) -> NDArray[np.int64]:
    """Carry the plan out: one row of a subject each; whatever still holds too little dissent is let go."""
    joined = np.where(group >= 0, target[np.maximum(group, 0)], -1)
    # The group that takes others in keeps its own rows; among newcomers the first row of a subject counts.
    stays = target[np.maximum(group, 0)] == group
    rows = np.flatnonzero(joined >= 0)
    order = rows[np.lexsort((~stays[rows], subject[rows], joined[rows]))]
    again = np.append(
        False,
        (joined[order[1:]] == joined[order[:-1]]) & (subject[order[1:]] == subject[order[:-1]]),
    )
    joined[order[again]] = -1
    joined = _compact(joined)
    m = int(joined.max(initial=-1)) + 1
    if m:
        inside = joined >= 0
        same = dissenting(joined, label, m) < dissent
        joined[inside & same[np.maximum(joined, 0)]] = -1
    return _compact(joined)
