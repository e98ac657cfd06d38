"""What a member offers to Arrow clients: its network's packets as tables."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from enum import IntEnum, unique
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outroute.packet import PacketArray
from outroute.transports.contract import Answer, Deposited
from outroute.transports.guard import Guard, Use
from outroute.transports.keeper import CAP_LIMIT

__all__ = ["MemberTables", "Offered", "State"]

_WAIT_SECONDS = 60.0
"""Seconds that a deposit or a question of an Arrow client may take; each of its exchanges has a time-out of its own."""


@unique
class State(IntEnum):
    """What became of a packet of a table that an Arrow client deposited; the numbers are stable."""

    #: Enough owners have it on disk.
    ACKNOWLEDGED = 0
    #: Enough owners have it, some in memory only.
    REPLICATED = 1
    #: It will not be taken; the second byte says why, as in a receipt.
    REFUSED = 2
    #: Not yet: deposit it again later.
    AGAIN = 3


class Offered(Protocol):
    """A member, as far as tables need it."""

    guard: Guard

    def now(self) -> int:
        """Seconds since 1970."""

    async def deposit(self, schema: bytes, addresses: Sequence[bytes], packets: PacketArray) -> Deposited:
        """See ``Holder.deposit``."""

    async def fetch(self, schema: bytes, addresses: Sequence[bytes], *, cap: int) -> list[Answer]:
        """See ``Holder.fetch``."""


class MemberTables:
    """See ``flight_server.Tables``; called in any thread but the loop's.

    Args:
        member: what to offer.
        loop: where its coroutines run.
    """

    def __init__(self, member: Offered, loop: asyncio.AbstractEventLoop) -> None:
        self._member, self._loop = member, loop

    def schemas(self) -> list[bytes]:
        """Ids of the schemas that are served."""
        return sorted(self._member.guard.schemas)

    def cells(self, schema: bytes) -> tuple[int, int] | None:
        """How many facet combinations and cells a schema has; None when it is not served."""
        found = self._member.guard.schemas.get(schema)
        return None if found is None else (math.prod(one.width + 1 for one in found.facets), len(found.landmarks))

    def deposit(self, schema: bytes, packets: PacketArray) -> NDArray[np.uint8]:
        """Deposit packets with the owners of their cells; uint8[n, 2]: a ``State``, and why one was refused.

        They are checked here first: their owners would lay bad ones at this member's door.
        """
        guard = self._member.guard
        found = np.zeros((len(packets), 2), dtype=np.uint8)
        places = guard.addresses(schema, packets)
        reasons = guard.check(schema, places, packets, now=self._member.now(), use=Use.DEPOSIT)
        found[:, 0], found[:, 1] = State.REFUSED, reasons
        good = np.flatnonzero(reasons == 0)
        if len(good):
            work = self._member.deposit(schema, [places[row] for row in good.tolist()], packets[good])
            done = asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_SECONDS)
            states = np.full(len(good), State.AGAIN, dtype=np.uint8)
            states[done.refused], states[done.replicated] = State.REFUSED, State.REPLICATED
            states[done.acknowledged] = State.ACKNOWLEDGED
            found[good, 0] = states
            found[good, 1] = np.where(states == State.REFUSED, done.reasons.max(axis=1), 0)
        return found

    def fetch(self, schema: bytes, facet: int, cell: int) -> PacketArray:
        """The packets of a cell, each verified."""
        place = self._member.guard.address_of(schema, facet, cell)
        work = self._member.fetch(schema, [place], cap=CAP_LIMIT)
        (answer,) = asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_SECONDS)
        return answer.packets
