"""How an explanation and a comparison look in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from outroute.cli._common import out, print_table, warn
from outroute.cli._node_dir import several

if TYPE_CHECKING:
    from outroute.node import Insight
    from outroute.node.aged import Aged
    from outroute.node.behind import Behind
    from outroute.node.comparing import Comparison, Overlap
    from outroute.node.explaining import Explanation
    from outroute.node.pairing import Pair
    from outroute.node.resting import Rests

__all__ = ["MADE_FROM", "show_comparison", "show_explanation"]

Value = float | dict[str, float]

MADE_FROM = {
    "kernel": "the packets and own records most like this case",
    "regression": "all packets; each node has a base rate of its own",
    "boosting": "all packets; decision trees that correct the regression",
    "adjusted": "own records, which correct what other nodes say",
    "adjusted-boosting": "own records; decision trees that correct what other nodes say",
    "local": "own records alone",
    "local-boosting": "own records alone; decision trees",
}
"""What each calculation is made from, for those who read its name for the first time."""

_BASIS = {
    "own outcomes": "Other nodes were judged by the {own:,} outcomes that you observed yourself.",
    "consensus": "Other nodes were judged by what most organisations say, since {few} to judge them by. If most "
    "organisations lie together, this does not notice.",
    "declared groups": "Other nodes were judged by what most declared groups of one organisation say, since {few} to "
    "judge them by. If most groups lie together, this does not notice.",
    "pinned nodes": "Other nodes were judged by what the nodes say that were pinned here, since {few} to judge them "
    "by.",
    "nothing": "Other nodes were judged by nothing: {few} to judge them by, and there are fewer than three "
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
_YEAR = 31_557_600
_LENGTHS = ((120, 60, "minute"), (48, 3_600, "hour"), (61, 86_400, "day"), (24, _YEAR / 12, "month"))
"""Up to how many of a unit a time is told in it, the unit in seconds, and its name."""
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


def _duration(seconds: int) -> str:
    """Roughly, in the unit that people would say it in."""
    days = seconds / 86_400
    for most, length, name in (
        (2 / 24, 1 / 1_440, "minute"),
        (2, 1 / 24, "hour"),
        (61, 1, "day"),
        (731, 30.44, "month"),
    ):
        if days < most:
            return several(round(days / length), name)
    return f"{days / 365.25:.1f} years"


def _when(first: int | None, until: int | None) -> str:
    """In what time something was observed."""
    if first is None or until is None:
        return ""
    return f"observed between {_day(first)} and {_day(until)}, within {_duration(until - first)}"


def _from_whom(rests: Rests) -> str:
    """Nodes, and who certifies them."""
    nodes, certified = several(rests.nodes, "node"), rests.organisations - rests.uncertified
    if not rests.nodes:
        return "no other node"
    if not certified:
        them = "it" if rests.nodes == 1 else "them, so each stands for itself"
        return f"{nodes} (no organisation certifies {them})"
    alone = f", and {several(rests.uncertified, 'node')} that none certifies" if rests.uncertified else ""
    return f"{nodes} ({several(certified, 'organisation')}{alone})"


def _resting(rests: Rests) -> str:
    parts = []
    if rests.packets:
        packets = f"{rests.observations:,.0f} observations in {several(rests.packets, 'packet')}"
        parts.append(f"{packets} of {_from_whom(rests)}")
    else:
        parts.append("no packet of another node")
    parts += [several(rests.own, "own outcome"), _when(rests.first, rests.until)]
    return "; ".join(part for part in parts if part)


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
    out.print(_judged_by(found), markup=False, highlight=False)
    _nodes(found, positive, insight.unit)
    contradicted = {one.node for one in found.nodes if one.verdict == "contradicted"}
    _paths(found.paths, contradicted, insight.outcome if positive is None else f"{insight.outcome} = {positive}")
    _calculations(found, positive, insight.unit)
    _packets(found, positive, insight.unit)
    if found.aged is not None:
        out.print(_ageing(found.aged), markup=False, highlight=False)
    out.print(f"Near this case: {_resting(found.near)}.", markup=False, highlight=False)
    out.print(f"Altogether: {_resting(found.everything)}.", markup=False, highlight=False)


def _judged_by(found: Explanation) -> str:
    """What other nodes were judged by, in a sentence or two."""
    own = found.own_outcomes
    if not found.everything.packets:
        return f"No packet of another node is known here: all rests on your own {several(own, 'outcome')}."
    few = (
        f"{several(own, 'own outcome')} {'is' if own == 1 else 'are'} too few"
        if own
        else "you have no outcomes of your own"
    )
    return _BASIS[found.basis].format(own=own, few=few)


def _ageing(aged: Aged) -> str:
    """How fast what is known ages, in a sentence."""
    if aged.half_life is None:
        return "What is old counts as what is new: your own outcomes show no half-life that tells better."
    left = ""
    if aged.since is not None:
        are = "is" if aged.left_out == 1 else "are"
        left = f"; {several(aged.left_out, 'own outcome')} from before {_day(aged.since)} {are} left out"
    return f"What is {_duration(aged.half_life)} old counts half, as your own outcomes say{left}."


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
    if any("(z " in one.why for one in found.nodes):
        _small(
            "z: how far from chance, in standard errors; beyond 2 is seldom chance. Says: the mean of its outcomes "
            "near this case, all alike (who disagrees, above, weighs them by how like this case they are). A site may "
            "have more or less than you and still be believed: what counts is whether it has more where you have more."
        )
    for rest in found.others:
        out.print(
            f"and {several(rest.nodes, 'more node')}, {_REST[rest.verdict]}: {rest.near:,.0f} observations near, of "
            f"which {rest.counted:,.0f} count",
            markup=False,
            highlight=False,
        )


def _small(text: str) -> None:
    """A line that explains a table."""
    out.print(text, style="dim", markup=False, highlight=False)


_MEANS = {
    ("corroborates", True): "[green]corroborate[/green]: where one has more, so has the other",
    ("contradicts", False): "[red]contradict[/red]: where one has more, the other has less",
    ("undecided", True): "lean to agreement, which may be chance",
    ("undecided", False): "lean to contradiction, which may be chance",
}


def _ends(pair: Pair, contradicted: set[str]) -> list[str]:
    """Names of a path's two nodes, and of which what they say is refused."""
    return [
        "your own records" if one == "own" else one[:12] + " (contradicted)" * (one in contradicted)
        for one in (pair.left, pair.right)
    ]


