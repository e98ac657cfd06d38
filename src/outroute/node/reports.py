"""What a node says about what it has done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from outroute.distill import Reason
from outroute.store import Erased, Withdrawn

if TYPE_CHECKING:
    from outroute.tables.observed import RowProblem

__all__ = ["Distillation", "Erasure", "HandedOver", "ObserveReport", "Published", "TakenBack"]


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
        approved: packets that rules or the schema approved, earlier ones that waited among them; the others wait.
        approved_by: what the log names as their approver; empty when packets are approved by hand.
    """

    packets: int
    observations: int
    withheld: Mapping[Reason, int]
    agreeing: int
    k: int
    approved: int = 0
    approved_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of the packets and withdrawals that were handed to the transport.

    Attributes:
        sent: handed over.
        acknowledged: kept by enough holders (in memory counts where this node's own store is in memory).
        refused: refused for good.
        pending: to be sent again.
        withdrawals: how many of those sent are withdrawals.
    """

    sent: int
    acknowledged: int
    refused: int
    pending: int
    withdrawals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """What was handed over as a file.

    Attributes:
        packets, withdrawals: how many of each are in it.
        content: its bytes, 512 for each.
    """

    packets: int
    withdrawals: int
    content: bytes = field(repr=False)

    @property
    def bytes(self) -> int:
        """Length of the content."""
        return len(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack(Withdrawn):
    """What became of packets that were taken back.

    Attributes:
        successors: the same for each directory to which observations were carried over with a schema's successor; its
            withdrawals leave with that node (``publish`` or ``hand_over`` there).
    """

    successors: tuple[tuple[Path, Withdrawn], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure(Erased):
    """What erasing a subject did; observations and questions are counted here and in all successors together."""

    withdrawn: TakenBack
