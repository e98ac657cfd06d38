"""``outroute log``: what left, when, to whom, and who approved it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outroute.cli._common import EXIT_PROBLEMS, emit_json, handled, out, say, warn, working, write_files
from outroute.cli._node_dir import reach_node, several
from outroute.cli._options import DEFAULT_DIR, Force, Json, NodeDir
from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.store import Entry

__all__ = ["log_app"]

PAGE = 20
"""Entries shown when nobody says how many."""
MOST_SHOWN = 10_000
"""Entries of one page; --after goes on from there."""
DIGITS = 16
"""Hexadecimal digits of a hash in a line."""

log_app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A record that cannot be rewritten unnoticed: packets, withdrawals, questions, recipients and approvers.",
)

Head = Annotated[
    str | None,
    typer.Option("--head", help="A head noted down earlier: must still be part of the log.", show_default=False),
]


@log_app.command()
@handled
def show(
    node: NodeDir = DEFAULT_DIR,
    first: Annotated[int, typer.Option(min=1, max=MOST_SHOWN, help="How many entries to show.")] = PAGE,
    after: Annotated[
        int | None,
        typer.Option(min=0, help="Go on after this entry; without it, the newest are shown.", show_default=False),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Only entries of this kind, as approved.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show entries, oldest first. No conditions, outcomes, cases or subjects stand in them.

    Examples:

    outroute log show --node north

    outroute log show --kind approved --after 0 --node north
    """
    from outroute.store import Event

    kinds = {event.value for event in Event}
    if kind is not None and kind not in kinds:
        raise DataError(f"There is no kind '{kind}': one of {', '.join(sorted(kinds))}", code="log.kind")
    with reach_node(node) as opened:
        count, head = opened.log.head()
        begin = after if after is not None else 0 if kind is not None else max(0, count - first)
        entries, more = _read(opened.log, begin, first, kind, newest=after is None)
    if as_json:
        emit_json({"entries": [_plain(entry) for entry in entries], "count": count, "head": head})
        return
    for entry in entries:
        out.print(f"{entry.number:>6}  {_moment(entry.at)}  {_text(entry)}", markup=False, highlight=False)
    if more:
        say(f"More: --after {entries[-1].number}")
    say(f"{count:,} entries, head {head}")


def _read(log: Any, after: int, first: int, kind: str | None, *, newest: bool) -> tuple[list[Entry], bool]:
    """Entries of one page, and whether others follow it."""
    found: list[Entry] = []
    while part := log.entries(after=after, limit=MOST_SHOWN):
        found += [entry for entry in part if kind is None or entry.kind == kind]
        after = part[-1].number
        if newest:
            found = found[-first:]
        elif len(found) > first:
            return found[:first], True
    return found, False


@log_app.command()
@handled
def verify(
    file: Annotated[
        Path | None, typer.Argument(help="An exported log; without it, the node's own.", show_default=False)
    ] = None,
    node: NodeDir = DEFAULT_DIR,
    head: Head = None,
    as_json: Json = False,
) -> None:
    """Find entries that were changed, removed, reordered or cut off.

    Whoever could write the whole file could also write another log from the
    start. So note the head down elsewhere from time to time, and give it with
    --head: it shows that nothing before it was touched.

    Exit code 0: the log is whole. 1: it is not; what is wrong is named.

    Examples:

    outroute log verify --node north

    outroute log verify north.log --head 5d41402abc4b
    """
    if file is None:
        with reach_node(node) as opened, working("Checking the log"):
            problems = opened.log.verify(head)
            count, newest = opened.log.head()
    else:
        from outroute.store import verify_lines

        with working("Checking the log"):
            lines = _lines(file)
            problems = verify_lines(lines, head)
        count, newest = max(len(lines) - 1, 0), None
    if as_json:
        emit_json({"whole": not problems, "problems": [str(p) for p in problems], "entries": count, "head": newest})
    elif not problems:
        out.print(f"{several(count, 'entry') if count == 1 else f'{count:,} entries'}, all as written", highlight=False)
        if newest is not None:
            out.print(f"head {newest}", highlight=False)
            say("Note the head down elsewhere: outroute log verify --head HASH proves later that nothing was touched.")
    for problem in problems:
        warn(str(problem))
    if problems:
        raise typer.Exit(EXIT_PROBLEMS)


@log_app.command()
@handled
def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="Write the log here.", show_default=False)],
    node: NodeDir = DEFAULT_DIR,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the log as lines of JSON, which outroute log verify FILE checks anywhere.

    Example:

    outroute log export -o north.log --node north
    """
    with reach_node(node) as opened, working("Writing the log"):
        stream = io.StringIO()
        count = opened.log.export(stream)
        head = str(json.loads(stream.getvalue().rstrip("\n").rpartition("\n")[2])["head"])
        write_files({output: stream.getvalue()}, force=force)
    if as_json:
        emit_json({"entries": count, "head": head, "file": str(output)})
        return
    out.print(f"{count:,} entries in {output}, head {head}", highlight=False)
    say(f"Check it anywhere: outroute log verify {output}")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise DataError(f"Cannot read '{file}': {error.strerror}", code="log.file") from None


def _moment(seconds: int) -> str:
    from outroute.cli._readable import date_text

    return date_text(seconds)


def _plain(entry: Entry) -> dict[str, Any]:
    return {"number": entry.number, "at": entry.at, "kind": entry.kind, "hash": entry.hash} | dict(entry.fields)


def _text(entry: Entry) -> str:
    """One entry in a line: long hashes short, long lists counted."""
    parts = [entry.kind]
    for name, value in entry.fields.items():
        if isinstance(value, list) and value:
            shown = ", ".join(_short(item) for item in value[:2])
            more = f", ... {len(value):,} in all" if len(value) > 2 else ""
            parts.append(f"{name} {shown}{more}")
        elif value not in (None, "", []):
            parts.append(f"{name} {_short(value)}")
    return "; ".join(parts)


def _short(value: Any) -> str:
    text = str(value)
    return text[:DIGITS] if len(text) == 64 and not set(text) - set("0123456789abcdef") else text
