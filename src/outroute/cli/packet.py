"""``outroute packet``: look at packets and check them."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from outroute.cli._common import EXIT_PROBLEMS, emit_json, handled, out, print_table, say, warn, working
from outroute.cli._options import Json
from outroute.errors import DataError, OutrouteError

__all__ = ["packet_app"]

MAX_FILE_BYTES = 4 * 2**30
"""A packet file is read at once; 4 GiB are 8 million packets."""

packet_app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Look at packets, and check them by every rule that a receiver applies.",
)

PacketFile = Annotated[Path, typer.Argument(help="Packets of 512 bytes, one after the other.", show_default=False)]
SchemaOption = Annotated[
    Path | None, typer.Option("--schema", help="Gives names and units to what the packets say.", show_default=False)
]


def read_packets(path: Path) -> bytes:
    """The bytes of a packet file.

    Raises:
        DataError: the file cannot be read, is empty or too large.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"'{path}' is larger than 4 GiB: split it", code="packet.file")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror}", code="packet.file") from None
    if not data:
        raise DataError(f"'{path}' is empty", code="packet.file")
    return data


@packet_app.command()
@handled
def inspect(
    file: PacketFile,
    schema: SchemaOption = None,
    first: Annotated[int, typer.Option(min=1, help="How many packets to show.")] = 3,
    as_json: Json = False,
) -> None:
    """Show what packets say; with --schema, in names and units.

    Nothing is checked here: see outroute packet verify.

    Example:

    outroute packet inspect packets.orp --schema heart.toml
    """
    from outroute import schema as schemas
    from outroute.packet import PACKET_BYTES, Packet

    data = read_packets(file)
    loaded = None if schema is None else schemas.load(schema)
    whole, rest = divmod(len(data), PACKET_BYTES)
    if not whole:
        raise DataError(
            f"'{file}' holds {len(data)} bytes, a packet has {PACKET_BYTES}: it was cut off, or is no packet file",
            code="packet.length",
        )
    rows = (data[i * PACKET_BYTES : (i + 1) * PACKET_BYTES] for i in range(whole))
    try:
        shown = [Packet(row).describe(loaded) for row in islice(rows, first)]
    except OutrouteError as error:
        raise DataError(
            f"'{file}' cannot be shown: {error}. Count what is wrong with outroute packet verify",
            code=error.code,
        ) from error
    if as_json:
        emit_json({"packets": whole, "rest_bytes": rest, "shown": shown})
        return
    for view in shown:
        _show(view)
    say(f"{whole:,} packet{'' if whole == 1 else 's'} in {len(data):,} bytes; {len(shown)} shown.")
    if rest:
        warn(f"{rest} bytes after the last whole packet: the file was cut off, ask for it again")


def _show(view: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"packet {view['identity'][:16]}", title_justify="left", title_style="bold", show_header=False)
    when = time.strftime("%Y-%m-%d", time.gmtime(view["bucket"])) if abs(view["bucket"]) < 2**37 else view["bucket"]
    lines: dict[str, Any] = {
        "author (node)": view["node"][:16],
        "schema": view["schema"][:16],
        "condenses": f"{view['size']} observations of {view['subjects']:g} subjects ({view['distiller']})",
        "observed from": when,
        "cell": view["cell"],
        "sequence": f"{view['sequence']} of incarnation {view['incarnation']}",
    }
    if view["withdrawal"]:
        lines["withdrawal"] = "takes back the packet in the same slot"
    for name, value in view.get("conditions", {}).items():
        lines[name] = _value(value)
    if "outcome" in view:
        lines["OUTCOME"] = _value(view["outcome"])
    for name, value in lines.items():
        table.add_row(name, str(value))
    print_table(table)


def _value(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, dict):
        return ", ".join(f"{name} {part:.3g}" for name, part in value.items())
    return f"{value:.4g}"


@packet_app.command()
@handled
def verify(
    file: PacketFile,
    schema: Annotated[Path, typer.Option("--schema", help="The schema that they must belong to.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Check packets by every rule that a receiver applies.

    Exit code 0: all accepted. 1: some refused; the reasons are counted.

    Example:

    outroute packet verify packets.orp --schema heart.toml
    """
    from outroute import schema as schemas
    from outroute.node.evidence import verify_in_threads
    from outroute.packet import PACKET_BYTES, accept

    data = read_packets(file)
    loaded = schemas.load(schema)
    with working(f"Checking {len(data) // PACKET_BYTES:,} packets"):
        verdicts = accept(data, loaded, int(time.time()), verify=verify_in_threads)
    refused = verdicts.counted()
    accepted = int(verdicts.ok.sum())
    if as_json:
        emit_json({"accepted": accepted, "refused": {reason.name.lower(): n for reason, n in refused.items()}})
    else:
        out.print(f"{accepted:,} accepted", highlight=False)
        for reason, count in refused.items():
            out.print(f"{count:,} refused: {reason.text}", highlight=False)
    if refused:
        raise typer.Exit(EXIT_PROBLEMS)
