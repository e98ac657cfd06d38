"""Members that lie, as real processes, and nodes of the table that answer with liars alone."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from benchmarks._keys import costs, table
from benchmarks._member import CELLS
from benchmarks._swarm import until
from benchmarks._table import Gang, pack, unpack
from benchmarks.liars import Village, chosen, layout, wilson

from outroute.transports import Announcement, Role
from outroute.transports.dht import DhtFinder, shard_keys
from store.making import identity
from transports.rigs import asynchronous


@asynchronous
async def test_a_lying_organisation_hides_nothing(tmp_path: Path) -> None:
    """Two of eight members certified by an organisation that lies: it has one place of three at most."""
    whole = layout(8, 0.25, 2, 70_000)
    assert (len(whole.liars), len(whole.named), whole.taken()) == (2, 4, set())
    async with Village(tmp_path, whole) as village:
        await village.begin()
        await village.fill()
        await village.deposit()
        assert len(village.acknowledged) == 4 * CELLS
        found = await village.ask(village.honest, questions=12, cells=32, seed=1)
        assert (found["answered"], found["reached"], found["whole"]) == (12, 12, 12)
        held = [set((await liar.tell("held"))["held"]) for liar in village.liars]
        assert not any(village.acknowledged & kept for kept in held), "liars keep nothing honest"
        assert any(held), "and something of their own"


@asynchronous
async def test_in_an_open_network_chosen_keys_take_a_cell(tmp_path: Path) -> None:
    """What is published as a limit is true: three keys chosen for a cell, and its packets are gone."""
    whole, tried = chosen(8, 0.375, 71_000)
    taken = whole.taken()
    assert 0 in taken
    assert tried >= 3
    async with Village(tmp_path, whole) as village:
        await village.begin()
        await village.fill()
        await village.deposit()
        lost = await village.ask(village.honest[:1], questions=1, cells=CELLS, seed=1)
        assert (lost["reached"], lost["cells_whole"]) == (0, CELLS - len(taken))


@asynchronous
async def test_a_newcomer_that_knows_one_honest_member_gets_around_an_eclipse_that_lies(tmp_path: Path) -> None:
    whole = layout(6, 1 / 3, 2, 72_000)
    whole.organisations[72_900] = 0
    async with AsyncExitStack() as stack:
        bystander = DhtFinder(clock=lambda: int(time.time()), size=lambda: 6)
        stack.push_async_callback(bystander.close)
        port = bystander.start(host="127.0.0.1")
        gang = await stack.enter_async_context(Gang(shard_keys(bytes(32), 6, b""), [("127.0.0.1", port)]))
        await asyncio.sleep(1.0)
        async with Village(tmp_path, whole, table=[f"127.0.0.1:{port}"]) as village:
            await village.begin()
            await village.fill()
            gang.say([one.announcement(whole, 1200) for one in village.liars])
            await village.deposit()
            newcomer = await village.add(72_900, [village.honest[1].endpoint], find=1.0)
            honest = {one.identity.id.hex() for one in village.honest}

            async def knows_all() -> bool:
                return honest <= set((await newcomer.tell("whom"))["members"])

            await until(knows_all, 60.0, "honest members are not found")
            found = await village.ask([newcomer], questions=8, cells=32, seed=1)
            assert (found["answered"], found["whole"]) == (8, 8)
            assert gang.asked, "the table was asked, and liars answered"


def _word(number: int) -> bytes:
    who = identity(number)
    made = Announcement(
        key=who.public_key, roles=Role(7), endpoint=f"127.0.0.1:{1000 + number}", expires=int(time.time()) + 600
    )
    return made.signed(who).to_bytes()


@asynchronous
async def test_nodes_with_chosen_ids_answer_with_whom_they_like() -> None:
    def now() -> int:
        return int(time.time())

    keys = shard_keys(bytes(32), 20, b"")
    async with AsyncExitStack() as stack:

        async def finder(*near: int) -> tuple[DhtFinder, int]:
            one = DhtFinder(clock=now, size=lambda: 20)
            stack.push_async_callback(one.close)
            return one, one.start(host="127.0.0.1", bootstrap=[("127.0.0.1", port) for port in near])

        first, port = await finder()
        gang = await stack.enter_async_context(Gang(keys, [("127.0.0.1", port)]))
        gang.say([_word(number) for number in (900, 901)])
        others = [first] + [(await finder(port))[0] for _ in range(4)]
        async with asyncio.timeout(60.0):  # they have got in when they are given what is announced
            while not gang.swallowed:
                for number, one in enumerate(others):
                    await one.announce(Announcement.from_bytes(_word(number)))  # type: ignore[arg-type]
        newcomer, _ = await finder(port)
        async with asyncio.timeout(60.0):
            while not (found := await newcomer.find(bytes(32), limit=64)):
                await asyncio.sleep(0.1)
        assert {identity(number).public_key for number in (900, 901)} <= {one.key for one in found}


@pytest.mark.parametrize("value", [0, 127, 128, 70_000, 2**63 + 5, "find", b"x" * 300, [1, [b"y"]], {"a": {"id": b""}}])
def test_messages_of_the_engine_are_read_as_they_are_written(value: object) -> None:
    assert unpack(pack(value)) == value


def test_damaged_messages_of_the_engine_are_refused() -> None:
    for data in (b"", b"\xc4", b"\xcf\x00", b"\xc1", b"\x81\xa1"):
        with pytest.raises(ValueError, match="no message"):
            unpack(data)


def test_the_price_of_places() -> None:
    """Keys buy any cell of an open network, nothing without a certificate, and one place for each organisation."""
    found = costs(quick=True, seed=3)
    for size in (20, 100, 1000):
        one = found["open"][size]
        assert one["confirmed_by_placement"]
        low, high = one["all"]["order_statistics"][0], one["all"]["order_statistics"][2]
        assert low / 4 <= one["all"]["tries"][1] <= 4 * high
        assert one["one"]["tries"][1] <= one["majority"]["tries"][1] <= one["all"]["tries"][1]
        named = found["organisations"][size]
        assert [named[kind]["most_places_of_a_cell"] for kind in named] == [0, 1, 2, 3]
        shares = found["share_of_members"][size]["open"]["all"]
        assert 0.1 < shares["1%"] <= shares["10%"] <= shares["50%"] <= 1.0
    assert len(table(found).splitlines()) > 30


def test_intervals_of_shares() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(399, 400)
    assert low == pytest.approx(0.98597, abs=1e-4)
    assert high == pytest.approx(0.99956, abs=1e-4)
