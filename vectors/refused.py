"""Packets that must be refused, one rule at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from declared import Json
from parts import ALICE, BOB, NOW, make_packets, some_codes

from outroute.identity import Identity
from outroute.packet import Flag, PacketArray, Rejection, accept, sign, withdraw
from outroute.schema import MISSING, SCALE, Distiller, Schema

__all__ = ["rejected"]


def rejected(known: dict[str, Schema]) -> list[Json]:
    """Packets that must be refused, each signed by its author after it was spoilt unless it says otherwise."""
    out: list[Json] = []
    alice = Identity(ALICE)

    def add(key: str, why: Rejection, note: str, data: bytes, now: int = NOW) -> None:
        got = [Rejection(int(r)) for r in accept(data, known[key], now).reason]
        assert why in got, (key, why, note, got)
        out.append(
            {"schema": key, "now": now, "note": note, "reason": why.name, "number": int(why), "bytes": data.hex()}
        )

    def base(key: str, *, gone: bool = False) -> PacketArray:
        schema = known[key]
        made = make_packets(schema, some_codes(schema, f"rejected {key}", 1, absent=10**6))
        sign(made, alice)
        return withdraw(made, alice) if gone else made

    def spoil(
        key: str, why: Rejection, note: str, name: str, value: Any, at: int | slice | None = None, **o: Any
    ) -> None:
        one = base(key, gone=o.get("gone", False))
        if at is None:
            one[name] = value
        else:
            one[name][0, at] = value
        sign(one, alice)
        add(key, why, note, one.tobytes(), o.get("now", NOW))

    good = base("heart").tobytes()
    width = known["heart"].time.bucket_seconds
    bucket = NOW // width * width
    longest = known["heart"].time.lifetime_seconds
    add("heart", Rejection.LENGTH, "one byte short", good[:511])
    add("heart", Rejection.LENGTH, "one byte", b"O")
    spoil("heart", Rejection.MAGIC, "version 2", "magic", int.from_bytes(b"ORP\x02", "little"))
    spoil("heart", Rejection.FLAGS, "unknown flag", "flags", 2)
    spoil("heart", Rejection.FLAGS, "unknown flag beside withdrawal", "flags", 0x8001, gone=True)
    add("tiny", Rejection.SCHEMA, "packet of another schema", good)
    add("stay", Rejection.SCHEMA, "packet of another schema with another outcome kind", good)
    spoil("heart", Rejection.KIND, "numeric in a binary schema", "kind", 3)
    spoil("heart", Rejection.KIND, "kind 0", "kind", 0)
    spoil("heart", Rejection.DISTILLER, "single in a cohort schema", "distiller", 2)
    spoil("stay", Rejection.DISTILLER, "unknown distiller", "distiller", 3)
    spoil("heart", Rejection.DISTILLER, "distiller 0 in a withdrawal", "distiller", 0, gone=True)
    spoil("heart", Rejection.BUCKET, "not the start of a bucket", "bucket", bucket + 1)
    spoil("heart", Rejection.BUCKET, "far out", "bucket", -(2**63))
    spoil("heart", Rejection.BUCKET, "a withdrawal off the bucket", "bucket", bucket - 1, gone=True)
    add("heart", Rejection.FUTURE, "starts 601 seconds ahead", good, bucket - 601)
    add("heart", Rejection.FUTURE, "a withdrawal ahead", base("heart", gone=True).tobytes(), bucket - 601)
    spoil("heart", Rejection.LIFETIME, "none", "lifetime", 0)
    spoil("heart", Rejection.LIFETIME, "a second too long", "lifetime", longest + 1)
    add("heart", Rejection.EXPIRED, "the second of its expiry", good, bucket + width + longest)
    add("heart", Rejection.EXPIRED, "withdrawal", base("heart", gone=True).tobytes(), bucket + width + longest)
    spoil("heart", Rejection.SIZE, "below the floor", "size", 4)
    spoil("heart", Rejection.SIZE, "too many", "size", 65_536)
    spoil("stay", Rejection.SIZE, "single with two", "size", 2)
    spoil("heart", Rejection.WEIGHT, "below the floor", "weight", 5 * 65_536 - 1)
    spoil("heart", Rejection.WEIGHT, "above its size", "weight", 5 * 65_536 + 1)
    spoil("heart", Rejection.OUTCOME, "counts above the size", "outcome", 2**32 - 1, 0)
    spoil("heart", Rejection.OUTCOME, "unused place", "outcome", 1, 2)
    spoil("stay", Rejection.OUTCOME, "unused place", "outcome", 1, 2)
    spoil("stay", Rejection.OUTCOME, "one observation with a variance", "outcome", [2**31, 1], slice(0, 2))
    one = make_packets(
        known["stay"],
        some_codes(known["stay"], "variance", 1),
        size=np.array([3]),
        subjects=np.array([3]),
        distiller=Distiller.COHORT,
        mean=np.array([1.0]),
        variance=np.array([999.0]),
    )
    one["outcome"][0, 1] += 1
    sign(one, alice)
    add("stay", Rejection.OUTCOME, "one more than the largest variance beside its mean", one.tobytes())
    pain = known["heart"].slots["pain"]
    site = known["heart"].slots["site"]
    spoil("heart", Rejection.CONDITIONS, "shares below the whole", "conditions", 0, slice(pain.start, pain.stop))
    spoil("heart", Rejection.CONDITIONS, "partly missing", "conditions", MISSING, pain.start)
    spoil("heart", Rejection.CONDITIONS, "a facet in parts", "conditions", [SCALE - 1, 1, 0], site)
    spoil("heart", Rejection.CONDITIONS, "beyond the last slot", "conditions", 1, known["heart"].width)
    spoil("heart", Rejection.CONDITIONS, "last of 116 slots", "conditions", MISSING, 115)
    spoil("heart", Rejection.CELL, "no such landmark", "cell", 16)
    spoil("heart", Rejection.CELL, "no such landmark in a withdrawal", "cell", 16, gone=True)
    spoil("heart", Rejection.CELL, "not the nearest", "cell", (int(base("heart")["cell"][0]) + 1) % 16)
    spoil("heart", Rejection.FINGERPRINT, "zero", "fingerprint", 0)
    age = known["heart"].slots["age"].start
    moved = int(base("heart")["conditions"][0, age]) ^ 0x0800
    spoil("heart", Rejection.FINGERPRINT, "of other conditions", "conditions", moved, age)
    for name, note in (("size", "size"), ("weight", "weight"), ("fingerprint", "fingerprint"), ("outcome", "outcome")):
        spoil("heart", Rejection.WITHDRAWAL, f"with {note}", name, 1, gone=True)
    spoil("heart", Rejection.WITHDRAWAL, "with a condition", "conditions", 1, 115, gone=True)
    spoil("heart", Rejection.WITHDRAWAL, "with a commitment", "commitment", 1, 31, gone=True)
    spoil("heart", Rejection.WITHDRAWAL, "a packet with the flag set", "flags", int(Flag.WITHDRAWAL))
    spoil("heart", Rejection.RESERVED, "last reserved byte", "reserved", 1, 7)
    spoil("heart", Rejection.RESERVED, "in a withdrawal", "reserved", 128, 0, gone=True)
    changed = base("heart")
    changed["sequence"] += np.uint64(1)
    add("heart", Rejection.SIGNATURE, "sequence changed after signing", changed.tobytes())
    changed = base("heart", gone=True)
    changed["cell"] ^= np.uint32(1)
    add("heart", Rejection.SIGNATURE, "withdrawal moved to another cell", changed.tobytes())
    other = base("heart")
    other["author"] = np.frombuffer(Identity(BOB).public_key, dtype=np.uint8)
    add("heart", Rejection.SIGNATURE, "another author", other.tobytes())
    bare = bytearray(good)
    bare[448:] = bytes(64)
    add("heart", Rejection.SIGNATURE, "no signature", bytes(bare))
    zero = bytearray(good)
    zero[40:72], zero[448:] = bytes(32), bytes(64)
    add("heart", Rejection.SIGNATURE, "author and signature zero (small order)", bytes(zero))
    s = int.from_bytes(good[480:], "little") + 2**252 + 27742317777372353535851937790883648493
    again = good[:480] + s.to_bytes(32, "little")
    add("heart", Rejection.SIGNATURE, "S plus the order of the group", again)
    return out
