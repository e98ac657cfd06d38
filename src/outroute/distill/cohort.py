"""Batch micro-aggregation: everything known by now -> cohorts of at least k subjects, the rest withheld."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill.aggregate import aggregate, agreeing
from outroute.distill.grouping import BLOCK_ROWS, blocks_of, group_blocks, layers_of
from outroute.distill.joining import absorb, dissenting, merge_agreeing, number_parts
from outroute.distill.model import Agreement, Distilled, Observations, Reason, Withheld
from outroute.distill.rejoining import rejoin
from outroute.distill.space import MISSING_PULL, canonical_order, embed
from outroute.errors import DataError, PrivacyError
from outroute.schema import Distiller, facet_index

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = [
    "MAX_PASSES",
    "WINDOWS_PER_LIFETIME",
    "Grouping",
    "default_window",
    "distil",
    "finish",
    "form_groups",
    "required_k",
    "settle",
]

WINDOWS_PER_LIFETIME = 4
"""A cohort carries the bucket of its latest member, so its earliest one lives on for longer than declared: by a
quarter of the lifetime at most."""
MAX_PASSES = 3
"""Rounds of MDAV over what repeated subjects left over, before falling back to layers: later rounds find little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """How cohorts are grouped. The defaults are measured choices (``outroute.distill.measure`` prints the figures).

    Attributes:
        agreement: what to do with cohorts whose outcomes all agree. None: ``MERGE``, but ``ALLOW`` where the schema
            says so (``dissent`` 0) or its distiller is ``single``, that is, where observations concern no person. On
            the four heart-disease hospitals with k = 5 half of all cohorts agree; merging them costs .005 AUC of a
            kernel and gains .011 of a logistic regression on packets (20 repeats, peers' packets alone), with 69
            packets instead of 128.
        dissent: fewest members of a cohort with another outcome than its most frequent one, under ``MERGE``. None: the
            schema's. With 1, outcomes do not all agree; with 2, who knows one member cannot know that the rest agree.
        window_seconds: buckets of one cohort start less than this apart; None: see ``default_window``.
        slot_weights: float64[D] in place of the schema's own weights; None: the schema's.
        missing_pull: see ``outroute.distill.space.MISSING_PULL``.
        outcome_pull: squared distance between different outcomes, as a share of the greatest squared distance of one
            field; above 0 gathers equal outcomes (class-aware grouping), which disclosed more and gained nothing.
        block_rows: see ``outroute.distill.grouping.BLOCK_ROWS``.
        seed: changes which of equally near observations go together, nothing else.
    """

    agreement: Agreement | None = None
    dissent: int | None = None
    window_seconds: int | None = None
    slot_weights: NDArray[np.float64] | None = None
    missing_pull: float = MISSING_PULL
    outcome_pull: float = 0.0
    block_rows: int = BLOCK_ROWS
    seed: int = 0


