"""Accepting packets: all rules, the cheap ones first, one packet or a million.

What is refused is a value with a reason, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nacl import bindings, exceptions
from numpy.typing import NDArray

from outroute.fingerprint import cells, sketch
from outroute.identity import Purpose
from outroute.packet.layout import (
    FUTURE_SECONDS,
    LIMIT_SECONDS,
    MAGIC,
    MAX_SIZE,
    PACKET_BYTES,
    SIGNED_BYTES,
    WEIGHT_ONE,
    Flag,
    PacketArray,
    Rejection,
    as_packets,
)
from outroute.packet.make import largest_variance
from outroute.packet.noisy import outside_regions, places, wrong_sums
from outroute.packet.plain import CHUNK, plain, shape_of
from outroute.schema import Distiller, OutcomeKind, Schema, codes_problem

__all__ = ["Verdicts", "accept", "check_derived", "check_structure", "expiry", "verify_signatures"]

Reasons = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What became of each packet.

    Attributes:
        reason: uint8 ``[n]``, a ``Rejection`` each; 0 is accepted.
    """

    reason: Reasons

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Accepted, bool ``[n]``."""
        return np.asarray(self.reason == Rejection.NONE)

    def counted(self) -> dict[Rejection, int]:
        """How many packets were refused for each reason that occurred."""
        values, numbers = np.unique(self.reason, return_counts=True)
        return {Rejection(int(v)): int(n) for v, n in zip(values, numbers, strict=True) if v}


def expiry(schema: Schema, packets: PacketArray) -> NDArray[np.int64]:
    """When packets expire: end of their bucket plus lifetime, int64 ``[n]`` seconds."""
    out: NDArray[np.int64] = packets["bucket"] + schema.time.bucket_seconds + packets["lifetime"].astype(np.int64)
    return out


def check_structure(packets: PacketArray, schema: Schema, now: int) -> Reasons:
    """Everything but what needs conditions to be recomputed and the signature; uint8 ``[n]``.

    Args:
        packets: structured array ``[n]``.
        schema: the only schema accepted.
        now: seconds since 1970-01-01 UTC.
    """
    out = np.zeros(len(packets), dtype=np.uint8)
    if schema.privacy.distiller is Distiller.PRIVATE:
        return _check_rules(packets, schema, now)
    shape = shape_of(schema)
    for at in range(0, len(packets), CHUNK):
        part = packets[at : at + CHUNK]
        odd = np.flatnonzero(~plain(part, shape, now))
        if len(odd):
            out[at + odd] = _check_rules(part[odd], schema, now)
    return out


def _check_rules(p: PacketArray, schema: Schema, now: int) -> Reasons:
    """The first rule that each packet breaks, in the order of the specification; uint8 ``[n]``."""
    reason = np.zeros(len(p), dtype=np.uint8)

    def refuse(bad: NDArray[np.bool_], why: Rejection) -> None:
        if bad.any():
            reason[bad & (reason == 0)] = int(why)

    refuse(p["magic"] != MAGIC, Rejection.MAGIC)
    refuse(_differs(p["schema"], np.frombuffer(schema.id, dtype=np.uint8)), Rejection.SCHEMA)
    refuse(p["flags"] > int(Flag.WITHDRAWAL), Rejection.FLAGS)
    refuse(p["kind"] != int(schema.outcome.kind), Rejection.KIND)
    # Cohorts are always allowed: they say less than the schema permits.
    single = p["distiller"] == int(Distiller.SINGLE)
    private = schema.privacy.distiller is Distiller.PRIVATE
    allowed = p["distiller"] == int(Distiller.PRIVATE if private else Distiller.COHORT)
    if schema.privacy.distiller is Distiller.SINGLE:
        allowed |= single
    refuse(~allowed, Rejection.DISTILLER)
    withdrawal = (p["flags"] & int(Flag.WITHDRAWAL)) != 0
    refuse(withdrawal & _has_content(p), Rejection.WITHDRAWAL)
    bucket, lifetime = p["bucket"].copy(), p["lifetime"].astype(np.int64)
    width = schema.time.bucket_seconds
    sane = (bucket > -LIMIT_SECONDS) & (bucket < LIMIT_SECONDS)
    refuse(~sane | (bucket % width != 0), Rejection.BUCKET)
    refuse(bucket > now + FUTURE_SECONDS, Rejection.FUTURE)
    refuse((lifetime == 0) | (lifetime > schema.time.lifetime_seconds), Rejection.LIFETIME)
    refuse(np.where(sane, bucket, 0) + width + lifetime <= now, Rejection.EXPIRED)
    refuse(p["cell"] >= len(schema.landmarks), Rejection.CELL)
    if private:
        refuse(~withdrawal & wrong_sums(schema, p), Rejection.SIZE)
        refuse(~withdrawal & (p["weight"] != 0), Rejection.WEIGHT)
        refuse(~withdrawal & _differs(p["outcome"][:, places(schema) :], None), Rejection.OUTCOME)
    else:
        size, weight = p["size"].astype(np.int64), p["weight"].astype(np.int64)
        refuse(~withdrawal & ((size < schema.privacy.k) | (size > MAX_SIZE) | (single & (size != 1))), Rejection.SIZE)
        most = size * WEIGHT_ONE
        refuse(~withdrawal & ((weight < schema.privacy.k * WEIGHT_ONE) | (weight > most)), Rejection.WEIGHT)
        refuse(~withdrawal & _bad_outcome(p, schema), Rejection.OUTCOME)
    codes = p["conditions"]
    refuse(~withdrawal & codes_problem(schema, codes[:, : schema.width]), Rejection.CONDITIONS)
    refuse(~withdrawal & _differs(codes[:, schema.width :], None), Rejection.CONDITIONS)
    refuse(_differs(p["reserved"], None), Rejection.RESERVED)
    if private:
        refuse(~withdrawal & outside_regions(schema, codes[:, : schema.width]), Rejection.CONDITIONS)
        refuse(~withdrawal & p["commitment"].any(axis=1), Rejection.RESERVED)
    return reason


def _differs(part: NDArray[Any], expected: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Rows that are not ``expected`` (or not zero), bool ``[n]``.

    Honest packets never differ, so the whole part is looked at first and row by row only when something is wrong.
    """
    whole = np.ascontiguousarray(part)
    if expected is not None:
        whole = whole ^ expected
    if not whole.size or not np.bitwise_or.reduce(whole, axis=None):
        return np.zeros(len(part), dtype=bool)
    return np.asarray(whole.any(axis=1))


