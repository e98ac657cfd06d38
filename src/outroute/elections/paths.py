"""Paths: for each of the N(N-1)/2 pairs of nodes, how far one's outcomes predict the other's.

The strength of a path is ``N / (W + 3)`` of two inner products (`outroute.elections.profiles`): a correlation of
deviations, corrected for sampling noise and shrunk towards zero as far as little is shared. All pairs are two matrix
products, taken block by block: the matrix of strengths exists one block at a time, and what is kept is the strongest
corroborations and contradictions of every node, and the histogram of all.

What a block costs beyond its products is kept small. Strengths come out in hundredths, and the prior is a column more
that all share, so that one division is left; they are rounded to eight bits, and these are counted two at a time (where
there are many, an eighth is) and compared with a bar for each node. Few reach it: a bar is at first taken from a small
sample of the others, and rises to the least that is kept of the node so far. A node that fewer reached than are kept,
because the sample set its bar too high, is evaluated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outroute.elections.keeping import Best, together
from outroute.elections.profiles import PRIOR_CELLS, Floats, Ints, Profiles, Singles
from outroute.errors import DataError

__all__ = [
    "BINS",
    "LEAST",
    "Matrices",
    "Paths",
    "Search",
    "finish",
    "matrices",
    "pair_count",
    "strips",
    "strongest",
]

ROWS, COLUMNS = 512, 512
"""Nodes of a block. Smaller ones cost the products more, larger ones do not stay in a core's cache."""
SCALE = 100
"""Inside, strengths are in hundredths."""
COUNTED = 4
"""Blocks whose rounded strengths are counted together."""
COUNT_ALL = 16_777_216
"""Pairs up to which each is counted in the histogram. Of more, counted are those in"""
COUNT_EVERY = 8
"""each eighth block, always the same ones: counting is the dearest part beside the products, and of 10^9 pairs it says
no more than of 10^8. Evaluated, and kept if they are strong enough, are all."""
CODE_MOST = 127
"""Rounded strengths are cut to eight bits; above 1 there is only luck, see `Paths`."""
BINS = 2 * SCALE + 1
"""Bins of the histogram; bin i holds strengths within 0.005 of i / 100 - 1, the outer ones all beyond."""
LEAST = 0.005
"""Strengths nearer to zero than this are not kept."""
RANK = 3
"""A bar is at first the strength of this rank in a sample of nodes, whatever the distribution of strengths."""
AIM = 15
"""The sample is at most so large that on average so many times as many paths pass the bar as are kept. One node in
1,000 then has fewer than it keeps: the chance that a Gamma(RANK) variable lies below RANK / AIM."""
SAMPLE = 128
"""Nodes in the sample at most: bars that are too low at first rise soon."""
WAITING = 65_536
"""Candidates that wait to be taken in together, in a search: 1.3 MB."""

Codes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """All paths of n nodes, as far as they are kept.

    Strengths are cut to [-1, 1]: among billions of pairs that share little some come out beyond by luck.

    Attributes:
        corroborating: int64[n, keep], the nodes that corroborate a node most, strongest first; -1 where none does.
        corroboration: float64[n, keep] in [LEAST, 1], their strengths; 0 where there is none.
        contradicting: int64[n, keep], the nodes that contradict it most; -1 where none does.
        contradiction: float64[n, keep] in [-1, -LEAST]; 0 where there is none.
        histogram: int64[BINS], pairs by strength, those that are counted; pairs that share no cell have strength 0.
        counted: pairs counted in it: all up to `COUNT_ALL`, else those in each eighth block.
        pairs: pairs evaluated.
        again: nodes that had to be evaluated again.
    """

    corroborating: Ints
    corroboration: Floats
    contradicting: Ints
    contradiction: Floats
    histogram: Ints
    counted: int
    pairs: int
    again: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrices:
    """What all pairs are products of, and the bars.

    Attributes:
        signal: float32[n, width], ten times the profiles': products are in hundredths.
        reliability: float32[n, width + 1]; the last column is the prior, shared by all.
        bars: float32[2, n] > 0, what corroborations, and contradictions with their sign turned, must reach; searches
            raise them.
        keep: paths of either sign kept for each node.
    """

    signal: Singles
    reliability: Singles
    bars: Singles
    keep: int


