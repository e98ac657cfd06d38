"""Conditions -> sketch -> landmark -> address: the same bits on every platform.

Only integers take part. Products and sums stay below 2^53, so a float64 matrix product gives exactly the integers.
Source: DESIGN sections 4 and 5; M. Charikar, "Similarity Estimation Techniques from Rounding Algorithms" (STOC 2002),
section 3, for sketches by random hyperplanes. Departure: hyperplanes have entries +-1 derived from a hash, and are
centred on the landmarks.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from outroute.schema import MISSING, SCALE, Schema

__all__ = ["ADDRESS_BYTES", "SKETCH_BITS", "address", "cells", "projection", "sketch"]

SKETCH_BITS = 256
"""Bits of a fingerprint."""
ADDRESS_BYTES = 32
"""Bytes of an address."""
_CHUNK = 4096
"""Rows at once: the working set stays in the cache of one core."""


@lru_cache(maxsize=16)
def _planes(schema_id: bytes, schema: Schema) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted signs ``[width, 256]`` and the centre ``[width]``."""
    signs = np.empty((schema.width, SKETCH_BITS))
    for slot in range(schema.width):
        digest = hashlib.sha256(b"outroute sketch v1\0" + schema_id + struct.pack("<H", slot)).digest()
        bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8), bitorder="little")
        signs[slot] = 2.0 * bits - 1.0
    codes = schema.landmarks.codes.astype(np.int64)
    centre = (codes.sum(axis=0) // len(codes)).astype(np.float64)
    return signs * schema.slot_weights[:, None], centre


def projection(schema: Schema) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What everybody who has the schema knows of a fingerprint: weighted signs ``[width, 256]`` and centre ``[width]``.

    Bit j of a sketch says whether ``(codes - centre) @ signs[:, j]`` is above zero. Do not write to the arrays.
    """
    return _planes(schema.id, schema)


@lru_cache(maxsize=16)
def _landmark_matrix(schema_id: bytes, schema: Schema) -> NDArray[np.float64]:
    """Rows ``[2 width, landmarks]``: -2 times the landmarks, and weighted squares of them."""
    marks = schema.landmarks.codes.astype(np.float64).T
    return np.ascontiguousarray(np.vstack([-2.0 * marks, schema.slot_weights[:, None] * marks * marks]))


def sketch(schema: Schema, codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Fingerprints of conditions, uint8 ``[n, 32]``.

    Bit j (little-endian within bytes) is 1 when the sum over present slots of weight x sign x (code - centre) is above
    zero. The sign of slot d and bit j is bit j of SHA-256("outroute sketch v1\\0", schema id, d as u16): 1 is +, 0 is
    -. The centre is the mean of the landmarks' codes, rounded down.

    Args:
        schema: the schema.
        codes: uint16 ``[n, width]``.
    """
    signs, centre = _planes(schema.id, schema)
    out = np.empty((len(codes), SKETCH_BITS // 8), dtype=np.uint8)
    for at in range(0, len(codes), _CHUNK):
        part = codes[at : at + _CHUNK]
        values = part - centre
        values[part == MISSING] = 0.0
        out[at : at + _CHUNK] = np.packbits(values @ signs > 0, axis=1, bitorder="little")
    return out


def cells(schema: Schema, codes: NDArray[np.uint16], count: int = 1) -> NDArray[np.int64]:
    """The nearest landmarks, nearest first, int64 ``[n, count]``.

    Distance is the sum over present slots of weight x (code - landmark)^2; ties go to the lowest index.

    Args:
        schema: the schema.
        codes: uint16 ``[n, width]``.
        count: how many; cut to the number of landmarks.
    """
    matrix = _landmark_matrix(schema.id, schema)
    weights = schema.slot_weights.astype(np.float64)
    count = min(count, len(schema.landmarks))
    out = np.empty((len(codes), count), dtype=np.int64)
    for at in range(0, len(codes), _CHUNK):
        part = codes[at : at + _CHUNK]
        present = part != MISSING
        left = np.hstack([np.where(present, part * weights, 0.0), present.astype(np.float64)])
        distance = left @ matrix
        if count == 1:
            out[at : at + _CHUNK, 0] = distance.argmin(axis=1)
        else:
            out[at : at + _CHUNK] = np.argsort(distance, axis=1, kind="stable")[:, :count]
    return out


def address(schema: Schema, facet: int, cell: int, secret: bytes = b"") -> bytes:
    """Routing key of a cell, 32 bytes.

    HMAC-SHA-256 keyed by the network secret over a prefix, the schema id, the facet combination (u64) and the cell
    (u32), little-endian. With a secret, outsiders can neither enumerate nor read addresses.

    Args:
        schema: the schema.
        facet: number of the facet combination (``outroute.schema.facet_index``).
        cell: index of the landmark.
        secret: the network's secret; empty in an open network.
    """
    message = b"outroute address v1\0" + schema.id + struct.pack("<QI", facet, cell)
    return hmac.new(secret, message, hashlib.sha256).digest()


assert 2 * 1000 * 2 * SCALE * SCALE * 116 < 2**53, "float64 must hold every distance exactly"
