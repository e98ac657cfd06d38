"""Proposing the outcome of a schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from outroute.errors import DataError
from outroute.schema import MAX_CLASSES, Outcome, OutcomeKind
from outroute.tables.mapping import Rule
from outroute.tables.profiles import OTHER, merge_rare, subject_counts
from outroute.tables.ranges import outward_range, suspected_sentinels
from outroute.tables.table import Categories, Floats, Table, canonical, parse_number

__all__ = ["Note", "Notes", "infer_outcome"]

#: Words that name the positive one of two classes.
_POSITIVE: Final = frozenset({"1", "yes", "true", "y", "positive", "pos", "died", "dead", "event", "case"})

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that a person should know about the draft; it may tell about single cases and stays local.

    Attributes:
        column: which column, "" for the whole table.
        kind: "left out", "look", "outcome", "time" or "slots".
        text: the note.
    """

    column: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.column}: {self.text}" if self.column else self.text


class Notes(list[Note]):
    """Notes being collected."""

    def add(self, column: str, kind: str, text: str) -> None:
        """Add one."""
        self.append(Note(column=column, kind=kind, text=text))


def infer_outcome(
    table: Table, column: str, subjects: Ints | None, *, positive: str | None, k: int, notes: Notes
) -> tuple[Outcome, Rule | None]:
    """Propose the outcome, and the rule that makes a number binary if one was asked for.

    Raises:
        DataError: ``data.outcome``.
    """
    found = table.categories(column)
    present = found.codes >= 0
    if not present.any():
        raise DataError(f"The outcome '{column}' is missing in every row", code="data.outcome")
    if len(found.labels) == 1:
        raise DataError(
            f"The outcome '{column}' is '{found.labels[0]}' in every row: there is nothing to learn. Is it the right "
            "column?",
            code="data.outcome",
        )
    if not present.all():
        notes.add(column, "outcome", f"{int((~present).sum()):,} rows have no outcome yet")
    numbers = table.numbers(column)
    numeric = not numbers.bad.any()
    rule = None
    if positive is not None and positive.lstrip()[:1] in "<>=!":
        rule = Rule.parse(positive)
        if not numeric:
            raise DataError(f"The outcome '{column}' holds texts; '{positive}' needs numbers", code="data.outcome")
        hit = rule.apply(numbers.values)
        codes = np.where(np.isnan(hit), -1, np.nan_to_num(hit)).astype(np.int64)
        _floor(column, ("no", "yes"), subject_counts(codes, 2, subjects), k)
        notes.add(column, "outcome", f'yes when {rule}; say so in mapping.toml ([outcome] positive_when = "{rule}")')
        return Outcome(name=column, kind=OutcomeKind.BINARY, classes=("no", "yes")), rule
    distinct = np.unique(numbers.values[present]) if numeric else np.empty(0)
    whole = bool(np.all(distinct == np.floor(distinct)))
    if numeric and (not whole or len(distinct) > MAX_CLASSES) and len(distinct) > 2:
        if positive is not None:
            raise DataError(
                f"The outcome '{column}' is numeric; give a comparison such as \"> 15\"", code="data.outcome"
            )
        return _numeric_outcome(column, numbers.values, subjects, k, notes), None
    return _class_outcome(column, found, subjects, positive, k, notes), None


def _numeric_outcome(column: str, values: Floats, subjects: Ints | None, k: int, notes: Notes) -> Outcome:
    present = ~np.isnan(values)
    for sentinel in suspected_sentinels(values[present], k=k):
        text = (
            f"{sentinel:g} in {int((values == sentinel).sum()):,} rows looks like a code for missing; if it is, say so "
        )
        notes.add(column, "outcome", text + f"in mapping.toml ([outcome] missing = [{sentinel:g}])")
        present &= values != sentinel
    whole = bool(np.all(values[present] == np.floor(values[present])))
    limits = outward_range(values[present], None if subjects is None else subjects[present], k=k, integer=whole)
    if limits is None:
        raise DataError(
            f"The outcome '{column}' has the same value for all but fewer than {k} subjects", code="data.outcome"
        )
    if limits.outside:
        notes.add(column, "outcome", f"{limits.outside:,} outside the proposed range; widen it if they are right")
    return Outcome(name=column, kind=OutcomeKind.NUMERIC, low=limits.low, high=limits.high)


def _class_outcome(
    column: str, found: Categories, subjects: Ints | None, positive: str | None, k: int, notes: Notes
) -> Outcome:
    counts = subject_counts(found.codes, len(found.labels), subjects)
    if len(found.labels) > 5 * MAX_CLASSES:
        raise DataError(
            f"The outcome '{column}' has {len(found.labels):,} different values that are no numbers; at most "
            f"{MAX_CLASSES} classes fit. Group them in your table first",
            code="data.outcome",
        )
    if len(found.labels) == 2 or positive is not None:
        chosen = canonical(positive) if positive is not None else _positive(found.labels, counts)
        if chosen not in found.labels:
            raise DataError(
                f"The outcome '{column}' is never '{chosen}'; it is one of {', '.join(found.labels[:MAX_CLASSES])}",
                code="data.outcome",
            )
        rest = [label for label in found.labels if label != chosen]
        negative = rest[0] if len(rest) == 1 else f"not {chosen}"
        hit = int(counts[found.labels.index(chosen)])
        _floor(column, (negative, chosen), np.array([int(counts.sum()) - hit, hit]), k)
        notes.add(column, "outcome", f"binary; '{chosen}' is taken as the positive class")
        if len(rest) > 1:
            notes.add(column, "outcome", f"map the other values to '{negative}' in mapping.toml ([outcome.codes])")
        return Outcome(name=column, kind=OutcomeKind.BINARY, classes=(negative, chosen))
    names, merged = merge_rare(found.labels, counts, k=k, most=MAX_CLASSES)
    if len(names) < 2 or (len(names) == 2 and OTHER in names):
        _floor(column, tuple(found.labels), counts, k)
    if min(merged) < k:
        _floor(column, tuple(names), np.array(merged), k)
    if OTHER in names and OTHER not in found.labels:
        notes.add(column, "outcome", f"rare classes merged to '{OTHER}'; map them in mapping.toml ([outcome.codes])")
    if len(names) == 2:
        return Outcome(name=column, kind=OutcomeKind.BINARY, classes=(names[0], names[1]))
    if all(parse_number(label) is not None for label in names):
        notes.add(column, "outcome", f'{len(names)} numbers taken as classes; for yes or no give --positive "> 0"')
    return Outcome(name=column, kind=OutcomeKind.CATEGORICAL, classes=tuple(names))


def _positive(labels: tuple[str, ...], counts: Ints) -> str:
    for label in labels:
        if label.casefold() in _POSITIVE:
            return label
    numbers = [parse_number(label) for label in labels]
    if all(number is not None for number in numbers):
        return max(labels, key=lambda label: parse_number(label) or 0.0)
    return labels[int(np.argmin(counts))]


def _floor(column: str, classes: tuple[str, ...], counts: Ints, k: int) -> None:
    for label, count in zip(classes, counts, strict=True):
        if count < k:
            raise DataError(
                f"The outcome '{column}' is '{label}' for {count} subjects, fewer than k = {k}: such a class would "
                "point at people. Merge it with another class, or collect more cases",
                code="data.outcome",
            )
