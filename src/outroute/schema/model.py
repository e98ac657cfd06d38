"""The values that make up a schema, checked when they are made.

Source: DESIGN section 4 (schemas are immutable; canonical form holds integers and decimal strings, no floats).
"""

from __future__ import annotations

import math
import operator
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, IntEnum
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from outroute.errors import SchemaError
from outroute.schema.landmarks import Landmarks

__all__ = [
    "MAX_CATEGORIES",
    "MAX_CLASSES",
    "MAX_FIELDS",
    "MAX_LIFETIME_SECONDS",
    "MAX_NAME_BYTES",
    "MAX_SLOTS",
    "MAX_WEIGHT",
    "MISSING",
    "SCALE",
    "Distiller",
    "Field",
    "FieldKind",
    "Outcome",
    "OutcomeKind",
    "Privacy",
    "Schema",
    "Time",
]

SCALE = 65534
"""Largest condition code: a numeric field at its declared high end, or a category with the whole share."""
MISSING = 65535
"""Code of a value that is not there."""
MAX_SLOTS = 116
"""Slots of 16 bits that fit in the 232 bytes of conditions of a packet."""
MAX_FIELDS = 116
"""A field takes at least one slot."""
MAX_CATEGORIES = 100
"""Categories of one field; more would leave no room for other fields."""
MAX_CLASSES = 10
"""Classes of an outcome: ten 32-bit counts fill the 40 bytes of outcome of a packet."""
MAX_WEIGHT = Decimal(10)
"""Largest similarity weight; with it every squared integer distance stays far below 2^53."""
MAX_BOUND = Decimal("1e15")
"""Largest low or high in its unit; choose a larger unit beyond it."""
MAX_DIGITS = 17
"""Significant digits of a low or high: what a 64-bit float can tell apart."""
MAX_DECIMALS = 30
"""Decimals of a low or high: the canonical form writes them out."""
MAX_FACET_COMBINATIONS = 2**53
"""Combinations of facets: their number is exact in any language, JSON included."""
MAX_NAME_BYTES = 120
"""UTF-8 bytes of any name, unit, class or category: short enough for a table on a screen."""
MAX_LIFETIME_SECONDS = 100 * 365 * 86_400
"""A hundred years: archival schemas live for decades, and 32 bits of seconds hold 136 years."""


class FieldKind(Enum):
    """How the values of a field are laid out in slots."""

    NUMERIC = "numeric"
    """One slot: 0 at the declared low end, ``SCALE`` at the high end."""
    CATEGORICAL = "categorical"
    """One slot a category: shares that sum to exactly ``SCALE``."""


class OutcomeKind(IntEnum):
    """What an outcome is; the number stands in every packet."""

    BINARY = 1
    CATEGORICAL = 2
    NUMERIC = 3


class Distiller(IntEnum):
    """How observations are condensed into packets; the number stands in every packet."""

    COHORT = 1
    SINGLE = 2


