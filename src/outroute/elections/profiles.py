"""Profiles: what each node saw in each cell, net of its own base rate, and how far that can be believed.

A node's *deviation* in a cell is its mean outcome there minus its mean outcome everywhere else: base rates, which
honest nodes do not share, are gone. It carries sampling noise of known size, so it is weighted by the inverse of its
variance, sampling noise and variance of true deviations together: a cell with three observations hardly counts, and a
node with few observations is not believed to disagree.

For nodes u and v with deviations d, weights w and standard deviations of true deviations t, the moment estimate of the
correlation of their *true* deviations over the cells that both know is

    N / W,  N = sum_c (t w d)_uc (t w d)_vc,  W = sum_c (t^2 w)_uc (t^2 w)_vc

and if they have nothing in common its variance is 1 / W: W counts effective shared cells. So a node is two rows of
numbers, `signal` (t w d) and `reliability` (t^2 w), and every path is two inner products.

Source: correction for attenuation, Spearman (1904), "The proof and measurement of association between two things";
method of moments for the variance of true effects, DerSimonian and Laird (1986), "Meta-analysis in clinical trials",
section 2. Departure: the variance of true deviations is one for all nodes per column, times a factor for each node that
is shrunk towards one, so that a node that exaggerates gains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outroute.errors import DataError

__all__ = ["PRIOR_CELLS", "Comparison", "Profiles", "profiles"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

PRIOR_CELLS = 3.0
"""Effective shared cells that the prior of a path's strength is worth: its variance 1/3 is that of a correlation that
may lie anywhere between -1 and 1."""
SCALE_CELLS = 5.0
"""Effective cells that "this node's deviations are as large as everybody's" is worth."""
SHARE_OBSERVATIONS = 2.0
"""Observations with everybody's base rate that are added to a node's before its sampling noise is computed: a node
whose outcomes all agree is not without noise."""
ROUNDS = 8
"""Rounds of the moment estimate; it settles in three or four."""
PAIRS_AT_ONCE = 65_536
"""Pairs compared at once: 64 MiB at 256 columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What m pairs of nodes have to do with each other.

    Attributes:
        strength: float64[m] in [-1, 1], how far one's deviations predict the other's (shrunken correlation).
        error: float64[m], standard error of the strength, > 0.
        cells: int64[m], cells that both know.
        effective: float64[m], cells free of noise that would say as much.
    """

    strength: Floats
    error: Floats
    cells: Ints
    effective: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """Profiles of n nodes over `width` columns (cells times outcome columns), as e entries ordered by node.

    Attributes:
        nodes: n.
        columns: outcome columns of a cell: 1, or the number of classes where there are more than two.
        width: cells times columns.
        row: int64[e], node of an entry, ascending.
        column: int64[e], cell * columns + outcome column.
        signal: float32[e], deviation over its noise, see the module.
        reliability: float32[e] in [0, 1], see the module.
        spread: float64[columns], standard deviation of true deviations, in outcome units.
    """

    nodes: int
    columns: int
    width: int
    row: Ints
    column: Ints
    signal: Singles
    reliability: Singles
    spread: Floats

    def dense(self, first: int = 0, last: int | None = None) -> tuple[Singles, Singles]:
        """Signal and reliability of nodes first..last as float32 matrices ``[last - first, width]``."""
        last = self.nodes if last is None else last
        begin, end = np.searchsorted(self.row, [first, last])
        at = (self.row[begin:end] - first, self.column[begin:end])
        signal, reliability = (np.zeros((last - first, self.width), np.float32) for _ in range(2))
        signal[at] = self.signal[begin:end]
        reliability[at] = self.reliability[begin:end]
        return signal, reliability

    def compare(self, left: Ints, right: Ints) -> Comparison:
        """Pairs (left[i], right[i]); pairs with the same left are cheap together.

        Args:
            left, right: int64[m], nodes.
        """
        met, weight, cells = np.zeros(len(left)), np.zeros(len(left)), np.zeros(len(left), np.int64)
        bounds = np.searchsorted(self.row, np.arange(self.nodes + 1))
        scratch = np.zeros((2, self.width))
        # One node against all its partners at once: linear in the entries of the partners.
        order = np.argsort(left, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(left[order])) + 1) if len(left) else ():
            here = slice(*bounds[left[group[0]] + np.arange(2)])
            scratch[0, self.column[here]], scratch[1, self.column[here]] = self.signal[here], self.reliability[here]
            for at in range(0, len(group), PAIRS_AT_ONCE):
                pairs = group[at : at + PAIRS_AT_ONCE]
                low, count = bounds[right[pairs]], bounds[right[pairs] + 1] - bounds[right[pairs]]
                which = np.repeat(np.arange(len(pairs)), count)
                entry = np.arange(count.sum()) + np.repeat(low - np.r_[0, np.cumsum(count)[:-1]], count)
                one, own = scratch[:, self.column[entry]]
                met[pairs] = np.bincount(which, one * self.signal[entry], len(pairs))
                weight[pairs] = np.bincount(which, own * self.reliability[entry], len(pairs))
                cells[pairs] = np.bincount(which, (own > 0) & (self.reliability[entry] > 0), len(pairs))
            scratch[:, self.column[here]] = 0.0
        return Comparison(
            strength=np.clip(met / (weight + PRIOR_CELLS), -1.0, 1.0),
            error=1.0 / np.sqrt(weight + PRIOR_CELLS),
            cells=cells // self.columns,
            effective=weight,
        )


def profiles(
    *,
    node: Ints,
    cell: Ints,
    size: Floats,
    counts: Floats | None = None,
    mean: Floats | None = None,
    variance: Floats | None = None,
    nodes: int,
    cells: int,
) -> Profiles:
    """Profiles from p packets, or from own records as packets of one observation.

    Args:
        node: int64[p] in 0..nodes.
        cell: int64[p] in 0..cells.
        size: float64[p] >= 0, observations that a packet condenses, times its weight where it has one.
        counts: float64[p, C], class counts; or
        mean, variance: float64[p], of a numeric outcome.
        nodes: number of nodes; one without packets agrees and disagrees with nobody.
        cells: number of cells.

    Raises:
        DataError: neither or both kinds of outcome are given, or an index lies outside.
    """
    if (counts is None) == (mean is None) or (mean is None) != (variance is None):
        raise DataError("profiles need either counts or mean and variance", code="paths.outcome")
    for name, index, most in (("node", node, nodes), ("cell", cell, cells)):
        if len(index) and (index.min() < 0 or index.max() >= most):
            raise DataError(f"a packet's {name} lies outside 0..{most}", code="paths.index")
    value = _means(counts) if counts is not None else np.asarray(mean, np.float64)[:, None]
    kept = np.flatnonzero(size > 0)
    place, which = np.unique(node[kept] * cells + cell[kept], return_inverse=True)
    which, size, value = which.reshape(-1), size[kept], value[kept]
    entries, columns = len(place), value.shape[1]
    row, observed = place // max(cells, 1), np.bincount(which, size, entries)
    seen = np.stack([np.bincount(which, size * v, entries) for v in value.T], 1) / observed[:, None]
    everywhere = np.bincount(row, observed, nodes).astype(np.float64)
    sums = np.stack([np.bincount(row, observed * v, nodes) for v in seen.T], 1).astype(np.float64)
    base = sums / np.maximum(everywhere, 1e-300)[:, None]
    freedom = np.maximum(everywhere - np.bincount(row, minlength=nodes), 0.0)
    if variance is None:
        noise = _class_noise(base, everywhere, observed @ (seen * (1.0 - seen)), freedom)
    else:
        around_base = variance[kept] + (value[:, 0] - base[node[kept], 0]) ** 2
        around_cell = variance[kept] + (value[:, 0] - seen[which, 0]) ** 2
        within = np.bincount(node[kept], size * around_cell, nodes).astype(np.float64)
        noise = _numeric_noise(within, freedom, float(size @ around_base) / max(float(size.sum()), 1e-300))
    # Leave-one-out: the rest of the node is what a cell is compared with, with its noise and its own few cells.
    share = observed / everywhere[row]
    rest = 1.0 - share
    usable = rest > 1e-9
    row, place, share, rest = row[usable], place[usable], share[usable], rest[usable]
    deviation = (seen[usable] - base[row]) / rest[:, None]
    sampling = noise[row] * (1.0 / (everywhere[row] * share * rest))[:, None]
    squares = np.bincount(row, share**2, nodes)[row]
    inflation = 1.0 + (squares - share**2) / rest**2
    spread, factor = _spread(row, deviation, sampling, inflation, nodes)
    true = spread**2 * factor[row][:, None]
    weight = 1.0 / np.maximum(true * inflation[:, None] + sampling, 1e-300)
    shared = 1.0 if columns == 1 else np.sqrt((columns - 1) / columns)  # shares that add up to one: one is not free
    return Profiles(
        nodes=nodes,
        columns=columns,
        width=cells * columns,
        row=np.repeat(row, columns),
        column=((place % max(cells, 1))[:, None] * columns + np.arange(columns)).reshape(-1),
        signal=(shared * np.sqrt(true) * weight * deviation).astype(np.float32).reshape(-1),
        reliability=(shared * true * weight).astype(np.float32).reshape(-1),
        spread=spread,
    )


def _means(counts: Floats) -> Floats:
    """Shares of the classes that count as columns: the second of two, or all of more."""
    shares: Floats = counts / np.maximum(counts.sum(1, keepdims=True), 1e-300)
    return shares[:, 1:] if counts.shape[1] == 2 else shares


def _class_noise(base: Floats, everywhere: Floats, within: Floats, freedom: Floats) -> Floats:
    """Variance of one observation around the share of its cell, float64[n, columns].

    That of a node's base rate, base (1 - base), holds the variance of true deviations too. What part of it is noise
    is seen in cells with several observations, of all nodes together.

    Args:
        base: float64[n, columns], base rates.
        everywhere: float64[n], observations.
        within: float64[columns], sum over all cells of observations * share * (1 - share).
        freedom: float64[n], observations beyond the first of each cell.
    """
    overall = (everywhere @ base) / max(float(everywhere.sum()), 1e-300)
    held = everywhere[:, None] * base + SHARE_OBSERVATIONS * overall
    held /= everywhere[:, None] + SHARE_OBSERVATIONS
    out: Floats = held * (1.0 - held)
    nothing_known = SCALE_CELLS * overall * (1.0 - overall)
    part = (within + nothing_known) / np.maximum(freedom @ out + nothing_known, 1e-300)
    return out * np.clip(part, 0.0, 1.0)


def _numeric_noise(within: Floats, freedom: Floats, total: float) -> Floats:
    """Variance of one observation around the mean of its cell, float64[n, 1], shrunk towards everybody's.

    Args:
        within: float64[n], sum of squares around the means of the cells.
        freedom: float64[n], observations beyond the first of each cell.
        total: variance around the nodes' means, what is believed as long as no cell has two observations.
    """
    overall = (float(within.sum()) + SCALE_CELLS * total) / (float(freedom.sum()) + SCALE_CELLS)
    out: Floats = (within + SCALE_CELLS * overall) / (freedom + SCALE_CELLS)
    return out[:, None]


def _spread(row: Ints, deviation: Floats, sampling: Floats, inflation: Floats, nodes: int) -> tuple[Floats, Floats]:
    """Standard deviation of true deviations by column, float64[columns], and a factor on its square by node."""
    excess, grown = deviation**2 - sampling, inflation[:, None]
    true = np.maximum((excess / grown).mean(0), 1e-12) if len(row) else np.zeros(deviation.shape[1])
    for _ in range(ROUNDS if len(row) else 0):
        weight = 1.0 / np.maximum(true * grown + sampling, 1e-300) ** 2
        true = np.maximum((weight * grown * excess).sum(0) / np.maximum((weight * grown**2).sum(0), 1e-300), 1e-12)
    # Each entry's own estimate of the factor, excess / (true * grown), weighted by how much it can say.
    sure = (true * grown / np.maximum(true * grown + sampling, 1e-300)) ** 2
    told = (sure * excess / np.maximum(true * grown, 1e-300)).sum(1)
    known = np.bincount(row, sure.sum(1), nodes)
    factor = (SCALE_CELLS + np.bincount(row, told, nodes)) / (SCALE_CELLS + known)
    return np.sqrt(true), np.clip(factor, 0.1, 10.0)
