"""A holder that is slower than usual is not waited for; one that keeps something back is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from outroute.packet import identities
from outroute.placement import Member, Members
from outroute.store import PacketStore
from outroute.transports import Guard, Keeper, Replicas, UnreachableError, decode
from outroute.transports.exchanging import USUAL_FIRST, USUAL_LEAST, Exchanger
from outroute.transports.frames import Frame, Kind, encode
from store.making import BUCKET_SECONDS, NOW, SCHEMA, identity, make_packets
from transports.rigs import addresses_of, asynchronous, cell_address

HOME = cell_address(0)


class Holders:
    """A link to holders that can be made slow, silent or dead; every one keeps every cell."""

    def __init__(self, count: int) -> None:
        self.keys = [identity(100 + number) for number in range(count)]
        self.view = Members([Member(id=key.id, organisation=key.public_key) for key in self.keys])
        self.stores = {key.id: PacketStore() for key in self.keys}
        self.keepers = {
            member: Keeper(store, Guard([SCHEMA]), owns=lambda names: [True] * len(names), clock=lambda: NOW)
            for member, store in self.stores.items()
        }
        self.waits: dict[bytes, asyncio.Event] = {}
        self.dead: set[bytes] = set()
        self.asked: list[tuple[bytes, Kind]] = []

    def fill(self, count: int, *, without: Sequence[bytes] = ()) -> None:
        packets = make_packets(count, cell=0)
        for member, store in self.stores.items():
            if member not in without:
                store.put(addresses_of(packets), packets, bucket_seconds=BUCKET_SECONDS, now=NOW)

    def asker(self) -> Replicas:
        return Replicas(self, Guard([SCHEMA]), members=lambda: self.view, clock=lambda: NOW, request_seconds=30.0)

    async def request(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        read = decode(frame)
        assert isinstance(read, Frame)
        self.asked.append((member, read.kind))
        if member in self.dead:
            raise UnreachableError("dead", code="transport.unreachable")
        if member in self.waits:
            await self.waits[member].wait()
        return self.keepers[member].handle(frame)


@asynchronous
async def test_a_slow_holder_is_passed_over_and_remembered_as_late() -> None:
    holders = Holders(3)
    holders.fill(5)
    asker = holders.asker()
    nearest = asker.owners([HOME])[0][0]
    assert (await asker.fetch(SCHEMA.id, [HOME], cap=64))[0].agreed is True
    holders.waits[nearest] = asyncio.Event()
    answer = (await asker.fetch(SCHEMA.id, [HOME], cap=64))[0]  # for ever, if it waited for the nearest
    assert (len(answer.packets), answer.complete, answer.agreed) == (5, True, True)
    assert nearest in (answer.asked or ())
    assert asker._exchanger.usual(nearest, Kind.ASK, 1) == 0.0  # nobody waits for it at all while it owes an answer
    assert (await asker.fetch(SCHEMA.id, [HOME], cap=64))[0].complete
    holders.waits.pop(nearest).set()
    await asyncio.sleep(0.01)
    assert asker._exchanger.usual(nearest, Kind.ASK, 1) >= USUAL_LEAST
    holders.asked.clear()
    assert (await asker.fetch(SCHEMA.id, [HOME], cap=64))[0].complete
    assert [member for member, kind in holders.asked if kind is Kind.ASK] == [nearest]


@asynchronous
async def test_packets_are_asked_for_first_and_all_others_for_digests() -> None:
    """A cell's packets take longest to come; while they do, the digests come in."""
    holders = Holders(3)
    holders.fill(5)
    asker = holders.asker()
    row = asker.owners([HOME])[0]
    assert (await asker.fetch(SCHEMA.id, [HOME], cap=64))[0].agreed is True
    assert holders.asked[0] == (row[0], Kind.ASK)
    assert set(holders.asked[1:]) == {(row[1], Kind.COMPARE), (row[2], Kind.COMPARE)}


