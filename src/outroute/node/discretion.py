"""Asking for more than is needed, so that holders learn less about the case: whole groups of cells, or dummies.

A question carries addresses only, but a holder knows its cells: plainly asked, it learns which cell a case lies in.
Nothing here hides from a holder *that* a node asks, which facets the case has, or that somebody learns something.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from outroute.distill.grouping import blocks_of
from outroute.errors import DataError
from outroute.fingerprint import cells
from outroute.schema import Schema

__all__ = ["MAX_DUMMIES", "MAX_GROUP", "Discretion", "cover", "groups_of"]

MAX_GROUP = 1024
"""Cells of a group: with 256 packets each, an answer of 134 MB."""
MAX_DUMMIES = 64
"""Dummies of a question: 65 times the bytes."""

Pair = tuple[int, int]
"""Facet number and cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discretion:
    """How much more than needed a node asks for; nothing by default.

    Attributes:
        group: ask for whole groups of up to so many neighbouring cells, the same for everybody: those that hold the
            nearest cells. 0: for the nearest cells alone.
        dummies: for each cell in which a case lies, ask the same way about so many others too, always the same ones.
    """

    group: int = 0
    dummies: int = 0

    def __post_init__(self) -> None:
        if self.group and self.dummies:
            raise DataError("questions are coarse or come with dummies, not both", code="data.questions")
        if not (self.group == 0 or 2 <= self.group <= MAX_GROUP) or not 0 <= self.dummies <= MAX_DUMMIES:
            raise DataError(
                f"a group has 2 to {MAX_GROUP} cells, a question 1 to {MAX_DUMMIES} dummies", code="data.questions"
            )

    @classmethod
    def parse(cls, text: str) -> Discretion:
        """``plain``, ``coarse=N`` (cells of a group) or ``dummies=N``.

        Raises:
            DataError: it is none of these.
        """
        found = re.fullmatch(r"plain|(coarse|dummies)=([0-9]{1,6})", text)
        if found is None or found[2] == "0":
            raise DataError(
                f"questions are plain, coarse=N or dummies=N (say coarse=16, dummies=3), not {text[:40]!r}",
                code="data.questions",
            )
        number = int(found[2] or 0)
        return cls(group=number if found[1] == "coarse" else 0, dummies=number if found[1] == "dummies" else 0)


@lru_cache(maxsize=16)
def groups_of(schema: Schema, size: int) -> NDArray[np.int64]:
    """Group of each cell, int64[landmarks]: neighbours, by halving across the direction of greatest variance.

    The same for everybody who has the schema, so that groups say nothing about who asks.
    """
    points = (schema.landmarks.codes * np.sqrt(schema.slot_weights)).astype(np.float32)
    out = np.empty(len(points), dtype=np.int64)
    for number, rows in enumerate(blocks_of(points, np.arange(len(points)), 1, size)):
        out[rows] = number
    return out


def cover(
    schema: Schema,
    codes: NDArray[np.uint16],
    facet: NDArray[np.int64],
    *,
    probes: int,
    discretion: Discretion,
    secret: bytes,
) -> set[Pair]:
    """The cells to ask for cases.

    With dummies, a case is asked about as if it lay at the landmark of its cell, and so is every dummy: what is asked
    for is of one form, whichever is real. A dummy depends on the cell and the secret alone, so that asking again,
    about the same case or another one in its cell, shows nothing new.

    Args:
        schema: landmarks.
        codes: uint16[m, D].
        facet: int64[m]; number of the facet combination of each.
        probes: nearest cells of each.
        discretion: how.
        secret: 32 bytes of this node alone, the same for as long as it lives.
    """
    near = cells(schema, codes, probes)
    if discretion.group:
        group = groups_of(schema, discretion.group)
        inside = [np.flatnonzero(group == number).tolist() for number in range(int(group.max()) + 1)]
        wanted = {
            (f, number) for f, some in zip(facet.tolist(), group[near].tolist(), strict=True) for number in set(some)
        }
        return {(f, cell) for f, number in wanted for cell in inside[number]}
    if discretion.dummies:
        homes = set(zip(facet.tolist(), near[:, 0].tolist(), strict=True))
        asked = {
            (f, one) for f, cell in homes for one in (cell, *_dummies(schema, f, cell, discretion.dummies, secret))
        }
        return _around(schema, asked, probes)
    return {(f, cell) for f, some in zip(facet.tolist(), near.tolist(), strict=True) for cell in some}


def _around(schema: Schema, asked: Iterable[Pair], probes: int) -> set[Pair]:
    """The nearest cells of these cells' landmarks."""
    pairs = sorted(asked)
    near = cells(schema, schema.landmarks.codes[[cell for _, cell in pairs]], probes)
    return {(f, cell) for (f, _), some in zip(pairs, near.tolist(), strict=True) for cell in some}


def _dummies(schema: Schema, facet: int, cell: int, count: int, secret: bytes) -> list[int]:
    """Other cells of landmarks with the same facets, drawn by a keyed hash."""
    alike = _alike(schema)
    others = np.flatnonzero((alike == alike[cell]) & (np.arange(len(alike)) != cell)).tolist()
    out: list[int] = []
    for number in range(min(count, len(others))):
        label = schema.id + facet.to_bytes(8, "little") + cell.to_bytes(4, "little") + number.to_bytes(4, "little")
        drawn = hmac.new(secret, b"outroute dummy v1\0" + label, hashlib.sha256).digest()
        out.append(others.pop(int.from_bytes(drawn[:8], "little") % len(others)))
    return out


@lru_cache(maxsize=16)
def _alike(schema: Schema) -> NDArray[np.int64]:
    """Landmarks with equal facets have equal numbers."""
    slots = [slot for item in schema.facets for slot in range(*schema.slots[item.name].indices(schema.width))]
    if not slots:
        return np.zeros(len(schema.landmarks), dtype=np.int64)
    _, out = np.unique(schema.landmarks.codes[:, slots], axis=0, return_inverse=True)
    return out.reshape(-1).astype(np.int64)
