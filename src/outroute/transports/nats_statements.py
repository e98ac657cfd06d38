"""Statements about keys over NATS: each lies once in the stream, and every node reads all of them when it starts.

What a node knows and nobody has said yet, it says: so a revocation that was installed on one node reaches all, and one
that the stream has let go comes back with the next node that starts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from outroute.errors import OutrouteError, TransportError
from outroute.identity import Learned, Refused
from outroute.transports.contract import Topic, Traffic
from outroute.transports.frames import FRAME_PACKETS, Frame, FrameReason, Kind, Rejected, decode, encode
from outroute.transports.nats_connection import API_SECONDS, ApiError, NatsConnection
from outroute.transports.nats_pulling import ConsumerGoneError, Puller
from outroute.transports.nats_stream import Stream
from outroute.transports.nats_subjects import Subjects
from outroute.transports.standing import Standing

if TYPE_CHECKING:
    from nats.aio.msg import Msg

__all__ = ["NatsStatements"]

READ_AT_ONCE = 256
"""Messages that wait here at most; each has one statement of some hundred bytes."""
SEEN_MOST = 262_144
"""Statements remembered as lying in the stream, 16 bytes each; beyond, one may be said again."""
CAUGHT_UP_SECONDS = 30.0
"""Seconds that a node waits, when it starts, for all that is known about keys."""
AGAIN_SECONDS = 1.0
"""Seconds before trouble is tried again."""


class NatsStatements:
    """Reads and adds statements.

    Args:
        connection, stream, subjects: where.
        standing: what this node knows.
        clock: seconds since 1970.
        traffic: where bytes are counted.
    """

    def __init__(
        self,
        connection: NatsConnection,
        stream: Stream,
        subjects: Subjects,
        standing: Standing,
        *,
        clock: Callable[[], int],
        traffic: Traffic,
    ) -> None:
        self._connection, self._stream, self._subjects = connection, stream, subjects
        self._standing, self._clock, self._traffic = standing, clock, traffic
        self.refused_frames: Counter[FrameReason] = Counter()
        """Messages that are no statements, by reason."""
        self._seen: set[bytes] = set()
        self._offered = -1
        self._puller = self._new_puller()
        self._task: asyncio.Task[None] | None = None
        self.problem = ""
        """Why statements do not move at the moment."""

    def _new_puller(self) -> Puller:
        return Puller(
            self._connection,
            stream=self._stream.name,
            name=f"keys-{os.urandom(8).hex()}",
            filters=[self._subjects.statements],
            durable=False,
            most=READ_AT_ONCE,
        )

    async def start(self) -> None:
        """Read what there is, and go on reading.

        Raises:
            TransportError: the server does not let it.
        """
        await self._bind()
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self.offer()

    async def _bind(self) -> None:
        await self._puller.make(1)
        await self._puller.listen()
        until = asyncio.get_running_loop().time() + CAUGHT_UP_SECONDS
        while asyncio.get_running_loop().time() < until:
            if not (await self._puller.progress()).pending:
                return
            await self._take(await self._puller.pull(READ_AT_ONCE))
        raise TransportError("statements about keys come too slowly: look at the NATS server", code="nats.slow")

    async def _run(self) -> None:
        while True:
            try:
                await self._take(await self._puller.pull(READ_AT_ONCE))
                self.problem = ""
            except ConsumerGoneError:
                await self._again()
            except OutrouteError as error:
                self.problem = str(error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _again(self) -> None:
        """The server has forgotten this reader: read all anew, which changes nothing that is known."""
        try:
            await self._puller.deafen()
            self._puller = self._new_puller()
            await self._bind()
        except (ConsumerGoneError, OutrouteError) as error:
            self.problem = str(error)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _take(self, messages: Sequence[Msg]) -> None:
        """Learn what messages say.

        Raises:
            StoreError: it cannot be kept; it comes again.
        """
        for message in messages:
            self._traffic.received[Topic.STATEMENT] += len(message.data)
            frame = decode(message.data)
            if isinstance(frame, Rejected) or frame.kind is not Kind.STATEMENTS:
                reason = frame.reason if isinstance(frame, Rejected) else FrameReason.UNEXPECTED
                self.refused_frames[reason] += 1
                continue
            for one in frame.statements:
                if len(self._seen) < SEEN_MOST:
                    self._seen.add(_digest(one))
            await asyncio.to_thread(self._standing.learn, frame.statements, self._clock())
        await self._puller.confirm(messages)

    async def tell(self, statements: Iterable[bytes]) -> list[Learned | Refused]:
        """Take statements in, and say them to everybody.

        Raises:
            StoreError: they cannot be kept.
            UnreachableError: the server is away; they are said when it is back.
        """
        found = self._standing.learn(statements, self._clock())
        await self.offer()
        return found

    async def offer(self) -> None:
        """Say what this node knows and nobody has said.

        Raises:
            UnreachableError: the server is away.
            TransportError: it does not take them.
        """
        register = self._standing.register
        version, place = register.version, 0
        if version == self._offered:
            return
        while place < register.length:
            known, place = register.statements(place, FRAME_PACKETS)
            for one in known:
                if _digest(one) not in self._seen:
                    await self._say(one)
        self._offered = version

    async def _say(self, statement: bytes) -> None:
        digest = _digest(statement)
        frame = encode(Frame(kind=Kind.STATEMENTS, statements=(statement,)))
        headers = {"Nats-Msg-Id": digest.hex()} | ({"Nats-TTL": "never"} if self._stream.ages else {})
        self._traffic.sent[Topic.STATEMENT] += len(frame)
        reply = await self._connection.request(
            self._subjects.statement(digest), frame, seconds=API_SECONDS, headers=headers
        )
        refused = refusal(reply.data)
        if refused is not None:
            raise TransportError(f"JetStream does not take a statement about a key: {refused}", code="nats.refused")
        self._seen.add(digest)

    def returned(self) -> None:
        """The connection was away."""
        self._puller.ask_again()

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if self._connection.up:
            try:
                await self._puller.deafen()
                await self._puller.remove()
            except OutrouteError as error:
                self.problem = str(error)  # the server forgets the reader by itself


def refusal(data: bytes) -> ApiError | None:
    """Why JetStream did not take a message, by its reply; None where it did."""
    try:
        found = json.loads(data)
    except ValueError:
        return ApiError(0, 0, "its reply is no JSON")
    if not isinstance(found, dict):
        return ApiError(0, 0, "its reply is no object")
    error = found.get("error")
    return ApiError.of(error) if isinstance(error, dict) else None


def _digest(statement: bytes) -> bytes:
    return hashlib.sha256(statement).digest()[:16]
