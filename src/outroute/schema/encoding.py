"""Values of a case <-> the 16-bit codes of its conditions.

Turning a measured value into its code is each node's own business and uses ordinary floating point; from the codes
on, everything that nodes must agree on is integers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.schema.model import Field, Outcome, Schema

__all__ = [
    "Encoded",
    "Problem",
    "ProblemKind",
    "codes_problem",
    "decode_field",
    "encode",
    "encode_outcome",
    "facet_index",
    "shares",
    "unit_scale",
]


class ProblemKind(Enum):
    """Why a value could not be encoded."""

    OUT_OF_RANGE = "out of range"
    UNKNOWN_CATEGORY = "unknown category"
    NOT_A_NUMBER = "not a number"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Values of one field that could not be encoded; their slots are ``MISSING``.

    Attributes:
        field: name of the field.
        kind: why.
        rows: int64, the rows concerned, ascending.
        example: the first such value, as text.
    """

    field: str
    kind: ProblemKind
    rows: NDArray[np.int64]
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Conditions as codes.

    Attributes:
        codes: uint16 ``[n, width]``.
        problems: what could not be encoded; the caller decides whether such rows are refused.
    """

    codes: NDArray[np.uint16]
    problems: tuple[Problem, ...]

    @property
    def bad_rows(self) -> NDArray[np.int64]:
        """Rows with at least one problem, ascending."""
        if not self.problems:
            return np.empty(0, dtype=np.int64)
        return np.unique(np.concatenate([p.rows for p in self.problems]))


_NOTHING = ("NAType", "NaTType")
"""Types of the values by which data frames say that nothing is there."""


def _numbers(values: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers (NaN where absent) and where something stood that is no number."""
    array = np.asarray(values)
    if array.dtype.kind in "fiub":
        return array.astype(np.float64), np.zeros(array.shape, dtype=bool)
    out = np.full(len(array), np.nan)
    bad = np.zeros(len(array), dtype=bool)
    for i, value in enumerate(array):
        if _absent(value):
            continue
        try:
            out[i] = float(value)
        except (TypeError, ValueError):
            bad[i] = True
    return out, bad


def _absent(value: Any) -> bool:
    if isinstance(value, str):
        return not value
    return (
        value is None
        or type(value).__name__ in _NOTHING
        or (isinstance(value, (float, np.floating)) and value != value)
    )


def _encode_numeric(f: Field, values: Any, problems: list[Problem]) -> NDArray[np.uint16]:
    from outroute.schema.model import MISSING, SCALE

    assert f.low is not None
    assert f.high is not None
    number, bad = _numbers(values)
    low, high = float(f.low), float(f.high)
    outside = (number < low) | (number > high)
    for mask, kind in ((bad, ProblemKind.NOT_A_NUMBER), (outside, ProblemKind.OUT_OF_RANGE)):
        if mask.any():
            rows = np.flatnonzero(mask)
            problems.append(Problem(field=f.name, kind=kind, rows=rows, example=str(np.asarray(values)[rows[0]])))
    present = ~(np.isnan(number) | outside)
    code = np.full(len(number), MISSING, dtype=np.uint16)
    code[present] = np.rint((number[present] - low) / (high - low) * SCALE).astype(np.uint16)
    return code


def _encode_categorical(f: Field, values: Any, problems: list[Problem]) -> NDArray[np.uint16]:
    from outroute.schema.model import MISSING, SCALE

    array = np.asarray(values, dtype=object)
    lookup = {c: i for i, c in enumerate(f.categories)}
    index = np.empty(len(array), dtype=np.int64)
    for i, value in enumerate(array):
        if _absent(value):
            index[i] = -1
        else:
            index[i] = lookup.get(_category_text(value), -2)
    unknown = index == -2
    if unknown.any():
        rows = np.flatnonzero(unknown)
        problems.append(
            Problem(field=f.name, kind=ProblemKind.UNKNOWN_CATEGORY, rows=rows, example=str(array[rows[0]]))
        )
    out = np.zeros((len(array), f.width), dtype=np.uint16)
    known_rows = np.flatnonzero(index >= 0)
    out[known_rows, index[known_rows]] = SCALE
    out[index < 0] = MISSING
    return out


