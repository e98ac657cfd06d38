"""Short forms for declaring a schema by hand, and for reading columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from outroute.schema import (
    Distiller,
    Field,
    FieldKind,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    drawn_landmarks,
)

__all__ = [
    "category",
    "flag",
    "labels",
    "number",
    "numbers",
    "numeric_outcome",
    "objects",
    "privacy",
    "read_csv",
    "schema",
    "two_classes",
]

YEAR_SECONDS = 365 * 86_400


def number(name: str, low: str, high: str, unit: str = "", *, integer: bool = False, weight: str = "1") -> Field:
    """A numeric field with its declared range."""
    return Field(
        name=name,
        kind=FieldKind.NUMERIC,
        low=Decimal(low),
        high=Decimal(high),
        unit=unit,
        integer=integer,
        weight=Decimal(weight),
    )


def category(name: str, categories: Iterable[str], *, weight: str = "1") -> Field:
    """A categorical field."""
    return Field(name=name, kind=FieldKind.CATEGORICAL, categories=tuple(categories), weight=Decimal(weight))


def flag(name: str, *, weight: str = "1") -> Field:
    """A categorical field with the categories "no" and "yes"."""
    return category(name, ("no", "yes"), weight=weight)


def two_classes(name: str, negative: str, positive: str) -> Outcome:
    """A binary outcome."""
    return Outcome(name=name, kind=OutcomeKind.BINARY, classes=(negative, positive))


def numeric_outcome(name: str, low: str, high: str, unit: str = "") -> Outcome:
    """A numeric outcome with its declared range."""
    return Outcome(name=name, kind=OutcomeKind.NUMERIC, low=Decimal(low), high=Decimal(high), unit=unit)


def privacy(k: int, subject: str) -> Privacy:
    """A floor of k subjects; k = 1 is the distiller `single`."""
    return Privacy(distiller=Distiller.SINGLE if k == 1 else Distiller.COHORT, k=k, subject=subject)


def schema(
    name: str,
    fields: tuple[Field, ...],
    outcome: Outcome,
    *,
    k: int,
    subject: str,
    bucket_seconds: int = 366 * 86_400,
    lifetime_years: int = 99,
) -> Schema:
    """An archival schema (its packets live for decades) with landmarks drawn from the declared ranges."""
    return Schema(
        name=name,
        fields=fields,
        outcome=outcome,
        privacy=privacy(k, subject),
        time=Time(bucket_seconds=bucket_seconds, lifetime_seconds=lifetime_years * YEAR_SECONDS),
        landmarks=drawn_landmarks(fields),
    )


def read_csv(source: Path | IO[bytes], names: list[str] | None = None) -> Mapping[str, Any]:
    """Columns of a CSV file (``.gz`` too) as pyarrow arrays; empty, ``NA``, ``?`` and ``.`` are null.

    Args:
        source: a path, or an open binary file.
        names: names of the columns, when the file has no header line.
    """
    from pyarrow import csv

    table = csv.read_csv(
        str(source) if isinstance(source, Path) else source,
        read_options=csv.ReadOptions(column_names=names),
        convert_options=csv.ConvertOptions(null_values=["", "NA", "?", "."], strings_can_be_null=True),
    )
    return {name: table.column(name).combine_chunks() for name in table.column_names}


def numbers(column: Any) -> NDArray[np.float64]:
    """A pyarrow column as float64 with NaN for null."""
    import pyarrow as pa

    return np.array(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def objects(column: Any) -> NDArray[np.object_]:
    """A pyarrow column of strings as an object array, stripped, with None for null and for blanks."""
    values = column.dictionary_encode()
    known = [text.strip() or None for text in values.dictionary.to_pylist()]
    lookup = np.array([*known, None], dtype=object)
    index = values.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
    found: NDArray[np.object_] = lookup[index]
    return found


def labels(values: NDArray[Any], names: Mapping[Any, str]) -> NDArray[np.object_]:
    """Codes by their names; what has no name is missing (None).

    Args:
        values: n codes (numbers or strings, NaN or None for missing).
        names: name of each code.
    """
    out = np.full(len(values), None, dtype=object)
    for code, name in names.items():
        out[values == code] = name
    return out
