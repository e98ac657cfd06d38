"""A node's private ``mapping.toml``: how its own columns, units, codes and gaps become the schema's fields.

It is never sent: its column names and codes tell about the node's systems. Every entry is optional; a field without
one is the column of the same name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from outroute.errors import SchemaError
from outroute.schema import Field, FieldKind, Schema
from outroute.tables.table import Flags, Floats, canonical, close_matches

__all__ = [
    "FieldMapping",
    "OutcomeMapping",
    "Rule",
    "TableMapping",
    "TimeMapping",
    "default_mapping",
    "load_mapping",
    "loads_mapping",
]

#: A mapping file is written by hand (bytes).
MAX_MAPPING_BYTES: Final = 1_000_000

_COMPARISON: Final = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_EMPTY: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A numeric column made binary: ``> 15`` says which numbers are positive."""

    operator: str
    threshold: float

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``"> 15"``, ``"<= 36.5"``, ``"!= 0"``.

        Raises:
            SchemaError: ``mapping.rule``.
        """
        match = _COMPARISON.fullmatch(text)
        if match is None:
            raise SchemaError(
                f'\'{text}\' is no rule; write a comparison with a number, for example "> 15" or "!= 0"',
                code="mapping.rule",
            )
        return cls(operator=match[1], threshold=float(match[2]))

    def apply(self, values: Floats) -> Floats:
        """float64[n] of 0 and 1, NaN where ``values`` is NaN."""
        with np.errstate(invalid="ignore"):
            hit: Flags = {
                ">": values > self.threshold,
                ">=": values >= self.threshold,
                "<": values < self.threshold,
                "<=": values <= self.threshold,
                "==": values == self.threshold,
                "!=": values != self.threshold,
            }[self.operator]
        return np.where(np.isnan(values), np.nan, hit.astype(np.float64))

    def __str__(self) -> str:
        return f"{self.operator} {self.threshold:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMapping:
    """Where a field's values come from.

    Attributes:
        column: own column; None if this node does not measure the field (missing in every case).
        scale, offset: schema value = own value * scale + offset (numeric fields).
        codes: own code to category (categorical fields).
        other: category of own codes that are listed nowhere; None refuses such rows.
        missing: own values that mean missing, besides those of the whole mapping.
    """

    column: str | None
    scale: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    codes: Mapping[str, str] = field(default_factory=dict)
    other: str | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeMapping:
    """Where the outcome comes from: as :class:`FieldMapping`, or by a rule (binary outcomes)."""

    column: str
    scale: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    codes: Mapping[str, str] = field(default_factory=dict)
    positive_when: Rule | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeMapping:
    """When a case was observed: one column, or year, month, day (, hour, minute, second)."""

    columns: tuple[str, ...]
    form: str | None = None
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMapping:
    """The whole mapping.

    Attributes:
        fields: one entry per field of the schema.
        outcome: where the outcome comes from.
        case: columns that together name a case; empty numbers the rows.
        subject: columns that together name a subject; empty means that every case is a subject of its own.
        time: when a case was observed; None if the table does not say.
        missing: own values that mean missing in every column, besides ``DEFAULT_MISSING``.
        decimal: the decimal sign of text columns.
    """

    fields: Mapping[str, FieldMapping]
    outcome: OutcomeMapping
    case: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    time: TimeMapping | None = None
    missing: tuple[str, ...] = ()
    decimal: str = "."

    @property
    def columns(self) -> tuple[str, ...]:
        """Every own column that is read, once each."""
        names = [item.column for item in self.fields.values() if item.column is not None]
        names += [self.outcome.column, *self.case, *self.subject, *(self.time.columns if self.time else ())]
        return tuple(dict.fromkeys(names))


def default_mapping(
    schema: Schema,
    *,
    outcome: str | None = None,
    case: Sequence[str] = (),
    subject: Sequence[str] = (),
    time: Sequence[str] = (),
    timezone: str = "UTC",
) -> TableMapping:
    """The mapping of a table whose columns are called as the schema's fields."""
    return TableMapping(
        fields={item.name: FieldMapping(column=item.name) for item in schema.fields},
        outcome=OutcomeMapping(column=outcome or schema.outcome.name),
        case=tuple(case),
        subject=tuple(subject),
        time=TimeMapping(columns=tuple(time), timezone=timezone) if time else None,
    )


