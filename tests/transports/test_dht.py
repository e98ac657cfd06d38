"""Finding members over the real engine, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from outroute.errors import TransportError
from outroute.transports import Announcement, Role
from outroute.transports.channel import Secrets
from outroute.transports.dht import SALTS, WIDTHS_BESIDE, DhtFinder, shard_keys
from store.making import NOW, identity
from transports.rigs import asynchronous

SECRET, OLDER = bytes(range(32)), bytes(range(1, 33))


def word(number: int, expires: int = NOW + 600) -> Announcement:
    key = identity(number)
    made = Announcement(key=key.public_key, roles=Role.HOLD, endpoint=f"127.0.0.1:{7000 + number}", expires=expires)
    return made.signed(key)


class Table:
    """Some nodes that know the first one."""

    def __init__(self, count: int, *, size: int = 4, secrets: Secrets | None = None) -> None:
        self.nodes = [DhtFinder(clock=lambda: NOW, size=lambda: size, secrets=secrets) for _ in range(count)]

    async def __aenter__(self) -> list[DhtFinder]:
        first = self.nodes[0].start(host="127.0.0.1")
        for node in self.nodes[1:]:
            node.start(host="127.0.0.1", bootstrap=[("127.0.0.1", first)])
        self.first = first
        return self.nodes

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes:
            await node.close()


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    """Try until it is so: a table that is seconds old finds some keys only at the second attempt."""
    for _ in range(60):
        if await done():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come true")


@asynchronous
async def test_who_announces_is_found_by_newcomers() -> None:
    async with Table(5) as nodes:
        words = [word(number) for number in range(1, 5)]

        async def all_found() -> bool:
            for node, one in zip(nodes[1:], words, strict=True):
                await node.announce(one)
            found = await nodes[0].find(identity(1).id, limit=10)
            return {a.key for a in found} == {a.key for a in words}

        await until(all_found)
        near = await nodes[2].find(identity(3).id, limit=2)
        assert near[0].key == identity(3).public_key
        assert len(near) == 2


@asynchronous
async def test_of_two_words_the_later_counts_and_bad_ones_do_not() -> None:
    async with Table(3) as nodes:
        forged = Announcement(key=identity(9).public_key, roles=Role.HOLD, endpoint="evil:1", expires=NOW + 600)
        for one in (word(1, NOW + 60), word(1, NOW + 300), word(2, NOW), forged):
            await nodes[1].announce(one)

        async def found() -> bool:
            return [a.expires for a in await nodes[2].find(identity(1).id, limit=10)] == [NOW + 300]

        await until(found)


@asynchronous
async def test_outsiders_of_a_closed_network_find_nothing() -> None:
    async with Table(3, secrets=Secrets((SECRET,))) as nodes:
        inside, rotated, outside = nodes[1], nodes[2], nodes[0]
        rotated.secrets = Secrets((OLDER, SECRET))
        outside.secrets = Secrets()

        async def found() -> bool:
            await inside.announce(word(1))
            return [a.key for a in await rotated.find(identity(1).id, limit=10)] == [identity(1).public_key]

        await until(found)
        assert await outside.find(identity(1).id, limit=10) == []
        stolen = [
            data
            for key in shard_keys(identity(1).id, 4, SECRET)  # even if the keys leak, values are sealed
            for data in await outside._values(key, 0)
        ]
        assert stolen
        assert not any(Announcement.from_bytes(data) or identity(1).public_key in data for data in stolen)


def test_keys_are_salted_and_depend_on_the_network() -> None:
    point = identity(1).id
    small = shard_keys(point, 20, b"")
    assert len(small) == SALTS * len({1 << step for step in range(1)})  # one shard whatever the width
    large = shard_keys(point, 100_000, b"")
    assert len(large) == SALTS * (2 * WIDTHS_BESIDE + 1)
    assert not set(large) & set(shard_keys(point, 100_000, SECRET))
    assert set(large) & set(shard_keys(point, 200_000, b""))  # who sees twice the size still meets
    assert set(large) & set(shard_keys(point, 50_000, b""))


def test_a_port_that_is_taken_is_said() -> None:
    async def both() -> None:
        one = DhtFinder(clock=lambda: NOW, size=lambda: 1)
        port = one.start(host="127.0.0.1")
        two = DhtFinder(clock=lambda: NOW, size=lambda: 1)
        try:
            with pytest.raises(TransportError, match="choose another"):
                two.start(host="127.0.0.1", port=port)
        finally:
            await two.close()
            await one.close()

    asyncio.run(both())
