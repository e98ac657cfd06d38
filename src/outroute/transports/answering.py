"""Answering the frames of one channel: some are read and handled ahead, replies go out in the order of the frames."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from outroute.transports.contract import Topic, topic_of
from outroute.transports.links import SLOW_SECONDS
from outroute.transports.working import GROUP_FRAMES, Waiting

if TYPE_CHECKING:
    from outroute.transports.linking import LinkBase

__all__ = ["AHEAD_FRAMES", "HELD_FRAMES", "TOGETHER_BYTES", "answer_in_turn", "deposits"]

AHEAD_FRAMES = 16
"""Deposits of one channel under way here at a time, at most: while some are handled together, the next come in, so that
neither the line nor who handles them is ever idle. A question is under way alone."""
HELD_FRAMES = 256
"""Frames of all channels under way at a time, about a second of checking; above, each channel has one at a time."""
TOGETHER_BYTES = 65_536
"""Bytes of replies that are said together; larger replies go out each by itself, with its own time."""


async def answer_in_turn(
    link: LinkBase,
    sender: bytes,
    key: bytes,
    read: Callable[[int], Awaitable[Sequence[tuple[int, bytes]]]],
    say: Callable[[Sequence[tuple[int, Sequence[bytes]]]], Awaitable[None]],
) -> bool:
    """Answer frames until there are no more; False when the sender is no longer admitted.

    Who sends what is refused is read one frame at a time, and waits (see ``refusals``).

    Args:
        link: whose frames.
        sender: id of the node at the other end.
        key: its public key.
        read: the numbers and bytes of the next frames, at least one and at most so many; none at the end.
        say: sends the frames of some replies, each with its number; who takes longer than ``SLOW_SECONDS`` to read
            them is cut off.

    Raises:
        TimeoutError: the other side does not read.
        Exception: what ``read`` and ``say`` raise.
    """
    loop = asyncio.get_running_loop()
    under_way: deque[tuple[list[int], Waiting]] = deque()
    more, room = asyncio.Event(), asyncio.Event()
    held, held_up, over = 0, False, False

    async def below(most: int) -> None:
        while held >= most:
            room.clear()
            await room.wait()

    async def reading() -> bool:
        nonlocal held, over
        while True:
            ahead = 1 if held_up or link.held >= HELD_FRAMES else AHEAD_FRAMES
            while held >= ahead or len(under_way) > 1:  # one group is handled, one waits: the next has time to grow
                room.clear()
                await room.wait()
            frames = await read(max(ahead - held, 1))
            if not frames:
                break
            for group in _begun_together(frames):
                alone = not deposits(group[0][1])
                await below(1 if alone else ahead)
                under_way.append(([number for number, _ in group], link.begin(sender, key, [one for _, one in group])))
                held += len(group)
                link.held += len(group)
                more.set()
                await below(1 if alone else held + 1)
        over = True
        more.set()
        return True

    async def speaking() -> bool:
        nonlocal held, held_up
        while True:
            while not under_way:
                if over:
                    return True
                more.clear()
                await more.wait()
            numbers, answering = under_way[0]
            replies = await answering
            if replies is None:
                return False
            for answers in _together(numbers, replies):
                async with asyncio.timeout(SLOW_SECONDS):
                    await say(answers)
            wait = sum(link.hold_up(sender, one) for one in replies)
            held_up = wait > 0
            if wait:
                await asyncio.sleep(wait)
            under_way.popleft()
            held -= len(numbers)
            link.held -= len(numbers)
            room.set()

    both = [loop.create_task(reading()), loop.create_task(speaking())]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if both[0].done() and not both[0].cancelled() and both[0].exception() is None:
            return await both[1]
        done = both[1] if both[1].done() else both[0]
        return await done
    finally:
        ending: list[asyncio.Future[Any]] = [*both, *(answering for _, answering in under_way)]
        link.held -= held
        for one in ending:
            one.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


def _together(
    numbers: Sequence[int], replies: Sequence[Sequence[bytes]]
) -> Iterator[list[tuple[int, Sequence[bytes]]]]:
    """Replies with their numbers, in order, as many at a time as are said together."""
    some: list[tuple[int, Sequence[bytes]]] = []
    size = 0
    for number, frames in zip(numbers, replies, strict=True):
        bytes_of = sum(map(len, frames))
        if some and size + bytes_of > TOGETHER_BYTES:
            yield some
            some, size = [], 0
        some.append((number, frames))
        size += bytes_of
    if some:
        yield some


def deposits(frame: bytes) -> bool:
    """Whether a frame may be begun while others are under way: its reply is small. An answer may have megabytes, so
    a question waits until what came before it is said, and nothing is begun until its answer is."""
    return topic_of(frame) is Topic.DEPOSIT


def _begun_together(frames: Sequence[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """Frames in order, deposits that follow each other together, every other by itself."""
    for together, group in groupby(frames, key=lambda one: deposits(one[1])):
        some = list(group)
        size = GROUP_FRAMES if together else 1
        yield from (some[at : at + size] for at in range(0, len(some), size))
