"""How a node takes part in a network: where it listens, whom it calls, and who may be there.

A *closed* network has a secret of 32 bytes that every member proves, or a signed list of members, or both; whoever
lacks it is refused before a frame is read. An *open* one takes anybody.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets as random_bytes
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from outroute.errors import StoreError, TransportError
from outroute.transports import Role
from outroute.transports.channel import SECRET_BYTES, Secrets
from outroute.transports.places import is_place
from outroute.transports.url import Url, parse_url

__all__ = [
    "DEFAULT_TRANSPORT",
    "PEERS_FILE",
    "SECRET_FILE",
    "Joining",
    "Place",
    "keep_peers",
    "kept_peers",
    "load_secrets",
    "make_secret",
    "member_place",
    "place_of",
    "roles_of",
]

DEFAULT_TRANSPORT = "dht://"
"""Links over TLS, and a table in which members find each other."""
SECRET_FILE = "network.secret"
"""The network secret in a node's directory, mode 0600."""
PEERS_FILE = "peers"
"""Places of members met before, one a line: whom to call after a restart."""
PEERS_KEPT = 64
"""Places kept: any of them leads to all others."""
PLACE_CHARACTERS = 256
"""Characters of a place, as many as an announcement has room for."""
_SECRET_FILE_BYTES = 1024
_ANYWHERE = ("", "0.0.0.0", "::", "[::]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a member is reached.

    Attributes:
        host: empty where places of the transport are no hosts.
        port: 0 where places of the transport have none.
        rest: what follows, beginning with a slash; or all of it where places of the transport are no hosts.
    """

    host: str
    port: int
    rest: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}{self.rest}" if self.host else self.rest

    @property
    def anywhere(self) -> bool:
        """Whether it means all addresses of this machine, so that nobody else can use it."""
        return self.host in _ANYWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """How a node takes part.

    Attributes:
        listen: where it takes connections; port 0 for any free one.
        prefer: port to take again if it is free, where ``listen`` names none.
        advertise: what others are told, if that is another place: behind a router, say.
        join: places of other members; the first member needs none.
        dht: UDP port of the table in which members find each other; 0 for the number of the link's port; None for no
            table.
        secrets: of the network; none in an open one.
        members: signed list of members (``outroute.node.members``); None to admit whoever knows the secret.
        roles: what the node does.
        transport: what carries everything; links between nodes, or a store that others run.
    """

    listen: Place = Place(host="127.0.0.1", port=0)
    prefer: int = 0
    advertise: Place | None = None
    join: tuple[Place, ...] = ()
    dht: int | None = None
    secrets: Secrets = field(default_factory=Secrets)
    members: Path | None = None
    roles: Role = Role.EMIT | Role.ASK | Role.HOLD
    transport: Url = field(default_factory=lambda: parse_url(DEFAULT_TRANSPORT))

    def __post_init__(self) -> None:
        if self.listen.anywhere and self.advertise is None:
            raise TransportError(
                f"{self.listen} means every address of this machine: say with --advertise HOST:PORT where others reach "
                "it",
                code="transport.advertise",
            )

    @property
    def closed(self) -> bool:
        """Whether strangers are refused."""
        return bool(self.secrets.known) or self.members is not None


def place_of(text: str, *, default_host: str = "") -> Place:
    """Read ``HOST:PORT``, also ``[::1]:7000``.

    Args:
        text: what somebody wrote.
        default_host: for a port alone; empty to refuse that.

    Raises:
        TransportError: it is no place.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon and default_host:
        host = default_host
    if not is_place(f"{host}:{port}") or len(text) > PLACE_CHARACTERS:
        raise TransportError(f"'{text[:80]}' is no place: write HOST:PORT", code="transport.endpoint")
    return Place(host=host, port=int(port))


def member_place(text: str, *, default_host: str = "") -> Place:
    """Read a place of a member as any transport may write it: ``HOST:PORT``, ``HOST:PORT/KEY``, a name.

    Whether the transport in use can reach it is found out by calling.

    Args:
        text: what somebody wrote.
        default_host: for a port alone; empty to leave it as it is.

    Raises:
        TransportError: it is empty, too long, or has signs that no place has.
    """
    text = text.strip()
    if not text or len(text) > PLACE_CHARACTERS or not text.isascii() or not text.isprintable() or " " in text:
        raise TransportError(f"'{text[:80]}' is no place: write HOST:PORT", code="transport.endpoint")
    first, slash, rest = text.partition("/")
    try:
        found = place_of(first, default_host=default_host)
    except TransportError:
        return Place(host="", port=0, rest=text)
    return Place(host=found.host, port=found.port, rest=slash + rest)


def roles_of(text: str) -> Role:
    """Read roles separated by commas: ``emit,ask,hold``.

    Raises:
        TransportError: there is no such role, or none is named.
    """
    names = {role.name.lower(): role for role in Role if role.name}
    found = Role(0)
    for name in (part.strip().lower() for part in text.split(",")):
        if name not in names:
            raise TransportError(f"'{name}' is no role: give some of {', '.join(names)}", code="transport.roles")
        found |= names[name]
    return found


def load_secrets(file: Path) -> Secrets:
    """Read a secret file: the secret in hex, and under it the previous one while it rotates.

    Raises:
        StoreError: it cannot be read, or others than its owner may read it.
        TransportError: that is no secret.
    """
    try:
        if os.name == "posix" and file.stat().st_mode & 0o077:
            raise StoreError(
                f"others on this machine may read the network secret in '{file}': chmod 600 {file}",
                code="secret.permissions",
            )
        with open(file, "rb") as opened:
            lines = opened.read(_SECRET_FILE_BYTES).decode("ascii", errors="replace").split()
    except OSError as error:
        raise StoreError(f"cannot read the network secret '{file}': {error.strerror}", code="secret.read") from None
    if not 1 <= len(lines) <= 2 or any(not re.fullmatch(f"[0-9a-fA-F]{{{2 * SECRET_BYTES}}}", one) for one in lines):
        raise TransportError(
            f"'{file}' is no network secret: it has one line of {2 * SECRET_BYTES} hexadecimal digits, and under it "
            "the previous one while the secret rotates",
            code="transport.secret",
        )
    return Secrets(tuple(bytes.fromhex(one) for one in lines))


def make_secret(directory: Path) -> Secrets:
    """Make a network's secret in a node's directory; one that is there stays.

    Raises:
        StoreError: it cannot be written.
    """
    path = directory / SECRET_FILE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(random_bytes.token_bytes(SECRET_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(f"cannot write '{path}': {error.strerror}", code="secret.write") from None
    return load_secrets(path)


def kept_peers(directory: Path) -> list[Place]:
    """Places of members met before, as kept by ``keep_peers``; what is damaged is left out."""
    try:
        with open(directory / PEERS_FILE, encoding="utf-8", errors="replace") as file:
            lines = file.read(PEERS_KEPT * 300).split()[:PEERS_KEPT]
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(TransportError):
            found.append(member_place(line))
    return found


def keep_peers(directory: Path, places: Iterable[str]) -> None:
    """Keep places of members for the next start.

    Raises:
        OSError: they cannot be written; those kept before stay.
    """
    part = directory / f".{PEERS_FILE}.part"
    part.write_text("".join(f"{one}\n" for one in list(places)[:PEERS_KEPT]), encoding="utf-8")
    os.replace(part, directory / PEERS_FILE)
