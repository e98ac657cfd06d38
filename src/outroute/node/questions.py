"""What somebody asks -> codes, or an error that says what the schema allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.schema import MISSING, Schema, codes_problem, encode

__all__ = ["codes_of_case", "codes_of_cases"]


def codes_of_case(schema: Schema, case: Mapping[str, Any]) -> NDArray[np.uint16]:
    """One case as codes, uint16 ``[1, width]``; what is left out is missing.

    Raises:
        DataError: when a value is not one that the schema allows.
        SchemaError: when a name is not a field.
    """
    return _of_mappings(schema, [case])


def _of_mappings(schema: Schema, cases: Sequence[Any]) -> NDArray[np.uint16]:
    columns: dict[str, list[Any]] = {}
    for i, case in enumerate(cases):
        if not isinstance(case, Mapping):
            raise DataError("a case maps field names to values; a table goes to ask_many", code="data.case")
        for name, value in case.items():
            if not isinstance(value, str) and np.ndim(value):
                raise DataError(f"{name}: one value a case, not {type(value).__name__}; see ask_many", code="data.case")
            columns.setdefault(name, [None] * len(cases))[i] = value
    return _encode(schema, columns, len(cases))


def codes_of_cases(schema: Schema, cases: Any) -> NDArray[np.uint16]:
    """Many cases as codes, uint16 ``[m, width]``.

    Args:
        schema: the schema.
        cases: columns by name (mapping or DataFrame; those that are no fields are ignored), a sequence of mappings,
            or codes uint16 ``[m, width]``.

    Raises:
        DataError: when a value is not one that the schema allows, or no column is a field.
        SchemaError: when a name in a sequence of mappings is not a field.
    """
    if isinstance(cases, np.ndarray):
        fits = cases.dtype == np.uint16 and cases.ndim == 2 and cases.shape[1] == schema.width
        if not fits or codes_problem(schema, cases).any():
            raise DataError(
                f"an array of cases holds codes uint16 [m, {schema.width}] as outroute.schema.encode makes them; "
                "give columns by name for values",
                code="data.codes",
            )
        return cases
    if isinstance(cases, Sequence) and not isinstance(cases, str):
        return _of_mappings(schema, cases)
    columns = {name: _column(cases[name]) for name in schema.slots if name in cases}
    if not columns:
        raise DataError(
            f"no column is a field of the schema: it has {', '.join(list(schema.slots)[:8])}", code="data.column"
        )
    return _encode(schema, columns, len(next(iter(columns.values()))))


def _column(values: Any) -> NDArray[Any]:
    # A list of texts with gaps must not become one of texts.
    return np.asarray(values, dtype=object if isinstance(values, (list, tuple)) else None)


def _encode(schema: Schema, columns: Mapping[str, Any], n: int) -> NDArray[np.uint16]:
    if not columns:
        return np.full((n, schema.width), MISSING, dtype=np.uint16)
    encoded = encode(schema, columns)
    if encoded.problems:
        first = encoded.problems[0]
        f = schema.field(first.field)
        allowed = f"{f.low} to {f.high} {f.unit}".strip() if f.low is not None else ", ".join(f.categories)
        where = f" in case {int(first.rows[0]) + 1}" if n > 1 else ""
        raise DataError(
            f"{first.field}: '{first.example}'{where} is {first.kind.value}; the schema allows {allowed}",
            code="data.question",
        )
    return encoded.codes
