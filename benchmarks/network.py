"""How fast a network of real processes takes packets in and answers, as ratios to raw costs in the same run.

    python -m benchmarks.network --json

``ingest``: one member takes in full frames over its link, checks every packet and stores it durably; beside it the raw
rate of Ed25519 on the same machine. Both per second of processor time (of the whole process, and of one thread) and of
wall time; a node checks the packets of a frame on all cores, so its wall time is set beside the raw rate of one thread
and beside that of all cores. ``probe``: a question that probes 64 cells with 16 packets each on twenty members, every
packet checked anew. ``trip``: a question about one cell beside the smallest exchange over the same links, and beside
as many of these at once as a cell has owners; checking is reported apart, synthesis is in ``benchmarks.ask``.
``growth``: what a question and a quiet second cost with more and more members.
``fuzz``: random and damaged bytes through the frame parser. ``hostile``: what honest questions take while others
flood, stall and send rubbish.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._growth import cost, laws
from benchmarks._hostile import fuzz, harass
from benchmarks._member import BATCH, CELLS, SECRET, make, places, schema
from benchmarks._swarm import Swarm, load
from benchmarks.common import key, median, options, show
from outroute.node.evidence import verify_in_threads
from outroute.packet import verify_signatures
from outroute.placement import DEFAULT_REPLICAS, Members
from outroute.store import PacketStore
from outroute.transports import Guard
from outroute.transports.direct import DirectTransport

INGESTED = 20_000
PACKETS = 4096
PROBE_CELLS = 64
QUESTIONS = 40
SIZES = (5, 10, 20, 40, 80)
QUIET_SECONDS = 10.0
FUZZED = 1_000_000


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _raw(count: int) -> tuple[float, float, float]:
    """Signatures checked per second: of processor time, of wall time in one thread, of wall time on all cores."""
    packets = make(3, 0, count, int(time.time()))
    began, busy = time.perf_counter(), time.thread_time()
    verify_signatures(packets)
    busy, alone = time.thread_time() - busy, time.perf_counter() - began
    began = time.perf_counter()
    verify_in_threads(packets)
    return count / busy, count / alone, count / (time.perf_counter() - began)


def _receive(directory: str, said: Any, count: int) -> None:
    """The receiving process: a member that owns everything."""

    async def live() -> None:
        me = key(20_000)
        store = PacketStore(directory)
        member = DirectTransport(
            me,
            store,
            Guard([schema()], verify=verify_in_threads),
            members=lambda: Members([member.member]),
            endpoint_of=lambda _: None,
            clock=lambda: int(time.time()),
            secrets=SECRET,
        )
        before = _raw(count)
        said.send(await member.link.listen())
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, said.recv)
        busy = _spent()
        said.send(None)
        await loop.run_in_executor(None, said.recv)
        used = _spent() - busy
        after = _raw(count)
        said.send((used, [before, after], store.count()))
        await member.close()
        store.close()

    asyncio.run(live())


async def ingest(count: int) -> dict[str, Any]:
    """Frames from one sender to one member, each in its own process."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    os.environ["OMP_NUM_THREADS"] = "1"  # as every member has it: two threads of a busy machine wait for each other
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as directory:
        process = context.Process(target=_receive, args=(directory, there, max(count // 4, 200)))
        process.start()
        packets = make(2, 0, count, int(time.time()))
        endpoint = await loop.run_in_executor(None, here.recv)
        receiver = key(20_000)
        sender = DirectTransport(
            key(20_001),
            PacketStore(),
            Guard([schema()]),
            members=lambda: Members([]),
            endpoint_of=lambda _: endpoint,
            clock=lambda: int(time.time()),
            replicas=1,
            secrets=SECRET,
        )
        await sender.replicas.deposit(schema().id, places(packets[:1]), packets[:1], only=receiver.id)
        here.send(None)
        await loop.run_in_executor(None, here.recv)
        began = time.perf_counter()
        places_of = places(packets)
        parts = [slice(at, at + 8 * BATCH) for at in range(1, count, 8 * BATCH)]
        waiting = iter(parts)

        async def send() -> int:
            kept = 0
            for part in waiting:
                done = await sender.replicas.deposit(schema().id, places_of[part], packets[part], only=receiver.id)
                kept += int(done.acknowledged.sum())
            return kept

        kept = sum(await asyncio.gather(*(send() for _ in range(3))))
        wall = time.perf_counter() - began
        here.send(None)
        used, raw, stored = await loop.run_in_executor(None, here.recv)
        await sender.close()
        process.join()
    cpu_raw, wall_raw, cores_raw = (median(list(one)) for one in zip(*raw, strict=True))
    return {
        "packets": kept,
        "stored": stored,
        "per_second": kept / wall,
        "raw_verify_per_second": wall_raw,
        "raw_verify_all_cores_per_second": cores_raw,
        "ratio_wall": kept / wall / wall_raw,
        "ratio_wall_all_cores": kept / wall / cores_raw,
        "ratio_cpu": kept / used / cpu_raw,
    }


async def growth(
    sizes: tuple[int, ...], questions: int, quiet: float, *, rest: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One network that grows; the figures for each size, and those of probe and trip at the size next to twenty."""
    costs: dict[str, Any] = {}
    found: dict[str, Any] = {}
    dice = random.Random(7)
    with tempfile.TemporaryDirectory() as directory:
        async with Swarm(Path(directory)) as swarm:
            for size in sizes:
                await swarm.fill(size)
                if size == sizes[0]:
                    async for _ in swarm.members[0].parts("deposit", author=1, first=0, count=PACKETS, at=swarm.at):
                        pass
                await swarm.whole(range(PACKETS), 300.0)
                costs[str(size)] = await cost(swarm, questions, quiet, dice)
                if rest and (not found or size <= 20):
                    found = {
                        "probe": await probe(swarm, questions, dice),
                        "trip": await trip(swarm, questions),
                        "hostile": await harass(swarm, questions),
                    }
    return costs, found


async def probe(swarm: Swarm, questions: int, dice: random.Random) -> dict[str, Any]:
    """64 cells of 16 packets, nothing cached."""
    asker = swarm.members[-1]
    asked = [
        await asker.tell("ask", cells=dice.sample(range(CELLS), PROBE_CELLS), cap=PACKETS // CELLS)
        for _ in range(questions + 3)
    ][3:]
    taken = [one["ms"] for one in asked]
    packets = int(median([one["packets"] for one in asked]))
    checking = (await asker.tell("check", count=packets, at=swarm.at))["ms"]
    return {
        "nodes": len(swarm.members),
        "cells": PROBE_CELLS,
        "packets": packets,
        "ms_p50": median(taken),
        "ms_p90": float(np.quantile(taken, 0.9)),
        "checking_ms": checking,
        "exchanges": median([one["exchanges"] for one in asked]),
        "load": load(),
    }


async def trip(swarm: Swarm, questions: int) -> dict[str, Any]:
    """One cell, its packets known already, beside the raw round trip, and beside those to as many as own a cell."""
    asker = swarm.members[-1]
    owners = swarm.owners()
    away = [cell for cell in range(CELLS) if asker.identity.id not in owners[cell]][:questions]
    raw: list[float] = []
    together: list[float] = []
    known: list[float] = []
    anew: list[float] = []
    for cell in away:
        await asker.tell("ask", cells=[cell], anew=False)
        raw += (await asker.tell("trips", count=5))["ms"]
        together += (await asker.tell("trips", count=2, together=DEFAULT_REPLICAS))["ms"]
        known.append((await asker.tell("ask", cells=[cell], anew=False))["ms"])
        anew.append((await asker.tell("ask", cells=[cell]))["ms"])
    return {
        "link_ms_p50": median(raw),
        "owners_at_once_ms_p50": median(together),
        "ask_ms_p50": median(known),
        "ratio": median(known) / median(raw),
        "ratio_owners_at_once": median(known) / median(together),
        "checking_ms_p50": median(anew) - median(known),
        "load": load(),
    }


async def measure(sizes: tuple[int, ...], ingested: int, questions: int, quiet: float, fuzzed: int) -> dict[str, Any]:
    found: dict[str, Any] = {"load_before": load(), "ingest": await ingest(ingested)}
    costs, rest = await growth(sizes, questions, quiet)
    return found | rest | {"growth": costs, "laws": laws(costs), "fuzz": fuzz(fuzzed), "load_after": load()}


async def growing(sizes: tuple[int, ...], questions: int, quiet: float) -> dict[str, Any]:
    """The growth alone."""
    costs, _ = await growth(sizes, questions, quiet, rest=False)
    return {"growth": costs, "laws": laws(costs), "load_after": load()}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--growth", action="store_true", help="only what more and more members cost")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="of each kind")
    args = parser.parse_args()
    if args.growth:
        found = growing((4, 6), 5, 1.0) if args.quick else growing(tuple(args.sizes), args.questions, QUIET_SECONDS)
    elif args.quick:
        found = measure((4,), 1000, 5, 1.0, 20_000)
    else:
        found = measure(tuple(args.sizes), INGESTED, args.questions, QUIET_SECONDS, FUZZED)
    show(asyncio.run(found), args.json)


if __name__ == "__main__":
    main()
