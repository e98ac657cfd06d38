"""An organisation's directory, and the files that certificates and statements travel in.

Both files hold one JSON object a line, so that they can be read, cut and joined with ordinary tools; what counts is
the hex in it, the rest is for people.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from outroute.cli._common import write_files
from outroute.errors import DataError, StoreError

if TYPE_CHECKING:
    from outroute.identity import Certificate, Identity, Revocation, Statement
    from outroute.store.keys import Passphrase

__all__ = [
    "NEXT_KEY_FILE",
    "Organisation",
    "certificate_line",
    "certificates_in",
    "day",
    "keep_name",
    "key_of",
    "keys_in",
    "statement_line",
    "statements_in",
]

NAME_FILE, ISSUED_FILE, REVOKED_FILE = "organisation.json", "issued.ndjson", "revoked.ndjson"
#: A key that is ready to follow the one in use.
NEXT_KEY_FILE: Final = "next.key"
#: Bytes of a file of certificates or statements, at most: a million of them.
FILE_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """An organisation's directory: its key, its name, and what it has issued."""

    directory: Path
    identity: Identity
    name: str

    @classmethod
    def open(cls, directory: Path, passphrase: Passphrase | None = None) -> Organisation:
        """Open the organisation in a directory.

        Raises:
            StoreError: there is none, or its key cannot be used.
        """
        from outroute.store.keys import ORGANISATION_KEY_FILE, load_identity

        if not (directory / ORGANISATION_KEY_FILE).exists():
            raise StoreError(
                f"There is no organisation in '{directory}': make one with outroute org init {directory}",
                code="org.missing",
            )
        identity = load_identity(directory, name=ORGANISATION_KEY_FILE, passphrase=passphrase, create=False)
        try:
            name = str(json.loads((directory / NAME_FILE).read_text(encoding="utf-8"))["name"])
        except (OSError, ValueError, KeyError, TypeError):
            name = ""
        return cls(directory=directory, identity=identity, name=name)

    @property
    def label(self) -> str:
        """Its name, or the start of its key."""
        return self.name or self.identity.public_key.hex()[:16]

    def note(self, certificates: Iterable[Certificate]) -> None:
        """Write down what was issued, synced to disk, before anybody gets it."""
        self._append(ISSUED_FILE, "".join(certificate_line(one) for one in certificates))

    def note_revoked(self, revocation: Revocation) -> None:
        """Write down what was revoked, synced to disk: it is never certified again."""
        self._append(REVOKED_FILE, statement_line(revocation))

    def _append(self, name: str, lines: str) -> None:
        path = self.directory / name
        # A line that a crash cut off before gets an end of its own.
        data = ("\n" if path.exists() else "") + lines
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
            file.write(data.encode())
            file.flush()
            os.fsync(file.fileno())

    def issued(self) -> dict[bytes, Certificate]:
        """The last certificate of each node, by node key."""
        path = self.directory / ISSUED_FILE
        return {one.node: one for one in certificates_in(path, lenient=True)} if path.exists() else {}

    def revoked(self) -> set[bytes]:
        """The keys that it has revoked."""
        from outroute.identity import Revocation, read_statement

        path = self.directory / REVOKED_FILE
        said = [read_statement(data) for data in statements_in(path, lenient=True)] if path.exists() else []
        return {one.subject for one in said if isinstance(one, Revocation)}


def day(seconds: int) -> str:
    """A time for people, in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"


def certificate_line(one: Certificate) -> str:
    """A certificate as one line of a file."""
    return (
        f'{{"certificate": "{one.to_bytes().hex()}", "node": "{one.node.hex()}", "organisation": '
        f'"{one.organisation.hex()}", "until": "{day(one.not_after)}"}}\n'
    )


def statement_line(one: Statement) -> str:
    """A statement as one line of a file."""
    from outroute.identity import Membership, Revocation

    said: dict[str, Any] = {"statement": one.to_bytes().hex()}
    if isinstance(one, Membership):
        said |= {"node": one.certificate.node.hex(), "organisation": one.certificate.organisation.hex()}
    elif isinstance(one, Revocation):
        said |= {"revoked": one.subject.hex(), "organisation": one.organisation.hex(), "compromised": one.compromised}
        said |= {"at": day(one.at)}
    else:
        said |= {"old": one.old.hex(), "new": one.new.hex(), "at": day(one.at)}
    return json.dumps(said) + "\n"


def certificates_in(path: Path, *, lenient: bool = False) -> Iterator[Certificate]:
    """The certificates of a file; call ``holds`` before believing one.

    Args:
        path: the file.
        lenient: whether a line that a crash cut off is passed over.

    Raises:
        DataError: a line is none.
    """
    from outroute.errors import OutrouteError
    from outroute.identity import Certificate

    for number, line in _lines(path):
        try:
            yield Certificate.from_bytes(bytes.fromhex(json.loads(line)["certificate"]))
        except (ValueError, KeyError, TypeError, OutrouteError):
            if lenient:
                continue
            raise DataError(
                f"{path}: line {number} is no certificate: give the file that outroute org enrol wrote",
                code="org.certificate",
            ) from None


def statements_in(path: Path, *, lenient: bool = False) -> Iterator[bytes]:
    """The statements of a file, not checked.

    Args:
        path: the file.
        lenient: whether a line that a crash cut off is passed over.

    Raises:
        DataError: a line is none.
    """
    for number, line in _lines(path):
        try:
            yield bytes.fromhex(json.loads(line)["statement"])
        except (ValueError, KeyError, TypeError):
            if lenient:
                continue
            raise DataError(
                f"{path}: line {number} is no statement: give a file that outroute org revoke or rotate wrote",
                code="org.statement",
            ) from None


def keys_in(path: Path) -> list[bytes]:
    """Public keys, one a line in hex; empty lines and those that begin with # do not count.

    Raises:
        DataError: a line is no key.
    """
    return [
        key_of(line, f"{path}: line {number}") for number, line in _lines(path) if not line.lstrip().startswith("#")
    ]


def key_of(text: str, where: str = "--key") -> bytes:
    """A public key from hex.

    Raises:
        DataError: it is none.
    """
    from outroute.identity import KEY_BYTES

    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise DataError(
            f"{where} is no public key: {2 * KEY_BYTES} hex digits expected, as outroute org show prints them",
            code="org.key",
        )
    return key


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines; empty ones are left out."""
    if path.stat().st_size > FILE_BYTES:
        raise DataError(f"{path} is larger than {FILE_BYTES >> 20} MiB: split it", code="org.large")
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def keep_name(directory: Path, name: str) -> None:
    """Write an organisation's name down."""
    write_files({directory / NAME_FILE: json.dumps({"name": name}, ensure_ascii=False) + "\n"}, force=True)
