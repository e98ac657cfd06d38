"""Packets leave for the stream: by shard, in full frames, sent again under the same id until they are acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from outroute.errors import TransportError
from outroute.packet import PACKET_BYTES, PacketArray, expiry
from outroute.schema import Schema
from outroute.transports.contract import CREDIT_FRAMES, Receipt, Topic, Traffic, UnreachableError
from outroute.transports.frames import FRAME_PACKETS, Frame, Kind, encode
from outroute.transports.nats_connection import ApiError, NatsConnection
from outroute.transports.nats_keeping import Keeping
from outroute.transports.nats_stream import GRACE_SECONDS, Stream
from outroute.transports.nats_subjects import Subjects, shard_of

__all__ = ["RETRY_SECONDS", "Sending"]

RETRY_SECONDS = 20.0
"""Seconds in which a frame that is not acknowledged is sent again: electing a new leader takes 4 to 7. After that the
outbox sends its packets again, in new frames."""
ATTEMPT_SECONDS = 5.0
"""Seconds for the acknowledgement of one attempt."""
AGAIN_SECONDS = (0.1, 2.0)
"""Seconds before the next attempt: the first, and the most it grows to."""
BACK_SECONDS = 5.0
"""Seconds for an own frame to come back by the stream, so that it is known what the store made of each packet."""

_log = logging.getLogger("outroute.nats")
_WHOLE = np.dtype(f"V{PACKET_BYTES}")
_TOO_LARGE = 10054
_NO_ROOM = (10002, 10023, 10028, 10047, 10077)
"""Numbers of JetStream's errors for want of room: resources, storage, bytes or messages of the stream."""


