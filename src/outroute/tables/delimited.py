"""Delimited text (CSV and its cousins), read in blocks by pyarrow; mistakes are found again line by line."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from outroute.errors import DataError
from outroute.tables.sources import HEAD_BYTES, Opened
from outroute.tables.table import close_matches, parse_number

__all__ = ["DELIMITERS", "csv_batches"]

#: What may stand between fields when nobody says which; the header line decides.
DELIMITERS: Final = (",", ";", "\t", "|")
#: Bytes read and parsed at a time.
BLOCK_BYTES: Final = 8 << 20
#: Bytes without the end of a record after which a quote must be missing: the last line break is taken for one.
MOST_BYTES: Final = 4 * BLOCK_BYTES
#: Lines searched for a mistake that pyarrow reported, so that a message never takes minutes.
SEARCHED_LINES: Final = 20_000_000

_BOM: Final = b"\xef\xbb\xbf"
_BLANK_NUMBERS: Final = {"", "?", "NA", "nan", "NaN"}


def _blocks(head: bytes, rest: IO[bytes], name: str) -> Iterator[bytes]:
    """The data in blocks of whole records.

    Read here and not by pyarrow's own threads, so that Ctrl-C works while a pipe is silent.
    """
    pending, ended = head, False
    while not ended:
        try:
            part = rest.read(BLOCK_BYTES)
        except (OSError, EOFError) as error:
            raise DataError(
                f"{name}: reading stopped ({error}). If it is a .gz file it is damaged or not complete: fetch it again",
                code="data.file",
            ) from error
        ended = not part
        pending += part
        cut = len(pending) if ended else _record_end(pending)
        if not cut and len(pending) > MOST_BYTES:
            cut = pending.rfind(b"\n") + 1 or len(pending)
        if cut:
            yield pending[:cut]
            pending = pending[cut:]


def _record_end(block: bytes) -> int:
    """Where the last whole record ends: after a line break with an even number of quotes before it. 0 if nowhere."""
    quotes = block.count(b'"')
    end = len(block)
    while True:
        line = block.rfind(b"\n", 0, end)
        if line < 0:
            return 0
        quotes -= block.count(b'"', line, end)
        if quotes % 2 == 0:
            return line + 1
        end = line


def csv_batches(
    opened: Opened, columns: Sequence[str] | None, delimiter: str | None, only: Collection[str] | None
) -> Iterator[Any]:
    """Yield pyarrow tables whose columns are all text.

    Raises:
        DataError: ``data.header``, ``data.duplicate``, ``data.column``, ``data.ragged``, ``data.encoding``,
            ``data.file``; with the line number where there is one.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    if delimiter is not None and len(delimiter) != 1:
        raise DataError(f"The delimiter must be one character, not {delimiter!r}", code="data.format")
    head = opened.head.removeprefix(_BOM)
    if b"\x00" in head:
        raise DataError(f"{opened.name} holds binary data, not text: is it the right file?", code="data.format")
    text = _decode_head(head, opened.name)
    names, used, delimiter = _header(text, columns, delimiter, opened.name)
    body = head[len(text[:used].encode()) :]
    for column in only or ():
        if column not in names:
            raise DataError(
                f"{opened.name} has no column '{column}'. {close_matches(column, names)}", code="data.column"
            )
    wanted = None if only is None else [name for name in names if name in set(only)]
    read = pa_csv.ReadOptions(column_names=names, block_size=2 * MOST_BYTES, use_threads=False)
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    convert = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=wanted
    )
    for block in _blocks(body, opened.rest, opened.name):
        if block.strip(b"\r\n"):
            try:
                yield pa_csv.read_csv(
                    pa.BufferReader(block), read_options=read, parse_options=parse, convert_options=convert
                )
            except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
                raise _explain(opened, error, len(names), delimiter) from error


def _decode_head(head: bytes, name: str) -> str:
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        if len(head) - error.start < 4 and len(head) >= HEAD_BYTES:
            return head[: error.start].decode()  # a character cut in two by the end of the head
        line = head.count(b"\n", 0, error.start) + 1
        raise _encoding_error(name, line, head[error.start]) from error


