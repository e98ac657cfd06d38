"""One member of a network in a process of its own, driven by lines of JSON, so that it can really be killed.

    python -m benchmarks._member --directory DIR --key 7 [--join HOST:PORT ...] [--dht] [--table HOST:PORT]

Its first line is ``{"ready": HOST:PORT, "dht": PORT, "stored": N}``. Lines in are ``{"id": 3, "do": NAME, ...}``, see
``Commands``; lines out carry the same id, the last of them ``"done": true``. It ends when its input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import heart_like, key
from outroute.errors import OutrouteError
from outroute.fingerprint import address
from outroute.packet import PacketArray, build, sign
from outroute.placement import DEFAULT_REPLICAS, majority
from outroute.schema import Distiller, Schema
from outroute.store import PacketStore
from outroute.transports import Frame, Guard, Kind, Replicas, Role, encode
from outroute.transports.channel import Secrets
from outroute.transports.dht import DhtFinder
from outroute.transports.mesh import MeshTransport, Pace

CELLS = 256
"""Cells of the schema; one packet in so many belongs to each."""

BATCH = 128
"""Packets deposited and reported at a time."""

MEMBER_KEYS = 10_000
"""Number of the first member's key; authors have smaller numbers."""

SECRET = Secrets((bytes(range(32)),))

LINE_BYTES = 1 << 24


@cache
def schema() -> Schema:
    return heart_like(CELLS)


@cache
def addresses() -> list[bytes]:
    """The address of each cell."""
    return [address(schema(), 0, cell) for cell in range(CELLS)]


def make(author: int, first: int, count: int, at: int) -> PacketArray:
    """Signed packets with sequences from ``first``; packet number i lies in cell i modulo ``CELLS``.

    The same arguments make the same packets, in any process. ``at`` is their moment, in seconds since 1970.
    """
    made = schema()
    rng = np.random.default_rng([author, first])
    sequence = np.arange(first, first + count, dtype=np.uint64)
    yes = rng.integers(0, 6, count)
    who = key(author)
    packets = build(
        made,
        author=who.public_key,
        sequence=sequence,
        codes=made.landmarks.codes[(sequence % CELLS).astype(np.intp)],
        size=np.full(count, 5),
        subjects=np.full(count, 5),
        bucket=np.full(count, made.time.bucket(at)),
        distiller=Distiller.COHORT,
        counts=np.stack([5 - yes, yes], axis=1),
        commitment=rng.integers(0, 256, (count, 32)).astype(np.uint8),
    )
    sign(packets, who)
    return packets


def places(packets: PacketArray) -> list[bytes]:
    """Where packets belong."""
    return [addresses()[cell] for cell in packets["cell"].tolist()]


