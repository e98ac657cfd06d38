"""Members that find each other, over real sockets: joining, dying, leaving, a table besides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from outroute.errors import TransportError
from outroute.identity import Membership, Revocation
from outroute.store import PacketStore
from outroute.transports import AUTHOR_REVOKED, Announcement, Guard, Receipt, Role, UnreachableError
from outroute.transports.channel import Secrets
from outroute.transports.dht import DhtFinder
from outroute.transports.mesh import ALIVE_SECONDS, MeshTransport, Pace
from store.making import NOW, SCHEMA, identity, make_packets
from transports.rigs import addresses_of, asynchronous
from transports.test_contract import CELLS, raw, united

#: Everything that members do by themselves, twenty times as often.
QUICK = Pace(announce=0.7, tell=0.05, repair=0.1, repair_anyway=2.0, find=0.5)
SECRET = Secrets((bytes(range(32)),))


class Village:
    """Members of one process, each with its own sockets."""

    def __init__(self, *, secrets: Secrets | None = SECRET, directory: Path | None = None) -> None:
        self.now = NOW
        self.secrets, self.directory = secrets, directory
        self.members: dict[int, MeshTransport] = {}
        self.stores: list[PacketStore] = []

    async def __aenter__(self) -> Village:
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members.values():
            await member.stop()
        for store in self.stores:
            store.close()

    async def add(
        self, number: int, *, join: list[str] | None = None, finder: DhtFinder | None = None, **more: object
    ) -> MeshTransport:
        store = PacketStore(None if self.directory is None else self.directory / str(number))
        self.stores.append(store)
        member = MeshTransport(
            identity(number),
            store,
            Guard([SCHEMA]),
            clock=lambda: self.now,
            rng=np.random.default_rng(number),
            pace=QUICK,
            secrets=self.secrets,
            finder=finder,
            request_seconds=1.0,
            **more,  # type: ignore[arg-type]
        )
        first = next(iter(self.members.values()), None)
        places = join if join is not None else [] if first is None else [first.endpoint]
        await member.start(join=places)
        self.members[number] = member
        return member

    async def fill(self, count: int) -> None:
        for number in range(len(self.members), count):
            await self.add(number)
        await until(lambda: all(len(one.members()) == count for one in self.members.values()))


async def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what must come true by itself."""
    end = asyncio.get_running_loop().time() + seconds
    while not done():
        assert asyncio.get_running_loop().time() < end, "it did not come true"
        await asyncio.sleep(0.02)


async def held(member: MeshTransport) -> list[bytes]:
    return united(await member.fetch(SCHEMA.id, CELLS, cap=256))


@asynchronous
async def test_newcomers_are_known_to_all_and_see_all() -> None:
    async with Village() as village:
        await village.fill(7)
        views = [{one.member.id for one in member.peers()} for member in village.members.values()]
        assert all(view == {identity(number).id for number in range(7)} for view in views)
        assert village.members[3].network_size() == 7
        packets = make_packets(300)
        done = await village.members[5].deposit(SCHEMA.id, addresses_of(packets), packets)
        assert done.receipts.shape[1] == 3
        assert done.replicated.all()
        for member in village.members.values():
            assert await held(member) == raw(packets)


@asynchronous
async def test_a_quarter_dies_at_once_and_nothing_is_lost() -> None:
    async with Village() as village:
        await village.fill(8)
        packets = make_packets(400)
        done = await village.members[0].deposit(SCHEMA.id, addresses_of(packets), packets)
        assert done.replicated.all()
        dead = [village.members.pop(2), village.members.pop(6)]
        await asyncio.gather(*(one.stop() for one in dead))
        assert await held(village.members[0]) == raw(packets)  # at once, whoever is still believed to live
        await until(lambda: all(len(one.members()) == 6 for one in village.members.values()))

        def whole() -> bool:
            """Three copies of everything again, at those who should have them."""
            one = village.members[0]
            owners = one.replicas.owners(CELLS)
            stores = {member.member.id: member.shelf for member in village.members.values()}
            digests = [{stores[o].digests([a], now=NOW)[0] for o in row} for a, row in zip(CELLS, owners, strict=True)]  # type: ignore[attr-defined]
            return all(len(row) == 1 for row in digests)

        await until(whole)
        assert await held(village.members[7]) == raw(packets)


@asynchronous
async def test_all_members_replaced_one_after_the_other() -> None:
    async with Village() as village:
        await village.fill(5)
        packets = make_packets(200)
        await village.members[0].deposit(SCHEMA.id, addresses_of(packets), packets)
        for number in range(5, 10):
            newcomer = await village.add(number)
            oldest = village.members.pop(number - 5)
            await oldest.close()
            await until(lambda: all(len(one.members()) == 5 for one in village.members.values()))
            assert await held(newcomer) == raw(packets)
        assert set(village.members) == set(range(5, 10))


@asynchronous
async def test_who_only_asks_and_emits_keeps_nothing() -> None:
    async with Village() as village:
        await village.fill(4)
        visitor = await village.add(9, roles=Role.EMIT | Role.ASK)
        packets = make_packets(60)
        assert (await visitor.deposit(SCHEMA.id, addresses_of(packets), packets)).replicated.all()
        await until(lambda: all(len(one.peers()) == 5 for one in village.members.values()))
        assert all(len(one.members()) == 4 for one in village.members.values())
        assert await held(visitor) == raw(packets)
        assert visitor.shelf.addresses() == []


