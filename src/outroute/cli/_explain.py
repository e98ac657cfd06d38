"""How an explanation and a comparison look in a terminal, and an explanation as a picture."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from outroute.cli._common import out, print_table, say, warn
from outroute.cli._node_dir import several
from outroute.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from outroute.node import Insight
    from outroute.node.comparing import Comparison
    from outroute.node.explaining import Explanation, Rests

__all__ = ["picture", "show_comparison", "show_explanation"]

Value = float | dict[str, float]

_BASIS = {
    "own outcomes": "Nodes were judged by your own {own:,} outcomes.",
    "consensus": "Nodes were judged by what most organisations say: your own {own:,} outcomes are too few to judge "
    "them. If most organisations lie together, this does not notice.",
    "pinned nodes": "Nodes were judged by what the nodes say that were pinned here: your own {own:,} outcomes are too "
    "few to judge them.",
    "nothing": "Nodes were judged by nothing: your own {own:,} outcomes are too few, and there are fewer than three "
    "organisations to compare. Everybody is taken at their word.",
}
_REST = {
    "pinned": "pinned",
    "proven": "proven by own outcomes",
    "agrees": "agree with that by which nodes were judged",
    "unproven": "unproven",
    "contradicted": "contradicted",
    "unknown": "unknown: too few packets, or nobody to compare with",
}
_LEAST = 0.5
"""Observations below which it reads as none."""


def _who(node: str | None) -> str:
    return "many" if node is None else "your own outcomes" if node == "own" else node[:12]


def _told(value: Value | None, positive: str | None, unit: str) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {share:.0%}" for name, share in value.items())
    return f"{value:.1%}" if positive is not None else f"{value:.4g} {unit}".strip()


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _resting(rests: Rests) -> str:
    when = ""
    if rests.first is not None and rests.last is not None:
        first, last = _day(rests.first), _day(rests.last)
        when = f", observed from {first} to {last}" if first != last else f", observed about {first}"
    return (
        f"{rests.observations:,.0f} observations in {several(rests.packets, 'packet')} of "
        f"{several(rests.nodes, 'node')} and {several(rests.organisations, 'organisation')}{when}; "
        f"{several(rests.own, 'own outcome')}"
    )


def show_explanation(insight: Insight, positive: str | None) -> None:
    """Print why an insight says what it says.

    Args:
        insight: with its explanation.
        positive: name of the positive class, for binary outcomes.
    """
    found = insight.explanation
    assert found is not None
    out.print()
    out.print("Why", style="bold")
    out.print(_BASIS[found.basis].format(own=found.own_outcomes), markup=False, highlight=False)
    _nodes(found, positive, insight.unit)
    _calculations(found, positive, insight.unit)
    _packets(found, positive, insight.unit)
    out.print(f"Near this case: {_resting(found.near)}.", markup=False, highlight=False)
    out.print(f"Altogether: {_resting(found.everything)}.", markup=False, highlight=False)


def _nodes(found: Explanation, positive: str | None, unit: str) -> None:
    from rich.table import Table

    if not found.nodes:
        out.print("No other node was judged.")
        return
    table = Table(title="Who was believed", title_justify="left", title_style="bold")
    table.add_column("node")
    table.add_column("verdict")
    for name in ("weight", "observations near", "of these count", "says"):
        table.add_column(name, justify="right")
    table.add_column("why", ratio=1)
    for one in found.nodes:
        table.add_row(
            _who(one.node) + ("" if one.organisation is None else f"\nof {one.organisation[:12]}"),
            one.verdict,
            f"{one.weight:.0%}",
            f"{one.near:,.0f}",
            f"{one.counted:,.0f}",
            _told(one.said, positive, unit) or "-",
            one.why,
        )
    print_table(table)
    for rest in found.others:
        out.print(
            f"and {several(rest.nodes, 'more node')}, {_REST[rest.verdict]}: {rest.near:,.0f} observations near, of "
            f"which {rest.counted:,.0f} count",
            markup=False,
            highlight=False,
        )


def _calculations(found: Explanation, positive: str | None, unit: str) -> None:
    from rich.table import Table

    table = Table(title="What each calculation said", title_justify="left", title_style="bold")
    table.add_column("calculation")
    for name in ("says", "weight at first", "after questions confirmed", "after own outcomes"):
        table.add_column(name, justify="right")
    for one in found.calculations:
        weights = (f"{weight:.0%}" for weight in (one.before, one.prior, one.weight))
        table.add_row(one.name, _told(one.estimate, positive, unit), *weights)
    print_table(table)
    if found.confirmed:
        say(f"{several(found.confirmed, 'question')} asked before had an outcome that became known later")


def _packets(found: Explanation, positive: str | None, unit: str) -> None:
    from rich.table import Table

    if found.lost:
        table = Table(title="Packets near this case that lost", title_justify="left", title_style="bold")
        for name in ("packet", "of", "says", "still counts", "lost to", "whose packet", "says"):
            table.add_column(name)
        for one in found.lost:
            table.add_row(
                one.packet[:12],
                _who(one.node),
                _told(one.said, positive, unit),
                f"{one.weight:.0%}",
                _who(one.to),
                "" if one.to_packet is None else one.to_packet[:12],
                _told(one.to_said, positive, unit),
            )
        print_table(table)
        if found.lost_more:
            out.print(f"and {several(found.lost_more, 'more packet')}", highlight=False)
    else:
        out.print("No packet near this case lost to another one.")
    if found.copies:
        names = ", ".join(f"{packet[:12]} of {_who(node)}" for packet, node in found.copies)
        more = f", and {found.copies_more:,} more" if found.copies_more else ""
        out.print(f"Several nodes claim the same, which counts once: {names}{more}", markup=False, highlight=False)


def show_comparison(found: Comparison, positive: str | None, insight_unit: str) -> None:
    """Print outcomes by action, and what this is not.

    Args:
        found: the comparison.
        positive: name of the positive class, for binary outcomes.
        insight_unit: unit of the outcome.
    """
    from rich.table import Table

    what = found.outcome if positive is None else f"{found.outcome} = {positive}"
    table = Table(title=f"{what} by {found.field}", title_justify="left", title_style="bold")
    table.add_column(found.field)
    for name in ("estimate", "interval", "observations near with it", "nodes", "own"):
        table.add_column(name, justify="right")
    for one in found.actions:
        low, high, estimate = one.low, one.high, one.estimate
        if isinstance(low, dict) and isinstance(high, dict) and isinstance(estimate, dict):
            said = "\n".join(f"{name} {share:.1%}" for name, share in estimate.items())
            between = "\n".join(f"{low[name]:.1%} to {high[name]:.1%}" for name in low)
        else:
            said = _told(estimate, positive, insight_unit)
            between = f"{_told(low, positive, insight_unit)} to {_told(high, positive, insight_unit)}"
        if one.abstained:
            said, between = "no answer", one.abstained
        own, seen = (
            f"{number:,.0f}" if number >= _LEAST else "none" for number in (one.overlap.own, one.overlap.observations)
        )
        table.add_row(f"{one.value} {found.unit}".strip(), said, between, seen, f"{one.overlap.nodes:,}", own)
    print_table(table)
    warn(found.warning)


def picture(insight: Insight, positive: str | None, path: Path) -> None:
    """Draw who was believed, how far, and what each said, around the estimate with its interval.

    Args:
        insight: with its explanation.
        positive: name of the positive class; with several classes the most likely one is drawn.
        path: where to write; the suffix says what (``.png``, ``.svg``, ``.pdf``).

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the suffix is not known.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("plot", "Drawing an explanation") from None
    found = insight.explanation
    assert found is not None
    shown = None
    if isinstance(insight.estimate, dict):
        shown = max(insight.estimate, key=insight.estimate.__getitem__)

    def value(said: Value) -> float:
        return said[shown or ""] if isinstance(said, dict) else said

    rows = [("answer", value(insight.estimate), 1.0, "black")]
    rows += [
        (f"{one.name} ({one.weight:.0%})", value(one.estimate), one.weight, "tab:blue") for one in found.calculations
    ]
    rows += [
        (
            f"{one.node[:12]} ({one.verdict}, {one.counted:,.0f} of {one.near:,.0f})",
            value(one.said),
            one.counted / one.near if one.near else 0.0,
            "tab:red" if one.verdict == "contradicted" else "tab:green" if one.verdict == "proven" else "tab:grey",
        )
        for one in found.nodes
        if one.said is not None
    ]
    figure = Figure(figsize=(8.0, 1.6 + 0.35 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axvspan(value(insight.low), value(insight.high), color="lightgrey", zorder=0)
    axes.axvline(value(insight.estimate), color="black", linewidth=1, zorder=1)
    for row, (_, said, weight, colour) in enumerate(rows):
        # Nobody disappears: who counts nothing is a ring.
        axes.scatter(
            [said], [row], s=20 + 180 * weight, color=colour if weight > 0 else "none", edgecolors=colour, zorder=2
        )
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8)
    axes.invert_yaxis()
    which = positive or shown
    axes.set_xlabel(insight.outcome + (f" = {which}" if which else f" ({insight.unit})" if insight.unit else ""))
    axes.set_title(
        f"What each said; grey: the answer's {insight.level:.0%} interval.\n"
        "Calculations with their weight; nodes with what counts of their observations",
        fontsize=9,
    )
    try:
        figure.savefig(path)
    except ValueError as error:
        raise DataError(f"cannot write {path}: {error}", code="explain.plot") from None
