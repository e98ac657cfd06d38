"""The contract of every transport: three small roles, receipts, announcements, and counted bytes.

``Finder`` says who is there (a DHT, or members telling each other). ``Link`` carries a frame to a node and
its reply back (ZeroMQ, gRPC, Flight, the local network). ``Holder`` keeps packets and answers addresses (NATS
by itself; the others through ``outroute.transports.replicas`` over a ``Link``). A class may play several.

What is above the roles is the same everywhere: frames, sequence numbers, receipts, deduplication, credit.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag, StrEnum, unique
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outroute.errors import TransportError
from outroute.identity import CERTIFICATE_BYTES, Certificate, Identity, Purpose, Register, node_id, verify
from outroute.packet import PacketArray
from outroute.placement import Member, Wanted
from outroute.transports.frames import ANNOUNCEMENT_BYTES, Flag, Kind

__all__ = [
    "ADDRESS_REFUSED",
    "AUTHOR_COMPROMISED",
    "AUTHOR_REVOKED",
    "CREDIT_FRAMES",
    "SCHEMA_REFUSED",
    "Announcement",
    "Answer",
    "Capabilities",
    "Deposited",
    "Finder",
    "Holder",
    "Link",
    "Receipt",
    "Role",
    "Topic",
    "Traffic",
    "UnreachableError",
    "topic_of",
]

#: Frames in flight to one member; more wait or get BUSY. 32 full frames are 2 MiB: enough to fill a link of
#: 1 Gbit/s at 17 ms, and what a slow reader can pile up stays bounded.
CREDIT_FRAMES = 32

#: Reason of a REJECTED receipt, beyond the numbers of ``outroute.packet.Rejection``: it does not belong to
#: the address it came under.
ADDRESS_REFUSED = 64

#: Reason of a REJECTED receipt: the holder does not serve this schema.
SCHEMA_REFUSED = 65

#: Reason of a REJECTED receipt: the author's key is revoked. What it takes back is still taken.
AUTHOR_REVOKED = 66

#: Reason of a REJECTED receipt or of a refused answer: others may have the author's key.
AUTHOR_COMPROMISED = 67

#: Bytes of an endpoint such as ``tcp://host:port``: names of hosts have at most 253.
_ENDPOINT_BYTES = 256

_ANNOUNCEMENT = struct.Struct("<32sBxHq")


class UnreachableError(TransportError):
    """A member that does not answer: dead, away, or too slow. Others may."""


@unique
class Receipt(IntEnum):
    """What a holder did with one packet of a deposit; the numbers are stable."""

    #: Kept, on disk.
    DURABLE = 0
    #: Kept, in memory only (or on a disk that is not synced).
    HELD = 1
    #: Was there, on disk.
    DUPLICATE = 2
    #: Was there, in memory only.
    HELD_DUPLICATE = 3
    #: Refused; the reason is an ``outroute.packet.Rejection``, ADDRESS_REFUSED or SCHEMA_REFUSED.
    REJECTED = 4
    #: Not an owner of the address: find the owners again.
    NOT_MINE = 5
    #: No room now: send it again later.
    BUSY = 6
    #: Its slot is withdrawn.
    WITHDRAWN = 7
    #: Its slot has another packet: kept as proof, never answered.
    EQUIVOCATION = 8
    #: The cell is full, its sample has no place for this packet.
    LEFT_OUT = 9
    #: The holder did not answer (said by the sender's side only).
    UNREACHABLE = 10


_ON_DISK = (Receipt.DURABLE, Receipt.DUPLICATE)
_KEPT = (*_ON_DISK, Receipt.HELD, Receipt.HELD_DUPLICATE)
_FINAL = (Receipt.REJECTED, Receipt.WITHDRAWN, Receipt.EQUIVOCATION, Receipt.LEFT_OUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposited:
    """What became of a deposit of n packets at their holders.

    Attributes:
        receipts: uint8[n, r], a ``Receipt`` per copy.
        reasons: uint8[n, r], why a copy was rejected.
        needed: copies needed for acknowledgement (r').
        holders: n times the ids of the members that the packet was sent to, the sender itself among them where it is
            one; those that did not answer may have it all the same. Empty where the transport does not know.
    """

    receipts: NDArray[np.uint8]
    reasons: NDArray[np.uint8]
    needed: int
    holders: tuple[tuple[bytes, ...], ...] = ()

    @property
    def acknowledged(self) -> NDArray[np.bool_]:
        """bool[n]: enough holders have it on disk."""
        return self._enough(_ON_DISK)

    @property
    def replicated(self) -> NDArray[np.bool_]:
        """bool[n]: enough holders have it, on disk or in memory."""
        return self._enough(_KEPT)

    @property
    def refused(self) -> NDArray[np.bool_]:
        """bool[n]: enough holders will not take it, now or later; sending it again is useless."""
        return self._enough(_FINAL)

    def any(self, receipt: Receipt) -> NDArray[np.bool_]:
        """bool[n]: at least one holder gave this receipt."""
        return np.asarray((self.receipts == int(receipt)).any(axis=1))

    def _enough(self, wanted: tuple[Receipt, ...]) -> NDArray[np.bool_]:
        copies = np.isin(self.receipts, [int(receipt) for receipt in wanted]).sum(axis=1)
        return np.asarray(copies >= self.needed, dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the network holds at one address.

    Attributes:
        address: 32 bytes.
        packets: PACKET_DTYPE[n], each verified.
        left_out: how many more the cell has.
        refused: packets that a holder sent and that did not pass.
        complete: False when no holder could be reached.
        agreed: True when a second holder was asked and had the same; None when there was none to ask.
        asked: ids of the members that the address was sent to; None where the transport does not know.
        silent: owners of the address that fell silent without a farewell, within a day: dead, or cut off from here.
            From a majority on, packets that were acknowledged may be missing until these are back.
    """

    address: bytes
    packets: PacketArray
    left_out: int
    refused: int
    complete: bool
    agreed: bool | None
    asked: tuple[bytes, ...] | None = None
    silent: int = 0


class Role(IntFlag):
    """What a member does."""

    EMIT = 1
    ASK = 2
    HOLD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A member's signed, short-lived word that it is there.

    Attributes:
        key: its public key, 32 bytes.
        roles: what it does.
        endpoint: where it is reached, at most 256 bytes of UTF-8; the transport knows what it means.
        expires: seconds since 1970.
        certificate: its organisation's word for it, or ``None``.
        signature: 64 bytes over everything before it.
    """

    key: bytes
    roles: Role
    endpoint: str
    expires: int
    certificate: Certificate | None = None
    signature: bytes = bytes(64)

    @property
    def organisation(self) -> bytes:
        """The organisation's key; the member's own key when nobody certifies it."""
        return self.key if self.certificate is None else self.certificate.organisation

    @property
    def member(self) -> Member:
        """The member as placement sees it."""
        return Member(id=node_id(self.key), organisation=self.organisation)

    @property
    def keeps(self) -> bool:
        """Whether it keeps packets for others."""
        return Role.HOLD in self.roles

    @property
    def here(self) -> bool:
        """False when it says that it leaves."""
        return bool(self.roles)

    def signed(self, identity: Identity) -> Announcement:
        """The same, signed; ``identity`` must be the one of ``key``."""
        return replace(self, signature=identity.sign(Purpose.ANNOUNCEMENT, self._signed_bytes()))

    def holds(self, now: int, register: Register | None = None) -> bool:
        """Whether it is in force, its signature right, its certificate too, and no key of it revoked."""
        if now >= self.expires:
            return False
        if register is not None and (
            register.revoked(self.key, now)
            or (self.certificate is not None and not register.certifies(self.organisation))
        ):
            return False
        if self.certificate is not None and (self.certificate.node != self.key or not self.certificate.holds(now)):
            return False
        return verify(Purpose.ANNOUNCEMENT, self.key, self._signed_bytes(), self.signature)

    def _signed_bytes(self) -> bytes:
        endpoint = self.endpoint.encode()
        if len(endpoint) > _ENDPOINT_BYTES:
            raise TransportError(
                f"an endpoint has at most {_ENDPOINT_BYTES} bytes: give a shorter address", code="transport.endpoint"
            )
        certificate = b"" if self.certificate is None else self.certificate.to_bytes()
        fixed = _ANNOUNCEMENT.pack(self.key, self.roles, len(endpoint), self.expires)
        return fixed + bytes([bool(certificate)]) + certificate + endpoint

    def to_bytes(self) -> bytes:
        """The announcement as it travels."""
        return self._signed_bytes() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Announcement | None:
        """Read an announcement, ``None`` when it is malformed; call ``holds`` before believing it."""
        start = _ANNOUNCEMENT.size + 1
        if not start + 64 <= len(data) <= ANNOUNCEMENT_BYTES:
            return None
        key, roles, length, expires = _ANNOUNCEMENT.unpack_from(data)
        certified = data[_ANNOUNCEMENT.size]
        middle = start + (CERTIFICATE_BYTES if certified else 0)
        if certified > 1 or roles > 7 or data[33] or length > _ENDPOINT_BYTES or len(data) != middle + length + 64:
            return None
        try:
            endpoint = data[middle : middle + length].decode()
        except UnicodeDecodeError:
            return None
        return cls(
            key=key,
            roles=Role(roles),
            endpoint=endpoint,
            expires=expires,
            certificate=Certificate.from_bytes(data[start:middle]) if certified else None,
            signature=data[-64:],
        )


@unique
class Topic(StrEnum):
    """What bytes are spent on."""

    QUESTION = "question"
    REPLY = "reply"
    DEPOSIT = "deposit"
    RECEIPT = "receipt"
    REPLICATION = "replication"
    ANNOUNCEMENT = "announcement"
    STATEMENT = "statement"


_TOPICS = {
    Kind.DEPOSIT: Topic.DEPOSIT,
    Kind.RECEIPTS: Topic.RECEIPT,
    Kind.ASK: Topic.QUESTION,
    Kind.ANSWER: Topic.REPLY,
    Kind.COMPARE: Topic.QUESTION,
    Kind.DIGESTS: Topic.REPLY,
    Kind.LIST: Topic.REPLICATION,
    Kind.LISTING: Topic.REPLICATION,
    Kind.ANNOUNCE: Topic.ANNOUNCEMENT,
    Kind.STATEMENTS: Topic.STATEMENT,
    Kind.BUSY: Topic.REPLY,
    Kind.REFUSED: Topic.REPLY,
}


@dataclass(slots=True, kw_only=True)
class Traffic:
    """Bytes of frames that went out and came in, by topic; what the carrier adds below is not in it.

    Attributes:
        sent, received: bytes.
        frames: how many frames these were, both ways together (where a link's frames are counted, not on NATS).
    """

    sent: Counter[Topic] = field(default_factory=Counter)
    received: Counter[Topic] = field(default_factory=Counter)
    frames: int = 0

    @property
    def bytes_out(self) -> int:
        """All bytes sent."""
        return sum(self.sent.values())

    @property
    def bytes_in(self) -> int:
        """All bytes received."""
        return sum(self.received.values())

    def count(self, exchange: bytes, replies: Sequence[bytes], *, outgoing: bool) -> None:
        """Count one exchange: a frame and its replies, by who began it."""
        forth, back = (self.sent, self.received) if outgoing else (self.received, self.sent)
        self.frames += 1 + len(replies)
        repair = len(exchange) > 5 and bool(exchange[5] & Flag.REPAIR)
        forth[Topic.REPLICATION if repair else topic_of(exchange)] += len(exchange)
        for reply in replies:
            back[Topic.REPLICATION if repair else topic_of(reply)] += len(reply)


def topic_of(frame: bytes) -> Topic:
    """What a frame is spent on; what is no frame counts as a question, which it pretends to be."""
    return _TOPICS.get(Kind(frame[4]), Topic.QUESTION) if len(frame) > 4 and frame[4] in _TOPICS else Topic.QUESTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a transport promises.

    Attributes:
        durable: what it acknowledges is on disk.
        ordered: frames between two members arrive in order.
        back_pressure: a slow reader slows its senders down, nothing is dropped.
        secure: members are authenticated and bytes encrypted on the way.
    """

    durable: bool
    ordered: bool
    back_pressure: bool
    secure: bool


class Finder(Protocol):
    """Says who is there."""

    async def announce(self, announcement: Announcement) -> None:
        """Let others know, until the announcement expires."""

    async def find(self, address: bytes, *, limit: int) -> Sequence[Announcement]:
        """Members near an address, checked, nearest first."""


class Link(Protocol):
    """Carries frames between two nodes."""

    async def request(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        """Send a frame to a member (its id) and return the frames of its reply.

        Raises:
            UnreachableError: no reply in time.
            TransportError: the member is not known at all (``transport.nobody``).
        """


class Holder(Protocol):
    """Keeps packets and answers addresses."""

    @property
    def capabilities(self) -> Capabilities:
        """What it promises."""

    @property
    def traffic(self) -> Traffic:
        """Bytes counted so far."""

    async def deposit(
        self, schema: bytes, addresses: Sequence[bytes], packets: PacketArray, *, cause: bytes = bytes(16)
    ) -> Deposited:
        """Give packets to the holders of their addresses; idempotent.

        Args:
            schema: id of the schema of all of them, 32 bytes.
            addresses: one per packet.
            packets: PACKET_DTYPE[n].
            cause: 16 bytes that logs on all nodes share.
        """

    async def fetch(
        self,
        schema: bytes,
        addresses: Sequence[bytes],
        *,
        cap: int,
        wanted: Sequence[Wanted] = (),
        cause: bytes = bytes(16),
    ) -> list[Answer]:
        """The packets at some addresses, an ``Answer`` each, in order; only addresses and authors leave.

        Args:
            schema: id of the schema, 32 bytes.
            addresses: 32 bytes each.
            cap: packets of each address, at most.
            wanted: whose packets, at most ``AUTHORS_PER_FRAME`` authors, each once; none: everybody's.
            cause: 16 bytes that logs on all nodes share.
        """

    async def close(self) -> None:
        """Leave properly."""
