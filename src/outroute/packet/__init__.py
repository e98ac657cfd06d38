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
from outroute.packet.noisy import (
    SQUARE_HALF,
    STEPS,
    Regions,
    build_noisy,
    contributions,
    noisy_sums,
    places,
    region_of,
    regions_of,
)
from outroute.packet.read import Packet, agreeing, class_counts, moments

__all__ = [
    "MAX_SIZE",
    "PACKET_BYTES",
    "PACKET_DTYPE",
    "SIGNED_BYTES",
    "SQUARE_HALF",
    "STEPS",
    "WEIGHT_ONE",
    "Flag",
    "Packet",
    "PacketArray",
    "Regions",
    "Rejection",
    "Verdicts",
    "accept",
    "agreeing",
    "as_packets",
    "build",
    "build_noisy",
    "check_derived",
    "check_structure",
    "class_counts",
    "commit",
    "contributions",
    "expiry",
    "identities",
    "moments",
    "noisy_sums",
    "places",
    "region_of",
    "regions_of",
    "sign",
    "slots",
    "verify_signatures",
    "withdraw",
]
