"""Members in network namespaces: a network that is cut in two, lives on in both parts, and is joined again.

Each half lives in a namespace of its own; both hang on a bridge in a third. The cut takes one half's port out of the
bridge: packets vanish without a word, as on a broken line. Nothing outside these namespaces is touched. They carry the
number of this process in their names and go with it; what a killed run left behind is removed by the next one.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks._member import CELLS
from benchmarks._swarm import Home, Process, Swarm, load, until
from benchmarks._traffic import Traffic, note

PREFIX = "outroute"
NETWORK = "10.213.77"
"""Addresses within the namespaces; nobody else sees them."""
CUTS = (20.0, 150.0)
"""Seconds cut off: less than an announcement lasts (60), and long enough that all of the other half are forgotten."""
HALVES = 2
FIRST = 1 << 20
"""Sequences that one half may use."""
DEPOSIT_PAUSE = 4.0
"""Seconds between batches of a half: a cell stays below what one answer holds (256) through all cuts."""
ASKED_AFTER = 64
"""Cells that every member is asked for in the end."""
NOTICED_SECONDS = 90.0
HEALED_SECONDS = 240.0


def missing() -> str | None:
    """Why namespaces cannot be made here; None when they can."""
    if shutil.which("ip") is None:
        return "the command 'ip' (iproute2) is not there"
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    return None


class Namespaces:
    """Halves of a network, joined by a bridge; see the module."""

    def __init__(self) -> None:
        self._hub = f"{PREFIX}-{os.getpid()}-hub"
        self._names = [f"{PREFIX}-{os.getpid()}-{half}" for half in range(HALVES)]
        self.homes = [
            Home(f"{NETWORK}.{half + 1}", ("ip", "netns", "exec", name)) for half, name in enumerate(self._names)
        ]

    async def __aenter__(self) -> Namespaces:
        await _sweep()
        try:
            await _ip("netns", "add", self._hub)
            await self._in_hub("link", "add", "name", "hub", "type", "bridge")
            await self._in_hub("link", "set", "hub", "up")
            for half, name in enumerate(self._names):
                await _ip("netns", "add", name)
                await self._in_hub(
                    "link", "add", "name", f"p{half}", "type", "veth", "peer", "name", "e0", "netns", name
                )
                await self._in_hub("link", "set", f"p{half}", "master", "hub", "up")
                for words in (
                    ("addr", "add", f"{NETWORK}.{half + 1}/24", "dev", "e0"),
                    ("link", "set", "e0", "up"),
                    ("link", "set", "lo", "up"),
                ):
                    await _ip("-n", name, *words)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in [*self._names, self._hub]:  # their links go with them
            await _ip("netns", "del", name, check=False)

    async def _in_hub(self, *words: str) -> None:
        await _ip("-n", self._hub, *words)

    async def cut(self) -> None:
        await self._in_hub("link", "set", "p0", "nomaster")

    async def heal(self) -> None:
        await self._in_hub("link", "set", "p0", "master", "hub")


async def _ip(*words: str, check: bool = True) -> str:
    process = await asyncio.create_subprocess_exec(
        "ip", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, problem = await process.communicate()
    if check and process.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {problem.decode().strip()}")
    return said.decode()


async def _sweep() -> None:
    """Remove what runs left behind that were killed."""
    for name in re.findall(rf"^{PREFIX}-\d+-\w+", await _ip("netns", "list", check=False), re.MULTILINE):
        if not Path("/proc", name.split("-")[1]).exists():
            await _ip("netns", "del", name, check=False)


class Half(Traffic):
    """Traffic of one half; knows what each answer should have held.

    Args:
        swarm: all members.
        seed: of what is drawn.
        number: of the half.
        members: of the half.
        everywhere: sequences acknowledged so far, by cell, of all halves together.
    """

    pause = DEPOSIT_PAUSE

    def __init__(
        self, swarm: Swarm, seed: int, number: int, members: list[Process], everywhere: list[set[int]]
    ) -> None:
        super().__init__(swarm, seed, among=members, first=number * FIRST)
        self.number, self.members, self.everywhere = number, members, everywhere
        self.before: set[int] = set()
        """What was acknowledged before the cut."""
        self.lacked: Counter[str] = Counter()

    def acknowledge(self, sequences: list[int]) -> None:
        super().acknowledge(sequences)
        for one in sequences:
            self.everywhere[one % CELLS].add(one)

    async def ask(self, one: Process, cells: list[int]) -> None:
        """One question, and which of the packets acknowledged until then its answer lacks, by where they come from."""
        wanted = set().union(*(self.everywhere[cell] for cell in cells))
        found = await one.tell("ask", cells=cells, cap=256, show=True)
        self.count(found, len(cells))
        lacks = wanted - set(found["found"])
        earlier = lacks & self.before
        own = {s for s in lacks - earlier if s // FIRST == self.number}
        other = lacks - earlier - own
        said = found["complete"] < len(cells) or found["short"] > 0
        self.lacked["whole"] += not lacks
        self.lacked["without_other_half"] += bool(other)
        self.lacked["without_earlier"] += bool(earlier)
        self.lacked["without_own"] += bool(own)
        self.lacked["partial_and_said"] += bool(lacks) and said
        self.lacked["partial_and_not_said"] += bool(lacks) and not said
        self.lacked["whole_and_doubted"] += not lacks and said


async def _seen(half: list[Process]) -> bool:
    """Whether the members of a half see each other and nobody else."""
    found = await asyncio.gather(*(one.tell("stats") for one in half))
    return all(stats["members"] == len(half) for stats in found)


async def partition(
    directory: Path,
    nodes: int,
    packets: int,
    cuts: tuple[float, ...],
    seed: int,
    *,
    dht: bool = True,
    longer: float = 0.0,
) -> dict[str, Any]:
    """Members in two halves that are cut off from each other, again and again; see ``benchmarks.failover``.

    Args:
        directory: of the members' stores.
        nodes: members, half of them on each side.
        packets: deposited before the first cut.
        cuts: seconds of each cut.
        seed: of what is drawn.
        dht: whether members find each other in a DHT too.
        longer: seconds that a cut may last beyond, until both halves have given an answer that lacks the other half.
    """
    async with Namespaces() as net, Swarm(directory, dht=dht, homes=net.homes) as swarm:
        await swarm.fill(nodes)
        everywhere: list[set[int]] = [set() for _ in range(CELLS)]
        halves = [
            Half(swarm, seed + number, number, [one for one in swarm.members if one.home == home], everywhere)
            for number, home in enumerate(net.homes)
        ]
        await halves[0].deposit(swarm.members[0], packets)
        await swarm.whole(halves[0].acknowledged)
        for half in halves:
            half.start()
        await asyncio.sleep(3.0)
        found = [await _cut(net, swarm, halves, seconds, longer) for seconds in cuts]
        for half in halves:
            await half.stop()
        acknowledged = set().union(*everywhere)
        held = set().union(*(await swarm.held()).values())
        healed = [one["heal_s"] for one in found]
        return {
            "nodes": nodes,
            "halves": [len(half.members) for half in halves],
            "dht": dht,
            "acknowledged": len(acknowledged),
            "lost": len(acknowledged - held),
            "heal_s": None if None in healed else max(healed),
            "cuts": found,
            "load": load(),
        }


async def _cut(
    net: Namespaces, swarm: Swarm, halves: list[Half], seconds: float, longer: float = 0.0
) -> dict[str, Any]:
    """Cut for some seconds, joined again, and what became of everything."""
    earlier = set().union(*halves[0].everywhere)
    for half in halves:
        half.before = earlier
        half.taken()
        half.lacked.clear()
    note(f"cut for {seconds:.0f} s")
    began = time.monotonic()
    await net.cut()

    async def noticed() -> float:
        async def both() -> bool:
            return all(await asyncio.gather(*(_seen(half.members) for half in halves)))

        return await until(both, NOTICED_SECONDS, "members do not notice that the other half is away")

    watching = asyncio.create_task(noticed())
    await asyncio.sleep(seconds)
    with suppress(TimeoutError):
        async with asyncio.timeout(longer):
            while not all(half.lacked["without_other_half"] for half in halves):
                await asyncio.sleep(0.2)
    done = watching.done()
    took = watching.result() if done else None
    if not done:
        watching.cancel()
    sides = [_side(half) for half in halves]
    known = set().union(*halves[0].everywhere)
    note("joined again")
    await net.heal()
    cut_s = time.monotonic() - began
    joined = time.monotonic()
    met = healed = None
    with suppress(TimeoutError):  # then it is said that it did not heal
        await swarm.known(HEALED_SECONDS)
        met = time.monotonic() - joined
        await swarm.whole(known, HEALED_SECONDS)
        healed = time.monotonic() - joined
    during = [_side(half) for half in halves]
    note("not whole again" if healed is None else f"whole again after {healed:.1f} s")
    whole = answered = 0
    for number, one in enumerate(swarm.members):  # everybody asks for a quarter of all
        start = ASKED_AFTER * number % CELLS
        after = await one.tell("ask", cells=list(range(start, start + ASKED_AFTER)), cap=256, show=True)
        answered += after["complete"] == ASKED_AFTER
        whole += {s for s in known if start <= s % CELLS < start + ASKED_AFTER} <= set(after["found"])
    held = set().union(*(await swarm.held()).values())
    return {
        "cut_s": cut_s,
        "noticed_s": took,
        "acknowledged": len(known),
        "acknowledged_during": [side["acknowledged"] for side in sides],
        "lost": len(known - held),
        "during": sides,
        "met_s": met,
        "heal_s": healed,
        "healing": during,
        "asks_after": len(swarm.members),
        "answered_after": answered,
        "whole_after": whole,
    }


def _side(half: Half) -> dict[str, Any]:
    """Figures of one half since the last call."""
    found = {"acknowledged": len(half.acknowledged - half.before), **half.taken(), "answers": dict(half.lacked)}
    half.lacked.clear()
    return found
