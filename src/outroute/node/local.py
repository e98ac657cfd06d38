"""Joining a network of this process: the default of a node, and what the demo and the trial run on."""

from __future__ import annotations

from pathlib import Path

from outroute.identity import Identity
from outroute.node.evidence import verify_in_threads
from outroute.node.portal import run
from outroute.placement import DEFAULT_REPLICAS, Member
from outroute.schema import Schema
from outroute.store import PacketStore
from outroute.transports import Guard, Holder, LocalNetwork, LocalTransport

__all__ = ["guard_for", "join_local", "leave", "serves", "tend"]


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

    A ``Node`` that is given the transport closes it and its store.

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
    store = PacketStore(data_dir)
    try:
        return network.join(member, store, guard or guard_for(schema, secret), replicas=replicas)
    except BaseException:
        store.close()
        raise


def serves(holder: Holder, schema: Schema) -> bool:
    """Whether a holder can know a schema; true where it does not say."""
    return not isinstance(holder, LocalTransport) or schema.id in holder.guard.schemas


def tend(holder: Holder, now: int) -> None:
    """Delete from a holder's own store what expired more than an hour ago."""
    if isinstance(holder, LocalTransport) and isinstance(holder.shelf, PacketStore):
        holder.shelf.sweep(now)


def leave(holder: Holder) -> None:
    """Leave the network, handing over what is kept, and close the holder's own store."""
    try:
        run(holder.close())
    finally:
        if isinstance(holder, LocalTransport) and isinstance(holder.shelf, PacketStore):
            holder.shelf.close()
