"""What every command shares: errors in one sentence, JSON, progress, and files written whole or not at all."""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from outroute.errors import DataError, OutrouteError

__all__ = [
    "EXIT_BROKEN_PIPE",
    "EXIT_INTERRUPTED",
    "EXIT_MISUSE",
    "EXIT_OK",
    "EXIT_PROBLEMS",
    "emit_json",
    "err",
    "handled",
    "out",
    "print_table",
    "say",
    "split_names",
    "warn",
    "working",
    "write_files",
]

#: All is well.
EXIT_OK: Final = 0
#: The command ran and found problems.
EXIT_PROBLEMS: Final = 1
#: The command could not run: wrong options, unreadable or unusable input.
EXIT_MISUSE: Final = 2
#: 128 + SIGINT, as shells count.
EXIT_INTERRUPTED: Final = 130
#: 128 + SIGPIPE: whoever read our output has gone.
EXIT_BROKEN_PIPE: Final = 141

#: Columns of a table that goes to a file or a pipe.
PIPE_WIDTH: Final = 160


class _Terminal(Console):
    """A console that leaves a closed pipe to :func:`handled`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


#: Results, for people and for pipes.
out: Final = _Terminal(soft_wrap=True)
#: Everything else: progress, notes, errors.
err: Final = _Terminal(stderr=True, soft_wrap=True)

P = ParamSpec("P")
R = TypeVar("R")


def say(text: str, style: str = "") -> None:
    """A line for people, on standard error, without markup (it may hold a user's own words)."""
    err.print(text, style=style or None, markup=False, highlight=False)


def warn(text: str) -> None:
    """A warning, on standard error."""
    say(f"warning: {text}", "yellow")


def print_table(table: Table) -> None:
    """A rich table on standard output, wide enough where it is not a terminal."""
    _Terminal(width=None if out.is_terminal else PIPE_WIDTH).print(table)


def emit_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def split_names(values: list[str] | None) -> tuple[str, ...]:
    """Column names of an option that may be repeated or hold several, separated by commas."""
    return tuple(name.strip() for value in values or () for name in value.split(",") if name.strip())


def handled(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: misuse ends with one sentence on standard error and a code, never with a traceback.

    A command that was asked for ``--json`` (a parameter ``as_json``) prints ``{"error": {...}}`` besides.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = command(*args, **kwargs)
            sys.stdout.flush()
        except OutrouteError as error:
            raise _failed(str(error), error.code, kwargs) from error
        except KeyboardInterrupt:
            say("Stopped. No file was left half-written.")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            _close_stdout()
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        except MemoryError as error:
            text = "There is not enough memory for this; give a smaller table, or fewer columns"
            raise _failed(text, "system.memory", kwargs) from error
        except OSError as error:
            raise _failed(_system_text(error), "system.io", kwargs) from error
        return result

    return run


def _failed(message: str, code: str, options: Mapping[str, Any]) -> typer.Exit:
    say(f"error: {message}", "red")
    if options.get("as_json"):
        emit_json({"error": {"code": code, "message": message}})
    return typer.Exit(EXIT_MISUSE)


def _system_text(error: OSError) -> str:
    place = f" '{error.filename}'" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"The disk is full{place}. Nothing was changed: make room and run the command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"No permission{place}: {error.strerror}"
    return f"{error.strerror or error}{place}"


def _close_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that work goes on; call the value to change the text. Silent in pipes.

    Use it around everything that may take more than two seconds.
    """
    if not err.is_terminal:
        yield lambda _: None
        return
    with err.status(text) as status:
        yield lambda changed: status.update(changed)


def write_files(files: Mapping[Path, str | bytes], *, force: bool, private: bool = False) -> None:
    """Write files so that each is complete or not there, and none is touched if one cannot be written.

    Args:
        files: contents by path, in the order in which they become visible (name what others refer to first).
        force: whether files that exist may be replaced.
        private: readable by the owner alone.

    Raises:
        DataError: ``file.exists``, ``file.folder``.
        OSError: what the system says (disk full, no permission); nothing was changed then.
    """
    for path in files:
        if path.exists() and not force:
            raise DataError(f"'{path}' exists already; --force replaces it", code="file.exists")
        if path.is_dir():
            raise DataError(f"'{path}' is a folder; give a file name", code="file.exists")
        if not path.absolute().parent.is_dir():
            raise DataError(f"There is no folder '{path.absolute().parent}'; make it first", code="file.folder")
    mode = 0o600 if private else 0o666 & ~_umask()
    ready: list[tuple[Path, Path]] = []
    try:
        for path, content in files.items():
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.absolute().parent)
            ready.append((Path(name), path))
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)
        for part, path in ready:
            part.replace(path)
    finally:
        for part, _ in ready:
            part.unlink(missing_ok=True)


def _umask() -> int:
    """The process's file mode mask; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
