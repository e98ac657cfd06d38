"""The transports that the contract suite runs over; another one is one line in ``RIGS``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from outroute.placement import Member
from outroute.store import PacketStore
from outroute.testing.making import FACETED, addresses_of, cell_address
from outroute.testing.rigs import LinkRig, Rig, asynchronous
from outroute.transports import Guard, LocalNetwork, LocalTransport
from outroute.transports.flight_link import FlightLink
from outroute.transports.grpc_link import GrpcLink
from outroute.transports.inside import InsideLink
from outroute.transports.tls import TlsLink
from outroute.transports.zeromq import ZeroMqLink
from store.making import NOW, SCHEMA, identity
from transports.nats_rig import NatsRig

__all__ = ["FACETED", "PATIENCE", "RIGS", "LocalRig", "Rig", "addresses_of", "asynchronous", "cell_address"]

#: Seconds that members in one process wait for each other.
PATIENCE = 0.2


class LocalRig:
    """Members in this process."""

    name = "local"
    credit = 4
    copies = 3
    unfit: Mapping[str, str] = MappingProxyType({})

    def __init__(self) -> None:
        self.now = NOW
        self._directory: Path | None = None
        self._organisations: int | None = None
        self._transports: dict[int, LocalTransport] = {}
        self._stores: list[PacketStore] = []
        self._guards: list[Guard] = []

    async def start(self, members: int, directory: Path | None = None, *, organisations: int | None = None) -> None:
        self.network = LocalNetwork(clock=lambda: self.now, credit=self.credit)
        self._directory, self._organisations = directory, organisations
        for _ in range(members):
            await self.join()

    async def join(self) -> int:
        number = len(self._stores)
        key = identity(1000 + number)
        group = number if self._organisations is None else number % self._organisations
        self._stores.append(PacketStore(None if self._directory is None else self._directory / str(number)))
        self._guards.append(Guard([SCHEMA, FACETED]))
        self._transports[number] = self.network.join(
            Member(id=key.id, organisation=identity(5000 + group).public_key),
            self._stores[number],
            self._guards[number],
            request_seconds=PATIENCE,
        )
        return number

    def holder(self, number: int) -> LocalTransport:
        return self._transports[number]

    def guard(self, number: int) -> Guard:
        return self._guards[number]

    def store(self, number: int) -> PacketStore:
        return self._stores[number]

    def alive(self) -> list[int]:
        return sorted(self._transports)

    async def kill(self, number: int, *, noticed: bool = True) -> None:
        self.network.kill(self._transports.pop(number).member.id, noticed=noticed)
        self._stores[number].close()

    async def leave(self, number: int) -> None:
        await self._transports.pop(number).close()
        self._stores[number].close()

    async def repair(self) -> None:
        for _ in range(10):
            done = [await self._transports[number].repair() for number in self.alive()]
            if not any(one.sent or one.dropped for one in done):
                return
        raise AssertionError("repair does not come to an end")

    def pause(self, number: int) -> None:
        self.network.pause(self._transports[number].member.id)

    def resume(self, number: int) -> None:
        self.network.resume(self._transports[number].member.id)

    def owners(self, address: bytes) -> list[int]:
        numbers = {transport.member.id: number for number, transport in self._transports.items()}
        first = self._transports[self.alive()[0]]
        return [numbers[owner] for owner in first.replicas.owners([address])[0] if owner in numbers]

    async def raw(self, sender: int, receiver: int, data: bytes) -> list[bytes]:
        return list(await self._transports[sender].request(self._transports[receiver].member.id, data))

    async def stop(self) -> None:
        for store in self._stores:
            store.close()


RIGS: dict[str, Callable[[], Rig]] = {
    "local": LocalRig,
    "direct": functools.partial(LinkRig, "direct", TlsLink),
    "flight": functools.partial(LinkRig, "flight", FlightLink),
    "grpc": functools.partial(LinkRig, "grpc", GrpcLink),
    "inside": functools.partial(LinkRig, "inside", InsideLink),
    "nats": NatsRig,
    "zeromq": functools.partial(LinkRig, "zeromq", ZeroMqLink),
}
