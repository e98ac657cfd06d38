"""How an insight looks in a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from outroute.cli._common import out, print_table
from outroute.node import Insight

__all__ = ["show_insight"]


def _number(value: float | dict[str, float], unit: str = "") -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {share:.1%}" for name, share in value.items())
    return f"{value:.4g} {unit}".strip()


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
        return names.get(node, node[:12])

    if insight.abstained:
        out.print(f"[bold]No answer:[/bold] {insight.abstained}. What there is, is shown below.")
    what = insight.outcome if positive is None else f"{insight.outcome} = {positive}"
    interval = f"{_number(insight.low)} to {_number(insight.high, insight.unit)}"
    table = Table(title=f"{what}: {_number(insight.estimate, insight.unit)}", title_justify="left", show_header=False)
    table.title_style = "bold"
    table.add_row(f"{insight.level:.0%} interval at this site", interval)
    table.add_row("support", f"{insight.support:.0f} observations near this case")
    table.add_row(
        "who contributed", ", ".join(f"{who(s.node)} ({s.observations:.0f})" for s in insight.contributors) or "nobody"
    )
    table.add_row(
        "who disagrees",
        ", ".join(f"{who(s.node)} says {s.estimate:.3g}" for s in insight.disagreeing if s.estimate is not None)
        or "nobody",
    )
    table.add_row(
        "calculations",
        "\n".join(
            f"{name}: {_number(e, insight.unit)} (weight {w:.2f})" for name, (w, e) in insight.calculations.items()
        ),
    )
    table.add_row("anchor", insight.anchor)
    if not insight.heterogeneity_known:
        table.add_row("caution", "fewer than three nodes: how much nodes differ is unknown")
    reach = insight.reach
    table.add_row(
        "looked at",
        f"{reach.packets:,} packets of {reach.cells:,} cells; {reach.left_out:,} left out, {reach.refused:,} refused",
    )
    print_table(table)
