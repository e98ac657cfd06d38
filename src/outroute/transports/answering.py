"""Answering the frames of one channel: some are read and handled ahead, replies go out in the order of the frames."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from outroute.transports.links import SLOW_SECONDS

if TYPE_CHECKING:
    from outroute.transports.linking import LinkBase

__all__ = ["AHEAD_FRAMES", "answer_in_turn"]

AHEAD_FRAMES = 4
"""Frames of one channel under way here at a time, at most: so they share a commit, and the line is never idle. All
channels together may hold some 170 MB of frames, if they are as large as can be."""


async def answer_in_turn(
    link: LinkBase,
    sender: bytes,
    key: bytes,
    read: Callable[[], Awaitable[tuple[int, bytes] | None]],
    say: Callable[[int, Sequence[bytes]], Awaitable[None]],
) -> bool:
    """Answer frames until there are no more; False when the sender is no longer admitted.

    Who sends what is refused is read one frame at a time, and waits (see ``refusals``).

    Args:
        link: whose frames.
        sender: id of the node at the other end.
        key: its public key.
        read: the number and bytes of the next frame; None at the end.
        say: sends the frames of a reply; who takes longer than ``SLOW_SECONDS`` to read them is cut off.

    Raises:
        TimeoutError: the other side does not read.
        Exception: what ``read`` and ``say`` raise.
    """
    loop = asyncio.get_running_loop()
    under_way: deque[tuple[int, asyncio.Task[list[bytes] | None]]] = deque()
    more, room = asyncio.Event(), asyncio.Event()
    ahead, over = AHEAD_FRAMES, False

    async def reading() -> bool:
        nonlocal over
        while (one := await read()) is not None:
            under_way.append((one[0], loop.create_task(link.answer(sender, key, one[1]))))
            more.set()
            while len(under_way) >= ahead:
                room.clear()
                await room.wait()
        over = True
        more.set()
        return True

    async def speaking() -> bool:
        nonlocal ahead
        while True:
            while not under_way:
                if over:
                    return True
                more.clear()
                await more.wait()
            number, answering = under_way[0]
            replies = await answering
            if replies is None:
                return False
            async with asyncio.timeout(SLOW_SECONDS):
                await say(number, replies)
            wait = link.hold_up(sender, replies)
            ahead = 1 if wait else AHEAD_FRAMES
            if wait:
                await asyncio.sleep(wait)
            under_way.popleft()
            room.set()

    both = [loop.create_task(reading()), loop.create_task(speaking())]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if both[0].done() and not both[0].cancelled() and both[0].exception() is None:
            return await both[1]
        done = both[1] if both[1].done() else both[0]
        return await done
    finally:
        ending = [*both, *(task for _, task in under_way)]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
