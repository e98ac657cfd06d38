"""Shares of observations, who is added up with whom, and the packets that two synthesizers make of the sums."""

from __future__ import annotations

import numpy as np
from declared import Json, declared, make_schema
from parts import ALICE, BOB

from outroute.distill.combining import combine
from outroute.distill.contribution import Contribution, pair_of
from outroute.distill.opening import add_up
from outroute.distill.shares import drawn_share, other_share, vectors_of
from outroute.fingerprint import cells
from outroute.identity import Identity
from outroute.schema import MISSING, SCALE, OutcomeKind, Schema, facet_index

__all__ = ["shares"]

MEMBERS = 23
"""Contributions of a case: more than one cohort of the floor."""


def shares() -> list[Json]:
    """One case a schema: contributions with both shares, and what becomes of them."""
    out: list[Json] = []
    one, two = sorted((Identity(ALICE), Identity(BOB)), key=lambda who: who.public_key)
    for number, key in enumerate(("tiny", "heart", "words", "acts")):
        schema = make_schema(declared()[key])
        rng = np.random.default_rng([77, number])
        held: tuple[list[Contribution], list[Contribution]] = ([], [])
        rows = []
        codes, outcome = _observations(schema, rng)
        vectors = vectors_of(schema, codes, outcome)
        for i, vector in enumerate(vectors):
            seed, name, site = rng.bytes(32), rng.bytes(16), bytes([i // 2]) * 32
            both = drawn_share(seed, len(vector)), other_share(vector, seed)
            place = {
                "facet": int(facet_index(schema, codes[i : i + 1])[0]),
                "cell": int(cells(schema, codes[i : i + 1])[0, 0]),
                "bucket": int(i % 3) * schema.time.bucket_seconds,
            }
            for mine, share, other in zip(held, both, (two, one), strict=True):
                mine.append(Contribution(id=name, site=site, other=other.public_key, share=share, **place))
            rows.append(
                {
                    "id": name.hex(),
                    "site": site.hex(),
                    **place,
                    "codes": codes[i].tolist(),
                    "outcome": float(outcome[i]),
                    "seed": seed.hex(),
                    "other_share": both[1].astype("<u8").tobytes().hex(),
                }
            )
        k = max(2, schema.privacy.k if schema.privacy.k < MEMBERS else 2)
        assert pair_of(one.public_key, two.public_key) == (one.public_key, two.public_key)
        ours, used = add_up(schema, held[0], by=one.public_key, other=two.public_key, k=k)
        theirs, _ = add_up(schema, held[1], by=two.public_key, other=one.public_key, k=k)
        made = combine(schema, ours, theirs, two)
        out.append(
            {
                "schema": key,
                "k": k,
                "synthesizer_seeds": [who.hex() for who in sorted((ALICE, BOB), key=lambda s: Identity(s).public_key)],
                "pair_key": one.paired(two.public_key, schema.id).public_key.hex(),
                "contributions": rows,
                "added": [name.hex() for name in used],
                "digest": ours.digest.hex(),
                "cohorts": [[s.facet, s.cell, s.bucket, s.members, s.sites] for s in ours.sums],
                "packets": [row.tobytes().hex() for row in made.packets],
            }
        )
    return out


def _observations(schema: Schema, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Codes and outcomes."""
    codes = np.full((MEMBERS, schema.width), MISSING, dtype=np.uint16)
    for item in schema.fields:
        where = schema.slots[item.name]
        for row in np.flatnonzero(rng.random(MEMBERS) < 0.9):
            if item.width == 1:
                codes[row, where] = rng.integers(0, SCALE + 1)
            else:
                codes[row, where] = (
                    np.eye(item.width, dtype=np.int64)[0 if item.facet else rng.integers(item.width)] * SCALE
                )
    if schema.outcome.kind is OutcomeKind.NUMERIC:
        low, high = float(schema.outcome.low or 0), float(schema.outcome.high or 0)
        return codes, np.round(rng.uniform(low, high, MEMBERS), 3)
    return codes, rng.integers(0, len(schema.outcome.classes), MEMBERS).astype(np.float64)
