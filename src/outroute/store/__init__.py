"""What a node keeps, and for how long: packets for others, and its own observations."""

from __future__ import annotations

from outroute.store.journal import Journal, Noted, Observed, Question, Which
from outroute.store.keys import load_identity
from outroute.store.outbox import Outbox, Queued, State
from outroute.store.packets import ANSWER_CAP, CELL_LIMIT, GRACE_SECONDS, CellEntries, Fetched, PacketStore

__all__ = [
    "ANSWER_CAP",
    "CELL_LIMIT",
    "GRACE_SECONDS",
    "CellEntries",
    "Fetched",
    "Journal",
    "Noted",
    "Observed",
    "Outbox",
    "PacketStore",
    "Question",
    "Queued",
    "State",
    "Which",
    "load_identity",
]
