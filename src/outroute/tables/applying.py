"""Applying a mapping: from a node's own table to values that the schema knows, or to a row refused and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from outroute.errors import DataError
from outroute.schema import Field, FieldKind, Schema
from outroute.tables.mapping import FieldMapping, TableMapping
from outroute.tables.observed import Observed, Reason, RowProblem
from outroute.tables.table import Flags, Floats, Table, close_matches
from outroute.tables.times import read_times

__all__ = [
    "MIN_WRONG",
    "WRONG_SHARE",
    "Outcomes",
    "apply",
    "apply_batches",
    "match_labels",
]

#: More than this share of a field's values out of range (or unknown) is a wrong unit or mapping, not bad rows.
WRONG_SHARE: Final = 0.2
#: Fewer wrong values than this never stop a run: in a batch of three rows one mistake is a third.
MIN_WRONG: Final = 5
#: A converted value this close to the range's end (as a share of the range) lies on it: rounding, not a mistake.
_TOLERANCE: Final = 1e-9

#: What to do about the outcome: see :func:`apply`.
Outcomes = Literal["required", "optional", "ignored"]

#: Factors tried when most values are out of range, and the schema's unit that they lead to (any if empty); only ever a
#: question in a message.
_UNIT_GUESSES: Final = (
    (1000.0, "1000", ""),
    (0.001, "0.001", ""),
    (100.0, "100", ""),
    (0.01, "0.01", ""),
    (10.0, "10", ""),
    (0.1, "0.1", ""),
    (38.67, "38.67: cholesterol mmol/l to mg/dl", "mg/dl"),
    (1 / 38.67, "1/38.67: cholesterol mg/dl to mmol/l", "mmol/l"),
    (18.016, "18.016: glucose mmol/l to mg/dl", "mg/dl"),
    (1 / 18.016, "1/18.016: glucose mg/dl to mmol/l", "mmol/l"),
    (88.42, "88.42: creatinine mg/dl to umol/l", "umol/l"),
    (1 / 88.42, "1/88.42: creatinine umol/l to mg/dl", "mg/dl"),
    (0.45359237, "0.45359237: pounds to kg", "kg"),
    (2.54, "2.54: inches to cm", "cm"),
    (7.50062, "7.50062: kPa to mmHg", "mmhg"),
)
_YES: Final = frozenset({"yes", "true", "1", "y"})
_NO: Final = frozenset({"no", "false", "0", "n"})


class _Work:
    """One batch on its way: which rows are bad so far, and why."""

    def __init__(self, table: Table, history: dict[tuple[str, str], tuple[int, int]]) -> None:
        self.table = table
        self.history = history
        self.case: npt.NDArray[np.object_] | None = None
        self.bad = np.zeros(table.rows, dtype=np.bool_)
        self.problems: list[RowProblem] = []

    def refuse(self, name: str, reason: Reason, rows: Flags, example: str, hint: str) -> RowProblem | None:
        """Record the rows; ``example`` names the own column whose first value is shown."""
        if not rows.any():
            return None
        first = int(np.argmax(rows))
        value = ""
        if example:
            cell = self.table.data.column(example)[first].as_py()
            value = "" if cell is None else str(cell)[:60]
        problem = RowProblem(
            name=name,
            reason=reason,
            count=int(rows.sum()),
            first_row=self.table.row_number(first),
            first_case=None if self.case is None or self.case[first] is None else str(self.case[first]),
            example=value,
            hint=hint,
        )
        self.bad |= rows
        self.problems.append(problem)
        return problem

    def stop_if_most(self, name: str, problem: RowProblem | None, present: int, code: str, advice: str) -> None:
        """Raise where the share of wrong values, over all batches so far, says that the mapping is wrong."""
        key = (name, code)
        wrong, total = self.history.get(key, (0, 0))
        wrong, total = wrong + (problem.count if problem else 0), total + present
        self.history[key] = (wrong, total)
        if problem is None or wrong < MIN_WRONG or wrong <= WRONG_SHARE * total:
            return
        raise DataError(
            f"{self.table.source}: {problem} That is {wrong / total:.0%} of the values, so the mapping is probably "
            f"wrong, not the rows. {advice}".rstrip(),
            code=code,
        )


def apply(mapping: TableMapping, schema: Schema, table: Table, *, outcomes: Outcomes = "required") -> Observed:
    """Turn a table (or one batch of it) into values that the schema knows.

    Args:
        mapping: the node's mapping.
        schema: the schema.
        table: the node's own table.
        outcomes: "required" (its column must exist), "optional" (without it every outcome is unknown), or "ignored".

    Raises:
        DataError: ``data.column`` if a column is not there; ``data.unit``, ``data.number`` or ``data.category`` if more
            than ``WRONG_SHARE`` of a field's values cannot be used.
    """
    return _apply(mapping, schema, table, outcomes, {})


def apply_batches(
    mapping: TableMapping, schema: Schema, batches: Iterable[Table], *, outcomes: Outcomes = "required"
) -> Iterator[Observed]:
    """Apply a mapping to one batch after the other; memory stays bounded by the largest batch.

    Raises:
        DataError: as :func:`apply`; shares of wrong values count over all batches so far.
    """
    history: dict[tuple[str, str], tuple[int, int]] = {}
    for batch in batches:
        yield _apply(mapping, schema, batch, outcomes, history)


def _apply(
    mapping: TableMapping,
    schema: Schema,
    table: Table,
    outcomes: Outcomes,
    history: dict[tuple[str, str], tuple[int, int]],
) -> Observed:
    has_outcome = outcomes != "ignored" and mapping.outcome.column in table.names
    _require_columns(mapping, table, outcomes)
    work = _Work(table, history)
    case = _identifiers(work, mapping.case, "case", Reason.NO_CASE)
    work.case = case if mapping.case else None
    if not mapping.case:
        case = np.array([str(table.row_number(index)) for index in range(table.rows)], dtype=object)
    subject = _identifiers(work, mapping.subject, "subject", Reason.NO_SUBJECT) if mapping.subject else case
    columns: dict[str, npt.NDArray[Any]] = {}
    for item in schema.fields:
        source = mapping.fields[item.name]
        if source.column is None:
            empty = np.full(table.rows, np.nan) if item.kind is FieldKind.NUMERIC else np.full(table.rows, None)
            columns[item.name] = empty
        elif item.kind is FieldKind.NUMERIC:
            assert item.low is not None
            assert item.high is not None
            columns[item.name] = _numeric(
                work, mapping, item.name, source, float(item.low), float(item.high), item.unit
            )
        else:
            columns[item.name] = _categorical(work, mapping, item, source)
    outcome = _outcome(work, mapping, schema) if has_outcome else np.full(table.rows, np.nan)
    time = _time(work, mapping)
    keep = ~work.bad
    return Observed(
        columns={name: values[keep] for name, values in columns.items()},
        outcome=outcome[keep],
        case=case[keep],
        subject=subject[keep],
        time=None if time is None else time[keep],
        row=np.flatnonzero(keep) + table.first_row,
        seen=table.rows,
        problems=tuple(work.problems),
    )


def _require_columns(mapping: TableMapping, table: Table, outcomes: Outcomes) -> None:
    lacking = [name for name in mapping.columns if name not in table.names]
    if outcomes != "required":
        lacking = [name for name in lacking if name != mapping.outcome.column]
    if not lacking:
        return
    names = ", ".join(f"'{name}'" for name in lacking[:8]) + (" and more" if len(lacking) > 8 else "")
    fields = {item.column: name for name, item in mapping.fields.items()}
    advice = ""
    absent = next((fields[name] for name in lacking if name in fields), None)
    if absent is not None:
        advice = (
            f' If your column has another name, write it in mapping.toml ([fields.{absent}] column = "..."); if you do '
            f"not measure it, write absent = true there. `outroute schema mapping` drafts the file."
        )
    raise DataError(
        f"{table.source} lacks {names}. {close_matches(lacking[0], table.names)}{advice}", code="data.column"
    )


def _identifiers(work: _Work, columns: tuple[str, ...], name: str, reason: Reason) -> npt.NDArray[np.object_]:
    if not columns:
        return np.empty(0, dtype=object)
    parts = [work.table.text(column) for column in columns]
    absent = np.logical_or.reduce([np.array([value is None for value in part], dtype=np.bool_) for part in parts])
    work.refuse(name, reason, absent, "", f"Every row needs a value in {', '.join(columns)}.")
    if len(parts) == 1:
        return parts[0]
    # The separator is escaped, so that different values never join to the same text.
    joined = [
        "/".join(str(value).replace("\\", "\\\\").replace("/", "\\/") for value in row)
        for row in zip(*parts, strict=True)
    ]
    made = np.empty(len(joined), dtype=object)
    made[:] = joined
    return made


def _numeric(
    work: _Work,
    mapping: TableMapping,
    name: str,
    source: FieldMapping,
    low: float,
    high: float,
    unit: str,
) -> Floats:
    assert source.column is not None
    numbers = work.table.numbers(source.column, missing=(*mapping.missing, *source.missing), decimal=mapping.decimal)
    values = numbers.values
    if source.scale != 1:
        values = values * float(source.scale)
    if source.offset != 0:
        values = values + float(source.offset)
    present = int((~np.isnan(values)).sum()) + int(numbers.bad.sum())
    wrong = work.refuse(
        name,
        Reason.NOT_A_NUMBER,
        numbers.bad,
        source.column,
        f'Correct it, or list it in mapping.toml ([fields.{name}] missing = ["..."]).',
    )
    advice = 'For decimal commas write decimal = "," at the top of mapping.toml.'
    work.stop_if_most(name, wrong, present, "data.number", advice)
    margin = _TOLERANCE * (high - low)
    with np.errstate(invalid="ignore"):
        outside = (values < low - margin) | (values > high + margin)
    label = f"{low:,.12g} to {high:,.12g}{' ' + unit if unit else ''}"
    found = work.refuse(
        name,
        Reason.OUT_OF_RANGE,
        outside,
        source.column,
        f"The schema's range is {label}; wrong unit, or a code for missing?",
    )
    advice = _unit_advice(name, values, outside, low, high, unit) if found is not None else ""
    work.stop_if_most(name, found, present, "data.unit", advice)
    return np.clip(values, low, high)


def _unit_advice(name: str, values: Floats, outside: Flags, low: float, high: float, unit: str) -> str:
    """What to write in the mapping, after a look at the values that do not fit."""
    odd = values[outside]
    value, count = max(zip(*np.unique(odd, return_counts=True), strict=True), key=lambda pair: pair[1])
    if count > 0.9 * len(odd):
        return f"If {value:g} means missing, write [fields.{name}] missing = [{value:g}] in mapping.toml."
    known = unit.casefold().replace(" ", "").replace("\u00b5", "u")
    inside = [
        label
        for factor, label, wanted in _UNIT_GUESSES
        if wanted in ("", known) and np.mean((odd * factor >= low) & (odd * factor <= high)) > 0.95
    ]
    guess = (
        f" They would fit if multiplied by {inside[0]}" + (f" (or by {inside[1]})." if inside[1:] else ".")
        if inside
        else ""
    )
    return f"If the unit differs, write scale (and offset) under [fields.{name}] in mapping.toml.{guess}"


def match_labels(labels: Iterable[str], categories: tuple[str, ...], codes: Mapping[str, str]) -> list[int]:
    """Index of the category that each own label means, -1 where none does.

    Own codes come first, then the same word, then the same word in other case, then yes/no for true/false and 1/0.
    """
    exact = {category: index for index, category in enumerate(categories)}
    folded = {category.strip().casefold(): index for index, category in enumerate(categories)}
    yes = [index for key, index in folded.items() if key in _YES]
    no = [index for key, index in folded.items() if key in _NO]
    boolean = len(categories) == 2 and len(yes) == 1 and len(no) == 1
    found = []
    for label in labels:
        if label in codes:
            found.append(exact[codes[label]])
            continue
        index = exact.get(label, folded.get(label.casefold(), -1))
        if index < 0 and boolean:
            index = yes[0] if label.casefold() in _YES else no[0] if label.casefold() in _NO else -1
        found.append(index)
    return found


def _categorical(work: _Work, mapping: TableMapping, item: Field, source: FieldMapping) -> npt.NDArray[np.object_]:
    assert source.column is not None
    found = work.table.categories(source.column, missing=(*mapping.missing, *source.missing))
    target = match_labels(found.labels, item.categories, source.codes)
    if source.other is not None:
        other = item.categories.index(source.other)
        target = [other if index < 0 else index for index in target]
    index = np.array([*target, -1], dtype=np.int64)[found.codes]
    unknown = (index < 0) & (found.codes >= 0)
    listed = ", ".join(item.categories[:6]) + (", ..." if len(item.categories) > 6 else "")
    hint = f'The schema knows {listed}; map your own codes ([fields.{item.name}.codes]) or set other = "..." there.'
    problem = work.refuse(item.name, Reason.UNKNOWN_CATEGORY, unknown, source.column, hint)
    work.stop_if_most(item.name, problem, int((found.codes >= 0).sum()), "data.category", "")
    lookup = np.empty(len(item.categories) + 1, dtype=object)
    lookup[:-1] = item.categories
    return lookup[index]


def _outcome(work: _Work, mapping: TableMapping, schema: Schema) -> Floats:
    source, outcome = mapping.outcome, schema.outcome
    missing = (*mapping.missing, *source.missing)
    if not outcome.has_classes:
        assert outcome.low is not None
        assert outcome.high is not None
        plain = FieldMapping(column=source.column, scale=source.scale, offset=source.offset, missing=source.missing)
        return _numeric(work, mapping, outcome.name, plain, float(outcome.low), float(outcome.high), outcome.unit)
    if source.positive_when is not None:
        numbers = work.table.numbers(source.column, missing=missing, decimal=mapping.decimal)
        hint = f"The outcome is '{outcome.classes[1]}' when {source.column} {source.positive_when}."
        problem = work.refuse(outcome.name, Reason.NOT_A_NUMBER, numbers.bad, source.column, hint)
        present = int((~np.isnan(numbers.values)).sum()) + int(numbers.bad.sum())
        work.stop_if_most(outcome.name, problem, present, "data.number", "")
        return source.positive_when.apply(numbers.values)
    found = work.table.categories(source.column, missing=missing)
    target = match_labels(found.labels, outcome.classes, source.codes)
    if len(outcome.classes) == 2 and set(found.labels) <= {"0", "1"} and -1 in target:
        target = [int(label) for label in found.labels]
    index = np.array([*target, -1], dtype=np.int64)[found.codes]
    unknown = (index < 0) & (found.codes >= 0)
    hint = (
        f"The schema knows {', '.join(outcome.classes)}; map your own values in mapping.toml ([outcome.codes], or "
        'positive_when = "> 0" for numbers).'
    )
    problem = work.refuse(outcome.name, Reason.UNKNOWN_CATEGORY, unknown, source.column, hint)
    work.stop_if_most(outcome.name, problem, int((found.codes >= 0).sum()), "data.category", "")
    return np.where(index < 0, np.nan, index.astype(np.float64))


def _time(work: _Work, mapping: TableMapping) -> npt.NDArray[np.int64] | None:
    if mapping.time is None:
        return None
    names = mapping.time.columns
    times = read_times(work.table, names, form=mapping.time.form, timezone=mapping.time.timezone)
    work.refuse("time", Reason.NO_TIME, times.missing, "", f"Every row needs a value in {', '.join(names)}.")
    hint = 'Say how it is written in mapping.toml ([time] format = "%d.%m.%Y", or "epoch").'
    problem = work.refuse("time", Reason.BAD_TIME, times.bad, names[0], hint)
    work.stop_if_most("time", problem, int((~times.missing).sum()), "data.time", "")
    return times.seconds
