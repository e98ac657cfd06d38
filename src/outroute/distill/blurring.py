"""Noise on what a cohort says, where the schema asks for it: conditions by a normal deviate, outcomes by lot.

Disclosure limitation, not a guarantee: the amounts are chosen so that the attacks of ``outroute audit`` fail, and count
for nothing towards differential privacy (nothing is clipped or accounted for). Each emission draws noise of its own, so
that averaging several packets of one cohort would remove it; a cohort is emitted once, and again only under a
successor of the schema, with the same noise.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill.model import Cohorts
from outroute.errors import DataError
from outroute.schema import MISSING, SCALE, FieldKind

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["NOISE_KEY_BYTES", "blurred", "deviates"]

NOISE_KEY_BYTES = 32
"""Bytes of the secret from which noise is drawn."""


def deviates(key: bytes, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Uniform deviates strictly between 0 and 1 that nobody can tell without the key, float64[shape].

    From the extendable output of SHAKE-256, not from a generator for simulations, whose state could be worked out.
    """
    count = int(np.prod(shape))
    raw = hashlib.shake_256(b"outroute noise v1\0" + key).digest(8 * count)
    whole = (np.frombuffer(raw, dtype="<u8") >> np.uint64(11)).astype(np.float64)
    return np.asarray((whole + 0.5) * 2.0**-53, dtype=np.float64).reshape(shape)


def blurred(schema: Schema, made: Cohorts, key: bytes) -> Cohorts:
    """Cohorts with the noise that the schema's ``privacy.noise`` and ``privacy.flip`` ask for; unchanged without.

    *Conditions*: a normal deviate of standard deviation ``noise``, as a share of the declared range, is added to each
    numeric slot, and to each category's share before shares are made to sum to one; cut to the range. What is missing
    stays missing, and facets stay. *Outcomes* (classes): each member's is replaced with probability ``flip`` by one
    drawn evenly among all classes; who receives such packets corrects for it.

    Args:
        schema: how much.
        made: the cohorts.
        key: secret bytes, other ones for every emission.

    Raises:
        DataError: the key has not 32 bytes.
    """
    if len(key) != NOISE_KEY_BYTES:
        raise DataError(f"noise is drawn from a secret of {NOISE_KEY_BYTES} bytes", code="distill.noise")
    noise, flip = float(schema.privacy.noise), float(schema.privacy.flip)
    if not len(made) or not (noise or flip):
        return made
    codes, counts = made.codes, made.counts
    if noise:
        codes = _conditions(schema, codes, noise * _normal(deviates(key + b"conditions", codes.shape)))
    if flip and counts is not None:
        counts = _outcomes(counts, flip, key + b"outcomes")
    return replace(made, codes=codes, counts=counts)


def _normal(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import ndtri

    return np.asarray(ndtri(uniform), dtype=np.float64)


def _conditions(schema: Schema, codes: NDArray[np.uint16], shift: NDArray[np.float64]) -> NDArray[np.uint16]:
    out = codes.copy()
    for item in schema.fields:
        where = schema.slots[item.name]
        have = codes[:, where.start] != MISSING
        if item.facet or not have.any():
            continue
        moved = np.clip(codes[have, where] / SCALE + shift[have, where], 0.0, 1.0)
        if item.kind is FieldKind.NUMERIC:
            out[have, where] = np.rint(moved * SCALE).astype(np.uint16)
        else:
            out[have, where] = _shares(moved)
    return out


def _shares(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Shares in proportion to values float64[m, C], as codes that sum to ``SCALE``; even ones where all are 0."""
    total = values.sum(axis=1, keepdims=True)
    share = np.where(total > 0, values / np.where(total > 0, total, 1.0), 1.0 / values.shape[1]) * SCALE
    floor = np.floor(share).astype(np.int64)
    left = SCALE - floor.sum(axis=1, keepdims=True)
    rank = np.argsort(np.argsort(-(share - floor), axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(floor + (rank < left), dtype=np.uint16)


def _outcomes(counts: NDArray[np.uint32], flip: float, key: bytes) -> NDArray[np.uint32]:
    classes = counts.shape[1]
    size = counts.sum(axis=1).astype(np.int64)
    cohort = np.repeat(np.arange(len(counts)), size)
    label = np.repeat(np.tile(np.arange(classes), len(counts)), counts.reshape(-1).astype(np.int64))
    drawn = deviates(key, (len(label), 2))
    label = np.where(drawn[:, 0] < flip, np.floor(drawn[:, 1] * classes).astype(np.int64), label)
    flat = np.bincount(cohort * classes + label, minlength=len(counts) * classes)
    return flat.reshape(len(counts), classes).astype(np.uint32)
