"""Packets as rows of a table: the few columns that a store needs beside the 512 bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.packet import PACKET_BYTES, SIGNED_BYTES, Flag, PacketArray, as_packets
from outroute.packet import slots as slot_keys
from outroute.placement import slot_ranks

__all__ = ["Rows", "identity_of", "rows_of", "slot_key_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A batch of n packets, taken apart.

    Attributes:
        bodies: n strings of 512 bytes.
        slot_keys: n strings: author, schema, cell and sequence, compared in full.
        slots: int64[n], a hash of the slot key, which is what is indexed (and the rank in a sample).
        authors: int64[n], the leading 8 bytes of the author's key.
        expires: int64[n], seconds since 1970: end of the bucket plus lifetime.
        withdrawn: bool[n], true for withdrawals.
    """

    bodies: list[bytes]
    slot_keys: list[bytes]
    slots: NDArray[np.int64]
    authors: NDArray[np.int64]
    expires: NDArray[np.int64]
    withdrawn: NDArray[np.bool_]


def rows_of(packets: PacketArray, bucket_seconds: int) -> Rows:
    """Take a batch apart.

    Args:
        packets: PACKET_DTYPE[n], accepted before.
        bucket_seconds: the width of the schema's time buckets.
    """
    joined = np.ascontiguousarray(packets).view(np.uint8).tobytes()
    return Rows(
        bodies=[joined[at : at + PACKET_BYTES] for at in range(0, len(joined), PACKET_BYTES)],
        slot_keys=slot_keys(packets),
        slots=slot_ranks(packets).view(np.int64),
        authors=np.ascontiguousarray(packets["author"][:, :8]).view("<i8")[:, 0],
        expires=packets["bucket"].astype(np.int64) + bucket_seconds + packets["lifetime"].astype(np.int64),
        withdrawn=(packets["flags"] & np.uint16(Flag.WITHDRAWAL)) != 0,
    )


def slot_key_of(bodies: list[bytes]) -> list[bytes]:
    """The slot keys of stored packets."""
    return slot_keys(as_packets(b"".join(bodies)))


def identity_of(body: bytes) -> bytes:
    """The identity of one packet: SHA-256 of its first 448 bytes."""
    return hashlib.sha256(body[:SIGNED_BYTES]).digest()
