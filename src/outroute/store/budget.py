"""What a node has spent of the privacy that its schema promises: releases made, and records that each subject gave.

It is written in the commit that puts a release into the outbox, so that no release is ever made and not counted. A
release stays counted whatever becomes of its packets: approving only releases whose noise one likes would undo it.

What was released can only be forgotten by going back to an older file. Three things tell: the file was copied (see
``outroute.store.counter``), a count beside it is ahead of it, or own packets are in the network that are not in the
outbox. From then on nothing more is released.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from enum import StrEnum, unique
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError
from outroute.store.log import Event, append_entry
from outroute.store.outgoing import operator_text

if TYPE_CHECKING:
    from outroute.store.database import Database

__all__ = ["COUNT_FILE", "Before", "Budget", "Doubt", "Given", "Promise", "Spent", "budget_layout", "erase_budget"]

COUNT_FILE = "releases.count"
"""Beside the journal: how many releases were made, so that an older journal put back is found out."""
EPSILON_UNITS, DELTA_UNITS = 10**9, 10**18
"""What was spent under predecessors is kept in these parts of epsilon and delta, rounded up."""
GONE, ERASED = 2**30, 2**31
"""Records that count as given by a subject of whom something left under a predecessor that promised nothing, and by one
that was erased: more than any schema allows."""


@unique
class Doubt(StrEnum):
    """Why it is not known what was released."""

    COPIED = "copied"
    """The directory was copied, moved, or restored from a backup: releases may have been made since, elsewhere."""
    SET_BACK = "set back"
    """The count beside the journal is ahead of it: an older journal was put back."""
    SEEN = "seen"
    """Packets of this node are in the network that its outbox does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a schema promises, as ``outroute.schema.Privacy`` has it.

    Attributes:
        epsilon, delta: over a node's lifetime, for each subject.
        m: records that a subject gives at most.
        releases: that a node makes at most.
    """

    epsilon: Decimal
    delta: Decimal
    m: int
    releases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What was spent under a predecessor of the schema.

    Attributes:
        schema: its id in hex.
        name: its name.
        releases: made under it, and not under its own predecessors.
        epsilon, delta, m: what it promised, as text; empty where it promised nothing.
    """

    schema: str
    name: str
    releases: int
    epsilon: str = ""
    delta: str = ""
    m: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was spent.

    Attributes:
        releases: made under this schema.
        before: under its predecessors, the oldest first.
        last_epoch: start of the time bucket of the last release, seconds; None before the first.
        doubt: why nothing more is released, or None.
        given: how many subjects gave how many records under this schema.
        erased: subjects that were erased: they give nothing more.
        gone: subjects of whom something left under a predecessor that promised nothing: nor do they.
        bound: subjects that give less, because of what they gave under predecessors.
    """

    releases: int
    before: tuple[Before, ...]
    last_epoch: int | None
    doubt: Doubt | None
    given: Mapping[int, int]
    erased: int
    gone: int
    bound: int

    @property
    def all_releases(self) -> int:
        """Made under this schema and its predecessors."""
        return self.releases + sum(one.releases for one in self.before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one subject has given.

    Attributes:
        records: under this schema.
        epsilon_before: what it cost the subject under predecessors of the schema.
        left: records that it may still give.
        erased: it was erased.
        gone: something of it left under a predecessor that promised nothing.
    """

    records: int
    epsilon_before: Fraction
    left: int
    erased: bool
    gone: bool


def budget_layout(connection: sqlite3.Connection) -> None:
    """Layout 3 to 4: releases, and what subjects gave."""
    connection.execute(
        "CREATE TABLE releases (number INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, at INTEGER NOT NULL,"
        " first INTEGER NOT NULL, packets INTEGER NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE spent (subject INTEGER PRIMARY KEY, records INTEGER NOT NULL, epsilon INTEGER NOT NULL DEFAULT 0,"
        " delta INTEGER NOT NULL DEFAULT 0)"
    )


