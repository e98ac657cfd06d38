"""Reading a schema, its landmarks and its signatures from files: the one place of the schema that touches a disk."""

from __future__ import annotations

import os
from pathlib import Path

from outroute.errors import SchemaError
from outroute.schema.model import Schema
from outroute.schema.signing import SchemaSignature, read_signatures
from outroute.schema.toml import MAX_SCHEMA_BYTES, loads, parse

__all__ = ["MAX_SIGNATURE_BYTES", "load", "load_signatures", "signatures_file", "unreviewed"]

MAX_SIGNATURE_BYTES = 4_000_000
"""A file of signatures: ten thousand lines of 340 bytes."""


def _read(path: Path, most: int) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise SchemaError(f"cannot read {path}: {error.strerror}", code="schema.file") from None
    except ValueError:  # a zero byte in the name
        raise SchemaError(f"cannot read {str(path)!r}: that is no file name", code="schema.file") from None
    if len(data) > most:
        raise SchemaError(f"{path} is larger than {most} bytes: not a schema", code="schema.file")
    return data


def _text(path: Path) -> str:
    try:
        return _read(path, MAX_SCHEMA_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise SchemaError(f"{path} is not UTF-8 text", code="schema.file") from None


def load(path: str | os.PathLike[str]) -> Schema:
    """Load a schema from a TOML file; its landmark file, if it names one, lies beside it.

    Raises:
        SchemaError: when a file cannot be read or is wrong, with what to do.
    """
    path = Path(path)

    def beside(name: str) -> bytes:
        if Path(name).name != name:
            raise SchemaError("the landmark file must lie beside the schema: no folders", code="schema.landmarks")
        return _read(path.parent / name, 8_000_000)

    text = _text(path)
    try:
        return loads(text, beside)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}", code=error.code) from None


def signatures_file(path: str | os.PathLike[str]) -> Path:
    """Where the signatures of the schema in ``path`` lie: beside it, ``heart.signatures`` for ``heart.toml``."""
    return Path(path).with_suffix(".signatures")


def load_signatures(path: str | os.PathLike[str]) -> tuple[SchemaSignature, ...]:
    """The signatures that lie beside the schema in ``path``; none where there is no such file.

    Raises:
        SchemaError: when the file cannot be read or is wrong, with what to do.
    """
    beside = signatures_file(path)
    if not beside.exists():
        return ()
    data = _read(beside, MAX_SIGNATURE_BYTES)
    try:
        return read_signatures(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise SchemaError(f"{beside} is not UTF-8 text", code="schema.signatures") from None
    except SchemaError as error:
        raise SchemaError(f"{beside}: {error}", code=error.code) from None


def unreviewed(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Fields (and the outcome) that still carry ``reviewed = false``.

    Raises:
        SchemaError: when the file cannot be read or is not TOML.
    """
    data = parse(_text(Path(path)))

    fields, outcome = data.get("fields"), data.get("outcome")
    tables = list(fields.items()) if isinstance(fields, dict) else []
    if isinstance(outcome, dict):
        tables.append((str(outcome.get("name")), outcome))
    return tuple(name for name, table in tables if isinstance(table, dict) and table.get("reviewed") is False)
