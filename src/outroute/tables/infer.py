"""Drafting a schema from a table. A draft: every range and category list waits for a person who looks at it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from outroute.errors import DataError
from outroute.schema import (
    DISSENT,
    MAX_SLOTS,
    FieldKind,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    drawn_landmarks,
    dumps,
)
from outroute.tables.applying import match_labels
from outroute.tables.mapping import FieldMapping, OutcomeMapping, Rule, TableMapping, TimeMapping
from outroute.tables.outcomes import Note, Notes, infer_outcome
from outroute.tables.profiles import OTHER, Profile, profile, subject_counts
from outroute.tables.table import Categories, Table
from outroute.tables.times import read_times

__all__ = ["Draft", "Note", "infer"]

#: Bucket widths to choose from: hour, day, week, 30 days, year (seconds).
BUCKETS: Final = (3_600, 86_400, 604_800, 30 * 86_400, 365 * 86_400)
#: A bucket width fits when this share of the buckets in use holds at least k subjects.
FULL_BUCKETS: Final = 0.95
_YEAR: Final = 365 * 86_400
#: Lifetime of packets where the table gives no reason for another (seconds).
DEFAULT_LIFETIME: Final = 5 * _YEAR
_MAX_LIFETIME: Final = 100 * _YEAR
#: A single column that ranks a binary outcome this well (area under the curve) is probably known only afterwards.
LEAK: Final = 0.97

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A schema that nobody has reviewed yet.

    Attributes:
        schema: loadable as it is, with drawn landmarks.
        unreviewed: names of the fields (and the outcome) that carry ``reviewed = false``.
        notes: what was left out, merged, suspected.
        mapping: how the table it was inferred from becomes the schema's fields (suspected codes for missing are
            missing, rare categories are "other", the rule for the outcome).
    """

    schema: Schema
    unreviewed: frozenset[str]
    notes: tuple[Note, ...]
    mapping: TableMapping

    def toml(self) -> str:
        """The file to write."""
        import tomlkit

        doc: Any = tomlkit.parse(dumps(self.schema))
        for name, part in [(self.schema.outcome.name, doc["outcome"]), *doc["fields"].items()]:
            if name in self.unreviewed:
                part.add("reviewed", tomlkit.boolean("false").comment("look at it, then remove this line"))
        return tomlkit.dumps(doc)


def infer(
    table: Table,
    *,
    outcome: str,
    site: str | None = None,
    subject: Sequence[str] = (),
    time: Sequence[str] = (),
    case: Sequence[str] = (),
    drop: Collection[str] = (),
    keep: Collection[str] = (),
    positive: str | None = None,
    k: int = 5,
    noise: Decimal = Decimal(0),
    dissent: int = DISSENT,
    name: str | None = None,
    now: int | None = None,
) -> Draft:
    """Draft a schema.

    Args:
        table: reference table, any number of sites.
        outcome: the column to learn about.
        site: the column that tells sites apart; it does not become a field.
        subject: columns that name a subject; k counts subjects. Without it every row is one.
        time: one time column, or year, month, day (, hour, ...); left out of the fields except month and hour.
        case: columns that name a case; left out.
        drop: further columns to leave out.
        keep: when given, only these columns become fields, as far as they can.
        positive: makes the outcome binary: a comparison ("> 15") or the value that is positive ("died").
        k: the privacy floor of the schema, and of the draft itself: what fewer than k subjects hold is not shown.
        name: the schema's name.
        now: seconds since 1970-01-01 UTC, to choose a lifetime that old data survives; None keeps the default.

    Raises:
        DataError: ``data.column``, ``data.outcome``, ``data.fields`` and what reading raises.
    """
    if k < 2:
        raise DataError("k must be at least 2: a cohort of one is a record", code="data.k")
    special = [outcome, *([site] if site else []), *subject, *time, *case]
    for column, purpose in zip(special, ["outcome", *["key"] * len(special)], strict=False):
        table.require(column, purpose)
    for column in (*drop, *keep):
        table.require(column)
    if table.rows < 2 * k:
        raise DataError(
            f"{table.source} has {table.rows} rows; at least {2 * k} are needed to draft a schema with k = {k}",
            code="data.rows",
        )
    subjects = _subjects(table, subject)
    sites = table.categories(site) if site else None
    notes = Notes()
    if sites is not None and len(sites.labels) < 2:
        notes.add(site or "", "look", "there is only one site in this table")
    made_outcome, rule = infer_outcome(table, outcome, subjects, positive=positive, k=k, notes=notes)
    hidden = {*special, *drop} - ({time[1], *time[3:4]} if len(time) > 1 else set())
    wanted = [column for column in table.names if column not in hidden and (not keep or column in keep)]
    profiles = []
    for column in wanted:
        found = profile(table, column, subjects, sites, k=k)
        if found.field is None:
            notes.add(column, "left out", found.reason)
        else:
            profiles.append(found)
            for remark in found.remarks:
                notes.add(column, "look", remark)
    profiles = _fit(profiles, notes)
    if not profiles:
        raise DataError(
            f"No column of {table.source} can become a field; the notes say why: "
            + "; ".join(str(note) for note in notes[:5]),
            code="data.fields",
        )
    _leaks(table, profiles, outcome, rule, made_outcome, notes)
    fields = tuple(item.field for item in profiles if item.field is not None)
    schema = Schema(
        name=name or "draft",
        fields=fields,
        outcome=made_outcome,
        privacy=Privacy(k=k, subject=" ".join(subject) or "case", noise=noise, dissent=dissent),
        time=_time(table, time, subjects, sites, k, now, notes),
        landmarks=drawn_landmarks(fields),
    )
    if not subject:
        notes.add("", "look", "no subject column given: every row counts as a person of its own (--subject)")
    return Draft(
        schema=schema,
        unreviewed=frozenset({item.name for item in fields} | {made_outcome.name}),
        notes=tuple(notes),
        mapping=TableMapping(
            fields={item.column: _field_mapping(item) for item in profiles},
            outcome=_outcome_mapping(table, outcome, made_outcome, rule),
            case=tuple(case),
            subject=tuple(subject),
            time=TimeMapping(columns=tuple(time)) if time else None,
        ),
    )


