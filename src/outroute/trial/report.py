"""A trial as tables for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from outroute.trial.intervals import LEVEL, Difference, Verdict
from outroute.trial.metrics import HIGHER_IS_BETTER
from outroute.trial.result import Result

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = ["LABELS", "differences_table", "scores_table", "show", "sites_table", "tables"]

LABELS = {
    "majority": "base rate of the site",
    "local": "each site alone",
    "outroute": "outcome routing",
    "fedavg": "federated averaging",
    "fedavg_recal": "federated averaging, recalibrated",
    "pooled": "all records pooled, linear",
    "pooled_recal": "all records pooled, linear, recalibrated",
    "pooled_boosting": "all records pooled, boosting",
    "pooled_boosting_recal": "all records pooled, boosting, recalibrated",
    "pooled_same_estimator": "all records pooled, our estimator",
}
"""What the methods are called in tables."""

_METRICS = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "log_loss": "log-loss",
    "brier": "Brier",
    "r2": "R2",
    "mae": "mean abs. error",
}
_STYLES = {
    Verdict.BETTER: "green",
    Verdict.NOT_WORSE: "",
    Verdict.WORSE: "bold red",
    Verdict.UNDECIDED: "yellow",
}
_LOST = "[red]*[/red]"
"""Marks a site at which the subject did worse than each alone."""


def show(result: Result, console: Console) -> None:
    """Print all tables and everything that a reader must know."""
    for part in tables(result):
        console.print(part)


def tables(result: Result) -> list[RenderableType]:
    """Scores, differences, sites, and notes, in this order."""
    parts: list[RenderableType] = [scores_table(result)]
    if len(result.methods) > 1:
        parts.append(differences_table(result))
    parts.append(sites_table(result))
    parts += [f"[yellow]warning:[/yellow] {_plain(text)}" for text in result.warnings]
    parts += [f"note: {_plain(text)}" for text in result.notes]
    return parts


def scores_table(result: Result) -> Table:
    """Means over sites, one row a method, and what left the sites."""
    table = _table(
        f"{result.dataset}: means over {len(result.sites)} sites and {result.repeats} "
        f"repeat{'s' if result.repeats != 1 else ''}, protocol {result.protocol.value}"
    )
    table.add_column("")
    for metric in result.metrics:
        table.add_column(_metric(metric), justify="right")
    for what in ("packets out", "bytes out", "records out"):
        table.add_column(what, justify="right")
    for method in _ordered(result):
        sent = result.left(method)
        table.add_row(
            _name(method),
            *(_number(result.score(method, metric)) for metric in result.metrics),
            *(f"{value:,}" if value else "-" for value in (sent.packets, sent.bytes_out, sent.records_out)),
            style="bold" if method == result.subject else "",
        )
    return table


def differences_table(result: Result) -> Table:
    """Paired differences of the subject to every other method; lost comparisons stay, marked."""
    table = _table(
        f"{_name(result.subject)} minus the other, paired; {LEVEL:.0%} intervals (Nadeau-Bengio), and the verdict"
    )
    table.add_column("compared with")
    metrics = [metric for metric in ("auc", "log_loss", "r2", "mae") if metric in result.metrics]
    for metric in metrics:
        table.add_column(_metric(metric), justify="right")
        table.add_column("", justify="left")
    for method in _ordered(result):
        if method == result.subject:
            continue
        cells: list[str] = []
        for metric in metrics:
            found = result.difference(method, metric)
            cells += [_interval(found), _verdict(found)]
        table.add_row(_name(method), *cells)
    return table


def sites_table(result: Result) -> Table:
    """One row a site: the loss of every method, the gain over the site alone, and what left it."""
    metric = "log_loss" if result.classes else "r2"
    against = "local" if "local" in result.methods and result.subject != "local" else None
    table = _table(f"{_metric(metric)} at every site" + (f"; {_LOST} marks sites that do worse" if against else ""))
    table.add_column("site")
    table.add_column("rows", justify="right")
    shown = [m for m in _ordered(result) if m in ("majority", "local", "fedavg_recal", "pooled", "pooled_boosting")]
    shown.insert(shown.index("local") + 1 if "local" in shown else 0, result.subject)
    shown = list(dict.fromkeys(shown))
    for method in shown:
        table.add_column(_name(method), justify="right")
    if against:
        table.add_column("gain over alone", justify="right")
    table.add_column("bytes out", justify="right")
    for site in result.sites:
        row = [site, f"{result.sizes[site].rows:,}"]
        row += [_number(result.site_score(method, metric, site)) for method in shown]
        if against:
            found = result.site_difference(against, metric, site)
            gain = found.mean if HIGHER_IS_BETTER[metric] else -found.mean
            lost = _LOST if gain < 0 else " "
            row.append("-" if math.isnan(gain) else f"{gain:+.3f} {lost}")
        sent = result.left(result.subject, site)
        table.add_row(*row, f"{sent.bytes_out:,}" if sent.bytes_out else "-")
    return table


def _ordered(result: Result) -> list[str]:
    """Methods as people read them: alone first, then ours, then the others."""
    known = [name for name in LABELS if name in result.methods]
    return known + [name for name in result.methods if name not in known]


def _table(title: str) -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _name(method: str) -> str:
    return LABELS.get(method, method)


def _metric(metric: str) -> str:
    return f"{_METRICS[metric]} {'↑' if HIGHER_IS_BETTER[metric] else '↓'}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(found: Difference) -> str:
    if math.isnan(found.mean):
        return "-"
    if math.isinf(found.low):
        return f"{found.mean:+.3f}"
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _verdict(found: Difference) -> str:
    style = _STYLES[found.verdict]
    return f"[{style}]{found.verdict.value}[/{style}]" if style else found.verdict.value
