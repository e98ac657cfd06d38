"""Landmarks that follow from the declared fields alone: drawn from the ranges, or laid out as a grid over some fields.

Neither looks at a record, so both may be used where landmarks must not tell anything about anybody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.errors import SchemaError
from outroute.schema.canonical import canonical_fields
from outroute.schema.checks import whole_of
from outroute.schema.landmarks import DEFAULT_LANDMARKS, MAX_LANDMARKS, Landmarks, draw

if TYPE_CHECKING:
    from outroute.schema.model import Field

__all__ = ["SCALE", "Recipe", "drawn_landmarks", "grid_landmarks", "recipe_of"]

SCALE = 65534
"""Largest condition code: a numeric field at its declared high end, or a category with the whole share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How landmarks follow from the fields.

    Attributes:
        count: how many were drawn; 0 for a grid.
        levels: of a grid, how many levels each field has that has several.
    """

    count: int = 0
    levels: Mapping[str, int]

    @property
    def kind(self) -> str:
        """``"drawn"`` or ``"grid"``."""
        return "grid" if self.levels else "drawn"


def drawn_landmarks(fields: tuple[Field, ...], count: int = DEFAULT_LANDMARKS) -> Landmarks:
    """Landmarks drawn from the declared ranges: what a schema has when nothing was learnt."""
    return draw(tuple(f.width for f in fields), count=count, scale=SCALE, seed=canonical_fields(fields))


def grid_landmarks(fields: tuple[Field, ...], levels: Mapping[str, int]) -> Landmarks:
    """A grid over some fields: every combination of their levels, in the order of the fields, the last moving fastest.

    A numeric field of n levels is cut into n equal parts of its range, and a landmark stands in the middle of each:
    code ``(2 i + 1) SCALE // (2 n)``. A categorical field has its categories for levels, all of them. All other fields
    stand in the middle, for categories in equal shares, so that they do not decide to which cell a case belongs.

    Args:
        fields: of the schema.
        levels: how many levels a field has, 2 or more.

    Raises:
        SchemaError: ``schema.landmarks``, a field that is not there, has no such levels, or is a facet; or too many.
    """
    known = {f.name: f for f in fields}
    for name, count in levels.items():
        f = known.get(name)
        if f is None or f.facet:
            raise SchemaError(
                f"[landmarks] levels: '{name}' is no field, or a facet, which parts packets anyway",
                code="schema.landmarks",
            )
        most = len(f.categories) if f.categories else MAX_LANDMARKS
        if not 2 <= whole_of(count, f"[landmarks] levels: {name}") <= most or (f.categories and count != most):
            raise SchemaError(
                f"[landmarks] levels: '{name}' takes "
                + (f"its {most} categories as levels" if f.categories else f"2 to {MAX_LANDMARKS:,} levels"),
                code="schema.landmarks",
            )
    if not levels or math.prod(levels.values()) > MAX_LANDMARKS:
        raise SchemaError(
            f"[landmarks] a grid has 2 to {MAX_LANDMARKS:,} landmarks: the levels multiplied with each other",
            code="schema.landmarks",
        )
    parts = [_levels(f, levels.get(f.name, 1)) for f in fields]
    return Landmarks(np.array([np.concatenate(row) for row in product(*parts)], dtype=np.uint16))


def recipe_of(fields: tuple[Field, ...], landmarks: Landmarks) -> Recipe | None:
    """How these landmarks follow from the fields; None where they do not, that is, were learnt."""
    levels: dict[str, int] = {}
    at = 0
    for f in fields:
        if not f.facet:
            count = len(np.unique(landmarks.codes[:, at : at + f.width], axis=0))
            if count > 1 and (not f.categories or count == len(f.categories)):
                levels[f.name] = count
        at += f.width
    if levels and math.prod(levels.values()) == len(landmarks) and grid_landmarks(fields, levels) == landmarks:
        return Recipe(levels=levels)
    if drawn_landmarks(fields, len(landmarks)) == landmarks:
        return Recipe(count=len(landmarks), levels={})
    return None


def _levels(f: Field, count: int) -> list[NDArray[np.int64]]:
    """The codes of each level of a field."""
    if not f.categories:
        return [np.array([(2 * i + 1) * SCALE // (2 * count)], dtype=np.int64) for i in range(count)]
    whole = np.eye(f.width, dtype=np.int64) * SCALE
    if count > 1 or f.facet:
        return list(whole[:count])
    shares = np.full(f.width, SCALE // f.width, dtype=np.int64)
    shares[: SCALE % f.width] += 1
    return [shares]
