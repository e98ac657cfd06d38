"""Public reference points of a schema, an artefact of their own that is named by its hash.

Layout (little-endian): 4 bytes ``ORLM``, u16 version (1), u16 width, u32 count, then count x width codes of 16 bits.
Source: DESIGN sections 4 and 5.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from outroute.errors import SchemaError

__all__ = ["DEFAULT_LANDMARKS", "MAX_LANDMARKS", "Landmarks", "draw"]

MAX_LANDMARKS = 16_384
"""Landmarks of one schema: 4 MB at most, and a question still compares with all of them in under 10 ms."""
DEFAULT_LANDMARKS = 64
"""Drawn when nothing has been learnt: enough to route, few enough that small networks fill their cells."""

_REPEATS_IN_A_ROW = 256
"""Known points drawn in a row before giving up: few fields with few categories have few different points. It does not
depend on the count, so that a smaller count gives the first of the same points."""

_HEADER = struct.Struct("<4sHHI")
_PREFIX = b"outroute landmarks v1\0"


@dataclass(frozen=True)
class Landmarks:
    """Reference points.

    Attributes:
        codes: uint16 ``[count, width]``, read-only; no missing values.
    """

    codes: NDArray[np.uint16]

    def __post_init__(self) -> None:
        given = np.asarray(self.codes)
        if given.dtype.kind not in "ui" or (given.size and not 0 <= int(given.min()) <= int(given.max()) <= 65535):
            raise SchemaError("landmarks are codes: whole numbers of 16 bits", code="schema.landmarks")
        codes = given.astype("<u2", order="C")
        if codes.ndim != 2 or not 1 <= codes.shape[0] <= MAX_LANDMARKS or codes.shape[1] < 1:
            raise SchemaError(f"landmarks are a table of 1 to {MAX_LANDMARKS} rows of codes", code="schema.landmarks")
        if len(np.unique(codes, axis=0)) != len(codes):
            raise SchemaError("two landmarks are the same", code="schema.landmarks")
        codes.flags.writeable = False
        object.__setattr__(self, "codes", codes)

    def __len__(self) -> int:
        return int(self.codes.shape[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Landmarks) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def id(self) -> bytes:
        """SHA-256 over a prefix and :meth:`to_bytes`, 32 bytes."""
        return hashlib.sha256(_PREFIX + self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """The artefact, as it is stored and hashed."""
        count, width = self.codes.shape
        return _HEADER.pack(b"ORLM", 1, width, count) + self.codes.astype("<u2").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Landmarks:
        """Read an artefact.

        Raises:
            SchemaError: when the bytes are not a landmark artefact of this version.
        """
        if len(data) < _HEADER.size:
            raise SchemaError("this is not a landmark file: too short", code="schema.landmarks")
        magic, version, width, count = _HEADER.unpack_from(data)
        if magic != b"ORLM" or version != 1:
            raise SchemaError("this is not a landmark file of version 1", code="schema.landmarks")
        if not (1 <= count <= MAX_LANDMARKS and width >= 1) or len(data) != _HEADER.size + 2 * width * count:
            raise SchemaError("the landmark file is truncated or too long", code="schema.landmarks")
        codes = np.frombuffer(data, dtype="<u2", offset=_HEADER.size).reshape(count, width)
        return cls(codes)


def draw(widths: tuple[int, ...], *, count: int, scale: int, seed: bytes) -> Landmarks:
    """Draw landmarks from the declared ranges, the same on every platform.

    Args:
        widths: slots of each field in order; 1 is numeric, more is one slot a category.
        count: how many, 1 to ``MAX_LANDMARKS``.
        scale: largest code (``SCALE``).
        seed: what the draw depends on (the canonical fields, so that another schema draws others).

    Landmark i comes from SHAKE-256 over a prefix, i and the seed: 32 bits u a field, mapped by ``(u * m) >> 32``;
    repeated points are left out, and after 256 of them in a row the draw ends, so fewer than ``count`` may come back.
    """
    if not 1 <= count <= MAX_LANDMARKS:
        raise SchemaError(f"landmarks: count must lie between 1 and {MAX_LANDMARKS}", code="schema.landmarks")
    rows: list[NDArray[np.uint16]] = []
    seen: set[bytes] = set()
    attempt = repeats = 0
    while len(rows) < count and repeats < _REPEATS_IN_A_ROW:
        stream = hashlib.shake_256(b"outroute draw v1\0" + struct.pack("<I", attempt) + seed)
        raw = np.frombuffer(stream.digest(4 * len(widths)), dtype="<u4").astype(np.uint64)
        row = np.zeros(sum(widths), dtype=np.uint16)
        at = 0
        for u, width in zip(raw, widths, strict=True):
            if width == 1:
                row[at] = (u * np.uint64(scale + 1)) >> np.uint64(32)
            else:
                row[at + int((u * np.uint64(width)) >> np.uint64(32))] = scale
            at += width
        attempt, repeats = attempt + 1, repeats + 1
        if row.tobytes() not in seen:
            seen.add(row.tobytes())
            rows.append(row)
            repeats = 0
    return Landmarks(np.stack(rows))
