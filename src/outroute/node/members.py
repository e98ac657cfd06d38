"""A signed list of the members of a closed network: their keys, and where those that listen are reached.

The file is JSON, so that people can read it: ``{"outroute": "members v1", "number": 3, "members": [{"key": HEX,
"place": "HOST:PORT", "name": "..."}], "signer": HEX, "signature": HEX}``. The signature covers the canonical JSON
(sorted names, no spaces) of everything before it. A node pins the first signer that it sees; where the schema names
organisations, the signer must be one of them. A list with a lower number than one seen before is refused, so nobody can
bring a member back by handing around an old list.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outroute.errors import OutrouteError, StoreError, TransportError
from outroute.identity import Identity, Purpose, node_id, verify
from outroute.node.joining import Place, member_place

__all__ = ["MEMBERS_BYTES", "MEMBERS_MOST", "Listed", "MemberList", "Pinned", "read_members", "sign_members"]

MEMBERS_MOST = 20_000
"""Members of a list, as many as a node remembers."""
MEMBERS_BYTES = 8_000_000
"""Bytes of the file: 400 for each member."""
PINNED_FILE = "members.pinned"
"""In a node's directory: who signs the list, and the highest number seen."""
_NAME_CHARACTERS = 100
_FORMAT = "members v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One member of a list.

    Attributes:
        key: its public key, 32 bytes.
        place: where it is reached; None for one that only calls others.
        name: for people.
    """

    key: bytes
    place: Place | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberList:
    """A list whose signature holds.

    Attributes:
        number: grows with every new list.
        members: who may take part.
        signer: public key of the organisation that signed, 32 bytes.
    """

    number: int
    members: tuple[Listed, ...]
    signer: bytes


def _signed(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def sign_members(members: Iterable[Listed], number: int, organisation: Identity) -> str:
    """The file of a list, signed by an organisation.

    Raises:
        TransportError: too many members, or one twice.
    """
    content: dict[str, Any] = {
        "outroute": _FORMAT,
        "number": number,
        "members": [
            {"key": one.key.hex(), "place": "" if one.place is None else str(one.place), "name": one.name}
            for one in members
        ],
        "signer": organisation.public_key.hex(),
    }
    content["signature"] = organisation.sign(Purpose.MEMBERS, _signed(content)).hex()
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    _parsed(text.encode(), "the list")
    return text


def read_members(file: Path) -> MemberList:
    """Read a list and check its signature.

    Raises:
        TransportError: it is no list, or its signature does not hold.
        StoreError: the file cannot be read.
    """
    try:
        with open(file, "rb") as opened:
            data = opened.read(MEMBERS_BYTES + 1)
    except OSError as error:
        raise StoreError(f"cannot read the member file '{file}': {error.strerror}", code="members.read") from None
    return _parsed(data, f"'{file}'")


def _parsed(data: bytes, what: str) -> MemberList:
    def bad(why: str) -> TransportError:
        return TransportError(f"{what} is no list of members: {why}; see outroute org members", code="members.format")

    if len(data) > MEMBERS_BYTES:
        raise bad(f"it has more than {MEMBERS_BYTES:,} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise bad("it is not JSON") from None
    if not isinstance(content, dict) or content.get("outroute") != _FORMAT:
        raise bad(f'it does not begin with "outroute": "{_FORMAT}"')
    signature, signer = _hex(content.pop("signature", None), 64), _hex(content.get("signer"), 32)
    number, rows = content.get("number"), content.get("members")
    if signature is None or signer is None or type(number) is not int or not 0 <= number < 2**53:
        raise bad("number, signer or signature is missing")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MEMBERS_MOST:
        raise bad(f"it has 1 to {MEMBERS_MOST:,} members")
    if not verify(Purpose.MEMBERS, signer, _signed(content), signature):
        raise TransportError(
            f"the signature of {what} does not hold: it was changed after it was signed; ask the organisation for it "
            "again",
            code="members.signature",
        )
    members: dict[bytes, Listed] = {}
    for row in rows:
        key = _hex(row.get("key"), 32) if isinstance(row, dict) else None
        if key is None:
            raise bad("a member has no key of 64 hexadecimal digits")
        if key in members:
            raise bad(f"{key.hex()[:16]} stands there twice")
        place, name = row.get("place", ""), row.get("name", "")
        if not isinstance(place, str) or not isinstance(name, str) or len(name) > _NAME_CHARACTERS:
            raise bad(f"place or name of {key.hex()[:16]} is no text, or too long")
        members[key] = Listed(key=key, place=member_place(place) if place else None, name=name)
    return MemberList(number=number, members=tuple(members.values()), signer=signer)


def _hex(text: object, size: int) -> bytes | None:
    if isinstance(text, str) and re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text):
        return bytes.fromhex(text)
    return None


class Pinned:
    """The list that a node goes by, read again when its file changes.

    Args:
        file: the list.
        directory: the node's: keeps who signs, and the highest number seen.
        organisations: keys of the organisations that the schema names, if it names any.

    Raises:
        TransportError: the list is signed by somebody else, older than one seen before, or no list.
        StoreError: a file cannot be read or written.
    """

    def __init__(self, file: Path, directory: Path, *, organisations: Sequence[bytes] = ()) -> None:
        self._file, self._pin, self._organisations = file, directory / PINNED_FILE, tuple(organisations)
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] = (0, 0)
        self.problem = ""
        """Why the file was not taken the last time that it changed; the list before stays in force."""
        self.list = self._checked()
        self._keys = frozenset(one.key for one in self.list.members)
        self._ids = frozenset(node_id(key) for key in self._keys)

    def admits(self, key: bytes) -> bool:
        """Whether the node with a public key may take part."""
        return key in self._keys

    def has(self, member: bytes) -> bool:
        """Whether the node with an id may take part."""
        return member in self._ids

    def places(self, own: bytes) -> list[Place]:
        """Where the others are reached.

        Args:
            own: public key of this node.
        """
        return [one.place for one in self.list.members if one.place is not None and one.key != own]

    def refresh(self) -> bool:
        """Read the file again if it changed; whether there is a new list."""
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return False
            found = self._checked()
        except (OSError, OutrouteError) as error:
            self.problem = str(error)
            return False
        self.problem = ""
        self.list = found
        self._keys = frozenset(one.key for one in found.members)
        self._ids = frozenset(node_id(key) for key in self._keys)
        return True

    def _checked(self) -> MemberList:
        with self._lock:
            found = read_members(self._file)
            status = self._file.stat()
            self._stamp = (status.st_mtime_ns, status.st_size)
            if self._organisations and found.signer not in self._organisations:
                raise TransportError(
                    f"the member file is signed by {found.signer.hex()[:16]}, which is no organisation of the schema",
                    code="members.signer",
                )
            signer, number = self._pinned()
            if signer is not None and found.signer != signer:
                raise TransportError(
                    f"the member file is signed by {found.signer.hex()[:16]}, the ones before by {signer.hex()[:16]}: "
                    f"if that is right, delete '{self._pin}'",
                    code="members.signer",
                )
            if found.number < number:
                raise TransportError(
                    f"the member file has number {found.number}, this node has seen {number} already: ask for the "
                    "newest",
                    code="members.old",
                )
            if signer is None or found.number != number:
                self._write(found)
            return found

    def _pinned(self) -> tuple[bytes | None, int]:
        try:
            signer, number = self._pin.read_text(encoding="ascii").split()
            return bytes.fromhex(signer), int(number)
        except FileNotFoundError:
            return None, 0
        except (OSError, ValueError):
            raise StoreError(f"'{self._pin}' cannot be read: restore it, or delete it", code="members.pinned") from None

    def _write(self, found: MemberList) -> None:
        part = self._pin.with_name(f".{self._pin.name}.part")
        try:
            part.write_text(f"{found.signer.hex()} {found.number}\n", encoding="ascii")
            os.replace(part, self._pin)
        except OSError as error:
            raise StoreError(f"cannot write '{self._pin}': {error.strerror}", code="members.pinned") from None
