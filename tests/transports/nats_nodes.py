"""Nodes on a NATS server for tests of NATS alone: started, asked, and closed at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from outroute.errors import TransportError
from outroute.identity import Identity
from outroute.packet import PacketArray
from outroute.store import PacketStore
from outroute.testing.making import CELLS, NOW, SCHEMA, addresses_of, identity
from outroute.testing.nats_server import NatsServer
from outroute.testing.rigs import united
from outroute.transports import Guard, Role
from outroute.transports.nats import NatsHolder
from outroute.transports.nats_options import nats_options
from outroute.transports.nats_subjects import Subjects
from outroute.transports.standing import Standing
from outroute.transports.url import parse_url

__all__ = ["ALL", "PATIENCE", "Nodes", "got", "nodes", "put", "refused", "until"]

ALL = Role.EMIT | Role.ASK | Role.HOLD
PATIENCE = 60.0
"""Seconds that something may take to come true."""


class Nodes:
    """Nodes on one server, closed at the end."""

    def __init__(self, server: NatsServer, directory: Path, prefix: str) -> None:
        self.server, self.directory, self.prefix = server, directory, prefix
        self.now = NOW
        self.made: list[NatsHolder] = []

    async def node(
        self, number: int, options: str = "", *, roles: Role = ALL, schema: Any = SCHEMA, key: Identity | None = None
    ) -> NatsHolder:
        key = key or identity(1000 + number)
        url = f"{self.server.url}?prefix={self.prefix}&monitor={self.server.monitor}&{options}".rstrip("&")
        directory = self.directory / str(number)
        holder = NatsHolder(
            nats_options(parse_url(url)),
            schema=schema,
            identity=key,
            guard=Guard([schema]),
            standing=Standing(name=key.id),
            clock=lambda: self.now,
            shelf=PacketStore(directory) if Role.HOLD in roles else None,
            directory=directory,
            roles=roles,
        )
        self.made.append(holder)
        await holder.start()
        return holder

    def subjects(self) -> Subjects:
        return Subjects(prefix=self.prefix, schema=SCHEMA.id)


@contextlib.asynccontextmanager
async def nodes(server: NatsServer, directory: Path, prefix: str = "") -> AsyncIterator[Nodes]:
    made = Nodes(server, directory, prefix or f"t{directory.name[-40:]}")
    try:
        yield made
    finally:
        for one in made.made:
            await one.close()


async def put(holder: NatsHolder, packets: PacketArray, schema: Any = SCHEMA):
    return await holder.deposit(schema.id, addresses_of(packets, schema), packets)


async def got(holder: NatsHolder, cells: list[bytes] = CELLS) -> list[bytes]:
    return united(await holder.fetch(SCHEMA.id, cells, cap=256))


async def until(what: Any) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE):
        while not what():
            await asyncio.sleep(0.02)


async def refused(server: NatsServer, directory: Path, options: str = "", prefix: str = "p") -> TransportError:
    with pytest.raises(TransportError) as caught:
        async with nodes(server, directory, prefix) as net:
            await net.node(0, options)
    assert "\n" not in str(caught.value)
    return caught.value
