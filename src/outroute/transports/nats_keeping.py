"""A holder behind NATS: its part of the stream comes into its own store, every packet checked first.

A frame is confirmed after the store's commit. Where the holder is stands with the server and, so that a directory from
a backup is noticed, in a small file beside the store.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.errors import OutrouteError, StoreError
from outroute.packet import PACKET_BYTES, PacketArray
from outroute.transports.contract import ADDRESS_REFUSED, Receipt, Topic, Traffic, UnreachableError
from outroute.transports.frames import Frame, FrameReason, Kind, Rejected, decode
from outroute.transports.guard import Use
from outroute.transports.keeper import Keeper
from outroute.transports.nats_connection import NatsConnection
from outroute.transports.nats_pulling import ACK_SECONDS, ConsumerGoneError, Puller
from outroute.transports.nats_stream import Stream, last_of
from outroute.transports.nats_subjects import Subjects, shard_of

if TYPE_CHECKING:
    from nats.aio.msg import Msg

__all__ = ["POSITION_FILE", "TAKE_FRAMES", "Keeping"]

TAKE_FRAMES = 32
"""Frames that are kept in one commit: 4,096 packets, 2 MB."""
WAIT_FRAMES = 64
"""Frames that may wait here to be kept: 4 MB."""
NOTE_SECONDS = 1.0
"""Seconds between notes of how far this holder is; what it has beyond comes again and counts once."""
POSITION_FILE = "nats.json"
"""Where a holder is in its stream, in its directory."""
AGAIN_SECONDS = (0.2, 10.0)
"""Seconds before trouble is tried again: the first, and the most it grows to."""

SETTLE_SECONDS = 0.1
"""Seconds for which a consumer has to say that nothing waits, before it is believed although the stream has messages
that are not here: a server acknowledges a message before its consumers count it, and these never count what is not
theirs."""

_POLL_SECONDS = 0.05
"""Seconds between looks at a consumer while something is waited for."""
_log = logging.getLogger("outroute.nats")
_WHOLE = np.dtype(f"V{PACKET_BYTES}")


class Keeping:
    """Reads the stream into a store.

    Args:
        connection, stream, subjects: where from.
        keeper: the store, what checks packets, and the counts of both.
        keep: first digits of the shards; none for all.
        member: the node's id.
        clock: seconds since 1970.
        traffic: where bytes are counted.
        directory: of the node; None where the store is in memory, which is read anew at each start.
        refused: packets refused, by reason.
    """

    def __init__(
        self,
        connection: NatsConnection,
        stream: Stream,
        subjects: Subjects,
        keeper: Keeper,
        *,
        keep: Sequence[str],
        member: bytes,
        clock: Callable[[], int],
        traffic: Traffic,
        directory: Path | None,
        refused: Counter[int],
    ) -> None:
        self._connection, self._stream, self._subjects, self._keeper = connection, stream, subjects, keeper
        self._clock, self._traffic, self._refused = clock, traffic, refused
        self._durable = directory is not None and keeper.shelf.durable
        self._file = None if directory is None or not self._durable else directory / POSITION_FILE
        filters = subjects.kept(keep)
        life = "" if self._durable else os.urandom(4).hex()
        tail = hashlib.sha256(" ".join([*filters, life]).encode()).hexdigest()[:8]
        self._puller = Puller(
            connection,
            stream=stream.name,
            name=f"{member.hex()[:16]}-{tail}",
            filters=filters,
            durable=self._durable,
            most=WAIT_FRAMES,
        )
        self.expected: dict[str, asyncio.Future[NDArray[np.uint8]]] = {}
        """Receipts of this node's own frames, by message id, for whoever waits for one."""
        self.problem = ""
        """Why nothing comes in at the moment."""
        self._position = self._highest = self._taken = 0
        self._nothing_until = 0  # up to this message of the stream nothing is missing here
        self._doubt_until = 0.0
        self._noted = 0.0
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._work: asyncio.Future[list[NDArray[np.uint8]]] | None = None

    # starting -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find the consumer, or make it, and begin to read.

        Raises:
            TransportError: it cannot be made.
        """
        self._position = self._highest = self._read_note()
        await self._bind()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def _read_note(self) -> int:
        """How far this store is for sure; 0 for a new one, or a new stream."""
        if self._file is None or not self._keeper.shelf.addresses():
            return 0
        try:
            found = json.loads(self._file.read_text(encoding="ascii"))
            same = (found["created"], found["consumer"]) == (self._stream.created, self._puller.name)
            position = found["position"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        # A stream that ends before it lost its end: other frames may have the numbers of the lost ones.
        return position if same and isinstance(position, int) and 0 <= position <= self._stream.last else 0

    def _write_note(self) -> None:
        if self._file is None:
            return
        part = self._file.with_name(f".{self._file.name}.part")
        note = {"created": self._stream.created, "consumer": self._puller.name, "position": self._position}
        try:
            part.write_text(json.dumps(note), encoding="ascii")
            os.replace(part, self._file)
        except OSError as error:
            _log.warning("position not noted", extra={"problem": error.strerror})

    async def _bind(self) -> None:
        """Go on where this store is.

        A consumer that is further was made for a store that is gone; one that waits for confirmations would repeat what
        is unconfirmed much later.
        """
        info = await self._puller.info()
        if info is not None:
            behind = int(info.get("ack_floor", {}).get("stream_seq", 0)) <= self._position
            if not behind or info.get("num_ack_pending"):
                await self._puller.remove()
                info = None
        if info is None:
            await self._puller.make(self._position + 1)
            self._taken = 0
        else:
            self._taken = int(info.get("delivered", {}).get("consumer_seq", 0))
        await self._puller.listen()
        self._doubt_until = 0.0  # from here on nothing is on its way that could be lost

    # reading ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        first, most = AGAIN_SECONDS
        wait = first
        while True:
            try:
                messages = await self._puller.pull(TAKE_FRAMES)
                await self._keep(messages)
                self.problem, wait = "", first
            except ConsumerGoneError:
                await self._rebind()
            except OutrouteError as error:
                self.problem = str(error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, most)
            except Exception as error:
                self.problem = f"reading has ended ({error!r}): start the node again"
                _log.exception("reading has ended")
                raise

    async def _rebind(self) -> None:
        try:
            await self._bind()
        except OutrouteError as error:
            self.problem = str(error)
            await asyncio.sleep(AGAIN_SECONDS[0])

    async def _keep(self, messages: list[Msg]) -> None:
        """Keep a batch, however long a full disk takes, and confirm it."""
        first, most = AGAIN_SECONDS
        wait = first
        while True:
            try:
                self._work = asyncio.ensure_future(asyncio.to_thread(self._take, messages))
                receipts = await asyncio.shield(self._work)
                break
            except StoreError as error:
                self._keeper.last_store_error = error
                self.problem = str(error)
                self._work = None
                await asyncio.sleep(wait)
                wait = min(2 * wait, most)
        await self._puller.confirm(messages)
        for message, codes in zip(messages, receipts, strict=True):
            waiting = self.expected.pop((message.headers or {}).get("Nats-Msg-Id", ""), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(codes)
        self._reached(messages)
        await self._note_position()
        self._progress.set()

    def _reached(self, messages: Sequence[Msg]) -> None:
        for message in messages:
            numbers = message.metadata.sequence
            self._highest = max(self._highest, numbers.stream)
            self._taken = max(self._taken, numbers.consumer)

    async def _note_position(self) -> None:
        if self._doubtful:
            try:
                found = await self._puller.progress()
            except (ConsumerGoneError, OutrouteError):
                return
            if found.unconfirmed:
                return
            self._doubt_until = 0.0
        self._position = self._highest
        if time.monotonic() - self._noted >= NOTE_SECONDS:
            self._noted = time.monotonic()
            await asyncio.to_thread(self._write_note)

    @property
    def _doubtful(self) -> bool:
        """Whether something may have been delivered and lost on its way, so that it comes again later."""
        return time.monotonic() < self._doubt_until

    def returned(self) -> None:
        """The connection was away."""
        self._doubt_until = time.monotonic() + 2 * ACK_SECONDS
        self._puller.bind_again("the connection was away")

    def _take(self, messages: Sequence[Msg]) -> list[NDArray[np.uint8]]:
        """Check and keep the packets of some frames in one commit; a receipt for each packet of each frame. Blocks.

        Raises:
            StoreError: nothing was kept.
        """
        frames = [self._frame(message) for message in messages]
        receipts = [np.full(0 if one is None else len(one.packets), Receipt.REJECTED, np.uint8) for one in frames]
        for schema in {frame.schema for frame in frames if frame is not None}:
            chosen = [row for row, one in enumerate(frames) if one is not None and one.schema == schema]
            found = self._take_of(schema, [(frames[row], messages[row].subject) for row in chosen])
            for row, codes in zip(chosen, found, strict=True):
                receipts[row] = codes
        return receipts

    def _frame(self, message: Msg) -> Frame | None:
        self._traffic.received[Topic.DEPOSIT] += len(message.data)
        frame = decode(message.data)
        if isinstance(frame, Frame) and frame.kind is Kind.DEPOSIT:
            return frame
        reason = frame.reason if isinstance(frame, Rejected) else FrameReason.UNEXPECTED
        self._keeper.refused_frames[reason] += 1
        return None

    def _take_of(self, schema: bytes, frames: Sequence[tuple[Frame | None, str]]) -> list[NDArray[np.uint8]]:
        now, keeper = self._clock(), self._keeper
        names: list[bytes] = []
        counts: list[int] = []
        misplaced: list[bool] = []
        parts: list[PacketArray] = []
        for frame, subject in frames:
            assert frame is not None
            shard = self._subjects.shard_in(subject)
            for name, count in zip(frame.addresses, frame.counts, strict=True):
                names += [name] * count
            counts += frame.counts
            misplaced += [shard_of(name) != shard for name in frame.addresses]
            parts.append(frame.packets)
        # As plain bytes: field by field takes ten times as long.
        packets = np.concatenate([part.view(_WHOLE) for part in parts]).view(parts[0].dtype)
        # The stream has kept them, as another holder would have: of a revoked author what is older stays.
        reasons = keeper.guard.check(schema, names, packets, now=now, use=Use.REPAIR)
        wrong = np.flatnonzero(np.repeat(np.array(misplaced, dtype=np.bool_), counts) & (reasons == 0))
        if len(wrong):
            reasons[wrong] = ADDRESS_REFUSED
            keeper.guard.refused[ADDRESS_REFUSED] += len(wrong)
        codes = np.full(len(packets), Receipt.REJECTED, dtype=np.uint8)
        good = np.flatnonzero(reasons == 0)
        if len(good):
            seconds = keeper.guard.schemas[schema].time.bucket_seconds
            if len(good) < len(packets):
                names, packets = [names[i] for i in good.tolist()], packets[good]
            kept = keeper.shelf.put(names, packets, bucket_seconds=seconds, now=now)
            codes[good] = keeper.receipt_of()[kept]
        for values, counter in ((codes, keeper.receipts), (reasons[reasons != 0], self._refused)):
            for value, number in zip(*np.unique(values, return_counts=True), strict=True):
                counter[Receipt(value) if counter is keeper.receipts else int(value)] += int(number)  # type: ignore[index]
        ends = np.cumsum([len(part) for part in parts])
        return np.split(codes, ends[:-1])

    async def look(self, schema: bytes, names: Sequence[bytes], packets: PacketArray) -> NDArray[np.uint8]:
        """Receipts for packets of this node's own that the stream had before, once everything is here; uint8[n]."""
        await self.fresh(ACK_SECONDS)
        seconds = self._keeper.guard.schemas[schema].time.bucket_seconds
        kept = await asyncio.to_thread(
            self._keeper.shelf.put, names, packets, bucket_seconds=seconds, now=self._clock()
        )
        return np.asarray(self._keeper.receipt_of()[kept])

    # waiting ------------------------------------------------------------------------------------------------

    async def fresh(self, seconds: float) -> bool:
        """Wait until everything is here that the stream has kept before this call; whether it is, in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        last = target = -1
        quiet_since: float | None = None
        while True:
            self._progress.clear()
            try:
                if last < 0:
                    last = await last_of(self._connection, self._stream.name)
                found = await self._puller.progress()
            except (ConsumerGoneError, OutrouteError):
                # While it is bound anew after a break there is no consumer for a moment; without servers, wait not.
                if not self._connection.up or loop.time() >= until:
                    return False
                await asyncio.sleep(_POLL_SECONDS)
                continue
            if target < 0:
                target = found.delivered + found.pending
            if not (found.pending or found.unconfirmed) or (self._taken >= target and not self._doubtful):
                if max(self._highest, self._nothing_until) >= last:
                    return True
                quiet_since = loop.time() if quiet_since is None else quiet_since
                if loop.time() - quiet_since >= SETTLE_SECONDS:
                    self._nothing_until = last
                    return True
            else:
                quiet_since = None
            left = until - loop.time()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._progress.wait(), min(left, _POLL_SECONDS))
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Stop reading; what was kept and not confirmed comes again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if self._work is not None:
            await asyncio.wait([self._work])  # a commit under way
        if self._connection.up:
            try:
                await self._puller.deafen()
                if not self._durable:
                    await self._puller.remove()
            except (OutrouteError, UnreachableError) as error:
                _log.info("consumer left behind", extra={"problem": str(error)})
        await asyncio.to_thread(self._write_note)