def default_window(schema: Schema) -> int:
    """Seconds within which the buckets of one cohort start: a quarter of the lifetime, one bucket at least."""
    time = schema.time
    return max(time.bucket_seconds, time.lifetime_seconds // WINDOWS_PER_LIFETIME)


def required_k(schema: Schema, k: int | None) -> int:
    """The number of subjects to ask for.

    Args:
        schema: sets the floor.
        k: wanted; None for the floor itself.

    Raises:
        PrivacyError: when ``k`` lies below the schema's floor.
    """
    floor = schema.privacy.k
    wanted = floor if k is None else k
    if wanted < floor or (wanted < 2 and schema.privacy.distiller is not Distiller.SINGLE):
        raise PrivacyError(
            f"cohorts of {wanted} are below the floor of schema '{schema.name}': at least {max(floor, 2)} subjects "
            "must share a packet. Ask for more, or agree on another schema",
            code="privacy.floor",
        )
    return wanted


def settle(schema: Schema, k: int | None, grouping: Grouping | None) -> tuple[int, Grouping]:
    """Check ``k`` and fill in what was left open: k, window and agreement rule are set in the result.

    Raises:
        PrivacyError: when ``k`` lies below the schema's floor.
    """
    wanted = required_k(schema, k)
    how = grouping or Grouping()
    nobody = schema.privacy.distiller is Distiller.SINGLE
    dissent = schema.privacy.dissent if how.dissent is None else how.dissent
    agreement = how.agreement or (Agreement.ALLOW if nobody or not dissent else Agreement.MERGE)
    return wanted, replace(
        how,
        # One observation always agrees with itself.
        agreement=Agreement.ALLOW if wanted == 1 else agreement,
        dissent=max(1, dissent),
        window_seconds=how.window_seconds or default_window(schema),
    )


def distil(
    schema: Schema, observations: Observations, *, k: int | None = None, grouping: Grouping | None = None
) -> Distilled:
    """Condense observations into cohorts, all at once.

    Give only observations that are in no packet in force: then none ever enters two cohorts. Those that left before,
    in a packet that was withdrawn (``Observations.stale``), only ever join a cohort of k subjects that are new, which
    is formed without them; with k = 1, which no person's data has, they leave like all others. Every outcome is treated
    alike; whether an observation is withheld does not depend on it (except under ``Agreement.MERGE``, for a facet
    and time window in which all outcomes agree). The result does not depend on the order of rows, up to rows that
    are equal in everything; with equal conditions, which of two subjects goes where depends on their numbers.

    Args:
        schema: fields, weights, floor, times.
        observations: n rows that are in no packet in force.
        k: subjects in a cohort; None for the schema's floor. Cohorts hold k to 2k - 1 subjects, more only where
            ``Agreement.MERGE`` joins some.
        grouping: how to group; None for the defaults.

    Raises:
        PrivacyError: when ``k`` lies below the schema's floor.
        DataError: when the rows do not fit the schema.
    """
    wanted, how = settle(schema, k, grouping)
    rows, group, _ = form_groups(schema, observations, wanted, how)
    return finish(schema, observations, rows, group, wanted, how)


def free_rows(observations: Observations, k: int) -> NDArray[np.bool_]:
    """Rows that may begin a cohort, bool[n]: with a known outcome, and new wherever cohorts hide anybody (k > 1)."""
    known = ~np.isnan(observations.outcome)
    return known if k == 1 else known & ~observations.stale


def check(schema: Schema, observations: Observations) -> None:
    """Refuse rows that cannot belong to this schema.

    Raises:
        DataError: on another width, or outcomes that the schema does not allow.
    """
    if observations.codes.shape[1] != schema.width:
        raise DataError(
            f"observations have {observations.codes.shape[1]} slots, schema '{schema.name}' has {schema.width}: "
            "encode them with this schema",
            code="distill.width",
        )
    known = observations.outcome[~np.isnan(observations.outcome)]
    wrong = ~np.isfinite(known)
    if schema.outcome.has_classes:
        wrong |= (known < 0) | (known >= len(schema.outcome.classes)) | (known != np.floor(known))
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} outcomes are not among those of '{schema.outcome.name}' (first: {known[wrong][0]}): "
            "encode them with outroute.schema.encode_outcome",
            code="distill.outcome",
        )


