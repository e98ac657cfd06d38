"""``outroute shares``: for sites with too few subjects for a cohort, and for the two synthesizers who add them up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outroute.cli._common import emit_json, handled, out, say, warn, working, write_files
from outroute.cli._node_dir import open_node, several
from outroute.cli._options import DEFAULT_DIR, By, Force, Json, NodeDir
from outroute.cli._running import find_running
from outroute.errors import DataError, StoreError

if TYPE_CHECKING:
    from outroute.node import Node

__all__ = ["shares_app"]

shares_app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Too few subjects for a cohort? Give shares to two synthesizers: they see sums over several sites only.",
)


def stopped(directory: Path) -> Node:
    """The node in a directory, which must not run: shares travel as files, and a running node keeps its directory."""
    running = find_running(directory)
    if running is not None:
        running.close()
        raise StoreError(
            f"the node in '{directory}' runs, and shares are handled while it does not: stop it, run this command, "
            "start it again. Packets that come of it reach its network with outroute receive FILE --pass-on NAME",
            code="node.running",
        )
    return open_node(directory)


Output = Annotated[Path, typer.Option("-o", "--output", help="Write it here.", show_default=False)]
Floor = Annotated[
    int | None,
    typer.Option(
        "--k", min=2, help="Subjects beside those of any one site; the schema's floor if not given.", show_default=False
    ),
]
Other = Annotated[str, typer.Option("--with", help="Public key of the other synthesizer.", show_default=False)]


@shares_app.command()
@handled
def give(
    to: Annotated[
        list[str],
        typer.Option("--to", help="Public key of a synthesizer; give the option twice.", show_default=False),
    ],
    output: Annotated[
        list[Path],
        typer.Option("-o", "--output", help="File for that synthesizer; twice, in the same order.", show_default=False),
    ],
    by: By,
    node: NodeDir = DEFAULT_DIR,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Split every observation that is ready into two shares, one a synthesizer.

    A share alone is noise: it says nothing about the observation. What both
    synthesizers can read is the cell in which it lies (as a question tells
    it), its time bucket, and that it is yours. They open sums over at least k
    subjects of other sites. Choose two that do not work together: together
    they could read every observation. It cannot be taken back afterwards.

    outroute status says a node's public key.

    Example:

    outroute shares give --to KEY_A --to KEY_B -o for-a.shares -o for-b.shares --by "Dr. Weber" --node tiny
    """
    from outroute.node.sharing import give_shares

    if len(to) != 2 or len(output) != 2:
        raise DataError("Give --to twice and -o twice: one file for each of two synthesizers", code="shares.pair")
    keys = [_key(one) for one in to]
    for path in output:
        if path.exists() and not force:
            raise DataError(f"'{path}' exists already; --force replaces it", code="file.exists")
    with stopped(node) as opened, working("Splitting"):
        given = give_shares(opened, keys[0], keys[1], by=by)
        places = dict(zip(given.pair, given.files, strict=True))
        # Noted as gone before a file is there: rather lost than sent twice.
        write_files({path: places[key] for path, key in zip(output, keys, strict=True)}, force=True)
    sizes = [len(places[key]) for key in keys]
    if as_json:
        emit_json(
            {
                "observations": given.observations,
                "left": given.left,
                "digest": given.digest.hex(),
                "files": [str(path) for path in output],
                "bytes": sizes,
            }
        )
        return
    out.print(
        f"{several(given.observations, 'observation')} in shares: {output[0]} ({sizes[0]:,} bytes) and {output[1]} "
        f"({sizes[1]:,} bytes)",
        markup=False,
        highlight=False,
    )
    if given.left:
        out.print(f"{several(given.left, 'observation')} of the same subjects stay for another time", highlight=False)
    say("Send each synthesizer its own file and nobody both. Each runs: outroute shares take FILE")


