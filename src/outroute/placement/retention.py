"""What stays when there is not room for everything: a sample that depends on the set alone.

A full cell and a capped answer are cut by the same rule. Within an author, packets are in the order of
their rank (a hash, so it favours nothing); authors of an organisation take turns, and organisations take
turns. The first ``limit`` packets of that order stay. So nobody gains room by sending more packets or by
making more keys under one organisation, and a party that does not fill its turn leaves it to the others
(max-min fairness).

The rule does not depend on the order of arrival: sampling, adding packets and sampling again gives what
sampling everything at once gives, because adding packets can only push the others back. It therefore needs
no memory of what was turned away, and two holders that saw the same packets keep the same ones.
Removing packets (withdrawal, expiry) does not bring back what was turned away before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from outroute.packet import PacketArray

__all__ = ["Wanted", "answered", "keyed_rank", "sample", "slot_ranks", "turn_order"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def keyed_rank(values: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """A well mixed 64-bit rank of each value, under a key: the same on every platform.

    It spreads, it does not hide: a party that chooses its values can choose their ranks, which only changes
    which of its own packets stay.

    Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, figure 17
    (the finaliser of SplitMix64).
    """
    mixed: NDArray[np.uint64] = (values ^ np.uint64(key)) + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


def slot_ranks(packets: PacketArray) -> NDArray[np.uint64]:
    """The rank of each packet, uint64[n]: a hash of its slot, so a packet and its withdrawal share one."""
    ranks = np.zeros(len(packets), dtype=np.uint64)
    parts = [packets[name].view("<u8")[:, word] for name in ("author", "schema") for word in range(4)]
    parts += [packets["sequence"].astype(np.uint64), packets["cell"].astype(np.uint64)]
    for number, part in enumerate(parts):
        ranks = keyed_rank(ranks ^ part, number)
    return ranks


def _place_in_group(order: NDArray[np.intp], group: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Place (from 0) of each element within its group; ``order`` sorts by group, then by precedence."""
    place = np.empty(len(order), dtype=np.int64)
    if len(order) == 0:
        return place
    sorted_group = group[order]
    starts = np.flatnonzero(np.r_[True, sorted_group[1:] != sorted_group[:-1]])
    lengths = np.diff(np.r_[starts, len(order)])
    place[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return place


def turn_order(
    rank: NDArray[np.uint64], author: NDArray[np.uint64], organisation: NDArray[np.uint64]
) -> NDArray[np.intp]:
    """All packets in the order in which they stay.

    Args:
        rank: uint64[n], lower first; a hash of the packet, distinct within an author.
        author: uint64[n], the leading bytes of the author's key.
        organisation: uint64[n], the leading bytes of the organisation's key; the same for all packets of
            an author.

    Returns:
        n indices, the first to stay first.
    """
    by_author = np.lexsort((rank, author))
    within_author = _place_in_group(by_author, author)
    by_organisation = np.lexsort((author, rank, within_author, organisation))
    within_organisation = _place_in_group(by_organisation, organisation)
    # Equal turns are broken by the organisation, not by the packet: only so does the order of arrival not
    # matter (a later packet may not change who wins a tie between two others).
    return np.lexsort((organisation, within_organisation))


def sample(
    rank: NDArray[np.uint64],
    author: NDArray[np.uint64],
    organisation: NDArray[np.uint64],
    limit: int,
) -> NDArray[np.bool_]:
    """Which packets stay when at most ``limit`` may: bool[n]; see ``turn_order`` for the arguments."""
    keep = np.zeros(len(rank), dtype=np.bool_)
    if len(rank) <= limit:
        keep[:] = True
    else:
        keep[turn_order(rank, author, organisation)[:limit]] = True
    return keep


class Wanted(NamedTuple):
    """An author whose packets a question wants."""

    author: int
    """The leading eight bytes of its key, little-endian, unsigned."""
    after: int
    """So many of its packets in a cell, the first by rank, the asker has already."""


def answered(
    rank: NDArray[np.uint64],
    author: NDArray[np.uint64],
    organisation: NDArray[np.uint64],
    cap: int,
    wanted: Sequence[Wanted] = (),
) -> tuple[NDArray[np.intp], int]:
    """What a capped answer shows of one cell.

    Args:
        rank, author, organisation: see ``turn_order``.
        cap: packets shown, at most.
        wanted: whose packets; none: everybody's.

    Returns:
        Indices of the packets that are shown, the first to be shown first; and how many more there are of those wanted
        beside them and beside what the asker has.
    """
    rows = np.arange(len(rank))
    if wanted:
        after = {one.author: one.after for one in wanted}
        mine = np.fromiter((a in after for a in author.tolist()), dtype=np.bool_, count=len(author))
        place = _place_in_group(np.lexsort((rank, author)), author)
        rows = rows[mine]
        rows = rows[place[rows] >= np.array([after[a] for a in author[rows].tolist()], dtype=np.int64)]
    shown = rows[turn_order(rank[rows], author[rows], organisation[rows])[:cap]]
    return shown, len(rows) - len(shown)
