"""Asking: fetch cells, keep what came, fit once, answer many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.elections import elect
from outroute.fingerprint import cells
from outroute.node.emitting import addresses_of
from outroute.node.evidence import evidence_of
from outroute.node.insight import Insights, Reach
from outroute.node.portal import run
from outroute.packet import PACKET_DTYPE, PacketArray, expiry
from outroute.schema import Schema, unit_scale
from outroute.store import ANSWER_CAP
from outroute.synthesis import Fitted, Records, Settings, fit
from outroute.transports import Holder

__all__ = ["PROBES", "Asker"]

PROBES = 4
"""Cells that a question asks: 0.93 of the 64 nearest packets were found with 4 of 1,024 (DESIGN section 5)."""
CELL_SECONDS = 300
"""A cell that was fetched this recently is not fetched again."""
ADDRESSES_AT_ONCE = 64
"""Addresses in one question to the transport."""
REFIT_SHARE = 0.05
"""Calculations are fitted again when this share of the evidence, or of the own records, is new."""


@dataclass(slots=True)
class _Cell:
    """What is known of a cell."""

    fetched: int
    packets: PacketArray
    left_out: int
    refused: int


@dataclass(slots=True)
class _Fit:
    """Calculations fitted to what was known at a time."""

    fitted: Fitted
    packets: int
    records: int
    version: int


def _holds_all(new: PacketArray, old: PacketArray) -> bool:
    """Whether every packet of ``old`` is in ``new``."""
    return bool(np.isin(_signatures(old), _signatures(new)).all())


def _signatures(packets: PacketArray) -> NDArray[np.bytes_]:
    """One comparable value a packet."""
    return np.ascontiguousarray(packets["signature"]).view("S64")[:, 0]


class Asker:
    """What a node remembers between questions: cells, and fitted calculations.

    Answers depend on the cells known, so questions asked together share them all.
    """

    def __init__(
        self, schema: Schema, holder: Holder, *, own_key: bytes, secret: bytes, seed: int, settings: Settings
    ) -> None:
        self._schema, self._holder, self._secret = schema, holder, secret
        self._own_key = np.frombuffer(own_key, dtype=np.uint8)
        self._seed, self._settings = seed, settings
        self._cells: dict[bytes, _Cell] = {}
        self._version = 0
        self._fit: _Fit | None = None
        self._given = np.empty(0, dtype=PACKET_DTYPE)

    def addresses(self, codes: NDArray[np.uint16], probes: int) -> list[bytes]:
        """Addresses of the nearest cells of each case, each once, in a fixed order."""
        near = cells(self._schema, codes, probes)
        repeated = np.repeat(codes, near.shape[1], axis=0)
        return sorted(set(addresses_of(self._schema, repeated, near.reshape(-1), self._secret)))

    def give(self, packets: PacketArray) -> None:
        """Take accepted packets that came another way (a file); they count beside those of the cells."""
        self._given = packets
        self._version += 1

    def fetch(self, addresses: Sequence[bytes], now: int) -> None:
        """Fetch the cells that are not known or old."""
        stale = [a for a in addresses if a not in self._cells or self._cells[a].fetched + CELL_SECONDS <= now]
        for at in range(0, len(stale), ADDRESSES_AT_ONCE):
            part = stale[at : at + ADDRESSES_AT_ONCE]
            for answer in run(self._holder.fetch(self._schema.id, part, cap=ANSWER_CAP)):
                old = self._cells.get(answer.address)
                if not answer.complete and old is not None:
                    continue
                others = (answer.packets["author"] != self._own_key).any(axis=1)
                kept = answer.packets[others]
                if old is None or not np.array_equal(old.packets, kept):
                    self._version += 1
                    if old is not None and not _holds_all(kept, old.packets):
                        self._fit = None  # something was withdrawn: nothing may rest on it any more
                self._cells[answer.address] = _Cell(now, kept, answer.left_out, answer.refused)

    def forget(self) -> None:
        """Drop every cell and fit, for example after a withdrawal."""
        self._cells.clear()
        self._fit = None
        self._version += 1

    def _packets(self, now: int) -> PacketArray:
        """Everything known and not expired, each packet once."""
        parts = [c.packets for _, c in sorted(self._cells.items())] + [self._given]
        packets = np.concatenate(parts)
        packets = packets[expiry(self._schema, packets) > now]
        if len(packets) and len(self._given):
            packets = packets[np.sort(np.unique(_signatures(packets), return_index=True)[1])]
        return packets

    def fitted(self, own: Records, now: int) -> Fitted:
        """Calculations fitted to what is known, reused while little of it is new."""
        known = self._fit
        if known is not None and abs(own.n - known.records) <= REFIT_SHARE * known.records:
            if known.version == self._version:
                return known.fitted
            count = sum(len(c.packets) for c in self._cells.values()) + len(self._given)
            if known.packets <= count <= (1 + REFIT_SHARE) * known.packets:
                return known.fitted
        packets = self._packets(now)
        rng = np.random.default_rng([self._seed, int.from_bytes(self._schema.id[:8], "little")])
        made = fit(
            self._schema,
            evidence_of(self._schema, packets),
            own,
            settings=self._settings,
            rng=rng,
            trust=lambda names, prior, objective: elect(objective, prior),
        )
        self._fit = _Fit(made, len(packets), own.n, self._version)
        return made

    def answer(self, codes: NDArray[np.uint16], own: Records, now: int) -> Insights:
        """Answer questions from what is known; fetch first."""
        fitted = self.fitted(own, now)
        known = self._cells.values()
        return Insights(
            schema=self._schema,
            answers=fitted.answer(unit_scale(self._schema, codes)),
            nodes=tuple(n.hex() for n in fitted.nodes),
            level=self._settings.level,
            reach=Reach(
                cells=len(self._cells),
                packets=sum(len(c.packets) for c in known) + len(self._given),
                refused=sum(c.refused for c in known),
                left_out=sum(c.left_out for c in known),
            ),
        )
