"""Figures for people."""

from __future__ import annotations

__all__ = ["amount", "figure", "number"]

BYTES = "bytes"
"""With which the name of a metric begins whose figures are bytes."""


def number(value: float | None) -> str:
    """A figure with the digits that matter: three behind the point, large ones in full."""
    if value is None:
        return "-"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    if abs(value) >= 0.001:
        return f"{value:.3f}"
    return f"{value:.4f}" if abs(value) >= 0.0001 else f"{value:.1e}"


def amount(value: float) -> str:
    """Bytes for people."""
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:,.3g} {unit}"
    return f"{value:,.0f} bytes"


def figure(metric: str, value: float | None) -> str:
    """A figure of a metric: bytes in the unit that suits them."""
    return amount(value) if value is not None and metric.startswith(BYTES) else number(value)
