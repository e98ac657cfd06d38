"""How an insight and a trial look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from outroute.cli._common import out, print_table, say, warn

if TYPE_CHECKING:
    from rich.table import Table

    from outroute.node import Insight
    from outroute.schema import Schema
    from outroute.trial import Result

__all__ = ["AGREEING", "positive_class", "show_insight", "show_trial"]

AGREEING = "all outcomes agree: whoever knows that somebody is in such a cohort knows the outcome"
"""What stands beside cohorts whose outcomes disclose."""

_LEAST_SHOWN = 0.5
"""Observations below which a contributor is not named: it would read "(0)"."""


def positive_class(schema: Schema) -> str | None:
    """The class whose probability an insight gives; None where the outcome is not binary."""
    classes = schema.outcome.classes
    return classes[1] if len(classes) == 2 else None


def show_insight(insight: Insight, names: Mapping[str, str] | None = None, positive: str | None = None) -> None:
    """Print one insight in full.

    Args:
        insight: the answer.
        names: what to call nodes, by id; others are shown by the start of their id.
        positive: name of the positive class, for binary outcomes.
    """
    from rich.table import Table

    names = names or {}

    def who(node: str) -> str:
        return "own records" if node == "own" else names.get(node, node[:12])

    def value(number: float | dict[str, float]) -> str:
        if isinstance(number, dict):
            return ", ".join(f"{name} {share:.1%}" for name, share in number.items())
        return f"{number:.1%}" if positive is not None else f"{number:.4g} {insight.unit}".strip()

    if insight.abstained:
        out.print(f"[bold]No answer:[/bold] {insight.abstained}. What there is, is shown below.", highlight=False)
    what = insight.outcome if positive is None else f"{insight.outcome} = {positive}"
    table = Table(show_header=False)
    out.print(f"{what}: {value(insight.estimate)}", style="bold", markup=False, highlight=False)
    low, high = insight.low, insight.high
    if isinstance(low, dict) and isinstance(high, dict):
        interval = "\n".join(f"{name}: {low[name]:.1%} to {high[name]:.1%}" for name in low)
    else:
        interval = f"{value(low)} to {value(high)}"
    table.add_row(f"{insight.level:.0%} interval at this site", interval)
    table.add_row("support", f"as sure as {insight.support:.0f} independent observations of such cases")
    said = [s for s in insight.contributors if s.observations >= _LEAST_SHOWN]
    table.add_row("who contributed", ", ".join(f"{who(s.node)} ({s.observations:.0f})" for s in said) or "nobody")
    against = [(s.node, s.estimate) for s in insight.disagreeing if s.estimate is not None]
    table.add_row("who disagrees", ", ".join(f"{who(node)} says {value(e)}" for node, e in against) or "nobody")
    weighed = [f"{name}: {value(e)} (weight {w:.0%})" for name, (w, e) in insight.calculations.items()]
    table.add_row("calculations", "\n".join(weighed) or "none")
    table.add_row("anchor", insight.anchor)
    if not insight.heterogeneity_known:
        table.add_row("caution", "fewer than three nodes: how much nodes differ is unknown")
    reach = insight.reach
    looked = (
        f"{reach.packets:,} packets of {reach.cells:,} cells; {reach.left_out:,} left out, {reach.refused:,} refused"
    )
    if reach.unanswered:
        looked += f"; nobody answered for {reach.unanswered:,} cells"
    if reach.short:
        looked += f"; packets of {reach.short:,} cells may be missing: most of their holders fell silent"
    table.add_row("looked at", looked)
    print_table(table)


def show_trial(result: Result) -> None:
    """Print a trial: tables on standard output; warnings and notes, which are for people, on standard error."""
    from rich.table import Table

    from outroute.trial import report

    for part in report.tables(result):
        if isinstance(part, Table):
            _fit(part)
            print_table(part)
    for text in result.warnings:
        warn(text)
    for text in result.notes:
        say(f"note: {text}")


def _fit(table: Table) -> None:
    """Columns of a narrow terminal break between words only, and figures never."""
    from rich import box
    from rich.text import Text

    table.box = box.SIMPLE_HEAD
    table.pad_edge = False
    for number, column in enumerate(table.columns):
        words = _plain(column.header).split()
        for cell in column.cells:
            words += _plain(cell).split() if number == 0 or "(" in _plain(cell) else [_plain(cell)]
        column.min_width = max((Text(word).cell_len for word in words), default=1)


def _plain(cell: Any) -> str:
    from rich.text import Text

    return Text.from_markup(cell).plain.strip() if isinstance(cell, str) else str(cell)