def _subjects(table: Table, columns: Sequence[str]) -> Ints | None:
    """int64[n]: number of the subject of each row; a row without one is a subject of its own."""
    if not columns:
        return None
    joined = np.zeros(table.rows, dtype=np.int64)
    absent = np.zeros(table.rows, dtype=np.bool_)
    for column in columns:
        found = table.categories(column)
        absent |= found.codes < 0
        joined = np.unique(joined * (len(found.labels) + 1) + found.codes + 1, return_inverse=True)[1].astype(np.int64)
    joined[absent] = int(joined.max()) + 1 + np.arange(int(absent.sum()))
    return joined


def _field_mapping(item: Profile) -> FieldMapping:
    assert item.field is not None
    other = OTHER if OTHER in item.field.categories else None
    return FieldMapping(column=item.column, missing=item.sentinels, other=other)


def _outcome_mapping(table: Table, column: str, made: Outcome, rule: Rule | None) -> OutcomeMapping:
    """Values that are no class of their own mean the class that took them in."""
    if rule is not None or not made.has_classes:
        return OutcomeMapping(column=column, positive_when=rule)
    labels = table.categories(column).labels
    rest = OTHER if OTHER in made.classes else made.classes[0]
    found = match_labels(labels, made.classes, {})
    codes = {label: rest for label, index in zip(labels, found, strict=True) if index < 0}
    return OutcomeMapping(column=column, codes=codes)


def _fit(profiles: list[Profile], notes: Notes) -> list[Profile]:
    """Merge categories, then leave out the emptiest fields, until all fits in the slots of a packet."""

    def width(items: list[Profile]) -> int:
        return sum(item.field.width for item in items if item.field is not None)

    merged: dict[str, int] = {}
    while width(profiles) > MAX_SLOTS:
        index = max(range(len(profiles)), key=lambda at: len(profiles[at].counts))
        if len(profiles[index].counts) <= 3:
            break
        profiles[index] = _merge_one(profiles[index])
        merged[profiles[index].column] = merged.get(profiles[index].column, 0) + 1
    for column, count in merged.items():
        notes.add(column, "slots", f"{count} more categories merged to '{OTHER}' to fit {MAX_SLOTS} slots")
    gone: list[str] = []
    while width(profiles) > MAX_SLOTS:
        index = max(range(len(profiles)), key=lambda at: (profiles[at].missing, at))
        gone.append(profiles.pop(index).column)
    if gone:
        text = f"{len(gone)} columns do not fit in {MAX_SLOTS} slots; those with the most missing values are left out "
        notes.add("", "slots", text + f"(--keep and --drop choose otherwise): {', '.join(gone)}")
    return profiles