class Budget:
    """The budget of a journal; made by ``Journal``, not by hand.

    Args:
        database: the journal's.
        copied: the directory was found to be a copy at this start.
    """

    def __init__(self, database: Database, *, copied: bool) -> None:
        self._database = database
        self._count_file = None if database.path is None else database.path.with_name(COUNT_FILE)
        made = self.spent().releases
        if copied:
            self.doubt(Doubt.COPIED)
        elif self._counted() > made:
            self.doubt(Doubt.SET_BACK)
        elif made:
            self._count(made)

    # reading ------------------------------------------------------------------------------------------------

    def spent(self) -> Spent:
        """What was spent up to now."""
        with self._database.reading() as connection:
            made, epoch = connection.execute("SELECT count(*), max(epoch) FROM releases").fetchone()
            given = connection.execute("SELECT records, count(*) FROM spent GROUP BY records ORDER BY records")
            counts = {int(records): int(subjects) for records, subjects in given.fetchall()}
            bound = connection.execute("SELECT count(*) FROM spent WHERE epsilon > 0 OR delta > 0").fetchone()[0]
            meta = _meta(connection)
        return Spent(
            releases=int(made),
            before=meta.before,
            last_epoch=None if epoch is None else int(epoch),
            doubt=meta.doubt,
            given={records: n for records, n in counts.items() if 0 < records < GONE},
            erased=counts.get(ERASED, 0),
            gone=counts.get(GONE, 0),
            bound=int(bound),
        )

    def left(self, subjects: NDArray[np.int64], promise: Promise) -> NDArray[np.int64]:
        """How many records each subject may still give, int64 ``[n]``.

        Args:
            subjects: int64 ``[n]``, as observations have them.
            promise: the schema's.
        """
        with self._database.reading() as connection:
            rows = connection.execute("SELECT subject, records, epsilon, delta FROM spent").fetchall()
        known = {row[0]: _allowed(promise, row[2], row[3]) - row[1] for row in rows}
        return np.array([max(known.get(one, promise.m), 0) for one in subjects.tolist()], dtype=np.int64)

    def given(self, subject: int, promise: Promise) -> Given | None:
        """What one subject has given; None where it gave nothing, nor was erased.

        Args:
            subject: as observations have it.
            promise: the schema's.
        """
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT records, epsilon, delta FROM spent WHERE subject = ?", (subject,)
            ).fetchone()
        if row is None:
            return None
        records, epsilon, delta = row
        return Given(
            records=records if records < GONE else 0,
            epsilon_before=Fraction(epsilon, EPSILON_UNITS),
            left=max(_allowed(promise, epsilon, delta) - records, 0),
            erased=records >= ERASED,
            gone=GONE <= records < ERASED,
        )

    def ranges(self) -> NDArray[np.int64]:
        """First number in the outbox, number of packets, and epoch of each release, int64 ``[n, 3]``."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT first, packets, epoch FROM releases ORDER BY number").fetchall()
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    # spending -----------------------------------------------------------------------------------------------

    def charge(self, subjects: NDArray[np.int64], *, epoch: int, first: int, packets: int, now: int) -> int:
        """Note a release, inside the transaction that puts its packets into the outbox; its number.

        Args:
            subjects: int64 ``[c]``, the subject of each record that was counted.
            epoch: start of the time bucket.
            first, packets: which rows of the outbox it fills.
            now: seconds since 1970.
        """
        who, records = np.unique(subjects, return_counts=True)
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO spent (subject, records) VALUES (?, ?)"
                " ON CONFLICT (subject) DO UPDATE SET records = records + excluded.records",
                list(zip(who.tolist(), records.tolist(), strict=True)),
            )
            made = connection.execute(
                "INSERT INTO releases (epoch, at, first, packets) VALUES (?, ?, ?, ?)", (epoch, now, first, packets)
            )
            return int(made.lastrowid or 0)

    def settle(self) -> None:
        """Write the count beside the journal, after the release was committed and before anything of it can leave."""
        self._count(self.spent().releases)

    # doubting -----------------------------------------------------------------------------------------------

    def doubt(self, why: Doubt) -> None:
        """Release nothing more; a graver reason stays."""
        grave = list(Doubt)
        with self._database.transaction() as connection:
            before = _meta(connection).doubt
            if before is None or grave.index(why) > grave.index(before):
                _put(connection, "budget_doubt", why.value)

    def vouch(self, *, by: str, now: int) -> None:
        """Somebody vouches that nothing was released since the backup, or by the other copy.

        Raises:
            StoreError: ``budget.doubt``, something was, as far as can be seen; ``budget.sure``, there is no doubt.
        """
        by = operator_text(by, "who vouches")
        with self._database.transaction() as connection:
            why = _meta(connection).doubt
            if why is None:
                raise StoreError("there is no doubt about what was released: nothing to vouch for", code="budget.sure")
            if why is not Doubt.COPIED or self._counted() > self.spent().releases:
                raise StoreError(
                    "releases were made that this directory does not know, so nobody can say whose budget is left: put "
                    "the newest journal.db back. Without it this node releases nothing more",
                    code="budget.doubt",
                )
            connection.execute("DELETE FROM meta WHERE name = 'budget_doubt'")
            append_entry(connection, Event.VOUCHED, now=now, by=by, releases=self.spent().releases)

    # carrying over ------------------------------------------------------------------------------------------

    def carry(self, parent: Budget, before: Before, promise: Promise | None, gone: NDArray[np.int64]) -> None:
        """Take over what was spent under the parent of the schema.

        Args:
            parent: the budget of the parent's journal.
            before: the parent.
            promise: what the parent promised; None where it promised nothing.
            gone: int64 ``[n]``, subjects of whom something left without a promise: they give nothing more.
        """
        spent = parent.spent()
        with parent._database.reading() as connection:
            rows = connection.execute("SELECT subject, records, epsilon, delta FROM spent").fetchall()
        with self._database.transaction() as connection:
            for subject, records, epsilon, delta in rows:
                if promise is not None and records < GONE:
                    epsilon += _up(Fraction(promise.epsilon) * records * EPSILON_UNITS / promise.m)
                    delta += _up(Fraction(promise.delta) * records * DELTA_UNITS / promise.m)
                    records = 0
                connection.execute("INSERT INTO spent VALUES (?, ?, ?, ?)", (subject, records, epsilon, delta))
            connection.executemany(
                "INSERT INTO spent (subject, records) VALUES (?, ?)"
                " ON CONFLICT (subject) DO UPDATE SET records = excluded.records",
                [(one, GONE) for one in np.unique(gone).tolist()],
            )
            _put(connection, "budget_before", json.dumps([asdict(one) for one in (*spent.before, before)]))
            if spent.doubt is not None:
                _put(connection, "budget_doubt", spent.doubt.value)

    # the count beside ---------------------------------------------------------------------------------------

    def _counted(self) -> int:
        """The count beside the journal; 0 where there is none."""
        try:
            return int(self._count_file.read_text()) if self._count_file is not None else 0
        except FileNotFoundError:
            return 0
        except (OSError, ValueError):
            raise StoreError(
                f"{self._count_file} cannot be read or is no number: put it back from the newest copy; it says how "
                "many releases were made",
                code="budget.count",
            ) from None

    def _count(self, made: int) -> None:
        if self._count_file is None or self._counted() == made:
            return
        part = self._count_file.with_name(COUNT_FILE + ".part")
        try:
            with open(part, "w", encoding="ascii") as file:
                file.write(f"{made}\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self._count_file)
        except OSError as error:
            raise StoreError(f"cannot write {self._count_file}: {error.strerror}", code="store.io") from error


def erase_budget(connection: sqlite3.Connection, subjects: Sequence[int]) -> None:
    """Let subjects give nothing more: who was erased and is observed again must not be told of twice.

    A keyed hash of the subject and a number stay; neither says who it was.
    """
    connection.executemany(
        "INSERT INTO spent (subject, records) SELECT ?1, ?2"
        " WHERE EXISTS (SELECT 1 FROM observations WHERE subject = ?1)"
        " OR EXISTS (SELECT 1 FROM spent WHERE subject = ?1)"
        " ON CONFLICT (subject) DO UPDATE SET records = ?2",
        [(one, ERASED) for one in subjects],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meta:
    before: tuple[Before, ...]
    doubt: Doubt | None


def _meta(connection: sqlite3.Connection) -> _Meta:
    rows = dict(connection.execute("SELECT name, value FROM meta WHERE name LIKE 'budget_%'").fetchall())
    before = json.loads(rows.get("budget_before", "[]"))
    why = rows.get("budget_doubt")
    return _Meta(before=tuple(Before(**one) for one in before), doubt=None if why is None else Doubt(why))


def _put(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute("DELETE FROM meta WHERE name = ?", (name,))
    connection.execute("INSERT INTO meta VALUES (?, ?)", (name, value))


def _allowed(promise: Promise, epsilon: int, delta: int) -> int:
    """Records that a subject may give under this schema in all, after what it gave under predecessors."""
    if not epsilon and not delta:
        return promise.m
    left = 1 - Fraction(epsilon, EPSILON_UNITS) / Fraction(promise.epsilon)
    if delta:
        chance = 1 - Fraction(delta, DELTA_UNITS) / Fraction(promise.delta) if promise.delta else Fraction(0)
        left = min(left, chance)
    return int(max(left, Fraction(0)) * promise.m)


def _up(value: Fraction) -> int:
    """A fraction rounded up."""
    return -int(-value // 1)
