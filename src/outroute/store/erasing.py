"""Which packets hold a case, a subject or a time, and erasing a subject.

Functions on a connection; ``Journal`` is the way in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.packet import PacketArray
from outroute.store.budget import erase_budget
from outroute.store.elections import forget_scored
from outroute.store.log import Event, append_entry
from outroute.store.outgoing import Erased, id_list, operator_text
from outroute.store.withdrawing import blank, withdraw

__all__ = ["amend", "case_packets", "erase", "subject_packets", "time_packets"]

_REASON = "a subject is erased"


def case_packets(connection: sqlite3.Connection, case: tuple[int, int]) -> NDArray[np.int64]:
    """See ``Journal.case_packets``."""
    return _packets(
        connection, "SELECT packet FROM observations WHERE case_high = ? AND case_low = ? AND packet IS NOT NULL", case
    )


def time_packets(connection: sqlite3.Connection, since: int, until: int) -> NDArray[np.int64]:
    """See ``Journal.time_packets``."""
    return _packets(
        connection,
        "SELECT DISTINCT packet FROM observations WHERE packet IS NOT NULL AND bucket >= ? AND bucket < ?",
        (since, until),
    )


def subject_packets(connection: sqlite3.Connection, subjects: Sequence[int]) -> NDArray[np.int64]:
    """See ``Journal.subject_packets``; ``subjects`` are the hashes under which it may be known."""
    within = "(SELECT value FROM json_each(?))"
    return _packets(
        connection,
        f"SELECT packet FROM observations WHERE subject IN {within} AND packet IS NOT NULL"
        f" UNION SELECT packet FROM conflicts WHERE subject IN {within} AND packet IS NOT NULL",
        (id_list(subjects), id_list(subjects)),
    )


def erase(
    connection: sqlite3.Connection,
    subjects: Sequence[int],
    case: tuple[int, int],
    ids: NDArray[np.int64],
    withdrawals: PacketArray,
    *,
    by: str,
    now: int,
    noisy: bool = False,
) -> Erased:
    """See ``Journal.erase``; ``case`` is the case of the same name, for cases that are subjects of their own."""
    by = operator_text(by, "who erases")
    found = subject_packets(connection, subjects)
    if noisy:
        erase_budget(connection, subjects)
    elif set(found.tolist()) != set(np.asarray(ids).tolist()):
        raise StoreError(
            "the packets with an observation of this subject are others by now: ask subject_packets again",
            code="store.erase",
        )
    hashes = id_list(subjects)
    within = "(SELECT value FROM json_each(?))"
    rows = [
        row[0]
        for row in connection.execute(
            f"SELECT id FROM observations WHERE subject IN {within}"
            f" UNION SELECT id FROM conflicts WHERE subject IN {within}",
            (hashes, hashes),
        )
    ]
    withdrawn = withdraw(connection, ids, withdrawals, by=by, reason=_REASON, now=now)
    former = _packets(connection, f"SELECT DISTINCT packet FROM former WHERE subject IN {within}", (hashes,))
    blank(connection, former)
    connection.execute(f"DELETE FROM former WHERE subject IN {within}", (hashes,))
    chosen = id_list(rows)
    questions = connection.execute(
        "DELETE FROM questions WHERE (case_high = ? AND case_low = ?) OR id IN (SELECT q.id FROM questions AS q"
        " JOIN observations AS o ON o.case_high = q.case_high AND o.case_low = q.case_low"
        f" WHERE o.id IN {within})",
        (*case, chosen),
    ).rowcount
    forget_scored(connection, case, chosen)
    connection.execute(f"DELETE FROM conflicts WHERE id IN {within}", (chosen,))
    observations = connection.execute(f"DELETE FROM observations WHERE id IN {within}", (chosen,)).rowcount
    append_entry(
        connection,
        Event.ERASED,
        now=now,
        by=by,
        observations=observations,
        questions=questions,
        packets=len(former),
    )
    return Erased(observations=observations, questions=questions, withdrawn=withdrawn)


def amend(connection: sqlite3.Connection, *, by: str, now: int, reason: str) -> int:
    """See ``Journal.amend``."""
    by, reason = operator_text(by, "who corrects"), operator_text(reason, "the reason")
    changed = connection.execute("SELECT codes, outcome, bucket, facet, subject, id FROM conflicts").fetchall()
    # What left was somebody else's, as it turns out: it counts as given by both.
    connection.execute(
        "INSERT INTO spent (subject, records) SELECT c.subject, count(*) FROM conflicts AS c"
        " JOIN observations AS o ON o.id = c.id WHERE o.subject <> c.subject GROUP BY c.subject"
        " ON CONFLICT (subject) DO UPDATE SET records = records + excluded.records"
    )
    connection.executemany(
        "UPDATE observations SET codes = ?, outcome = ?, bucket = ?, facet = ?, subject = ? WHERE id = ?", changed
    )
    connection.execute("DELETE FROM conflicts")
    append_entry(connection, Event.CORRECTED, now=now, by=by, reason=reason, packets=0, corrected=len(changed))
    return len(changed)


def _packets(connection: sqlite3.Connection, query: str, values: Sequence[object]) -> NDArray[np.int64]:
    """The numbers of packets that a query gives, rising."""
    return np.array(sorted(row[0] for row in connection.execute(query, tuple(values))), dtype=np.int64)
