"""Packets that keep every rule at first sight.

Nearly all packets do: made by an honest node, with the schema's own distiller, no withdrawal. The rules are those of
``outroute.packet.accept``, in whatever order is fast on columns 512 bytes apart: what has one allowed value is compared
as a whole, and a range is one unsigned comparison (below it, a difference wraps around to a large number).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.packet.layout import (
    FUTURE_SECONDS,
    LIMIT_SECONDS,
    MAGIC,
    MAX_SIZE,
    PACKET_BYTES,
    PACKET_DTYPE,
    WEIGHT_ONE,
    PacketArray,
)
from outroute.packet.make import largest_variance
from outroute.schema import MISSING, SCALE, Distiller, FieldKind, Schema, codes_problem

__all__ = ["CHUNK", "Shape", "plain", "shape_of"]

CHUNK = 1024
"""Packets at once: half a megabyte, so that a chunk stays in the cache of one core while its columns are read."""
_HEAD_WORDS = 5
"""Magic, flags, outcome kind, distiller and schema id: 40 bytes that plain packets of a schema share."""
_LANES = 16
"""Single-precision numbers that a matrix product handles at once: fewer columns are no faster."""
_ONE_THREAD = 2**18
"""Multiplications up to which OpenBLAS stays in one thread; waking another for a few microseconds only costs."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What plain packets of a schema look like.

    Attributes:
        schema: the schema.
        head: uint64 ``[CHUNK, 5]``, their first 40 bytes, in every row.
        span: the slots from the first to the last categorical one.
        groups: float32 ``[span, fields]``, which slot belongs to which categorical field, 0 or 1; columns filled up.
        missing: float32 ``[CHUNK, fields]``, sum of a missing field's codes, in every row.
    """

    schema: Schema
    head: NDArray[np.uint64]
    span: slice
    groups: NDArray[np.float32]
    missing: NDArray[np.float32]


def plain(p: PacketArray, shape: Shape, now: int) -> Mask:
    """Which packets keep all rules but those of the last three: cell, fingerprint, signature.

    The others are to be looked at rule by rule: withdrawals, the rarer distiller of two, and what is wrong.

    Args:
        p: structured array ``[n]``, n at most ``CHUNK``.
        shape: of the only schema accepted.
        now: seconds since 1970-01-01 UTC.

    Returns:
        bool ``[n]``.
    """
    schema = shape.schema
    width, k = schema.time.bucket_seconds, schema.privacy.k
    words = np.ascontiguousarray(p).view("<u8").reshape(len(p), PACKET_BYTES // 8)
    good: Mask = np.ones(len(p), dtype=bool)
    good &= _all(words[:, :_HEAD_WORDS] == shape.head[: len(p)])
    bucket, lifetime, size = p["bucket"].copy(), p["lifetime"].copy(), p["size"].copy()
    good &= bucket % width == 0
    good &= bucket > -LIMIT_SECONDS
    good &= bucket <= min(now + FUTURE_SECONDS, LIMIT_SECONDS - 1)
    good &= bucket + lifetime > now - width
    good &= lifetime - np.uint32(1) < schema.time.lifetime_seconds
    good &= p["cell"] < len(schema.landmarks)
    above = size - np.uint32(k)
    good &= above <= (1 if schema.privacy.distiller is Distiller.SINGLE else MAX_SIZE) - k
    good &= p["weight"] - np.uint32(k * WEIGHT_ONE) <= above * np.uint32(WEIGHT_ONE)
    good &= _outcome(p["outcome"], size, len(schema.outcome.classes))
    good &= _zero(p["conditions"][:, schema.width :])
    good &= _zero(p["reserved"])
    codes = p["conditions"][:, : schema.width]
    if schema.facets:
        good &= ~codes_problem(schema, codes)
    elif shape.groups.size:
        sums = _sums(codes[:, shape.span], shape.groups)
        good &= _all((sums == SCALE) | (sums == shape.missing[: len(p)]))
    return good


def _all(fits: Mask) -> Mask | np.bool_:
    """Rows ``[n, m]`` that are true throughout: one truth where all are, else bool ``[n]``."""
    return np.True_ if fits.all() else np.asarray(fits.all(axis=1), dtype=bool)


def _sums(codes: NDArray[np.uint16], groups: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of each categorical field's codes ``[n, span]``, ``[n, fields]``.

    Sums of at most 116 codes stay below 2^24: single precision holds them exactly.
    """
    step = max(1, _ONE_THREAD // groups.size)
    blocks = -(-len(codes) // step)
    values = np.empty((blocks * step, len(groups)), dtype=np.float32)
    values[: len(codes)] = codes
    values[len(codes) :] = 0
    sums: NDArray[np.float32] = values.reshape(blocks, step, -1) @ groups
    return sums.reshape(blocks * step, -1)[: len(codes)]


def _zero(part: NDArray[Any]) -> Mask | np.bool_:
    """Rows ``[n, m]`` that are zero throughout: one truth where all are, else bool ``[n]``."""
    whole = np.ascontiguousarray(part)
    some = whole.size and np.bitwise_or.reduce(whole, axis=None)
    return np.asarray(~whole.any(axis=1), dtype=bool) if some else np.True_


def _outcome(outcome: NDArray[np.uint32], size: NDArray[np.uint32], classes: int) -> Mask:
    """Outcomes ``[n, 10]`` that a schema with so many classes (0: numeric) allows; bool ``[n]``."""
    if not classes:
        mean, variance = outcome[:, 0].astype(np.uint64), outcome[:, 1].copy()
        good = (variance <= largest_variance(mean)) & ((size > 1) | (variance == 0)) & _zero(outcome[:, 2:])
        return np.asarray(good)
    total = outcome[:, 0].astype(np.uint64)
    for i in range(1, classes):
        total += outcome[:, i]
    return np.asarray((total == size) & _zero(outcome[:, classes:]))


@lru_cache(maxsize=16)
def shape_of(schema: Schema) -> Shape:
    """What plain packets of a schema look like."""
    one = np.zeros(1, dtype=PACKET_DTYPE)
    one["magic"], one["kind"] = MAGIC, int(schema.outcome.kind)
    one["distiller"] = int(schema.privacy.distiller)
    one["schema"] = np.frombuffer(schema.id, dtype=np.uint8)
    named = [schema.slots[f.name] for f in schema.fields if f.kind is FieldKind.CATEGORICAL]
    span = slice(named[0].start, named[-1].stop) if named else slice(0)
    own = schema.category_slots[span]
    groups = np.zeros((len(own), -(-own.shape[1] // _LANES) * _LANES), dtype=np.float32)
    groups[:, : own.shape[1]] = own
    return Shape(
        schema=schema,
        head=np.tile(one.view("<u8")[:_HEAD_WORDS], (CHUNK, 1)),
        span=span,
        groups=groups,
        missing=np.tile(groups.sum(axis=0) * np.float32(MISSING), (CHUNK, 1)),
    )
