"""How walls look on a terminal: progress with the time that is left, and the summary, verdicts first."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.table import Table

from outroute.cli._common import err, out, print_table, say, warn

if TYPE_CHECKING:
    from outroute.walls.runner import Watch

__all__ = ["duration", "show_walls", "watching"]

QUIET_SECONDS = 2.0
"""Where standard error is no terminal, a line says what goes on at most this often."""

_COLOURS = {"outroute": "green", "federated": "bold magenta", "tie": "yellow"}


def duration(seconds: float) -> str:
    """A rough time for people."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5_400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


@contextmanager
def watching() -> Iterator[Watch]:
    """A bar with the time that is left; where standard error is no terminal, a line every few seconds."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[left]}", markup=False),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    task = bar.add_task("starting", total=None, left="")

    class _Watch:
        last = 0.0
        text = ""

        def at(self, wall: str, text: str, done: int, of: int, left: float) -> None:
            self.text = f"{wall}: {text}"
            rest = f"about {duration(left)} left" if left >= 1 else ""
            bar.update(task, description=self.text, completed=done, total=of, left=rest)
            self._line(f"{self.text} (step {done + 1} of {of}{', ' + rest if rest else ''})")

        def tell(self, text: str) -> None:
            bar.update(task, description=f"{self.text}: {text}")
            self._line(f"{self.text}: {text}")

        def warn(self, text: str) -> None:
            warn(text)

        def _line(self, text: str) -> None:
            if not err.is_terminal and clock.monotonic() - self.last >= QUIET_SECONDS:
                self.last = clock.monotonic()
                say(text)

    with bar:
        yield _Watch()


def show_walls(found: Mapping[str, Any]) -> None:
    """Print the summary: who wins where, then each wall with its verdict and figures."""
    from outroute.walls.report import TITLES, WINNERS

    for line in found["summary"]:
        out.print(line, style="bold", markup=False, highlight=False)
    table = Table(title=_title(found), title_justify="left", title_style="bold", show_lines=True)
    table.add_column("wall")
    table.add_column("better")
    table.add_column("verdict", overflow="fold")
    for name, wall in found["walls"].items():
        winner = wall["winner"]
        told = wall["verdict"] or f"not measured: {wall['reason']}"
        part = f" ({wall['reason']})" if wall["verdict"] and wall["reason"] else ""
        table.add_row(TITLES[name], _winner(winner, WINNERS), _plain(told + part))
    print_table(table)
    for name, wall in found["walls"].items():
        if wall["scores"]:
            print_table(_scores(TITLES[name], wall["scores"]))
        for note in wall["notes"]:
            out.print(f"note ({name}): {note}", markup=False, highlight=False)
    for note in found["notes"]:
        out.print(f"note: {note}", markup=False, highlight=False)


def _title(found: Mapping[str, Any]) -> str:
    repeats = "quick: fewer repeats, intervals are wide" if found["quick"] else f"{found['repeats']} repeats"
    sites = len(found["sites"])
    return _plain(
        f"{found['table']}: {found['rows']:,} rows, {sites} site{'s' if sites != 1 else ''}, k {found['k']}, "
        f"{repeats}, seed {found['seed']}"
    )


def _winner(winner: str | None, names: Mapping[str, str]) -> str:
    return "-" if winner is None else f"[{_COLOURS[winner]}]{names[winner]}[/]"


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _scores(title: str, scores: Sequence[Mapping[str, Any]]) -> Table:
    from outroute.walls.report import pivot

    shown = pivot(scores)
    table = Table(title=title, title_justify="left", title_style="bold")
    known = any(interval for _, cells, _, _, _ in shown.rows for _, interval in cells)
    table.add_column("method (95 % interval)" if known else "method")
    for name in shown.columns:
        table.add_column(_plain(name), justify="right")
    table.add_column("")
    for method, cells, notes, ours, _ in shown.rows:
        table.add_row(
            _plain(method),
            *(_plain("\n".join(filter(None, cell))) for cell in cells),
            _plain(notes),
            style="bold" if ours else "",
        )
    return table
