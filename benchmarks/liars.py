"""Members that lie: how often honest packets come back all the same, and what a place in a cell costs.

    python -m benchmarks.liars [--nodes 20] [--lying 0.2]     members as processes, a fifth of which lie
    python -m benchmarks.liars --eclipse                      nodes of the table that lie besides
    python -m benchmarks.liars --keys                         keys that an attacker has to make, and members to own

Liars acknowledge deposits and keep none of them, show each other's packets alone, and tell of each other alone. A
question is *reached* when every cell of it brought an honest packet, and *whole* when all acknowledged honest packets
of its cells came back. A cell is *taken* when liars have all its places.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._keys import costs, table
from benchmarks._liar import HONEST_AUTHOR, LYING_AUTHOR, certificate, organisation
from benchmarks._member import BATCH, CELLS, MEMBER_KEYS, addresses
from benchmarks._swarm import Process, load, until
from benchmarks._table import AROUND, Gang
from benchmarks.common import key, median, options, show
from outroute.placement import DEFAULT_REPLICAS, Member, Members
from outroute.transports import Announcement, Role
from outroute.transports.dht import DhtFinder, shard_keys

PACKETS_PER_CELL = 4
CELLS_ASKED = 8
"""Cells of one question."""
LYING_SEQUENCES = 1_000_000
"""Sequences of liars' packets begin here."""
TARGET = 0.99
LAYOUTS = 400
"""Networks drawn for the share of cells that is taken by chance."""
Z_95 = 1.959963984540054
SETTLE_SECONDS = 12.0
"""What a newcomer is given to find others: two searches of the table."""


def wilson(good: int, all_: int) -> tuple[float, float]:
    """The 95 % interval of a share.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not all_:
        return 0.0, 1.0
    share, square = good / all_, Z_95**2
    centre = (share + square / (2 * all_)) / (1 + square / all_)
    half = Z_95 / (1 + square / all_) * math.sqrt(share * (1 - share) / all_ + square / (4 * all_**2))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Who is there.

    Attributes:
        honest, liars: key numbers.
        organisations: number of the organisation of each member; empty in a network that names none.
    """

    honest: tuple[int, ...]
    liars: tuple[int, ...]
    organisations: dict[int, int]

    @property
    def named(self) -> list[int]:
        return sorted(set(self.organisations.values()))

    def members(self) -> Members:
        """As placement sees them."""
        found = []
        for number in (*self.honest, *self.liars):
            one = key(MEMBER_KEYS + number)
            of = organisation(self.organisations[number]).public_key if self.organisations else one.public_key
            found.append(Member(id=one.id, organisation=of))
        return Members(found)

    def taken(self) -> set[int]:
        """Cells of which liars have every place."""
        lying = {key(MEMBER_KEYS + number).id for number in self.liars}
        rows = self.members().owner_ids(addresses(), DEFAULT_REPLICAS)
        return {cell for cell, row in enumerate(rows) if set(row) <= lying}


