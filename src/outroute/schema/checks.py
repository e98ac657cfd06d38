"""What every text, number and range of a schema must be.

Each function returns the clean value, or raises ``SchemaError`` that says what is wrong with ``what``.
"""

from __future__ import annotations

import operator
import unicodedata
from decimal import Decimal

from outroute.errors import SchemaError

__all__ = ["MAX_NAME_BYTES", "decimal_range", "names_of", "text_of", "whole_of"]

MAX_BOUND = Decimal("1e15")
"""Largest low or high in its unit; choose a larger unit beyond it."""
MAX_DIGITS = 17
"""Significant digits of a low or high: what a 64-bit float can tell apart."""
MAX_DECIMALS = 30
"""Decimals of a low or high: the canonical form writes them out."""
MAX_NAME_BYTES = 120
"""UTF-8 bytes of any name, unit, class or category: short enough for a table on a screen."""


def text_of(value: str, what: str, *, empty: bool = False) -> str:
    """A text in NFC, not too long, without control characters."""
    if not isinstance(value, str) or (not value and not empty):
        raise SchemaError(f"{what} must be a text that is not empty", code="schema.text")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise SchemaError(f"{what} holds a control character or half a character", code="schema.text")
    value = unicodedata.normalize("NFC", value)
    if len(value.encode()) > MAX_NAME_BYTES:
        raise SchemaError(f"{what} '{value[:20]}...' is longer than {MAX_NAME_BYTES} bytes", code="schema.text")
    return value


def whole_of(value: object, what: str) -> int:
    """A whole number."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise SchemaError(f"{what} must be a whole number", code="schema.number")
    return operator.index(value)


def decimal_range(low: Decimal | None, high: Decimal | None, what: str) -> None:
    """Refuse what is no range: low below high, finite, of few enough digits."""
    if low is None or high is None:
        raise SchemaError(f"{what} is numeric and needs both low and high", code="schema.range")
    if not (low.is_finite() and high.is_finite()):
        raise SchemaError(f"{what}: low and high must be finite numbers", code="schema.range")
    if not low < high:
        raise SchemaError(f"{what}: low ({low}) must be below high ({high})", code="schema.range")
    if max(abs(low), abs(high)) > MAX_BOUND:
        raise SchemaError(f"{what}: low and high must lie within +-1e15", code="schema.range")
    for value in (low, high):
        _, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        if len("".join(map(str, digits)).strip("0")) > MAX_DIGITS or (any(digits) and exponent < -MAX_DECIMALS):
            raise SchemaError(
                f"{what}: low and high take at most {MAX_DIGITS} digits and {MAX_DECIMALS} decimals; "
                "round them outward, or choose another unit",
                code="schema.range",
            )
    if not float(low) < float(high):
        raise SchemaError(f"{what}: low and high are too close to tell apart", code="schema.range")


def names_of(values: tuple[str, ...], what: str, fewest: int, most: int) -> tuple[str, ...]:
    """Different names, so many as are allowed."""
    if not fewest <= len(values) <= most:
        raise SchemaError(
            f"{what} has {len(values)} entries; between {fewest} and {most} are allowed",
            code="schema.categories",
        )
    clean = tuple(text_of(v, what) for v in values)
    if len(set(clean)) != len(clean):
        raise SchemaError(f"{what} names an entry twice", code="schema.categories")
    return clean
