"""What a node keeps, and for how long: packets for others, its own observations, and what left."""

from __future__ import annotations

from outroute.store.budget import COUNT_FILE, Before, Budget, Doubt, Given, Promise, Spent
from outroute.store.journal import Journal, Noted, Observed, Question, Which
from outroute.store.keys import former_identities, load_identity
from outroute.store.log import NAMED, AuditLog, Entry, Event, Problem, verify_lines
from outroute.store.outbox import Outbox
from outroute.store.outgoing import Approved, Erased, Kind, Queued, Review, State, Summary, Withdrawn
from outroute.store.packets import ANSWER_CAP, CELL_LIMIT, GRACE_SECONDS, CellEntries, Fetched, PacketStore
from outroute.store.statements import StatementFile, load_certificate, load_standing

__all__ = [
    "ANSWER_CAP",
    "CELL_LIMIT",
    "COUNT_FILE",
    "GRACE_SECONDS",
    "NAMED",
    "Approved",
    "AuditLog",
    "Before",
    "Budget",
    "CellEntries",
    "Doubt",
    "Entry",
    "Erased",
    "Event",
    "Given",
    "Fetched",
    "Journal",
    "Kind",
    "Noted",
    "Observed",
    "Outbox",
    "PacketStore",
    "Problem",
    "Promise",
    "Question",
    "Queued",
    "Review",
    "Spent",
    "State",
    "StatementFile",
    "Summary",
    "Which",
    "Withdrawn",
    "former_identities",
    "load_certificate",
    "load_identity",
    "load_standing",
    "verify_lines",
]
