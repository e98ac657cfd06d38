"""A member of a network of processes, over links to the others; TLS unless another link is given.

Who the members are is given from outside (``members``, ``endpoint_of``): by a signed list, by a DHT, by members that
tell each other. What is done with them is the same as in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from outroute.identity import Identity
from outroute.placement import DEFAULT_REPLICAS, Member, Members
from outroute.transports.channel import Secrets
from outroute.transports.contract import CREDIT_FRAMES, Capabilities, Topic, topic_of
from outroute.transports.guard import Guard
from outroute.transports.keeper import Shelf
from outroute.transports.linking import LinkBase
from outroute.transports.links import LinkMaker, MemberLink, Offering
from outroute.transports.member import MemberTransport
from outroute.transports.replicas import REQUEST_SECONDS
from outroute.transports.standing import Standing
from outroute.transports.tls import TlsLink

__all__ = ["DirectTransport"]


class DirectTransport(MemberTransport):
    """A ``Link`` and a ``Holder`` over a ``MemberLink``.

    A node whose key is revoked is neither called nor listened to; it may still hand over what it keeps for others, so
    its calls are let in and judged frame by frame.

    Args:
        identity: this node's.
        shelf: where it keeps packets.
        guard: checks packets.
        members: the members that are believed to live, itself among them if it keeps packets.
        endpoint_of: where a member (its id) is reached, ``host:port``; None when not known.
        clock: seconds since 1970.
        organisation: key of its organisation; its own when nobody certifies it.
        replicas: owners per address; the same for all members.
        organisation_of: author's key to organisation's key, where no certificate says it.
        standing: what it knows about keys; default nothing, and in memory only.
        secrets: of the network; none in an open one.
        admit: whether the node with a public key may connect.
        credit: exchanges with one member at a time.
        request_seconds: time-out of one exchange.
        link: makes what carries the frames.
    """

    def __init__(
        self,
        identity: Identity,
        shelf: Shelf,
        guard: Guard,
        *,
        members: Callable[[], Members],
        endpoint_of: Callable[[bytes], str | None],
        clock: Callable[[], int],
        organisation: bytes | None = None,
        replicas: int = DEFAULT_REPLICAS,
        organisation_of: Mapping[bytes, bytes] | None = None,
        standing: Standing | None = None,
        secrets: Secrets | None = None,
        admit: Callable[[bytes], bool] = lambda _: True,
        credit: int = CREDIT_FRAMES,
        request_seconds: float = REQUEST_SECONDS,
        link: LinkMaker = TlsLink,
    ) -> None:
        self.link: MemberLink = link(
            identity, handle=self._receive, endpoint_of=endpoint_of, secrets=secrets, admit=admit, credit=credit
        )
        standing = standing or Standing()
        standing.name = standing.name or identity.id
        super().__init__(
            Member(id=identity.id, organisation=organisation or identity.public_key),
            shelf,
            guard,
            members=members,
            clock=clock,
            replicas=replicas,
            organisation_of=organisation_of or {},
            request_seconds=request_seconds,
            standing=standing,
        )
        if isinstance(self.link, LinkBase):
            self.link.worker.handle_all = self._receive_all
        if isinstance(self.link, Offering):
            self.link.offer(self)

    @property
    def capabilities(self) -> Capabilities:
        """Those of the link; durable with a store on disk."""
        return replace(self.link.capabilities, durable=self.shelf.durable)

    async def _carry(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        return await self.link.request(member, frame)

    async def _handle_own(self, frame: bytes) -> Sequence[bytes]:
        return await self.link.own(frame)

    def _receive(self, sender: bytes, frame: bytes) -> list[bytes]:
        """In the link's own thread."""
        if sender == self.member.id:
            return self.keeper.handle(frame)
        return self.receive(frame, sender)

    def _receive_all(self, jobs: Sequence[tuple[bytes, bytes]]) -> list[list[bytes]]:
        """In the link's own thread: deposits of others that follow each other together, the rest one by one."""
        found: list[list[bytes]] = []
        group: list[tuple[bytes, bytes]] = []
        for sender, frame in jobs:
            if sender != self.member.id and topic_of(frame) is Topic.DEPOSIT:
                group.append((sender, frame))
                continue
            found += self.receive_all(group)
            group = []
            found.append(self._receive(sender, frame))
        return found + self.receive_all(group)

    async def close(self) -> None:
        """Take no more frames and end all connections; the store stays open, it is the maker's."""
        await self.link.close()