def matrices(known: Profiles, keep: int) -> Matrices:
    """Matrices of profiles, with bars guessed.

    Raises:
        DataError: `keep` is below one.
    """
    if keep < 1:
        raise DataError("paths keep at least one of each sign", code="paths.keep")
    n = known.nodes
    signal = np.zeros((n, known.width), np.float32)
    signal[known.row, known.column] = np.float32(np.sqrt(SCALE)) * known.signal
    reliability = np.zeros((n, known.width + 1), np.float32)
    reliability[known.row, known.column] = known.reliability
    reliability[:, -1] = np.sqrt(PRIOR_CELLS)
    bars = np.full((2, n), LEAST * SCALE, np.float32)
    sample = np.unique(np.linspace(0, n - 1, min(SAMPLE, round(RANK * n / (AIM * keep)))).astype(np.int64))
    if len(sample) > 2 * RANK:
        for at in range(0, n, COLUMNS):
            some = slice(at, at + COLUMNS)
            strength = (signal[some] @ signal[sample].T) / (reliability[some] @ reliability[sample].T)
            strength.partition((RANK - 1, len(sample) - RANK), axis=1)
            np.maximum(bars[0, some], strength[:, -RANK], out=bars[0, some])
            np.maximum(bars[1, some], -strength[:, RANK - 1], out=bars[1, some])
    return Matrices(signal=signal, reliability=reliability, bars=bars, keep=keep)


