"""One embedded database file: opened once, checked, migrated, and honest about what went wrong.

SQLite with a write-ahead log and a sync at each commit: what is committed survives a kill, and a
transaction that fails leaves nothing behind. Every error of the engine becomes a ``StoreError`` that says
what to do.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from outroute.errors import StoreError

__all__ = ["Database", "Migration", "scalar"]

#: A step from one layout to the next, run inside one transaction.
Migration = Callable[[sqlite3.Connection], None]

#: Bytes of a page. Seven packets of 512 bytes and their columns fill one to 96 %; larger pages would write
#: more for every change of the index.
PAGE_BYTES = 4096

#: KiB of page cache: holds the index of about a million packets.
CACHE_KIB = 64 * 1024

#: Bytes of the log kept after a checkpoint, so that one burst does not occupy the disk for ever.
LOG_BYTES = 16 * 1024 * 1024

#: A file up to this size (bytes) is checked in full at every opening (about 1 s); a larger one only when it
#: was not closed properly.
FULL_CHECK_BYTES = 512 * 1024 * 1024

_MESSAGES: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: ("store.full", "the disk is full: free some space and try again; nothing was lost"),
    sqlite3.SQLITE_IOERR: (
        "store.io",
        "the disk refused to read or write: check free space, quota and disk health, then try again",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "store.corrupt",
        "the file is damaged: restore it from a backup, or move it away",
    ),
    sqlite3.SQLITE_NOTADB: ("store.corrupt", "the file is not a database: restore it, or move it away"),
    sqlite3.SQLITE_BUSY: ("store.locked", "another program has the file open: close that program"),
    sqlite3.SQLITE_LOCKED: ("store.locked", "another program has the file open: close that program"),
    sqlite3.SQLITE_READONLY: ("store.readonly", "the file may not be written: check owner and permissions"),
    sqlite3.SQLITE_PERM: ("store.readonly", "the file may not be written: check owner and permissions"),
    sqlite3.SQLITE_CANTOPEN: ("store.open", "the file cannot be opened: check the path and its permissions"),
}


class Database:
    """One database file and its lock.

    Args:
        path: the file, or ``None`` for a database in memory. Its directory is made when it is not there.
        application: a number of our own in the file's header, so that no foreign file is opened.
        migrations: steps from the empty file to the newest layout; the count is the layout's version.
        page_limit: at most so many pages of 4,096 bytes, or ``None`` for no limit of our own.
        overwrite: overwrite with zeros what is deleted, so that nothing of it stays in unused parts of the file.

    Raises:
        StoreError: ``store.locked`` (open elsewhere), ``store.corrupt``, ``store.foreign``,
            ``store.newer`` (written by a newer release), ``store.open``, ``store.readonly``, ``store.full``.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        application: int,
        migrations: Sequence[Migration],
        page_limit: int | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = path
        self._guard = threading.RLock()
        self._lock: IO[bytes] | None = None
        self._closed = False
        if path is not None:
            self._prepare(path)
        try:
            self._connection = sqlite3.connect(
                ":memory:" if path is None else str(path), isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            self._unlock()
            raise self._translate(error) from error
        try:
            self._open(application, migrations, page_limit, overwrite)
        except sqlite3.Error as error:
            self._abandon()
            raise self._translate(error) from error
        except StoreError:
            self._abandon()
            raise

    @property
    def durable(self) -> bool:
        """True when a commit is on disk, not only in memory."""
        return self.path is not None

    def _prepare(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock_file(path.with_name(path.name + ".lock"))
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except BlockingIOError as error:
            raise StoreError(
                f"{path.parent} is in use by another outroute process: stop it, or choose another directory",
                code="store.locked",
            ) from error
        except OSError as error:
            self._unlock()
            raise StoreError(
                f"{path}: {error.strerror}: choose a directory that exists and may be written",
                code="store.open",
            ) from error

    def _open(self, application: int, migrations: Sequence[Migration], page_limit: int | None, overwrite: bool) -> None:
        run = self._connection.execute
        found = self._pragma("application_id")
        version = self._pragma("user_version")
        tables = run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and found != application:
            raise StoreError(f"{self.path} belongs to another program: choose another directory", code="store.foreign")
        if version > len(migrations):
            raise StoreError(
                f"{self.path} has layout {version}, newer than {len(migrations)}, the last known: upgrade outroute",
                code="store.newer",
            )
        if not tables:
            run(f"PRAGMA page_size = {PAGE_BYTES}")
        run(f"PRAGMA cache_size = -{CACHE_KIB}")
        run("PRAGMA temp_store = MEMORY")
        run(f"PRAGMA secure_delete = {int(overwrite)}")
        if self.path is not None:
            run("PRAGMA journal_mode = WAL")
            run("PRAGMA synchronous = FULL")
            run(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        if page_limit is not None:
            run(f"PRAGMA max_page_count = {page_limit}")
        if tables:
            self._check(version)
        with self.transaction() as connection:
            connection.execute(f"PRAGMA application_id = {application}")
            for number in range(version, len(migrations)):
                migrations[number](connection)
                connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("CREATE TABLE IF NOT EXISTS closing (clean INTEGER NOT NULL)")
            connection.execute("DELETE FROM closing")

    def _check(self, version: int) -> None:
        """Read the whole file for damage, unless it is large and was closed properly."""
        clean = version > 0 and self._connection.execute("SELECT count(*) FROM closing").fetchone()[0] > 0
        size = self._pragma("page_count") * PAGE_BYTES
        if size > FULL_CHECK_BYTES and clean:
            return
        verdict = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreError(
                f"{self.path} is damaged ({verdict}): restore it from a backup, or move it away",
                code="store.corrupt",
            )

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: commits (durably) on leaving, rolls back on any exception.

        Inside a running transaction it is a part of that one: kept or lost with it, and undone alone when an exception
        leaves it and is caught in between.

        Raises:
            StoreError: the engine failed; nothing of the transaction is kept.
        """
        with self._guard:
            self._alive()
            connection = self._connection
            inner = connection.in_transaction
            try:
                connection.execute("SAVEPOINT inner" if inner else "BEGIN IMMEDIATE")
                yield connection
                connection.execute("RELEASE inner" if inner else "COMMIT")
            except BaseException as error:
                if connection.in_transaction:  # the engine itself gives up a transaction when the disk is full
                    connection.execute("ROLLBACK TO inner" if inner else "ROLLBACK")
                    if inner:
                        connection.execute("RELEASE inner")
                if isinstance(error, sqlite3.Error):
                    raise self._translate(error) from error
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading.

        Raises:
            StoreError: the engine failed.
        """
        with self._guard:
            self._alive()
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise self._translate(error) from error

    def settle(self) -> None:
        """Move what was committed from the write-ahead log into the file, and empty the log."""
        with self.reading() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def pages(self) -> dict[str, int]:
        """Bytes in pages, per table and index; empty where the engine was built without ``dbstat``."""
        with self._guard:
            try:
                rows = self._connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name")
                return {str(name): int(size) for name, size in rows}
            except sqlite3.OperationalError:
                return {}

    def close(self) -> None:
        """Note that nothing is pending, close the file and free the directory; harmless when repeated."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            try:
                if self.path is not None:
                    self._connection.execute("INSERT INTO closing VALUES (1)")
            except sqlite3.Error:  # a full disk: the next opening checks the file, which is what it is for
                pass
            finally:
                self._abandon()

    def _alive(self) -> None:
        if self._closed:
            raise StoreError("this store is closed: open it again", code="store.closed")

    def _abandon(self) -> None:
        self._connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _translate(self, error: sqlite3.Error) -> StoreError:
        number = getattr(error, "sqlite_errorcode", 0) & 0xFF
        code, advice = _MESSAGES.get(number, ("store.engine", f"the database engine failed: {error}"))
        return StoreError(f"{self.path or 'store in memory'}: {advice}", code=code)


def _lock_file(path: Path) -> IO[bytes]:
    """An exclusive lock that ends with the process, however it ends.

    Raises:
        BlockingIOError: somebody else has it.
    """
    handle = path.open("ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            try:
                msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError as error:
                raise BlockingIOError(str(error)) from error
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        handle.close()
        raise
    return handle


def scalar(connection: sqlite3.Connection, query: str, *values: Any) -> int:
    """The single integer that a query gives; 0 for nothing."""
    row = connection.execute(query, values).fetchone()
    return int(row[0]) if row and row[0] is not None else 0
