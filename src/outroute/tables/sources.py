"""Opening what a user points at: a path, ``-`` for standard input, or a binary stream; what is it really?

The content decides, not the file's name: exports are misnamed often enough.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from outroute.errors import DataError

__all__ = ["HEAD_BYTES", "Opened", "is_object", "open_source", "source_name"]

#: Read ahead to recognise the format and to find the header line (bytes). A header of 10,000 columns fits.
HEAD_BYTES: Final = 1 << 20

_GZIP: Final = b"\x1f\x8b"
_PARQUET: Final = b"PAR1"
_FOREIGN: Final = {
    b"PK\x03\x04": "an Excel workbook or a zip archive: export the sheet as CSV, or unpack it first",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: export the sheet as CSV",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8 (iconv -f UTF-16 -t UTF-8 FILE)",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8 (iconv -f UTF-16 -t UTF-8 FILE)",
    b"ARROW1": "an Arrow IPC file: write it as Parquet instead, or pass the table in Python",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it first",
    b"BZh": "bzip2 data: unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "zstd data: unpack it, or compress it with gzip",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """A source whose first bytes are known.

    Attributes:
        name: what to call it in messages.
        kind: ``"csv"``, ``"ndjson"`` or ``"parquet"``.
        head: the first bytes, unpacked, at most ``HEAD_BYTES``.
        rest: everything after ``head``, unpacked.
        path: where to read it a second time (to find the line of a mistake), None for a stream.
    """

    name: str
    kind: str
    head: bytes
    rest: IO[bytes]
    path: Path | None


def is_object(source: object) -> bool:
    """Whether the source is a table in memory rather than a path or a stream."""
    return not isinstance(source, (str, os.PathLike)) and not hasattr(source, "read")


def source_name(source: Any) -> str:
    """What to call the source in messages."""
    if isinstance(source, (str, os.PathLike)):
        return "standard input" if os.fspath(source) == "-" else Path(source).name
    if hasattr(source, "read"):
        return str(getattr(source, "name", "the stream"))
    return {"DataFrame": "the data frame", "dict": "the columns given"}.get(type(source).__name__, "the table")


def _missing_file(path: Path) -> DataError:
    import difflib

    message = f"There is no file '{path}'."
    folder = path.parent
    if not folder.is_dir():
        message += f" The folder '{folder}' does not exist either."
    else:
        close = difflib.get_close_matches(path.name, [item.name for item in folder.iterdir()], n=3)
        if close:
            message += " Did you mean " + " or ".join(f"'{folder / name}'" for name in close) + "?"
    return DataError(message, code="data.file")


def _open_path(path: Path) -> IO[bytes]:
    if path.is_dir():
        raise DataError(f"'{path}' is a folder; name the files in it", code="data.file")
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise _missing_file(path) from None
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}", code="data.file") from error


def _read_head(stream: IO[bytes], name: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size < HEAD_BYTES:
        part = _guarded_read(stream, HEAD_BYTES - size, name)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _guarded_read(stream: IO[bytes], size: int, name: str) -> bytes:
    try:
        part: Any = stream.read(size)
    except (OSError, EOFError) as error:
        raise DataError(
            f"{name}: reading stopped ({error}). If it is a .gz file it is damaged or not complete: fetch it again",
            code="data.file",
        ) from error
    if isinstance(part, str):
        raise DataError(f"{name} is a text stream; open it in binary mode", code="data.format")
    return bytes(part)


class _Replay(io.RawIOBase):
    """A stream that first repeats bytes already taken from another one."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        super().__init__()
        self._head = io.BytesIO(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        part = self._head.read(len(view)) or self._rest.read(len(view))
        view[: len(part)] = part
        return len(part)


@contextmanager
def open_source(source: str | os.PathLike[str] | IO[bytes]) -> Iterator[Opened]:
    """Open a path, ``-`` or a binary stream, unpack gzip, and look at the first bytes.

    Raises:
        DataError: ``data.file`` if it cannot be read, ``data.empty`` if it holds nothing, ``data.format`` if it is
            something that this package does not read.
    """
    name = source_name(source)
    path: Path | None = None
    owned: IO[bytes] | None = None
    if isinstance(source, (str, os.PathLike)):
        if os.fspath(source) == "-":
            stream: IO[bytes] = sys.stdin.buffer
        else:
            path = Path(source)
            stream = owned = _open_path(path)
    else:
        stream = source
    try:
        head = _read_head(stream, name)
        rest: Any = stream
        if head.startswith(_GZIP):
            rest = gzip.GzipFile(fileobj=io.BufferedReader(_Replay(head, stream)))
            head = _read_head(rest, name)
        if not head.strip(b"\xef\xbb\xbf \t\r\n\x00"):
            raise DataError(f"{name} is empty: there is not even a header line", code="data.empty")
        for magic, advice in _FOREIGN.items():
            if head.startswith(magic):
                raise DataError(f"{name} is {advice}", code="data.format")
        yield Opened(name=name, kind=_kind(head), head=head, rest=rest, path=path)
    finally:
        if owned is not None:
            owned.close()


def _kind(head: bytes) -> str:
    if head.startswith(_PARQUET):
        return "parquet"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "ndjson" if text.startswith((b"{", b"[")) else "csv"
