"""What a question and a quiet second cost in a network that grows.

A question about c cells is put to the owners of each: one is asked for packets, the others for a digest. So it calls
few members more than there are, while there are few, and at most r times c however many there are: beyond, its cost
does not grow at all. ``laws`` holds the measured growth beside that of the logarithm and of the number of members.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._member import CELLS
from benchmarks._swarm import Swarm, load
from benchmarks._traffic import note
from benchmarks.common import median
from outroute.placement import DEFAULT_REPLICAS
from outroute.placement.roster import MEMBERS_MOST, SHARD_MEMBERS

WIDTHS = (1, 4, 16, 64)
"""Cells of a question."""
READ_AT = 2
"""Owners of a cell that a cover reaches: packets from one and a digest from another."""


async def stats(swarm: Swarm) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(one.tell("stats") for one in swarm.members)))


async def cost(swarm: Swarm, questions: int, quiet: float, dice: random.Random) -> dict[str, Any]:
    """A quiet second of one member, and a question of each width: what its asker and what all members spend on it."""
    count = len(swarm.members)
    before = await stats(swarm)
    began = time.monotonic()
    await asyncio.sleep(quiet)
    after = await stats(swarm)
    passed = time.monotonic() - began
    idle = [(b["cpu_s"] - a["cpu_s"]) / passed for a, b in zip(before, after, strict=True)]
    sent = [(b["bytes_out"] - a["bytes_out"]) / passed for a, b in zip(before, after, strict=True)]
    note(f"{count} members")
    found: dict[str, Any] = {
        "members_known": min(one["members"] for one in after),
        "quiet_cpu_percent": 100 * median(idle),
        "quiet_bytes_per_s": median(sent),
        "memory_mb": median([one["memory_mb"] for one in after]),
        "load": load(),
        "questions": {},
    }
    for width in WIDTHS:
        found["questions"][str(width)] = await _asked(swarm, width, questions, sum(idle), dice)
        found["questions"][str(width)] |= _least(swarm, width, questions, dice)
    asked = found["questions"]["16"]
    return found | {
        "question_exchanges": asked["exchanges"],
        "question_kb": asked["kb"],
        "question_ms": asked["ms"],
        "exchanges_per_node": asked["exchanges"] / count,
    }


async def _asked(swarm: Swarm, width: int, questions: int, idle: float, dice: random.Random) -> dict[str, Any]:
    """Questions of one width by members drawn at random; processor time without what ``idle`` members take anyway."""
    before = await stats(swarm)
    began = time.monotonic()
    asked = [
        await dice.choice(swarm.members).tell("ask", cells=dice.sample(range(CELLS), width)) for _ in range(questions)
    ]
    passed = time.monotonic() - began
    after = await stats(swarm)
    used = sum(b["cpu_s"] - a["cpu_s"] for a, b in zip(before, after, strict=True)) - idle * passed
    cpu_ms = 1000 * max(used, 0.0) / questions
    return {
        "exchanges": median([one["exchanges"] for one in asked]),
        "kb": median([one["bytes"] for one in asked]) / 1000,
        "ms": median([one["ms"] for one in asked]),
        "cpu_ms_all_nodes": cpu_ms,
        "cpu_ms_per_node": cpu_ms / len(swarm.members),
    }


def _least(swarm: Swarm, width: int, questions: int, dice: random.Random) -> dict[str, float]:
    """Members that own any of the cells, and how few a greedy cover calls; of questions drawn anew."""
    rows = swarm.owners()
    drawn = [dice.sample(range(CELLS), width) for _ in range(questions)]
    return {
        "owners": median([float(len({owner for cell in cells for owner in rows[cell]})) for cells in drawn]),
        "greedy_cover": median([float(_cover([rows[cell] for cell in cells])) for cells in drawn]),
    }


def _cover(rows: Sequence[tuple[bytes, ...]]) -> int:
    """Members that are called if ``READ_AT`` owners of each cell must be, by always calling who serves most cells."""
    lacking = [min(READ_AT, len(row)) for row in rows]
    called: set[bytes] = set()
    while any(lacking):
        serves = Counter(
            owner for row, lacks in zip(rows, lacking, strict=True) if lacks for owner in row if owner not in called
        )
        best = max(serves, key=lambda owner: (serves[owner], owner))
        called.add(best)
        lacking = [lacks - (lacks > 0 and best in row) for row, lacks in zip(rows, lacking, strict=True)]
    return len(called)


def laws(costs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Growth from the smallest to the largest network, beside that of log N and N; 1 is no growth."""
    sizes = sorted(int(size) for size in costs)
    least, most = costs[str(sizes[0])], costs[str(sizes[-1])]
    if len(sizes) < 2 or sizes[0] < 2:
        return {}

    def ratio(name: str) -> float:
        return float(most[name] / least[name])

    asked = {
        width: {
            name: float(most["questions"][width][name] / least["questions"][width][name])
            for name in ("exchanges", "kb", "ms", "owners", "greedy_cover")
        }
        | {"exchanges_most": DEFAULT_REPLICAS * int(width)}
        for width in most["questions"]
    }
    return {
        "sizes": [sizes[0], sizes[-1]],
        "log_ratio": math.log(sizes[-1]) / math.log(sizes[0]),
        "linear_ratio": sizes[-1] / sizes[0],
        "questions": asked,
        "exchanges_per_node": ratio("exchanges_per_node"),
        "quiet_bytes_per_s": ratio("quiet_bytes_per_s"),
        "memory_mb": ratio("memory_mb"),
        "members_know_everybody_up_to": MEMBERS_MOST,
        "table_is_searched_in_shards_above": SHARD_MEMBERS,
    }
