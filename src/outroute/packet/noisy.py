"""Packets of the distiller ``private``: which conditions they may have, and how noisy sums stand in them.

A release holds one packet for each *region*: a landmark's conditions with each combination of facets. Regions follow
from the schema alone. A packet's ten places of outcome hold signed sums: a count for each class, or for a number the
count, the sum and the sum of squares of centred steps. Source: ``docs/specification.md``, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from outroute.errors import OutrouteError
from outroute.fingerprint import cells, sketch
from outroute.identity import KEY_BYTES
from outroute.packet.layout import MAGIC, MAX_SIZE, PACKET_DTYPE, PacketArray
from outroute.schema import MISSING, SCALE, Distiller, Schema, facet_index

__all__ = [
    "SQUARE_HALF",
    "STEPS",
    "Regions",
    "build_noisy",
    "contributions",
    "noisy_sums",
    "outside_regions",
    "places",
    "region_of",
    "regions_of",
    "settled",
    "wrong_sums",
]

STEPS = 2**14
"""A numeric outcome lies between -STEPS at the low end of its range and STEPS at the high end, in whole steps: finer
than any noise, and a sum over 131,071 observations still fits in 32 bits."""
SQUARE_HALF = STEPS // 2
"""Squares of steps, divided by STEPS, lie between 0 and STEPS; less this, between -SQUARE_HALF and SQUARE_HALF, so that
one observation moves their sum by half as much."""
MOST = 2**31 - 1
"""Largest sum that a packet holds, of either sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """The packets of one release, in their order: by facet number, then by landmark.

    Attributes:
        codes: uint16[R, width], conditions.
        facet: int64[R], facet number.
        marks: int64[G], the landmarks that count, without those that differ from an earlier one in facets only.
    """

    codes: NDArray[np.uint16]
    facet: NDArray[np.int64]
    marks: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.codes)


@lru_cache(maxsize=16)
def regions_of(schema: Schema) -> Regions:
    """The regions of a schema whose distiller is ``private``."""
    plain = _without_facets(schema, schema.landmarks.codes)
    _, first = np.unique(plain, axis=0, return_index=True)
    marks = np.sort(first).astype(np.int64)
    combined = 1
    for f in schema.facets:
        combined *= f.width + 1
    codes = np.tile(schema.landmarks.codes[marks], (combined, 1))
    facet = np.repeat(np.arange(combined, dtype=np.int64), len(marks))
    left = facet.copy()
    for f in reversed(schema.facets):
        left, chosen = np.divmod(left, f.width + 1)
        row = np.vstack([np.eye(f.width, dtype=np.uint16) * np.uint16(SCALE), np.full((1, f.width), MISSING, "u2")])
        codes[:, schema.slots[f.name]] = row[chosen]
    codes.flags.writeable = facet.flags.writeable = marks.flags.writeable = False
    return Regions(codes=codes, facet=facet, marks=marks)


def region_of(schema: Schema, codes: NDArray[np.uint16]) -> NDArray[np.int64]:
    """The region of conditions uint16 ``[n, width]``, int64 ``[n]``: own facets, nearest landmark, facets left out."""
    if not len(codes):
        return np.zeros(0, dtype=np.int64)
    regions = regions_of(schema)
    nearest = cells(schema, _without_facets(schema, codes))[:, 0]
    # Landmarks that differ in facets only are equally near, and the first of them is the one that counts.
    place = np.zeros(len(schema.landmarks), dtype=np.int64)
    place[regions.marks] = np.arange(len(regions.marks))
    return facet_index(schema, codes) * len(regions.marks) + place[nearest]