@asynchronous
async def test_the_dead_are_passed_over_at_once() -> None:
    holders = Holders(3)
    holders.fill(4)
    asker = holders.asker()
    row = asker.owners([HOME])[0]
    holders.dead = set(row[:2])
    answer = (await asker.fetch(SCHEMA.id, [HOME], cap=64))[0]
    assert (len(answer.packets), answer.complete, answer.agreed) == (4, True, None)
    holders.dead = set(row)
    assert not (await asker.fetch(SCHEMA.id, [HOME], cap=64))[0].complete


@asynchronous
async def test_those_that_own_a_cell_now_answer_when_its_owners_are_gone() -> None:
    holders = Holders(6)
    holders.fill(4)
    asker = holders.asker()
    before = holders.view
    row = asker.owners([HOME])[0]
    holders.dead = set(row)
    left = Members([one for one in before.members if one.id not in holders.dead])

    calls = iter([before])  # the first look sees the dead, any later one does not
    asker._members = lambda: next(calls, left)
    answer = (await asker.fetch(SCHEMA.id, [HOME], cap=64))[0]
    assert (len(answer.packets), answer.complete) == (4, True)


@pytest.mark.parametrize("withholding", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
@asynchronous
async def test_one_honest_holder_is_enough(withholding: tuple[int, ...]) -> None:
    holders = Holders(3)
    asker = holders.asker()
    row = asker.owners([HOME])[0]
    holders.fill(6, without=[row[place] for place in withholding])
    for cap in (64, 4):
        answer = (await asker.fetch(SCHEMA.id, [HOME], cap=cap))[0]
        assert len(answer.packets) == min(6, cap)
        assert answer.agreed is False


@asynchronous
async def test_a_holder_that_differs_and_stalls_holds_nobody_up() -> None:
    holders = Holders(3)
    asker = holders.asker()
    row = asker.owners([HOME])[0]
    holders.fill(6, without=row[2:])
    extra = make_packets(1, author=7, first=90, cell=0)
    holders.stores[row[2]].put(addresses_of(extra), extra, bucket_seconds=BUCKET_SECONDS, now=NOW)
    ask = holders.request

    async def stalling(member: bytes, frame: bytes) -> Sequence[bytes]:
        read = decode(frame)
        if member == row[2] and isinstance(read, Frame) and read.kind is Kind.ASK:
            await asyncio.Event().wait()
        return await ask(member, frame)

    holders.request = stalling  # type: ignore[method-assign]
    async with asyncio.timeout(20.0):  # the time-out of an exchange is longer
        answer = (await asker.fetch(SCHEMA.id, [HOME], cap=64))[0]
    assert set(identities(answer.packets)) == set(identities(make_packets(6, cell=0)))


@asynchronous
async def test_what_is_usual_follows_what_a_member_takes() -> None:
    class Sleepy:
        seconds = 0.0

        async def request(self, member: bytes, frame: bytes) -> Sequence[bytes]:
            await asyncio.sleep(self.seconds)
            return [encode(Frame(kind=Kind.DIGESTS, sequence=int(np.frombuffer(frame[16:24], "<u8")[0])))]

    link = Sleepy()
    exchanger = Exchanger(link, request_seconds=2.0)
    assert exchanger.usual(b"x", Kind.COMPARE, 0) == USUAL_FIRST
    for _ in range(30):
        await exchanger.exchange(b"x", Frame(kind=Kind.COMPARE, sequence=exchanger.next()), Kind.DIGESTS)
    assert exchanger.usual(b"x", Kind.COMPARE, 0) == USUAL_LEAST
    link.seconds = 0.2
    for _ in range(8):
        await exchanger.exchange(b"x", Frame(kind=Kind.COMPARE, sequence=exchanger.next()), Kind.DIGESTS)
    assert 0.1 < exchanger.usual(b"x", Kind.COMPARE, 0) <= 2.0
    assert exchanger.usual(b"x", Kind.COMPARE, 64) == USUAL_FIRST  # a larger question says nothing of a small one
    assert exchanger.usual(b"x", Kind.ASK, 0) == USUAL_FIRST
    assert Exchanger(link, request_seconds=2.0, hedged=False).usual(b"x", Kind.ASK, 1) == 2.0
