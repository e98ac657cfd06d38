"""A user's own table as a data set of a trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.datasets import Dataset, GroupKind
from outroute.errors import DataError
from outroute.schema import Schema

if TYPE_CHECKING:
    from outroute.tables.mapping import TableMapping
    from outroute.tables.table import Table

__all__ = ["NO_GROUP", "dataset_of"]

NO_GROUP = (
    "neither --time nor --subject is given: rows are split at random. If rows of one person, day or place stand in "
    "both halves, every figure here is too good, ours and theirs"
)
"""What a reader must know when nothing says which rows belong together."""

MIN_GROUPS = 10
"""Held-out groups below which a grouped trial says little: three test groups in each repeat."""

BLOCKS = 20
"""Equal stretches of time that are held out instead where the schema's buckets are fewer than ``MIN_GROUPS``."""

_DAY = 86_400


def dataset_of(
    name: str,
    table: Table,
    schema: Schema,
    mapping: TableMapping,
    *,
    site: str | None,
    notes: Sequence[str] = (),
) -> Dataset:
    """Turn a table into a data set.

    Rows are held out together by subject when the mapping names one, else by the schema's time bucket when it names a
    time (or by shorter stretches where buckets are fewer than ``MIN_GROUPS``), else one by one.

    Args:
        name: for the report.
        table: the table, of all sites.
        schema: what the sites agree on.
        mapping: how its columns become the schema's fields.
        site: the column that tells sites apart; None makes it one site, "own".
        notes: what a reader must know.

    Raises:
        DataError: a column is missing, or too few rows can be used.
    """
    from outroute.tables.applying import apply

    observed = apply(mapping, schema, table)
    if not len(observed.row):
        reasons = "; ".join(str(p) for p in observed.problems[:3])
        raise DataError(f"No row of {name} can be used: {reasons}", code="data.rows")
    notes = [*notes, *(f"refused rows: {problem}" for problem in observed.problems)]
    if site is None:
        sites = np.full(len(observed.row), "own", dtype=object)
    else:
        table.require(site, "the site")
        sites = table.text(site)[observed.row - table.row_number(0)]
        if any(value is None for value in sites):
            raise DataError(
                f"{sum(v is None for v in sites):,} rows have no site in the column '{site}': name their site, or "
                "leave them out",
                code="data.sites",
            )
    group, kind = None, GroupKind.NONE
    if mapping.subject:
        group = np.unique(observed.subject.astype(str), return_inverse=True)[1].reshape(-1).astype(np.int64)
        kind = GroupKind.SUBJECT
        if len(np.unique(group)) < MIN_GROUPS:
            notes.append(f"only {len(np.unique(group))} subjects: intervals mean little with so few")
    elif observed.time is not None:
        group, note = _blocks(observed.time, schema.time.bucket_seconds)
        kind = GroupKind.BUCKET
        notes += note
    outcome = observed.outcome
    if schema.outcome.has_classes:
        names = np.array([*schema.outcome.classes, None], dtype=object)
        outcome = names[np.where(np.isnan(observed.outcome), len(names) - 1, observed.outcome).astype(np.int64)]
    case = np.array([f"row {row}" for row in observed.row], dtype=object)
    return Dataset(
        name=name,
        columns=observed.columns,
        outcome=outcome,
        site=sites,
        case=case,
        group=group,
        group_kind=kind,
        time=observed.time,
        schema=schema,
        provenance="a table of the user's",
        licence="the user's",
        notes=tuple(notes),
    )


def _blocks(time: NDArray[np.int64], bucket: int) -> tuple[NDArray[np.int64], list[str]]:
    """Rows held out together by time: the schema's buckets, or shorter stretches where those are too few.

    Args:
        time: int64 ``[n]``, seconds.
        bucket: the schema's bucket, seconds.

    Returns:
        The number of each row's group, and notes.
    """
    group = time // bucket
    found = len(np.unique(group))
    if found >= MIN_GROUPS:
        return group, []
    first, span = int(time.min()), int(time.max() - time.min()) + 1
    width = -(-span // BLOCKS)
    if width >= _DAY:
        width = -(-width // _DAY) * _DAY
        first -= first % _DAY
    group = (time - first) // width
    made = len(np.unique(group))
    length = f"{width // _DAY} days" if width >= _DAY else f"{width:,} seconds"
    notes = [f"the schema's time buckets are {found} only: rows are held out in {made} stretches of {length} instead"]
    if made < MIN_GROUPS:
        notes.append(f"only {made} stretches of time: more data is needed for intervals that mean something")
    return group, notes
