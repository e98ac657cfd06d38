"""Shares once more, in plain Python integers, from section 11 of the specification."""

from __future__ import annotations

import hashlib
from typing import Any

from nacl.bindings import (
    crypto_box_beforenm,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_seed_keypair,
)

from . import second

TOP = 2**64
SCALE, MISSING = 65534, 65535


def vector(agreed: second.Agreed, codes: list[int], outcome: float) -> list[int]:
    """The numbers of one observation."""
    present = [int(codes[where.start] != MISSING) for _, where in agreed.parts]
    held = [0 if code == MISSING else code for code in codes]
    if agreed.outcome["kind"] != "numeric":
        return present + held + [int(i == int(outcome)) for i in range(len(agreed.outcome["classes"]))]
    low, high = float(agreed.outcome["low"]), float(agreed.outcome["high"])
    q = round(min(1.0, max(0.0, (outcome - low) / (high - low))) * SCALE)
    return present + held + [q, q * q]


def drawn(seed: bytes, count: int) -> list[int]:
    """The numbers that a seed stands for."""
    raw = hashlib.shake_256(b"outroute share v1\0" + seed).digest(8 * count)
    return [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]


def enough(members: list[dict[str, Any]], k: int) -> bool:
    sites = [one["site"] for one in members]
    return len(sites) - max(map(sites.count, sites)) >= k


def cohorts(agreed: second.Agreed, members: list[dict[str, Any]], k: int, window: int) -> list[list[dict[str, Any]]]:
    """Who is added up with whom, cohorts in their order."""
    out: list[list[dict[str, Any]]] = []
    ordered = sorted(members, key=lambda one: one["id"])
    for part in sorted({(one["facet"], one["bucket"] // window) for one in ordered}):
        places: dict[int, tuple[list[int], list[dict[str, Any]]]] = {}
        for one in ordered:
            if (one["facet"], one["bucket"] // window) == part:
                places.setdefault(one["cell"], (agreed.marks[one["cell"]], []))[1].append(one)
        while True:
            few = sorted((len(held), cell) for cell, (_, held) in places.items() if not enough(held, k))
            if not few:
                break
            mine = few[0][1]
            if len(places) == 1:
                del places[mine]
                break
            here = places[mine][0]
            near = min(
                (sum(w * (a - b) ** 2 for w, a, b in zip(agreed.weights, here, at, strict=True)), cell)
                for cell, (at, _) in places.items()
                if cell != mine
            )[1]
            keep, gone = sorted((mine, near))
            (a, one_side), (b, other_side) = places[keep], places.pop(gone)
            n, m = len(one_side), len(other_side)
            places[keep] = ([(n * x + m * y) // (n + m) for x, y in zip(a, b, strict=True)], one_side + other_side)
        for cell in sorted(places):
            held = sorted(places[cell][1], key=lambda one: (one["site"], one["id"]))
            count = next(
                c
                for c in range(max(1, len(held) // (k + 1)), 0, -1)
                if c == 1 or all(enough(held[turn::c], k) for turn in range(c))
            )
            out += [held[turn::count] for turn in range(count)]
    return out


def pair_key(seeds: list[bytes], schema: bytes) -> bytes:
    """The public key that two synthesizers have in common."""
    import hmac

    pairs = [crypto_sign_seed_keypair(seed) for seed in seeds]
    first, second_key = sorted(public for public, _ in pairs)
    common = crypto_box_beforenm(
        crypto_sign_ed25519_pk_to_curve25519(pairs[1][0]), crypto_sign_ed25519_sk_to_curve25519(pairs[0][1])
    )
    seed = hmac.new(common, b"outroute pair v1\0" + first + second_key + schema, hashlib.sha256).digest()
    public: bytes = crypto_sign_seed_keypair(seed)[0]
    return public
