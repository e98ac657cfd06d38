"""The schema file is public: what do its landmarks, ranges and categories say about the records they came from?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.emission import Emission, Emitter, cohorts
from outroute.audit.membership import Membership, judge, membership_pairs
from outroute.schema import MISSING, SCALE, FieldKind, Schema, unit_scale
from outroute.tables.learning import learn_from_codes

if TYPE_CHECKING:
    from outroute.distill import Observations

__all__ = ["SchemaLeaks", "landmark_membership", "landmarks_as_emission", "schema_leaks"]

LARGE = 1e6
"""Size that landmarks pretend to have: so large that arithmetic excludes nobody from them."""
COUNT = 16
"""Landmarks that are learnt in the trial of what they give away; fewer where there are few rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaLeaks:
    """What a schema says about one table.

    Attributes:
        landmarks: how many; ``copies`` of them equal a record of the table exactly.
        exact_ranges: fields whose declared end is the table's own extreme, which somebody has.
        rare: categories that fewer than k subjects have, by field.
        unused_share: share of declared ranges that the table does not reach, mean over numeric fields; near 0 means
            that ranges hug the data.
    """

    landmarks: int
    copies: int
    exact_ranges: tuple[str, ...]
    rare: Mapping[str, tuple[str, ...]]
    unused_share: float

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "landmarks": self.landmarks,
            "landmarks_equal_to_a_record": self.copies,
            "ranges_that_end_at_an_extreme": list(self.exact_ranges),
            "categories_of_fewer_than_k": {name: list(of) for name, of in self.rare.items()},
            "unused_share_of_ranges": self.unused_share,
        }


def schema_leaks(schema: Schema, codes: NDArray[np.uint16], subject: NDArray[np.int64], k: int) -> SchemaLeaks:
    """Compare a schema with a table.

    Args:
        schema: the schema.
        codes: uint16[n, D], the table's rows.
        subject: int64[n].
        k: fewer subjects than this in a category give it away.
    """
    rows = {row.tobytes() for row in codes}
    exact, rare, unused = [], {}, []
    for field in schema.fields:
        part = codes[:, schema.slots[field.name]]
        there = part[:, 0] != MISSING
        if not there.any():
            continue
        if field.kind is FieldKind.NUMERIC:
            low, high = int(part[there].min()), int(part[there].max())
            # The end of a range that many share (0 cigarettes) says nothing about anybody.
            ends = [end for end, at in ((low, 0), (high, SCALE)) if end == at]
            if any(len(np.unique(subject[there][part[there, 0] == end])) < k for end in ends):
                exact.append(field.name)
            unused.append(1 - (high - low) / SCALE)
            continue
        few = [
            name
            for slot, name in enumerate(field.categories)
            if 0 < len(np.unique(subject[there][part[there, slot] == SCALE])) < k
        ]
        if few:
            rare[field.name] = tuple(few)
    return SchemaLeaks(
        landmarks=len(schema.landmarks),
        copies=sum(row.tobytes() in rows for row in schema.landmarks.codes.astype(np.uint16)),
        exact_ranges=tuple(exact),
        rare=rare,
        unused_share=float(np.mean(unused)) if unused else float("nan"),
    )


def landmarks_as_emission(k: int, count: int = COUNT) -> Emitter:
    """Landmarks learnt from a site's cohorts of k (1: from its records), as what it shows to everybody."""
    first = cohorts(k)

    def emit(schema: Schema, observations: Observations, rng: np.random.Generator) -> Emission:
        shown = first(schema, observations, rng)
        codes = np.where(np.isnan(shown.x), MISSING, np.rint(shown.x * SCALE)).astype(np.uint16)
        number = max(1, min(count, len(codes) // 2))
        learnt = learn_from_codes(schema, codes, count=number, seed=int(rng.integers(2**31))).landmarks.codes
        m = len(learnt)
        return replace(
            shown,
            x=unit_scale(schema, learnt),
            size=np.full(m, LARGE),
            outcome=np.full((m, shown.outcome.shape[1]), 0.5),
            bucket=np.full(m, observations.bucket.max(initial=0)),
            facet=np.zeros(m, dtype=np.int64),
        )

    return emit


def landmark_membership(
    schema: Schema, observations: Observations, k: int, rng: np.random.Generator, *, shadows: int = 16
) -> Membership | None:
    """Whether landmarks learnt from a site's cohorts of k give away who was among them; None with too few subjects."""
    rows = replace(observations, facet=np.zeros(len(observations), dtype=np.int64))
    if len(rows) < 8 * k:
        return None
    pairs = membership_pairs(schema, rows, landmarks_as_emission(k), rng, shadows=shadows)
    return judge([] if pairs is None else [pairs], rng)