class _Counting:
    """A link that counts what one question costs."""

    def __init__(self, link: MeshTransport) -> None:
        self._link = link
        self.exchanges = self.bytes = 0

    async def request(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        replies = await self._link.request(member, frame)
        if member != self._link.member.id:
            self.exchanges += 1
            self.bytes += len(frame) + sum(map(len, replies))
        return replies


class Commands:
    """What a member does when it is told to; each yields parts of its answer."""

    def __init__(self, member: MeshTransport) -> None:
        self.member = member

    async def deposit(
        self, *, author: int, first: int, count: int, at: int, pause: float = 0.0
    ) -> AsyncIterator[dict[str, Any]]:
        """Deposit packets in batches; tells the sequences acknowledged, a batch at a time."""
        for start in range(first, first + count, BATCH):
            packets = make(author, start, min(BATCH, first + count - start), at)
            done = await self.member.deposit(schema().id, places(packets), packets)
            yield {"acknowledged": packets["sequence"][done.acknowledged].tolist()}
            await asyncio.sleep(pause)

    async def ask(
        self, *, cells: list[int], cap: int = 256, show: bool = False, anew: bool = True
    ) -> AsyncIterator[dict[str, Any]]:
        """One question; ``anew`` checks every packet again, as if none had been seen before."""
        guard = Guard([schema()]) if anew else self.member.guard
        counting = _Counting(self.member)
        asker = Replicas(counting, guard, members=self.member.members, clock=_now)
        began = time.perf_counter()
        answers = await asker.fetch(schema().id, [addresses()[cell] for cell in cells], cap=cap)
        took = time.perf_counter() - began
        found: dict[str, Any] = {
            "ms": 1000 * took,
            "complete": sum(one.complete for one in answers),
            "agreed": sum(one.agreed is True for one in answers),
            "packets": sum(len(one.packets) for one in answers),
            "exchanges": counting.exchanges,
            "bytes": counting.bytes,
        }
        if show:
            away = self.member.silent_owners([one.address for one in answers])
            found["short"] = sum(number >= majority(DEFAULT_REPLICAS) for number in away)
            found["found"] = [s for one in answers for s in one.packets["sequence"].tolist()]
        yield found

    async def held(self) -> AsyncIterator[dict[str, Any]]:
        """Sequences of everything kept here."""
        shelf, now = self.member.shelf, _now()
        found: list[int] = []
        for name in shelf.addresses():
            found += shelf.read(name, shelf.entries(name, now=now).identities, now=now)["sequence"].tolist()
            await asyncio.sleep(0)
        yield {"held": found}

    async def stats(self) -> AsyncIterator[dict[str, Any]]:
        """Counters."""
        member, guard = self.member, self.member.keeper.guard
        used = resource.getrusage(resource.RUSAGE_SELF)
        yield {
            "members": len(member.members()),
            "peers": len(member.peers()),
            "endpoint": member.endpoint,
            "memory_mb": _memory(),
            "cpu_s": used.ru_utime + used.ru_stime,
            "bytes_out": member.traffic.bytes_out,
            "bytes_in": member.traffic.bytes_in,
            "announcements": dict(member.announcements),
            "problems": dict(member.problems),
            "refused": {str(reason): number for reason, number in guard.refused.items()},
            "refused_frames": {reason.name: number for reason, number in member.keeper.refused_frames.items()},
            "receipts": {receipt.name: number for receipt, number in member.keeper.receipts.items()},
            "dropped": dict(member.link.dropped),
        }

    async def trips(self, *, count: int, together: int = 1) -> AsyncIterator[dict[str, Any]]:
        """Raw round trips of the smallest frame, milliseconds: to one other member after the other, or some at once."""
        others = [one.id for one in self.member.members().members if one.id != self.member.member.id]
        frame = encode(Frame(kind=Kind.COMPARE))
        taken: list[float] = []
        for number in range(count + len(others)):
            called = [others[(number + more) % len(others)] for more in range(together)]
            began = time.perf_counter()
            if together == 1:
                await self.member.request(called[0], frame)
            else:
                await asyncio.gather(*(self.member.request(one, frame) for one in called))
            taken.append(1000 * (time.perf_counter() - began))
        yield {"ms": taken[len(others) :]}

    async def check(self, *, count: int, at: int) -> AsyncIterator[dict[str, Any]]:
        """Milliseconds to check packets, each for the first time."""
        packets = make(2, 0, count, at)
        began = time.perf_counter()
        Guard([schema()]).check(schema().id, places(packets), packets, now=_now())
        yield {"ms": 1000 * (time.perf_counter() - began)}

    async def leave(self) -> AsyncIterator[dict[str, Any]]:
        """Hand everything over, say farewell."""
        await self.member.close()
        yield {}


def _now() -> int:
    return int(time.time())


def _memory() -> float:
    """Megabytes in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def _serve(commands: Commands) -> None:
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def obey(line: bytes) -> None:
        told = json.loads(line)
        number, name = told.pop("id"), told.pop("do")
        try:
            async for part in getattr(commands, name)(**told):
                _say({"id": number, **part})
        except OutrouteError as error:
            _say({"id": number, "error": str(error)})
        _say({"id": number, "done": True})

    running: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(obey(line))
        running.add(task)
        task.add_done_callback(running.discard)


async def _live(args: argparse.Namespace) -> None:
    identity = key(MEMBER_KEYS + args.key)
    store = PacketStore(args.directory)
    finder, port = None, 0
    members: list[MeshTransport] = []
    if args.dht:
        finder = DhtFinder(clock=_now, size=lambda: members[0].network_size() if members else 1, secrets=SECRET)
        near = [(host, int(number)) for host, _, number in (place.rpartition(":") for place in args.table)]
        port = finder.start(host=args.host, bootstrap=near)
    member = MeshTransport(
        identity,
        store,
        Guard([schema()]),
        clock=_now,
        rng=np.random.default_rng(),
        finder=finder,
        pace=Pace(find=args.find),
        secrets=SECRET,
        roles=Role.EMIT | Role.ASK | (Role(0) if args.keeps_nothing else Role.HOLD),
    )
    members.append(member)
    endpoint = await member.start(args.host, join=args.join)
    _say({"ready": endpoint, "dht": port, "stored": store.count()})
    await _serve(Commands(member))
    await member.stop()
    if finder is not None:
        await finder.close()
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--key", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--join", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--keeps-nothing", action="store_true")
    parser.add_argument("--dht", action="store_true")
    parser.add_argument("--find", type=float, default=60.0, help="seconds between searches of the table")
    parser.add_argument("--table", action="append", default=[], metavar="HOST:PORT", help="nodes of the table")
    asyncio.run(_live(parser.parse_args()))


if __name__ == "__main__":
    main()