def outside_regions(schema: Schema, codes: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Conditions uint16 ``[n, width]`` that are those of no region, bool ``[n]``."""
    known = {row.tobytes() for row in _without_facets(schema, schema.landmarks.codes)}
    return np.array([row.tobytes() not in known for row in _without_facets(schema, codes)], dtype=np.bool_)


def _without_facets(schema: Schema, codes: NDArray[np.uint16]) -> NDArray[np.uint16]:
    out = np.array(codes, dtype=np.uint16, order="C")
    for f in schema.facets:
        out[:, schema.slots[f.name]] = MISSING
    return out


def places(schema: Schema) -> int:
    """Sums in a packet: one a class, or three for a number."""
    return len(schema.outcome.classes) if schema.outcome.has_classes else 3


def contributions(schema: Schema, outcome: NDArray[np.float64]) -> NDArray[np.int64]:
    """What each observation adds to the sums of its region, int64 ``[n, places]``; clipped to the declared range.

    Args:
        schema: the schema.
        outcome: float64 ``[n]``, known; class index, or value.
    """
    if schema.outcome.has_classes:
        return np.eye(len(schema.outcome.classes), dtype=np.int64)[outcome.astype(np.int64)]
    low, high = _range(schema)
    step = np.rint((np.clip((outcome - low) / (high - low), 0.0, 1.0) * 2.0 - 1.0) * STEPS).astype(np.int64)
    square = (step * step + STEPS // 2) // STEPS - SQUARE_HALF
    return np.stack([np.ones(len(step), dtype=np.int64), step, square], axis=1)


def settled(schema: Schema, sums: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Noisy sums as packets hold them, int64 ``[n, places]``, and their sizes, int64 ``[n]``.

    Sums are cut to 32 bits; the size is the number of observations by these sums, from 0 to 65,535. Where it lies below
    a k above 1, nothing is said: all are 0. All of it follows from the noisy sums, so that it tells nothing more.
    """
    cut = np.clip(sums, -MOST, MOST)
    size = _size_of(schema, cut)
    if schema.privacy.k > 1:
        few = size < schema.privacy.k
        cut[few], size[few] = 0, 0
    return cut, size


def _size_of(schema: Schema, sums: NDArray[np.int64]) -> NDArray[np.int64]:
    total = sums.sum(axis=1) if schema.outcome.has_classes else sums[:, 0]
    return np.asarray(np.clip(total, 0, MAX_SIZE), dtype=np.int64)


def noisy_sums(schema: Schema, packets: PacketArray) -> NDArray[np.int64]:
    """The sums that packets hold, int64 ``[n, places]``; they may be negative."""
    return np.ascontiguousarray(packets["outcome"][:, : places(schema)]).view(np.int32).astype(np.int64)


def wrong_sums(schema: Schema, packets: PacketArray) -> NDArray[np.bool_]:
    """Packets whose size is not the one that follows from their sums, or that tell of too few; bool ``[n]``."""
    sums, size = noisy_sums(schema, packets), packets["size"].astype(np.int64)
    wrong = size != _size_of(schema, sums)
    if schema.privacy.k > 1:
        wrong |= (size < schema.privacy.k) & (sums != 0).any(axis=1)
    return np.asarray(wrong, dtype=np.bool_)


def build_noisy(
    schema: Schema,
    *,
    author: bytes,
    sequence: NDArray[np.uint64],
    regions: NDArray[np.int64],
    sums: NDArray[np.int64],
    bucket: int,
) -> PacketArray:
    """Fill in packets of a release, still unsigned. Lifetime, weight and commitment are the same in all.

    Args:
        schema: the schema; its distiller is ``private``.
        author: the author's public key, 32 bytes.
        sequence: uint64 ``[n]``, each used once.
        regions: int64 ``[n]``, see ``regions_of``.
        sums: int64 ``[n, places]``, with noise.
        bucket: start of the bucket of the release, seconds.

    Raises:
        OutrouteError: ``packet.author``; ``packet.distiller``, the schema's distiller is another.
    """
    if len(author) != KEY_BYTES:
        raise OutrouteError("the author is a public key of 32 bytes", code="packet.author")
    if schema.privacy.distiller is not Distiller.PRIVATE:
        raise OutrouteError(f"schema '{schema.name}' has no distiller 'private'", code="packet.distiller")
    codes = regions_of(schema).codes[regions]
    said, size = settled(schema, sums)
    out = np.zeros(len(codes), dtype=PACKET_DTYPE)
    out["magic"] = MAGIC
    out["kind"], out["distiller"] = int(schema.outcome.kind), int(Distiller.PRIVATE)
    out["schema"] = np.frombuffer(schema.id, dtype=np.uint8)
    out["author"] = np.frombuffer(author, dtype=np.uint8)
    out["sequence"], out["bucket"] = sequence, bucket
    out["lifetime"], out["size"] = schema.time.lifetime_seconds, size
    out["fingerprint"], out["cell"] = sketch(schema, codes), cells(schema, codes)[:, 0]
    out["outcome"][:, : places(schema)] = said.astype(np.int32).view(np.uint32)
    out["conditions"][:, : schema.width] = codes
    return out


def _range(schema: Schema) -> tuple[float, float]:
    assert schema.outcome.low is not None
    assert schema.outcome.high is not None
    return float(schema.outcome.low), float(schema.outcome.high)