def _category_text(value: Any) -> str:
    """A category as text: 1, 1.0 and True read as people write them; texts in NFC, as schemas hold them."""
    if isinstance(value, str):
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def encode(schema: Schema, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> Encoded:
    """Encode conditions.

    Args:
        schema: the schema.
        columns: by field name, equal lengths. Numbers for numeric fields, texts for categorical ones; ``None``, NaN
            and ``""`` are missing. A field without a column is missing everywhere.

    Raises:
        DataError: when columns differ in length, or name something that is not a field.
    """
    from outroute.schema.model import MISSING, FieldKind

    for name in columns:
        schema.field(name)
    lengths = {len(c) for c in columns.values()}
    if len(lengths) > 1:
        raise DataError(f"the columns have different lengths: {sorted(lengths)}", code="data.lengths")
    n = lengths.pop() if lengths else 0
    codes = np.full((n, schema.width), MISSING, dtype=np.uint16)
    problems: list[Problem] = []
    for f in schema.fields:
        if f.name not in columns:
            continue
        make = _encode_numeric if f.kind is FieldKind.NUMERIC else _encode_categorical
        part = make(f, columns[f.name], problems)
        codes[:, schema.slots[f.name]] = part.reshape(n, f.width)
    return Encoded(codes=codes, problems=tuple(problems))


def encode_outcome(outcome: Outcome, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
    """Outcomes as float64 ``[n]``: class index, or the value in the outcome's unit; NaN while not known.

    Args:
        outcome: the schema's outcome.
        values: for classes their names, or numbers: indexes of classes (0 is the first), unless a class is itself
            written as a number ("1", "2"), then numbers are names. Booleans are "no" and "yes" where there are such
            classes, else 0 and 1. For a numeric outcome numbers. Absent is ``None``, NaN, "".

    Raises:
        DataError: on an unknown class, or a number outside the declared range (probably another unit).
    """
    if not outcome.has_classes:
        number, bad = _numbers(values)
        assert outcome.low is not None
        assert outcome.high is not None
        wrong = bad | (number < float(outcome.low)) | (number > float(outcome.high))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"outcome '{outcome.name}': {int(wrong.sum())} values lie outside {outcome.low} to {outcome.high} "
                f"{outcome.unit}; first in row {row + 1}: {np.asarray(values)[row]}. Wrong unit? See mapping.toml",
                code="data.outcome_range",
            )
        return number
    lookup = {name: i for i, name in enumerate(outcome.classes)}
    named = any(name.isdecimal() for name in outcome.classes)
    known: dict[tuple[type, Any], float] = {}
    out = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if _absent(value):
            continue
        key = (type(value), value)
        if key not in known:
            found = lookup.get(_category_text(value))
            if found is None and isinstance(value, (int, float, np.number, np.bool_)) and not named:
                found = int(value) if value in range(len(outcome.classes)) else None
            if found is None:
                raise DataError(
                    f"outcome '{outcome.name}': '{value}' in row {i + 1} is not one of {', '.join(outcome.classes)}",
                    code="data.outcome_class",
                )
            known[key] = found
        out[i] = known[key]
    return out


def unit_scale(schema: Schema, codes: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Codes ``[n, width]`` as numbers from 0 to 1, NaN where missing; float64 ``[n, width]``."""
    from outroute.schema.model import MISSING, SCALE

    out = codes.astype(np.float64)
    out[codes == MISSING] = np.nan
    out /= SCALE
    return out


def decode_field(f: Field, codes: NDArray[np.uint16]) -> float | dict[str, float] | None:
    """One field's codes as people read them: a number in its unit, shares by category, or ``None`` (missing)."""
    from outroute.schema.model import MISSING, SCALE, FieldKind

    if int(codes[0]) == MISSING:
        return None
    if f.kind is FieldKind.NUMERIC:
        assert f.low is not None
        assert f.high is not None
        return float(f.low) + int(codes[0]) / SCALE * (float(f.high) - float(f.low))
    return {c: int(v) / SCALE for c, v in zip(f.categories, codes, strict=True) if int(v)}


def codes_problem(schema: Schema, codes: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Rows of codes ``[n, width]`` that the fields do not allow, bool ``[n]``.

    A categorical field is either missing in all its slots or its shares sum to exactly ``SCALE``; a facet's share is
    whole (one category) or missing.
    """
    from outroute.schema.model import MISSING, SCALE

    groups = schema.category_slots
    if not groups.shape[1]:
        return np.zeros(len(codes), dtype=bool)
    # Sums stay below 116 * 65535 < 2^24: float32 holds them exactly, and one matrix product sums every field.
    total = groups.T @ codes.T.astype(np.float32)
    bad = np.zeros(len(codes), dtype=bool)
    for row, members in zip(total, groups.sum(axis=0), strict=True):
        bad |= (row != SCALE) & (row != MISSING * members)
    for f in schema.facets:
        part = codes[:, schema.slots[f.name]]
        bad |= (part.max(axis=1) != SCALE) & (part.min(axis=1) != MISSING)
    return bad


def facet_index(schema: Schema, codes: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Number of the facet combination of each row, int64 ``[n]``; 0 where the schema has no facets.

    Mixed radix over the facets in field order; a missing facet counts as one more category.
    """
    index = np.zeros(len(codes), dtype=np.int64)
    from outroute.schema.model import MISSING

    for f in schema.facets:
        part = codes[:, schema.slots[f.name]]
        here = np.where(part[:, 0] == MISSING, f.width, part.argmax(axis=1))
        index = index * (f.width + 1) + here
    return index


def shares(weights: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Shares ``[n, categories]`` that sum to exactly ``SCALE``, by largest remainder, ties to the lowest index.

    Args:
        weights: counts or fractions, not negative, each row with a positive sum.
    """
    from outroute.schema.model import SCALE

    exact = weights / weights.sum(axis=1, keepdims=True) * SCALE
    floor = np.floor(exact)
    left = SCALE - floor.sum(axis=1).astype(np.int64)
    order = np.argsort(-(exact - floor), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(weights.shape[1])[None, :], axis=1)
    out: NDArray[np.uint16] = (floor + (rank < left[:, None])).astype(np.uint16)
    return out
