"""Sequence numbers that are never given twice, also when the directory is copied, moved or restored.

A number's low half counts; its high half is an *incarnation*, new whenever the counter may have a double. Functions on
a connection inside a running transaction; ``Outbox`` is the way in.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from outroute.errors import StoreError
from outroute.store.log import Event, append_entry

__all__ = ["current", "new_incarnation", "reserve", "start"]

#: The counter is the low half of a sequence number (bits).
_COUNTER_BITS = 32


def start(connection: sqlite3.Connection, path: Path | None, *, now: int, restored: bool) -> bool:
    """Begin to count, or go on; whether the directory was found to be a copy, so that a new incarnation began."""
    file = _file_mark(path)
    row = connection.execute("SELECT file FROM counter").fetchone()
    if row is None:
        connection.execute("INSERT INTO counter VALUES (?, 0, ?)", (_incarnation(0, now), file))
        return False
    if not restored and row[0] == file:
        return False
    # A copy of the directory may be older than what was sent.
    connection.execute("UPDATE counter SET file = ?", (file,))
    new_incarnation(connection, now=now, why="restored" if restored else "copied")
    return True


def new_incarnation(connection: sqlite3.Connection, *, now: int, why: str) -> int:
    """See ``Outbox.new_incarnation``."""
    before = current(connection)
    after = _incarnation(before, now)
    connection.execute("UPDATE counter SET incarnation = ?, next = 0", (after,))
    append_entry(connection, Event.COPIED, now=now, why=why, before=before, incarnation=after)
    return after


def current(connection: sqlite3.Connection) -> int:
    """The incarnation of the numbers given now."""
    return int(connection.execute("SELECT incarnation FROM counter").fetchone()[0])


def reserve(connection: sqlite3.Connection, count: int) -> int:
    """See ``Outbox.reserve``."""
    if not 0 < count < 1 << _COUNTER_BITS:
        raise StoreError("reserve at least one and below 2**32 sequence numbers", code="store.reserve")
    incarnation, following = connection.execute("SELECT incarnation, next FROM counter").fetchone()
    if following + count > 1 << _COUNTER_BITS:
        incarnation, following = incarnation + 1, 0
    connection.execute("UPDATE counter SET incarnation = ?, next = ?", (incarnation, following + count))
    return (int(incarnation) << _COUNTER_BITS) + int(following)


def _incarnation(last: int, now: int) -> int:
    """A new incarnation: the clock, so that two restores of one backup differ; never one used before."""
    return max(last + 1, now % (1 << _COUNTER_BITS))


def _file_mark(path: Path | None) -> str:
    """What changes when a file is copied: device and inode. A snapshot of a whole disk keeps them."""
    if path is None:
        return ""
    found = os.stat(path)
    return f"{found.st_dev}:{found.st_ino}"