def _merge_one(item: Profile) -> Profile:
    assert item.field is not None
    named = dict(zip(item.field.categories, item.counts, strict=True))
    rarest = min((label for label in named if label != OTHER), key=lambda label: (named[label], label))
    named[OTHER] = named.get(OTHER, 0) + named.pop(rarest)
    labels = [label for label in item.field.categories if label in named and label != OTHER] + [OTHER]
    return replace(
        item, field=replace(item.field, categories=tuple(labels)), counts=tuple(named[label] for label in labels)
    )


def _leaks(table: Table, profiles: list[Profile], outcome: str, rule: Rule | None, made: Outcome, notes: Notes) -> None:
    """Columns that tell a binary outcome nearly by themselves: often written down only afterwards."""
    if made.kind is not OutcomeKind.BINARY:
        return
    from scipy.stats import rankdata

    if rule is not None:
        truth = rule.apply(table.numbers(outcome).values)
    else:
        found = table.categories(outcome)
        index = found.labels.index(made.classes[1])
        truth = np.where(found.codes < 0, np.nan, (found.codes == index).astype(np.float64))
    for item in profiles:
        assert item.field is not None
        if item.field.kind is FieldKind.NUMERIC:
            score = table.numbers(item.column, missing=item.sentinels).values
        else:
            codes = table.categories(item.column, missing=item.sentinels)
            known = (codes.codes >= 0) & ~np.isnan(truth)
            hits = np.bincount(codes.codes[known], weights=truth[known], minlength=len(codes.labels))
            seen = np.maximum(np.bincount(codes.codes[known], minlength=len(codes.labels)), 1)
            score = np.append(hits / seen, np.nan)[codes.codes]
        both = ~(np.isnan(score) | np.isnan(truth))
        positive = int(truth[both].sum())
        negative = int(both.sum()) - positive
        if min(positive, negative) < 10:
            continue
        ranks = rankdata(score[both])
        area = (ranks[truth[both] == 1].sum() - positive * (positive + 1) / 2) / (positive * negative)
        if max(area, 1 - area) >= LEAK:
            notes.add(
                item.column,
                "look",
                "tells the outcome nearly by itself: is it known before the outcome is? If not, leave it out (--drop)",
            )


def _time(
    table: Table,
    columns: Sequence[str],
    subjects: Ints | None,
    sites: Categories | None,
    k: int,
    now: int | None,
    notes: Notes,
) -> Time:
    if not columns:
        notes.add("", "time", "no time column given: buckets of 30 days are assumed")
        return Time()
    times = read_times(table, columns)
    usable = ~(times.missing | times.bad)
    label = ", ".join(columns)
    if times.bad.any():
        notes.add(label, "time", f"{int(times.bad.sum()):,} values are no time")
    if not usable.any():
        raise DataError(
            f"No value of {label} is a time; write ISO 8601 (2024-03-01T14:30), or columns year,month,day,hour",
            code="data.time",
        )
    seconds = times.seconds[usable]
    whose = None if subjects is None else subjects[usable]
    place = np.zeros(len(seconds), dtype=np.int64) if sites is None else sites.codes[usable]
    width = next((width for width in BUCKETS if _filled(seconds // width, place, whose, k)), BUCKETS[-1])
    lifetime = DEFAULT_LIFETIME
    if now is not None and now - int(seconds.min()) > DEFAULT_LIFETIME // 2:
        years = -(-(now - int(seconds.min())) // _YEAR)
        # Twice the age, on a round number of years: nothing expires soon, and the first day is not told.
        lifetime = min(_MAX_LIFETIME, -(-2 * years // 10) * 10 * _YEAR)
        notes.add(label, "time", f"old data: packets live {lifetime // _YEAR} years")
    return Time(bucket_seconds=width, lifetime_seconds=lifetime)


def _filled(buckets: Ints, place: Ints, subjects: Ints | None, k: int) -> bool:
    """Whether nearly every bucket in use at a site holds k subjects of that site: cohorts are made site by site."""
    index = np.unique(buckets * (int(place.max()) + 2) + place + 1, return_inverse=True)[1].astype(np.int64)
    counts = subject_counts(index, int(index.max()) + 1, subjects)
    return float((counts >= k).mean()) >= FULL_BUCKETS