def _words(p: PacketArray, name: str) -> NDArray[np.void]:
    """A 32-byte field as one opaque value a packet."""
    return np.ascontiguousarray(p[name]).view("V32")[:, 0]


def _has_content(p: PacketArray) -> NDArray[np.bool_]:
    some = (p["size"] != 0) | (p["weight"] != 0)
    for name in ("fingerprint", "outcome", "conditions", "commitment"):
        some |= p[name].any(axis=1)
    return np.asarray(some, dtype=bool)


def _bad_outcome(p: PacketArray, schema: Schema) -> NDArray[np.bool_]:
    outcome = p["outcome"]
    if schema.outcome.kind is not OutcomeKind.NUMERIC:
        classes = len(schema.outcome.classes)
        total = np.zeros(len(p), dtype=np.uint64)
        for i in range(classes):
            total += outcome[:, i]
        return np.asarray((total != p["size"]) | _differs(outcome[:, classes:], None))
    mean, variance = outcome[:, 0].astype(np.uint64), outcome[:, 1].astype(np.uint64)
    bad = (variance > largest_variance(mean)) | _differs(outcome[:, 2:], None)
    bad |= (p["size"] == 1) & (variance != 0)
    return np.asarray(bad, dtype=bool)


def check_derived(packets: PacketArray, schema: Schema) -> Reasons:
    """Recompute cell and fingerprint from the conditions; uint8 ``[n]``. Withdrawals have none and pass."""
    reason = np.zeros(len(packets), dtype=np.uint8)
    for at in range(0, len(packets), CHUNK):
        p = packets[at : at + CHUNK]
        codes = np.ascontiguousarray(p["conditions"][:, : schema.width])
        part = reason[at : at + CHUNK]
        normal = (p["flags"] & int(Flag.WITHDRAWAL)) == 0
        part[normal & (sketch(schema, codes).view("V32")[:, 0] != _words(p, "fingerprint"))] = Rejection.FINGERPRINT
        part[normal & (cells(schema, codes)[:, 0] != p["cell"])] = Rejection.CELL
    return reason


def verify_signatures(packets: PacketArray) -> NDArray[np.bool_]:
    """Whether each packet's signature is its author's, bool ``[n]``; the slow part, about 40 us each."""
    raw = np.ascontiguousarray(packets).tobytes()
    prefix, check = Purpose.PACKET.value, bindings.crypto_sign_open
    out = np.zeros(len(packets), dtype=bool)
    for i in range(len(packets)):
        one = raw[i * PACKET_BYTES : (i + 1) * PACKET_BYTES]
        try:
            check(one[SIGNED_BYTES:] + prefix + one[:SIGNED_BYTES], one[40:72])
        except (exceptions.BadSignatureError, exceptions.ValueError):
            continue
        out[i] = True
    return out


def accept(
    buffer: bytes | bytearray | memoryview | PacketArray,
    schema: Schema,
    now: int,
    *,
    verify: Callable[[PacketArray], NDArray[np.bool_]] = verify_signatures,
) -> Verdicts:
    """Check packets by every rule of the specification.

    Args:
        buffer: bytes, or a structured array. A length that is not a multiple of 512 adds one verdict ``LENGTH``.
        schema: the only schema accepted.
        now: seconds since 1970-01-01 UTC.
        verify: checks signatures; replace it to use several threads.

    Returns:
        One verdict a packet.
    """
    torn = False
    if isinstance(buffer, np.ndarray):
        packets = buffer
    else:
        packets, torn = as_packets(buffer), len(buffer) % PACKET_BYTES != 0
    reason = check_structure(packets, schema, now)
    left = np.flatnonzero(reason == 0)
    if len(left):
        reason[left] = check_derived(packets[left], schema)
        left = left[reason[left] == 0]
        reason[left[~verify(packets[left])]] = int(Rejection.SIGNATURE)
    if torn:
        reason = np.append(reason, np.uint8(Rejection.LENGTH))
    return Verdicts(reason)
