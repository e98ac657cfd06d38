"""Deposits and questions that go on while members die or are cut off."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from benchmarks._member import BATCH, CELLS
from benchmarks._swarm import Gone, Process, Swarm, load

ASK_CELLS = 16
ASKERS = 4
DEPOSIT_PAUSE = 1.0
"""Seconds between batches of a hundred packets, so that a cell does not grow past what one answer holds."""


class Traffic:
    """Deposits and questions of some members.

    Args:
        swarm: all members.
        seed: of what is drawn.
        among: who deposits and asks; everybody by default.
        first: sequence of the first packet.
    """

    pause = DEPOSIT_PAUSE

    def __init__(self, swarm: Swarm, seed: int, *, among: Sequence[Process] | None = None, first: int = 0) -> None:
        self.swarm, self._among = swarm, among
        self.random = random.Random(seed)
        self.acknowledged: set[int] = set()
        self.asks = self.answered = 0
        self.milliseconds: list[float] = []
        self._next = first
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
        return self.random.choice(self.swarm.members if self._among is None else self._among)

    async def deposit(self, by: Process, count: int, pause: float = 0.0) -> None:
        """New packets, deposited by one member; what it reports is noted at once."""
        first, self._next = self._next, self._next + count
        async for part in by.parts("deposit", author=1, first=first, count=count, at=self.swarm.at, pause=pause):
            self.acknowledge(part["acknowledged"])

    def acknowledge(self, sequences: list[int]) -> None:
        self.acknowledged.update(sequences)

    async def _deposit(self) -> None:
        while True:
            await self.depositing.wait()
            with suppress(Gone):
                await self.deposit(self.one(), BATCH)
            await asyncio.sleep(self.pause)

    async def _ask(self) -> None:
        while True:
            with suppress(Gone):  # the one that asks was killed
                await self.ask(self.one(), self.random.sample(range(CELLS), ASK_CELLS))
            await asyncio.sleep(0.1)

    async def ask(self, one: Process, cells: list[int]) -> None:
        """One question."""
        self.count(await one.tell("ask", cells=cells, cap=16), len(cells))

    def count(self, found: dict[str, Any], cells: int) -> None:
        """Note how a question went."""
        self.asks += 1
        self.answered += found["complete"] == cells
        self.milliseconds.append(found["ms"])

    def taken(self) -> dict[str, Any]:
        """Figures of the questions since the last call."""
        asks, answered, ms = self.asks, self.answered, self.milliseconds
        self.asks, self.answered, self.milliseconds = 0, 0, []
        p50, p99 = np.quantile(ms, [0.5, 0.99]) if ms else (np.nan, np.nan)
        return {"asks": asks, "answered": answered, "ask_ms_p50": p50, "ask_ms_p99": p99}


def note(what: str) -> None:
    """What is going on, for who watches."""
    print(f"{time.strftime('%H:%M:%S')} {what}, load {load()}", file=sys.stderr, flush=True)
