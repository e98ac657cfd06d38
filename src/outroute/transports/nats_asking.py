"""Questions over NATS: a node that does not keep a shard asks groups of those who do.

To the reader a group is a member: one of three sends packets, the others digests, and who differs is found out.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from outroute.transports.contract import CREDIT_FRAMES, Traffic, UnreachableError
from outroute.transports.exchanging import ANSWER_FRAMES
from outroute.transports.frames import Flag, Frame, FrameReason, Kind, Rejected, decode, encode
from outroute.transports.keeper import Keeper
from outroute.transports.nats_connection import NatsConnection
from outroute.transports.nats_subjects import GROUPS, Subjects, shard_of

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["Answering", "GroupLink", "group_members"]

QUEUE = "holders"
"""Name of the queue group: of its members in a group of organisations one gets each question."""
_BUSY_MILLISECONDS = 50
_ID_BYTES = 32


def group_members(addresses: Sequence[bytes], count: int) -> list[tuple[bytes, ...]]:
    """Whom to ask for each address, as ids that ``GroupLink`` knows; in any order, so that work is shared."""
    found = []
    for address in addresses:
        groups = random.sample(range(GROUPS), min(count, GROUPS))  # shares work; decides nothing
        found.append(tuple(bytes([group, shard_of(address)]).rjust(_ID_BYTES, b"\0") for group in groups))
    return found


class Answering:
    """Answers questions of others.

    Args:
        connection, subjects: where.
        keeper: answers.
        group: of this node's organisation.
        keep: first digits of the shards kept; none for all.
        traffic: where bytes are counted.
    """

    def __init__(
        self,
        connection: NatsConnection,
        subjects: Subjects,
        keeper: Keeper,
        *,
        group: int,
        keep: Sequence[str],
        traffic: Traffic,
    ) -> None:
        self._connection, self._keeper, self._traffic = connection, keeper, traffic
        self._subjects = subjects.answered(group, keep)
        self._subscriptions: list[Subscription] = []
        self._working: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to answer."""
        self._subscriptions = [
            await self._connection.subscribe(subject, self._on, queue=QUEUE) for subject in self._subjects
        ]

    async def _on(self, message: Msg) -> None:
        if not message.reply:
            return
        if len(self._working) >= CREDIT_FRAMES:
            await self._reply(message, [encode(Frame(kind=Kind.BUSY, detail=_BUSY_MILLISECONDS))])
            return
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _answer(self, message: Msg) -> None:
        data = message.data
        if len(data) > 4 and data[4] in (Kind.ASK, Kind.COMPARE):
            replies = await asyncio.to_thread(self._keeper.handle, data)
        else:  # packets and statements come by the stream alone
            read = decode(data)
            reason = read.reason if isinstance(read, Rejected) else FrameReason.UNEXPECTED
            self._keeper.refused_frames[reason] += 1
            replies = [encode(Frame(kind=Kind.REFUSED, detail=reason))]
        await self._reply(message, replies)

    async def _reply(self, message: Msg, replies: Sequence[bytes]) -> None:
        import nats.errors

        self._traffic.count(message.data, replies, outgoing=False)
        with contextlib.suppress(nats.errors.Error, OSError, UnreachableError):  # whoever asked asks somebody else
            for reply in replies:
                await self._connection.client.publish(message.reply, reply)

    async def close(self) -> None:
        """Answer no more questions, but those that came before."""
        subscriptions, self._subscriptions = self._subscriptions, []
        if self._connection.up:
            for one in subscriptions:
                await one.unsubscribe()
        if self._working:
            await asyncio.wait(self._working)


class GroupLink:
    """A ``Link`` to the groups of holders.

    Args:
        connection, subjects: where.
        traffic: where bytes are counted.
    """

    def __init__(self, connection: NatsConnection, subjects: Subjects, *, traffic: Traffic) -> None:
        self._connection, self._subjects, self._traffic = connection, subjects, traffic
        self._inbox = ""
        self._number = 0
        self._waiting: dict[str, asyncio.Queue[Msg]] = {}

    async def start(self) -> None:
        """Be ready for replies."""
        self._inbox = self._connection.client.new_inbox()
        await self._connection.subscribe(f"{self._inbox}.*", self._on)

    async def _on(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject.rpartition(".")[2])
        if waiting is not None:
            with contextlib.suppress(asyncio.QueueFull):
                waiting.put_nowait(message)

    async def request(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        """See ``Link.request``; the member is a group and a shard."""
        import nats.errors

        self._number += 1
        token = str(self._number)
        queue: asyncio.Queue[Msg] = asyncio.Queue(ANSWER_FRAMES)
        self._waiting[token] = queue
        subject = self._subjects.questions(member[-2], member[-1])
        replies: list[bytes] = []
        try:
            await self._connection.client.publish(subject, frame, reply=f"{self._inbox}.{token}")
            while len(replies) < ANSWER_FRAMES:
                message = await queue.get()
                if not message.data and (message.headers or {}).get("Status") == "503":
                    raise UnreachableError("no holder of this group keeps the shard", code="nats.nobody")
                replies.append(message.data)
                if len(message.data) < 6 or not message.data[5] & Flag.MORE:
                    break
        except (nats.errors.Error, OSError) as error:
            raise UnreachableError(f"NATS is away ({type(error).__name__})", code="nats.unreachable") from None
        finally:
            del self._waiting[token]
            self._traffic.count(frame, replies, outgoing=True)
        return replies
