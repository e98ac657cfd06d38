"""nats-py alone, beside NATS in ``benchmarks.transports``: one stream, a publisher, a durable pull consumer.

As somebody would do it who knows the library and needs every message: ``publish_async`` with a window of as many
messages as a member has credit, every acknowledgement looked at; one request for messages that is renewed before it is
used up, each message confirmed as it comes (``fetch`` waits until a batch is full, and would only be slower at the end
of a run). What it does not do: message ids, lifetimes, subjects by shard, anything with the bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from outroute.packet import PACKET_BYTES
from outroute.transports.contract import CREDIT_FRAMES

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["RawReader", "RawWriter"]

_STREAM, _SUBJECT, _CONSUMER = "RAW", "raw", "reader"
_BATCH = 64
"""Messages of a request."""
_EXPIRES_NANO = 30_000_000_000


class RawReader:
    """The receiving side."""

    def __init__(self) -> None:
        self.packets = 0
        """Packets' worth of bytes that came since this was set to 0."""
        self.moved = asyncio.Event()
        """Set when something has come."""
        self._left = 0

    async def start(self, url: str) -> None:
        """Make stream and consumer, and take whatever comes."""
        import nats
        from nats.js.api import AckPolicy, ConsumerConfig

        self._client: Client = await nats.connect(url)
        stream = self._client.jetstream()
        await stream.add_stream(name=_STREAM, subjects=[_SUBJECT])
        config = ConsumerConfig(durable_name=_CONSUMER, ack_policy=AckPolicy.EXPLICIT, max_ack_pending=1024)
        await stream.add_consumer(_STREAM, config)
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(self._inbox, cb=self._take)
        await self._ask(_BATCH)

    async def _ask(self, messages: int) -> None:
        self._left += messages
        wanted = json.dumps({"batch": messages, "expires": _EXPIRES_NANO}).encode()
        await self._client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{_STREAM}.{_CONSUMER}", wanted, reply=self._inbox)

    async def _take(self, message: Msg) -> None:
        if not message.data:  # the request has expired
            self._left = 0
            await self._ask(_BATCH)
            return
        self.packets += len(message.data) // PACKET_BYTES
        await message.ack()
        self.moved.set()
        self._left -= 1
        if self._left <= _BATCH // 2:
            await self._ask(_BATCH // 2)

    async def close(self) -> None:
        await self._client.close()


class RawWriter:
    """The sending side."""

    async def start(self, url: str) -> None:
        """Connect."""
        import nats

        self._client: Client = await nats.connect(url)
        self._stream = self._client.jetstream(publish_async_max_pending=CREDIT_FRAMES)

    async def send(self, messages: Sequence[bytes], count: int) -> None:
        """So many messages, these in turn; returns when the stream has all."""
        waiting: list[asyncio.Future[Any]] = []
        for message in itertools.islice(itertools.cycle(messages), count):
            waiting.append(await self._stream.publish_async(_SUBJECT, message))
        for acknowledged in await asyncio.gather(*waiting):
            assert acknowledged.stream == _STREAM

    async def publish(self, message: bytes) -> None:
        """One message, and its acknowledgement."""
        await self._stream.publish(_SUBJECT, message)

    async def close(self) -> None:
        await self._client.close()
