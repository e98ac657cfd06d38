"""The highest values of many rows, as candidates for them come in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Best", "together"]

Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

ROOM = 2
"""Times as many candidates as are kept have room, so that they are not sorted out each time."""
ROWS = 16_384
"""Rows that are put together at once: a few MiB."""


class Best:
    """The `keep` highest values of each row that reach its bar. Which of several equal ones is kept is not defined.

    A row's bar rises to the least that is kept of it whenever its room is full. Several may share their bars, each with
    other candidates for the same rows: what one has as many better ones of, no other needs to keep.

    Args:
        bars: float32[rows] > 0, changed in place.
        keep: values kept of a row, >= 1.

    Attributes:
        value: float32[rows, room]; 0 where nothing stands.
        other: int32[rows, room], whose value it is; -1 where nothing stands.
        bars: float32[rows], bars as they are now.
    """

    def __init__(self, bars: Singles, keep: int) -> None:
        rows = len(bars)
        self.keep, self.bars = keep, bars
        self.value = np.zeros((rows, ROOM * keep), np.float32)
        self.other = np.full((rows, ROOM * keep), -1, np.int32)
        self._filled = np.zeros(rows, np.int64)

    def offer(self, rows: Ints, others: Ints, values: Singles) -> None:
        """Candidates, in any order; many at once cost less.

        Args:
            rows: int64[m].
            others: int64[m], none twice for a row, over all offers.
            values: float32[m].
        """
        better = np.flatnonzero(values >= self.bars[rows])
        bits = len(better).bit_length()
        key = (rows[better] << bits) | np.arange(len(better))  # sorting numbers is quicker than sorting places
        key.sort()
        rows, order = key >> bits, better[key & ((1 << bits) - 1)]
        others, values = others[order], values[order]
        room = self.value.shape[1]
        all_values, all_others = self.value.reshape(-1), self.other.reshape(-1)
        while len(rows):
            first = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
            some, count = rows[first], np.diff(first, append=len(rows))
            filled = self._filled[some]
            at = np.arange(len(rows)) + np.repeat(filled - first, count)
            fits = at < room
            into = (rows * room + at)[fits]
            all_values[into], all_others[into] = values[fits], others[fits]
            self._filled[some] = filled = np.minimum(filled + count, room)
            self._let_go(some[filled == room])
            left = np.flatnonzero(~fits)
            left = left[values[left] >= self.bars[rows[left]]]
            rows, others, values = rows[left], others[left], values[left]

    def sorted(self) -> tuple[Ints, Singles]:
        """Others and values, ``[rows, keep]``, highest first; -1 and 0 where there are not so many."""
        return together([self])

    def _let_go(self, rows: Ints) -> None:
        """Of what cannot be among the highest any more."""
        spare = self.value.shape[1] - self.keep
        best = np.argpartition(self.value[rows], spare, axis=1)[:, spare:]
        value, other = self.value[rows[:, None], best], self.other[rows[:, None], best]
        self.value[rows], self.other[rows] = 0.0, -1
        self.value[rows, : self.keep], self.other[rows, : self.keep] = value, other
        self._filled[rows] = self.keep
        more = np.nextafter(value.min(1), np.float32(np.inf))  # what only equals them may be let go
        self.bars[rows] = np.maximum(self.bars[rows], more)


def together(found: Sequence[Best]) -> tuple[Ints, Singles]:
    """What several kept of the same rows: others and values, ``[rows, keep]``, highest first.

    Where there are not so many, -1 and 0 stand.
    """
    keep, rows = found[0].keep, len(found[0].value)
    others, values = np.empty((rows, keep), np.int64), np.empty((rows, keep), np.float32)
    for at in range(0, rows, ROWS):
        some = slice(at, at + ROWS)
        value = np.concatenate([one.value[some] for one in found], 1)
        other = np.concatenate([one.other[some] for one in found], 1)
        best = np.argpartition(value, value.shape[1] - keep, axis=1)[:, value.shape[1] - keep :]
        value = np.take_along_axis(value, best, 1)
        order = np.argsort(-value, axis=1, kind="stable")
        values[some] = np.take_along_axis(value, order, 1)
        others[some] = np.take_along_axis(other, np.take_along_axis(best, order, 1), 1)
    return others, values
