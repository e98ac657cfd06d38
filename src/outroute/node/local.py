"""Joining a network of this process: the default of a node, and what the demo and the trial run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.identity import Identity
from outroute.node.evidence import verify_in_threads
from outroute.node.portal import run
from outroute.packet import Flag, PacketArray
from outroute.placement import DEFAULT_REPLICAS, Member
from outroute.schema import Schema
from outroute.store import PacketStore, StatementFile, load_certificate
from outroute.transports import Guard, Holder, LocalNetwork, LocalTransport
from outroute.transports.keeper import Answered
from outroute.transports.member import MemberTransport
from outroute.transports.serving import Keeps
from outroute.transports.standing import Standing

__all__ = [
    "Shelf",
    "guard_for",
    "join_local",
    "leave",
    "listen",
    "organisation_of",
    "origin_of",
    "own_keys",
    "serves",
    "shelf_of",
    "tend",
]


class Shelf(PacketStore):
    """A packet store that says where something was withdrawn.

    Attributes:
        withdrawn: told of the addresses, in the thread that stores; the first to know is the node itself.
    """

    withdrawn: Callable[[set[bytes]], None] | None = None

    def put(
        self, addresses: bytes | Sequence[bytes], packets: PacketArray, *, bucket_seconds: int, now: int
    ) -> NDArray[np.uint8]:
        """See ``PacketStore.put``."""
        kept = super().put(addresses, packets, bucket_seconds=bucket_seconds, now=now)
        back = np.flatnonzero(packets["flags"] & np.uint16(Flag.WITHDRAWAL)).tolist()
        if back and self.withdrawn is not None:
            self.withdrawn({addresses} if isinstance(addresses, bytes) else {addresses[row] for row in back})
        return kept


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

    A ``Node`` that is given the transport closes it and its store. What ``data_dir`` holds about keys (the node's own
    certificate, revocations) is in force from the start and kept up to date.

    Args:
        network: the network of this process.
        identity: the node's.
        schema: what it serves; organisations that it names are the only ones that count.
        organisation: key of its organisation; default the one that certified it, else its own.
        data_dir: where packets and statements about keys are kept.
        guard: checks packets; default one of its own.
        secret: the network's secret for addresses.
        replicas: owners of an address.

    Raises:
        StoreError: ``data_dir`` cannot be used.
    """
    now = network.clock()
    if organisation is None and data_dir is not None:
        certificate = load_certificate(data_dir)
        if certificate is not None and certificate.node == identity.public_key and certificate.holds(now):
            organisation = certificate.organisation
    shelf = None if data_dir is None else StatementFile(data_dir)
    standing = Standing(shelf, now=now, organisations=schema.organisations)
    member = Member(id=identity.id, organisation=organisation or identity.public_key)
    store = Shelf(data_dir)
    try:
        return network.join(member, store, guard or guard_for(schema, secret), replicas=replicas, standing=standing)
    except BaseException:
        store.close()
        raise


def _standing(holder: Holder) -> Standing | None:
    """What a transport knows about keys; None where it does not say."""
    found = getattr(holder, "standing", None)
    return found if isinstance(found, Standing) else None


def own_keys(holder: Holder, key: bytes) -> tuple[bytes, ...]:
    """A node's key, and those that it had before as far as its transport knows."""
    standing = _standing(holder)
    known = () if standing is None else standing.register.lineage(key)
    return (key, *(one for one in known if one != key))


def origin_of(holder: Holder) -> Callable[[bytes], bytes]:
    """What finds the first key of a node that changed its key, as far as its transport knows."""
    standing = _standing(holder)
    return (lambda key: key) if standing is None else standing.register.origin


def organisation_of(holder: Holder) -> Callable[[bytes], bytes]:
    """What finds the organisation that certifies an author's key; the key itself where nobody does."""
    known: Mapping[bytes, bytes] = getattr(holder, "organisations", None) or {}
    return lambda key: known.get(key, key)


def listen(holder: Holder, *, answered: Answered | None, withdrawn: Callable[[set[bytes]], None] | None) -> None:
    """Be told of questions that a holder answers for others, and of withdrawals that reach its own store.

    Args:
        holder: the transport; one that keeps nothing itself has nothing to tell.
        answered: told of questions; None to be told no longer.
        withdrawn: told of addresses; None to be told no longer.
    """
    if not isinstance(holder, Keeps):
        return
    holder.keeper.answered = None
    if answered is not None:
        # Every other member is known by its id; a question of nobody is this node's own.
        holder.keeper.answered = lambda asker, addresses: None if asker is None else answered(asker, addresses)
    if isinstance(holder.shelf, Shelf):
        holder.shelf.withdrawn = withdrawn


def serves(holder: Holder, schema: Schema) -> bool:
    """Whether a holder can know a schema; true where it does not say."""
    guard = getattr(holder, "guard", None)
    return not isinstance(guard, Guard) or schema.id in guard.schemas


def tend(holder: Holder, now: int) -> None:
    """Delete from a holder's own store what expired more than an hour ago."""
    shelf = shelf_of(holder)
    if shelf is not None:
        shelf.sweep(now)


def shelf_of(holder: Holder) -> PacketStore | None:
    """A holder's own store; None where others keep everything."""
    shelf = getattr(holder, "shelf", None)
    return shelf if isinstance(shelf, PacketStore) else None


def leave(holder: Holder) -> None:
    """Leave the network, handing over what is kept, and close the holder's own store."""
    try:
        run(holder.close())
    finally:
        if isinstance(holder, MemberTransport) and isinstance(holder.shelf, PacketStore):
            holder.shelf.close()
