"""Which of the candidates add up to a packet? For an attacker who has the list of everybody who may be in.

A packet's conditions are a mean, so members' deviations from it sum to zero in every slot, whatever is missing. With
the candidates known these are linear equations, with 16 bits of precision each, in who is in. They are solved by
non-negative least squares: fewer candidates are left than an integer programme would leave, but in milliseconds.

Source: Dinur and Nissim, "Revealing Information while Preserving Privacy" (PODS 2003), for reconstruction from sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

if TYPE_CHECKING:
    from outroute.audit.emission import Emission
    from outroute.audit.scores import FieldScale

__all__ = ["CANDIDATES", "solve"]

CANDIDATES = 60
"""Nearest candidates of a packet that enter its equations: more are solved no better, only slower."""
COUNT_WEIGHT = 3.0
"""Weight of the equation that says how many are in, against one standard deviation of a field."""


def solve(
    scale: FieldScale,
    x: NDArray[np.float64],
    outcome: NDArray[np.float64],
    emission: Emission,
    possible: NDArray[np.bool_],
    square: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How far each candidate is in some packet, float64[n], 0 to 1.

    Args:
        scale: units of the equations.
        x: float64[n, D], candidates.
        outcome: float64[n, C], theirs.
        emission: packets.
        possible: bool[n, m], packets that could hold a candidate.
        square: float64[n, m], squared distances.
    """
    out = np.zeros(len(x))
    weight = np.sqrt(np.append(scale.weights(), np.ones(outcome.shape[1]) * 4.0))
    values = np.hstack([x, outcome])
    packets = np.hstack([emission.x, emission.outcome])
    for number in range(len(emission)):
        held = np.flatnonzero(possible[:, number])
        size = float(emission.size[number])
        if not len(held) or size < 1:
            continue
        if len(held) > CANDIDATES:
            held = held[np.argpartition(square[held, number], CANDIDATES)[:CANDIDATES]]
        apart = np.nan_to_num(values[held] - packets[number]) * weight
        equations = np.vstack([apart.T, np.full(len(held), COUNT_WEIGHT)])
        wanted = np.append(np.zeros(len(weight)), COUNT_WEIGHT * size)
        share, _ = nnls(equations, wanted, maxiter=30 * len(held))
        out[held] = np.maximum(out[held], np.minimum(share, 1.0))
    return out
