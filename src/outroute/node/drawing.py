"""Drawing on holders: the rounds of `outroute.elections.drawing`, carried by a transport."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.elections.drawing import AUTHORS_MOST, Ask, Known, demand_of, fetch
from outroute.identity import node_id
from outroute.node.electing import organisations_of, table_of, table_of_own
from outroute.node.evidence import evidence_of, keys_of
from outroute.node.portal import run
from outroute.packet import PACKET_DTYPE, PacketArray
from outroute.placement import Wanted
from outroute.schema import Schema
from outroute.synthesis import Records
from outroute.transports import Answer, Holder
from outroute.transports.replicas import in_force

__all__ = ["Drawn", "Who", "draw_packets"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """What a node knows about authors.

    Attributes:
        origin: the first key of a node that changed its key.
        organisation: organisation of an author's key; the key itself where nobody certifies it.
        foreign: which packets are not the asker's own, bool[n].
        pinned: ids of nodes that the operator trusts.
    """

    origin: Callable[[bytes], bytes]
    organisation: Callable[[bytes], bytes]
    foreign: Callable[[PacketArray], NDArray[np.bool_]]
    pinned: frozenset[bytes]


@dataclass(slots=True)
class Drawn:
    """What came of one cell.

    Attributes:
        packets: of others.
        own: how many of the asker's own came with them.
        total: packets that the cell holds.
        refused: packets that did not pass.
        silent: owners that fell silent, see `Answer`.
        answered: somebody could be asked.
    """

    packets: PacketArray
    own: int = 0
    total: int = 0
    refused: int = 0
    silent: int = 0
    answered: bool = True

    @property
    def left(self) -> int:
        """Packets that it has beside these."""
        return max(self.total - self.own - len(self.packets), 0) if self.answered else 0


class _Rounds:
    """Asks holders, round after round, and says what is known by now."""

    def __init__(
        self,
        schema: Schema,
        holder: Holder,
        names: Sequence[bytes],
        before: PacketArray,
        who: Who,
        noted: Callable[[Sequence[Answer]], None],
    ) -> None:
        self._schema, self._holder, self._names, self._before = schema, holder, names, before
        self._who, self._noted = who, noted
        self.cells = [Drawn(packets=np.empty(0, dtype=PACKET_DTYPE)) for _ in names]
        self._fetched = 0
        self._keys: list[list[bytes]] = []
        self._nodes: tuple[bytes, ...] = ()
        self._spent: set[tuple[bytes, int]] = set()
        self._empty: set[int] = set()

    def __call__(self, asks: Sequence[Ask]) -> Known:
        together: dict[tuple[int, tuple[Wanted, ...]], list[Ask]] = {}
        for one in asks:
            together.setdefault((one.count, self._wanted(one)), []).append(one)

        async def everything() -> list[list[Answer]]:
            calls: list[Coroutine[Any, Any, list[Answer]]] = [
                self._holder.fetch(self._schema.id, [self._names[a.cell] for a in part], cap=count, wanted=wanted)
                for (count, wanted), part in together.items()
            ]
            return list(await asyncio.gather(*calls))

        for part, answers in zip(together.values(), run(everything()), strict=True):
            self._noted(answers)
            for one, answer in zip(part, answers, strict=True):
                self._take(one, answer)
        return self._known()

    def _wanted(self, one: Ask) -> tuple[Wanted, ...]:
        """The authors that a question names, and how many packets of each came of this cell already."""
        has: dict[int, int] = {}
        for author in _authors(self.cells[one.cell].packets).tolist():
            has[author] = has.get(author, 0) + 1
        keys = [int.from_bytes(key[:8], "little") for node in one.nodes for key in self._keys[node]]
        return tuple(Wanted(key, min(has.get(key, 0), 0xFFFF)) for key in sorted(set(keys))[:AUTHORS_MOST])

    def _take(self, one: Ask, answer: Answer) -> None:
        cell = self.cells[one.cell]
        if not answer.complete:
            cell.answered = False
            return
        if not one.nodes:
            cell.total = len(answer.packets) + answer.left_out
        self._fetched += len(answer.packets)
        foreign = self._who.foreign(answer.packets)
        cell.own += int((~foreign).sum())
        cell.packets = in_force(np.concatenate([cell.packets, answer.packets[foreign]]))
        cell.refused += answer.refused
        cell.silent = max(cell.silent, answer.silent)
        if not answer.left_out:
            self._spent |= {(self._nodes[node], one.cell) for node in one.nodes}
            if not one.nodes:
                self._empty.add(one.cell)

    def _known(self) -> Known:
        packets = np.concatenate([self._before, *(cell.packets for cell in self.cells)])
        sizes = [len(cell.packets) for cell in self.cells]
        place = np.concatenate(
            [np.full(len(self._before), -1, dtype=np.int64), np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)]
        )
        evidence = evidence_of(self._schema, packets, self._who.origin)
        keys = keys_of(packets)
        certified = {node_id(self._who.origin(key)): self._who.organisation(key) for key in keys}
        self._nodes = evidence.nodes
        index = {name: i for i, name in enumerate(self._nodes)}
        self._keys = [[] for _ in self._nodes]
        for key in keys:
            self._keys[index[node_id(self._who.origin(key))]].append(key)
        spent = np.zeros((len(self._nodes), len(sizes)), dtype=np.bool_)
        spent[:, sorted(self._empty)] = True
        for name, cell in self._spent:
            if name in index:
                spent[index[name], cell] = True
        pins = np.array([i for i, name in enumerate(self._nodes) if name in self._who.pinned], dtype=np.int64)
        return Known(
            packets=table_of(evidence),
            cell=place,
            fetched=self._fetched,
            left=np.array([cell.left for cell in self.cells], dtype=np.int64),
            spent=spent,
            organisation=organisations_of(self._nodes, certified),
            pinned=pins if len(pins) else None,
        )


def draw_packets(
    schema: Schema,
    holder: Holder,
    own: Records,
    *,
    near: Sequence[Sequence[bytes]],
    home: Sequence[bytes],
    names: Sequence[bytes],
    before: PacketArray,
    budget: int,
    seed: int,
    who: Who,
    noted: Callable[[Sequence[Answer]], None],
) -> Mapping[bytes, Drawn]:
    """Fetch some packets of some cells: those that are expected to help most.

    Args:
        schema: the schema.
        holder: the transport.
        own: own records.
        near: addresses of the nearest cells of each question, the nearest first; equally many of each.
        home: address of each own record's cell.
        names: the cells to fetch from, each once.
        before: packets of other cells that are here already; they help to judge.
        budget: packets to fetch, at most.
        seed: of everything that draws.
        who: what is known about authors.
        noted: told of every question that went out.
    """
    index = {name: i for i, name in enumerate(names)}
    asked = np.array([[index.get(name, -1) for name in row] for row in near], dtype=np.int64)
    region = np.array([index.get(name, -1) for name in home], dtype=np.int64)
    rounds = _Rounds(schema, holder, names, before, who, noted)
    drawn_from = hashlib.sha256(b"".join(names)).digest()
    fetch(
        rounds,
        table_of_own(schema, own),
        own.group,
        region,
        demand_of(asked, region, len(names)),
        budget=budget,
        rng=np.random.default_rng([seed, int.from_bytes(drawn_from[:8], "little")]),
    )
    return dict(zip(names, rounds.cells, strict=True))


def _authors(packets: PacketArray) -> NDArray[np.uint64]:
    """The leading bytes of each author's key."""
    found: NDArray[np.uint64] = np.ascontiguousarray(packets["author"][:, :8]).view("<u8")[:, 0]
    return found
