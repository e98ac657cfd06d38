"""From a schema to its successor: which fields carry over, and codes and outcomes written anew.

Own observations are carried over, packets of others never are: nobody signs another's packets again. Source: DESIGN
section 4, "Schemas are immutable".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError, SchemaError
from outroute.schema.encoding import Problem, ProblemKind
from outroute.schema.model import MISSING, SCALE, Field, FieldKind, Schema

__all__ = ["Migrated", "Migration"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """Conditions under the successor.

    Attributes:
        codes: uint16 ``[n, width]`` of the successor; ``MISSING`` where there was a problem.
        problems: values that have no place in the successor, by field. ``OUT_OF_RANGE``: the row cannot be carried
            over. ``UNKNOWN_CATEGORY``: the value becomes missing and the row stays.
    """

    codes: NDArray[np.uint16]
    problems: tuple[Problem, ...]

    @property
    def lost(self) -> NDArray[np.int64]:
        """Rows that cannot be carried over, ascending."""
        rows = [p.rows for p in self.problems if p.kind is ProblemKind.OUT_OF_RANGE]
        return np.unique(np.concatenate(rows)) if rows else np.empty(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Migration:
    """How observations under ``old`` become observations under ``new``.

    Attributes:
        old: the schema that was in force.
        new: its successor.

    Raises:
        SchemaError: ``schema.parent``, ``new`` does not name ``old`` as its parent; ``schema.outcome``, the outcome
            is another one, so that nothing of what was learnt can be carried over.
    """

    old: Schema
    new: Schema

    def __post_init__(self) -> None:
        if self.new.parent != self.old.id:
            raise SchemaError(
                f"schema '{self.new.name}' does not replace '{self.old.name}': it must say parent = "
                f'"{self.old.id.hex()}"',
                code="schema.parent",
            )
        a, b = self.old.outcome, self.new.outcome
        same = (a.name, a.kind, a.unit) == (b.name, b.kind, b.unit)
        gone = [name for name in a.classes if name not in b.classes]
        if not same or gone:
            why = f"class '{gone[0]}' is left out" if same else "name, kind or unit differ"
            raise SchemaError(
                f"the outcome '{a.name}' cannot be carried over to '{b.name}' ({why}): keep it as it is, or begin a "
                "new network with a schema that names no parent",
                code="schema.outcome",
            )

    @cached_property
    def carried(self) -> tuple[str, ...]:
        """Fields whose values are carried over: of the same name, kind and unit; in the successor's order."""
        before = {f.name: f for f in self.old.fields}
        return tuple(
            f.name
            for f in self.new.fields
            if f.name in before and (f.kind, f.unit) == (before[f.name].kind, before[f.name].unit)
        )

    @property
    def dropped(self) -> tuple[str, ...]:
        """Fields whose values are lost, because the successor has no such field or means another unit or kind."""
        return tuple(f.name for f in self.old.fields if f.name not in self.carried)

    @property
    def added(self) -> tuple[str, ...]:
        """Fields of the successor that are missing in everything carried over."""
        return tuple(f.name for f in self.new.fields if f.name not in self.carried)

    def codes(self, codes: NDArray[np.uint16]) -> Migrated:
        """Codes under the old schema as codes under the new one.

        A number is decoded under the old range and encoded under the new one; outside it is a problem, never clipped
        (only a value less than half an old code outside counts as at the end: that much is rounding). A category is
        kept by its name; shares of a category that is gone, or several shares where the field is a facet now, make the
        field missing. Ranges and categories that did not
        change keep their codes bit by bit.

        Args:
            codes: uint16 ``[n, width of old]``.

        Raises:
            DataError: when they have another width.
        """
        if codes.ndim != 2 or codes.shape[1] != self.old.width or codes.dtype != np.uint16:
            raise DataError(
                f"codes must be uint16[n, {self.old.width}], as schema '{self.old.name}' lays them out",
                code="migration.width",
            )
        out = np.full((len(codes), self.new.width), MISSING, dtype=np.uint16)
        problems: list[Problem] = []
        for name in self.carried:
            a, b = self.old.field(name), self.new.field(name)
            part = codes[:, self.old.slots[name]]
            move = _numeric if a.kind is FieldKind.NUMERIC else _categorical
            out[:, self.new.slots[name]] = move(a, b, part, problems)
        return Migrated(codes=out, problems=tuple(problems))

    def rounding(self, before: NDArray[np.uint16] | None = None) -> NDArray[np.uint16]:
        """How many codes each slot of the successor may lie beside the code of the true value, uint16 ``[width]``.

        Args:
            before: the same for the codes under the old schema, uint16 ``[width of old]``; None where they are exact.
        """
        out = np.zeros(self.new.width, dtype=np.uint16)
        for name in self.carried:
            a, b = self.old.field(name), self.new.field(name)
            if a.kind is not FieldKind.NUMERIC:
                continue
            off = 0 if before is None else int(before[self.old.slots[name]][0])
            if (a.low, a.high) != (b.low, b.high):
                off = int(np.ceil((off + 0.5) * _step(a) / _step(b) + 0.5))
            out[self.new.slots[name]] = min(off, SCALE)
        return out

    def outcome(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Outcomes under the new schema, and the rows whose outcome has no place there.

        Args:
            values: float64 ``[n]``, class indexes or values in the outcome's unit; NaN while not known.

        Returns:
            float64 ``[n]`` (NaN also where there is no place), and int64, those rows, ascending.
        """
        a, b = self.old.outcome, self.new.outcome
        out = values.astype(np.float64)
        known = ~np.isnan(out)
        if a.has_classes:
            index = np.array([b.classes.index(name) for name in a.classes], dtype=np.float64)
            out[known] = index[out[known].astype(np.int64)]
            return out, np.empty(0, dtype=np.int64)
        assert b.low is not None
        assert b.high is not None
        outside = known & ((out < float(b.low)) | (out > float(b.high)))
        out[outside] = np.nan
        return out, np.flatnonzero(outside)

    def bucket(self, start: NDArray[np.int64]) -> NDArray[np.int64]:
        """Time buckets of the new schema that hold the starts of these, int64 ``[n]``."""
        return start - start % self.new.time.bucket_seconds


def _step(f: Field) -> float:
    """What one code of a number is worth, in its unit."""
    assert f.low is not None
    assert f.high is not None
    return (float(f.high) - float(f.low)) / SCALE


def _numeric(a: Field, b: Field, codes: NDArray[np.uint16], problems: list[Problem]) -> NDArray[np.uint16]:
    assert a.low is not None
    assert b.low is not None
    assert b.high is not None
    if (a.low, a.high) == (b.low, b.high):
        return codes
    low, high = float(b.low), float(b.high)
    step = _step(a)
    value = float(a.low) + codes[:, 0].astype(np.float64) * step
    if a.integer and step < 1.0:
        value = np.rint(value)
    present = codes[:, 0] != MISSING
    outside = present & ((value < low - step / 2) | (value > high + step / 2))
    if outside.any():
        rows = np.flatnonzero(outside)
        example = f"{value[rows[0]]:.6g} {a.unit}".strip()
        problems.append(Problem(field=a.name, kind=ProblemKind.OUT_OF_RANGE, rows=rows, example=example))
    keep = present & ~outside
    out = np.full(codes.shape, MISSING, dtype=np.uint16)
    out[keep, 0] = np.rint((np.clip(value[keep], low, high) - low) / (high - low) * SCALE).astype(np.uint16)
    return out


def _categorical(a: Field, b: Field, codes: NDArray[np.uint16], problems: list[Problem]) -> NDArray[np.uint16]:
    present = codes[:, 0] != MISSING
    out = np.zeros((len(codes), b.width), dtype=np.uint16)
    lost = np.zeros(len(codes), dtype=bool)
    example = ""
    for at, name in enumerate(a.categories):
        if name in b.categories:
            out[:, b.categories.index(name)] = codes[:, at]
            continue
        gone = present & (codes[:, at] > 0)
        example = example or (name if gone.any() else "")
        lost |= gone
    if b.facet:
        mixed = present & ~lost & (out.max(axis=1) != SCALE)
        example = example or ("several categories" if mixed.any() else "")
        lost |= mixed
    if lost.any():
        rows = np.flatnonzero(lost)
        problems.append(Problem(field=a.name, kind=ProblemKind.UNKNOWN_CATEGORY, rows=rows, example=example))
    out[lost | ~present] = MISSING
    return out
