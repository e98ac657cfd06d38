"""What a journal that was carried over to a successor's schema knows of its rounding.

Codes have 16 bits. A value that was decoded under the old range and encoded under the new one can lie a code or two
beside the one that the value itself would get, and the time of an observation is known as its old bucket. A table read
again must not make every such row a changed one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.schema import MISSING

__all__ = ["Rounding"]

_HEAD = struct.Struct("<qqq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """How far rows that were carried over may lie beside what they are.

    Attributes:
        last_row: number of the last row that was carried over; later ones are exact.
        codes: uint16[D], codes that a slot may be off.
        before, after: width of the time buckets under the old schema and under this one, in seconds.
    """

    last_row: int
    codes: NDArray[np.uint16]
    before: int
    after: int

    def to_bytes(self) -> bytes:
        """As it is kept."""
        return _HEAD.pack(self.last_row, self.before, self.after) + self.codes.astype("<u2").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Rounding:
        """Read what ``to_bytes`` made."""
        last_row, before, after = _HEAD.unpack_from(data)
        return cls(
            last_row=last_row,
            codes=np.frombuffer(data, dtype="<u2", offset=_HEAD.size).astype(np.uint16),
            before=before,
            after=after,
        )

    def same_codes(self, row: int, known: bytes, incoming: bytes) -> bool:
        """Whether two rows of codes are the same but for rounding."""
        if row > self.last_row:
            return False
        a, b = (np.frombuffer(data, dtype="<u2").astype(np.int64) for data in (known, incoming))
        present = (a == MISSING) == (b == MISSING)
        return bool((present & (np.abs(a - b) <= self.codes)).all())

    def same_time(self, row: int, known: int, incoming: int) -> bool:
        """Whether an observation known under an old bucket may belong to a new one."""
        if row > self.last_row or self.before == self.after:
            return False
        return known - self.after < incoming < known + self.before + self.after