@shares_app.command()
@handled
def take(
    files: Annotated[list[Path], typer.Argument(help="What sites sent.", show_default=False)],
    node: NodeDir = DEFAULT_DIR,
    sites: Annotated[
        Path | None,
        typer.Option(
            "--sites", help="Take shares of these sites only: a file with a public key a line.", show_default=False
        ),
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Contributions of one site that wait at a time.")] = 100,
    as_json: Json = False,
) -> None:
    """As a synthesizer, keep the shares that sites sent.

    Without --sites anybody may contribute, also somebody who invents k
    subjects to be left with the one that is real: name the sites you know.
    Nobody can look into a share. A site that lies spoils or bends the cohorts
    that it is in, with --most no more than that at a time.

    Example:

    outroute shares take inbox/*.shares --sites known-sites.txt --node a
    """
    from outroute.node.sharing import take_shares

    admitted = None
    if sites is not None:
        admitted = frozenset(_key(line.split("#")[0].strip()) for line in _lines(sites) if line.split("#")[0].strip())
    with stopped(node) as opened, working("Opening"):
        new, refused, held = take_shares(opened, node, [_read(path) for path in files], admitted=admitted, most=most)
    if as_json:
        emit_json({"new": new, "refused": {why.name.lower(): count for why, count in refused.items()}, **held})
    else:
        out.print(
            f"{several(new, 'new contribution')}; {held['held']:,} of {several(held['sites'], 'site')} wait to be "
            "added up",
            highlight=False,
        )
        for why, count in refused.items():
            warn(f"{count:,} refused: {why.name.lower()}")
        say("Next: outroute shares roll --with KEY -o FILE, for the other synthesizer")


@shares_app.command()
@handled
def roll(
    output: Output,
    other: Other,
    node: NodeDir = DEFAULT_DIR,
    k: Floor = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Name what is held together with another synthesizer; it needs this to add up the same.

    Example:

    outroute shares roll --with KEY_B -o a.roll --node a
    """
    from outroute.node.sharing import roll_of

    with stopped(node) as opened:
        content, count = roll_of(opened, node, _key(other), k=k)
        write_files({output: content}, force=force)
    if as_json:
        emit_json({"contributions": count, "file": str(output)})
        return
    out.print(f"{several(count, 'contribution')} on the roll {output}", markup=False, highlight=False)
    say(f"Give it to the other synthesizer; with its roll, run: outroute shares sum ROLL -o FILE --node {node}")


@shares_app.command(name="sum")
@handled
def add_up(
    rolled: Annotated[Path, typer.Argument(metavar="ROLL", help="The other's roll.", show_default=False)],
    output: Output,
    node: NodeDir = DEFAULT_DIR,
    k: Floor = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Add up the shares that stand in both rolls, over k subjects beside any one site's.

    Every share is added up once and is gone here afterwards. The file says
    nothing without the other synthesizer's.

    Example:

    outroute shares sum b.roll -o a.sums --node a
    """
    from outroute.node.sharing import sum_shares

    if output.exists() and not force:
        raise DataError(f"'{output}' exists already; --force replaces it", code="file.exists")
    with stopped(node) as opened, working("Adding up"):
        added = sum_shares(opened, node, _read(rolled), k=k)
        write_files({output: added.content}, force=True)
    if as_json:
        emit_json(
            {
                "cohorts": added.cohorts,
                "contributions": added.contributions,
                "left": added.left,
                "file": str(output),
            }
        )
        return
    out.print(
        f"{several(added.cohorts, 'cohort')} of {added.contributions:,} contributions in {output}; {added.left:,} wait "
        "for others",
        markup=False,
        highlight=False,
    )
    say(f"With the other's sums: outroute shares combine {output} OTHER -o FILE --node {node}")


@shares_app.command()
@handled
def combine(
    sums: Annotated[list[Path], typer.Argument(help="The sums of both synthesizers.", show_default=False)],
    output: Output,
    node: NodeDir = DEFAULT_DIR,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make packets of two sums: of 512 bytes, as any others, by the pair of synthesizers.

    Both make the same bytes. Everybody takes them in with outroute receive.

    Example:

    outroute shares combine a.sums b.sums -o rare.orp --node a
    """
    from outroute.node.sharing import open_sums

    if len(sums) != 2:
        raise DataError("Give two files: the sums of both synthesizers", code="shares.pair")
    with stopped(node) as opened, working("Adding the two sums"):
        made = open_sums(opened, _read(sums[0]), _read(sums[1]))
        if len(made.packets):
            write_files({output: made.packets.tobytes()}, force=force)
    if as_json:
        emit_json(
            {
                "packets": len(made.packets),
                "observations": int(made.packets["size"].sum()),
                "spoilt": made.spoilt,
                "agreeing": made.agreeing,
                "author": made.pair.hex(),
                "file": str(output) if len(made.packets) else None,
            }
        )
        return
    out.print(
        f"{several(len(made.packets), 'packet')} of {int(made.packets['size'].sum()):,} observations, by the pair "
        f"{made.pair.hex()[:16]}",
        highlight=False,
    )
    if made.spoilt:
        warn(
            f"{several(made.spoilt, 'cohort')} cannot be what honest sites contribute, and no packet was made of "
            "them: one of their sites sent nonsense"
        )
    if made.agreeing:
        say(f"{several(made.agreeing, 'cohort')} left out: its outcomes agree, and there is no other to join.")
    if len(made.packets):
        say(f"Everybody, these two included: outroute receive {output.name}")


def _key(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise DataError(
            f"'{text[:80]}' is not a public key of 64 hex digits: outroute status says a node's", code="shares.key"
        )
    return raw


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
