"""A network that is cut in two and joined again: both halves live on, meet again, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from benchmarks._partition import PREFIX, Namespaces, missing, partition

from outroute.transports.mesh import ALIVE_SECONDS
from store.making import SCHEMA, make_packets
from transports.rigs import addresses_of, asynchronous
from transports.test_contract import CELLS, raw, united
from transports.test_mesh import Village, until

WHY = missing()
NOBODY = 1 << 23
"""No process has this number: above the most that Linux gives."""


async def names() -> set[str]:
    process = await asyncio.create_subprocess_exec("ip", "netns", "list", stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return {line.split()[0] for line in said.decode().splitlines() if line.startswith(PREFIX)}


@pytest.mark.skipif(WHY is not None, reason=str(WHY))
@asynchronous
async def test_two_halves_in_namespaces_are_joined_again(tmp_path: Path) -> None:
    found = await partition(tmp_path, nodes=4, packets=256, cuts=(10.0,), seed=3, dht=False, longer=120.0)
    cut = found["cuts"][0]
    assert found["halves"] == [2, 2]
    assert min(cut["acknowledged_during"]) > 0
    assert cut["lost"] == found["lost"] == 0
    assert cut["whole_after"] == cut["answered_after"] == cut["asks_after"] > 0
    assert all(side["answers"]["without_other_half"] > 0 for side in cut["during"])


@pytest.mark.skipif(WHY is not None, reason=str(WHY))
@asynchronous
async def test_what_a_killed_run_left_behind_is_removed() -> None:
    left = f"{PREFIX}-{NOBODY}-hub"
    process = await asyncio.create_subprocess_exec("ip", "netns", "add", left)
    assert await process.wait() == 0
    assert left in await names()
    before = await names()
    async with Namespaces():
        during = await names()
        assert left not in during
        assert len(during - before) == 3
    assert not (await names()) & (during - before)


@asynchronous
async def test_members_that_forgot_each_other_meet_again() -> None:
    async with Village() as village:
        await village.fill(4)
        packets = make_packets(200)
        done = await village.members[0].deposit(SCHEMA.id, addresses_of(packets), packets)
        assert done.replicated.all()
        village.now += 2 * ALIVE_SECONDS  # nobody heard of anybody for so long
        assert all(len(one.members()) < 4 for one in village.members.values())
        await until(lambda: all(len(one.members()) == 4 for one in village.members.values()), 30.0)
        assert all(not one.silent() for one in village.members.values())
        for one in village.members.values():
            answers = await one.fetch(SCHEMA.id, CELLS, cap=256)
            assert united(answers) == raw(packets)
            assert all(answer.complete and not answer.silent for answer in answers)


@asynchronous
async def test_answers_say_how_many_owners_fell_silent() -> None:
    async with Village() as village:
        await village.fill(5)
        asker = village.members[0]
        before = dict(zip(CELLS, asker.replicas.owners(CELLS), strict=True))
        dead = {village.members[number].member.id for number in (1, 2)}
        await asyncio.gather(*(village.members.pop(number).stop() for number in (1, 2)))
        await until(lambda: len(asker.members()) == 3)
        answers = await asker.fetch(SCHEMA.id, CELLS, cap=256)
        assert [one.silent for one in answers] == [len(dead & set(before[one.address])) for one in answers]
        assert max(one.silent for one in answers) > 0
