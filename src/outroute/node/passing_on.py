"""Packets that came in a file, handed on to the holders of their cells: of two synthesizers, say, who share a key.

A holder looks at the author's signature and not at who brings a packet, so that anybody may bring it. Withdrawals are
not handed on: their authors do that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from outroute.errors import DataError, TransportError
from outroute.node.emitting import addresses_of
from outroute.node.evidence import verify_in_threads
from outroute.node.handing_over import PUBLISH_AT_ONCE
from outroute.node.node import Node
from outroute.node.portal import run
from outroute.packet import Flag, PacketArray, accept, as_packets
from outroute.store import Event
from outroute.store.outgoing import operator_text

__all__ = ["PassedOn", "pass_on"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOn:
    """What became of packets of others that this node handed on.

    Attributes:
        sent: accepted packets, each once.
        acknowledged: of these, kept by enough holders, on disk where the transport promises that.
        refused: of these, not wanted by enough holders, now or later.
        left: withdrawals, own packets, and what this node would not accept itself; not sent.
    """

    sent: int
    acknowledged: int
    refused: int
    left: int


def pass_on(node: Node, packets: PacketArray | bytes, *, by: str) -> PassedOn:
    """Hand packets of others to the holders of their cells.

    Args:
        node: a member of a network.
        packets: of this node's schema.
        by: who lets them leave here, for the log.

    Raises:
        DataError: none of them can be passed on.
        TransportError: no holder can be reached.
    """
    by = operator_text(by, "who lets them leave")
    holder, schema, now = node.transport, node.schema, int(node.clock())
    assert holder is not None
    verdicts = accept(packets, schema, now, verify=verify_in_threads)
    array = packets if isinstance(packets, np.ndarray) else as_packets(packets)
    good = array[verdicts.ok[: len(array)]]
    assert node.identity is not None
    own = (good["author"] == np.frombuffer(node.identity.public_key, dtype=np.uint8)).all(axis=1)
    # What this node made itself leaves through its outbox, once approved, and no other way.
    good = good[~own & ((good["flags"] & np.uint16(Flag.WITHDRAWAL)) == 0)]
    if not len(good):
        raise DataError(
            "none of these packets can be passed on: they are not of this node's schema, not in force, withdrawals, or "
            "this node's own, which leave by outroute publish",
            code="packet.none",
        )
    codes, cell = good["conditions"][:, : schema.width], good["cell"].astype(np.int64)
    addresses = addresses_of(schema, codes, cell, node.secret)
    acknowledged = refused = 0
    for at in range(0, len(good), PUBLISH_AT_ONCE):
        part = slice(at, at + PUBLISH_AT_ONCE)
        done = run(holder.deposit(schema.id, addresses[part], good[part]))
        kept = done.acknowledged if holder.capabilities.durable else done.replicated
        acknowledged += int(kept.sum())
        refused += int((done.refused & ~kept).sum())
    node.log.append(
        Event.PASSED_ON,
        now=now,
        packets=len(good),
        acknowledged=acknowledged,
        by=by,
        digest=hashlib.sha256(good.tobytes()).hexdigest(),
    )
    if not acknowledged and not refused:
        raise TransportError(
            "no holder of these cells answers: outroute doctor says what is wrong; then pass them on again",
            code="transport.unreachable",
        )
    return PassedOn(sent=len(good), acknowledged=acknowledged, refused=refused, left=len(array) - len(good))
