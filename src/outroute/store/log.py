"""What happened and who approved it, as a chain of entries that cannot be rewritten unnoticed.

An entry is a JSON object with sorted keys and without white space, in UTF-8; its hash is SHA-256 over
``"outroute log v1\\0"`` and these bytes, and ``previous`` in it is the hash of the entry before (zeros in the first).
Count and hash of the newest are the log's *head*. Whoever has noted a head can show later that nothing before it was
changed. An entry names packets, addresses and members by their hashes and says how many, when and who; conditions,
outcomes, cases and subjects are never in it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any, TextIO

from outroute.errors import StoreError
from outroute.store.database import Database

__all__ = ["NAMED", "AuditLog", "Entry", "Event", "Problem", "append_entry", "log_layout", "verify_lines"]

NAMED = 256
"""Packets, addresses or members that one entry names; more are spread over several entries, each a page to read."""

TEXT_CHARACTERS = 5000
"""Longest text in an entry: a name, a reason or the path of a file (4,096 bytes at most), not a document."""

_PREFIX = b"outroute log v1\0"
_START = bytes(32)

#: Entries read at a time, at most 17 kB each.
_CHUNK = 1000

#: Problems told; after so many the rest is hardly worth reading.
_PROBLEMS = 100

#: Fewest hexadecimal digits by which a head may be given: 48 bits, no chance hit among billions of entries.
_HEAD_DIGITS = 12

#: What every entry has; not to be given as a field.
_OWN = frozenset(("number", "at", "kind", "previous", "part", "parts"))

_Value = str | int | bytes | None | Sequence[str] | Sequence[int] | Sequence[bytes]


@unique
class Event(StrEnum):
    """What an entry records."""

    STARTED = "started"
    COPIED = "copied"
    DISTILLED = "distilled"
    REVIEWED = "reviewed"
    APPROVED = "approved"
    REJECTED = "rejected"
    SENT = "sent"
    SHARED = "shared"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    CORRECTED = "corrected"
    ERASED = "erased"
    ASKED = "asked"
    ANSWERED = "answered"
    RECEIVED = "received"
    PASSED_ON = "passed_on"
    MIGRATED = "migrated"
    PINNED = "pinned"
    UNPINNED = "unpinned"
    VOUCHED = "vouched"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry.

    Attributes:
        number: from 1, without gaps.
        at: seconds since 1970.
        kind: an ``Event``'s value; ``"unreadable"`` where the file was damaged (see ``AuditLog.verify``).
        fields: what else it says.
        hash: its hash in hex, a head to note down when it is the newest.
    """

    number: int
    at: int
    kind: str
    fields: Mapping[str, Any]
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong with a log.

    Attributes:
        number: the entry concerned, 0 for the log as a whole.
        text: what is wrong, for people.
    """

    number: int
    text: str

    def __str__(self) -> str:
        return self.text


def log_layout(connection: sqlite3.Connection) -> None:
    """Create the log's table and its empty head."""
    connection.execute("CREATE TABLE log (number INTEGER PRIMARY KEY, entry BLOB NOT NULL)")
    _write_head(connection, 0, _START)


def append_entry(connection: sqlite3.Connection, kind: Event, *, now: int, **fields: _Value) -> int:
    """Append inside a running transaction; see ``AuditLog.append``."""
    head = _read_head(connection)
    if head is None:
        raise StoreError("the log has lost its head: run outroute log verify, restore a backup", code="log.head")
    count, previous = head
    rows = []
    for part in _parts({name: _plain(name, value) for name, value in fields.items()}):
        count += 1
        entry = _canonical(
            {"number": count, "at": int(now), "kind": Event(kind).value, "previous": previous.hex()} | part
        )
        previous = _hash(entry)
        rows.append((count, entry))
    connection.executemany("INSERT INTO log VALUES (?, ?)", rows)
    _write_head(connection, count, previous)
    return count


