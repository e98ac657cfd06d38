"""Records on a line of bytes: what ``outroute.transports.tls`` stands on.

A record is a header of 9 bytes, little-endian (flags u8: 1 = more frames of this reply follow; number of the exchange
u32; length u32), and a frame. Bytes are received straight into one buffer of the line, and each frame is copied out of
it once, when it is whole; all frames that came together are handed over together.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress

from outroute.transports.links import FAILURES

__all__ = ["Line", "pack_record"]

_RECORD = struct.Struct("<BII")
_MORE = 1
_FIRST_BYTES = 4096
"""Bytes of the buffer of a new line: a handshake and small frames."""
_LARGE_BYTES = 1 << 18
"""Bytes of the buffer of a line with large frames, or as many as its largest record has: what TLS takes at a time."""


def pack_record(number: int, frame: bytes, *, more: bool = False) -> bytes:
    """A record: its header and its frame."""
    return _RECORD.pack(_MORE if more else 0, number, len(frame)) + frame


class Line(asyncio.BufferedProtocol):
    """One end of a line: bytes first, for the handshake, and records after ``begin``.

    What is not taken stays in the buffer, and when that is full the other side has to wait.

    Args:
        limit: bytes of a frame at most; a longer one ends the line.
        made: told once when the line is there; for those who listen.
    """

    def __init__(self, limit: int, made: Callable[[Line], None] | None = None) -> None:
        self.transport: asyncio.Transport | None = None
        """None before the line is there."""
        self.ended = False
        """Nothing more comes."""
        self.oversized = False
        """It was ended by a record over the limit."""
        self.since: float | None = None
        """When the record began to come of which there is a part, in the event loop's seconds."""
        self._limit, self._made = limit, made
        self._most = max(_LARGE_BYTES, limit + _RECORD.size)
        self._heard: Callable[[], None] | None = None
        self._records = False
        self._buffer = bytearray(_FIRST_BYTES)
        self._begin, self._end = 0, 0
        self._paused = False
        self._wake: asyncio.Future[None] | None = None
        self._room: asyncio.Event | None = None

    # what the event loop calls ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.BaseProtocol``."""
        self.transport = transport  # type: ignore[assignment]  # a stream's
        if self._made is not None:
            self._made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See ``asyncio.BufferedProtocol``: where to write what comes; never empty, reading pauses before that."""
        if self._end == len(self._buffer):
            held = self._end - self._begin
            if 2 * held > len(self._buffer) and len(self._buffer) < self._most:
                grown = bytearray(min(4 * len(self._buffer), self._most))
                grown[:held] = self._buffer[self._begin : self._end]
                self._buffer = grown
            else:
                self._buffer[:held] = self._buffer[self._begin : self._end]
            self._begin, self._end = 0, held
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """See ``asyncio.BufferedProtocol``."""
        if self.since is None:
            self.since = asyncio.get_running_loop().time()
        self._end += nbytes
        held = self._end - self._begin
        whole = self._whole() if self._records else held >= _FIRST_BYTES // 2
        if whole and 2 * held >= (self._most if self._records else _FIRST_BYTES) and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._stirred()

    def eof_received(self) -> None:
        """See ``asyncio.BufferedProtocol``: the line closes."""
        self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._finish()

    def pause_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._room = asyncio.Event()

    def resume_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        if self._room is not None:
            self._room.set()
            self._room = None

    # reading ------------------------------------------------------------------------------------------------

    def _whole(self) -> bool:
        """Whether there is a whole record; one over the limit ends the line."""
        if self._end - self._begin < _RECORD.size:
            return False
        _, _, length = _RECORD.unpack_from(self._buffer, self._begin)
        if length > self._limit:
            self.oversized = True
            self.shut()
            return False
        return self._end - self._begin >= _RECORD.size + int(length)

    def begin(self, heard: Callable[[], None] | None = None) -> None:
        """From now on what comes is records.

        Args:
            heard: called whenever something has come, and at the end; else wait for ``changed``.
        """
        self._records, self._heard = True, heard
        self._whole()
        self._stirred()

    def take(self, most: int) -> list[tuple[int, bool, bytes]]:
        """Records that are whole, at most so many: number, whether more of the same reply follow, frame."""
        found: list[tuple[int, bool, bytes]] = []
        view = memoryview(self._buffer)
        while len(found) < most and self._whole():
            flags, number, length = _RECORD.unpack_from(view, self._begin)
            at = self._begin + _RECORD.size
            self._begin = at + length
            found.append((number, bool(flags & _MORE), bytes(view[at : self._begin])))
        if found:
            self._consumed()
        return found

    async def exactly(self, count: int) -> bytes:
        """So many bytes, some hundreds at most, before there are records.

        Raises:
            EOFError: the line ended before.
        """
        while self._end - self._begin < count:
            if self.ended:
                raise EOFError("the connection has ended")
            await self.changed()
        found = bytes(memoryview(self._buffer)[self._begin : self._begin + count])
        self._begin += count
        self._consumed()
        return found

    def _consumed(self) -> None:
        if self._begin == self._end:
            self._begin = self._end = 0
            self.since = None
        else:
            self.since = asyncio.get_running_loop().time()
        if self._paused and self.transport is not None and not self.ended:
            self._paused = False
            self.transport.resume_reading()

    async def changed(self) -> None:
        """Wait until something has come, or the line has ended; one waits at a time."""
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    def _stirred(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if self._heard is not None:
            self._heard()

    def _finish(self) -> None:
        if not self.ended:
            self.ended = True
            self.resume_writing()
            self._stirred()

    # writing ------------------------------------------------------------------------------------------------

    async def say(self, data: bytes) -> None:
        """Write, and wait while the other side has much to read yet.

        Raises:
            ConnectionResetError: it is gone; the event loop would warn of each such write.
        """
        if self.ended or self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the connection has ended")
        self.transport.write(data)
        if self._room is not None:
            await self._room.wait()
            if self.ended:
                raise ConnectionResetError("the connection has ended")

    def shut(self) -> None:
        """Close without waiting: the other side may be gone."""
        self._finish()
        if self.transport is not None:
            with suppress(*FAILURES):
                self.transport.abort()
