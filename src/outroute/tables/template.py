"""A commented draft of ``mapping.toml`` from a schema and a table: what fits is filled in, the rest is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from outroute.schema import Field, FieldKind, Schema
from outroute.tables.applying import match_labels
from outroute.tables.mapping import Rule
from outroute.tables.ranges import suspected_sentinels
from outroute.tables.table import Table, close_matches

__all__ = ["guess_column", "mapping_template"]

#: Own codes listed for one field; the file is for people.
MAX_CODES: Final = 40
#: One value that makes up this share of all values out of range is a code, not a unit.
MOST_ODD: Final = 0.9
#: Spikes of fewer values than this are not called sentinels.
_SPIKE: Final = 5


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.casefold())


def guess_column(name: str, columns: Sequence[str]) -> str | None:
    """The column that has the field's name, or the same but for case and signs."""
    if name in columns:
        return name
    same = [column for column in columns if _plain(column) == _plain(name)]
    return same[0] if len(same) == 1 else None


def mapping_template(
    schema: Schema,
    table: Table,
    *,
    case: Sequence[str] = (),
    subject: Sequence[str] = (),
    time: Sequence[str] = (),
    outcome: str | None = None,
    positive_when: Rule | None = None,
) -> str:
    """TOML text to edit; private, because it names own columns and codes.

    Args:
        schema: what the network agrees on.
        table: the node's own table (all of it, or a first part).
        case, subject, time: own columns, as far as known.
        outcome: own column of the outcome, if it has another name.
        positive_when: rule that makes a numeric column the binary outcome.
    """
    import tomlkit

    doc = tomlkit.document()
    for line in (
        f"How the columns of our own tables become the schema '{schema.name}'. Private: it stays here.",
        "Lines that begin with # are explanations or questions. Remove what you have answered.",
    ):
        doc.add(tomlkit.comment(line))
    doc.add(tomlkit.nl())
    _names(doc, "case", case, 'case = "..."  # column(s) that name a case: a second export counts once')
    _names(doc, "subject", subject, 'subject = "..."  # column that names the person: k counts subjects')
    doc.add(tomlkit.comment('missing = ["-", "unknown"]  # besides empty, ?, NA, NaN, null'))
    doc.add(tomlkit.comment('decimal = ","  # if numbers are written 3,14'))
    doc.add(tomlkit.nl())
    if time:
        part = tomlkit.table()
        part["column"] = time[0] if len(time) == 1 else list(time)
        part.add(tomlkit.comment('format = "%d.%m.%Y %H:%M"  # ISO 8601 if not said; or "epoch"'))
        part.add(tomlkit.comment('timezone = "Europe/Zurich"  # UTC if not said'))
        doc["time"] = part
    else:
        for line in ("[time]  # when a case was observed; without it: when it was put in", 'column = "..."'):
            doc.add(tomlkit.comment(line))
    doc["outcome"] = _outcome(schema, table, outcome, positive_when)
    fields = tomlkit.table(is_super_table=True)
    for item in schema.fields:
        fields[item.name] = _field(item, table)
    doc["fields"] = fields
    return tomlkit.dumps(doc)


def _names(doc: Any, key: str, columns: Sequence[str], question: str) -> None:
    import tomlkit

    if columns:
        doc[key] = columns[0] if len(columns) == 1 else list(columns)
    else:
        doc.add(tomlkit.comment(question))


def _field(item: Field, table: Table) -> Any:
    import tomlkit

    part = tomlkit.table()
    numeric = item.kind is FieldKind.NUMERIC
    wanted = f"{item.low} to {item.high} {item.unit}".strip() if numeric else " | ".join(item.categories)
    part.add(tomlkit.comment(f"the schema: {wanted}"))
    column = guess_column(item.name, table.names)
    if column is None:
        part.add("absent", tomlkit.boolean("true").comment("no column of this name"))
        part.add(tomlkit.comment(f'{close_matches(item.name, table.names)} If one holds it: column = "..."'))
        return part
    part["column"] = column
    if numeric:
        _numeric(part, item, table, column)
    else:
        _codes(part, table, column, item.categories)
    return part


def _numeric(part: Any, item: Field, table: Table, column: str) -> None:
    import tomlkit

    assert item.low is not None
    assert item.high is not None
    if table.is_temporal(column):
        part.add(tomlkit.comment("this column holds dates, not numbers"))
        return
    numbers = table.numbers(column)
    values = numbers.values[~np.isnan(numbers.values)]
    low, high = float(item.low), float(item.high)
    sentinels = [value for value in suspected_sentinels(values, k=_SPIKE) if not low < value < high or value == low]
    odd = values[(values < low) | (values > high)]
    if not sentinels and len(odd) >= _SPIKE:
        value, count = max(zip(*np.unique(odd, return_counts=True), strict=True), key=lambda pair: int(pair[1]))
        sentinels = [float(value)] if count > MOST_ODD * len(odd) else []
    if sentinels:
        part["missing"] = [int(value) if value.is_integer() else value for value in sentinels]
        part["missing"].comment("looks like a code for missing: remove the line if it is a value")
        values = values[~np.isin(values, sentinels)]
    if numbers.bad.any():
        texts = table.text(column)
        shown = ", ".join(dict.fromkeys(str(text) for text in texts[np.flatnonzero(numbers.bad)[:200]]).keys())
        part.add(tomlkit.comment(f"{int(numbers.bad.sum())} values are no numbers: {shown[:80]}"))
    outside = int(((values < low) | (values > high)).sum())
    if outside:
        part.add(tomlkit.comment(f"{outside} of {len(values)} values lie outside: another unit? Exact factors:"))
        part.add(tomlkit.comment('scale = "38.67"  # schema value = own value * scale + offset; "5/9" is allowed'))
        part.add(tomlkit.comment('offset = "0"'))


def _codes(part: Any, table: Table, column: str, categories: tuple[str, ...]) -> None:
    import tomlkit

    labels = table.categories(column).labels
    target = match_labels(labels, categories, {})
    unknown = [label for label, index in zip(labels, target, strict=True) if index < 0]
    if not unknown:
        return
    part.add(tomlkit.comment("own values that the schema does not know; write the category that each one means:"))
    for label in sorted(unknown)[:MAX_CODES]:
        part.add(tomlkit.comment(f'codes.{tomlkit.item(label).as_string()} = "..."  # {" | ".join(categories)}'[:200]))
    if len(unknown) > MAX_CODES:
        part.add(tomlkit.comment(f"... and {len(unknown) - MAX_CODES} more"))
    if "other" in categories:
        part["other"] = "other"
        part["other"].comment("where values go that are listed nowhere")


def _outcome(schema: Schema, table: Table, column: str | None, rule: Rule | None) -> Any:
    import tomlkit

    part = tomlkit.table()
    found = column if column in table.names else guess_column(schema.outcome.name, table.names)
    outcome = schema.outcome
    wanted = " | ".join(outcome.classes) if outcome.has_classes else f"{outcome.low} to {outcome.high} {outcome.unit}"
    part.add(tomlkit.comment(f"the schema: {wanted.strip()}"))
    if found is None:
        part["column"] = outcome.name
        part["column"].comment(f"no such column yet. {close_matches(outcome.name, table.names)}")
        return part
    part["column"] = found
    if rule is not None:
        part["positive_when"] = str(rule)
    elif outcome.has_classes:
        _codes(part, table, found, outcome.classes)
        if len(outcome.classes) == 2:
            part.add(tomlkit.comment(f"positive_when = \"> 0\"  # for a number: '{outcome.classes[1]}' when it holds"))
    return part