class AuditLog:
    """The log of a journal; made by ``Journal``, not by hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, kind: Event, *, now: int, **fields: _Value) -> int:
        """Append an entry, durably; inside a running transaction it is kept or lost with that transaction.

        Args:
            kind: what happened.
            now: seconds since 1970.
            fields: text, whole numbers, hashes (bytes become hex), or lists of these. Of lists longer than ``NAMED``
                each of several entries holds a part; all else is repeated in each of them.

        Returns:
            The number of the (last) entry.

        Raises:
            StoreError: ``log.field``, a field that an entry cannot hold; or the file could not be written.
        """
        with self._database.transaction() as connection:
            return append_entry(connection, kind, now=now, **fields)

    def head(self) -> tuple[int, str]:
        """How many entries there are, and the hash of the newest in hex (zeros for none): worth noting elsewhere."""
        with self._database.reading() as connection:
            count, found = _read_head(connection) or (0, _START)
        return count, found.hex()

    def entries(self, after: int = 0, limit: int = 100) -> list[Entry]:
        """Entries with a number above ``after``, oldest first, at most ``limit``."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT number, CAST(entry AS BLOB) FROM log WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
            ).fetchall()
        out = []
        for number, raw in rows:
            found = _parsed(raw) or {"at": 0, "kind": "unreadable"}
            rest = {name: value for name, value in found.items() if name not in ("number", "at", "kind", "previous")}
            out.append(Entry(number=number, at=found["at"], kind=found["kind"], fields=rest, hash=_hash(raw).hex()))
        return out

    def verify(self, head: str | None = None) -> list[Problem]:
        """What is wrong with the log; empty when every entry is as it was written, in its place, none missing.

        Args:
            head: a head noted down earlier, in hex (at least 12 digits): shows too that the log up to there is the
                one of then, and was not written anew from the start.

        Raises:
            StoreError: ``log.head``, when ``head`` is no hash.
        """
        with self._database.reading() as connection:
            closing = _read_head(connection)
        checked = _Chain(head)
        for raw in self._raw():
            checked.take(raw)
        return checked.end(closing, "the log's head is gone: the file was tampered with")

    def export(self, stream: TextIO) -> int:
        """Write the log as lines of JSON, the last of them the head; how many entries. ``verify_lines`` checks them."""
        count, found = self.head()
        for raw in self._raw():
            stream.write(raw.decode(errors="replace") + "\n")
        stream.write(_canonical({"count": count, "head": found}).decode() + "\n")
        return count

    def _raw(self) -> Iterator[bytes]:
        after = -(2**63)
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(
                    "SELECT number, CAST(entry AS BLOB) FROM log WHERE number > ? ORDER BY number LIMIT ?",
                    (after, _CHUNK),
                ).fetchall()
            if not rows:
                return
            yield from (row[1] for row in rows)
            after = rows[-1][0]


def verify_lines(lines: Iterable[str], head: str | None = None) -> list[Problem]:
    """What is wrong with an exported log; empty when nothing is.

    Args:
        lines: as written by ``AuditLog.export``.
        head: see ``AuditLog.verify``.

    Raises:
        StoreError: ``log.head``, when ``head`` is no hash.
    """
    checked = _Chain(head)
    closing: tuple[int, bytes] | None = None
    for line in lines:
        text = line.strip()
        if not text:
            continue
        if closing is not None:
            checked.add(0, "there are lines after the closing line: they were added to the file")
            break
        closing = _closing(text)
        if closing is None:
            checked.take(text.encode(errors="surrogatepass"))
    return checked.end(closing, "the closing line is missing: the file was cut off; export the log again")


