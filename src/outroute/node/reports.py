"""What a node says about what it has done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outroute.distill import Reason

if TYPE_CHECKING:
    from outroute.tables.observed import RowProblem

__all__ = ["Distillation", "ObserveReport", "Published"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveReport:
    """What became of a table.

    Attributes:
        seen: rows read.
        added, duplicate, confirmed, updated, conflict: observations by what they were to this node. A conflict is
            a case that changed after it had left in a packet: the old one stays until it is corrected.
        waiting: rows among them whose outcome is not known yet.
        refused: rows that could not be used.
        problems: why, one entry a field and reason.
    """

    seen: int = 0
    added: int = 0
    duplicate: int = 0
    confirmed: int = 0
    updated: int = 0
    conflict: int = 0
    waiting: int = 0
    refused: int = 0
    problems: tuple[RowProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """What distilling made and what it withheld.

    Attributes:
        packets: new packets in the outbox.
        observations: condensed in them.
        withheld: observations that stay, by reason.
        agreeing: packets whose outcomes all agree.
        k: subjects asked for in a packet.
    """

    packets: int
    observations: int
    withheld: Mapping[Reason, int]
    agreeing: int
    k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of the packets that were handed to the transport.

    Attributes:
        sent: packets handed over.
        acknowledged: kept by enough holders (in memory counts where this node's own store is in memory).
        refused: refused for good.
        pending: to be sent again.
    """

    sent: int
    acknowledged: int
    refused: int
    pending: int
