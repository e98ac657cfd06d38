"""Peers that keep to no rule, against real processes: refused, counted, held up; honest members notice little."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks._hostile import flood, fuzz, rubbish, stall, stranger
from benchmarks._member import CELLS
from benchmarks._swarm import Swarm

from outroute.placement import Member, Members
from outroute.transports import Frame, Kind, Receipt, decode
from store.making import identity
from transports.rigs import asynchronous

PACKETS = 256
MEMORY_MB = 120
"""More than a member may gain while it is flooded: frames of all who call at a time are far below."""


@asynchronous
async def test_rubbish_is_refused_and_counted_and_packets_stay(tmp_path: Path) -> None:
    async with Swarm(tmp_path, dht=False) as swarm:
        await swarm.fill(3)
        victim, honest = swarm.members[0], swarm.members[2]
        async for part in honest.parts("deposit", author=1, first=0, count=PACKETS, at=swarm.at):
            assert part["acknowledged"]
        link = stranger(0, victim.endpoint)
        found: dict[str, object] = {}
        for what, frame in rubbish(swarm.at).items():
            reply = decode((await link.request(victim.identity.id, frame))[0])
            assert isinstance(reply, Frame)
            found[what] = reply.kind if reply.kind is not Kind.RECEIPTS else set(reply.receipts[:, 0].tolist())
        await link.close()
        refused = ("noise", "malformed", "cut off", "oversized", "a reply without a question")
        assert {found[what] for what in refused} == {Kind.REFUSED}  # type: ignore[comparison-overlap]
        for what in ("forged", "wrong schema", "expired", "withdrawals of others"):
            assert found[what] == {Receipt.REJECTED}, what
        assert (found["good"], found["replayed"]) == ({Receipt.DURABLE}, {Receipt.DUPLICATE})
        assert found["equivocating"] == {Receipt.EQUIVOCATION}
        before = await victim.tell("stats")
        assert sum(before["refused"].values()) > 0
        assert sum(before["refused_frames"].values()) >= len(refused) - 1
        assert before["dropped"]["held up"] > 0

        over = False
        jobs = [asyncio.create_task(flood(victim, 1 + n, swarm.at, lambda: over)) for n in range(2)]
        stalling = [asyncio.create_task(stall(victim, 10 + n, lambda: over)) for n in range(2)]
        for _ in range(5):
            asked = await honest.tell("ask", cells=list(range(CELLS)), show=True)
            assert asked["complete"] == CELLS
            assert set(range(PACKETS)) <= set(asked["found"])
            await asyncio.sleep(0.2)
        over = True
        assert sum(await asyncio.gather(*jobs)) > 0
        await asyncio.gather(*stalling)
        after = await victim.tell("stats")
        assert after["memory_mb"] < before["memory_mb"] + MEMORY_MB
        assert after["members"] == 3


def test_damaged_frames_are_never_an_exception() -> None:
    found = fuzz(20_000)
    assert 0 < found["frames"] < found["inputs"]


def test_a_fifth_of_the_members_cannot_hide_the_honest_holders() -> None:
    """Twenty organisations of five members, four of them hostile: a cell has one honest holder nearly always.

    One honest holder is enough, see ``test_one_honest_holder_is_enough``.
    """
    everybody = [Member(id=identity(n).id, organisation=identity(n // 5).public_key) for n in range(100)]
    hostile = {one.id for one in everybody[:20]}
    rows = Members(everybody).owner_ids([identity(5000 + n).id for n in range(4000)], 3)
    reached = sum(not set(row) <= hostile for row in rows) / len(rows)
    assert reached >= 0.99
