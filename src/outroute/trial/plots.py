"""A trial as a picture: how much every site gains, with its interval."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from outroute.errors import DataError, MissingExtraError
from outroute.trial.metrics import HIGHER_IS_BETTER
from outroute.trial.report import LABELS
from outroute.trial.result import Result

__all__ = ["forest"]

_METRICS = {"auc": "AUC", "log_loss": "log-loss", "accuracy": "accuracy", "brier": "Brier score", "r2": "R2"}


def forest(result: Result, path: Path, *, other: str = "local", metric: str | None = None) -> None:
    """Draw the gain of the subject over another method at every site, small sites on top, the mean at the bottom.

    Args:
        result: a finished trial.
        path: where to write; the suffix says what (``.png``, ``.svg``, ``.pdf``).
        other: the method to compare with.
        metric: default: log-loss for classes, R2 for numbers.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the trial has no such method or metric, or the suffix is not known.
    """
    metric = metric or ("log_loss" if result.classes else "r2")
    if other not in result.methods or other == result.subject or metric not in result.metrics:
        raise DataError(
            f"cannot draw {metric!r} against {other!r}: this trial has the methods {', '.join(result.methods)} and "
            f"the metrics {', '.join(result.metrics)}",
            code="trial.plot",
        )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("plot", "Drawing a trial") from None

    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    sites = sorted(result.sites, key=lambda site: result.sizes[site].rows)
    found = [result.site_difference(other, metric, site) for site in sites] + [result.difference(other, metric)]
    names = [f"{site} ({result.sizes[site].rows:,})" for site in sites] + ["mean over sites"]
    figure = Figure(figsize=(8, 1.5 + 0.32 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.axvline(0, color="grey", linewidth=1)
    for place, one in enumerate(found):
        if math.isnan(one.mean):
            continue
        gain, last = sign * one.mean, place == len(sites)
        colour = "black" if last else ("tab:green" if gain >= 0 else "tab:red")
        if math.isfinite(one.low):
            axes.plot([sign * one.low, sign * one.high], [place, place], color=colour, linewidth=1.5)
        axes.plot([gain], [place], marker="D" if last else "o", color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(
        f"gain in {_METRICS.get(metric, metric)} over {LABELS.get(other, other)} (right of 0: "
        f"{LABELS.get(result.subject, result.subject)} is better)"
    )
    repeats = f"{result.repeats} repeat{'s' if result.repeats != 1 else ''}"
    axes.set_title(f"{result.dataset}, {repeats}, protocol {result.protocol.value}")
    try:
        figure.savefig(path)
    except ValueError as error:
        raise DataError(f"cannot write {path}: {error}", code="trial.plot") from None
