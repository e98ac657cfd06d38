"""Learning landmarks: public reference points, so they come from public or from cohort data only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt

from outroute.errors import DataError, PrivacyError
from outroute.packet import Rejection, accept, as_packets
from outroute.schema import (
    MAX_LANDMARKS,
    SCALE,
    FieldKind,
    Landmarks,
    Schema,
    encode,
    shares,
    unit_scale,
)
from outroute.tables.applying import apply
from outroute.tables.mapping import TableMapping, default_mapping
from outroute.tables.table import Floats, Table

__all__ = [
    "DEFAULT_COUNT",
    "Learnt",
    "learn_from_codes",
    "learn_from_packets",
    "learn_from_table",
    "refuse_private",
    "with_landmarks",
]

#: Landmarks learnt unless somebody asks for more; a cell should hold many packets, not one.
DEFAULT_COUNT: Final = 256
#: Rows used at most; more do not move the centres, only the clock.
MAX_ROWS: Final = 200_000
#: Rows that k-means looks at together.
_BATCH: Final = 4_096
#: Starts of k-means, of which the best is kept.
_STARTS: Final = 3

Codes = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """Landmarks, and what they were learnt from.

    Attributes:
        landmarks: at most as many as asked for (equal ones are kept once).
        rows: conditions that were used.
        refused: packets or rows that could not be used.
        error: mean weighted squared distance of a condition to its landmark, as a share of the distance to the one
            mean of all (0 perfect, 1 useless).
    """

    landmarks: Landmarks
    rows: int
    refused: int
    error: float


def learn_from_table(
    schema: Schema,
    table: Table,
    *,
    public: bool,
    count: int = DEFAULT_COUNT,
    mapping: TableMapping | None = None,
    seed: int = 0,
) -> Learnt:
    """Learn from a reference table that everybody may see.

    Args:
        schema: whose landmarks; its own ones are not looked at.
        table: a public reference table.
        public: the caller's word that the table is public.
        count: landmarks, at most ``MAX_LANDMARKS``.
        mapping: how the table's columns become fields; None for equal names.
        seed: of k-means.

    Raises:
        PrivacyError: ``privacy.landmarks`` without that word.
        DataError: ``data.landmarks`` with fewer different rows than landmarks.
    """
    if not public:
        refuse_private()
    observed = apply(mapping or default_mapping(schema), schema, table, outcomes="ignored")
    encoded = encode(schema, observed.columns)
    return _learn(schema, encoded.codes, count, seed, observed.refused)


def refuse_private() -> NoReturn:
    """Say why landmarks are not learnt from a private table.

    Raises:
        PrivacyError: ``privacy.landmarks``, always.
    """
    raise PrivacyError(
        "Landmarks become part of the schema, which everybody reads: learnt from records that are not public, they "
        "would give some of them away. Use a public reference table (and say so: --public), or packets of the "
        "network, which are cohorts (--packets FILE), or keep the landmarks drawn from the declared ranges",
        code="privacy.landmarks",
    )


def learn_from_packets(schema: Schema, data: bytes, *, now: int, count: int = DEFAULT_COUNT, seed: int = 0) -> Learnt:
    """Learn from packets of the same schema: each condenses at least k subjects and has left its node already.

    Args:
        schema: the schema that the packets were made under.
        data: packets, 512 bytes each.
        now: seconds since 1970-01-01 UTC, to refuse what has expired.
        count: landmarks, at most ``MAX_LANDMARKS``.
        seed: of k-means.

    Raises:
        DataError: ``data.packets`` if none is accepted, with the reasons.
    """
    verdicts = accept(data, schema, now)
    packets = as_packets(data)
    ok = verdicts.ok[: len(packets)] & (packets["size"] > 0)
    refused = len(verdicts.ok) - int(ok.sum())
    if not ok.any():
        reasons = ", ".join(f"{count:,} {Rejection(reason).text}" for reason, count in verdicts.counted().items())
        raise DataError(
            f"No packet of this schema was accepted ({reasons or 'the file is empty'}). Were they made under this very "
            f"schema (id {schema.id.hex()[:16]})?",
            code="data.packets",
        )
    return _learn(schema, packets["conditions"][ok][:, : schema.width], count, seed, refused)


def learn_from_codes(schema: Schema, codes: Codes, *, count: int = DEFAULT_COUNT, seed: int = 0) -> Learnt:
    """Learn from conditions uint16[n, width] that the caller knows to be public or cohorts."""
    return _learn(schema, codes, count, seed, 0)


def with_landmarks(schema: Schema, landmarks: Landmarks, *, successor: bool) -> Schema:
    """The schema with these landmarks, as the successor of the one given if it is in use already."""
    return replace(schema, landmarks=landmarks, parent=schema.id if successor else schema.parent)


def _learn(schema: Schema, codes: Codes, count: int, seed: int, refused: int) -> Learnt:
    if not 1 <= count <= MAX_LANDMARKS:
        raise DataError(f"The number of landmarks must lie between 1 and {MAX_LANDMARKS:,}", code="data.landmarks")
    rng = np.random.default_rng(seed)
    if len(codes) > MAX_ROWS:
        codes = codes[np.sort(rng.choice(len(codes), MAX_ROWS, replace=False))]
    points = _fill(unit_scale(schema, np.ascontiguousarray(codes)))
    weights = np.sqrt(schema.slot_weights.astype(np.float64) / max(int(schema.slot_weights.max()), 1))
    scaled = points * weights
    different = len(np.unique(scaled, axis=0))
    if different < count:
        raise DataError(
            f"{count:,} landmarks were asked for, but only {different:,} different conditions are there: ask for at "
            f"most {max(different // 4, 1):,} (--count), or give more data",
            code="data.landmarks",
        )
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    # One thread: sums in another order would give other centres, and every member must be able to learn them again.
    with threadpool_limits(limits=1):
        fitted = MiniBatchKMeans(
            n_clusters=count,
            random_state=seed,
            n_init=_STARTS,
            batch_size=max(_BATCH, count),
            reassignment_ratio=0.0,
        ).fit(scaled)
    centres = _codes(schema, np.divide(fitted.cluster_centers_, weights, where=weights > 0, out=_means(points, count)))
    landmarks = Landmarks(np.unique(centres, axis=0))
    return Learnt(
        landmarks=landmarks, rows=len(codes), refused=refused, error=_error(scaled, landmarks, schema, weights)
    )


def _means(points: Floats, count: int) -> Floats:
    """Where a slot has no weight its centre is the mean of all."""
    return np.tile(points.mean(axis=0), (count, 1))


def _fill(points: Floats) -> Floats:
    """Missing values become the mean of their slot (shares of a category keep their sum)."""
    absent = np.isnan(points)
    known = np.maximum((~absent).sum(axis=0), 1)
    means = np.where(absent, 0.0, points).sum(axis=0) / known
    return np.where(absent, means, points)


def _codes(schema: Schema, centres: Floats) -> Codes:
    out = np.zeros(centres.shape, dtype=np.uint16)
    for item in schema.fields:
        at = schema.slots[item.name]
        part = np.clip(centres[:, at], 0.0, 1.0)
        if item.kind is FieldKind.NUMERIC:
            out[:, at] = np.rint(part * SCALE).astype(np.uint16)
            continue
        part = np.where(part.sum(axis=1, keepdims=True) > 0, part, 1.0)
        if item.facet:
            part = np.eye(item.width)[part.argmax(axis=1)]
        out[:, at] = shares(part)
    return out


def _error(scaled: Floats, landmarks: Landmarks, schema: Schema, weights: Floats) -> float:
    centres = unit_scale(schema, landmarks.codes) * weights
    total = float(((scaled - scaled.mean(axis=0)) ** 2).sum())
    within = 0.0
    for start in range(0, len(scaled), _BATCH):
        part = scaled[start : start + _BATCH]
        squares = (part**2).sum(axis=1)[:, None] - 2 * part @ centres.T + (centres**2).sum(axis=1)
        within += float(np.maximum(squares.min(axis=1), 0.0).sum())
    return within / total if total > 0 else 0.0
