"""NATS in ``benchmarks.transports``: a server, a node that sends, and a node in a process of its own that keeps.

A stage ends when the keeping node has taken the last packet from the stream, not when the stream has acknowledged it.
Raw is nats-py alone: messages of 64 KiB to the same kind of stream, and a pull consumer in the other process. The
server syncs before it acknowledges in both. The sending node checks nothing, as with the other transports. Questions go
to the keeping node by a queue group; ``question_at_home`` are those that it answers itself.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._member import CELLS, make, places, schema
from benchmarks._raw import trips
from benchmarks.common import key, median, ratio
from outroute.packet import PACKET_BYTES
from outroute.store import PacketStore
from outroute.testing.nats_server import running
from outroute.transports import FRAME_PACKETS, Guard, Role
from outroute.transports.contract import CREDIT_FRAMES
from outroute.transports.nats import NatsHolder
from outroute.transports.nats_options import nats_options
from outroute.transports.standing import Standing
from outroute.transports.url import parse_url

if TYPE_CHECKING:
    from benchmarks.transports import Size

__all__ = ["measure"]

RAW = "raw"
_KEEPER, _SENDER = key(30_002), key(30_003)
_FETCH = 64
_PATIENCE = 120.0
"""Seconds until what was sent must have arrived."""


def _node(url: str, identity: Any, guard: Any, shelf: PacketStore | None, roles: Role) -> NatsHolder:
    return NatsHolder(
        nats_options(parse_url(url)),
        schema=schema(),
        identity=identity,
        guard=guard,
        standing=Standing(name=identity.id),
        clock=lambda: int(time.time()),
        shelf=shelf,
        roles=roles,
    )


def _keep(url: str, directory: str, said: Any, signatures: int) -> None:
    """The keeping process; it obeys what comes through the pipe."""
    from benchmarks.transports import Receiver, _ceiling, _spent

    async def live() -> None:
        loop = asyncio.get_running_loop()
        receiver = Receiver(directory)
        holder = _node(url, _KEEPER, Guard([schema()]), PacketStore(), Role.EMIT | Role.ASK | Role.HOLD)
        await holder.start()
        own, packets, done = ThreadPoolExecutor(1), make(3, 0, signatures, int(time.time())), 0

        counts = {"raw": 0}

        async def take_raw() -> None:
            import nats.errors

            stream = holder._connection.client.jetstream()
            await stream.add_stream(name="RAW", subjects=["raw"])
            pull = await stream.pull_subscribe("raw", "raw")
            while True:
                try:
                    for message in await pull.fetch(_FETCH, timeout=1.0):
                        counts["raw"] += len(message.data) // PACKET_BYTES
                        await message.ack()
                except nats.errors.Error:  # nothing came, or a request of before was in the way
                    await asyncio.sleep(0.01)

        async def until(there: Callable[[], bool], what: str) -> None:
            end = time.monotonic() + _PATIENCE
            while not there():
                if time.monotonic() > end:
                    raise RuntimeError(f"{what}: the packets do not come ({counts}, {holder.problems})")
                await asyncio.sleep(0.001)

        taking = asyncio.ensure_future(take_raw())
        said.send(None)
        while (told := await loop.run_in_executor(own, said.recv)) is not None:
            word, number = told
            answer: Any = None
            if word == "ceiling":
                answer = await loop.run_in_executor(own, _ceiling, packets)
            elif word == "spent":
                answer = _spent()
            elif word == "wait":
                await until(lambda end=done + number: sum(holder.keeper.receipts.values()) >= end, "ours")
                done += number
            elif word == RAW:
                await until(lambda end=number: counts["raw"] >= end, "raw")
                counts["raw"] -= number
            elif word == "home":
                home = places(make(2, 0, CELLS, int(time.time())))[:1]
                answer = await trips(partial(holder.fetch, schema().id, home, cap=256), number)
            else:
                receiver.turn(word)
                holder.keeper.guard, holder.keeper.shelf = receiver.keeper.guard, receiver.keeper.shelf
                if word == "question":
                    holder._shelf = receiver.keeper.shelf
            said.send(answer)
        taking.cancel()
        await holder.stop()
        receiver.turn("link")
        said.send(None)

    asyncio.run(live())


async def measure(size: Size) -> dict[str, Any]:
    """Raw and ours in turn, as with the other transports."""
    from benchmarks.transports import QUESTION_PACKETS, _Nothing, _spent, _spread

    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    loop, piping = asyncio.get_running_loop(), ThreadPoolExecutor(1)

    def say(word: str, number: int = 0) -> Any:
        here.send((word, number))
        return here.recv()

    tell = partial(loop.run_in_executor, piping, say)
    rates: dict[str, list[float]] = {stage: [] for stage in (RAW, *size.stages)}
    busy: dict[str, list[float]] = {stage: [] for stage in (RAW, *size.stages)}
    ceilings: list[tuple[float, float]] = []
    filled: list[float] = []
    with tempfile.TemporaryDirectory() as directory, running(Path(directory) / "server") as server:
        url = f"{server.url}?monitor={server.monitor}"
        process = context.Process(
            target=_keep, args=(url, directory, there, size.verified * FRAME_PACKETS), daemon=True
        )
        process.start()
        await loop.run_in_executor(piping, here.recv)
        sender = _node(url, _SENDER, _Nothing(), None, Role.EMIT | Role.ASK)
        await sender.start()
        stream = sender._connection.client.jetstream()
        message = bytes(FRAME_PACKETS * PACKET_BYTES)

        async def raw(count: int) -> None:
            waiting = iter(range(count))

            async def send() -> None:
                for _ in waiting:
                    await stream.publish("raw", message, timeout=60.0)

            await asyncio.gather(*(send() for _ in range(CREDIT_FRAMES)))
            await tell(RAW, count * FRAME_PACKETS)

        async def ours(packets: Any, names: list[bytes]) -> None:
            done = await sender.deposit(schema().id, names, packets)
            assert done.acknowledged.all()
            await tell("wait", len(packets))

        async def timed(name: str, packets: int, work: Any) -> None:
            spent, began = await tell("spent") + _spent(), time.perf_counter()
            await work
            took, spent = time.perf_counter() - began, await tell("spent") + _spent() - spent
            rates[name].append(packets / took)
            busy[name].append(packets / spent)

        first = 0
        counts = {"link": size.checked, "verified": size.verified, "all": size.verified}
        for _ in range(size.rounds + 1):
            for stage in size.stages:
                count = counts.get(stage, size.checked)
                if stage == "link":
                    await timed(RAW, count * FRAME_PACKETS, raw(count))
                packets = make(2, first, count * FRAME_PACKETS, int(time.time()))
                first += len(packets)
                names = places(packets)
                filled.append(len(packets) / max(1, len({name[0] for name in names})))
                await tell(stage)
                before = await tell("ceiling") if stage == "verified" else (0.0, 0.0)
                await timed(stage, len(packets), ours(packets, names))
                if stage == "verified":
                    after = await tell("ceiling")
                    ceilings.append(((before[0] + after[0]) / 2, (before[1] + after[1]) / 2))
        for values in (*rates.values(), *busy.values(), ceilings):
            del values[:1]  # the first round warms up
        found: dict[str, Any] = {
            name: {"per_second": median(rates[name]), "per_cpu_second": median(busy[name])}
            for name in rates
            if rates[name]
        }
        for stage in size.stages if rates[RAW] else ():
            found[stage]["ratio_to_raw"] = ratio(rates[stage], rates[RAW])
            found[stage]["ratio_to_raw_cpu"] = ratio(busy[stage], busy[RAW])
        if ceilings:
            one, all_cores = ([side[at] for side in ceilings] for at in (0, 1))
            found["ed25519"] = {"one_thread_per_second": median(one), "all_cores_per_second": median(all_cores)}
            for stage in {"verified", "all"} & set(size.stages):
                found[stage] |= {
                    "ratio_to_one_thread": ratio(rates[stage], one),
                    "ratio_to_all_cores": ratio(rates[stage], all_cores),
                }
        found["packets_of_a_shard"] = float(np.mean(filled))
        await tell("question")
        asked = make(2, 0, QUESTION_PACKETS * CELLS, int(time.time()))
        await ours(asked, places(asked))
        names = places(make(2, 0, CELLS, int(time.time())))
        found["question"] = _spread(await trips(lambda: sender.fetch(schema().id, names[:1], cap=256), size.questions))
        found["question_at_home"] = _spread(await tell("home", size.questions))
        if rates[RAW]:
            one_message = bytes(PACKET_BYTES)
            found[RAW] |= _spread(await trips(lambda: stream.publish("raw", one_message), size.questions))
        await sender.close()
        here.send(None)
        await loop.run_in_executor(piping, here.recv)
        process.join()
    return found
