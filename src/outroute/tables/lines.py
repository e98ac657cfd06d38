"""NDJSON: one JSON object per line, from a file or a pipe."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, Final

from outroute.errors import DataError
from outroute.tables.sources import Opened

__all__ = ["ndjson_batches"]

#: Bytes of whole lines parsed at a time; also the longest line that is read.
CHUNK_BYTES: Final = 8 << 20


def ndjson_batches(opened: Opened) -> Iterator[Any]:
    """Yield one pyarrow table per chunk of lines.

    A key that a line does not have is missing in its row. Columns are those of the first chunk and of the later
    ones together: a chunk that lacks a column known by then gets it, all missing.

    Raises:
        DataError: ``data.ndjson`` with the line number.
    """
    import pyarrow as pa

    known: dict[str, Any] = {}
    line = 1
    for chunk in _chunks(opened):
        data = _parse(chunk, opened.name, line)
        line += chunk.count(b"\n")
        if data is None:
            continue
        for name, kind in known.items():
            if name not in data.column_names:
                data = data.append_column(name, pa.nulls(data.num_rows, kind))
        known |= {field.name: field.type for field in data.schema}
        yield data.select(list(known))


def _chunks(opened: Opened) -> Iterator[bytes]:
    pending = opened.head.removeprefix(b"\xef\xbb\xbf")
    if pending.lstrip().startswith(b"["):
        raise DataError(
            f"{opened.name} is one JSON list; write one object per line instead (jq -c '.[]' FILE)",
            code="data.ndjson",
        )
    ended = False
    while not ended:
        try:
            part = opened.rest.read(CHUNK_BYTES)
        except (OSError, EOFError) as error:
            raise DataError(f"{opened.name}: reading stopped ({error})", code="data.file") from error
        ended = not part
        pending += part
        cut = len(pending) if ended else pending.rfind(b"\n") + 1
        if cut:
            yield pending[:cut]
            pending = pending[cut:]
        elif len(pending) > 2 * CHUNK_BYTES:
            raise DataError(
                f"{opened.name}: a line is longer than {CHUNK_BYTES >> 20} MB; write one object per line",
                code="data.ndjson",
            )


def _parse(chunk: bytes, name: str, first_line: int) -> Any:
    import pyarrow as pa
    import pyarrow.json as pa_json

    if not chunk.strip():
        return None
    try:
        data = pa_json.read_json(
            io.BytesIO(chunk),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=max(len(chunk), 1)),
            parse_options=pa_json.ParseOptions(newlines_in_values=False),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        data = None
    # pyarrow turns texts that look like dates into dates and nests objects; such chunks are read line by line.
    plain = data is not None and not any(
        pa.types.is_nested(field.type) or pa.types.is_temporal(field.type) for field in data.schema
    )
    return data if plain and data.column_names else _parse_slowly(chunk, name, first_line)


def _parse_slowly(chunk: bytes, name: str, first_line: int) -> Any:
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for number, line in enumerate(chunk.split(b"\n"), first_line):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(
                f"{name}, line {number} is not JSON ({error}). Write one object per line", code="data.ndjson"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{name}, line {number} holds a JSON {type(row).__name__}; each line must be an object such as "
                '{"age": 63, "outcome": "yes"}',
                code="data.ndjson",
            )
        for key, value in row.items():
            if isinstance(value, (dict, list)):
                raise DataError(
                    f"{name}, line {number}: '{key}' holds a list or an object; give one plain value per key",
                    code="data.ndjson",
                )
        rows.append(row)
    if not rows:
        return None
    arrays = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        try:
            arrays[key] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            arrays[key] = pa.array([None if value is None else str(value) for value in values], pa.string())
    return pa.table(arrays)
