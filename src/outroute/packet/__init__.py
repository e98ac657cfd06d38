"""The signed 512-byte thing that leaves: layout, signing, acceptance, one or a million at a time."""

from __future__ import annotations

from outroute.packet.accept import Verdicts, accept, check_derived, check_structure, expiry, verify_signatures
from outroute.packet.layout import (
    MAX_SIZE,
    PACKET_BYTES,
    PACKET_DTYPE,
    SIGNED_BYTES,
    WEIGHT_ONE,
    Flag,
    PacketArray,
    Rejection,
    as_packets,
    identities,
    slots,
)
from outroute.packet.make import build, commit, sign, withdraw
from outroute.packet.read import Packet, agreeing, class_counts, moments

__all__ = [
    "MAX_SIZE",
    "PACKET_BYTES",
    "PACKET_DTYPE",
    "SIGNED_BYTES",
    "WEIGHT_ONE",
    "Flag",
    "Packet",
    "PacketArray",
    "Rejection",
    "Verdicts",
    "accept",
    "agreeing",
    "as_packets",
    "build",
    "check_derived",
    "check_structure",
    "class_counts",
    "commit",
    "expiry",
    "identities",
    "moments",
    "sign",
    "slots",
    "verify_signatures",
    "withdraw",
]
