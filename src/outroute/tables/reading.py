"""Reading a user's table: CSV, Parquet, NDJSON, data frames, Arrow tables, dicts of columns.

``read_table`` gives the whole table, ``iter_batches`` one part after the other in bounded memory. Both say what
is wrong with a file by line, and what to do about it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from outroute.errors import DataError
from outroute.tables.delimited import csv_batches
from outroute.tables.lines import ndjson_batches
from outroute.tables.sources import Opened, is_object, open_source, source_name
from outroute.tables.table import Table, close_matches

__all__ = ["BATCH_ROWS", "SITE_COLUMN", "iter_batches", "read_sites", "read_table", "site_name"]

#: Rows per batch: a batch of 100 text columns stays near 100 MB.
BATCH_ROWS: Final = 131_072
#: The column that tells sites apart when each site has a file of its own.
SITE_COLUMN: Final = "site"

_SUFFIXES: Final = (".gz", ".csv", ".tsv", ".txt", ".data", ".parquet", ".pq", ".ndjson", ".jsonl", ".json")


def iter_batches(
    source: str | os.PathLike[str] | IO[bytes] | Any,
    *,
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    only: Collection[str] | None = None,
    rows: int = BATCH_ROWS,
) -> Iterator[Table]:
    """Read a source in batches of at most ``rows`` rows.

    Args:
        source: a path, ``"-"`` for standard input, a binary stream, a pandas (or other Arrow-capable) data frame, a
            ``pyarrow.Table`` or a mapping of column names to values.
        columns: column names of a CSV file that has no header line.
        delimiter: the sign between CSV fields; without it the header line decides.
        only: read these columns alone (each must exist).
        rows: the largest batch, in rows.

    Raises:
        DataError: what is wrong with the source, where, and what to do.
    """
    name = source_name(source)
    total = 0
    for data in _raw_batches(source, columns, delimiter, only):
        _check_names(data.column_names, name)
        for start in range(0, data.num_rows, rows):
            part = data.slice(start, rows)
            yield Table(data=part, source=name, first_row=1 + total)
            total += part.num_rows
    if not total:
        raise DataError(f"{name} has a header but no rows", code="data.rows")


def read_table(
    source: str | os.PathLike[str] | IO[bytes] | Any,
    *,
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    only: Collection[str] | None = None,
) -> Table:
    """Read a whole source into memory; arguments and errors as :func:`iter_batches`."""
    parts = [part.data for part in iter_batches(source, columns=columns, delimiter=delimiter, only=only)]
    return Table(data=_concatenate(parts), source=source_name(source))


def site_name(path: str | os.PathLike[str]) -> str:
    """A site's name after its file: ``data/basel.csv.gz`` is ``basel``."""
    name = Path(path).name
    stripped = True
    while stripped:
        stripped = False
        for suffix in _SUFFIXES:
            if name.lower().endswith(suffix) and len(name) > len(suffix):
                name, stripped = name[: -len(suffix)], True
    return name


def read_sites(
    sources: Iterable[str | os.PathLike[str]] | Mapping[str, Any],
    *,
    site_column: str = SITE_COLUMN,
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    only: Collection[str] | None = None,
) -> Table:
    """Read one source per site into one table with a column that names the site.

    Args:
        sources: paths (the file's name becomes the site's), or a mapping from site to source.
        site_column: name of the column to add; must not exist in the files.
        columns, delimiter, only: as in :func:`iter_batches`.

    Raises:
        DataError: as :func:`iter_batches`; ``data.sites`` if two files share a name or the columns differ.
    """
    named = list(sources.items()) if isinstance(sources, Mapping) else [(site_name(path), path) for path in sources]
    twice = [site for site, count in Counter(site for site, _ in named).items() if count > 1]
    if twice:
        raise DataError(
            f"Two files would be the site '{twice[0]}': the file's name is the site's name, so rename one",
            code="data.sites",
        )
    if not named:
        raise DataError("No file given: name one file per site", code="data.sites")
    import pyarrow as pa

    parts: list[Any] = []
    first: tuple[str, ...] = ()
    for site, source in named:
        table = read_table(source, columns=columns, delimiter=delimiter, only=only)
        if site_column in table.names:
            raise DataError(
                f"{table.source} has a column '{site_column}' already: pass the files as one table with that column, "
                "or choose another name for the added one",
                code="data.sites",
            )
        if not parts:
            first = table.names
        elif set(table.names) != set(first):
            lacking = sorted(set(first) - set(table.names))
            extra = sorted(set(table.names) - set(first))
            detail = "; ".join(
                text
                for text, names in ((f"lacks {lacking[:5]}", lacking), (f"has besides {extra[:5]}", extra))
                if names
            )
            raise DataError(
                f"{table.source} has other columns than {named[0][0]}: it {detail}. Give every site's file the same "
                "columns, or give the shared ones only",
                code="data.sites",
            )
        data = table.data.select(list(first))
        parts.append(data.append_column(site_column, pa.array([site] * data.num_rows, pa.string())))
    return Table(data=_concatenate(parts), source=f"{len(named)} files" if len(named) > 1 else named[0][0])


