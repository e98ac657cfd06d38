"""How packets and questions move: one small contract, and the transports that fulfil it."""

from __future__ import annotations

from outroute.transports.contract import (
    ADDRESS_REFUSED,
    AUTHOR_COMPROMISED,
    AUTHOR_REVOKED,
    CREDIT_FRAMES,
    SCHEMA_REFUSED,
    Announcement,
    Answer,
    Capabilities,
    Deposited,
    Finder,
    Holder,
    Link,
    Receipt,
    Role,
    Topic,
    Traffic,
    UnreachableError,
)
from outroute.transports.frames import FRAME_BYTES, FRAME_PACKETS, Frame, FrameReason, Kind, Rejected, decode, encode
from outroute.transports.guard import Guard, Use
from outroute.transports.keeper import Keeper, Shelf
from outroute.transports.local import LocalNetwork, LocalTransport
from outroute.transports.replicas import Repaired, Replicas
from outroute.transports.standing import EXCHANGE_SECONDS, Standing, StatementShelf

__all__ = [
    "ADDRESS_REFUSED",
    "AUTHOR_COMPROMISED",
    "AUTHOR_REVOKED",
    "CREDIT_FRAMES",
    "FRAME_BYTES",
    "FRAME_PACKETS",
    "SCHEMA_REFUSED",
    "Announcement",
    "Answer",
    "Capabilities",
    "Deposited",
    "EXCHANGE_SECONDS",
    "Finder",
    "Frame",
    "FrameReason",
    "Guard",
    "Holder",
    "Keeper",
    "Kind",
    "Link",
    "LocalNetwork",
    "LocalTransport",
    "Receipt",
    "Rejected",
    "Repaired",
    "Replicas",
    "Role",
    "Shelf",
    "Standing",
    "StatementShelf",
    "Topic",
    "Traffic",
    "UnreachableError",
    "Use",
    "decode",
    "encode",
]
