"""What a node lives on: a ``Holder`` that is started and stopped, and says who is there.

Members over links are one (``outroute.transports.mesh``); a store that others run, such as NATS, is another and is made
by ``HolderMaker`` from a ``Setting``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from outroute.identity import Certificate, Identity
from outroute.packet import Rejection
from outroute.schema import Schema
from outroute.transports.channel import Secrets
from outroute.transports.contract import (
    ADDRESS_REFUSED,
    AUTHOR_COMPROMISED,
    AUTHOR_REVOKED,
    SCHEMA_REFUSED,
    Announcement,
    Holder,
    Role,
)
from outroute.transports.guard import Guard
from outroute.transports.keeper import Keeper, Shelf
from outroute.transports.standing import Standing
from outroute.transports.url import Url

__all__ = [
    "Counted",
    "HolderMaker",
    "Keeps",
    "NodeTransport",
    "OwnShelf",
    "Setting",
    "StartedTransport",
    "named",
    "reasons_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Something that a transport counts, for Prometheus.

    Attributes:
        name: of the family, without ``outroute_``; ends in ``_total``.
        text: what is counted.
        label: what tells the counts apart.
        values: count by label.
    """

    name: str
    text: str
    label: str
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a node gives to a transport that is a ``Holder`` by itself.

    Attributes:
        schema: what the node serves.
        directory: the node's; the transport may keep files of its own in it.
        identity: the node's; nothing but this signs in its name.
        certificate: its organisation's word for it.
        roles: what the node does.
        secrets: of the network; none in an open one. Addresses are hashes with it already; whether outsiders may reach
            the store is the store's matter.
        admit: whether the node with a public key may take part (signed list of members, revocations); asked anew each
            time.
        guard: checks packets; everything that comes from the store goes through it (``Use.ANSWER``).
        standing: what is known about keys; take statements in with ``learn``.
        clock: seconds since 1970.
        open_shelf: opens the node's packet store, for a transport whose nodes keep packets too; the transport closes
            it (``sweep``, ``close`` and ``abandon`` reach it there). One that keeps none never calls it.
        join: places that the user named; a transport of servers needs none.
    """

    schema: Schema
    directory: Path
    identity: Identity
    certificate: Certificate | None
    roles: Role
    secrets: Secrets
    admit: Callable[[bytes], bool]
    guard: Guard
    standing: Standing
    clock: Callable[[], int]
    open_shelf: Callable[[], OwnShelf]
    join: tuple[str, ...] = ()


class NodeTransport(Holder, Protocol):
    """What ``outroute node`` needs of a transport besides ``deposit`` and ``fetch``.

    Every coroutine runs in one event loop, everything else in any thread.

    Attributes:
        endpoint: where this node is reached by others; empty where nobody calls it.
        standing: what is known about keys (revocations, successions, who belongs to which organisation).
        guard: what checks packets.
    """

    endpoint: str
    standing: Standing
    guard: Guard

    @property
    def organisations(self) -> Mapping[bytes, bytes]:
        """Author's key to organisation's key, as far as it is known."""

    @property
    def announcements(self) -> Counter[str]:
        """Announcements heard, by what came of them; "twin": somebody else made them with this node's key."""

    async def stop(self) -> None:
        """End at once, without a word; harmless when it was not started. ``close`` leaves properly."""

    async def join(self, places: Iterable[str]) -> None:
        """Call whoever is at some places.

        Raises:
            TransportError: there are places and nobody answered at any.
        """

    def peers(self) -> list[Announcement]:
        """Announcements of the live members known, this one's among them, by id."""

    def network_size(self) -> int:
        """How many members the network has, about."""

    @property
    def problems(self) -> Mapping[str, str]:
        """What goes wrong at the moment, by what it does by itself; in words that say what to do."""

    def renew(self, secrets: Secrets) -> None:
        """The network secret rotates: new channels prove the new one."""

    def sweep(self, now: int) -> None:
        """Delete what has expired from what this node keeps itself."""

    def abandon(self) -> None:
        """Close files that were opened, when the start failed; after ``stop``."""

    def counted(self) -> Iterable[Counted]:
        """What it counts."""


class OwnShelf(Shelf, Protocol):
    """A node's packet store, which whoever opened it closes."""

    def sweep(self, now: int) -> int:
        """Delete what expired more than an hour ago; how many."""

    def close(self) -> None:
        """Close it; harmless when repeated."""


@runtime_checkable
class Keeps(Protocol):
    """A transport whose node keeps packets: it says what it answers for others, and what is withdrawn there.

    Attributes:
        keeper: answers others; told by ``keeper.answered``.
        shelf: the node's own store.
    """

    keeper: Keeper
    shelf: Shelf


class StartedTransport(NodeTransport, Protocol):
    """A transport that is a ``Holder`` by itself."""

    async def start(self) -> None:
        """Connect, and live on until ``close`` or ``stop``.

        Raises:
            TransportError: the server cannot be reached or refuses; one line that says which server, why, what to do.
        """


class HolderMaker(Protocol):
    """The class of a transport that is a ``Holder`` by itself; see ``outroute.transports.registry``."""

    def for_node(self, url: Url, setting: Setting) -> StartedTransport:
        """One for a node, not started yet.

        Raises:
            TransportError: the URL cannot be used.
        """


_REASONS = {
    ADDRESS_REFUSED: "address",
    SCHEMA_REFUSED: "schema_not_served",
    AUTHOR_REVOKED: "author_revoked",
    AUTHOR_COMPROMISED: "author_compromised",
}


def named(counter: Mapping[Any, int]) -> dict[str, int]:
    """Counts of an enumeration by the names of its members; a copy, because other threads go on counting."""
    return {key.name.lower(): number for key, number in dict(counter).items()}


def reasons_of(refused: Mapping[int, int]) -> dict[str, int]:
    """Counts of refused packets by the names of the reasons."""
    return {_REASONS.get(code) or Rejection(code).name.lower(): number for code, number in dict(refused).items()}
