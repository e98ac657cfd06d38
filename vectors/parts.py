"""What the test vectors are made of: keys, times, numbers that are the same everywhere, allowed codes, packets."""

from __future__ import annotations

import hashlib
import itertools
import struct
from typing import Any

import numpy as np
from declared import Json
from numpy.typing import NDArray

from outroute.identity import Identity
from outroute.packet import PacketArray, build
from outroute.schema import MISSING, SCALE, FieldKind, Schema

__all__ = ["ALICE", "BOB", "CLINIC", "NOW", "SECRET", "Stream", "make_packets", "some_codes"]

NOW = 1_700_000_000
"""The receiver's clock in the vectors, seconds."""
ALICE, BOB, CLINIC = (bytes([n]) * 32 for n in (1, 2, 3))
"""Seeds of keys."""
SECRET = bytes(range(32))
"""The network's secret."""


class Stream:
    """Numbers from SHAKE-256 of a label: the same everywhere."""

    def __init__(self, label: str) -> None:
        self.data, self.at = hashlib.shake_256(label.encode()).digest(1 << 16), 0

    def below(self, limit: int) -> int:
        """A number from 0 to ``limit`` - 1."""
        (u,) = struct.unpack_from("<I", self.data, self.at)
        self.at += 4
        return int((u * limit) >> 32)


def some_codes(schema: Schema, label: str, n: int, *, absent: int = 12, whole: bool = False) -> NDArray[np.uint16]:
    """Allowed codes ``[n, width]``; about one field in ``absent`` is missing."""
    draw, rows = Stream(label), []
    for _ in range(n):
        row: list[int] = []
        for f in schema.fields:
            if draw.below(absent) == 0:
                row += [MISSING] * f.width
            elif f.kind is FieldKind.NUMERIC:
                row.append(draw.below(SCALE + 1))
            elif f.facet or whole or draw.below(2):
                chosen = draw.below(f.width)
                row += [SCALE if i == chosen else 0 for i in range(f.width)]
            else:
                cuts = sorted([0, SCALE, *(draw.below(SCALE + 1) for _ in range(f.width - 1))])
                row += [b - a for a, b in itertools.pairwise(cuts)]
        rows.append(row)
    return np.array(rows, dtype=np.uint16)


def make_packets(schema: Schema, codes: NDArray[np.uint16], **given: Any) -> PacketArray:
    """Packets of Alice's, not yet signed; ``given`` replaces arguments of ``build``."""
    n = len(codes)
    size = given.pop("size", np.full(n, schema.privacy.k))
    width = schema.time.bucket_seconds
    wanted: Json = {
        "author": Identity(ALICE).public_key,
        "sequence": np.arange(n, dtype=np.uint64) + np.uint64(7 << 32),
        "size": size,
        "subjects": size,
        "bucket": np.full(n, NOW // width * width),
        "distiller": schema.privacy.distiller,
    }
    if schema.outcome.has_classes and "counts" not in given:
        counts = np.zeros((n, len(schema.outcome.classes)), dtype=np.int64)
        for i in range(n):
            draw = Stream(f"counts {schema.name} {i}")
            cuts = sorted([0, int(size[i]), *(draw.below(int(size[i]) + 1) for _ in range(counts.shape[1] - 1))])
            counts[i] = np.diff(cuts)
        wanted["counts"] = counts
    if not schema.outcome.has_classes and "mean" not in given:
        assert schema.outcome.high is not None
        wanted |= {"mean": np.linspace(0.0, float(schema.outcome.high), n), "variance": np.zeros(n)}
    return build(schema, codes=codes, **(wanted | given))
