"""The highest values of many rows, as candidates for them come in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Best"]

Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

ROOM = 4
"""Times as many candidates as are kept have room, so that they are sorted out seldom."""
WAITING = 65_536
"""Candidates that wait to be taken in together: 1.3 MB."""


class Best:
    """The `keep` highest values of each row that reach its bar. Which of several equal ones is kept is not defined.

    Args:
        bars: float32[rows] > 0.
        keep: values kept of a row, >= 1.

    Attributes:
        value: float32[rows, room], once settled; 0 where nothing stands.
        other: int32[rows, room], whose value it is; -1 where nothing stands.
        least: float32[rows], bars as they are now: what does not reach them is let go.
        level: int8[rows], bars rounded: what reaches a bar is, rounded, not below this.
    """

    def __init__(self, bars: Singles, keep: int) -> None:
        rows = len(bars)
        self.keep = keep
        self.value = np.zeros((rows, ROOM * keep), np.float32)
        self.other = np.full((rows, ROOM * keep), -1, np.int32)
        self.least = np.zeros(rows, np.float32)
        self.level = np.zeros(rows, np.int8)
        self._filled = np.zeros(rows, np.int64)
        self._waiting: list[tuple[Ints, Ints, Singles]] = []
        self._count = 0
        self._raise(np.arange(rows), bars)

    def offer(self, rows: Ints, others: Ints, values: Singles) -> None:
        """Candidates, in any order.

        Args:
            rows: int64[m].
            others: int64[m], none twice for a row, over all offers.
            values: float32[m].
        """
        self._waiting.append((rows, others, values))
        self._count += len(rows)
        if self._count >= WAITING:
            self.settle()

    def settle(self) -> None:
        """Take in what was offered since."""
        if not self._waiting:
            return
        rows, others, values = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._count = [], 0
        better = np.flatnonzero(values >= self.least[rows])
        order = better[np.argsort(rows[better], kind="stable")]
        rows, others, values = rows[order], others[order], values[order]
        while len(rows):
            at = self._filled[rows] + np.arange(len(rows)) - np.searchsorted(rows, rows)
            fits = at < self.value.shape[1]
            into = rows[fits], at[fits]
            self.value[into], self.other[into] = values[fits], others[fits]
            np.add.at(self._filled, rows[fits], 1)
            rows, others, values = rows[~fits], others[~fits], values[~fits]
            self._let_go(np.unique(rows))
            still = values > self.least[rows]
            rows, others, values = rows[still], others[still], values[still]

    def _let_go(self, rows: Ints) -> None:
        """Of what cannot be among the highest any more."""
        spare = self.value.shape[1] - self.keep
        best = np.argpartition(self.value[rows], spare, axis=1)[:, spare:]
        value, other = self.value[rows[:, None], best], self.other[rows[:, None], best]
        self.value[rows], self.other[rows] = 0.0, -1
        self.value[rows, : self.keep], self.other[rows, : self.keep] = value, other
        self._filled[rows] = self.keep
        self._raise(rows, value.min(1))

    def _raise(self, rows: Ints, bars: Singles) -> None:
        self.least[rows] = bars
        self.level[rows] = np.rint(np.minimum(bars, 127)).astype(np.int8)

    def sorted(self) -> tuple[Ints, Singles]:
        """Others and values, ``[rows, keep]``, highest first; -1 and 0 where there are not so many."""
        self.settle()
        order = np.argsort(-self.value, axis=1, kind="stable")[:, : self.keep]
        others = np.take_along_axis(self.other, order, 1).astype(np.int64)
        return others, np.take_along_axis(self.value, order, 1)
