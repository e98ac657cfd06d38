"""Lines of records: however the bytes come, whatever the other side does."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.transports.records import Line, pack_record
from transports.rigs import asynchronous

LIMIT = 3000


class Wire(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.shut, self.written = True, False, b""

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.shut = True

    def is_closing(self) -> bool:
        return self.shut


def feed(line: Line, data: bytes, size: int) -> None:
    """Bytes as the event loop hands them over, so many at a time."""
    at = 0
    while at < len(data):
        assert isinstance(line.transport, Wire)
        if not line.transport.reading or line.transport.shut:
            return
        room = line.get_buffer(-1)
        assert len(room) > 0
        part = data[at : at + min(size, len(room))]
        room[: len(part)] = part
        line.buffer_updated(len(part))
        at += len(part)


def made() -> tuple[Line, Wire]:
    line, wire = Line(LIMIT), Wire()
    line.connection_made(wire)
    return line, wire


@given(st.lists(st.integers(0, LIMIT), max_size=40), st.integers(1, 5000), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_records_come_out_as_they_went_in(sizes: Sequence[int], step: int, most: int) -> None:
    sent = [(n, n % 3 == 0, bytes([n % 256]) * size) for n, size in enumerate(sizes)]
    data = b"".join(pack_record(number, frame, more=more) for number, more, frame in sent)

    async def run() -> None:
        line, wire = made()
        line.begin()
        got: list[tuple[int, bool, bytes]] = []
        for at in range(0, len(data), step):
            feed(line, data[at : at + step], step)
            if wire.reading and at % 2:
                continue  # some are left for later
            while records := line.take(most):
                assert len(records) <= most
                got += records
        got += line.take(10**6)
        assert got == sent
        assert line.since is None

    asyncio.run(run())


@asynchronous
async def test_a_handshake_comes_first_and_may_come_with_the_first_record() -> None:
    line, _ = made()
    feed(line, b"hello" + pack_record(7, b"frame"), 3)
    assert await line.exactly(5) == b"hello"
    line.begin()
    assert line.take(2) == [(7, False, b"frame")]
    line.connection_lost(None)
    with pytest.raises(EOFError):
        await line.exactly(1)


@asynchronous
async def test_a_record_over_the_limit_ends_the_line_before_it_has_come() -> None:
    line, wire = made()
    line.begin()
    feed(line, pack_record(1, bytes(LIMIT)) + struct.pack("<BII", 0, 2, LIMIT + 1), 4096)
    assert line.take(9) == [(1, False, bytes(LIMIT))]
    assert line.take(9) == []
    assert line.oversized
    assert wire.shut
    with pytest.raises(ConnectionResetError):
        await line.say(b"anything")
    assert wire.written == b""


@asynchronous
async def test_who_sends_without_end_has_to_wait_and_takes_no_more_memory() -> None:
    """A flood of the smallest records, and one of the largest, with nobody who takes them."""
    for frame in (b"", bytes(LIMIT)):
        line, wire = made()
        line.begin()
        record = pack_record(1, frame)
        flood = record * (2_000_000 // len(record))
        feed(line, flood, 65_536)
        assert not wire.reading
        held = len(line._buffer)
        assert held <= 1 << 18
        taken = 0
        while records := line.take(1):
            taken += len(records)
        assert wire.reading  # again
        assert taken * len(record) <= held
    line, wire = made()
    feed(line, bytes(100_000), 65_536)  # before any hello was looked at
    assert not wire.reading
    assert len(line._buffer) <= 8192


@asynchronous
async def test_since_when_a_record_is_under_way_is_known() -> None:
    line, _ = made()
    line.begin()
    assert line.since is None
    feed(line, pack_record(1, b"one") + b"\0", 4096)
    assert line.take(9) == [(1, False, b"one")]
    assert line.since is not None
    feed(line, pack_record(2, b"two")[1:], 4096)
    assert line.take(9) == [(2, False, b"two")]
    assert line.since is None


@asynchronous
async def test_writing_waits_while_the_other_side_does_not_read() -> None:
    line, wire = made()
    line.pause_writing()
    saying = asyncio.ensure_future(line.say(b"much"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not saying.done()
    line.resume_writing()
    await saying
    assert wire.written == b"much"
    line.pause_writing()
    saying = asyncio.ensure_future(line.say(b"more"))
    await asyncio.sleep(0)
    line.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await saying
