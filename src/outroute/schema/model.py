"""The values that make up a schema, checked when they are made.

Source: DESIGN section 4 (schemas are immutable; canonical form holds integers and decimal strings, no floats).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from enum import Enum, IntEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import SchemaError
from outroute.schema.checks import MAX_NAME_BYTES, decimal_range, names_of, text_of, whole_of
from outroute.schema.declared import SCALE, recipe_of
from outroute.schema.landmarks import Landmarks
from outroute.schema.privacy import DISSENT, MAX_FLIP, MAX_NOISE, Distiller, Privacy

__all__ = [
    "MAX_CATEGORIES",
    "MAX_CLASSES",
    "MAX_FLIP",
    "MAX_FIELDS",
    "MAX_LIFETIME_SECONDS",
    "MAX_NAME_BYTES",
    "MAX_NOISE",
    "MAX_ORGANISATIONS",
    "MAX_RELEASE_PACKETS",
    "MAX_SLOTS",
    "MAX_WEIGHT",
    "DISSENT",
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
MAX_FACET_COMBINATIONS = 2**53
"""Combinations of facets: their number is exact in any language, JSON included."""
ORGANISATION_BYTES = 32
"""An organisation's public key (Ed25519)."""
MAX_ORGANISATIONS = 100
"""Organisations that a schema may name: each of them reads and signs it."""
MAX_RELEASE_PACKETS = 16_384
"""Packets of one release under the distiller ``private``, empty cells too: 8 MB to make, approve and keep."""
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
        action: somebody chose this value (a treatment, a route, a setting), so that outcomes may be compared by it. It
            is a condition like any other everywhere else.
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
    action: bool = False
    integer: bool = False
    description: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        what = f"field '{self.name}'"
        object.__setattr__(self, "name", text_of(self.name, "a field's name"))
        object.__setattr__(self, "unit", text_of(self.unit, f"{what}: unit", empty=True))
        if not (self.weight.is_finite() and 0 <= self.weight <= MAX_WEIGHT):
            raise SchemaError(f"{what}: weight must lie between 0 and {MAX_WEIGHT}", code="schema.weight")
        if self.weight != self.weight.quantize(Decimal("0.01")):
            raise SchemaError(f"{what}: weight takes at most two decimals", code="schema.weight")
        if self.kind is FieldKind.NUMERIC:
            decimal_range(self.low, self.high, what)
            if self.categories or self.facet:
                raise SchemaError(
                    f"{what} is numeric: it can have neither categories nor be a facet", code="schema.field"
                )
        else:
            if self.low is not None or self.high is not None or self.unit or self.integer:
                raise SchemaError(
                    f"{what} is categorical: it has categories, not a range or a unit", code="schema.field"
                )
            object.__setattr__(self, "categories", names_of(self.categories, f"{what}: categories", 2, MAX_CATEGORIES))

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
        object.__setattr__(self, "name", text_of(self.name, "the outcome's name"))
        object.__setattr__(self, "unit", text_of(self.unit, f"{what}: unit", empty=True))
        if self.kind is OutcomeKind.NUMERIC:
            decimal_range(self.low, self.high, what)
            if self.classes:
                raise SchemaError(f"{what} is numeric: it has no classes", code="schema.outcome")
        else:
            if self.low is not None or self.high is not None or self.unit:
                raise SchemaError(f"{what} has classes: it has no range and no unit", code="schema.outcome")
            fewest, most = (2, 2) if self.kind is OutcomeKind.BINARY else (3, MAX_CLASSES)
            object.__setattr__(self, "classes", names_of(self.classes, f"{what}: classes", fewest, most))

    @property
    def has_classes(self) -> bool:
        """Whether the outcome is one of a few classes (binary or categorical)."""
        return self.kind is not OutcomeKind.NUMERIC


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
        object.__setattr__(self, "bucket_seconds", whole_of(self.bucket_seconds, "time: bucket"))
        object.__setattr__(self, "lifetime_seconds", whole_of(self.lifetime_seconds, "time: lifetime"))
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
        organisations: public keys (32 bytes) of those who must agree, at most ``MAX_ORGANISATIONS``, kept sorted; none
            where nobody has to.
        quorum: how many of them must sign before a node serves the schema; 0 where there are none.
    """

    name: str
    fields: tuple[Field, ...]
    outcome: Outcome
    privacy: Privacy
    time: Time
    landmarks: Landmarks
    parent: bytes = b""
    organisations: tuple[bytes, ...] = ()
    quorum: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", text_of(self.name, "the schema's name"))
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
        if self.privacy.flip and not self.outcome.has_classes:
            raise SchemaError(
                "privacy: flip is for outcomes with classes; a numeric outcome has none to draw from",
                code="schema.privacy",
            )
        self._check_organisations()
        from outroute.schema.encoding import codes_problem

        if self.landmarks.codes.shape[1] != self.width:
            raise SchemaError(
                f"the landmarks have {self.landmarks.codes.shape[1]} slots, the fields {self.width}; learn them anew",
                code="schema.landmarks",
            )
        problem = codes_problem(self, self.landmarks.codes)
        if problem.any() or (self.landmarks.codes == MISSING).any():
            raise SchemaError("a landmark holds a code that the fields do not allow", code="schema.landmarks")
        self._check_private()

    def _check_organisations(self) -> None:
        object.__setattr__(self, "quorum", whole_of(self.quorum, "quorum"))
        object.__setattr__(self, "organisations", tuple(sorted(self.organisations)))
        count = len(self.organisations)
        if any(len(key) != ORGANISATION_BYTES for key in self.organisations):
            raise SchemaError(
                "an organisation is named by its public key of 32 bytes: outroute org show prints it",
                code="schema.organisations",
            )
        if len(set(self.organisations)) != count or count > MAX_ORGANISATIONS:
            raise SchemaError(
                f"a schema names at most {MAX_ORGANISATIONS} organisations, each of them once",
                code="schema.organisations",
            )
        if not count and self.quorum:
            raise SchemaError("a quorum needs organisations to be named", code="schema.quorum")
        if count and not 1 <= self.quorum <= count:
            raise SchemaError(
                f"{count} organisations are named: the quorum is a number from 1 to {count}", code="schema.quorum"
            )

    def _check_private(self) -> None:
        if self.privacy.distiller is not Distiller.PRIVATE:
            return
        packets = len(self.landmarks) * math.prod(f.width + 1 for f in self.facets)
        if packets > MAX_RELEASE_PACKETS:
            raise SchemaError(
                f"privacy: a release under 'private' has a packet for each landmark and combination of facets, here "
                f"{packets:,}, and {MAX_RELEASE_PACKETS:,} at most: take fewer landmarks, or make facets plain fields",
                code="schema.private",
            )
        if not self.privacy.public_landmarks and recipe_of(self.fields, self.landmarks) is None:
            raise SchemaError(
                "privacy: under 'private' landmarks must not be learnt from protected records, for they stand in the "
                'schema. Use kind = "grid" or "drawn"; or, where these were learnt from public records, say so: '
                "[landmarks] public = true",
                code="schema.private",
            )

    def __getstate__(self) -> dict[str, Any]:
        # Without what it has worked out about itself, some of which cannot be pickled.
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def __hash__(self) -> int:
        return hash(self.id)  # kept, unlike that of all fields: caches ask for it with every batch of packets

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
