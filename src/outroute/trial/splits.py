"""Which rows each site may learn from, and which it must answer.

Three protocols, never mixed in one table of results (DESIGN section 10):

* ``grouped``: whole groups (days, weeks, subjects) are held out, the *same* groups at every site, so that no peer
  has seen the held-out days either;
* ``rows``: rows are held out at random at each site; only where rows are exchangeable;
* ``concurrent``: each site's groups are held out on their own, so that peers *have* seen the days that a site must
  answer. It measures nowcasting, and flatters anything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError

__all__ = ["TEST_SHARE", "Protocol", "Split", "inner_folds", "split", "splits"]

TEST_SHARE = 0.3
"""Share of the groups (or rows) that is held out."""


class Protocol(StrEnum):
    """How rows are held out."""

    GROUPED = "grouped"
    ROWS = "rows"
    CONCURRENT = "concurrent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Row numbers of one repeat; train and test share no row.

    Attributes:
        repeat: number of the repeat, from 0.
        train: per site, int64 row numbers in ascending order; may be empty.
        test: per site, the same.
    """

    repeat: int
    train: Mapping[str, NDArray[np.int64]]
    test: Mapping[str, NDArray[np.int64]]


def split(
    site: NDArray[np.object_],
    group: NDArray[np.int64] | None,
    *,
    protocol: Protocol,
    repeat: int,
    seed: int,
    test_share: float = TEST_SHARE,
) -> Split:
    """One repeat's split; the same arguments give the same split.

    Args:
        site: n site names.
        group: int64[n], or None where rows are exchangeable.
        protocol: how rows are held out.
        repeat: number of the repeat, from 0.
        seed: seed of the trial.
        test_share: share of the groups (of each site's rows, with ``rows``) that is held out, between 0 and 1.

    Raises:
        DataError: the protocol needs groups and there are none, or fewer than two of them.
    """
    if not 0 < test_share < 1:
        raise DataError("the share held out must lie between 0 and 1", code="trial.share")
    rng = np.random.default_rng([seed, repeat, 0x5B117])
    sites = sorted(set(site.tolist()))
    if protocol is Protocol.ROWS:
        held = np.zeros(len(site), dtype=bool)
        for name in sites:
            held[_some(np.flatnonzero(site == name), test_share, rng)] = True
    else:
        if group is None:
            raise DataError(
                f"the protocol {protocol.value!r} holds out whole groups: name a time or subject column, "
                "or use the protocol 'rows' if rows are exchangeable",
                code="trial.groups",
            )
        if len(np.unique(group)) < 2:
            raise DataError("all rows share one group: nothing can be held out", code="trial.groups")
        if protocol is Protocol.GROUPED:
            held = np.isin(group, _some(np.unique(group), test_share, rng))
        else:
            held = np.zeros(len(site), dtype=bool)
            for name in sites:
                here = site == name
                held |= here & np.isin(group, _some(np.unique(group[here]), test_share, rng))
    return Split(
        repeat=repeat,
        train={name: np.flatnonzero((site == name) & ~held) for name in sites},
        test={name: np.flatnonzero((site == name) & held) for name in sites},
    )


def splits(
    site: NDArray[np.object_],
    group: NDArray[np.int64] | None,
    *,
    protocol: Protocol,
    repeats: int,
    seed: int,
    test_share: float = TEST_SHARE,
) -> Iterator[Split]:
    """Repeated splits, see :func:`split`."""
    for repeat in range(repeats):
        yield split(site, group, protocol=protocol, repeat=repeat, seed=seed, test_share=test_share)


def inner_folds(
    group: NDArray[np.int64], folds: int, rng: np.random.Generator, *, most_rows: int | None = None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Cross-validation inside the training rows: pairs of (train, validation) row numbers, whole groups each.

    Args:
        group: int64[n]; rows of one group stay together.
        folds: how many folds; fewer when there are fewer groups, none when there is one group.
        rng: shuffles the groups.
        most_rows: use this many rows at most, drawn at random from all groups (fewer rows of every day say more
            than all rows of fewer days).
    """
    if most_rows is not None and len(group) > most_rows:
        kept = np.sort(rng.permutation(len(group))[:most_rows])
        thinned = inner_folds(group[kept], folds, rng)
        return [(kept[train], kept[valid]) for train, valid in thinned]
    names, index, sizes = np.unique(group, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    folds = min(folds, len(order))
    if folds < 2:
        return []
    # Largest groups first, each to the emptiest fold; the shuffled order breaks ties.
    order = order[np.argsort(-sizes[order], kind="stable")]
    load = np.zeros(folds, dtype=np.int64)
    fold_of = np.empty(len(names), dtype=np.int64)
    for name in order:
        fold_of[name] = fold = int(np.argmin(load))
        load[fold] += sizes[name]
    mine = fold_of[index]
    return [(np.flatnonzero(mine != fold), np.flatnonzero(mine == fold)) for fold in range(folds)]


def _some(values: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """A share of the values, at random: at least one, and never all of two or more."""
    count = min(max(1, round(share * len(values))), max(1, len(values) - 1)) if len(values) > 1 else 0
    return rng.permutation(values)[:count]
