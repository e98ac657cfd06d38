"""What a network of real processes loses when members are killed, leave, come back, or are all replaced.

    python -m benchmarks.failover --json
    python -m benchmarks.failover --partition --json

Twenty members, each a process with a durable store, direct TLS links, announcements and the DHT; some deposit, all
ask, all the time. Then: a quarter is killed at once (SIGKILL); members join, leave properly, are killed and started
again from their directories; every member of the first hour is replaced by a newcomer, one killed after the other.
A packet that a depositor was told is acknowledged must be found afterwards; those in cells of which two of the three
holders were killed at once may be lost, and are counted apart. In the end, members are killed at random moments while
they deposit and hold, and come back from their directories.

``--partition`` does only this, as root on Linux (the full run does it at its end where it can): two halves of a network
live in network namespaces; the line between them is cut, shorter and longer than an announcement lasts, while both go
on depositing and asking; then it is joined again. Packets acknowledged in either half must be everywhere they belong
afterwards. Once with the DHT, and once with members that find each other by themselves alone.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks._member import BATCH, CELLS
from benchmarks._partition import CUTS, missing, partition
from benchmarks._swarm import Gone, Process, Swarm, load
from benchmarks._traffic import Traffic, note
from benchmarks.common import options, show
from outroute.placement import DEFAULT_REPLICAS, majority

NODES, QUARTER = 20, 4
PACKETS = 4096
"""Packets before the first kill: sixteen to a cell."""
KILLS = 50
"""Kills at random moments of the last part."""
KILL_NODES = 6
RESTARTS = 3
QUICK_CUTS = (8.0,)


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


async def measure(
    nodes: int, packets: int, kills: int, restarts: int, cuts: tuple[float, ...], seed: int
) -> dict[str, Any]:
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
    found["partition"] = await partitions(nodes, packets, cuts, seed)
    found["load_after"] = load()
    return found


async def partitions(nodes: int, packets: int, cuts: tuple[float, ...], seed: int) -> dict[str, Any]:
    """Cut in two and joined again, with the DHT and without; or why that is left out."""
    why = missing()
    if why is not None:
        note(f"no partition: {why}")
        return {"left_out": why}
    found: dict[str, Any] = {}
    for name, dht in (("dht", True), ("telling_alone", False)):
        with tempfile.TemporaryDirectory() as directory:
            found[name] = await partition(Path(directory), nodes, packets, cuts, seed, dht=dht)
    return found


async def stoppable(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Do it; SIGTERM ends it as Ctrl-C does, so that processes and namespaces go too."""
    task = asyncio.ensure_future(work)
    with suppress(NotImplementedError):  # on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--packets", type=int, default=PACKETS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--restarts", type=int, default=RESTARTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--partition", action="store_true", help="only cut the network in two and join it again")
    parser.add_argument("--cuts", type=float, nargs="+", default=CUTS, metavar="SECONDS", help="of each cut")
    args = parser.parse_args()
    if args.quick:
        args.nodes, args.packets, args.kills, args.restarts, args.cuts = 4, 256, 2, 1, QUICK_CUTS
    cuts = tuple(args.cuts)
    if args.partition:
        work = partitions(args.nodes, args.packets, cuts, args.seed)
    else:
        work = measure(args.nodes, args.packets, args.kills, args.restarts, cuts, args.seed)
    show(asyncio.run(stoppable(work)), args.json)


if __name__ == "__main__":
    main()
