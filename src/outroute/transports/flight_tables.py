"""Frames and packets as Arrow sees them: a column ``packet`` of 512 bytes each, and bytes of metadata beside it.

A frame that carries packets travels as its bytes before the packets in the metadata, and the packets as a batch; any
other frame is metadata alone. Nothing is copied on the way out, and once on the way in.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from outroute.packet import PACKET_BYTES, PacketArray, as_packets
from outroute.transports.calls import pack, unpack
from outroute.transports.frames import Kind

__all__ = ["COLUMN", "batch_of", "message_of", "packet_bytes", "packets_in", "table_schema", "told_of"]

COLUMN = "packet"
"""Name of the column."""
_COUNT_AT = slice(6, 8)
_KIND_AT = 4
_WITH_PACKETS = frozenset((Kind.DEPOSIT, Kind.ANSWER))


@cache
def table_schema() -> Any:
    """The Arrow schema of packets: one column of 512 bytes, none of them null."""
    import pyarrow as pa

    return pa.schema([pa.field(COLUMN, pa.binary(PACKET_BYTES), nullable=False)])


def batch_of(packets: bytes | memoryview | PacketArray) -> Any:
    """Packets as a record batch, without a copy.

    Args:
        packets: whole packets one after the other, or PACKET_DTYPE[n].
    """
    import pyarrow as pa

    data = packets if isinstance(packets, (bytes, memoryview)) else np.ascontiguousarray(packets).view(np.uint8)
    size = len(data) // PACKET_BYTES
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(PACKET_BYTES), size, [None, pa.py_buffer(data)])
    return pa.RecordBatch.from_arrays([column], schema=table_schema())


def packet_bytes(batch: Any) -> memoryview | None:
    """The bytes of the packets of a batch, without a copy; None for one that is no table of packets."""
    import pyarrow as pa

    if batch.num_columns != 1 or batch.schema.field(0).type != pa.binary(PACKET_BYTES):
        return None
    column = batch.column(0)
    buffer = column.buffers()[1]
    if column.null_count or (buffer is None and len(column)):
        return None
    start, end = column.offset * PACKET_BYTES, (column.offset + len(column)) * PACKET_BYTES
    data = memoryview(b"" if buffer is None else buffer).cast("B")
    return data[start:end] if len(data) >= end else None


def packets_in(batch: Any) -> PacketArray | None:
    """The packets of a batch, PACKET_DTYPE[n], without a copy; None for one that is no table of packets."""
    data = packet_bytes(batch)
    return None if data is None else as_packets(data)


def message_of(number: int, frame: bytes, *, more: bool = False) -> tuple[bytes, Any | None]:
    """A message that carries a frame: its metadata and its batch, None where it has no packets."""
    if len(frame) > _COUNT_AT.stop and frame[_KIND_AT] in _WITH_PACKETS:
        size = PACKET_BYTES * int.from_bytes(frame[_COUNT_AT], "little")
        if 0 < size < len(frame):
            return pack(number, frame[:-size], more=more), batch_of(memoryview(frame)[-size:])
    return pack(number, frame, more=more), None


def told_of(chunk: Any, limit: int) -> tuple[int, bool, bytes] | None:
    """Number of the exchange, whether more follow, and frame of a message: its metadata and the packets of its batch.

    Args:
        chunk: a ``pyarrow.flight.FlightStreamChunk`` of anybody's.
        limit: bytes of a message at most.

    Returns:
        None for a chunk that is no message, or over the limit.
    """
    head = memoryview(b"" if chunk.app_metadata is None else chunk.app_metadata)
    data: memoryview | None = memoryview(b"")
    if chunk.data is not None:
        data = packet_bytes(chunk.data)
    if data is None or len(head) + len(data) > limit:
        return None
    read = unpack(head)
    if read is None:
        return None
    number, more, first = read
    return number, more, b"".join((first, data)) if len(data) else first