def _paths(found: Behind, contradicted: set[str], what: str) -> None:
    from rich.table import Table

    if not found.pairs:
        return
    table = Table(title="Who agrees with whom: the strongest paths", title_justify="left", title_style="bold")
    for name in ("between", "and"):
        table.add_column(name)
    for name in ("strength", "cells that both know"):
        table.add_column(name, justify="right")
    table.add_column("what that means", ratio=1)
    for pair in (*found.corroborations, *found.contradictions):
        low, high = pair.interval
        strength = f"{pair.strength:+.2f} ({low:+.2f} to {high:+.2f})"
        table.add_row(*_ends(pair, contradicted), strength, f"{pair.cells:,}", _MEANS[pair.verdict, pair.strength > 0])
    if table.row_count:
        print_table(table)
    apart = f", {found.unshared:,} between nodes that share no cell" if found.unshared else ""
    mine = ", your own records as one of them" if found.own else ""
    decides = "what you observed yourself decides" if found.own else "only outcomes of your own could decide"
    _small(
        f"{several(found.pairs, 'path')} between the {found.nodes:,} nodes behind this answer{mine}; "
        f"{found.undecided:,} undecided{apart}. Two nodes are compared in {what}, each with its own average, in every "
        "cell (cases of one kind) that both know: +1 they always rise and fall together, 0 they have nothing in "
        "common, -1 they say the opposite; in brackets where it may lie (90 %). Agreement is no proof, since nodes can "
        f"lie together: {decides}."
    )


def _calculations(found: Explanation, positive: str | None, unit: str) -> None:
    from rich.table import Table

    table = Table(title="What each calculation said", title_justify="left", title_style="bold")
    table.add_column("calculation")
    table.add_column("made from", ratio=1)
    for name in ("says", "weight at first", "after questions confirmed", "after own outcomes"):
        table.add_column(name, justify="right")
    for one in found.calculations:
        weights = (f"{weight:.0%}" for weight in (one.before, one.prior, one.weight))
        table.add_row(one.name, MADE_FROM.get(one.name, ""), _told(one.estimate, positive, unit), *weights)
    print_table(table)
    if found.confirmed:
        _small(f"{several(found.confirmed, 'question')} asked before had an outcome that became known later.")
    elif found.calculations:
        _small("No question asked before has had its outcome confirmed; outroute confirm does that.")


def _packets(found: Explanation, positive: str | None, unit: str) -> None:
    from rich.table import Table

    if found.lost:
        table = Table(title="Packets near this case that lost", title_justify="left", title_style="bold")
        for name in ("packet", "of", "says", "still counts", "lost to", "its packet", "says"):
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
        _small(
            "Packets about one kind of case are held against each other and against your own outcomes: who fits less "
            "counts less."
        )
    else:
        out.print("No packet near this case lost to another one.")
    if found.copies:
        names = ", ".join(f"{packet[:12]} of {_who(node)}" for packet, node in found.copies)
        more = f", and {found.copies_more:,} more" if found.copies_more else ""
        out.print(f"Several nodes claim the same, which counts once: {names}{more}", markup=False, highlight=False)


def _between(overlap: Overlap) -> str:
    if overlap.first is None or overlap.until is None:
        return ""
    return f"{_day(overlap.first)} to {_day(overlap.until)}"


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
    for name in ("estimate", "interval", "seen in such cases", "of these own", "nodes", "organisations"):
        table.add_column(name, justify="right")
    table.add_column("observed")
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
        who = (f"{one.overlap.nodes:,}", f"{one.overlap.organisations:,}")
        table.add_row(f"{one.value} {found.unit}".strip(), said, between, seen, own, *who, _between(one.overlap))
    print_table(table)
    _small(
        "All other conditions are as asked. Seen in such cases: observations like this one that had this action, as "
        "far as they are believed. A node that no organisation certifies stands for itself."
    )
    warn(found.warning)
