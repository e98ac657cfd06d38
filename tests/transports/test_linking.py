"""What all links share and no link can change: how long somebody who was away is left alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from outroute.transports import UnreachableError, flight_client, linking, zeromq_calling
from outroute.transports.inside import InsideLink
from outroute.transports.linking import LinkBase
from outroute.transports.links import RETRY_SECONDS, Channel
from outroute.transports.registry import link_of
from store.making import identity
from transports.rigs import asynchronous

ANNA, BERT = identity(1), identity(2)


class Nowhere(LinkBase):
    """A link that reaches nobody, and notes when it tried."""

    def __init__(self) -> None:
        super().__init__(ANNA, handle=lambda *_: [], endpoint_of=lambda _: "127.0.0.1:9")
        self.tried: list[float] = []

    async def listen(self, host: str = "", port: int = 0) -> str:
        return "127.0.0.1:9"

    async def connect(self, member: bytes, place: str) -> Channel:
        self.tried.append(asyncio.get_running_loop().time())
        raise ConnectionRefusedError("nobody is there")


@asynchronous
async def test_who_was_away_is_called_later_each_time() -> None:
    link = Nowhere()
    said = set()
    while len(link.tried) < 5:
        with pytest.raises(UnreachableError) as error:
            await link.request(BERT.id, b"x")
        said.add("away just now" in str(error.value))
        await asyncio.sleep(0.001)
    assert said == {True, False}  # asked in between, nobody was called
    gaps = [after - before for before, after in zip(link.tried, link.tried[1:], strict=False)]
    assert all(gap >= RETRY_SECONDS[0] * 2**number for number, gap in enumerate(gaps))
    for _ in range(20):
        link._down[BERT.id] = (0.0, link._down[BERT.id][1])
        with pytest.raises(UnreachableError):
            await link.request(BERT.id, b"x")
    assert link._down[BERT.id][1] == RETRY_SECONDS[1]
    await link.close()


@asynchronous
async def test_many_who_ask_at_once_make_one_call() -> None:
    link = Nowhere()
    done = await asyncio.gather(*(link.request(BERT.id, b"x") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(one, UnreachableError) for one in done)
    assert len(link.tried) == 1
    await link.close()


@asynchronous
async def test_channels_that_nobody_uses_make_room() -> None:
    others = [InsideLink(identity(2 + i), handle=lambda *_: [b"here"], endpoint_of=lambda _: None) for i in range(4)]
    places = {link.identity.id: await link.listen() for link in others}
    anna = InsideLink(ANNA, handle=lambda *_: [], endpoint_of=places.get)
    anna.open_most = 2
    for _ in range(2):
        for link in others:
            assert await anna.request(link.identity.id, b"x") == [b"here"]
            assert len(anna._open) <= 2
    assert list(anna._open) == [link.identity.id for link in others[2:]]
    assert await anna.request(others[2].identity.id, b"x") == [b"here"]
    assert await anna.request(others[0].identity.id, b"x") == [b"here"]
    assert list(anna._open) == [others[2].identity.id, others[0].identity.id]  # the one used last before stayed
    for link in (anna, *others):
        await link.close()


@pytest.mark.parametrize("url", ["direct://", "zeromq://", "zeromq://?security=off", "grpc://", "flight://"])
@asynchronous
async def test_who_takes_a_call_and_says_nothing_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that swallows what is sent, or a program of somebody else's."""
    for module in (linking, zeromq_calling, flight_client):
        monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 0.5)
    called, lines = asyncio.Event(), set[asyncio.Task[None]]()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        lines.add(task)
        called.set()
        with suppress(OSError):
            while await reader.read(1 << 16):
                pass
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server:
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        if url.startswith("zeromq"):
            place += f"/{BERT.public_key.hex()}"
        link = link_of(url)(ANNA, handle=lambda *_: [], endpoint_of=lambda _: place)
        with pytest.raises(UnreachableError) as caught:
            async with asyncio.timeout(30.0):  # the libraries themselves would wait for a minute, or for ever
                await link.request(BERT.id, b"x")
        assert called.is_set()
        assert "\n" not in str(caught.value)
        await link.close()
        await asyncio.wait(lines)