def _encoding_error(name: str, line: int, byte: int) -> DataError:
    return DataError(
        f"{name}, line {line}: byte 0x{byte:02x} is not UTF-8. Save the file as UTF-8; for a file from an older "
        "Windows or Excel: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW",
        code="data.encoding",
    )


def _header(text: str, columns: Sequence[str] | None, delimiter: str | None, source: str) -> tuple[list[str], int, str]:
    """Column names, how many characters of ``text`` are not data, and the delimiter."""
    used = 0
    first_line = text[: (text.find("\n") + 1) or len(text)]
    if first_line.strip().lower().startswith("sep=") and len(first_line.strip()) == 5:
        delimiter = delimiter or first_line.strip()[4]
        used = len(first_line)
    while text[used : used + 1] in ("\n", "\r"):
        used += 1
    stream = io.StringIO(text[used:], newline="")
    lines: list[str] = []

    def taken() -> Iterator[str]:
        for line in stream:
            lines.append(line)
            yield line

    if delimiter is None:
        delimiter = _sniff(text[used : (text.find("\n", used) + 1) or len(text)])
    try:
        names = [name.strip() for name in next(csv.reader(taken(), delimiter=delimiter))]
    except (csv.Error, StopIteration) as error:
        raise DataError(
            f"{source}: the header line cannot be read ({error}). Is it a table of text?", code="data.header"
        ) from error
    if columns is not None:
        if len(columns) != len(names):
            raise DataError(
                f"{source} has {len(names)} columns, but {len(columns)} names were given for them",
                code="data.header",
            )
        return list(columns), used, delimiter
    if all(name in _BLANK_NUMBERS or parse_number(name) is not None for name in names):
        raise DataError(
            f"{source}: the first line holds values ({', '.join(names[:4])}, ...), not column names. Add a header "
            "line, or give the names (--columns a,b,c)",
            code="data.header",
        )
    names = [name or f"unnamed_{index}" for index, name in enumerate(names, 1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        listed = ", ".join(f"'{name}'" for name in twice[:5])
        raise DataError(f"{source} has two columns named {listed}: rename or drop one", code="data.duplicate")
    return names, used + sum(map(len, lines)), delimiter


def _sniff(line: str) -> str:
    outside = "".join(line.split('"')[::2])
    counts = {sign: outside.count(sign) for sign in DELIMITERS}
    return max(DELIMITERS, key=lambda sign: counts[sign])


def _explain(opened: Opened, error: Exception, width: int, delimiter: str) -> DataError:
    """Find the line of a mistake that pyarrow reported; a stream can be read only once, so it keeps pyarrow's words."""
    if opened.path is not None:
        found = _search(opened.path, opened.name, width, delimiter)
        if found is not None:
            return found
    message = str(error).strip().splitlines()[0][:200]
    if "UTF8" in message or "UTF-8" in message:
        return DataError(f"{opened.name} is not UTF-8 text: save it as UTF-8", code="data.encoding")
    return DataError(
        f"{opened.name} cannot be read as CSV with {width} columns: {message}. Put quotes around values that hold the "
        "delimiter, and end every record with a line break",
        code="data.ragged",
    )


def _search(path: Path, name: str, width: int, delimiter: str) -> DataError | None:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        number = 0

        def lines() -> Iterator[str]:
            nonlocal number
            for line in stream:
                number += 1
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise _encoding_error(name, number, line[error.start]) from error
                yield text

        reader = csv.reader(lines(), delimiter=delimiter)
        try:
            for record in reader:
                if number > SEARCHED_LINES:
                    return None
                if record and len(record) != width and not (number == 1 and record[0].lower().startswith("sep=")):
                    return DataError(
                        f"{name}, line {number}: {len(record)} values where the header has {width}. Put quotes around "
                        "values that hold the delimiter, or repair the line",
                        code="data.ragged",
                    )
        except DataError as found:
            return found
        except csv.Error as error:
            return DataError(f"{name}, line {number}: {error}", code="data.ragged")
    return None
