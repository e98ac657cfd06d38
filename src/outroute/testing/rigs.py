"""What the contract suite needs of a transport: a network of members that can be disturbed.

``LinkRig`` is one for any link. For a transport that is a holder by itself, write a class with the methods of ``Rig``.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np

from outroute.packet import PacketArray
from outroute.placement import Member, Members
from outroute.store import PacketStore
from outroute.testing.making import CELLS, FACETED, NOW, SCHEMA, addresses_of, identity
from outroute.transports import Answer, Deposited, Guard, Holder
from outroute.transports.channel import Secrets
from outroute.transports.direct import DirectTransport
from outroute.transports.links import LinkMaker

__all__ = ["PATIENCE", "SECRET", "LinkRig", "Rig", "asynchronous", "compared", "deposit", "fetch_all", "raw", "united"]

PATIENCE = 1.0
"""Seconds that members of the suite wait for each other: a handshake takes milliseconds, a busy machine more."""
SECRET = bytes(range(32))
"""Of the networks of the suite."""


class Rig(Protocol):
    """A network of members, numbered from 0."""

    name: str
    now: int
    credit: int
    copies: int
    """Receipts of a packet where there are members enough; 1 where a store that others run keeps it."""
    unfit: Mapping[str, str]
    """Tests that make no sense over this transport, by name: why, and where the same is tested otherwise."""

    async def start(self, members: int, directory: Path | None = None, *, organisations: int | None = None) -> None:
        """Let so many members join, with their stores in a directory or in memory."""

    async def join(self) -> int:
        """One more; its number."""

    def holder(self, number: int) -> Holder: ...
    def guard(self, number: int) -> Guard: ...
    def store(self, number: int) -> PacketStore: ...
    def alive(self) -> list[int]: ...

    async def kill(self, number: int, *, noticed: bool = True) -> None:
        """End a member without a word; the others know it at once, or not at all."""

    async def leave(self, number: int) -> None:
        """Let a member leave properly."""

    async def repair(self) -> None:
        """Repair until nothing changes any more."""

    def pause(self, number: int) -> None:
        """Let a member read nothing."""

    def resume(self, number: int) -> None: ...

    def owners(self, address: bytes) -> list[int]: ...

    async def raw(self, sender: int, receiver: int, data: bytes) -> list[bytes]:
        """Send any bytes as a frame."""

    async def stop(self) -> None:
        """End everything and close the stores."""


class LinkRig:
    """Every member listens on a port of this machine; who is there is told to all by the rig.

    Args:
        name: of the transport.
        link: makes its links.
    """

    credit = 4
    copies = 3
    unfit: Mapping[str, str] = MappingProxyType({})

    def __init__(self, name: str, link: LinkMaker) -> None:
        self.name, self._link = name, link
        self.now = NOW
        self._directory: Path | None = None
        self._organisations: int | None = None
        self.transports: dict[int, DirectTransport] = {}
        self._stores: list[PacketStore] = []
        self._guards: list[Guard] = []
        self._seen: dict[bytes, Member] = {}
        self._endpoints: dict[bytes, str] = {}
        self._reading: list[threading.Event] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, members: int, directory: Path | None = None, *, organisations: int | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._directory, self._organisations = directory, organisations
        for _ in range(members):
            await self.join()

    async def join(self) -> int:
        number = len(self._stores)
        key = identity(1000 + number)
        group = number if self._organisations is None else number % self._organisations
        self._stores.append(PacketStore(None if self._directory is None else self._directory / str(number)))
        self._guards.append(Guard([SCHEMA, FACETED]))
        transport = DirectTransport(
            key,
            self._stores[number],
            self._guards[number],
            members=self._members,
            endpoint_of=self._endpoints.get,
            clock=lambda: self.now,
            organisation=identity(5000 + group).public_key,
            secrets=Secrets((SECRET,)),
            credit=self.credit,
            request_seconds=PATIENCE,
            link=self._link,
        )
        reading = threading.Event()
        reading.set()
        self._reading.append(reading)
        handle, handle_all = transport.keeper.handle, transport.keeper.handle_all

        def late() -> bool:
            """Whether whoever sent a frame has given up, once it is read: a member that hung loses it."""
            began = time.monotonic()
            reading.wait()
            return time.monotonic() - began > PATIENCE / 2

        def wait_and_handle(*arguments: object) -> list[bytes]:
            return [] if late() else handle(*arguments)  # type: ignore[arg-type]

        def wait_and_handle_all(jobs: Sequence[tuple[bytes | None, bytes]]) -> list[list[bytes]]:
            return [[] for _ in jobs] if late() else handle_all(jobs)

        transport.keeper.handle = wait_and_handle  # type: ignore[assignment,method-assign]
        transport.keeper.handle_all = wait_and_handle_all  # type: ignore[method-assign]
        self._endpoints[key.id] = await transport.link.listen()
        self._seen[key.id] = transport.member
        self.transports[number] = transport
        return number

    def _members(self) -> Members:
        return Members(list(self._seen.values()))

    def holder(self, number: int) -> DirectTransport:
        return self.transports[number]

    def guard(self, number: int) -> Guard:
        return self._guards[number]

    def store(self, number: int) -> PacketStore:
        return self._stores[number]

    def alive(self) -> list[int]:
        return sorted(self.transports)

    async def kill(self, number: int, *, noticed: bool = True) -> None:
        gone = self.transports.pop(number)
        self._reading[number].set()
        await gone.close()
        if noticed:
            self._seen.pop(gone.member.id)
        self._stores[number].close()

    async def leave(self, number: int) -> None:
        gone = self.transports.pop(number)
        self._seen.pop(gone.member.id)
        await gone.repair()
        await gone.close()
        self._stores[number].close()

    async def repair(self) -> None:
        for _ in range(10):
            done = [await self.transports[number].repair() for number in self.alive()]
            if not any(one.sent or one.dropped for one in done):
                return
        raise AssertionError("repair does not come to an end")

    def pause(self, number: int) -> None:
        self._reading[number].clear()

    def resume(self, number: int) -> None:
        self._reading[number].set()

    def owners(self, address: bytes) -> list[int]:
        numbers = {transport.member.id: number for number, transport in self.transports.items()}
        first = self.transports[self.alive()[0]]
        return [numbers[owner] for owner in first.replicas.owners([address])[0] if owner in numbers]

    async def raw(self, sender: int, receiver: int, data: bytes) -> list[bytes]:
        return list(await self.transports[sender].request(self.transports[receiver].member.id, data))

    async def stop(self) -> None:
        for reading in self._reading:
            reading.set()
        for number in self.alive():
            await self.transports.pop(number).close()
        for store in self._stores:
            store.close()


async def _with_end(test: Callable[..., Awaitable[None]], *args: object, **kwargs: object) -> None:
    """Run a test and end its rig in the same loop, which is where its sockets live."""
    try:
        await test(*args, **kwargs)
    finally:
        rig = kwargs.get("rig")
        if rig is not None:
            await rig.stop()  # type: ignore[attr-defined]


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(_with_end(test, *args, **kwargs))

    return run


def raw(packets: PacketArray) -> list[bytes]:
    """The bytes of packets, sorted."""
    data = np.ascontiguousarray(packets).tobytes()
    return sorted(data[at : at + 512] for at in range(0, len(data), 512))


def united(answers: list[Answer]) -> list[bytes]:
    """The bytes of all packets of some answers, sorted."""
    return sorted(one for answer in answers for one in raw(answer.packets))


def compared(rig: Rig) -> bool | None:
    """What an answer says of other holders where all have the same: that they agree, or that there are none to ask."""
    return True if rig.copies > 1 else None


async def fetch_all(rig: Rig, number: int) -> list[bytes]:
    """The bytes of all packets that a member gets from the network, sorted."""
    return united(await rig.holder(number).fetch(SCHEMA.id, CELLS, cap=256))


async def deposit(rig: Rig, number: int, packets: PacketArray) -> Deposited:
    """Let a member deposit packets of ``SCHEMA``."""
    return await rig.holder(number).deposit(SCHEMA.id, addresses_of(packets), packets)
