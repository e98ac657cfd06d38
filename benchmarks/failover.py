"""What a network of real processes loses when members are killed, leave, come back, or are all replaced.

    python -m benchmarks.failover --json

Twenty members, each a process with a durable store, direct TLS links, announcements and the DHT; some deposit, all
ask, all the time. Then: a quarter is killed at once (SIGKILL); members join, leave properly, are killed and started
again from their directories; every member of the first hour is replaced by a newcomer, one killed after the other.
A packet that a depositor was told is acknowledged must be found afterwards; those in cells of which two of the three
holders were killed at once may be lost, and are counted apart. In the end, members are killed at random moments while
they deposit and hold, and come back from their directories.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._member import BATCH, CELLS
from benchmarks._swarm import Gone, Process, Swarm, load
from benchmarks.common import options, show
from outroute.placement import DEFAULT_REPLICAS, majority

NODES, QUARTER = 20, 4
PACKETS = 4096
"""Packets before the first kill: sixteen to a cell."""
ASK_CELLS = 16
ASKERS = 4
DEPOSIT_PAUSE = 1.0
"""Seconds between batches of a hundred packets, so that a cell does not grow past what one answer holds."""
KILLS = 50
"""Kills at random moments of the last part."""
KILL_NODES = 6
RESTARTS = 3


class Traffic:
    """Deposits and questions that go on while members die."""

    def __init__(self, swarm: Swarm, seed: int) -> None:
        self.swarm = swarm
        self.random = random.Random(seed)
        self.acknowledged: set[int] = set()
        self.asks = self.answered = 0
        self.milliseconds: list[float] = []
        self._next = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.depositing = asyncio.Event()
        self.depositing.set()

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(ASKERS)]
        self._tasks.append(asyncio.create_task(self._deposit()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for found in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(found, Exception):
                raise found

    def one(self) -> Process:
        return self.random.choice(self.swarm.members)

    async def deposit(self, by: Process, count: int, pause: float = 0.0) -> None:
        """New packets, deposited by one member; what it reports is noted at once."""
        first, self._next = self._next, self._next + count
        async for part in by.parts("deposit", author=1, first=first, count=count, at=self.swarm.at, pause=pause):
            self.acknowledged.update(part["acknowledged"])

    async def _deposit(self) -> None:
        while True:
            await self.depositing.wait()
            try:
                await self.deposit(self.one(), BATCH)
            except Gone:
                continue
            await asyncio.sleep(DEPOSIT_PAUSE)

    async def _ask(self) -> None:
        while True:
            cells = self.random.sample(range(CELLS), ASK_CELLS)
            try:
                found = await self.one().tell("ask", cells=cells, cap=16)
            except Gone:  # the one that asks was killed
                continue
            self.asks += 1
            self.answered += found["complete"] == ASK_CELLS
            self.milliseconds.append(found["ms"])
            await asyncio.sleep(0.1)

    def taken(self) -> dict[str, Any]:
        """Figures of the questions since the last call."""
        asks, answered, ms = self.asks, self.answered, self.milliseconds
        self.asks, self.answered, self.milliseconds = 0, 0, []
        p50, p99 = np.quantile(ms, [0.5, 0.99]) if ms else (np.nan, np.nan)
        return {"asks": asks, "answered": answered, "ask_ms_p50": p50, "ask_ms_p99": p99}


def note(what: str) -> None:
    """What is going on, for who watches."""
    print(f"{time.strftime('%H:%M:%S')} {what}, load {load()}", file=sys.stderr, flush=True)


def exposed(before: list[tuple[bytes, ...]], dead: set[bytes]) -> set[int]:
    """Cells of which so many holders died at once that acknowledged packets may be gone."""
    return {cell for cell, row in enumerate(before) if len(dead & set(row)) >= majority(DEFAULT_REPLICAS)}


async def killing(swarm: Swarm, traffic: Traffic) -> dict[str, Any]:
    """A quarter at once."""
    count = len(swarm.members)
    quiet = traffic.taken()
    before = swarm.owners()
    dead = traffic.random.sample(swarm.members, max(1, count // QUARTER))
    known = set(traffic.acknowledged)
    bare = exposed(before, {one.identity.id for one in dead})
    note(f"killing {len(dead)}")
    began = time.monotonic()
    await swarm.kill(dead)
    await swarm.known()
    noticed = time.monotonic() - began
    safe = {s for s in known if s % CELLS not in bare}
    lost = set(safe)
    for _ in range(3):  # asked again: what is on its way between holders is not lost
        lost -= await swarm.recalled(traffic.one())
    held = set().union(*(await swarm.held()).values())
    await swarm.whole((known & held) - lost)
    repaired = time.monotonic() - began
    during = traffic.taken()
    return {
        "nodes": count,
        "killed": len(dead),
        "acknowledged": len(known),
        "lost": len(lost),
        "exposed": len(known) - len(safe),
        "exposed_lost": len(known - safe - held),
        **during,
        "ask_ms_p50_before": quiet["ask_ms_p50"],
        "ask_ms_p99_before": quiet["ask_ms_p99"],
        "noticed_s": noticed,
        "repair_s": repaired,
    }


async def churning(swarm: Swarm, traffic: Traffic, nodes: int, turns: int) -> dict[str, Any]:
    """As many as before again; joining, leaving properly, coming back from the directory."""
    traffic.taken()
    await swarm.fill(nodes)
    known = set(traffic.acknowledged)
    gone = set(known) - set().union(*(await swarm.held()).values())
    done: list[str] = []
    for turn in range(turns):
        note(f"join, leave, restart: {turn + 1} of {turns}")
        await swarm.add()
        await swarm.leave(traffic.one())
        again = traffic.one()
        await swarm.kill([again])
        await asyncio.sleep(1.0)
        await swarm.again(again)
        done += ["join", "leave", "restart"]
        await swarm.known()
        await swarm.whole(known - gone)
    found = await swarm.recalled(traffic.one())
    return {"events": len(done), "lost": len(known - gone - found), **traffic.taken()}


async def replacing(swarm: Swarm, traffic: Traffic) -> dict[str, Any]:
    """Everybody, one after the other, killed."""
    traffic.taken()
    began = time.monotonic()
    first = list(swarm.members)
    known = set(traffic.acknowledged) & set().union(*(await swarm.held()).values())
    for turn, old in enumerate(first):
        note(f"replacing {turn + 1} of {len(first)}")
        await swarm.add()
        await swarm.known()
        await swarm.whole(known)
        await swarm.kill([old])
    await swarm.known()
    found = await swarm.recalled(swarm.members[0])
    return {
        "replaced": len(first),
        "packets": len(known),
        "rolling_recall": len(known & found) / len(known),
        "seconds": time.monotonic() - began,
        **traffic.taken(),
    }


async def random_kills(directory: Path, nodes: int, kills: int, seed: int, *, dht: bool = True) -> dict[str, Any]:
    """One killed at a random moment while all deposit, again and again; it comes back before the next one is."""
    async with Swarm(directory, dht=dht) as swarm:
        await swarm.fill(nodes)
        traffic = Traffic(swarm, seed)

        async def deposit(one: Process) -> None:
            while one.alive:
                try:
                    await traffic.deposit(one, 2 * BATCH, 0.05)
                except Gone:
                    return

        depositing = [asyncio.create_task(deposit(one)) for one in swarm.members]
        for turn in range(kills):
            if turn % 10 == 0:
                note(f"random kill {turn + 1} of {kills}")
            await asyncio.sleep(traffic.random.random())
            one = traffic.one()
            await swarm.kill([one])
            await swarm.again(one)  # its store is read for damage when it opens
            depositing.append(asyncio.create_task(deposit(one)))
        for task in depositing:
            task.cancel()
        await asyncio.gather(*depositing, return_exceptions=True)
        known = set(traffic.acknowledged)
        held = set().union(*(await swarm.held()).values())
        return {"nodes": nodes, "kills": kills, "acknowledged": len(known), "lost": len(known - held)}


async def measure(nodes: int, packets: int, kills: int, restarts: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        async with Swarm(Path(directory)) as swarm:
            began = time.monotonic()
            await swarm.fill(nodes)
            started = time.monotonic() - began
            traffic = Traffic(swarm, seed)
            await traffic.deposit(swarm.members[0], packets)
            traffic.start()
            await asyncio.sleep(5.0)
            found = {"load_before": load(), "start_s": started, **await killing(swarm, traffic)}
            found["churn"] = await churning(swarm, traffic, nodes, restarts)
            traffic.depositing.clear()
            found["rolling"] = await replacing(swarm, traffic)
            found["rolling_recall"] = found["rolling"].pop("rolling_recall")
            await traffic.stop()
            stats = await asyncio.gather(*(one.tell("stats") for one in swarm.members))
            found["memory_mb"] = max(one["memory_mb"] for one in stats)
        found["random_kills"] = await random_kills(Path(directory) / "random", min(nodes, KILL_NODES), kills, seed)
        found["load_after"] = load()
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--packets", type=int, default=PACKETS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--restarts", type=int, default=RESTARTS)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.quick:
        args.nodes, args.packets, args.kills, args.restarts = 4, 256, 2, 1
    found = measure(args.nodes, args.packets, args.kills, args.restarts, args.seed)
    show(asyncio.run(found), args.json)


if __name__ == "__main__":
    main()
