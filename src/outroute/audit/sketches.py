"""Conditions from a fingerprint alone: the projection is public, only 256 signs are given.

Source: Boufounos and Baraniuk, "1-Bit Compressive Sensing" (CISS 2008), for recovery from signs of known projections.
Departure: a Gaussian prior (mean and covariance that the attacker knows) in place of sparsity, and a logistic
likelihood of the signs, so that the length of the vector, which signs do not tell, comes from the prior.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.fingerprint import SKETCH_BITS, projection, sketch
from outroute.schema import SCALE

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["Prior", "from_signs", "from_sketches", "prior_of"]

Prior = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean float64[D] and covariance float64[D, D] in unit scale."""

STEEPNESS = 6.0
"""Slope of the likelihood at a plane, in standard deviations of the prior along its normal, for up to 768 signs: best
of 3, 6, 12, 30 on digits with 256. It grows with the number of signs: more of them leave less room at each plane."""
BITS_PER_SLOPE = 128
"""Signs for each unit of slope beyond that: 4,096 signs of digits take 32."""
STEPS = 25
"""Newton steps at most; it converges in about ten."""
RIDGE = 1e-4
"""Variance added to every slot of the prior, in unit scale: fields that never varied may still vary."""


def prior_of(x: NDArray[np.float64]) -> Prior:
    """Mean and covariance of rows in unit scale, float64[n, D]; missing values take the mean."""
    known = ~np.isnan(x)
    mean = np.where(known, x, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, x - mean, 0.0)
    return mean, centred.T @ centred / max(len(x), 1) + RIDGE * np.eye(x.shape[1])


def from_sketches(schema: Schema, codes: NDArray[np.uint16], prior: Prior) -> NDArray[np.float64]:
    """What the fingerprints of some packets tell, float64[m, D] in unit scale.

    Args:
        schema: gives the projection.
        codes: uint16[m, D], conditions of packets; nothing but their fingerprints is used.
        prior: what the attacker knows about records.
    """
    planes, centre = projection(schema)
    bits = np.unpackbits(sketch(schema, codes), axis=1, bitorder="little")[:, :SKETCH_BITS]
    return np.clip(from_signs(bits.astype(bool), planes, centre / SCALE, prior), 0.0, 1.0)


def from_signs(
    bits: NDArray[np.bool_], planes: NDArray[np.float64], centre: NDArray[np.float64], prior: Prior
) -> NDArray[np.float64]:
    """Most probable vectors given on which side of known planes they lie, float64[m, D].

    Args:
        bits: bool[m, b]; true where ``(x - centre) @ planes`` is above zero.
        planes: float64[D, b], normals.
        centre: float64[D], a point on all planes.
        prior: mean and covariance of x.
    """
    mean, covariance = prior
    deviation = np.sqrt(np.einsum("db,de,eb->b", planes, covariance, planes))
    normal = planes / np.maximum(deviation, 1e-12) * max(STEEPNESS, planes.shape[1] / BITS_PER_SLOPE)
    precision = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
    out = np.empty((len(bits), len(mean)))
    for row, mine in enumerate(bits):
        found = _most_probable(np.where(mine, 1.0, -1.0), normal, centre, mean, precision) - centre
        out[row] = centre + found * _length(found, mean - centre, precision)
    return out


def _length(direction: NDArray[np.float64], middle: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """The most probable length along a direction, under the prior in polar coordinates; signs tell nothing of it."""
    bend = float(direction @ precision @ direction)
    if bend <= 0:
        return 1.0
    slope = float(direction @ precision @ middle)
    return (slope + float(np.sqrt(slope**2 + 4 * bend * (len(direction) - 1)))) / (2 * bend)


def _most_probable(
    sign: NDArray[np.float64],
    normal: NDArray[np.float64],
    centre: NDArray[np.float64],
    mean: NDArray[np.float64],
    precision: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Newton's method with halved steps; the objective is convex."""

    def cost(x: NDArray[np.float64]) -> float:
        margin = sign * ((x - centre) @ normal)
        return float(0.5 * (x - mean) @ precision @ (x - mean) + np.logaddexp(0.0, -margin).sum())

    x = mean.copy()
    value = cost(x)
    for _ in range(STEPS):
        margin = sign * ((x - centre) @ normal)
        wrong = 0.5 - 0.5 * np.tanh(margin / 2)
        slope = precision @ (x - mean) - normal @ (sign * wrong)
        bend = precision + (normal * (wrong * (1 - wrong))) @ normal.T
        move = np.linalg.solve(bend, slope)
        rate = 1.0
        while rate > 1e-4 and cost(x - rate * move) > value:
            rate /= 2
        if rate <= 1e-4:
            break
        x = x - rate * move
        before, value = value, cost(x)
        if before - value < 1e-6 * abs(before):
            break
    return x
