"""Questions: what does somebody who sees the addresses of a question learn of the case that is asked about?

A question carries addresses only. In an open network, and to any member of a keyed one, an address names its cell. The
attacker has records like the asker's (reference rows), so it guesses the mean of those that would have asked the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.scores import FieldScale, decibel
from outroute.fingerprint import cells
from outroute.node.discretion import Discretion, cover
from outroute.schema import facet_index, unit_scale

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["Questioned", "View", "asked_cells", "asked_discreetly", "guess_cases", "questioned"]

PROBES = 4
"""Cells that a node asks by default."""
ALIKE = 5
"""Reference rows that a guess averages."""


class View(Enum):
    """Who looks at a question."""

    ALL = "all"
    """Sees every address of a question and knows the cells: a neighbour on the wire of an open network, or holders that
    work together."""
    ONE = "one"
    """Holds one of the cells, and sees that one address."""
    OUTSIDE = "outside"
    """Sees every address but lacks the network secret: only how often which address is asked, and together with
    which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questioned:
    """Errors of guessing the asker's case.

    Attributes:
        prior: root of the mean squared error of the mean of reference rows, in standard deviations.
        error: the same by view.
        gain: by view, decibel below the prior.
        worst_decile: decibel for the tenth of cases that View.ALL gives away most.
        addresses: asked in a question, on average.
    """

    prior: float
    error: Mapping[str, float]
    gain: Mapping[str, float]
    worst_decile: float
    addresses: float

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "prior": self.prior,
            "error": dict(self.error),
            "gain_db": dict(self.gain),
            "worst_decile_db": self.worst_decile,
            "addresses": self.addresses,
        }


def asked_cells(schema: Schema, codes: NDArray[np.uint16], probes: int = PROBES) -> NDArray[np.bool_]:
    """Which cells each case asks, bool[n, landmarks], as a node does it: the nearest ones."""
    out = np.zeros((len(codes), len(schema.landmarks)), dtype=bool)
    np.put_along_axis(out, cells(schema, codes, probes), True, axis=1)
    return out


def asked_discreetly(
    schema: Schema, codes: NDArray[np.uint16], discretion: Discretion, secret: bytes, probes: int = PROBES
) -> NDArray[np.bool_]:
    """Which cells each case asks, bool[n, landmarks], when a node asks for more than it needs.

    Args:
        schema: the schema.
        codes: uint16[n, D].
        discretion: whole groups of cells, or dummies.
        secret: 32 bytes of the asking node alone, by which dummies are drawn.
        probes: nearest cells of a case.
    """
    facet = facet_index(schema, codes)
    out = np.zeros((len(codes), len(schema.landmarks)), dtype=bool)
    for row in range(len(codes)):
        part = slice(row, row + 1)
        pairs = cover(schema, codes[part], facet[part], probes=probes, discretion=discretion, secret=secret)
        out[row, [cell for _, cell in pairs]] = True
    return out


def guess_cases(
    asked: NDArray[np.bool_], reference_asked: NDArray[np.bool_], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Guesses for cases from the addresses that they asked, float64[n, D].

    Args:
        asked: bool[n, L], addresses that each question shows.
        reference_asked: bool[r, L], what reference rows would ask.
        reference: float64[r, D], unit scale, NaN where missing.
    """
    a, b = asked.astype(np.float64), reference_asked.astype(np.float64)
    both = a @ b.T
    overlap = both / np.maximum(a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :] - both, 1.0)
    known = ~np.isnan(reference)
    filled = np.where(known, reference, 0.0)
    # The rows that would ask most alike: all that overlap as much as the fifth best.
    cut = np.sort(overlap, axis=1)[:, -min(ALIKE, overlap.shape[1])]
    weight = (overlap >= cut[:, None] - 1e-12) * (overlap + 1e-9)
    count = weight @ known
    middle = filled.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.asarray(np.where(count > 0, (weight @ filled) / np.maximum(count, 1e-12), middle))


def questioned(
    schema: Schema,
    codes: NDArray[np.uint16],
    reference: NDArray[np.uint16],
    rng: np.random.Generator,
    *,
    asked: NDArray[np.bool_] | None = None,
    reference_asked: NDArray[np.bool_] | None = None,
    probes: int = PROBES,
    scale: FieldScale | None = None,
) -> Questioned | None:
    """Attack the questions of some cases.

    Args:
        schema: the schema.
        codes: uint16[n, D], the cases that are asked about.
        reference: uint16[r, D], records that the attacker has.
        rng: breaks ties between addresses asked equally often.
        asked: bool[n, L], addresses of each question; None: the nearest ``probes``.
        reference_asked: bool[r, L], the same rule applied to the reference; None: as for ``asked``. Dummy addresses, if
            any, are drawn by the attacker itself.
        probes: see ``asked``.
        scale: units of errors; None: from the reference.
    """
    if not len(codes) or len(reference) < ALIKE:
        return None
    x, known = unit_scale(schema, codes), unit_scale(schema, reference)
    scale = scale or FieldScale.of(schema, known)
    asked = asked_cells(schema, codes, probes) if asked is None else asked
    theirs = asked_cells(schema, reference, probes) if reference_asked is None else reference_asked
    middle = np.tile(FieldScale.of(schema, known).mean, (len(x), 1))
    # One holder sees one of the addresses, whichever: the average over them.
    nearest = np.zeros_like(asked)
    nearest[np.arange(len(asked)), [int(rng.choice(np.flatnonzero(row))) for row in asked]] = True
    guesses = {
        View.ALL: guess_cases(asked, theirs, known),
        View.ONE: guess_cases(nearest, theirs, known),
        View.OUTSIDE: guess_cases(_named_by_frequency(asked, theirs, rng), theirs, known),
    }
    prior = scale.errors(x, middle)
    errors = {view: scale.errors(x, found) for view, found in guesses.items()}
    base = float(np.nanmean(prior))
    gain = np.log10(np.maximum(prior, 1e-9)) - np.log10(np.maximum(errors[View.ALL], 1e-9))
    most = np.argsort(-np.nan_to_num(gain, nan=-np.inf), kind="stable")[: max(1, len(gain) // 10)]
    return Questioned(
        prior=float(np.sqrt(base)),
        error={view.value: float(np.sqrt(np.nanmean(found))) for view, found in errors.items()},
        gain={view.value: decibel(base, float(np.nanmean(found))) for view, found in errors.items()},
        worst_decile=decibel(float(np.nanmean(prior[most])), float(np.nanmean(errors[View.ALL][most]))),
        addresses=float(asked.sum(axis=1).mean()),
    )


def _named_by_frequency(
    asked: NDArray[np.bool_], theirs: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """What an outsider takes addresses for: the i-th most asked one is the i-th most asked cell of the reference."""
    shuffled = asked[:, rng.permutation(asked.shape[1])]  # keyed: which column is which cell is unknown
    seen = np.lexsort((rng.random(asked.shape[1]), -shuffled.sum(axis=0)))
    expected = np.lexsort((rng.random(asked.shape[1]), -theirs.sum(axis=0)))
    out = np.zeros_like(asked)
    out[:, expected] = shuffled[:, seen]
    return out
