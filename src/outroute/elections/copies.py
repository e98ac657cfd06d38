"""Copies: what several nodes claim word for word counts once, whoever said it first.

Packets claim the same when outcome, size and time are equal and conditions differ by less than `SAME` of their range.
Two honest nodes hardly ever agree so far, in more than a slot or two. Nobody can tell who copied whom, so those who
claim the same share one say: that of the one among them who is drawn on most, in proportion to how far each is. So
nobody can take weight from an honest packet by copying it without being believed himself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["said_once"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SAME = 0.02
"""Root mean square difference of conditions (share of their range) below which two packets claim the same."""
PAIRS_MOST = 2_000_000
"""Pairs of equal claims that are looked at: an attacker who repeats one packet must not fill the memory. Beyond them
each packet is compared with its nearest ones only."""
NEAREST = 8
"""Packets that each is compared with then."""
DIRECTIONS = (4, 8)
"""Directions in which near packets are looked for: near in all slots is near in these. Few are fast; more are tried
where these few do not tell packets apart."""
COUNTED = 2_048
"""Packets whose near ones are counted to guess the number of pairs."""


def said_once(x: Floats, node: Ints, weight: Floats, said: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Factor of each packet, float64[n], 1/c for c nodes that claim and weigh the same; and who is such a copy.

    Args:
        x: float64[n, D], conditions, unit scale, NaN missing.
        node: int64[n], author.
        weight: float64[N] in [0, 1], how far each author is drawn on; who is not is no claimant.
        said: float64[n, S], all that must be equal: outcome, size, time.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(x)
    if not n:
        return np.ones(0), np.zeros(0, dtype=np.bool_)
    missing = np.isnan(x)
    claimed = _numbered(np.concatenate([said, missing], axis=1))
    filled = np.where(missing, 0.0, x)
    # Exactly equal packets are one point: nobody can make many pairs of them.
    _, first, point = np.unique(_numbered(np.column_stack([claimed, filled])), return_index=True, return_inverse=True)
    point = point.reshape(-1)
    several = np.flatnonzero(np.bincount(claimed[first])[claimed[first]] > 1)
    pairs = several[_near(filled[first[several]], claimed[first[several]], SAME * float(np.sqrt(x.shape[1])))]
    lone = _author(point, node, len(first))
    a, b = lone[pairs[:, 0]], lone[pairs[:, 1]]
    pairs = pairs[(a != b) | (a < 0)]  # near each other by one and the same author is no claim of two
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(first), len(first)))
    _, found = connected_components(links, directed=False)
    claim = found.astype(np.int64)[point]
    nodes = np.int64(len(weight))
    held = np.unique(claim * nodes + node)
    claims, author = held // nodes, weight[held % nodes]
    count = int(claim.max()) + 1
    together, most, factor = np.bincount(claims, author, count), np.zeros(count), np.ones(count)
    np.maximum.at(most, claims, author)
    np.divide(most, together, out=factor, where=together > 0)
    several = np.zeros(count, dtype=np.bool_)
    several[:] = np.bincount(claims[author > 0], minlength=count) > 1
    copied: npt.NDArray[np.bool_] = np.asarray(several[claim] & (weight[node] > 0), dtype=np.bool_)
    return factor[claim], copied


def _numbered(rows: Floats) -> Ints:
    """Number of each distinct row, int64[n].

    Rows are told apart by two sums of products with fixed odd numbers, modulo 2^64 each. Who finds rows that collide
    has made two claims look equal; they still have to lie close together, so nothing is gained by it over a copy.
    """
    words = np.ascontiguousarray(rows + 0.0).view(np.uint64)  # plus zero: no negative zeros
    factors = np.random.default_rng(1).integers(0, 2**63, (2, words.shape[1]), dtype=np.uint64) * 2 + 1
    mixed = (words ^ (words >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    sums = np.stack([(mixed * factor).sum(1, dtype=np.uint64) for factor in factors], axis=1)
    _, place = np.unique(sums[:, 0], return_inverse=True)
    high, other = np.unique(sums[:, 1], return_inverse=True)
    _, number = np.unique(place.reshape(-1).astype(np.int64) * len(high) + other.reshape(-1), return_inverse=True)
    return np.asarray(number.reshape(-1), dtype=np.int64)


def _author(point: Ints, node: Ints, points: int) -> Ints:
    """The author of each point, int64[P]; -1 where it has several."""
    least, most = np.full(points, np.iinfo(np.int64).max), np.full(points, -1)
    np.minimum.at(least, point, node)
    np.maximum.at(most, point, node)
    return np.where(least == most, least, -1)


def _near(x: Floats, claimed: Ints, radius: float) -> Ints:
    """Pairs of points with the same claim and conditions within `radius`, int64[p, 2]."""
    from scipy.spatial import cKDTree

    if len(x) < 2:
        return np.zeros((0, 2), np.int64)
    centred = x - x.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    # What is claimed stands beside the conditions, as a coordinate far apart from any other claim.
    _, place = np.unique(claimed, return_inverse=True)
    reach = radius * (1.0 + 1e-9) + 1e-12
    apart = place.reshape(-1) * (4.0 * reach + 1.0)
    counted = np.random.default_rng(len(x)).permutation(len(x))[:COUNTED]
    for directions in DIRECTIONS:
        tree = cKDTree(np.column_stack([centred @ axes[:, -directions:], apart]), balanced_tree=False)
        near = tree.query_ball_point(tree.data[counted], reach, return_length=True)
        few = float((near - 1).sum()) / len(counted) * len(x) <= 2 * PAIRS_MOST
        if few:
            break
    if few:
        pairs = tree.query_pairs(reach, output_type="ndarray").astype(np.int64)
    else:
        near_ones = tree.query(tree.data, k=min(NEAREST + 1, len(x)), distance_upper_bound=reach)
        found = np.asarray(near_ones[1], dtype=np.int64)
        rows, places = np.nonzero(found < len(x))
        pairs = np.column_stack([rows, found[rows, places]])
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    gap = ((x[pairs[:, 0]] - x[pairs[:, 1]]) ** 2).sum(1)
    return np.asarray(pairs[(gap <= radius**2) & (claimed[pairs[:, 0]] == claimed[pairs[:, 1]])])
