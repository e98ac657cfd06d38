"""Pictures of the report as text that goes into the page itself: lines as SVG, images as PNG. Needs matplotlib."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from outroute.errors import MissingExtraError
from outroute.walls.units import number

__all__ = ["alternative", "curves_svg", "image_html", "require"]

_INK = "#010203"
"""Stands for the page's own colour of text, light or dark; replaced by ``currentColor``."""
_OURS = "#1d8ab0"
_OTHERS = ("#d1602d", "#8e62c4", "#3f9a57", "#c2488a", "#a98316", "#6b7d8f", "#b33a3a", "#2f9c95")
_BASELINE = "#8a93a0"
_BASELINE_LINES = ("--", ":", "-.", (0, (5, 1, 1, 1)))
_OUR_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
_PIXELS = 4
"""Screen pixels of an image's pixel; the browser does not smooth them."""


def require() -> None:
    """Say before the work that pictures cannot be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("plot", "The report with pictures (--html)") from None


def alternative(figure: Mapping[str, Any]) -> str:
    """A picture in words."""
    parts = [f"{figure['title']}."]
    if figure["curves"]:
        parts.append(f"{figure['y']} against {figure['x']}.")
    for curve in figure["curves"]:
        points = [(x, y) for x, y in zip(curve["x"], curve["y"], strict=True) if x is not None and y is not None]
        if not points:
            parts.append(f"{curve['label']}: no points.")
            continue
        (x0, y0), (x1, y1) = points[0], points[-1]
        at = f"{number(y0)} at {number(x0)}"
        parts.append(f"{curve['label']}: {at}{f' to {number(y1)} at {number(x1)}' if len(points) > 1 else ''}.")
    parts += [f"{row['label']}: {len(row['pixels'])} images." for row in figure["images"]]
    return " ".join(parts)


def curves_svg(figure: Mapping[str, Any], name: str) -> str:
    """Lines and points over common axes.

    Args:
        figure: as JSON.
        name: unique in the page; letters, digits and "-".
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 10,
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "legend.labelcolor"), _INK
        ),
    }
    with matplotlib.rc_context(settings):
        many = len(figure["curves"]) > 4
        drawn = Figure(figsize=(7.2, 4.6 if many else 4.0), layout="constrained")
        FigureCanvasSVG(drawn)
        axes: Any = drawn.add_subplot()
        axes.patch.set_alpha(0)
        drawn.patch.set_alpha(0)
        ours = others = baselines = 0
        for curve in figure["curves"]:
            marker = _OUR_MARKERS[ours % len(_OUR_MARKERS)]
            style: dict[str, Any] = {"color": _OURS, "marker": marker, "linewidth": 2.2}
            if curve["baseline"]:
                style = {"color": _BASELINE, "marker": "", "linewidth": 1.4}
                style["linestyle"] = _BASELINE_LINES[baselines % len(_BASELINE_LINES)]
                baselines += 1
            elif curve["ours"]:
                style["linestyle"] = ("-", "--", ":", "-.")[ours % 4]
                ours += 1
            else:
                style = {"color": _OTHERS[others % len(_OTHERS)], "marker": _MARKERS[others % len(_MARKERS)]}
                style["linestyle"] = "-" if others < len(_OTHERS) else ":"
                others += 1
            _draw(axes, curve, style)
        _scales(axes, figure)
        axes.set_xlabel(figure["x"])
        axes.set_ylabel(figure["y"])
        axes.grid(color=_INK, alpha=0.12, linewidth=0.8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        drawn.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
        held = io.StringIO()
        drawn.savefig(held, format="svg", transparent=True, metadata={"Date": None})
    return _inline(held.getvalue(), figure, name)


def _draw(axes: Any, curve: Mapping[str, Any], style: dict[str, Any]) -> None:
    points = [
        (x, y, low, high)
        for x, y, low, high in zip(
            curve["x"], curve["y"], *(_bounds(curve, side) for side in ("low", "high")), strict=True
        )
        if x is not None and y is not None
    ]
    if not points:
        return
    x, y, low, high = (list(values) for values in zip(*points, strict=True))
    if curve["points"]:
        style = style | {"linestyle": "", "marker": style["marker"] or "x"}
    if len(points) > 60:
        style = style | ({"markersize": 3} if curve["points"] else {"marker": ""})
    axes.plot(x, y, label=curve["label"], markersize=style.pop("markersize", 4.5), **style)
    known = [i for i in range(len(x)) if low[i] is not None and high[i] is not None]
    if known:
        at, under, over = [x[i] for i in known], [low[i] for i in known], [high[i] for i in known]
        if curve["points"] or len(known) == 1:
            axes.vlines(at, under, over, color=style["color"], linewidth=1.2, alpha=0.7)
        else:
            axes.fill_between(at, under, over, color=style["color"], alpha=0.15, linewidth=0)


def _bounds(curve: Mapping[str, Any], side: str) -> Sequence[float | None]:
    return curve[side] if curve[side] is not None else [None] * len(curve["x"])


def _scales(axes: Any, figure: Mapping[str, Any]) -> None:
    """Logarithmic axes where they are asked for and every value allows it; a value of zero keeps its place."""
    for letter in ("x", "y"):
        if not figure[f"log_{letter}"]:
            continue
        values = [v for curve in figure["curves"] for v in curve[letter] if v is not None]
        positive = [v for v in values if v > 0]
        if not positive:
            continue
        scale = getattr(axes, f"set_{letter}scale")
        if len(positive) == len(values):
            scale("log")
        else:
            scale("symlog", linthresh=min(positive))


def _inline(text: str, figure: Mapping[str, Any], name: str) -> str:
    """The picture as a part of the page: names of its own, the page's colour of text, and words beside it."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    text = text.replace(_INK, "currentColor")
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(alternative(figure))}">{rest}'


def image_html(row: Mapping[str, Any], number_of: int) -> str:
    """One image of a row as an ``img`` with its bytes inside."""
    import numpy as np
    from matplotlib.image import imsave

    pixels = np.clip(np.array(row["pixels"][number_of], dtype=float), 0.0, 1.0)
    held = io.BytesIO()
    imsave(held, pixels, cmap="gray", vmin=0.0, vmax=1.0, format="png")
    height, width = pixels.shape[:2]
    data = base64.b64encode(held.getvalue()).decode()
    text = escape(f"{row['label']}, image {number_of + 1}")
    return (
        f'<img class="pixels" width="{width * _PIXELS}" height="{height * _PIXELS}" alt="{text}" '
        f'src="data:image/png;base64,{data}">'
    )
