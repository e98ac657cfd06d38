"""Asking: fetch cells, keep what came, fit once, answer many."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.elections import elect
from outroute.fingerprint import cells
from outroute.node.emitting import addresses_of
from outroute.node.evidence import evidence_of
from outroute.node.insight import Insights, Reach
from outroute.node.portal import run
from outroute.node.received import Received
from outroute.node.threads import single_threaded
from outroute.packet import PACKET_DTYPE, PacketArray, expiry
from outroute.schema import Schema, unit_scale
from outroute.store import ANSWER_CAP
from outroute.synthesis import Fitted, Records, Settings, fit
from outroute.transports import Answer, Holder
from outroute.transports.replicas import in_force

__all__ = ["PROBES", "Asker"]

PROBES = 4
"""Cells that a question asks: 0.93 of the 64 nearest packets were found with 4 of 1,024 (DESIGN section 5)."""
CELL_SECONDS = 300
"""A cell that was fetched this recently is not fetched again."""
RETRY_SECONDS = 30
"""A cell that nobody answered for is not asked again for so long: each attempt waits for a time-out."""
CELLS_KEPT = 4096
"""Cells remembered; at most 256 packets each, 512 MiB if all are full."""
ADDRESSES_AT_ONCE = 64
"""Addresses in one question to the transport."""
BOOSTED_FROM = 200
"""Packets and own records together from which calculations may be boosted, which loads scikit-learn."""
REFIT_SHARE = 0.05
"""Calculations are fitted again when this share of the packets near a question, of all packets, or of the own records
is new."""


@dataclass(slots=True)
class _Cell:
    """What is known of a cell, and from when on it is to be fetched again."""

    due: int
    packets: PacketArray
    left_out: int
    refused: int
    answered: bool


@dataclass(slots=True)
class _Fit:
    """Calculations fitted to what was known at a time.

    Attributes:
        fitted: the calculations.
        until: when something that it rests on expires (but not before the cells would be fetched again).
        records: own records then.
        packets: packets in its cells then.
        cells: packets then, by cell.
        given: packets then that came another way.
    """

    fitted: Fitted
    until: int
    records: int
    packets: int
    cells: dict[bytes, int]
    given: int


class Asker:
    """What a node remembers between questions: cells, and fitted calculations.

    Answers depend on the cells known, so questions asked together share them all.

    Args:
        schema: the schema.
        holder: the transport.
        received: packets that came in files.
        own_keys: the node's key and those that it had before: what they signed is its own.
        secret: the network's, for addresses.
        seed: of everything that draws.
        settings: constants of the synthesis.
        asked: told of every question that goes to the transport, before it is answered from.
        origin: the first key of a node that changed its key, under which it is one node.
    """

    def __init__(
        self,
        schema: Schema,
        holder: Holder,
        received: Received,
        *,
        own_keys: Sequence[bytes],
        secret: bytes,
        seed: int,
        settings: Settings,
        asked: Callable[[Sequence[Answer], int], None],
        origin: Callable[[bytes], bytes],
    ) -> None:
        self._schema, self._holder, self._received, self._secret = schema, holder, received, secret
        self._own_keys = [np.frombuffer(key, dtype=np.uint8) for key in own_keys]
        self._asked, self._origin = asked, origin
        self._forgotten: deque[bytes] = deque()
        self._seed, self._settings = seed, settings
        self._cells: dict[bytes, _Cell] = {}
        self._fit: _Fit | None = None
        self._reach: Reach | None = None

    def addresses(self, codes: NDArray[np.uint16], probes: int) -> list[bytes]:
        """Addresses of the nearest cells of each case, each once, in a fixed order."""
        near = cells(self._schema, codes, probes)
        repeated = np.repeat(codes, near.shape[1], axis=0)
        return sorted(set(addresses_of(self._schema, repeated, near.reshape(-1), self._secret)))

    def refit(self) -> None:
        """Fit anew before the next answer: something was corrected, withdrawn, or came in a file."""
        self._fit = None

    def forget(self, addresses: Iterable[bytes]) -> None:
        """Fetch these cells again before the next answer: something in them was withdrawn. From any thread."""
        self._forgotten.extend(addresses)

    def known(self) -> PacketArray:
        """All packets of others that are remembered, some of them expired perhaps."""
        return np.concatenate([np.empty(0, dtype=PACKET_DTYPE), *(cell.packets for cell in self._cells.values())])

    def _foreign(self, packets: PacketArray) -> NDArray[np.bool_]:
        """Packets that are not this node's own, bool ``[n]``."""
        out = np.ones(len(packets), dtype=np.bool_)
        for key in self._own_keys:
            out &= (packets["author"] != key).any(axis=1)
        return out

    def fetch(self, addresses: Sequence[bytes], now: int) -> None:
        """Fetch the cells that are not known or old."""
        known = self._cells
        while self._forgotten:
            if known.pop(self._forgotten.popleft(), None) is not None:
                self.refit()
        stale = [a for a in dict.fromkeys(addresses) if a not in known or known[a].due <= now]
        if not stale:
            return
        self._reach = None
        for at in range(0, len(stale), ADDRESSES_AT_ONCE):
            part = stale[at : at + ADDRESSES_AT_ONCE]
            answers = run(self._holder.fetch(self._schema.id, part, cap=ANSWER_CAP))
            self._asked(answers, now)
            for answer in answers:
                old = known.pop(answer.address, None)  # the latest fetched stand last
                if not answer.complete:
                    none = answer.packets[:0]
                    kept = _Cell(0, none, 0, 0, answered=False) if old is None else old
                    kept.due, kept.answered = now + RETRY_SECONDS, False
                    known[answer.address] = kept
                    continue
                packets = answer.packets[self._foreign(answer.packets)]
                if old is not None and not _holds_all(packets, old.packets):
                    self.refit()  # something was withdrawn: nothing may rest on it any more
                known[answer.address] = _Cell(now + CELL_SECONDS, packets, answer.left_out, answer.refused, True)
        if len(known) > CELLS_KEPT:
            wanted = set(addresses)
            for name in [a for a in known if a not in wanted][: len(known) - CELLS_KEPT]:
                del known[name]

    def _packets(self, now: int) -> PacketArray:
        """Everything known of others and not expired, each packet once."""
        given = self._received.everything(now)
        packets = np.concatenate([*(c.packets for c in self._cells.values()), given])
        if len(given):
            packets = in_force(packets)
            packets = packets[self._foreign(packets)]
        return packets[expiry(self._schema, packets) > now]

    def _still_good(self, near: Iterable[bytes], own: Records, now: int) -> Fitted | None:
        """The calculations as they are fitted, if they know most of what is known now and lies near a question."""
        fit_, known = self._fit, self._cells
        if fit_ is None or now >= fit_.until or abs(own.n - fit_.records) > REFIT_SHARE * fit_.records:
            return None
        here = then = 0
        for name in near:
            here += len(known[name].packets)
            then += fit_.cells.get(name, 0)
        everything = self.reach.packets - fit_.given
        if here > (1 + REFIT_SHARE) * then or everything > (1 + REFIT_SHARE) * fit_.packets:
            return None
        return fit_.fitted

    def _fitted(self, near: Iterable[bytes], own: Records, now: int) -> Fitted:
        good = self._still_good(near, own, now)
        if good is not None:
            return good
        packets = self._packets(now)
        with single_threaded(boosting=len(packets) + own.n >= BOOSTED_FROM):
            made = fit(
                self._schema,
                evidence_of(self._schema, packets, self._origin),
                own,
                settings=self._settings,
                rng=np.random.default_rng([self._seed, int.from_bytes(self._schema.id[:8], "little")]),
                trust=lambda names, prior, objective: elect(objective, prior),
            )
        sizes = {name: len(c.packets) for name, c in self._cells.items()}
        first = int(expiry(self._schema, packets).min()) if len(packets) else 2**62
        self._fit = _Fit(
            fitted=made,
            until=max(first, now + CELL_SECONDS),
            records=own.n,
            packets=sum(sizes.values()),
            cells=sizes,
            given=len(self._received.everything(now)),
        )
        self._reach = None
        return made

    @property
    def reach(self) -> Reach:
        """How much is known."""
        if self._reach is None:
            known = self._cells.values()
            self._reach = Reach(
                cells=len(known),
                packets=sum(len(c.packets) for c in known) + (self._fit.given if self._fit else 0),
                refused=sum(c.refused for c in known),
                left_out=sum(c.left_out for c in known),
                unanswered=sum(not c.answered for c in known),
            )
        return self._reach

    def answer(
        self, codes: NDArray[np.uint16], own: Records, *, home: Sequence[bytes], probes: int, now: int
    ) -> Insights:
        """Answer questions.

        Args:
            codes: uint16 ``[m, width]``.
            own: own records.
            home: addresses of the cells of own records.
            probes: nearest cells to ask for each question.
            now: seconds since 1970-01-01 UTC.
        """
        near = self.addresses(codes, probes)
        self.fetch([*near, *home], now)
        fitted = self._fitted(near, own, now)
        return Insights(
            schema=self._schema,
            answers=fitted.answer(unit_scale(self._schema, codes)),
            nodes=tuple(n.hex() for n in fitted.nodes),
            level=self._settings.level,
            reach=self.reach,
        )


def _holds_all(new: PacketArray, old: PacketArray) -> bool:
    """Whether every packet of ``old`` is in ``new``."""
    return bool(np.isin(_signatures(old), _signatures(new)).all())


def _signatures(packets: PacketArray) -> NDArray[np.bytes_]:
    """One comparable value a packet."""
    return np.ascontiguousarray(packets["signature"]).view("S64")[:, 0]
