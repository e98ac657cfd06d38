"""An explanation as a picture: what each said, and which of them agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from outroute.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from outroute.node import Insight
    from outroute.node.pairing import Pair

__all__ = ["picture"]

Value = float | dict[str, float]

_GOOD, _BAD, _OPEN, _CALCULATION = "#1b7f4b", "#c0392b", "#7f8c8d", "#2c6fbb"
"""For and against differ in form too, for those who do not tell red from green."""
_NODE = {"proven": _GOOD, "pinned": _GOOD, "agrees": _GOOD, "contradicted": _BAD}
_ROW = 0.33
"""Inches of a row."""


def picture(insight: Insight, positive: str | None, path: Path) -> None:
    """Draw what each calculation and node said, and how strongly nodes corroborate or contradict each other.

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
    said, paths = _said(insight, positive), (*found.paths.corroborations, *found.paths.contradictions)
    heights = [1.1 + _ROW * len(said), *([1.5 + _ROW * len(paths)] if paths else [])]
    figure = Figure(figsize=(9.0, sum(heights)))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_said(panels[0], insight, positive, said)
    if paths:
        _draw_paths(panels[1], paths, {one.node for one in found.nodes if one.verdict == "contradicted"})
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise DataError(f"cannot write {path}: {error}", code="explain.plot") from None


def _drawn(insight: Insight) -> str | None:
    """The class that is drawn where there are several."""
    return max(insight.estimate, key=insight.estimate.__getitem__) if isinstance(insight.estimate, dict) else None


def _value(insight: Insight, said: Value) -> float:
    return said[_drawn(insight) or ""] if isinstance(said, dict) else said


def _said(insight: Insight, positive: str | None) -> list[tuple[str, float, float, str]]:
    """Rows of the upper panel: label, what it says, how much it counts from 0 to 1, colour."""
    found = insight.explanation
    assert found is not None
    rows = [("the answer", _value(insight, insight.estimate), 1.0, "black")]
    rows += [
        (f"{one.name}, weight {one.weight:.0%}", _value(insight, one.estimate), one.weight, _CALCULATION)
        for one in found.calculations
    ]
    rows += [
        (
            f"{one.node[:12]}, {one.verdict}, {one.counted:,.0f} of {one.near:,.0f} count",
            _value(insight, one.said),
            one.counted / one.near if one.near else 0.0,
            _NODE.get(one.verdict, _OPEN),
        )
        for one in found.nodes
        if one.said is not None
    ]
    return rows


def _plain(axes: Any, labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92", zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw_said(axes: Any, insight: Insight, positive: str | None, rows: list[tuple[str, float, float, str]]) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.axvspan(_value(insight, insight.low), _value(insight, insight.high), color="#e8eef5", zorder=0.5)
    axes.axvline(_value(insight, insight.estimate), color="black", linewidth=0.8, zorder=1)
    for row, (_, said, weight, colour) in enumerate(rows):
        # Nobody disappears: who counts nothing is a cross.
        if weight > 0:
            axes.scatter([said], [row], s=25 + 150 * weight, color=colour, zorder=3)
        else:
            axes.scatter([said], [row], s=45, color=colour, marker="x", zorder=3)
    _plain(axes, [name for name, *_ in rows])
    calculations = sum(colour == _CALCULATION for *_, colour in rows)
    for line in {0.5, calculations + 0.5} if len(rows) > calculations + 1 else {0.5}:
        axes.axhline(line, color="0.8", linewidth=0.8)
    if insight.unit == "" and (positive or _drawn(insight)):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlim(-0.03, 1.03)
    which = positive or _drawn(insight)
    what = insight.outcome + (f" = {which}" if which else f" ({insight.unit})" if insight.unit else "")
    axes.set_title(f"What each says of this case: {what}", loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(
        f"blue band: the answer's {insight.level:.0%} interval; larger dots count more, a cross counts nothing",
        fontsize=9,
        color="0.35",
    )


def _end(node: str, contradicted: set[str]) -> str:
    return "your own records" if node == "own" else node[:12] + " (x)" * (node in contradicted)


def _draw_paths(axes: Any, paths: tuple[Pair, ...], contradicted: set[str]) -> None:
    axes.axvspan(0, 1.05, color="#eef7f1", zorder=0)
    axes.axvspan(-1.05, 0, color="#fbefed", zorder=0)
    axes.axvline(0, color="0.3", linewidth=0.8, zorder=1)
    styles = {"corroborates": (_GOOD, "o", _GOOD), "contradicts": (_BAD, "D", _BAD)}
    for row, pair in enumerate(paths):
        colour, marker, fill = styles.get(pair.verdict, (_OPEN, "o" if pair.strength > 0 else "D", "white"))
        axes.plot(pair.interval, [row, row], color=colour, linewidth=1.6, zorder=2)
        axes.scatter([pair.strength], [row], s=46, color=fill, edgecolors=colour, marker=marker, zorder=3)
    ends = [[_end(one, contradicted) for one in (pair.left, pair.right)] for pair in paths]
    _plain(axes, [" and ".join(names) for names in ends])
    axes.set_xlim(-1.05, 1.05)
    axes.set_xticks(
        [-1, -0.5, 0, 0.5, 1], ["-1\nalways opposite", "-0.5", "0\nnothing in common", "0.5", "+1\nalways alike"]
    )
    axes.set_title("Who agrees with whom: the strongest paths", loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(
        "green corroborates, red contradicts, hollow: undecided; bars: where it may lie (90 %)\n"
        "(x): a node that counts nothing, since it is contradicted",
        fontsize=9,
        color="0.35",
    )
