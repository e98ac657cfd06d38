"""NATS in ``benchmarks.transports``: a server, a node that sends, and a node in a process of its own that keeps.

A stage ends when the keeping node has taken the last packet from the stream, not when the stream has acknowledged it.
Raw is nats-py alone (``benchmarks._raw_nats``): messages of 64 KiB to the same kind of stream, and a durable pull
consumer in the other process. The server syncs before it acknowledges in both; its own processor time counts in
neither. Packets are drawn such that every frame of a shard is full, as in the other transports' frames. The sending
node checks nothing, as with these. Questions go to the keeping node by a queue group; ``question_at_home`` are those
that it answers itself.
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

from benchmarks._member import CELLS, make, places, schema
from benchmarks._raw import trips
from benchmarks._raw_nats import RawReader, RawWriter
from benchmarks.common import key, median, ratio
from outroute.packet import PACKET_BYTES, PacketArray
from outroute.store import PacketStore
from outroute.testing.nats_server import running
from outroute.transports import FRAME_PACKETS, Guard, Role
from outroute.transports.nats import NatsHolder
from outroute.transports.nats_options import nats_options
from outroute.transports.nats_subjects import shard_of
from outroute.transports.standing import Standing
from outroute.transports.url import parse_url

if TYPE_CHECKING:
    from benchmarks.transports import Size

__all__ = ["measure"]

RAW = "raw"
_KEEPER, _SENDER = key(30_002), key(30_003)
_SPREAD = 256
"""Frames' worth of packets that are drawn at least, so that every shard has a full frame of them."""
_PATIENCE = 120.0
"""Seconds until what was sent must have arrived."""


def _node(
    url: str, identity: Any, guard: Any, shelf: PacketStore | None, roles: Role, directory: Path | None = None
) -> NatsHolder:
    return NatsHolder(
        nats_options(parse_url(url)),
        schema=schema(),
        identity=identity,
        guard=guard,
        standing=Standing(name=identity.id),
        clock=lambda: int(time.time()),
        shelf=shelf,
        directory=directory,
        roles=roles,
    )


def _keep(server: str, url: str, directory: str, said: Any, signatures: int) -> None:
    """The keeping process; it obeys what comes through the pipe."""
    from benchmarks.transports import Receiver, _ceiling, _spent

    async def live() -> None:
        loop = asyncio.get_running_loop()
        receiver = Receiver(directory)
        folder = Path(directory) / "node"  # a store on disk: its consumer is durable
        own_store = PacketStore(folder)
        holder = _node(url, _KEEPER, Guard([schema()]), own_store, Role.EMIT | Role.ASK | Role.HOLD, folder)
        await holder.start()
        assert holder._keeping is not None
        own, packets, done = ThreadPoolExecutor(1), make(3, 0, signatures, int(time.time())), 0

        async def until(there: Callable[[], bool], moved: asyncio.Event, what: str) -> None:
            """Looked at when something has come: asking every millisecond would take a twentieth of a core."""
            try:
                async with asyncio.timeout(_PATIENCE):
                    while not there():
                        moved.clear()
                        await moved.wait()
            except TimeoutError:
                raise RuntimeError(
                    f"{what}: the packets do not come ({reader.packets} raw, {holder.problems})"
                ) from None

        reader = RawReader()
        await reader.start(server)
        said.send(None)
        while (told := await loop.run_in_executor(own, said.recv)) is not None:
            word, number = told
            answer: Any = None
            if word == "ceiling":
                answer = await loop.run_in_executor(own, _ceiling, packets)
            elif word == "spent":
                answer = _spent()
            elif word == "wait":
                end = done + number
                moved = holder._keeping._progress
                await until(lambda end=end: sum(holder.keeper.receipts.values()) >= end, moved, "ours")
                done += number
            elif word == RAW:
                await until(lambda end=number: reader.packets >= end, reader.moved, "raw")
                reader.packets -= number
            elif word == "home":
                home = places(make(2, 0, CELLS, int(time.time())))[:1]
                answer = await trips(partial(holder.fetch, schema().id, home, cap=256), number)
            else:
                receiver.turn(word)
                holder.keeper.guard, holder.keeper.shelf = receiver.keeper.guard, receiver.keeper.shelf
                if word == "question":
                    holder._shelf = receiver.keeper.shelf
            said.send(answer)
        await reader.close()
        await holder.stop()
        own_store.close()
        receiver.turn("link")
        said.send(None)

    asyncio.run(live())


def full_frames(first: int, count: int) -> tuple[PacketArray, int]:
    """Packets that were never seen before and make so many frames of 128; and the next number of their author."""
    drawn = max(_SPREAD, 2 * count) * FRAME_PACKETS
    packets = make(2, first, drawn, int(time.time()))
    shards: dict[int, list[int]] = {}
    for row, name in enumerate(places(packets)):
        shards.setdefault(shard_of(name), []).append(row)
    rows = [row for found in shards.values() for row in found[: len(found) // FRAME_PACKETS * FRAME_PACKETS]]
    assert len(rows) >= count * FRAME_PACKETS
    return packets[rows[: count * FRAME_PACKETS]], first + drawn


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
    ceilings: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory() as directory, running(Path(directory) / "server") as server:
        url = f"{server.url}?monitor={server.monitor}"
        process = context.Process(
            target=_keep, args=(server.url, url, directory, there, size.verified * FRAME_PACKETS), daemon=True
        )
        process.start()
        await loop.run_in_executor(piping, here.recv)
        sender = _node(url, _SENDER, _Nothing(), None, Role.EMIT | Role.ASK)
        await sender.start()
        writer = RawWriter()
        await writer.start(server.url)
        messages = [bytes([number]) * FRAME_PACKETS * PACKET_BYTES for number in range(64)]

        async def raw(count: int) -> None:
            await writer.send(messages, count)
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
                packets, first = full_frames(first, count)
                names = places(packets)
                await tell(stage)
                before = await tell("ceiling") if stage == "verified" else ()
                await timed(stage, len(packets), ours(packets, names))
                if stage == "verified":
                    after = await tell("ceiling")
                    ceilings.append(tuple((one + other) / 2 for one, other in zip(before, after, strict=True)))
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
            one, all_cores, of_cpu = ([side[at] for side in ceilings] for at in (0, 1, 2))
            found["ed25519"] = {
                "one_thread_per_second": median(one),
                "all_cores_per_second": median(all_cores),
                "per_cpu_second": median(of_cpu),
            }
            for stage in {"verified", "all"} & set(size.stages):
                found[stage] |= {
                    "ratio_to_one_thread": ratio(rates[stage], one),
                    "ratio_to_all_cores": ratio(rates[stage], all_cores),
                    "ratio_to_ed25519_cpu": ratio(busy[stage], of_cpu),
                }
        await tell("question")
        asked = make(2, 0, QUESTION_PACKETS * CELLS, int(time.time()))
        await ours(asked, places(asked))
        names = places(make(2, 0, CELLS, int(time.time())))
        found["question"] = _spread(await trips(lambda: sender.fetch(schema().id, names[:1], cap=256), size.questions))
        found["question_at_home"] = _spread(await tell("home", size.questions))
        if rates[RAW]:
            one_message = bytes(PACKET_BYTES)
            found[RAW] |= _spread(await trips(lambda: writer.publish(one_message), size.questions))
        await writer.close()
        await sender.close()
        here.send(None)
        await loop.run_in_executor(piping, here.recv)
        process.join()
    return found
