"""Exchanges under way on a channel: each has a number, its reply may come in several messages.

A message is a header of 5 bytes, little-endian (flags u8: 1 = more messages of this reply follow; number of the
exchange u32), and a frame. Links over streams of bytes put the length before it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

from outroute.transports.frames import FRAME_BYTES
from outroute.transports.links import REPLY_FRAMES

__all__ = ["HEAD_BYTES", "Calls", "pack", "packed", "unpack"]

_HEAD = struct.Struct("<BI")
HEAD_BYTES = _HEAD.size
"""Bytes of a message before its frame."""
_MORE = 1


def pack(number: int, frame: bytes, *, more: bool = False) -> bytes:
    """A message: its header and its frame."""
    return _HEAD.pack(_MORE if more else 0, number) + frame


def packed(number: int, frames: Sequence[bytes]) -> list[bytes]:
    """The messages of a reply."""
    return [pack(number, frame, more=at < len(frames)) for at, frame in enumerate(frames, 1)]


def unpack(message: bytes | memoryview) -> tuple[int, bool, bytes] | None:
    """Number, whether more follow, and frame of a message; None when it is none."""
    if len(message) < HEAD_BYTES:
        return None
    flags, number = _HEAD.unpack_from(message)
    return number, bool(flags & _MORE), bytes(message[HEAD_BYTES:])


class _Call:
    """An exchange under way."""

    __slots__ = ("done", "frames")

    def __init__(self) -> None:
        self.done: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self.frames: list[bytes] = []


class Calls:
    """Exchanges that wait for their replies."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Call] = {}
        self._number = 0

    def begin(self) -> int:
        """A new exchange; its number. ``reply`` or ``forget`` has to follow."""
        self._number = (self._number + 1) % 2**32
        self._waiting[self._number] = _Call()
        return self._number

    async def reply(self, number: int) -> list[bytes]:
        """The frames of the reply.

        Raises:
            EOFError: the channel ended before it came.
        """
        try:
            return await self._waiting[number].done
        finally:
            self.forget(number)

    def forget(self, number: int) -> None:
        """Whoever asked has given up."""
        self._waiting.pop(number, None)

    def take(self, number: int, more: bool, frame: bytes) -> None:
        """A message of a reply has come.

        Raises:
            EOFError: it breaks a bound, and the channel has to end.
        """
        if len(frame) > FRAME_BYTES:
            raise EOFError("a frame over the limit")
        call = self._waiting.get(number)
        if call is None:
            return  # whoever asked has given up
        call.frames.append(frame)
        if len(call.frames) > REPLY_FRAMES:
            raise EOFError("a reply over the limit")
        if not more and not call.done.done():
            call.done.set_result(call.frames)

    def fail(self, why: str) -> None:
        """The channel has ended: nobody waits any more."""
        for call in self._waiting.values():
            if not call.done.done():
                call.done.set_exception(EOFError(why))