def form_groups(
    schema: Schema, observations: Observations, k: int, how: Grouping, *, whole: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Group the rows whose outcome is known and that may begin a cohort (see ``free_rows``).

    Args:
        schema, observations, k, how: as for ``distil``; ``k`` already checked.
        whole: also find a place for what is left over (larger cohorts); False leaves it for later.

    Returns:
        rows int64[r] (in canonical order), group int64[r] (-1: left over), points float32[r, E].
    """
    check(schema, observations)
    known = np.flatnonzero(free_rows(observations, k))
    rows = known[canonical_order(observations.take(known), how.seed)]
    seen = observations.take(rows)
    points = embed(schema, seen.codes, slot_weights=how.slot_weights, missing_pull=how.missing_pull)
    points = _with_outcome(schema, points, seen.outcome, how)
    label = _labels(seen.outcome) if how.agreement is not Agreement.ALLOW else None
    window = how.window_seconds or default_window(schema)
    shifts = (0, window // 2) if window > 1 else (0,)
    group = np.full(len(rows), -1, dtype=np.int64)
    facets = facet_index(schema, seen.codes)
    # A second round with windows shifted by half gives another chance to those alone in theirs.
    for shift in shifts:
        free = np.flatnonzero(group < 0)
        if len(free) < k:
            break
        part = number_parts(seen.facet[free], facets[free], (seen.bucket[free] + shift) // window)
        tag = None if label is None else label[free]
        new = _group_parts(points[free], part, seen.subject[free], k, how.block_rows)
        if whole:
            new = absorb(points[free], part, seen.subject[free], new, 2 * k - 1)
        if tag is not None:
            new = merge_agreeing(points[free], part, seen.subject[free], tag, new, how.dissent or 1)
            if whole:
                # Rows let go because the other group held their subject may find room in a third.
                new = absorb(points[free], part, seen.subject[free], new, 2 * k - 1)
        group[free] = np.where(new >= 0, new + group.max(initial=-1) + 1, -1)
    return rows, group, points


def _group_parts(
    points: NDArray[np.float32],
    part: NDArray[np.int64],
    subject: NDArray[np.int64],
    k: int,
    block: int,
) -> NDArray[np.int64]:
    """Groups of exactly k inside each part (facet and window), int64[n]; -1 for left over."""
    group = np.full(len(points), -1, dtype=np.int64)
    if k == 1:
        return np.arange(len(points))
    for layered in (False,) * MAX_PASSES + (True,):
        pools = _pools(part, group, subject, k)
        if not pools:
            break
        if layered:
            pools = [layer for rows in pools for layer in layers_of(points, rows, subject, k)]
        blocks = [b for rows in pools for b in blocks_of(points, rows, k, block)]
        new = group_blocks(points, blocks, subject, k)
        group = np.where(new >= 0, new + group.max(initial=-1) + 1, group)
    return group


def _pools(
    part: NDArray[np.int64], group: NDArray[np.int64], subject: NDArray[np.int64], k: int
) -> list[NDArray[np.int64]]:
    """Rows not grouped yet, by part, where at least k subjects are left."""
    free = np.flatnonzero(group < 0)
    if not len(free):
        return []
    ordered = free[np.argsort(part[free], kind="stable")]
    pools = np.split(ordered, np.flatnonzero(np.diff(part[ordered])) + 1)
    return [rows for rows in pools if len(rows) >= k and len(np.unique(subject[rows])) >= k]


def _with_outcome(
    schema: Schema, points: NDArray[np.float32], outcome: NDArray[np.float64], how: Grouping
) -> NDArray[np.float32]:
    """Points with the outcome as further coordinates, when class-aware grouping is asked for."""
    if how.outcome_pull <= 0 or not len(points):
        return points
    reach = np.sqrt(how.outcome_pull * float(schema.slot_weights.max()))
    if schema.outcome.has_classes:
        extra = np.eye(len(schema.outcome.classes))[outcome.astype(np.int64)] * reach / np.sqrt(2.0)
    else:
        span = float(np.ptp(outcome)) or 1.0
        extra = ((outcome - outcome.min()) / span * reach)[:, None]
    return np.column_stack([points, extra]).astype(np.float32, order="C")


def _labels(outcome: NDArray[np.float64]) -> NDArray[np.int64]:
    """Equal outcomes, equal numbers."""
    return np.unique(outcome, return_inverse=True)[1].astype(np.int64).ravel()


def finish(
    schema: Schema,
    observations: Observations,
    rows: NDArray[np.int64],
    group: NDArray[np.int64],
    k: int,
    how: Grouping,
    waiting: NDArray[np.bool_] | None = None,
) -> Distilled:
    """Let stale rows join, aggregate the groups and say why every other row stays.

    Args:
        schema, observations, k, how: as for ``distil``.
        rows, group: what ``form_groups`` returned, possibly with groups taken out again.
        waiting: bool[r]; rows that a streaming policy keeps for later.
    """
    everywhere = np.full(len(observations), -1, dtype=np.int64)
    everywhere[rows] = group
    window = how.window_seconds or default_window(schema)
    if k > 1 and observations.stale.any():
        everywhere = rejoin(
            schema,
            observations,
            everywhere,
            k=k,
            window=window,
            seed=how.seed,
            missing_pull=how.missing_pull,
            slot_weights=how.slot_weights,
        )
    cohorts = aggregate(schema, observations, everywhere)
    reason = np.full(len(observations), Reason.NO_OUTCOME, dtype=np.uint8)
    reason[~np.isnan(observations.outcome)] = Reason.WAITING_FOR_NEW
    seen = observations.take(rows)
    part = number_parts(seen.facet, facet_index(schema, seen.codes), seen.bucket // window)
    why = np.full(len(rows), Reason.ONE_SUBJECT, dtype=np.uint8)
    if how.agreement is not Agreement.ALLOW:
        why[_agree(part, _labels(seen.outcome), how.dissent or 1)] = Reason.AGREES
    if waiting is not None:
        why[waiting] = Reason.WAITING
    pairs = np.unique(np.column_stack([part, seen.subject]), axis=0)
    few = np.bincount(pairs[:, 0], minlength=1) < k
    if len(rows):
        why[few[part]] = Reason.TOO_FEW_SUBJECTS
    reason[rows] = why
    left = np.flatnonzero(everywhere < 0)
    return Distilled(
        cohorts=cohorts,
        withheld=Withheld(rows=left, reasons=reason[left]),
        k=k,
        agreeing=int(agreeing(cohorts, observations).sum()),
    )


def _agree(part: NDArray[np.int64], label: NDArray[np.int64], dissent: int) -> NDArray[np.bool_]:
    """Rows in whose part fewer than ``dissent`` have another label than the most frequent one, bool[n]."""
    if not len(part):
        return np.zeros(0, dtype=bool)
    few = dissenting(part, label, int(part.max()) + 1) < dissent
    return np.asarray(few[part])
