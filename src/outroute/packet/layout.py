"""The 512 bytes: where each field stands, and how many packets are one NumPy array.

All numbers are little-endian; unused bytes are zero. Source: DESIGN section 4; ``docs/specification.md``.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import NDArray

from outroute.schema import MAX_CLASSES, MAX_SLOTS

__all__ = [
    "FUTURE_SECONDS",
    "LIMIT_SECONDS",
    "MAGIC",
    "MAX_SIZE",
    "PACKET_BYTES",
    "PACKET_DTYPE",
    "SIGNED_BYTES",
    "WEIGHT_ONE",
    "Flag",
    "PacketArray",
    "Rejection",
    "as_packets",
    "identities",
    "slots",
]

PACKET_BYTES = 512
"""Bytes of a packet."""
SIGNED_BYTES = 448
"""The signature covers all bytes before it; their hash is the packet's identity."""
MAGIC = int.from_bytes(b"ORP\x01", "little")
"""``ORP`` and version 1."""
WEIGHT_ONE = 65_536
"""The confidence weight is in 1/65536: this is one independent observation."""
MAX_SIZE = 65_535
"""Observations that one packet may condense: its weight still fits in 32 bits."""
FUTURE_SECONDS = 600
"""A bucket may start this much ahead of the receiver's clock."""
LIMIT_SECONDS = 2**40
"""Buckets lie within +-34,000 years of 1970: sums of times cannot overflow."""

PACKET_DTYPE = np.dtype(
    {
        "names": [
            "magic",
            "flags",
            "kind",
            "distiller",
            "schema",
            "author",
            "sequence",
            "bucket",
            "lifetime",
            "size",
            "weight",
            "fingerprint",
            "cell",
            "outcome",
            "conditions",
            "commitment",
            "reserved",
            "signature",
        ],
        "formats": [
            "<u4",
            "<u2",
            "u1",
            "u1",
            ("u1", 32),
            ("u1", 32),
            "<u8",
            "<i8",
            "<u4",
            "<u4",
            "<u4",
            ("u1", 32),
            "<u4",
            ("<u4", MAX_CLASSES),
            ("<u2", MAX_SLOTS),
            ("u1", 32),
            ("u1", 8),
            ("u1", 64),
        ],
        "offsets": [0, 4, 6, 7, 8, 40, 72, 80, 88, 92, 96, 100, 132, 136, 176, 408, 440, 448],
        "itemsize": PACKET_BYTES,
    }
)
"""One packet; ``np.frombuffer(buffer, PACKET_DTYPE)`` reads a million without copying."""

PacketArray = NDArray[np.void]
"""Structured array ``[n]`` of ``PACKET_DTYPE``."""


class Flag(IntFlag):
    """Bits of the field ``flags``."""

    WITHDRAWAL = 1


class Rejection(IntEnum):
    """Why a packet is refused. 0 is none: the packet is accepted."""

    NONE = 0
    LENGTH = 1
    MAGIC = 2
    FLAGS = 3
    SCHEMA = 4
    KIND = 5
    DISTILLER = 6
    BUCKET = 7
    FUTURE = 8
    LIFETIME = 9
    EXPIRED = 10
    SIZE = 11
    WEIGHT = 12
    OUTCOME = 13
    CONDITIONS = 14
    CELL = 15
    FINGERPRINT = 16
    WITHDRAWAL = 17
    RESERVED = 18
    SIGNATURE = 19

    @property
    def text(self) -> str:
        """What was wrong, for people."""
        return _TEXTS[self]


_TEXTS = {
    Rejection.NONE: "accepted",
    Rejection.LENGTH: "not 512 bytes",
    Rejection.MAGIC: "not a packet of version 1",
    Rejection.FLAGS: "a flag that does not exist",
    Rejection.SCHEMA: "of another schema",
    Rejection.KIND: "its outcome is not of the schema's kind",
    Rejection.DISTILLER: "a distiller that the schema does not allow",
    Rejection.BUCKET: "its time is not the start of a bucket",
    Rejection.FUTURE: "its bucket starts too far in the future",
    Rejection.LIFETIME: "its lifetime is zero or longer than the schema allows",
    Rejection.EXPIRED: "expired",
    Rejection.SIZE: "condenses fewer observations than the schema's floor, too many, or not as many as its sums say",
    Rejection.WEIGHT: "its weight is below the schema's floor or above its size, or not zero beside noise",
    Rejection.OUTCOME: "an outcome that the schema does not allow",
    Rejection.CONDITIONS: "conditions that the schema does not allow",
    Rejection.CELL: "not in the cell of its nearest landmark",
    Rejection.FINGERPRINT: "its fingerprint is not that of its conditions",
    Rejection.WITHDRAWAL: "a withdrawal with content",
    Rejection.RESERVED: "reserved bytes that are not zero",
    Rejection.SIGNATURE: "its signature is wrong",
}


def as_packets(buffer: bytes | bytearray | memoryview) -> PacketArray:
    """View whole packets in a buffer; bytes after the last whole one are left out."""
    return np.frombuffer(buffer, dtype=PACKET_DTYPE, count=len(buffer) // PACKET_BYTES)


def identities(packets: PacketArray) -> list[bytes]:
    """Identity of each packet: SHA-256 of its first 448 bytes, 32 bytes each."""
    raw = np.ascontiguousarray(packets).tobytes()
    sha = hashlib.sha256
    return [sha(raw[at : at + SIGNED_BYTES]).digest() for at in range(0, len(raw), PACKET_BYTES)]


def slots(packets: PacketArray) -> list[bytes]:
    """Slot of each packet: author, schema, cell, sequence as 76 bytes. Two identities in one prove equivocation."""
    packed = np.empty(len(packets), dtype=[("a", "u1", 32), ("s", "u1", 32), ("c", "<u4"), ("q", "<u8")])
    packed["a"], packed["s"] = packets["author"], packets["schema"]
    packed["c"], packed["q"] = packets["cell"], packets["sequence"]
    raw = packed.tobytes()
    return [raw[at : at + 76] for at in range(0, len(raw), 76)]
