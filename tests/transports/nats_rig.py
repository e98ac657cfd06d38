"""Nodes on a NATS server of their own, for the contract suite."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

from outroute.store import PacketStore
from outroute.testing.making import NOW, SCHEMA, identity
from outroute.testing.nats_server import NatsServer
from outroute.transports import Guard
from outroute.transports.nats import NatsHolder
from outroute.transports.nats_options import nats_options
from outroute.transports.standing import Standing
from outroute.transports.url import parse_url

_COPIES = "copies are the servers' matter: each node reads the whole stream, and no other node's word counts"

#: Tests of the contract that make no sense over NATS, and why; ``test_nats.py`` has what is true instead.
UNFIT = {
    "test_fewer_members_than_copies": _COPIES,
    "test_copies_go_to_different_organisations": _COPIES,
    "test_a_holder_that_missed_packets_of_those_named_is_found_out": _COPIES,
    "test_a_holder_that_missed_a_withdrawal_is_found_out": _COPIES,
    "test_two_schemas_and_facets_live_side_by_side": "every schema has a stream, and a node has one schema",
    "test_a_deposit_with_the_wrong_holder_is_not_kept": "nobody deposits with a node: frames go to the stream",
    "test_a_slow_reader_gets_no_more_than_its_credit": "nobody sends to a node: it reads as fast as it can",
    "test_nobody_answers": "a node answers itself from its own store, also while others are away",
    "test_every_byte_is_counted_once_on_each_side": "a server stands between: what one sends many receive",
    "test_a_question_carries_addresses_only": "a node that keeps the shard asks nobody, not even for addresses",
}


class NatsRig:
    """Every member keeps all shards."""

    name = "nats"
    credit = 4
    copies = 1
    unfit = UNFIT

    def __init__(self) -> None:
        self.now = NOW
        self._directory: Path | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="outroute-nats-"))
        self._server: NatsServer | None = None
        self.transports: dict[int, NatsHolder] = {}
        self._stores: list[PacketStore] = []
        self._guards: list[Guard] = []
        self._reading: list[threading.Event] = []

    async def start(self, members: int, directory: Path | None = None, *, organisations: int | None = None) -> None:
        self._directory = directory
        self._server = NatsServer(self._folder).start()
        for _ in range(members):
            await self.join()

    async def join(self) -> int:
        assert self._server is not None
        number = len(self._stores)
        directory = None if self._directory is None else self._directory / str(number)
        key = identity(1000 + number)
        self._stores.append(PacketStore(directory))
        self._guards.append(Guard([SCHEMA]))
        storage = "memory" if directory is None else "file"
        url = f"{self._server.url}?storage={storage}&monitor={self._server.monitor}"
        holder = NatsHolder(
            nats_options(parse_url(url)),
            schema=SCHEMA,
            identity=key,
            guard=self._guards[number],
            standing=Standing(name=key.id),
            clock=lambda: self.now,
            shelf=self._stores[number],
            directory=directory,
        )
        await holder.start()
        reading = threading.Event()
        reading.set()
        self._reading.append(reading)
        keeping = holder._keeping
        assert keeping is not None
        take = keeping._take

        def wait_and_take(messages):  # type: ignore[no-untyped-def]
            reading.wait()
            return take(messages)

        keeping._take = wait_and_take  # type: ignore[method-assign]
        self.transports[number] = holder
        return number

    def holder(self, number: int) -> NatsHolder:
        return self.transports[number]

    def guard(self, number: int) -> Guard:
        return self._guards[number]

    def store(self, number: int) -> PacketStore:
        return self._stores[number]

    def alive(self) -> list[int]:
        return sorted(self.transports)

    async def kill(self, number: int, *, noticed: bool = True) -> None:
        self._reading[number].set()
        gone = self.transports.pop(number)
        await gone._connection.close()  # no word to anybody before the line is gone
        await gone.close()

    async def leave(self, number: int) -> None:
        await self.transports.pop(number).close()
        await self.repair()

    async def repair(self) -> None:
        """Nothing is repaired: wait until everybody has read."""
        for holder in self.transports.values():
            assert holder._keeping is not None
            assert await holder._keeping.fresh(60.0)

    def pause(self, number: int) -> None:
        self._reading[number].clear()

    def resume(self, number: int) -> None:
        self._reading[number].set()

    def owners(self, address: bytes) -> list[int]:
        return self.alive()

    async def raw(self, sender: int, receiver: int, data: bytes) -> list[bytes]:
        group = self.transports[receiver]._group
        return list(await self.transports[sender]._link.request(bytes([*bytes(30), group, 0]), data))

    async def stop(self) -> None:
        for reading in self._reading:
            reading.set()
        for number in self.alive():
            await self.transports.pop(number).close()
        for store in self._stores:
            store.close()
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
