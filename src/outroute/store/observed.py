"""What a journal says: what became of an observation, observations as arrays, questions; and its tables."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum, IntEnum, unique

import numpy as np
from numpy.typing import NDArray

from outroute.store.outgoing import outbox_layout

__all__ = ["Noted", "Observed", "Question", "Which", "journal_layout"]


@unique
class Noted(IntEnum):
    """What became of one observation; the numbers are stable."""

    #: New.
    ADDED = 0
    #: Known, nothing in it is new; counts once.
    DUPLICATE = 1
    #: Known, and its outcome has come now.
    CONFIRMED = 2
    #: Known, and different now; it had not left yet, so the new values replace the old.
    UPDATED = 3
    #: Known and different, but it has left in a packet: kept aside for a correction.
    CONFLICT = 4
    #: An outcome for a case that is not known here.
    UNKNOWN = 5


@unique
class Which(Enum):
    """Which observations to read."""

    #: All with an outcome: the node's own records.
    KNOWN = "outcome IS NOT NULL"
    #: With an outcome, in no packet and not excluded: to be distilled.
    READY = "outcome IS NOT NULL AND packet IS NULL AND excluded IS NULL"
    #: Without an outcome.
    WAITING = "outcome IS NULL"
    #: Their packet was rejected for good: not distilled again.
    EXCLUDED = "excluded IS NOT NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Observations as arrays, in order of arrival.

    Attributes:
        rows: int64[n], their numbers in the journal.
        codes: uint16[n, D].
        outcome: float64[n], NaN while it waits.
        subject: int64[n], equal for the same subject; says nothing else.
        bucket: int64[n], start of the time bucket, seconds since 1970.
        facet: int64[n].
        packet: int64[n], number in the outbox of the packet that it is in, or -1.
        emitted: bool[n], true once an approved packet held it: it may have left. With ``packet`` -1 it is *stale*: what
            it left in has been withdrawn.
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.uint16]
    outcome: NDArray[np.float64]
    subject: NDArray[np.int64]
    bucket: NDArray[np.int64]
    facet: NDArray[np.int64]
    packet: NDArray[np.int64]
    emitted: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question asked before.

    Attributes:
        asked: when, seconds since 1970.
        payload: what was asked.
        said: what was said of it, if that is to be scored.
    """

    asked: int
    payload: bytes
    said: bytes | None = None


def journal_layout(connection: sqlite3.Connection) -> None:
    """Create the tables of the journal (layout 1)."""
    for statement in (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
        "CREATE TABLE observations (id INTEGER PRIMARY KEY, case_high INTEGER NOT NULL,"
        " case_low INTEGER NOT NULL, subject INTEGER NOT NULL, bucket INTEGER NOT NULL,"
        " facet INTEGER NOT NULL, outcome REAL, packet INTEGER, codes BLOB NOT NULL)",
        "CREATE INDEX by_case ON observations (case_high)",
        "CREATE INDEX by_packet ON observations (packet) WHERE packet IS NOT NULL",
        "CREATE TABLE conflicts (id INTEGER PRIMARY KEY, subject INTEGER NOT NULL, bucket INTEGER NOT NULL,"
        " facet INTEGER NOT NULL, outcome REAL, packet INTEGER, codes BLOB NOT NULL)",
        "CREATE TABLE questions (id INTEGER PRIMARY KEY, case_high INTEGER NOT NULL,"
        " case_low INTEGER NOT NULL, asked INTEGER NOT NULL, payload BLOB NOT NULL)",
        "CREATE INDEX by_question ON questions (case_high)",
    ):
        connection.execute(statement)
    outbox_layout(connection)