@dataclass(slots=True)
class _Chain:
    """Checks entries one after the other."""

    noted: str | None
    problems: list[Problem] = field(default_factory=list)
    last: int = 0
    previous: bytes = _START
    seen: bool = False

    def __post_init__(self) -> None:
        if self.noted is None:
            return
        self.noted = self.noted.strip().lower()
        if not _HEAD_DIGITS <= len(self.noted) <= 64 or set(self.noted) - set("0123456789abcdef"):
            raise StoreError(
                f"a head is a hash: give {_HEAD_DIGITS} to 64 hexadecimal digits as printed by outroute log verify",
                code="log.head",
            )
        self.seen = _START.hex().startswith(self.noted)

    def add(self, number: int, text: str) -> None:
        if len(self.problems) < _PROBLEMS:
            self.problems.append(Problem(number=number, text=text))

    def take(self, raw: bytes) -> None:
        entry = _parsed(raw)
        expected = self.last + 1
        if entry is None:
            self.add(expected, f"entry {expected:,} cannot be read: it was changed or cut off")
            self.last = expected
        else:
            number = entry["number"]
            if number > expected:
                what = (
                    f"entry {expected:,} is"
                    if number == expected + 1
                    else f"entries {expected:,} to {number - 1:,} are"
                )
                self.add(expected, f"{what} missing")
            elif number < expected:
                self.add(number, f"entry {number:,} stands after entry {self.last:,}: out of order, or added")
            elif entry["previous"] != self.previous.hex():
                at = self.last
                text = f"entry {at:,} was changed" if at else "entry 1 does not begin a log: it was changed"
                self.add(at or 1, text if not at else f"{text}: entry {number:,} names another hash for it")
            self.last = number
        self.previous = _hash(raw)
        self.seen = self.seen or (self.noted is not None and self.previous.hex().startswith(self.noted))

    def end(self, closing: tuple[int, bytes] | None, without: str) -> list[Problem]:
        if closing is None:
            self.add(0, without)
        elif self.last < closing[0]:
            missing = closing[0] - self.last
            self.add(self.last + 1, f"{missing:,} entries are missing at the end: the log was cut off")
        elif self.last > closing[0]:
            self.add(
                closing[0] + 1, f"entries after entry {closing[0]:,} were added: the log's head does not know them"
            )
        elif self.previous != closing[1]:
            self.add(self.last, f"entry {self.last:,}, the last, was changed: the log's head has another hash for it")
        if self.noted is not None and not self.seen:
            self.add(
                0, f"the head {self.noted[:16]} is not in this log: it was rewritten or cut off since, or is another"
            )
        return self.problems


def _hash(entry: bytes) -> bytes:
    return hashlib.sha256(_PREFIX + entry).digest()


def _canonical(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """An entry, or ``None`` when it is none."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    right = all(type(found.get(name)) is int for name in ("number", "at"))
    return found if right and all(type(found.get(name)) is str for name in ("kind", "previous")) else None


def _closing(line: str) -> tuple[int, bytes] | None:
    """Count and hash of a closing line, or ``None`` when it is another."""
    try:
        found = json.loads(line)
        if set(found) == {"count", "head"} and type(found["count"]) is int:
            return found["count"], bytes.fromhex(found["head"])
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def _plain(name: str, value: _Value) -> object:
    """A field's value as it stands in JSON."""
    if name not in _OWN:
        if isinstance(value, bytes):
            return value.hex()
        if value is None or type(value) is int:
            return value
        if isinstance(value, str) and len(value) <= TEXT_CHARACTERS:
            return value.encode(errors="backslashreplace").decode()  # names of files may be no Unicode
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [_plain(name, item) for item in value]
    raise StoreError(
        f"{name}: an entry holds whole numbers, hashes and text of at most {TEXT_CHARACTERS} characters",
        code="log.field",
    )


def _parts(fields: dict[str, object]) -> Iterator[dict[str, object]]:
    """The fields of one entry, or of several where a list is too long for one."""
    long = {name: value for name, value in fields.items() if isinstance(value, list) and len(value) > NAMED}
    if not long:
        yield fields
        return
    parts = max(-(-len(value) // NAMED) for value in long.values())
    for part in range(parts):
        cut = {name: value[part * NAMED : (part + 1) * NAMED] for name, value in long.items()}
        yield fields | cut | {"part": part + 1, "parts": parts}


def _read_head(connection: sqlite3.Connection) -> tuple[int, bytes] | None:
    row = connection.execute("SELECT value FROM meta WHERE name = 'log'").fetchone()
    if row is None or not isinstance(row[0], bytes) or len(row[0]) != 40:
        return None
    return int.from_bytes(row[0][:8], "little"), row[0][8:]


def _write_head(connection: sqlite3.Connection, count: int, newest: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('log', ?)", (count.to_bytes(8, "little") + newest,))