def load_mapping(path: str | os.PathLike[str], schema: Schema) -> TableMapping:
    """Read a mapping file.

    Raises:
        SchemaError: ``mapping.*``, with the file and the entry.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SchemaError(f"Cannot read {path}: {error.strerror}", code="mapping.file") from error
    if len(data) > MAX_MAPPING_BYTES:
        raise SchemaError(f"{path} is larger than {MAX_MAPPING_BYTES} bytes: no mapping", code="mapping.file")
    try:
        return loads_mapping(data.decode(), schema)
    except UnicodeDecodeError as error:
        raise SchemaError(f"{path} is not UTF-8 text", code="mapping.file") from error
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}", code=error.code) from None


def loads_mapping(text: str, schema: Schema) -> TableMapping:
    """Read a mapping from TOML text.

    Raises:
        SchemaError: ``mapping.*``, with the entry.
    """
    import tomllib
    from decimal import Decimal

    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"The mapping is not valid TOML: {error}", code="mapping.toml") from None
    top = _Entry(data, "the mapping")
    fields = {item.name: FieldMapping(column=item.name) for item in schema.fields}
    for name, table in top.table("fields").items():
        if name not in fields:
            raise SchemaError(
                f"[fields.{name}]: the schema has no such field. {close_matches(name, list(fields), 'The schema')}",
                code="mapping.field",
            )
        fields[name] = _field(schema.field(name), _Entry(table, f"fields.{name}"))
    outcome = _outcome(schema, _Entry(top.table("outcome"), "outcome"))
    time_entry = top.table("time")
    mapping = TableMapping(
        fields=fields,
        outcome=outcome,
        case=top.names("case"),
        subject=top.names("subject"),
        time=_time(_Entry(time_entry, "time")) if time_entry else None,
        missing=top.values("missing"),
        decimal=top.text("decimal") or ".",
    )
    if mapping.decimal not in (".", ","):
        raise SchemaError('decimal is "." or ","', code="mapping.toml")
    top.done()
    return mapping


class _Entry:
    """A TOML table whose keys must all be known, so that a typing error is found."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise SchemaError(f"[{where}] must be a table", code="mapping.toml")
        self.data, self.where, self.known = data, where, set[str]()

    def _take(self, key: str) -> Any:
        self.known.add(key)
        return self.data.get(key)

    def _wrong(self, key: str, wanted: str) -> SchemaError:
        return SchemaError(f"[{self.where}] {key} must be {wanted}", code="mapping.toml")

    def table(self, key: str) -> dict[str, Any]:
        value = self._take(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(key, "a table")
        return value

    def text(self, key: str) -> str | None:
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise self._wrong(key, "a text")
        return value

    def flag(self, key: str) -> bool:
        value = self._take(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return bool(value)

    def names(self, key: str) -> tuple[str, ...]:
        """One column name or a list of them."""
        value = self._take(key)
        if value is None:
            return ()
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(item, str) and item for item in found):
            raise self._wrong(key, "a column name, or a list of them")
        return tuple(found)

    def values(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        if value is None:
            return ()
        found = value if isinstance(value, list) else [value]
        if any(isinstance(item, (dict, list)) for item in found):
            raise self._wrong(key, "a value, or a list of them")
        return tuple(canonical(str(item)) for item in found)

    def fraction(self, key: str, default: int) -> Fraction:
        value = self._take(key)
        if value is None:
            return Fraction(default)
        try:
            return Fraction(str(value).replace(" ", ""))
        except (ValueError, ZeroDivisionError):
            raise self._wrong(key, 'a number, exact: 0.01, "38.67" or "5/9"') from None

    def codes(self, key: str, allowed: Sequence[str]) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for own, category in self.table(key).items():
            if str(category) not in allowed:
                raise SchemaError(
                    f"[{self.where}] codes: '{own}' becomes '{category}', which is not one of {', '.join(allowed)}",
                    code="mapping.codes",
                )
            found[canonical(own)] = str(category)
        return found

    def done(self) -> None:
        unknown = sorted(set(self.data) - self.known)
        if unknown:
            raise SchemaError(
                f"[{self.where}] does not know '{unknown[0]}'; it knows {', '.join(sorted(self.known))}",
                code="mapping.toml",
            )


def _field(item: Field, entry: _Entry) -> FieldMapping:
    absent = entry.flag("absent")
    column = entry.text("column") or item.name
    if absent and "column" in entry.data:
        raise SchemaError(f"[{entry.where}] is absent and has a column: remove one", code="mapping.field")
    numeric = item.kind is FieldKind.NUMERIC
    made = FieldMapping(
        column=None if absent else column,
        scale=entry.fraction("scale", 1) if numeric else Fraction(1),
        offset=entry.fraction("offset", 0) if numeric else Fraction(0),
        codes=_EMPTY if numeric else entry.codes("codes", item.categories),
        other=None if numeric else entry.text("other"),
        missing=entry.values("missing"),
    )
    if made.scale == 0:
        raise SchemaError(f"[{entry.where}] scale 0 would make every value equal", code="mapping.field")
    if made.other is not None and made.other not in item.categories:
        raise SchemaError(
            f"[{entry.where}] other = '{made.other}' is not one of {', '.join(item.categories)}",
            code="mapping.codes",
        )
    entry.done()
    return made


def _outcome(schema: Schema, entry: _Entry) -> OutcomeMapping:
    outcome = schema.outcome
    rule = entry.text("positive_when")
    if rule is not None and len(outcome.classes) != 2:
        raise SchemaError("[outcome] positive_when needs an outcome of two classes", code="mapping.rule")
    made = OutcomeMapping(
        column=entry.text("column") or outcome.name,
        scale=Fraction(1) if outcome.has_classes else entry.fraction("scale", 1),
        offset=Fraction(0) if outcome.has_classes else entry.fraction("offset", 0),
        codes=entry.codes("codes", outcome.classes) if outcome.has_classes else _EMPTY,
        positive_when=None if rule is None else Rule.parse(rule),
        missing=entry.values("missing"),
    )
    if made.positive_when is not None and made.codes:
        raise SchemaError("[outcome] has codes and positive_when: keep one", code="mapping.rule")
    if made.scale == 0:
        raise SchemaError("[outcome] scale 0 would make every value equal", code="mapping.field")
    entry.done()
    return made


def _time(entry: _Entry) -> TimeMapping:
    columns = entry.names("column") or entry.names("columns")
    entry.known.update({"column", "columns"})
    if not columns:
        raise SchemaError("[time] needs column (or columns: year, month, day, ...)", code="mapping.time")
    made = TimeMapping(columns=columns, form=entry.text("format"), timezone=entry.text("timezone") or "UTC")
    entry.done()
    return made
