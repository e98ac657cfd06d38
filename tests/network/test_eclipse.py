"""Nodes of the table with chosen ids swallow announcements: members are found all the same."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import opendht
import pytest

from outroute.transports.dht import REST_SECONDS, DhtFinder, shard_keys
from transports.rigs import asynchronous
from transports.test_mesh import SECRET, Village, until

AROUND = 16
"""Chosen ids around each key: the engine writes eight copies of a value, these are twice as many."""


class Swallower:
    """A node of the table right beside a key: it is given what is announced there, and tells nobody."""

    def __init__(self, key: bytes, place: int, near: int) -> None:
        config = opendht.DhtConfig()
        config.setNodeId(opendht.InfoHash((key[:-2] + (place + 1).to_bytes(2, "big")).hex().encode()))
        config.setRateLimit(1_000_000, 1_000_000)
        self.node: Any = opendht.DhtRunner()
        self.node.run(None, False, 0, "127.0.0.1", "", config)
        self.node.bootstrap("127.0.0.1", str(near))


@pytest.mark.parametrize("salts", [3, 4])
@asynchronous
async def test_newcomers_find_members_around_an_eclipse(salts: int) -> None:
    async with AsyncExitStack() as stack, Village() as village:

        async def finder(*near: int) -> tuple[DhtFinder, int]:
            one = DhtFinder(clock=lambda: village.now, size=lambda: 4, secrets=SECRET)
            stack.push_async_callback(one.close)
            return one, one.start(host="127.0.0.1", bootstrap=[("127.0.0.1", port) for port in near])

        first, port = await finder()
        keys = shard_keys(bytes(32), 4, SECRET.known[0])
        assert len(keys) == 4
        evil = [Swallower(key, place, port) for key in keys[:salts] for place in range(AROUND)]
        await asyncio.sleep(1.0)
        await village.add(0, finder=first)
        for number in (1, 2):
            await village.add(number, finder=(await finder(port))[0])
        await until(lambda: all(len(one.members()) == 3 for one in village.members.values()))
        for one in evil:  # gone, with all that they were given
            one.node.shutdown()
        await asyncio.sleep(REST_SECONDS)
        for one in evil:
            one.node.join()
        # With one salt left the table alone is enough; with none, one member's place leads to all.
        newcomer, _ = await finder(port)
        join = [] if salts < 4 else [village.members[2].endpoint]
        await village.add(3, join=join, finder=newcomer)
        await until(lambda: all(len(one.members()) == 4 for one in village.members.values()), 60.0)
