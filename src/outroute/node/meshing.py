"""The transport of a node that lives in a network of processes, made from its directory by the transport's URL."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from outroute.identity import Identity
from outroute.node.joining import Joining
from outroute.node.local import Shelf, guard_for
from outroute.node.members import Pinned
from outroute.schema import Schema
from outroute.store import StatementFile, load_certificate
from outroute.transports import (
    Announcement,
    Frame,
    Kind,
    Receipt,
    decode,
)
from outroute.transports.channel import Secrets
from outroute.transports.dht import DhtFinder
from outroute.transports.mesh import MeshTransport
from outroute.transports.registry import holder_of, link_of, link_type
from outroute.transports.serving import Counted, Setting, StartedTransport, named, reasons_of
from outroute.transports.standing import Standing

__all__ = ["Mesh", "transport_for"]

_log = logging.getLogger("outroute.node")
_COUNTED = (Kind.DEPOSIT, Kind.ASK)
_HEADER_BYTES, _COUNT, _CAUSE = 72, slice(6, 8), slice(24, 40)


class Mesh(MeshTransport):
    """A ``MeshTransport`` that hears of listed members only, and writes down what it answers for others.

    Attributes:
        listed: whether the node with a public key may be a member; None for anybody.
    """

    listed: Callable[[bytes], bool] | None = None

    @functools.cached_property
    def refused(self) -> Counter[int]:
        """Packets of others' deposits that were refused so far, by reason (see ``Deposited.reasons``)."""
        return Counter()

    def hear(self, announcements: Sequence[bytes]) -> int:  # type: ignore[override]
        """See ``MeshTransport.hear``; who is not on the list is refused, whoever vouches for it."""
        if self.listed is None:
            return super().hear(announcements)
        good = []
        for data in announcements:
            one = Announcement.from_bytes(data)
            if one is not None and self.listed(one.key):
                good.append(data)
        self.announcements["refused"] += len(announcements) - len(good)
        return super().hear(good)

    def noted(self, frame: bytes, replies: Sequence[bytes], sender: bytes | None) -> None:
        """See ``MemberTransport.noted``."""
        super().noted(frame, replies, sender)
        if len(frame) >= _HEADER_BYTES and frame[4] == Kind.DEPOSIT:
            read = decode(replies[0])
            if isinstance(read, Frame) and read.kind is Kind.RECEIPTS:
                self.refused.update(read.receipts[read.receipts[:, 0] == Receipt.REJECTED, 1].tolist())
        if len(frame) >= _HEADER_BYTES and frame[4] in _COUNTED and _log.isEnabledFor(logging.INFO):
            _log.info(
                "deposit taken" if frame[4] == Kind.DEPOSIT else "question answered",
                extra={
                    "cause": frame[_CAUSE].hex(),
                    "member": None if sender is None else sender.hex(),
                    "packets" if frame[4] == Kind.DEPOSIT else "cap": int.from_bytes(frame[_COUNT], "little"),
                },
            )

    @property
    def problems(self) -> Mapping[str, str]:
        """See ``MeshTransport.problems``; and whether the store can be written."""
        error = self.keeper.last_store_error
        return {**super().problems, **({} if error is None else {"store": str(error)})}

    def renew(self, secrets: Secrets) -> None:
        """See ``NodeTransport.renew``."""
        self.link.secrets = secrets

    def sweep(self, now: int) -> None:
        """See ``NodeTransport.sweep``."""
        if isinstance(self.shelf, Shelf):
            self.shelf.sweep(now)

    def abandon(self) -> None:
        """See ``NodeTransport.abandon``."""
        if isinstance(self.shelf, Shelf):
            self.shelf.close()

    def counted(self) -> Iterable[Counted]:
        """See ``NodeTransport.counted``."""
        keeper = self.keeper
        for name, text, label, values in (
            ("receipts_total", "Packets of deposits taken or not", "receipt", named(keeper.receipts)),
            ("refused_frames_total", "Frames refused", "reason", named(keeper.refused_frames)),
            ("refused_packets_total", "Packets of deposits refused", "reason", reasons_of(self.refused)),
            ("refused_handshakes_total", "Callers refused", "reason", named(self.link.refused)),
            ("dropped_connections_total", "Connections cut off", "reason", dict(self.link.dropped)),
        ):
            yield Counted(name=name, text=text, label=label, values=values)


def transport_for(
    schema: Schema,
    directory: Path,
    identity: Identity,
    joining: Joining,
    *,
    pinned: Pinned | None,
    clock: Callable[[], int],
) -> tuple[Mesh | StartedTransport, DhtFinder | None]:
    """The transport of a node, not started yet, and its node of the table.

    Args:
        schema: what it serves.
        directory: the node's: packets, certificate, statements about keys.
        identity: the node's.
        joining: how it takes part.
        pinned: the list of members that it goes by.
        clock: seconds since 1970.

    Raises:
        StoreError: the directory cannot be used, or another process uses it.
        TransportError: there is no such transport, or its URL cannot be used.
        MissingExtraError: a part of it is not installed.
    """
    links = None if link_type(joining.transport) is None else link_of(joining.transport)
    now = clock()
    standing = Standing(StatementFile(directory), now=now, organisations=schema.organisations)
    certificate = load_certificate(directory)
    if certificate is not None and (certificate.node != identity.public_key or not certificate.holds(now)):
        certificate = None
    register = standing.register

    def admit(key: bytes) -> bool:
        return (pinned is None or pinned.admits(key)) and not register.revoked(key, clock())

    if links is None:
        setting = Setting(
            schema=schema,
            directory=directory,
            identity=identity,
            certificate=certificate,
            roles=joining.roles,
            secrets=joining.secrets,
            admit=admit,
            guard=guard_for(schema),
            standing=standing,
            clock=clock,
            open_shelf=lambda: Shelf(directory),
            join=tuple(map(str, joining.join)),
        )
        return holder_of(joining.transport, setting), None
    finder: DhtFinder | None = None
    if joining.dht is not None:
        finder = DhtFinder(clock=clock, size=lambda: mesh.network_size(), secrets=joining.secrets)
    shelf = Shelf(directory)
    try:
        mesh = Mesh(
            identity,
            shelf,
            guard_for(schema),
            clock=clock,
            rng=np.random.default_rng(),
            roles=joining.roles,
            certificate=certificate,
            finder=finder,
            standing=standing,
            secrets=joining.secrets,
            admit=admit,
            link=links,
        )
    except BaseException:
        shelf.close()
        raise
    mesh.listed = None if pinned is None else pinned.admits
    return mesh, finder
