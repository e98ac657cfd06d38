"""A table of the user's, column by column, whatever file or object it came from.

Values are interpreted late: a CSV column stays text until somebody asks for its numbers, so that a code such as
``007`` keeps its zeros, and a value that is no number can be named with its row.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from outroute.errors import DataError

__all__ = [
    "DEFAULT_MISSING",
    "Categories",
    "Numbers",
    "Table",
    "canonical",
    "close_matches",
    "parse_number",
]

#: Texts that mean "missing" in every column. Words such as "none" or "unknown" are not here: they may be categories.
DEFAULT_MISSING: Final = frozenset({"", "?", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "."})

#: Names shown when a column is not found: enough to see a typing error, few enough to read.
CLOSE_MATCHES: Final = 3
#: Column names listed in a message when none is close.
LISTED_NAMES: Final = 12

_INTEGRAL: Final = re.compile(r"[+-]?[0-9]+\.0+")
#: The same for pyarrow, with what stays in a group.
_WHOLE: Final = r"^([+-]?[0-9]+)\.0+$"

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def canonical(text: str) -> str:
    """One spelling per code: outer blanks removed, and ``1.0`` written ``1`` (one site's export writes both)."""
    text = text.strip()
    return text[: text.index(".")] if _INTEGRAL.fullmatch(text) else text


def parse_number(text: str, decimal: str = ".") -> float | None:
    """The finite or infinite number that a text spells, or None."""
    if decimal != ".":
        text = text.replace(decimal, ".")
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def close_matches(name: str, names: Collection[str], owner: str = "The table") -> str:
    """A sentence that names the likeliest columns meant by ``name``, or lists some that exist."""
    folded = {candidate.casefold(): candidate for candidate in names}
    close = [
        folded[match] for match in difflib.get_close_matches(name.casefold(), list(folded), n=CLOSE_MATCHES, cutoff=0.6)
    ]
    if close:
        return "Did you mean " + " or ".join(f"'{match}'" for match in close) + "?"
    listed = list(names)[:LISTED_NAMES]
    more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
    return f"{owner} has: " + ", ".join(f"'{item}'" for item in listed) + more + "."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numbers:
    """A column read as numbers.

    Attributes:
        values: float64[n], NaN where missing or bad.
        bad: bool[n], present but not a finite number.
    """

    values: Floats
    bad: Flags


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Categories:
    """A column read as codes.

    Attributes:
        codes: int64[n], index into ``labels``, -1 where missing.
        labels: the distinct values as canonical text, in order of first appearance.
    """

    codes: npt.NDArray[np.int64]
    labels: tuple[str, ...]

    def text(self) -> npt.NDArray[np.object_]:
        """object[n]: the label of each row, None where missing."""
        return _take_objects([*self.labels, None], self.codes)


def _take_objects(values: list[Any], index: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
    lookup = np.empty(len(values), dtype=object)
    lookup[:] = values
    return lookup[index]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A thin wrapper over a ``pyarrow.Table`` (or one batch of a longer one).

    Attributes:
        data: the pyarrow table.
        source: what to call it in messages (a file name, or "the data frame").
        first_row: number of its first row, counted from 1 without the header line.
    """

    data: Any
    source: str
    first_row: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(self.data.column_names)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.data.num_rows)

    def require(self, name: str, purpose: str = "") -> str:
        """Return ``name`` if the table has it.

        Raises:
            DataError: ``data.column``; the message names the closest columns.
        """
        if name not in self.data.column_names:
            wanted = f" (wanted as {purpose})" if purpose else ""
            raise DataError(
                f"{self.source} has no column '{name}'{wanted}. {close_matches(name, self.names)}",
                code="data.column",
            )
        return name

    def row_number(self, index: int) -> int:
        """The row's number in the whole source, from 1, header line not counted."""
        return self.first_row + int(index)

    def _column(self, name: str) -> Any:
        import pyarrow as pa

        column = self.data.column(self.require(name))
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
            raise DataError(
                f"{self.source}: column '{name}' holds {column.type} values; give one plain value per row",
                code="data.type",
            )
        return column

    def is_text(self, name: str) -> bool:
        """Whether the column is stored as text (every CSV column is)."""
        import pyarrow as pa

        kind = self._column(name).type
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))

    def is_temporal(self, name: str) -> bool:
        """Whether the column is stored as dates or times."""
        import pyarrow as pa

        return bool(pa.types.is_temporal(self._column(name).type))

    def numbers(self, name: str, *, missing: Iterable[str] = (), decimal: str = ".") -> Numbers:
        """The column as numbers.

        Args:
            name: the column.
            missing: further texts or numbers that mean missing ("999" also catches 999.0).
            decimal: the decimal sign of text columns, "." or ",".

        Raises:
            DataError: ``data.column`` if there is no such column, ``data.type`` if it holds dates or lists.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        tokens = DEFAULT_MISSING | {token.strip() for token in missing}
        column = self._column(name)
        kind = column.type
        bad = np.zeros(self.rows, dtype=np.bool_)
        if pa.types.is_null(kind):
            return Numbers(values=np.full(self.rows, np.nan), bad=bad)
        if pa.types.is_boolean(kind):
            column = column.cast(pa.int8())
        elif pa.types.is_temporal(kind):
            raise DataError(
                f"{self.source}: column '{name}' holds dates; use it as the time column, or leave it out",
                code="data.type",
            )
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            text = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
            text = pc.if_else(pc.is_in(text, pa.array(sorted(tokens), pa.large_string())), None, text)
            if decimal != ".":
                text = pc.replace_substring(text, decimal, ".")
            try:
                column = text.cast(pa.float64())
            except pa.ArrowInvalid:
                column, bad = self._slow_numbers(text)
        values = np.array(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
        infinite = np.isinf(values)
        if infinite.any():
            bad = bad | infinite
            values[infinite] = np.nan
        sentinels = [number for token in tokens if (number := parse_number(token)) is not None]
        finite = [number for number in sentinels if np.isfinite(number)]
        if finite:
            values[np.isin(values, finite)] = np.nan
        return Numbers(values=values, bad=bad)

    def _slow_numbers(self, text: Any) -> tuple[Any, Flags]:
        """Parse every distinct text by itself, for a column in which at least one is no number."""
        import pyarrow as pa

        encoded = text.dictionary_encode().unify_dictionaries()
        dictionary = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
        parsed = [parse_number(item) for item in dictionary]
        values = np.array([np.nan if item is None else item for item in parsed] + [np.nan], dtype=np.float64)
        wrong = np.array([item is None for item in parsed] + [False], dtype=np.bool_)
        codes = _codes(encoded)
        return pa.chunked_array([pa.array(values[codes], pa.float64())]), wrong[codes]

    def categories(self, name: str, *, missing: Iterable[str] = ()) -> Categories:
        """The column as codes over its distinct values, each as canonical text (see :func:`canonical`).

        Raises:
            DataError: ``data.column`` if there is no such column, ``data.type`` if it holds lists.
        """
        import pyarrow as pa

        tokens = DEFAULT_MISSING | {canonical(token) for token in missing}
        column = self._column(name)
        if pa.types.is_null(column.type):
            return Categories(codes=np.full(self.rows, -1, dtype=np.int64), labels=())
        encoded = column.dictionary_encode().unify_dictionaries()
        raw = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
        order: dict[str, int] = {}
        target: list[int] = []
        for item in raw:
            text = _as_text(item)
            if text in tokens:
                target.append(-1)
            else:
                target.append(order.setdefault(text, len(order)))
        codes = np.array([*target, -1], dtype=np.int64)[_codes(encoded)]
        return Categories(codes=codes, labels=tuple(order))

    def text(self, name: str, *, missing: Iterable[str] = ()) -> npt.NDArray[np.object_]:
        """object[n]: the column as canonical text, None where missing."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self._column(name)
        if not (self.is_text(name) or pa.types.is_integer(column.type)):
            return self.categories(name, missing=missing).text()
        # Ids are nearly all different, so every value is written by pyarrow and not one by one.
        tokens = DEFAULT_MISSING | {canonical(token) for token in missing}
        text = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
        text = pc.replace_substring_regex(text, pattern=_WHOLE, replacement=r"\1")
        text = pc.if_else(pc.is_in(text, pa.array(sorted(tokens), pa.large_string())), None, text)
        return np.asarray(text.to_numpy(), dtype=np.object_)

    def with_column(self, name: str, values: Any) -> Table:
        """The table with one more column (or that column replaced)."""
        import pyarrow as pa

        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
        if name in self.data.column_names:
            data = self.data.set_column(self.data.column_names.index(name), name, array)
        else:
            data = self.data.append_column(name, array)
        return Table(data=data, source=self.source, first_row=self.first_row)

    def take(self, index: npt.NDArray[Any]) -> Table:
        """The rows where ``index`` (bool[n]) is true, or the rows numbered by ``index`` (int[m])."""
        import pyarrow as pa

        array = pa.array(index)
        data = self.data.filter(array) if index.dtype == np.bool_ else self.data.take(array)
        return Table(data=data, source=self.source, first_row=self.first_row)


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return canonical(str(value))


def _codes(encoded: Any) -> npt.NDArray[np.int64]:
    """The indices of a dictionary-encoded chunked array, -1 where null."""
    import pyarrow.compute as pc

    parts = [np.asarray(pc.fill_null(chunk.indices, -1), dtype=np.int64) for chunk in encoded.chunks]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
