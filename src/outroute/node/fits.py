"""What is remembered between questions: cells that were fetched, and calculations fitted to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.elections import Trust
from outroute.node.aged import Aged
from outroute.node.electing import Elected
from outroute.node.evidence import fresh_rows
from outroute.node.explaining import Explanation, explain
from outroute.node.insight import Insight
from outroute.node.pairing import Mine
from outroute.packet import PacketArray
from outroute.schema import Schema
from outroute.synthesis import Evidence, Fitted, Records

__all__ = ["Cell", "Fit"]


@dataclass(slots=True)
class Cell:
    """What is known of a cell, and from when on it is to be fetched again."""

    due: int
    packets: PacketArray
    left_out: int
    refused: int
    answered: bool
    short: bool = False


@dataclass(slots=True)
class Fit:
    """Calculations fitted to what was known at a time.

    Attributes:
        fitted: the calculations.
        until: when something that it rests on expires (but not before the cells would be fetched again).
        records: own records then.
        own: own records that elections have seen; some may have become known since.
        packets: packets in its cells then.
        cells: packets then, by cell.
        given: packets then that came another way.
        trust: running trust that the weights follow.
        election: weights of the calculations for another running trust; None without own records.
        before: weights of the calculations before any outcome spoke.
        said: the packets that it rests on.
        evidence: the same as arrays, with weights.
        weighed: what was decided about nodes and packets for the calculations; None where nothing was.
        elected: the same with what has become known since.
        aged: how fast what is known ages; None where nobody asked.
    """

    fitted: Fitted
    until: int
    records: int
    own: Records
    packets: int
    cells: dict[bytes, int]
    given: int
    trust: Trust
    election: Callable[[Trust], NDArray[np.float64]] | None
    before: NDArray[np.float64]
    said: PacketArray
    evidence: Evidence
    weighed: Elected | None
    elected: Elected | None
    aged: Aged | None = None

    @property
    def believed(self) -> Evidence:
        """The packets, weighed by what is known now."""
        return self.evidence if self.elected is None else self.elected.evidence

    def confirmed(self, schema: Schema, own: Records) -> float:
        """Let outcomes that became known speak about nodes and packets.

        Returns:
            How far this moved weights since the calculations were fitted, as a share of all observations.
        """
        if self.elected is None or self.weighed is None or own is self.own:
            return 0.0
        fresh = fresh_rows(self.own, own)
        if fresh is None:  # something is no longer known: what it decided stands until all is fitted anew
            return 0.0
        self.elected, self.own = self.elected.confirmed(schema, own, fresh), own
        return self.elected.moved(self.weighed)

    def explain(self, schema: Schema, question: NDArray[np.float64], insight: Insight, mine: Mine) -> Explanation:
        """Why the answer to a question, float64[D], says what it says; `mine` are the own records."""
        if self.aged is not None and self.aged.since is not None:
            kept = mine.bucket >= self.aged.since
            mine = Mine(codes=mine.codes[kept], outcome=mine.outcome[kept], bucket=mine.bucket[kept])
        return explain(
            schema,
            question,
            self.believed,
            self.elected,
            self.said,
            mine,
            calculations=insight.calculations,
            before=self.before,
            trust=self.trust,
            aged=self.aged,
        )
