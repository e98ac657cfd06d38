"""An audit on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from outroute.cli._common import out, print_table

if TYPE_CHECKING:
    from outroute.audit.reading import Row

__all__ = ["show_audit"]


def show_audit(found: Mapping[str, Any]) -> None:
    """Tables, then what matters most in words."""
    from rich.table import Table

    from outroute.audit import reading  # loads scipy, which --help can do without

    _table(
        "Was this person among them? (0.5 is chance)",
        (
            "AUC (95 % interval)",
            "found at 0.1 % false alarms",
            "at 1 %",
            "worst tenth, AUC",
            "worth (AUC or R2; less single records)",
        ),
        reading.membership_rows(found),
    )
    _table(
        "Naming members, with the list of all candidates",
        ("members named", "names that are right", "chance"),
        reading.naming_rows(found),
    )
    _table(
        "A record's values (errors in standard deviations; +6 dB halves the error of the best public guess)",
        ("attack", "error", "best public guess", "above it"),
        reading.reconstruction_rows(found),
    )
    table = Table(title="Other attacks", title_justify="left", title_style="bold")
    for name in ("attack", "setting", "found"):
        table.add_column(name)
    for row in reading.other_rows(found):
        table.add_row(*row)
    print_table(table)
    notes = (f"Note: {note}" if note.endswith((".", "?")) else f"Note: {note}." for note in found["notes"])
    for text in (*reading.sentences(found), *notes):
        out.print(text, markup=False, highlight=False)


def _table(title: str, columns: tuple[str, ...], rows: list[Row]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("side")
    table.add_column("setting")
    for name in columns:
        table.add_column(name, justify="left" if name == "attack" else "right")
    side = None
    for row in rows:
        if side not in (None, row.side):
            table.add_section()
        side = row.side
        table.add_row(row.side, row.setting, *row.cells)
    print_table(table)
