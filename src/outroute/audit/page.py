"""An audit as one page to show: no script, nothing fetched, pictures inside. Needs matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from outroute.audit import reading
from outroute.errors import MissingExtraError

__all__ = ["render", "require"]

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; margin: 0 auto; max-width: 68rem;
  padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p.lead { color: #47505e; max-width: 46rem; }
ul.say { padding-left: 1.2rem; max-width: 46rem; } ul.say li { margin: .4rem 0; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; }
figure svg { display: block; width: 54rem; min-width: 38rem; max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .9rem; min-width: 40rem; }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid #dfe3e8; vertical-align: top; }
th { background: #f3f5f8; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
tr.turn td { border-top: 2px solid #8a94a3; } footer { color: #5b6472; font-size: .85rem; margin-top: 2.5rem; }
"""
COLOURS = {reading.PACKETS: "#1f6f8b", reading.UPDATES: "#b5542b"}


def require() -> None:
    """Say before the work that pictures cannot be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("plot", "The report with plots (--html)") from None


def render(found: Mapping[str, Any]) -> str:
    """The page.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require()
    membership, naming = reading.membership_rows(found), reading.naming_rows(found)
    values = reading.reconstruction_rows(found)
    others = [
        reading.Row(side=attack, setting=setting, cells=(text,)) for attack, setting, text in reading.other_rows(found)
    ]
    sites = ", ".join(f"{name} ({of['subjects']:,})" for name, of in found["sites"].items())
    parts = [
        f"<h1>What would leave: {escape(found['table'])}</h1>",
        f'<p class="lead">Outcome: {escape(found["outcome"])}. Sites (subjects attacked): {escape(sites)}. '
        "Each attack stands beside a guess that knows only public statistics; what it gains over that guess is what "
        "leaks. The attacker knows the schema, the projection, k, the distiller, and how records are spread.</p>",
        '<ul class="say">' + "".join(f"<li>{escape(text)}</li>" for text in reading.sentences(found)) + "</ul>",
        "<h2>Was this person among them?</h2>",
        "<p>Area under the curve of telling who was in from who was not, with its 95 % interval; 0.5 is chance. The "
        "last column is what the same setting is worth for prediction (a light stand-in for the full trial), and its "
        "paired difference to single records. Where a lifetime budget epsilon is promised, no attack whatever can do "
        "better than the bound that stands beside.</p>",
        _figure(_bars(membership, 0.5, "AUC of membership inference", (0.45, 1.02))),
        _table(
            (
                "side",
                "setting",
                "AUC (95 % interval)",
                "found at 0.1 % false alarms",
                "at 1 %",
                "worst tenth, AUC",
                "worth",
            ),
            membership,
        ),
        "<h2>Naming members</h2>",
        "<p>An attacker with the list of everybody who may be in solves for who is: packets and sums of gradients are "
        "equations. The black mark is what drawing lots would find.</p>",
        _figure(_bars(naming, None, "share of members that are named", (0.0, 1.02))),
        _table(("side", "setting", "members named", "names that are right", "chance"), naming),
        "<h2>A record's values</h2>",
        "<p>Errors in standard deviations of a field; decibel above the best guess that knows only public statistics: "
        "+6 is half its error, 0 nothing gained. "
        "&ldquo;Exact&rdquo; is 60 decibel or more.</p>",
        _figure(_bars(values, 0.0, "decibel above the best public guess (cut at 60)", (-8, 62))),
        _table(("side", "setting", "attack", "error", "best public guess", "above it"), values),
        "<h2>Other attacks</h2>",
        _table(("attack", "setting", "found"), others),
    ]
    notes = "".join(f"<li>{escape(note)}</li>" for note in found["notes"])
    if notes:
        parts.append(f"<h2>Notes</h2><ul>{notes}</ul>")
    quick = " (quick: intervals are wide)" if found["quick"] else ""
    parts.append(
        f"<footer>outroute audit, seed {found['seed']}, {found['shadows']} shadow emissions, epsilon "
        f"{found['epsilon']:g}{quick}. A cohort limits disclosure; it is not a guarantee.</footer>"
    )
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>outroute audit: {escape(found['table'])}</title><style>{_STYLE}</style></head><body>\n{body}\n"
        "</body></html>\n"
    )


def _table(columns: Sequence[str], rows: Sequence[reading.Row]) -> str:
    """A table; the first two columns are side and setting."""
    texts = {"side", "setting", "attack", "found"}
    head = "".join(f"<th{'' if name in texts else ' class=n'}>{escape(name)}</th>" for name in columns)
    lines = []
    before = None
    for row in rows:
        cells = zip(columns, (row.side, row.setting, *row.cells), strict=True)
        turn = " class=turn" if before not in (None, row.side) else ""
        before = row.side
        lines.append(
            f"<tr{turn}>"
            + "".join(f"<td{'' if name in texts else ' class=n'}>{escape(text)}</td>" for name, text in cells)
            + "</tr>"
        )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _figure(svg: str) -> str:
    return f'<figure class="wide">{svg}</figure>' if svg else ""


def _bars(rows: Sequence[reading.Row], chance: float | None, label: str, limits: tuple[float, float]) -> str:
    """Horizontal bars as SVG, text as text."""
    rows = [row for row in rows if not math.isnan(row.value)]
    if not rows:
        return ""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}):
        figure = Figure(figsize=(9, 1.0 + 0.3 * len(rows)), layout="constrained")
        FigureCanvasSVG(figure)
        axes: Any = figure.add_subplot()
        start = limits[0] if chance is None else chance
        for place, row in enumerate(rows):
            value = min(max(row.value, limits[0]), limits[1])
            axes.barh(place, value - start, left=start, height=0.62, color=COLOURS.get(row.side, "grey"))
            if not math.isnan(row.low):
                axes.plot([row.low, row.high], [place, place], color="black", linewidth=1.2)
            if not math.isnan(row.chance):
                axes.plot([row.chance] * 2, [place - 0.42, place + 0.42], color="black", linewidth=2)
        several = any(row.cells and row.side == reading.UPDATES for row in rows) and label.startswith("decibel")
        names = [f"{row.setting}: {row.cells[0]}" if several else row.setting for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(*limits)
        axes.axvline(start, color="#1c2430", linewidth=0.8)
        axes.set_xlabel(label)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        seen = {row.side for row in rows}
        handles = [axes.barh(0, 0, color=COLOURS[side], label=side) for side in COLOURS if side in seen]
        if len(handles) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9, frameon=False)
        held = io.StringIO()
        figure.savefig(held, format="svg", metadata={"Date": None})
    text = held.getvalue()
    return text[text.index("<svg") :]
