"""Joining a network of this process: the default of a node, and what the demo and the trial run on."""

from __future__ import annotations

import time
from pathlib import Path

from outroute.identity import Identity
from outroute.node.evidence import verify_in_threads
from outroute.placement import DEFAULT_REPLICAS, Member
from outroute.schema import Schema
from outroute.store import PacketStore
from outroute.transports import Guard, LocalNetwork, LocalTransport

__all__ = ["clock_seconds", "guard_for", "join_local"]


def clock_seconds() -> int:
    """Seconds since 1970-01-01 UTC, from this machine's clock."""
    return int(time.time())


def guard_for(schema: Schema, secret: bytes = b"") -> Guard:
    """What checks packets of a schema on all cores. Nodes of one process may share one: each packet is checked once."""
    return Guard((schema,), secret=secret, verify=verify_in_threads)


def join_local(
    network: LocalNetwork,
    identity: Identity,
    schema: Schema,
    *,
    organisation: bytes | None = None,
    data_dir: Path | str | None = None,
    guard: Guard | None = None,
    secret: bytes = b"",
    replicas: int = DEFAULT_REPLICAS,
) -> LocalTransport:
    """Join as a member that keeps packets in ``data_dir`` (or in memory).

    Args:
        network: the network of this process.
        identity: the node's.
        schema: what it serves.
        organisation: key of its organisation; default its own.
        data_dir: where packets are kept.
        guard: checks packets; default one of its own.
        secret: the network's secret for addresses.
        replicas: owners of an address.
    """
    member = Member(id=identity.id, organisation=organisation or identity.public_key)
    return network.join(member, PacketStore(data_dir), guard or guard_for(schema, secret), replicas=replicas)
