"""Real processes, really killed: what was acknowledged is found, every question is answered."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks._member import CELLS
from benchmarks._swarm import Swarm
from benchmarks._traffic import Traffic
from benchmarks.failover import exposed, random_kills

from transports.rigs import asynchronous

PACKETS = 512


@asynchronous
async def test_members_are_killed_and_come_back(tmp_path: Path) -> None:
    async with Swarm(tmp_path, dht=False) as swarm:
        await swarm.fill(6)
        traffic = Traffic(swarm, seed=3)
        await traffic.deposit(swarm.members[0], PACKETS)
        assert traffic.acknowledged == set(range(PACKETS))
        await swarm.whole(traffic.acknowledged)

        before = swarm.owners()
        dead = random.Random(5).sample(swarm.members[1:], 2)
        bare = exposed(before, {one.identity.id for one in dead})
        await swarm.kill(dead)
        for asker in swarm.members:  # at once: nobody has noticed anything yet
            found = await asker.tell("ask", cells=list(range(CELLS)), show=True)
            assert found["complete"] == CELLS
            assert {s for s in range(PACKETS) if s % CELLS not in bare} <= set(found["found"])
        await swarm.known()
        held = set().union(*(await swarm.held()).values())
        await swarm.whole(held)

        await swarm.again(dead[0])
        assert dead[0].stored > 0
        await swarm.known()
        await swarm.whole(held)
        leaving = swarm.members[1]
        await swarm.leave(leaving)
        await swarm.known()
        await swarm.whole(held)
        assert await swarm.recalled(swarm.members[-1]) >= held


@asynchronous
async def test_killed_at_random_moments_while_depositing(tmp_path: Path) -> None:
    found = await random_kills(tmp_path, nodes=4, kills=4, seed=2, dht=False)
    assert found["acknowledged"] > 0
    assert found["lost"] == 0
