"""Packets per second of one core: decoding and checking, landmark and fingerprint, signatures, identities.

    OMP_NUM_THREADS=1 python -m benchmarks.codec --json

All in CPU time of one thread and in turns, medians over rounds; ratios are to the raw library in the same round, which
holds when the machine is slow or shared. `normal` scales packets/s to a core that verifies 25,000 signatures a second.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from nacl import bindings
from threadpoolctl import threadpool_limits

from benchmarks.common import NOW, heart_like, key, median, options, ratio, rounds, show, some_packets, wide
from outroute.identity import Purpose
from outroute.packet import (
    PACKET_BYTES,
    PACKET_DTYPE,
    SIGNED_BYTES,
    PacketArray,
    check_derived,
    check_structure,
    identities,
    sign,
    verify_signatures,
)
from outroute.schema import Schema

LANDMARKS = (64, 256, 1024)
NORMAL_VERIFY = 25_000.0
"""Signatures that PyNaCl verifies per second on the core that figures are quoted for."""
FRAME = 128
"""Packets of one frame."""

Work = tuple[int, Callable[[], Any]]


def raw_verify(packets: PacketArray) -> Work:
    """PyNaCl alone, on messages put together before."""
    prefix, raw, public = Purpose.PACKET.value, packets.tobytes(), key(0).public_key
    messages = [
        raw[at + SIGNED_BYTES : at + PACKET_BYTES] + prefix + raw[at : at + SIGNED_BYTES]
        for at in range(0, len(raw), PACKET_BYTES)
    ]

    def work() -> None:
        for message in messages:
            bindings.crypto_sign_open(message, public)

    return len(messages), work


def structure(schema: Schema, count: int, repeats: int, verified: int) -> dict[str, Any]:
    """Decoding and all rules that need no landmark and no signature."""
    buffer = some_packets(schema, count, signed=False).tobytes()
    frames = [buffer[at : at + FRAME * PACKET_BYTES] for at in range(0, len(buffer), FRAME * PACKET_BYTES)]
    signed = some_packets(schema, verified)
    mixed = np.frombuffer(buffer, dtype=PACKET_DTYPE).copy()
    mixed["magic"][::10] ^= 1
    assert not check_structure(np.frombuffer(buffer, dtype=PACKET_DTYPE), schema, NOW).any()
    assert np.count_nonzero(check_structure(mixed, schema, NOW)) == len(mixed[::10])
    target = bytearray(len(buffer))

    def copy() -> None:
        target[:] = buffer

    def header() -> bool:
        packets = np.frombuffer(buffer, dtype=PACKET_DTYPE)
        return bool(((packets["magic"] != 0) & (packets["lifetime"] != 0) & (packets["bucket"] <= NOW)).all())

    def in_frames() -> None:
        for frame in frames:
            check_structure(np.frombuffer(frame, dtype=PACKET_DTYPE), schema, NOW)

    found = rounds(
        {
            "structure": (
                count,
                lambda: check_structure(np.frombuffer(buffer, dtype=PACKET_DTYPE), schema, NOW),
            ),
            "structure_frames_of_128": (count, in_frames),
            "structure_one_in_ten_refused": (count, lambda: check_structure(mixed, schema, NOW)),
            "copy": (count, copy),
            "header": (count, header),
            "verify": raw_verify(signed),
        },
        repeats,
    )
    out: dict[str, Any] = {"slots": schema.width, "packets": count}
    out |= {f"{name}_per_second": median(values) for name, values in found.items()}
    for name in ("structure", "structure_frames_of_128", "structure_one_in_ten_refused"):
        out[f"{name}_to_verify"] = ratio(found[name], found["verify"])
        out[f"{name}_normal"] = out[f"{name}_to_verify"] * NORMAL_VERIFY
    out["structure_to_copy"] = ratio(found["structure"], found["copy"])
    out["structure_to_header"] = ratio(found["structure"], found["header"])
    return out


def derived(make: Callable[[int], Schema], count: int, repeats: int, verified: int) -> dict[str, Any]:
    """Landmark and fingerprint computed anew, microseconds a packet."""
    out = {}
    signed = some_packets(make(LANDMARKS[0]), verified)
    for landmarks in LANDMARKS:
        schema = make(landmarks)
        packets = some_packets(schema, count, signed=False)
        assert not check_derived(packets, schema).any()
        found = rounds(
            {
                "derived": (count, lambda p=packets, s=schema: check_derived(p, s)),  # type: ignore[misc]
                "verify": raw_verify(signed),
            },
            repeats,
        )
        to_verify = ratio(found["derived"], found["verify"])
        out[landmarks] = {
            "microseconds": 1e6 / median(found["derived"]),
            "microseconds_normal": 1e6 / (to_verify * NORMAL_VERIFY),
            "to_verify": to_verify,
        }
    return out


def signatures(schema: Schema, count: int, repeats: int) -> dict[str, Any]:
    """Ours against the raw library, in turns."""
    packets, who = some_packets(schema, count), key(0)
    raw = packets.tobytes()
    bodies = [raw[at : at + SIGNED_BYTES] for at in range(0, len(raw), PACKET_BYTES)]
    messages = [Purpose.PACKET.value + body for body in bodies]
    secret = bindings.crypto_sign_seed_keypair(hashlib.sha256(b"benchmark key 0").digest())[1]
    unsigned = packets.copy()
    assert verify_signatures(packets).all()

    def raw_sign() -> None:
        for message in messages:
            bindings.crypto_sign(message, secret)

    def raw_hash() -> None:
        for body in bodies:
            hashlib.sha256(body).digest()

    found = rounds(
        {
            "sign": (count, lambda: sign(unsigned, who)),
            "raw_sign": (count, raw_sign),
            "verify": (count, lambda: verify_signatures(packets)),
            "raw_verify": raw_verify(packets),
            "identities": (count, lambda: identities(packets)),
            "raw_sha256": (count, raw_hash),
        },
        repeats,
    )
    assert np.array_equal(unsigned, packets)
    out: dict[str, Any] = {f"{name}_per_second": median(values) for name, values in found.items()}
    out["sign_ratio"] = ratio(found["sign"], found["raw_sign"])
    out["verify_ratio"] = ratio(found["verify"], found["raw_verify"])
    out["identities_ratio"] = ratio(found["identities"], found["raw_sha256"])
    return out


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args(arguments)
    repeats = 2 if args.quick else args.rounds
    many, some, few = (2_048, 512, 32) if args.quick else (32_768, 8_192, 500)
    schemas = {"heart_like": heart_like, "wide": wide}
    with threadpool_limits(1):
        found: dict[str, Any] = {
            "rounds": repeats,
            "load": os.getloadavg()[0],
            "structure": {name: structure(make(256), many, repeats, few) for name, make in schemas.items()},
            "derived": {name: derived(make, some, repeats, few) for name, make in schemas.items()},
            "signatures": signatures(heart_like(), few, repeats),
        }
    slowest = max(v["microseconds_normal"] for one in found["derived"].values() for v in one.values())
    found["targets"] = {
        "structure_normal_at_least_5_million": {n: v["structure_normal"] >= 5e6 for n, v in found["structure"].items()},
        "derived_normal_below_10_us": slowest < 10,
        "sign_at_least_0.8": found["signatures"]["sign_ratio"] >= 0.8,
        "verify_at_least_0.8": found["signatures"]["verify_ratio"] >= 0.8,
    }
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
