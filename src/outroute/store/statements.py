"""What a node has learnt about keys, on its disk: its own certificate and the statements of organisations.

The file is appended to and never changed in place: each statement behind its length and a checksum, so that what a
crash cut off is noticed and left out. A command may append while a node runs; the node reads on from where it was.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from outroute.errors import StoreError
from outroute.identity import STATEMENT_BYTES, Certificate, Learned, Membership, Register, read_statement

__all__ = [
    "CERTIFICATE_FILE",
    "STATEMENTS_FILE",
    "StatementFile",
    "load_certificate",
    "load_membership",
    "load_standing",
    "save_membership",
]

CERTIFICATE_FILE = "node.certificate"
"""A node's own certificate in its directory, as it accepted it."""
STATEMENTS_FILE = "statements.log"
"""Statements in a node's directory."""
_RECORD = struct.Struct("<H8s")


class StatementFile:
    """Statements of one directory, in the order in which they were learnt.

    Args:
        directory: of a node; made when it is not there.

    """

    def __init__(self, directory: Path | str) -> None:
        self.path = Path(directory) / STATEMENTS_FILE
        self._place = 0
        self._file = -1

    def read_on(self) -> list[bytes]:
        """Statements appended since the last call; all of them at the first one.

        What is damaged is left out, and what was appended after it is found again.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            if not self.path.exists():
                return []
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._file or status.st_size < self._place:
                    self._file, self._place = status.st_ino, 0  # written anew: from its beginning
                if status.st_size == self._place:
                    return []
                file.seek(self._place)
                data = file.read()
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror}", code="store.statements") from None
        found, used = _records(data)
        self._place += used
        return found

    def append(self, statements: Sequence[bytes]) -> None:
        """Add statements, synced to disk on return.

        Raises:
            StoreError: they could not be written.
        """
        if not statements:
            return
        try:
            os.makedirs(self.path.parent, mode=0o700, exist_ok=True)
            with open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb", buffering=0) as file:
                file.write(b"".join(_record(one) for one in statements))
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}", code="store.statements") from None

    def rewrite(self, statements: Sequence[bytes]) -> None:
        """Write the file anew with these statements only.

        Raises:
            StoreError: it could not be written; the old one is still there.
        """
        part = self.path.with_name(f".{self.path.name}.part")
        data = b"".join(_record(one) for one in statements)
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path)
            self._file, self._place = self.path.stat().st_ino, len(data)
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}", code="store.statements") from None


def _record(statement: bytes) -> bytes:
    return _RECORD.pack(len(statement), hashlib.sha256(statement).digest()[:8]) + statement


def _records(data: bytes) -> tuple[list[bytes], int]:
    """The records of a piece of the file, and how many bytes they take; a record that goes on later is not read."""
    found: list[bytes] = []
    at = 0
    while at + _RECORD.size <= len(data):
        length, check = _RECORD.unpack_from(data, at)
        start = at + _RECORD.size
        one = data[start : start + length]
        if length <= STATEMENT_BYTES and len(one) == length and hashlib.sha256(one).digest()[:8] == check:
            found.append(one)
            at = start + length
            continue
        following = _next_record(data, at + 1)
        if following is None:
            break
        at = following
    return found, at


def _next_record(data: bytes, at: int) -> int | None:
    """Where the next whole record begins after a damaged one."""
    while (head := data.find(b"ORS\x01", at)) >= 0:
        start = head - _RECORD.size
        if start >= at:
            length, check = _RECORD.unpack_from(data, start)
            one = data[head : head + length]
            if len(one) == length <= STATEMENT_BYTES and hashlib.sha256(one).digest()[:8] == check:
                return start
        at = head + 1
    return None


def load_standing(directory: Path | str, *, now: int, organisations: Iterable[bytes] = ()) -> Register:
    """What a node's directory says about keys; empty for a new one.

    Args:
        directory: the node's.
        now: seconds since 1970-01-01 UTC.
        organisations: keys of the organisations that the network names, if it names any.

    Raises:
        StoreError: the file cannot be read.
    """
    register = Register(organisations)
    for data in StatementFile(directory).read_on():
        register.learn(data, now, checked=True)
    return register


def load_membership(directory: Path | str) -> Membership | None:
    """A node's own certificate as it accepted it; ``None`` when it has none.

    Raises:
        StoreError: the file cannot be read or is damaged.
    """
    path = Path(directory) / CERTIFICATE_FILE
    try:
        statement = read_statement(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}", code="store.certificate") from None
    if not isinstance(statement, Membership) or not statement.genuine():
        raise StoreError(
            f"{path} is damaged: install the certificate again with outroute org install", code="store.certificate"
        )
    return statement


def load_certificate(directory: Path | str) -> Certificate | None:
    """A node's own certificate; ``None`` when it has none. Whether it is still in time, ``Certificate.holds`` says.

    Raises:
        StoreError: the file cannot be read or is damaged.
    """
    found = load_membership(directory)
    return None if found is None else found.certificate


def save_membership(directory: Path | str, membership: Membership, *, now: int) -> None:
    """Keep a node's own certificate, and have it told to others.

    Raises:
        StoreError: it cannot be written.
    """
    path = Path(directory) / CERTIFICATE_FILE
    data = membership.to_bytes()
    found = load_standing(directory, now=now).learn(data, now)
    if isinstance(found, Learned) and found.new:
        StatementFile(directory).append([data])
    part = path.with_name(f".{path.name}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", code="store.certificate") from None
