"""Standing: how far all others corroborate a node, without looking at a single pair.

It is the leading eigenvector of

    S_uv = N_uv / sqrt((W_uu + 3) (W_vv + 3)),  S_uu = 0

which is the strength of a path with what either of the two could share in place of what both do share. S is a product
of a sparse matrix with its own transpose, so that S times a vector costs as much as there are entries, and nothing
grows with the number of pairs.

It says whom the majority supports, and nothing about who is right: where attackers are the majority, it is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outroute.elections.profiles import PRIOR_CELLS, Floats, Profiles

__all__ = ["Standing", "standing"]

SMALL = 64
"""Nodes up to which S is formed: Lanczos iteration wants a dimension to move in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far all others corroborate each node.

    Attributes:
        value: float64[n], unit length; of one sign for nodes that corroborate each other. Its own sign is chosen so
            that its sum is positive.
        strength: eigenvalue: the sum of S over all pairs that this vector accounts for.
    """

    value: Floats
    strength: float


def standing(known: Profiles) -> Standing:
    """The leading eigenvector of S, at a cost linear in packets.

    Nodes without a path to anybody have 0. Where two groups have nothing to do with each other, it is that of the
    stronger one.

    Source: Lanczos (1950), as in ARPACK (Lehoucq, Sorensen and Yang 1998), section 4.
    """
    n, row, column = known.nodes, known.row, known.column
    information = np.bincount(row, known.reliability.astype(np.float64) ** 2, n)
    entry = known.signal / np.sqrt(information + PRIOR_CELLS)[row]
    own = np.bincount(row, entry**2, n)

    def times(vector: Floats) -> Floats:
        by_column = np.bincount(column, entry * vector[row], known.width)
        out: Floats = np.bincount(row, entry * by_column[column], n) - own * vector
        return out

    if not entry.any():
        return Standing(value=np.zeros(n), strength=0.0)
    if n <= SMALL:
        values, vectors = np.linalg.eigh(np.stack([times(unit) for unit in np.eye(n)]))
        strength, value = float(values[-1]), vectors[:, -1]
    else:
        from scipy.sparse.linalg import LinearOperator, eigsh

        operator = LinearOperator((n, n), matvec=lambda vector: times(vector.reshape(-1)), dtype=np.float64)
        start = np.sqrt(own) + 1e-3 / np.sqrt(n)
        found, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=1e-10)
        strength, value = float(found[0]), vectors[:, 0]
    value = value * (1.0 if value.sum() >= 0 else -1.0)
    return Standing(value=np.where(np.abs(value) < 1e-12, 0.0, value), strength=strength)
