"""Making packets: fill in the 448 bytes, then sign."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from numpy.typing import NDArray

from outroute.errors import OutrouteError
from outroute.fingerprint import cells, sketch
from outroute.identity import KEY_BYTES, Identity, Purpose
from outroute.packet.layout import (
    MAGIC,
    MAX_SIZE,
    PACKET_DTYPE,
    SIGNED_BYTES,
    WEIGHT_ONE,
    Flag,
    PacketArray,
)
from outroute.schema import Distiller, Schema

__all__ = ["CODE_ONE", "SECRET_BYTES", "build", "commit", "largest_variance", "moments_codes", "sign", "withdraw"]

SECRET_BYTES = 32
"""Secret of a commitment: as long as the hash, so that observations cannot be guessed."""
CODE_ONE = 2**32 - 1
"""Largest code of a numeric outcome's mean and variance."""


def moments_codes(
    schema: Schema, mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Codes of numeric outcomes ``[n]``: mean over the declared range, variance over a quarter of its square.

    A quarter of the squared range is the largest variance there is (T. Popoviciu 1935), so both fill 0 to 2^32 - 1.
    The variance is cut to what the code of the mean allows (Bhatia and Davis 2000), in integers, so that rounding never
    makes a packet that its receivers must refuse.
    """
    assert schema.outcome.low is not None
    assert schema.outcome.high is not None
    low, high = float(schema.outcome.low), float(schema.outcome.high)
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise OutrouteError("an outcome is not a finite number", code="packet.outcome")
    unit = np.clip((mean - low) / (high - low), 0.0, 1.0)
    spread = np.clip(variance * 4.0 / (high - low) ** 2, 0.0, 1.0)
    first, second = (np.rint(v * CODE_ONE).astype(np.uint64) for v in (unit, spread))
    second = np.minimum(second, largest_variance(first))
    return first.astype(np.uint32), second.astype(np.uint32)


def largest_variance(mean: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Largest code of a variance beside this code of a mean: ``4 mean (CODE_ONE - mean) / CODE_ONE``, rounded down.

    Source: R. Bhatia and C. Davis, "A Better Bound on the Variance" (2000): at most (mean - low) (high - mean). The
    product stays below 2^64.
    """
    one = np.uint64(CODE_ONE)
    out: NDArray[np.uint64] = np.uint64(4) * mean * (one - mean) // one
    return out


def build(
    schema: Schema,
    *,
    author: bytes,
    sequence: NDArray[np.uint64],
    codes: NDArray[np.uint16],
    size: NDArray[np.int64],
    subjects: NDArray[np.int64],
    bucket: NDArray[np.int64],
    distiller: Distiller,
    counts: NDArray[np.int64] | None = None,
    mean: NDArray[np.float64] | None = None,
    variance: NDArray[np.float64] | None = None,
    lifetime: int | None = None,
    commitment: NDArray[np.uint8] | None = None,
) -> PacketArray:
    """Fill in packets, still unsigned.

    Args:
        schema: the schema.
        author: the author's public key, 32 bytes.
        sequence: uint64 ``[n]``, incarnation in the high half; each used once by its author and cell.
        codes: conditions, uint16 ``[n, width]``.
        size: observations condensed, ``[n]``.
        subjects: distinct subjects among them, ``[n]``; becomes the confidence weight.
        bucket: start of the observed-at bucket in seconds, ``[n]``.
        distiller: how they were condensed.
        counts: class counts ``[n, classes]`` (class outcomes), each row summing to its size.
        mean, variance: ``[n]`` in the outcome's unit (numeric outcomes), variance of the population.
        lifetime: seconds after the end of the bucket; default the schema's longest.
        commitment: uint8 ``[n, 32]``; zero without.

    Raises:
        OutrouteError: when sizes, counts or the author's key do not fit.
    """
    n = len(codes)
    if n and (int(size.max()) > MAX_SIZE or int(subjects.min()) < 1 or (subjects > size).any()):
        raise OutrouteError(f"a packet condenses 1 to {MAX_SIZE} observations", code="packet.size")
    if len(author) != KEY_BYTES:
        raise OutrouteError("the author is a public key of 32 bytes", code="packet.author")
    out = np.zeros(n, dtype=PACKET_DTYPE)
    out["magic"] = MAGIC
    out["kind"], out["distiller"] = int(schema.outcome.kind), int(distiller)
    out["schema"] = np.frombuffer(schema.id, dtype=np.uint8)
    out["author"] = np.frombuffer(author, dtype=np.uint8)
    out["sequence"], out["bucket"] = sequence, bucket
    out["lifetime"] = schema.time.lifetime_seconds if lifetime is None else lifetime
    out["size"], out["weight"] = size, subjects * WEIGHT_ONE
    out["fingerprint"] = sketch(schema, codes)
    out["cell"] = cells(schema, codes)[:, 0]
    if schema.outcome.has_classes:
        if counts is None or (counts < 0).any() or (counts.sum(axis=1) != size).any():
            raise OutrouteError("class counts must sum to the size", code="packet.outcome")
        out["outcome"][:, : counts.shape[1]] = counts
    else:
        if mean is None or variance is None:
            raise OutrouteError("a numeric outcome needs mean and variance", code="packet.outcome")
        first, second = moments_codes(schema, mean, variance)
        out["outcome"][:, 0], out["outcome"][:, 1] = first, second
    out["conditions"][:, : schema.width] = codes
    if commitment is not None:
        out["commitment"] = commitment
    return out


def sign(packets: PacketArray, identity: Identity) -> None:
    """Sign packets in place.

    Raises:
        OutrouteError: when the author of one is not the identity's key.
    """
    if (packets["author"] != np.frombuffer(identity.public_key, dtype=np.uint8)).any():
        raise OutrouteError("only its author can sign or withdraw a packet", code="packet.author")
    raw = packets.tobytes()
    step = packets.dtype.itemsize
    signatures = [identity.sign(Purpose.PACKET, raw[at : at + SIGNED_BYTES]) for at in range(0, len(raw), step)]
    packets["signature"] = np.frombuffer(b"".join(signatures), dtype=np.uint8).reshape(-1, 64)


def withdraw(packets: PacketArray, identity: Identity) -> PacketArray:
    """Withdrawals of own packets: same slot and time, the flag set, content zero, signed."""
    out = np.zeros(len(packets), dtype=PACKET_DTYPE)
    for name in ("magic", "kind", "distiller", "schema", "author", "sequence", "bucket", "lifetime", "cell"):
        out[name] = packets[name]
    out["flags"] = int(Flag.WITHDRAWAL)
    sign(out, identity)
    return out


def commit(secret: bytes, observations: bytes) -> bytes:
    """Commitment to the condensed observations: HMAC-SHA-256 with a fresh 32-byte secret, 32 bytes.

    Args:
        secret: drawn for this packet alone and kept by the author, to be shown to an auditor.
        observations: their canonical bytes (``docs/specification.md``, Commitment).

    Raises:
        OutrouteError: when the secret has not 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise OutrouteError("the secret of a commitment has 32 bytes", code="packet.secret")
    return hmac.new(secret, b"outroute commitment v1\0" + observations, hashlib.sha256).digest()
