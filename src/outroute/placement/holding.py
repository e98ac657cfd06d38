"""What a holder says about a packet, and how two holders find out that they differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, unique

__all__ = ["EMPTY_DIGEST", "NOTHING", "Kept", "Part", "Summary", "missing", "set_digest", "summary"]


@unique
class Kept(IntEnum):
    """What a store did with one verified packet; the numbers are stable."""

    #: Kept, and answered from now on (a withdrawal: in force from now on).
    STORED = 0
    #: Was there already; counts once.
    DUPLICATE = 1
    #: Its slot is withdrawn; not kept.
    WITHDRAWN = 2
    #: Another packet has its slot: both are kept as proof, neither is answered.
    EQUIVOCATION = 3
    #: Past its expiry; not kept.
    EXPIRED = 4
    #: The cell is full and its sample has no place for this packet; not kept.
    LEFT_OUT = 5


@unique
class Part(IntEnum):
    """What a stored packet is to its cell. Repair sends the highest part first."""

    #: An outcome packet that is answered.
    PACKET = 0
    #: One of two packets in one slot: proof of equivocation, never answered.
    PROOF = 1
    #: A withdrawal in force.
    WITHDRAWAL = 2


def set_digest(identities: Iterable[bytes]) -> bytes:
    """32 bytes that are equal for two sets of identities exactly if the sets are equal.

    SHA-256 over the sorted identities: the order of arrival does not matter, and unlike a sum or an
    exclusive or of hashes no set of packets can be made that cancels out.
    """
    state = hashlib.sha256()
    for identity in sorted(identities):
        state.update(identity)
    return state.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a holder has in a cell, for one cap, in 64 bytes.

    Who is shown packets and told ``rest`` can recompute ``digest`` and compare it with that of another
    holder: so a holder that keeps packets back is found out, capped answers included.

    Attributes:
        digest: equal for two holders exactly if they show and keep the same.
        rest: digest of what is in force and not shown: withdrawals, proofs, packets over the cap.
    """

    digest: bytes
    rest: bytes


def summary(shown: Iterable[bytes], rest: bytes) -> Summary:
    """The summary of a cell from the identities shown and the digest of the rest."""
    return Summary(digest=hashlib.sha256(set_digest(shown) + rest).digest(), rest=rest)


#: The digest of nothing.
NOTHING = set_digest(())

#: The digest of a cell with nothing in it.
EMPTY_DIGEST = summary((), NOTHING).digest


def missing(mine: Iterable[bytes], theirs: Iterable[bytes]) -> list[bytes]:
    """The identities that I keep and they do not, sorted."""
    return sorted(set(mine).difference(theirs))
