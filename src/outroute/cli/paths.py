"""``outroute paths``: whose outcomes predict whose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outroute.cli._common import emit_json, handled, out, print_table, say, working
from outroute.cli._node_dir import reach_node, several
from outroute.cli._options import DEFAULT_DIR, Json, NodeDir
from outroute.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from outroute.node.pairing import Pair
    from outroute.node.pathways import Pathways

__all__ = ["paths", "picture"]


@handled
def paths(
    node: NodeDir = DEFAULT_DIR,
    top: Annotated[int, typer.Option("--top", min=1, max=1000, help="Paths of either sign to show.")] = 10,
    plot: Annotated[
        Path | None, typer.Option(help="Draw them as a picture (PNG, SVG or PDF).", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which nodes corroborate or contradict each other, and this one.

    A path is a pair of nodes. Its strength says how far the outcomes of one
    predict those of the other in the cells that both know: 1 exactly, 0 not
    at all, -1 they say the opposite. Base rates, which honest nodes do not
    share, and chance in small numbers are taken out. Packets that this node
    knows are compared, and its own records, which stay here. Agreement is no
    proof: nodes can lie together.

    Examples:

    outroute paths --node north

    outroute paths --node north --plot paths.png
    """
    with reach_node(node) as opened, working("Comparing"):
        found = opened.paths(top=top)
    if plot is not None:
        picture(found, plot)
    if as_json:
        emit_json(found.to_dict())
        return
    if len(found.peers) < 2:
        say(
            "There is nobody to compare: a path needs two nodes. Bring packets of others with outroute receive FILE "
            f"--node {node}, or run this node in a network."
        )
        return
    _tables(found, top)
    if plot is not None:
        say(f"Picture: {plot}")


def _tables(found: Pathways, top: int) -> None:
    from rich.table import Table

    mine = found.peers[0].path is None and any(one.path is not None for one in found.peers)
    nodes = Table(
        title="Nodes, and their paths with this one's own records"
        if mine
        else "Nodes (no own records to compare with)",
        title_justify="left",
        title_style="bold",
    )
    nodes.add_column("node")
    for name in ("packets", "observations", "standing", *(("strength", "cells shared", "worth") if mine else ())):
        nodes.add_column(name, justify="right")
    if mine:
        nodes.add_column("verdict")
    shown = found.peers if len(found.peers) <= 2 * top + 1 else (*found.peers[: top + 1], *found.peers[-top:])
    for one in shown:
        cells = [_name(one.node), f"{one.packets:,}", f"{one.observations:,.0f}", f"{one.standing:+.2f}"]
        nodes.add_row(*cells, *(_said(one.path) if one.path is not None else ()))
    print_table(nodes)
    if len(shown) < len(found.peers):
        say(f"{several(len(found.peers) - len(shown), 'node')} in between left out: --json names all")
    for title, pairs in (("corroborations", found.corroborations), ("contradictions", found.contradictions)):
        table = Table(title=f"Strongest {title}", title_justify="left", title_style="bold")
        for name in ("node", "and"):
            table.add_column(name)
        for name in ("strength", "cells shared", "worth"):
            table.add_column(name, justify="right")
        table.add_column("verdict")
        for pair in pairs:
            table.add_row(_name(pair.left), _name(pair.right), *_said(pair))
        if pairs:
            print_table(table)
        else:
            out.print(f"No {title}.")
    say(
        f"{several(found.pairs, 'pair')} compared. Strength with its 90 % interval; worth: cells free of noise that "
        "would say as much; standing: how far all others corroborate a node, whoever is right."
    )


def _name(node: str) -> str:
    return "this node" if node == "own" else node[:12]


def _said(pair: Pair) -> tuple[str, str, str, str]:
    low, high = pair.interval
    style = {"corroborates": "green", "contradicts": "red"}.get(pair.verdict)
    verdict = pair.verdict if style is None else f"[{style}]{pair.verdict}[/{style}]"
    return f"{pair.strength:+.2f} ({low:+.2f} to {high:+.2f})", f"{pair.cells:,}", f"{pair.effective:.1f}", verdict


def picture(found: Pathways, path: Path) -> None:
    """Draw the strengths between nodes as a matrix: blue corroborates, red contradicts, grey shares nothing.

    Args:
        found: what is known; at most forty nodes are drawn.
        path: where to write; the suffix says what (``.png``, ``.svg``, ``.pdf``).

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the suffix is not known, or there are no two nodes.
    """
    if len(found.pictured) < 2:
        raise DataError("there are no two nodes to draw a path between: receive packets of others", code="paths.plot")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("plot", "Drawing paths") from None
    import numpy as np

    many = len(found.pictured)
    values = np.array([[np.nan if v is None else v for v in row] for row in found.matrix])
    side = 3.0 + 0.3 * many
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("lightgrey")
    drawn = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    names = [_name(one) for one in found.pictured]
    axes.set_xticks(range(many), names, rotation=90, fontfamily="monospace", fontsize=8)
    axes.set_yticks(range(many), names, fontfamily="monospace", fontsize=8)
    if many <= 12:
        for row, column in zip(*np.nonzero(~np.isnan(values)), strict=True):
            value = values[row, column]
            colour = "white" if abs(value) > 0.6 else "black"
            axes.text(column, row, f"{value:+.2f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="strength: blue corroborates, red contradicts")
    axes.set_title(f"{many:,} of {len(found.peers):,} nodes, {found.pairs:,} paths", fontsize=10)
    try:
        figure.savefig(path)
    except ValueError as error:
        raise DataError(f"cannot write {path}: {error}", code="paths.plot") from None