class Search:
    """Evaluates strips of the upper triangle of all pairs; several searches share one triangle.

    Searches may run side by side: what they share are the bars, and a bar that one raises and another overwrites is
    only lower than it could be.

    Args:
        given: the matrices.
        rows, columns: nodes of a block.
    """

    def __init__(self, given: Matrices, *, rows: int = ROWS, columns: int = COLUMNS) -> None:
        self.given, self.nodes, self.rows, self.columns = given, len(given.signal), rows, columns
        self.up, self.down = (Best(bars, given.keep) for bars in given.bars)
        self.pairs = self.counted = 0
        self._every = 1 if pair_count(self.nodes) <= COUNT_ALL else COUNT_EVERY
        self._table = np.zeros(65_536, np.int64)
        self._outside = 0
        self._met = np.empty(rows * columns, np.float32)
        self._shared = np.empty(rows * columns, np.float32)
        self._codes = np.zeros(COUNTED * rows * columns, np.int8)
        self._uncounted = 0
        self._hits = np.empty((2, rows * columns), np.bool_)
        self._waiting: list[tuple[Ints, Ints, Singles]] = []
        self._count_waiting = 0
        self._levels = self._rounded_bars()

    def blocks(self, first: int) -> Iterator[tuple[slice, slice]]:
        """Blocks of the strip that begins at a node: its rows, and columns from there on."""
        last = min(first + self.rows, self.nodes)
        for at in range(first, self.nodes, self.columns):
            yield slice(first, last), slice(at, min(at + self.columns, self.nodes))

    def products(self, here: slice, there: slice) -> tuple[Singles, Singles]:
        """The two products of a block, in memory that the next block uses again."""
        shape = (here.stop - here.start, there.stop - there.start)
        met, shared = (part[: shape[0] * shape[1]].reshape(shape) for part in (self._met, self._shared))
        np.matmul(self.given.signal[here], self.given.signal[there].T, out=met)
        np.matmul(self.given.reliability[here], self.given.reliability[there].T, out=shared)
        return met, shared

    def add(self, first: int) -> None:
        """Evaluate the strip of pairs whose lower node is first..first + rows."""
        for number, (here, there) in enumerate(self.blocks(first), first // self.rows):
            self._block(here, there, counting=number % self._every == 0)

    def settle(self) -> None:
        """Take in the candidates that wait."""
        if self._waiting:
            left, right, values = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting, self._count_waiting = [], 0
            for best, strength in ((self.up, values), (self.down, -values)):
                best.offer(left, right, strength)
                best.offer(right, left, strength)
            self._levels = self._rounded_bars()

    def _rounded_bars(self) -> tuple[Codes, Codes]:
        """What reaches a bar is, rounded, not nearer to zero than this."""
        up, down = np.rint(np.minimum(self.given.bars, CODE_MOST)).astype(np.int8)
        return up, -down

    def _block(self, here: slice, there: slice, *, counting: bool) -> None:
        strength, shared = self.products(here, there)
        shape, size, outside = strength.shape, strength.size, 0
        if self._uncounted + size > len(self._codes):
            self._count()
        codes = self._codes[self._uncounted : self._uncounted + size].reshape(shape)
        np.divide(strength, shared, out=strength)
        if here.stop > there.start:  # on the diagonal: each pair once, and nobody with itself
            upper = np.arange(here.start, here.stop)[:, None] < np.arange(there.start, there.stop)
            np.multiply(strength, upper, out=strength)
            outside = size - int(upper.sum())
        rounded = shared  # its memory; its content has been used
        np.clip(strength, -CODE_MOST, CODE_MOST, out=rounded)
        np.rint(rounded, out=rounded)
        np.copyto(codes, rounded, casting="unsafe")
        self.pairs += size - outside
        if counting:  # else the next block writes over these codes
            self._uncounted += size
            self._outside += outside
            self.counted += size - outside
        hit, more = (part[:size].reshape(shape) for part in self._hits)
        up, down = self._levels
        np.greater_equal(codes, up[here, None], out=hit)
        for compare, level in (
            (np.greater_equal, up[there]),
            (np.less_equal, down[here, None]),
            (np.less_equal, down[there]),
        ):
            compare(codes, level, out=more)
            np.logical_or(hit, more, out=hit)
        found = np.flatnonzero(hit)
        if len(found):
            row = found // shape[1]
            column = found - row * shape[1]
            self._waiting.append((row + here.start, column + there.start, strength.reshape(-1)[found]))
            self._count_waiting += len(found)
            if self._count_waiting >= WAITING:
                self.settle()

    def _count(self) -> None:
        """Into the table, two codes at a time."""
        if self._uncounted % 2:
            self._codes[self._uncounted] = 0
            self._outside += 1
        even = self._codes[: self._uncounted + self._uncounted % 2]
        self._table += np.bincount(even.view(np.uint16), minlength=65_536)
        self._uncounted = 0

    def histogram(self) -> Ints:
        """Pairs counted so far by strength, int64[BINS]."""
        self._count()
        halves = self._table.reshape(256, 256)
        by_code = np.roll(halves.sum(0) + halves.sum(1), CODE_MOST + 1)  # codes -128..127
        by_code[CODE_MOST + 1] -= self._outside
        low, high = CODE_MOST + 1 - SCALE, CODE_MOST + 1 + SCALE
        out: Ints = by_code[low : high + 1].copy()
        out[0] += by_code[:low].sum()
        out[-1] += by_code[high + 1 :].sum()
        return out


def strips(nodes: int, parts: int = 1, rows: int = ROWS) -> list[list[int]]:
    """First nodes of all strips, dealt to `parts` searches so that each has about as many pairs."""
    return [list(range(part * rows, nodes, parts * rows)) for part in range(parts)]


def pair_count(nodes: int) -> int:
    """N(N-1)/2."""
    return nodes * (nodes - 1) // 2


def finish(searches: Sequence[Search]) -> Paths:
    """What several searches found that together evaluated all strips."""
    given = searches[0].given
    for search in searches:
        search.settle()
    kept, again = [], set[int]()
    for sign, which in ((1, "up"), (-1, "down")):
        others, values = together([getattr(search, which) for search in searches])
        short = np.flatnonzero((values[:, -1] == 0) & (given.bars[(1 - sign) // 2] > LEAST * SCALE))
        for at in range(0, len(short), ROWS):
            some = short[at : at + ROWS]
            others[some], values[some] = _exactly(given, some, sign)
        again.update(short.tolist())
        kept.append((others, sign * np.minimum(values.astype(np.float64) / SCALE, 1.0)))
    (corroborating, corroboration), (contradicting, contradiction) = kept
    return Paths(
        corroborating=corroborating,
        corroboration=corroboration,
        contradicting=contradicting,
        contradiction=contradiction,
        histogram=np.sum([search.histogram() for search in searches], 0),
        counted=sum(search.counted for search in searches),
        pairs=sum(search.pairs for search in searches),
        again=len(again),
    )


def _exactly(given: Matrices, nodes: Ints, sign: int) -> tuple[Ints, Singles]:
    """The strongest of some nodes, against all others and without a bar."""
    best = Best(np.full(len(nodes), LEAST * SCALE, np.float32), given.keep)
    for at in range(0, len(given.signal), COLUMNS):
        some = slice(at, at + COLUMNS)
        strength = given.signal[nodes] @ given.signal[some].T
        strength /= given.reliability[nodes] @ given.reliability[some].T
        strength *= np.float32(sign)
        strength[nodes[:, None] == np.arange(at, at + strength.shape[1])] = 0
        if strength.shape[1] > given.keep:
            place = strength.shape[1] - given.keep
            high = np.argpartition(strength, place, axis=1)[:, place:]
        else:
            high = np.broadcast_to(np.arange(strength.shape[1]), strength.shape)
        rows = np.repeat(np.arange(len(nodes)), high.shape[1])
        best.offer(rows, high.reshape(-1) + at, np.take_along_axis(strength, high, 1).reshape(-1))
    return best.sorted()


def strongest(
    known: Profiles,
    *,
    keep: int = 10,
    parts: int = 1,
    each: Callable[[Callable[[list[int]], Search], list[list[int]]], Iterable[Search]] = map,
) -> Paths:
    """Evaluate all pairs.

    Memory is that of two float32 matrices ``[nodes, width]``, and for each part that of what it keeps.

    Args:
        known: profiles.
        keep: paths of either sign kept for each node, >= 1. Which of several that are equal to the last is kept is not
            defined.
        parts: searches that `each` may run at once, >= 1.
        each: calls a function for each of a list: `map`, or that of a pool of threads (they run side by side, since
            nearly all of the work is inside numpy).

    Raises:
        DataError: `keep` or `parts` is below one.
    """
    if parts < 1:
        raise DataError("paths are searched in at least one part", code="paths.parts")
    given = matrices(known, keep)

    def run(firsts: list[int]) -> Search:
        search = Search(given)
        for first in firsts:
            search.add(first)
        return search

    return finish(list(each(run, strips(known.nodes, parts))))