def _text(value: str, what: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or (not value and not empty):
        raise SchemaError(f"{what} must be a text that is not empty", code="schema.text")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise SchemaError(f"{what} holds a control character or half a character", code="schema.text")
    value = unicodedata.normalize("NFC", value)
    if len(value.encode()) > MAX_NAME_BYTES:
        raise SchemaError(f"{what} '{value[:20]}...' is longer than {MAX_NAME_BYTES} bytes", code="schema.text")
    return value


def _whole(value: object, what: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise SchemaError(f"{what} must be a whole number", code="schema.number")
    return operator.index(value)


def _range(low: Decimal | None, high: Decimal | None, what: str) -> None:
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


def _names(values: tuple[str, ...], what: str, fewest: int, most: int) -> tuple[str, ...]:
    if not fewest <= len(values) <= most:
        raise SchemaError(
            f"{what} has {len(values)} entries; between {fewest} and {most} are allowed",
            code="schema.categories",
        )
    clean = tuple(_text(v, what) for v in values)
    if len(set(clean)) != len(clean):
        raise SchemaError(f"{what} names an entry twice", code="schema.categories")
    return clean


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One condition of a case.

    Attributes:
        name: unique in the schema.
        kind: numeric or categorical.
        low, high: declared range in ``unit``; numeric fields only. Never a table's extremes.
        unit: for people; part of the schema's id, because another unit is another meaning.
        categories: 2 to 100 names; categorical fields only.
        weight: how much a difference counts in similarity, 0 to 10 in hundredths; default 1.
        facet: packets and questions must agree exactly on this field (categorical only).
        integer: values are whole numbers (for display and for ``infer``).
        description: for people; not part of the schema's id.

    Raises:
        SchemaError: on any value outside the above.
    """

    name: str
    kind: FieldKind
    low: Decimal | None = None
    high: Decimal | None = None
    unit: str = ""
    categories: tuple[str, ...] = ()
    weight: Decimal = Decimal(1)
    facet: bool = False
    integer: bool = False
    description: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        what = f"field '{self.name}'"
        object.__setattr__(self, "name", _text(self.name, "a field's name"))
        object.__setattr__(self, "unit", _text(self.unit, f"{what}: unit", empty=True))
        if not (self.weight.is_finite() and 0 <= self.weight <= MAX_WEIGHT):
            raise SchemaError(f"{what}: weight must lie between 0 and {MAX_WEIGHT}", code="schema.weight")
        if self.weight != self.weight.quantize(Decimal("0.01")):
            raise SchemaError(f"{what}: weight takes at most two decimals", code="schema.weight")
        if self.kind is FieldKind.NUMERIC:
            _range(self.low, self.high, what)
            if self.categories or self.facet:
                raise SchemaError(
                    f"{what} is numeric: it can have neither categories nor be a facet", code="schema.field"
                )
        else:
            if self.low is not None or self.high is not None or self.unit or self.integer:
                raise SchemaError(
                    f"{what} is categorical: it has categories, not a range or a unit", code="schema.field"
                )
            object.__setattr__(self, "categories", _names(self.categories, f"{what}: categories", 2, MAX_CATEGORIES))

    @property
    def width(self) -> int:
        """Slots that the field takes."""
        return 1 if self.kind is FieldKind.NUMERIC else len(self.categories)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is learnt about a case in the end.

    Attributes:
        name: the outcome's name.
        kind: binary, categorical or numeric.
        classes: binary: exactly two, the second is the positive one; categorical: 3 to 10; numeric: none.
        low, high, unit: declared range; numeric only.
        description: for people; not part of the schema's id.
    """

    name: str
    kind: OutcomeKind
    classes: tuple[str, ...] = ()
    low: Decimal | None = None
    high: Decimal | None = None
    unit: str = ""
    description: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        what = f"outcome '{self.name}'"
        object.__setattr__(self, "name", _text(self.name, "the outcome's name"))
        object.__setattr__(self, "unit", _text(self.unit, f"{what}: unit", empty=True))
        if self.kind is OutcomeKind.NUMERIC:
            _range(self.low, self.high, what)
            if self.classes:
                raise SchemaError(f"{what} is numeric: it has no classes", code="schema.outcome")
        else:
            if self.low is not None or self.high is not None or self.unit:
                raise SchemaError(f"{what} has classes: it has no range and no unit", code="schema.outcome")
            fewest, most = (2, 2) if self.kind is OutcomeKind.BINARY else (3, MAX_CLASSES)
            object.__setattr__(self, "classes", _names(self.classes, f"{what}: classes", fewest, most))

    @property
    def has_classes(self) -> bool:
        """Whether the outcome is one of a few classes (binary or categorical)."""
        return self.kind is not OutcomeKind.NUMERIC


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """The floor below which a node refuses to emit.

    Attributes:
        distiller: ``COHORT`` (k subjects a packet) or ``SINGLE`` (data about no person only).
        k: fewest subjects in a packet; at least 2 for cohorts, exactly 1 for single.
        subject: what a subject is, for people ("patient", "flight").
    """

    distiller: Distiller = Distiller.COHORT
    k: int = 5
    subject: str = "subject"

    def __post_init__(self) -> None:
        object.__setattr__(self, "subject", _text(self.subject, "privacy: subject"))
        object.__setattr__(self, "k", _whole(self.k, "privacy: k"))
        if self.distiller is Distiller.SINGLE and self.k != 1:
            raise SchemaError("privacy: distiller 'single' goes with k = 1", code="schema.privacy")
        if self.distiller is Distiller.COHORT and not 2 <= self.k <= 10_000:
            raise SchemaError("privacy: a cohort needs k between 2 and 10000", code="schema.privacy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Time:
    """How time is coarsened and how long a packet lives.

    Attributes:
        bucket_seconds: width of the observed-at bucket; buckets start at multiples of it since 1970-01-01 UTC.
        lifetime_seconds: longest lifetime of a packet after the end of its bucket.
    """

    bucket_seconds: int = 30 * 86_400
    lifetime_seconds: int = 5 * 365 * 86_400

    def __post_init__(self) -> None:
        object.__setattr__(self, "bucket_seconds", _whole(self.bucket_seconds, "time: bucket"))
        object.__setattr__(self, "lifetime_seconds", _whole(self.lifetime_seconds, "time: lifetime"))
        if not 1 <= self.bucket_seconds <= 10 * 366 * 86_400:
            raise SchemaError("time: bucket must last between a second and ten years", code="schema.time")
        if not 1 <= self.lifetime_seconds <= MAX_LIFETIME_SECONDS:
            raise SchemaError("time: lifetime must last between a second and a hundred years", code="schema.time")

    def bucket(self, seconds: int) -> int:
        """Start of the bucket that holds ``seconds`` (since 1970-01-01 UTC)."""
        return seconds - seconds % self.bucket_seconds


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What a network agrees on. Immutable; ``id`` names it.

    Attributes:
        name: for people, and part of the id.
        fields: conditions in slot order; at most ``MAX_SLOTS`` slots together.
        outcome: what is learnt.
        privacy: the floor.
        time: buckets and lifetime.
        landmarks: public reference points of ``width`` slots.
        parent: id of the schema that this one replaces (32 bytes), or ``b""``.
    """

    name: str
    fields: tuple[Field, ...]
    outcome: Outcome
    privacy: Privacy
    time: Time
    landmarks: Landmarks
    parent: bytes = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _text(self.name, "the schema's name"))
        if not 1 <= len(self.fields) <= MAX_FIELDS:
            raise SchemaError(f"a schema has between 1 and {MAX_FIELDS} fields", code="schema.fields")
        names = [f.name for f in self.fields]
        if len(set(names)) != len(names):
            raise SchemaError("two fields share a name", code="schema.fields")
        if self.outcome.name in names:
            raise SchemaError(
                f"'{self.outcome.name}' is the outcome and cannot be a condition too", code="schema.fields"
            )
        if self.width > MAX_SLOTS:
            raise SchemaError(
                f"the fields take {self.width} slots; a packet has {MAX_SLOTS}. Merge rare categories or leave "
                "fields out",
                code="schema.slots",
            )
        if all(f.weight == 0 for f in self.fields if not f.facet):
            raise SchemaError("every field has weight 0: nothing would be similar to anything", code="schema.weight")
        if math.prod(f.width + 1 for f in self.facets) > MAX_FACET_COMBINATIONS:
            raise SchemaError("the facets have too many combinations: leave facets out", code="schema.facets")
        if len(self.parent) not in (0, 32):
            raise SchemaError("parent is a schema id of 32 bytes", code="schema.parent")
        from outroute.schema.encoding import codes_problem

        if self.landmarks.codes.shape[1] != self.width:
            raise SchemaError(
                f"the landmarks have {self.landmarks.codes.shape[1]} slots, the fields {self.width}; learn them anew",
                code="schema.landmarks",
            )
        problem = codes_problem(self, self.landmarks.codes)
        if problem.any() or (self.landmarks.codes == MISSING).any():
            raise SchemaError("a landmark holds a code that the fields do not allow", code="schema.landmarks")

    @cached_property
    def width(self) -> int:
        """Slots that the conditions take."""
        return sum(f.width for f in self.fields)

    @cached_property
    def slots(self) -> Mapping[str, slice]:
        """The slots of each field, by its name."""
        out: dict[str, slice] = {}
        at = 0
        for f in self.fields:
            out[f.name] = slice(at, at + f.width)
            at += f.width
        return MappingProxyType(out)

    @cached_property
    def slot_weights(self) -> NDArray[np.int64]:
        """Integer weight of each slot in squared distances, int64 ``[width]``.

        A numeric slot counts ``2 w``, a category slot ``w`` (``w`` = weight in hundredths), so that the largest
        difference of one field is ``2 w SCALE^2`` whichever its kind.
        """
        out: list[int] = []
        for f in self.fields:
            w = int(f.weight * 100)
            out += [2 * w] if f.kind is FieldKind.NUMERIC else [w] * f.width
        return np.array(out, dtype=np.int64)

    @cached_property
    def category_slots(self) -> NDArray[np.float32]:
        """Which slots belong to which categorical field: 0 or 1, float32 ``[width, categorical fields]``."""
        own = [f for f in self.fields if f.kind is FieldKind.CATEGORICAL]
        out = np.zeros((self.width, len(own)), dtype=np.float32)
        for column, f in enumerate(own):
            out[self.slots[f.name], column] = 1
        return out

    @cached_property
    def facets(self) -> tuple[Field, ...]:
        """Fields on which packets and questions must agree exactly."""
        return tuple(f for f in self.fields if f.facet)

    @cached_property
    def id(self) -> bytes:
        """The schema's name in the network: 32 bytes, hash of its canonical form."""
        from outroute.schema.canonical import schema_id

        return schema_id(self)

    def field(self, name: str) -> Field:
        """The field called ``name``.

        Raises:
            SchemaError: when there is none; names the closest ones.
        """
        for f in self.fields:
            if f.name == name:
                return f
        import difflib

        close = difflib.get_close_matches(name, [f.name for f in self.fields], n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise SchemaError(f"the schema has no field '{name}'{hint}", code="schema.no_field")
