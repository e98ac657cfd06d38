"""Who holds what: the owners of an address, what stays in a full cell, how holders compare (pure)."""

from __future__ import annotations

from outroute.placement.holding import EMPTY_DIGEST, NOTHING, Kept, Part, Summary, missing, set_digest, summary
from outroute.placement.owners import DEFAULT_REPLICAS, ID_BYTES, Member, Members, majority, points, vouched
from outroute.placement.retention import Wanted, answered, keyed_rank, sample, slot_ranks, turn_order
from outroute.placement.roster import Roster, network_size, shard

__all__ = [
    "DEFAULT_REPLICAS",
    "EMPTY_DIGEST",
    "NOTHING",
    "ID_BYTES",
    "Kept",
    "Member",
    "Members",
    "Part",
    "Roster",
    "Summary",
    "Wanted",
    "answered",
    "keyed_rank",
    "majority",
    "missing",
    "network_size",
    "points",
    "sample",
    "set_digest",
    "shard",
    "slot_ranks",
    "summary",
    "turn_order",
    "vouched",
]