def _raw_batches(
    source: Any, columns: Sequence[str] | None, delimiter: str | None, only: Collection[str] | None
) -> Iterator[Any]:
    if is_object(source):
        yield _project(_from_object(source), only, source_name(source))
        return
    with open_source(source) as opened:
        if opened.kind == "parquet":
            yield from _parquet_batches(opened, only)
        elif opened.kind == "ndjson":
            for data in ndjson_batches(opened):
                yield _project(data, only, opened.name)
        else:
            yield from csv_batches(opened, columns, delimiter, only)


def _check_names(names: Sequence[str], source: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        listed = ", ".join(f"'{name}'" for name in twice[:5])
        raise DataError(f"{source} has two columns named {listed}: rename or drop one", code="data.duplicate")


def _project(data: Any, only: Collection[str] | None, name: str) -> Any:
    if only is None:
        return data
    for column in only:
        Table(data=data, source=name).require(column)
    return data.select([column for column in data.column_names if column in set(only)])


def _parquet_batches(opened: Opened, only: Collection[str] | None) -> Iterator[Any]:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    target: Any = opened.path if opened.path is not None else io.BytesIO(opened.head + opened.rest.read())
    if opened.path is not None and not opened.head.startswith(b"PAR1"):
        target = io.BytesIO(opened.head + opened.rest.read())
    try:
        file = pq.ParquetFile(target)
        for column in only or ():
            if column not in file.schema_arrow.names:
                raise DataError(
                    f"{opened.name} has no column '{column}'. {close_matches(column, file.schema_arrow.names)}",
                    code="data.column",
                )
        _check_names(file.schema_arrow.names, opened.name)
        wanted = None if only is None else [name for name in file.schema_arrow.names if name in set(only)]
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{opened.name} is a damaged or incomplete Parquet file ({_short(error)}): write it again",
            code="data.format",
        ) from error


def _from_object(source: Any) -> Any:
    import pyarrow as pa

    if isinstance(source, Table):
        return source.data
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    if isinstance(source, Mapping):
        return _from_columns(source)
    if type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        _check_names([str(name) for name in source.columns], "the data frame")
        return _from_columns({str(name): source[name] for name in source.columns})
    if hasattr(source, "__arrow_c_stream__"):
        return pa.table(source)
    raise DataError(
        f"Cannot read a table from {type(source).__name__}: give a path, a data frame, an Arrow table or a dict of "
        "columns",
        code="data.format",
    )


def _from_columns(columns: Mapping[Any, Any]) -> Any:
    import pyarrow as pa

    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        try:
            arrays[str(name)] = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            # Mixed types in one column: keep each value's text.
            arrays[str(name)] = pa.array([None if _is_missing(value) else str(value) for value in values], pa.string())
        except TypeError as error:
            raise DataError(
                f"Column '{name}' holds one {type(values).__name__}, not a sequence of values", code="data.type"
            ) from error
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise DataError(
            f"Column '{shortest}' has {lengths[shortest]} values and '{longest}' has {lengths[longest]}: all columns "
            "need the same length",
            code="data.ragged",
        )
    if not arrays:
        raise DataError("The table has no columns", code="data.empty")
    return pa.table(arrays)


def _is_missing(value: Any) -> bool:
    return value is None or bool(value != value)


def _concatenate(parts: list[Any]) -> Any:
    """One table of all parts; a column whose type changes between parts becomes text."""
    import pyarrow as pa

    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        names = list(dict.fromkeys(name for part in parts for name in part.column_names))
        kinds = {name: {part.schema.field(name).type for part in parts if name in part.column_names} for name in names}
        mixed = {name for name, kind in kinds.items() if len(kind) > 1}
        texts = []
        for part in parts:
            table = Table(data=part, source="")
            for name in mixed.intersection(part.column_names):
                table = table.with_column(name, pa.array(table.text(name), pa.string()))
            texts.append(table.data)
        return pa.concat_tables(texts, promote_options="permissive")


def _short(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