@asynchronous
async def test_a_member_comes_back_from_its_directory(tmp_path: Path) -> None:
    async with Village(directory=tmp_path) as village:
        await village.fill(4)
        packets = make_packets(100)
        assert (await village.members[0].deposit(SCHEMA.id, addresses_of(packets), packets)).acknowledged.all()
        gone = village.members.pop(3)
        await gone.stop()
        gone.shelf.close()  # type: ignore[attr-defined]
        await until(lambda: all(len(one.members()) == 3 for one in village.members.values()))
        again = await village.add(3)
        await until(lambda: all(len(one.members()) == 4 for one in village.members.values()))
        assert again.endpoint != gone.endpoint
        assert await held(again) == raw(packets)


@asynchronous
async def test_the_table_alone_leads_to_the_members() -> None:
    async with AsyncExitStack() as stack, Village() as village:

        async def finder(*near: int) -> tuple[DhtFinder, int]:
            one = DhtFinder(clock=lambda: village.now, size=lambda: 4, secrets=SECRET)
            stack.push_async_callback(one.close)
            return one, one.start(host="127.0.0.1", bootstrap=[("127.0.0.1", port) for port in near])

        first, port = await finder()
        await village.add(0, finder=first)
        second, _ = await finder(port)
        await village.add(1, join=[], finder=second)  # knows nobody's place, only a node of the table
        await until(lambda: all(len(one.members()) == 2 for one in village.members.values()))


@asynchronous
async def test_outsiders_and_the_wrong_place_are_said() -> None:
    async with Village() as village:
        first = await village.add(0)
        with pytest.raises(TransportError, match="Give the address of a member that runs"):
            await village.add(1, join=["127.0.0.1:9"])
        village.secrets = Secrets((bytes(32),))
        with pytest.raises(TransportError, match="network secret differs"):
            await village.add(2, join=[first.endpoint])
        assert len(first.members()) == 1


@asynchronous
async def test_words_that_do_not_hold_and_twins_are_counted() -> None:
    async with Village() as village:
        member = await village.add(0)

        def word(number: int, expires: int, endpoint: str = "127.0.0.1:1") -> bytes:
            key = identity(number)
            made = Announcement(key=key.public_key, roles=Role.HOLD, endpoint=endpoint, expires=expires)
            return made.signed(key).to_bytes()

        fine = word(1, NOW + ALIVE_SECONDS)
        forged = fine[:-1] + bytes([fine[-1] ^ 1])
        far = word(2, NOW + 1000 * ALIVE_SECONDS)
        twin = word(0, NOW + ALIVE_SECONDS + 30, "127.0.0.1:2")
        assert member.hear([fine, fine, b"noise", forged, far, word(3, NOW), twin]) == 1
        # The forged one is no later than what is known, so its signature is not even looked at.
        assert member.announcements == {"new": 1, "known": 2, "refused": 3, "twin": 1}


@asynchronous
async def test_two_copies_of_one_node_find_each_other_out() -> None:
    async with Village() as village:
        await village.fill(4)
        copy = Village()
        copy.members[-1] = village.members[0]
        twin = await copy.add(2)  # the key of number 2, in a place of its own
        copy.members.pop(-1)
        async with copy:
            for _ in range(400):
                village.now += 1
                copy.now = village.now
                await asyncio.sleep(0.05)
                if village.members[2].announcements["twin"] > 1 and twin.announcements["twin"] > 1:
                    break
            assert village.members[2].announcements["twin"] > 1
            assert twin.announcements["twin"] > 1
        assert not any(one.announcements["twin"] for number, one in village.members.items() if number != 2)


@asynchronous
async def test_nobody_answers_and_nothing_breaks() -> None:
    async with Village() as village:
        await village.fill(3)
        for number in (1, 2):
            await village.members.pop(number).stop()
        alone = village.members[0]
        with pytest.raises(UnreachableError):
            await alone.request(identity(1).id, b"x")
        await until(lambda: len(alone.members()) == 1)
        packets = make_packets(20)
        done = await alone.deposit(SCHEMA.id, addresses_of(packets), packets)
        assert not done.replicated.any()  # one copy is not two of three
        assert await held(alone) == raw(packets)


@asynchronous
async def test_a_revoked_node_is_refused_by_all_within_a_minute() -> None:
    async with Village() as village:
        await village.fill(6)
        packets = make_packets(12, author=3)
        before = await village.members[3].deposit(SCHEMA.id, addresses_of(packets), packets)
        assert before.replicated.all()
        org = identity(900)
        certificate = org.certify(identity(3).public_key, not_before=NOW - 1, not_after=NOW + 1000)
        said = [
            Membership.accept(identity(3), certificate).to_bytes(),
            Revocation.make(org, identity(3).public_key, at=NOW).to_bytes(),
        ]
        village.members[5].standing.learn(said, NOW)  # as from a file; nobody is told by hand
        others = [member for number, member in village.members.items() if number != 3]
        for _ in range(60):
            village.now += 1
            await asyncio.sleep(0.06)  # a turn of telling
        assert all(one.standing.register.member_revoked(identity(3).id, village.now) for one in others)
        assert all(identity(3).id not in {m.id for m in one.members().members} for one in others)
        new = make_packets(5, author=3, first=100)
        done = await village.members[0].deposit(SCHEMA.id, addresses_of(new), new)
        assert not done.replicated.any()
        assert (done.reasons[done.receipts == Receipt.REJECTED] == AUTHOR_REVOKED).all()
        assert (done.receipts == Receipt.REJECTED).all()
        assert await held(village.members[0]) == raw(packets)  # what it sent before stays until it expires