class Sending:
    """Sends packets.

    Args:
        connection, stream, subjects: where.
        schema: of the packets.
        traffic: where bytes are counted.
        keeping: this node's own reading of the stream, if it keeps anything.
        kept: the shards that it keeps.
    """

    def __init__(
        self,
        connection: NatsConnection,
        stream: Stream,
        subjects: Subjects,
        *,
        schema: Schema,
        traffic: Traffic,
        keeping: Keeping | None,
        kept: frozenset[int],
    ) -> None:
        self._connection, self._stream, self._subjects = connection, stream, subjects
        self._schema, self._traffic, self._keeping, self._kept = schema, traffic, keeping, kept
        self._credit = asyncio.Semaphore(CREDIT_FRAMES)
        self._secret = os.urandom(32)  # nobody else can take an id before its frame does
        self._sequence = 0

    async def send(
        self, schema: bytes, addresses: Sequence[bytes], packets: PacketArray, cause: bytes, now: int
    ) -> NDArray[np.uint8]:
        """Send packets that were checked; a receipt each, uint8[n].

        Raises:
            TransportError: the server does not take such messages, or not of this user.
        """
        receipts = np.full(len(packets), Receipt.UNREACHABLE, dtype=np.uint8)
        order = sorted(range(len(packets)), key=addresses.__getitem__)  # by shard, and within it by address
        names = [addresses[row] for row in order]
        # Copied once, as plain bytes, which is much faster than field by field; frames are slices of it.
        ordered = np.ascontiguousarray(packets).view(_WHOLE)[order].view(packets.dtype)
        bounds = _bounds(bytes([name[0] for name in names]))

        async def one(start: int, end: int) -> None:
            async with self._credit:
                done = await self._send(schema, names[start:end], ordered[start:end], cause, now)
                receipts[order[start:end]] = done

        tasks = [asyncio.ensure_future(one(start, end)) for start, end in pairwise(bounds)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # where one failed the others would fail alike
                task.cancel()
            await asyncio.wait(tasks)
        return receipts

    async def _send(
        self, schema: bytes, names: Sequence[bytes], packets: PacketArray, cause: bytes, now: int
    ) -> NDArray[np.uint8]:
        runs = Counter(names)
        self._sequence += 1
        frame = encode(
            Frame(
                kind=Kind.DEPOSIT,
                sequence=self._sequence,
                cause=cause,
                schema=schema,
                addresses=tuple(runs),
                counts=tuple(runs.values()),
                packets=packets,
            )
        )
        headers = {"Nats-Msg-Id": self._message_id(runs, packets)}
        if self._stream.ages:
            stays = int(expiry(self._schema, packets).max()) - now + GRACE_SECONDS
            headers["Nats-TTL"] = str(max(stays, 1))
        shard = shard_of(names[0])
        keeping = self._keeping if shard in self._kept else None
        back: asyncio.Future[NDArray[np.uint8]] = asyncio.get_running_loop().create_future()
        if keeping is not None:
            keeping.expected[headers["Nats-Msg-Id"]] = back
        try:
            receipt = await self._acknowledged(self._subjects.packets(shard), frame, headers)
            receipts = np.full(len(packets), receipt, dtype=np.uint8)
            if keeping is None or receipt not in (Receipt.DURABLE, Receipt.HELD, Receipt.DUPLICATE):
                return receipts
            if receipt is Receipt.DUPLICATE:  # it came back before
                return self._as_stream(await keeping.look(schema, names, packets))
            try:
                return self._as_stream(await asyncio.wait_for(back, BACK_SECONDS))
            except TimeoutError:
                return receipts  # the stream has it, this node's store will
        finally:
            if keeping is not None:
                keeping.expected.pop(headers["Nats-Msg-Id"], None)

    def _message_id(self, runs: Counter[bytes], packets: PacketArray) -> str:
        """The same packets are the same message, whatever number of an exchange or cause stands in its header.

        A signature names all other bytes of its packet, which were checked, and is an eighth of them to hash.
        """
        content = hashlib.blake2b(digest_size=16, key=self._secret)
        content.update(b"".join(runs))
        content.update(np.array(list(runs.values()), dtype="<u4").tobytes())
        content.update(packets["signature"].tobytes())
        return content.hexdigest()

    def _as_stream(self, receipts: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the own store made of packets, as durable as the stream is that keeps them for all."""
        kept = np.isin(receipts, (Receipt.DURABLE, Receipt.HELD))
        known = np.isin(receipts, (Receipt.DUPLICATE, Receipt.HELD_DUPLICATE))
        durable = self._stream.durable
        found = receipts.copy()
        found[kept] = Receipt.DURABLE if durable else Receipt.HELD
        found[known] = Receipt.DUPLICATE if durable else Receipt.HELD_DUPLICATE
        return found

    async def _acknowledged(self, subject: str, frame: bytes, headers: dict[str, str]) -> Receipt:
        """Send a frame until the stream has it: DURABLE or HELD, DUPLICATE where it had it, BUSY, or UNREACHABLE."""
        clock = asyncio.get_running_loop().time
        until = clock() + RETRY_SECONDS
        wait, most = AGAIN_SECONDS
        while True:
            done = None
            if self._connection.up:  # else it would wait in the client, once for each attempt
                self._traffic.sent[Topic.DEPOSIT] += len(frame)
                with contextlib.suppress(UnreachableError):
                    reply = await self._connection.request(subject, frame, seconds=ATTEMPT_SECONDS, headers=headers)
                    self._traffic.received[Topic.RECEIPT] += len(reply.data)
                    done = self._receipt(reply.data)
            if done is not None:
                return done
            if clock() + wait > until:
                return Receipt.UNREACHABLE
            await asyncio.sleep(wait)
            wait = min(2 * wait, most)

    def _receipt(self, data: bytes) -> Receipt | None:
        """What an acknowledgement says; None for one to be tried again.

        Raises:
            TransportError: trying again is useless.
        """
        try:
            found = json.loads(data)
        except ValueError:
            return None
        if not isinstance(found, dict):
            return None
        error = found.get("error")
        if isinstance(error, dict):
            why = ApiError.of(error)
            if why.number in _NO_ROOM:
                _log.warning("no room at the NATS server", extra={"problem": str(why)})
                return Receipt.BUSY
            if why.code < 500:
                raise TransportError(
                    f"stream '{self._stream.name}' takes no message as large as a frame: raise its max_msg_size"
                    if why.number == _TOO_LARGE
                    else f"stream '{self._stream.name}' does not take packets: {why}",
                    code="nats.refused",
                )
            return None
        if found.get("stream") != self._stream.name:
            raise TransportError(
                f"subjects of this schema go to stream '{str(found.get('stream'))[:64]}', not to "
                f"'{self._stream.name}': have one of them removed",
                code="nats.stream",
            )
        if found.get("duplicate"):
            return Receipt.DUPLICATE if self._stream.durable or self._keeping is not None else Receipt.HELD_DUPLICATE
        return Receipt.DURABLE if self._stream.durable else Receipt.HELD


def _bounds(shards: bytes) -> list[int]:
    """Where frames begin among packets in the order of their shards, and where the last one ends."""
    of = np.frombuffer(shards, dtype=np.uint8)
    starts = [0, *(np.flatnonzero(of[1:] != of[:-1]) + 1).tolist(), len(of)]
    return [*(at for start, end in pairwise(starts) for at in range(start, end, FRAME_PACKETS)), len(of)]
