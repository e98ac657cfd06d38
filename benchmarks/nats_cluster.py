"""A JetStream cluster of three servers under SIGKILL: what is lost, and how long writes stand still.

``python -m benchmarks.nats_cluster --json`` starts three servers on this machine (a stream with three copies, synced
before it is acknowledged), lets packets flow, kills the stream's leader several times, starts it again, and reads
everything back with a node that comes late. A stall is the longest time between two acknowledgements in a row from a
kill until the next kill.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import options, show
from outroute.errors import TransportError
from outroute.store import PacketStore
from outroute.testing.making import CELLS, NOW, SCHEMA, addresses_of, identity, make_packets
from outroute.testing.nats_server import NatsCluster
from outroute.transports import Guard, Role
from outroute.transports.nats import NatsHolder
from outroute.transports.nats_options import nats_options
from outroute.transports.standing import Standing
from outroute.transports.url import parse_url

PACKETS = 16
"""Packets of one deposit, all of one cell: one frame."""
EVERY_SECONDS = 0.04
"""Seconds between deposits: 400 packets a second, so that servers and client share two cores without queueing, and
that there are enough for six kills twelve seconds apart."""
BETWEEN_SECONDS = 12.0
"""Seconds between kills: the longest election seen, and calm."""
CELL_PACKETS = 4000
"""Packets of a cell, at most: below the limit of a store, so that none is left out."""


@dataclass(slots=True, kw_only=True)
class Flow:
    """What was acknowledged, and when."""

    acknowledged: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    attempts: int = 0


def holder(cluster: NatsCluster, directory: Path, number: int, roles: Role) -> NatsHolder:
    key = identity(1000 + number)
    return NatsHolder(
        nats_options(parse_url(f"{cluster.url}?replicas=3&monitor={cluster.monitor}")),
        schema=SCHEMA,
        identity=key,
        guard=Guard([SCHEMA]),
        standing=Standing(name=key.id),
        clock=lambda: NOW,
        shelf=PacketStore(directory / str(number)) if Role.HOLD in roles else None,
        directory=directory / str(number),
        roles=roles,
    )


async def started(cluster: NatsCluster, directory: Path, number: int, roles: Role) -> NatsHolder:
    """A node, as soon as the cluster takes it."""
    while True:
        made = holder(cluster, directory, number, roles)
        try:
            await made.start()
        except TransportError:
            made.abandon()
            await asyncio.sleep(0.2)
        else:
            return made


async def flowing(sender: NatsHolder, flow: Flow, stop: asyncio.Event, packets: Any) -> None:
    """Deposit after deposit; each again until it is acknowledged.

    Raises:
        RuntimeError: there are no packets left before the last kill is over, so that its stall is unknown.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def one(part: Any) -> None:
        while True:
            flow.attempts += 1
            done = await sender.deposit(SCHEMA.id, addresses_of(part), part)
            if done.acknowledged.all():
                flow.times.append(time.monotonic())
                flow.acknowledged += [bytes(row) for row in np.ascontiguousarray(part).view("V512").reshape(-1)]
                return

    for at in range(0, len(packets), PACKETS):
        if stop.is_set():
            break
        task = asyncio.ensure_future(one(packets[at : at + PACKETS]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(EVERY_SECONDS)
    ran_out = not stop.is_set()
    while tasks:
        await asyncio.wait(set(tasks))
    if ran_out:
        raise RuntimeError("no packets were left before the last kill was over: fewer kills, or less time between")


async def leader_of(node: NatsHolder) -> str:
    """Name of the server that leads the stream."""
    assert node._stream is not None
    while True:
        try:
            info = await node._connection.api(f"STREAM.INFO.{node._stream.name}")
            name = str(info.get("cluster", {}).get("leader") or "")
        except TransportError:
            name = ""
        if name:
            return name
        await asyncio.sleep(0.1)


async def measure(directory: Path, *, kills: int, between: float) -> dict[str, Any]:
    """Let packets flow while leaders are killed.

    Args:
        directory: of servers and nodes.
        kills: how many leaders.
        between: seconds between kills.
    """
    cluster = NatsCluster(directory).start()
    flow, stop = Flow(), asyncio.Event()
    total = min(int((kills + 1) * between / EVERY_SECONDS) * PACKETS, CELL_PACKETS * len(CELLS))
    share = -(-total // len(CELLS) // PACKETS) * PACKETS
    packets = np.concatenate([make_packets(share, author=cell, cell=cell) for cell in range(len(CELLS))])
    order = np.arange(len(packets)).reshape(len(CELLS), -1, PACKETS).transpose(1, 0, 2).reshape(-1)
    try:
        sender = await started(cluster, directory, 0, Role.EMIT | Role.ASK)
        durable = sender.capabilities.durable
        flowed = asyncio.ensure_future(flowing(sender, flow, stop, packets[order]))
        killed: list[float] = []
        for _ in range(kills):
            await asyncio.sleep(between / 2)
            leader = await leader_of(sender)
            killed.append(time.monotonic())
            cluster.servers[leader].kill()
            await asyncio.sleep(between / 2)
            cluster.servers[leader].start()
        await asyncio.sleep(between / 2)
        stop.set()
        await flowed
        reader = await started(cluster, directory, 1, Role.EMIT | Role.ASK | Role.HOLD)
        assert reader._keeping is not None
        fresh = await reader._keeping.fresh(120.0)
        found: list[bytes] = []
        for cell in CELLS:
            kept = reader.shelf.entries(cell, now=NOW).identities
            read = reader.shelf.read(cell, kept, now=NOW)
            found += [bytes(row) for row in np.ascontiguousarray(read).view("V512").reshape(-1)]
        await sender.close()
        await reader.close()
    finally:
        cluster.stop()
    stalls = []
    for number, at in enumerate(killed):
        end = killed[number + 1] if number + 1 < len(killed) else np.inf
        times = [max((t for t in flow.times if t <= at), default=at), *(t for t in flow.times if at < t < end)]
        stalls.append(max(np.diff(times), default=0.0))
    acknowledged = set(flow.acknowledged)
    return {
        "servers": 3,
        "copies": 3,
        "durable": durable,
        "kills": kills,
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - set(found)),
        "twice": len(found) - len(set(found)),
        "packets_per_second": PACKETS / EVERY_SECONDS,
        "attempts_per_deposit": flow.attempts / max(len(flow.times), 1),
        "everything_read": fresh,
        "stall_seconds": [round(float(one), 2) for one in stalls],
        "stall_seconds_median": round(float(np.median(stalls)), 2) if stalls else 0.0,
        "stall_seconds_longest": round(float(max(stalls, default=0.0)), 2),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--between", type=float, default=BETWEEN_SECONDS, help="seconds between kills")
    args = parser.parse_args()
    kills, between = (1, 6.0) if args.quick else (args.kills, args.between)
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measure(Path(directory), kills=kills, between=between))
    show(found, args.json)


if __name__ == "__main__":
    main()
