"""Members as processes: started, told what to do, killed. See ``benchmarks._member``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._member import CELLS, LINE_BYTES, MEMBER_KEYS, addresses
from benchmarks.common import key
from outroute.placement import DEFAULT_REPLICAS, Member, Members

ROOT = Path(__file__).parents[1]

STARTED_AT_ONCE = 2
"""Processes that start at a time: as many as there are processors on a small machine."""


class Gone(Exception):
    """The process ended before it answered."""


@dataclass(frozen=True)
class Home:
    """Where a member lives.

    Attributes:
        host: the address at which it listens.
        inside: what its command begins with, to run in a network namespace.
    """

    host: str = "127.0.0.1"
    inside: tuple[str, ...] = ()


class Process:
    """One member; see ``start``."""

    module = "benchmarks._member"
    more: Sequence[str] = ()
    """Further words of its command."""

    def __init__(self, number: int, directory: Path, home: Home = Home()) -> None:
        self.number, self.directory, self.home = number, directory, home
        self.identity = key(MEMBER_KEYS + number)
        self.endpoint = self.table = ""
        self.stored = 0
        self.alive = False
        self._process: asyncio.subprocess.Process | None = None
        self._asked = 0
        self._waiting: dict[int, asyncio.Queue[dict[str, Any] | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    @property
    def member(self) -> Member:
        return Member(id=self.identity.id, organisation=self.identity.public_key)

    async def start(self, *, join: Iterable[str], table: Iterable[str] | None = None, find: float = 60.0) -> None:
        """Start it, from its directory if it has one; ``table`` says that it uses the DHT, and whom it knows there."""
        command = ["-m", self.module, "--directory", str(self.directory), "--key", str(self.number), *self.more]
        command += ["--host", self.home.host]
        command += [word for place in join for word in ("--join", place)] + ["--find", str(find)]
        if table is not None:
            command += ["--dht"] + [word for place in table for word in ("--table", place)]
        self._process = await asyncio.create_subprocess_exec(
            *self.home.inside,
            sys.executable,
            *command,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
        )
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise Gone(f"member {self.number} did not start")
        ready = json.loads(line)
        self.endpoint, self.stored = ready["ready"], ready["stored"]
        self.table = f"{self.home.host}:{ready['dht']}"
        self.alive = True
        self._reading = asyncio.create_task(self._read(self._process.stdout))

    async def _read(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            if not line.endswith(b"\n"):  # cut off by the kill
                break
            told = json.loads(line)
            queue = self._waiting.get(told.pop("id"))
            if queue is not None:  # whoever asked may have given up
                queue.put_nowait(told)
        self.alive = False
        for queue in self._waiting.values():
            queue.put_nowait(None)

    async def parts(self, do: str, **fields: Any) -> AsyncIterator[dict[str, Any]]:
        """Tell it to do something; the parts of its answer.

        Raises:
            Gone: it ended meanwhile.
        """
        if not self.alive:
            raise Gone(f"member {self.number} is gone")
        self._asked += 1
        number = self._asked
        queue = self._waiting[number] = asyncio.Queue()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"id": number, "do": do, **fields}).encode() + b"\n")
            while (part := await queue.get()) is not None:
                if part.get("done"):
                    return
                if "error" in part:
                    raise RuntimeError(part["error"])
                yield part
            raise Gone(f"member {self.number} is gone")
        finally:
            del self._waiting[number]

    async def tell(self, do: str, **fields: Any) -> dict[str, Any]:
        """The same for answers of one part."""
        found: dict[str, Any] = {}
        async for part in self.parts(do, **fields):
            found = part
        return found

    def signal(self, what: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(what)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.alive = False
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()

    async def ended(self) -> None:
        assert self._process is not None
        await self._process.wait()
        if self._reading is not None:
            await self._reading
        self.alive = False

    async def leave(self) -> None:
        """Let it leave properly."""
        await self.tell("leave")
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self.ended()


class Swarm:
    """Members on this machine.

    Args:
        directory: a directory for each is made there.
        dht: whether they use the DHT besides telling each other.
        homes: where members live, in turn.
    """

    def __init__(self, directory: Path, *, dht: bool = True, homes: Sequence[Home] = (Home(),)) -> None:
        self._directory, self._dht, self._homes = directory, dht, homes
        self._made = 0
        self.members: list[Process] = []
        """Those that live."""
        self.at = int(time.time())
        """The moment of all packets."""

    async def __aenter__(self) -> Swarm:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(one.kill() for one in self.members))

    async def add(self) -> Process:
        """One more, that joins whoever lives longest."""
        one = Process(self._made, self._directory / str(self._made), self._homes[self._made % len(self._homes)])
        self._made += 1
        await self.again(one)
        return one

    async def again(self, one: Process) -> None:
        """Start a process that is not running, from its directory."""
        near = self.members[:2]
        await one.start(
            join=[other.endpoint for other in near], table=[other.table for other in near] if self._dht else None
        )
        self.members.append(one)

    async def fill(self, count: int) -> None:
        """So many members, all known to each other."""
        if not self.members:
            await self.add()
        places = asyncio.Semaphore(STARTED_AT_ONCE)

        async def one() -> None:
            async with places:
                await self.add()

        await asyncio.gather(*(one() for _ in range(count - len(self.members))))
        await self.known()

    async def known(self, seconds: float = 90.0) -> float:
        """Wait until every member sees exactly the living ones; how long it took."""

        async def all_see() -> bool:
            found = await asyncio.gather(*(one.tell("stats") for one in self.members))
            return all(stats["members"] == len(self.members) for stats in found)

        return await until(all_see, seconds, "members do not all see each other")

    async def kill(self, some: Iterable[Process]) -> None:
        """SIGKILL at once."""
        chosen = list(some)
        self.members = [one for one in self.members if one not in chosen]
        await asyncio.gather(*(one.kill() for one in chosen))

    async def leave(self, one: Process) -> None:
        self.members.remove(one)
        await one.leave()

    def owners(self) -> list[tuple[bytes, ...]]:
        """Who should keep each cell, ids."""
        return Members([one.member for one in self.members]).owner_ids(addresses(), DEFAULT_REPLICAS)

    async def held(self) -> dict[bytes, set[int]]:
        """Sequences that each member keeps."""
        found = await asyncio.gather(*(one.tell("held") for one in self.members))
        return {one.identity.id: set(part["held"]) for one, part in zip(self.members, found, strict=True)}

    async def lacking(self, sequences: Iterable[int]) -> int:
        """Copies that are not where they should be."""
        owners, held = self.owners(), await self.held()
        return sum(s not in held[owner] for s in sequences for owner in owners[s % CELLS])

    async def whole(self, sequences: Iterable[int], seconds: float = 120.0) -> float:
        """Wait until every owner of its cell has each packet; how long it took."""
        wanted = list(sequences)

        async def all_there() -> bool:
            return await self.lacking(wanted) == 0

        return await until(all_there, seconds, "repair does not come to an end")

    async def recalled(self, asker: Process) -> set[int]:
        """Sequences of all packets that a member is given when it asks for everything."""
        found: set[int] = set()
        for start in range(0, CELLS, 64):
            found |= set((await asker.tell("ask", cells=list(range(start, start + 64)), show=True))["found"])
        return found


async def until(done: Any, seconds: float, otherwise: str) -> float:
    """Wait for what must come true by itself; how long it took.

    Raises:
        TimeoutError: it did not in time.
    """
    began = time.monotonic()
    while not await done():
        if time.monotonic() - began > seconds:
            raise TimeoutError(otherwise)
        await asyncio.sleep(0.5)
    return time.monotonic() - began


def load() -> str:
    """The machine's load, for who reads figures."""
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counters of several members together."""
    found: Counter[str] = Counter()
    for one in counts:
        found.update(one)
    return dict(found)