def layout(nodes: int, lying: float, per_organisation: int | None, first: int) -> Layout:
    """So many members with keys in a row; the last ones lie, and make up organisations of their own.

    Args:
        nodes: members.
        lying: share of them that lies.
        per_organisation: members of an organisation; None for a network that names none.
        first: number of the first key.
    """
    numbers = range(first, first + nodes)
    liars = round(lying * nodes)
    honest = numbers[: nodes - liars]
    of: dict[int, int] = {}
    if per_organisation is not None:
        of = {number: at // per_organisation for at, number in enumerate(honest)}
        start = max(of.values()) + 1
        of |= {number: start + at // per_organisation for at, number in enumerate(numbers[nodes - liars :])}
    return Layout(honest=tuple(honest), liars=tuple(numbers[nodes - liars :]), organisations=of)


def chosen(nodes: int, lying: float, first: int, cell: int = 0) -> tuple[Layout, int]:
    """An open network whose liars tried keys until three of them own a cell; and how many keys they tried."""
    plain = layout(nodes, lying, None, first)
    honest = sorted(int.from_bytes(key(MEMBER_KEYS + one).id, "big") for one in plain.honest)
    point = int.from_bytes(addresses()[cell], "big")
    nearest = min(one ^ point for one in honest)
    found: list[int] = []
    tried = 0
    while len(found) < len(plain.liars):
        number = 10_000_000 + tried
        tried += 1
        if int.from_bytes(key(MEMBER_KEYS + number).id, "big") ^ point < nearest or len(found) >= DEFAULT_REPLICAS:
            found.append(number)
    return Layout(honest=plain.honest, liars=tuple(found), organisations={}), tried


class Party(Process):
    """A member that may lie."""

    module = "benchmarks._liar"

    def __init__(self, number: int, directory: Path, whole: Layout) -> None:
        super().__init__(number, directory)
        self.lies = number in whole.liars
        self.more = [word for named in whole.named for word in ("--named", str(named))]
        if number in whole.organisations:
            self.more += ["--organisation", str(whole.organisations[number])]
        if self.lies:
            self.more += ["--lies", *(word for one in whole.liars for word in ("--friend", str(one)))]

    def announcement(self, whole: Layout, seconds: int) -> bytes:
        """Its word that it is there, as it would lie in the table."""
        now = int(time.time())
        of = whole.organisations.get(self.number)
        made = Announcement(
            key=self.identity.public_key,
            roles=Role.EMIT | Role.ASK | Role.HOLD,
            endpoint=self.endpoint,
            expires=now + seconds,
            certificate=None if of is None else certificate(self.identity, of, now),
        )
        return made.signed(self.identity).to_bytes()


class Village:
    """The members of a layout, as processes; ``table`` are nodes of the table by which they get into it."""

    def __init__(self, directory: Path, whole: Layout, *, table: Sequence[str] | None = None) -> None:
        self.whole, self._directory, self._table = whole, directory, table
        self.members: list[Party] = []
        self.at = int(time.time())
        self.acknowledged: set[int] = set()

    async def __aenter__(self) -> Village:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(one.kill() for one in self.members))

    @property
    def honest(self) -> list[Party]:
        return [one for one in self.members if not one.lies]

    @property
    def liars(self) -> list[Party]:
        return [one for one in self.members if one.lies]

    async def add(self, number: int, join: Iterable[str], find: float = 5.0) -> Party:
        one = Party(number, self._directory / str(number), self.whole)
        await one.start(join=join, table=self._table, find=find)
        self.members.append(one)
        return one

    async def begin(self) -> Party:
        """The first member; it is honest."""
        return await self.add(self.whole.honest[0], [])

    async def fill(self) -> None:
        """All others; each joins the first."""
        first = self.members[0]
        waiting = [number for number in (*self.whole.honest, *self.whole.liars) if number != first.number]
        places = asyncio.Semaphore(2)

        async def one(number: int) -> None:
            async with places:
                await self.add(number, [first.endpoint])

        await asyncio.gather(*map(one, waiting))

        async def all_known() -> bool:
            found = await asyncio.gather(*(one.tell("stats") for one in self.honest))
            return all(one["members"] == len(self.members) for one in found)

        await until(all_known, 90.0, "honest members do not all see each other")

    async def deposit(self) -> None:
        """Liars' packets and honest ones, into every cell."""
        count = CELLS * PACKETS_PER_CELL
        if self.liars:
            lies = {"author": LYING_AUTHOR, "first": LYING_SEQUENCES, "count": count, "at": self.at}
            async for _ in self.liars[0].parts("deposit", **lies):
                pass
        for number, start in enumerate(range(0, count, BATCH)):
            one = self.honest[number % len(self.honest)]
            told = {"author": HONEST_AUTHOR, "first": start, "count": BATCH, "at": self.at}
            async for part in one.parts("deposit", **told):
                self.acknowledged |= set(part["acknowledged"])

    async def ask(self, askers: Sequence[Party], questions: int, cells: int, seed: int) -> dict[str, Any]:
        """Questions of some members in turn; what came back."""
        rng = random.Random(seed)
        reached = whole = answered = cells_whole = elsewhere = 0
        taken = self.whole.taken()
        ms: list[float] = []
        for number in range(questions):
            asked = rng.sample(range(CELLS), cells)
            found = await askers[number % len(askers)].tell("ask", cells=asked, show=True)
            brought = {one for one in found["found"] if one < LYING_SEQUENCES}
            there = {one % CELLS for one in brought}
            lacking = {one % CELLS for one in self.acknowledged if one % CELLS in set(asked) and one not in brought}
            reached += there >= set(asked)
            whole += not lacking
            cells_whole += cells - len(lacking)
            elsewhere += len(lacking - taken)
            answered += found["complete"] == cells
            ms.append(found["ms"])
        return {
            "questions": questions,
            "cells_per_question": cells,
            "answered": answered,
            "reached": reached,
            "whole": whole,
            "share": whole / questions,
            "interval": wilson(whole, questions),
            "cells_asked": questions * cells,
            "cells_whole": cells_whole,
            "cells_share": cells_whole / (questions * cells),
            "cells_lost_with_an_honest_owner": elsewhere,
            "ask_ms_p50": median(ms),
        }


def by_chance(nodes: int, lying: float, per_organisation: int | None) -> dict[str, float]:
    """What placement alone says of networks of other keys: cells of which liars have every place."""
    found = [len(layout(nodes, lying, per_organisation, 1000 * (1 + n)).taken()) / CELLS for n in range(LAYOUTS)]
    several = [1 - math.comb(CELLS - round(CELLS * one), CELLS_ASKED) / math.comb(CELLS, CELLS_ASKED) for one in found]
    return {
        "layouts": LAYOUTS,
        "cells_taken": sum(found) / LAYOUTS,
        "one_cell": 1 - sum(found) / LAYOUTS,
        "several_cells": 1 - sum(several) / LAYOUTS,
    }


async def trial(directory: Path, whole: Layout, questions: int, seed: int) -> dict[str, Any]:
    """One network: deposits, then questions about one cell and about several."""
    async with Village(directory, whole) as village:
        await village.begin()
        await village.fill()
        await village.deposit()
        one = await village.ask(village.honest, questions, 1, seed)
        several = await village.ask(village.honest, questions, CELLS_ASKED, seed + 1)
        stats = await asyncio.gather(*(member.tell("stats") for member in village.honest))
        return {
            "nodes": len(village.members),
            "liars": len(village.liars),
            "organisations": len(whole.named),
            "lying_organisations": len({whole.organisations[one] for one in whole.liars}) if whole.organisations else 0,
            "deposited": CELLS * PACKETS_PER_CELL,
            "acknowledged": len(village.acknowledged),
            "cells_taken": len(whole.taken()),
            "one_cell": one,
            "several_cells": several,
            "memory_mb": max(found["memory_mb"] for found in stats),
            "problems": {name: text for found in stats for name, text in found["problems"].items()},
            "load": load(),
        }


async def lying(directory: Path, nodes: int, share: float, questions: int, seed: int) -> dict[str, Any]:
    """The same liars in networks of different kinds."""
    kinds: dict[str, int | None] = {
        "organisations of four": 4,
        "organisations of two": 2,
        "every member an organisation": 1,
        "open": None,
    }
    found: dict[str, Any] = {}
    for number, (name, per) in enumerate(kinds.items()):
        whole = layout(nodes, share, per, 10_000 * seed + 1000 * number)
        found[name] = await trial(directory / str(number), whole, questions, seed)
        found[name]["by_chance"] = by_chance(nodes, share, per)
    picked, tried = chosen(nodes, share, 10_000 * seed)
    found["open, keys chosen for a cell"] = {
        "keys_tried": tried,
        **await trial(directory / "chosen", picked, questions, seed),
    }
    for one in found.values():
        one["target_met"] = one["several_cells"]["share"] >= TARGET and one["one_cell"]["share"] >= TARGET
    return found


async def eclipse(directory: Path, nodes: int, share: float, questions: int, taken: int, seed: int) -> dict[str, Any]:
    """Nodes of the table around some of the addresses that lie, and members that lie besides; newcomers."""
    whole = layout(nodes, share, 4, 10_000 * seed)
    new = [10_000 * seed + nodes + n for n in range(3)]
    whole.organisations.update(dict.fromkeys(new, 0))
    keys = shard_keys(bytes(32), nodes, b"")
    async with AsyncExitStack() as stack:
        bystander = DhtFinder(clock=lambda: int(time.time()), size=lambda: nodes)  # a node of the table, and no member
        stack.push_async_callback(bystander.close)
        port = bystander.start(host="127.0.0.1")
        gang = await stack.enter_async_context(Gang(keys[:taken], [("127.0.0.1", port)]))
        await asyncio.sleep(4.0)
        async with Village(directory, whole, table=[f"127.0.0.1:{port}"]) as village:
            await village.begin()
            await village.fill()
            gang.say([one.announcement(whole, 1200) for one in village.liars])
            await village.deposit()
            honest = {one.identity.id.hex() for one in village.honest}
            found: dict[str, Any] = {
                "nodes": nodes,
                "liars": len(village.liars),
                "addresses": len(keys),
                "addresses_surrounded": taken,
                "lying_table_nodes": taken * AROUND,
            }
            joins = {
                "knows an honest member": [village.honest[1].endpoint],
                "knows a liar": [village.liars[0].endpoint],
                "knows the table alone": [],
            }
            for number, (name, join) in zip(new, joins.items(), strict=True):
                one = await village.add(number, join)
                await asyncio.sleep(SETTLE_SECONDS)
                whom = await one.tell("whom")
                found[name] = {
                    "honest_members_found": len(honest & set(whom["members"])),
                    "of": len(honest),
                    **await village.ask([one], questions, CELLS_ASKED, seed),
                }
                village.members.remove(one)
                await one.kill()
            residents = await village.ask(village.honest, questions, CELLS_ASKED, seed)
            return found | {
                "residents": residents,
                "swallowed": gang.swallowed,
                "searches_answered": gang.asked,
                "load": load(),
            }


async def _run(args: argparse.Namespace) -> dict[str, Any]:
    questions = args.questions or (20 if args.quick else 400)
    began = load()
    with tempfile.TemporaryDirectory() as name:
        if args.eclipse:
            found = {
                f"{taken} of 4 addresses": await eclipse(
                    Path(name) / str(taken), args.nodes, args.lying, max(20, questions // 4), taken, args.seed
                )
                for taken in (1, 4)
            }
        else:
            found = await lying(Path(name), args.nodes, args.lying, questions, args.seed)
    return {"load_before": began, **found, "load_after": load()}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--lying", type=float, default=0.2, help="share of the members that lies")
    parser.add_argument("--questions", type=int, help="of each kind; default 400")
    parser.add_argument("--seed", type=int, default=1, help="draws keys and questions")
    parser.add_argument("--eclipse", action="store_true", help="nodes of the table lie too")
    parser.add_argument("--keys", action="store_true", help="the price of a place in a cell")
    args = parser.parse_args()
    found = costs(quick=args.quick, seed=args.seed) if args.keys else asyncio.run(_run(args))
    if args.keys and not args.json:
        print(table(found))
    else:
        show(found, args.json)


if __name__ == "__main__":
    main()
