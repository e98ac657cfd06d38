"""Which members keep an address: the nearest by XOR, of different organisations where there are so many.

Member ids and addresses share one space of 256 bits, written as 32 bytes with the most significant byte
first. The distance of two points is their bitwise exclusive or, read as an integer: the metric of Kademlia.

Source: Maymounkov and Mazieres, "Kademlia: A Peer-to-peer Information System Based on the XOR Metric",
section 2.1. Departure: no routing table and no lookup here, the caller knows the live members; and holders
are chosen over organisations, not over nodes, because node keys are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.errors import OutrouteError

__all__ = ["DEFAULT_REPLICAS", "ID_BYTES", "Member", "Members", "majority", "points", "vouched"]

#: Bytes of an id or an address: both are SHA-256 sized, so that they share one space.
ID_BYTES = 32

#: Copies of a packet: three survive the loss of any one holder with a majority left that agrees.
DEFAULT_REPLICAS = 3

#: Distances held at a time (entries): 2**22 of 8 bytes are 32 MiB, whatever the number of members.
_BLOCK = 1 << 22

#: Candidates looked at first, per replica wanted; doubled until enough organisations are among them.
_CANDIDATES_PER_REPLICA = 4

#: Addresses whose owners are remembered: at some 200 bytes each about 13 MB.
_OWNERS_REMEMBERED = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A live member of the network, as placement sees it.

    Attributes:
        id: 32 bytes, the hash of its public key.
        organisation: the key that certifies it; its own id when it belongs to nobody.
    """

    id: bytes
    organisation: bytes

    def __post_init__(self) -> None:
        if len(self.id) != ID_BYTES:
            raise OutrouteError(
                f"a member id has {ID_BYTES} bytes, not {len(self.id)}: pass the hash of its public key",
                code="placement.id",
            )


def majority(replicas: int) -> int:
    """The least number of holders out of ``replicas`` that must keep a packet before it is acknowledged."""
    return replicas // 2 + 1


def vouched(members: Members, replicas: int = DEFAULT_REPLICAS) -> Members:
    """The members that keep packets where a network names organisations: those that one of them certifies.

    Node keys are free, so whoever makes enough of them would own any cell. Those that nobody certifies (their
    organisation is their own id) keep packets only where too few are certified to keep ``replicas`` copies.
    """
    good = [one for one in members.members if one.organisation != one.id]
    return members if len(good) in (len(members), *range(replicas)) else Members(good)


def points(values: Sequence[bytes] | NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Addresses or ids as numbers.

    Args:
        values: n strings of 32 bytes, or uint8[n, 32].

    Returns:
        uint64[n, 4], most significant word first.

    Raises:
        OutrouteError: a value does not have 32 bytes (``placement.id``).
    """
    if isinstance(values, np.ndarray):
        raw = np.ascontiguousarray(values, dtype=np.uint8)
        if raw.ndim != 2 or raw.shape[1] != ID_BYTES:
            raise OutrouteError(f"addresses come as uint8[n, {ID_BYTES}], not {raw.shape}", code="placement.id")
    else:
        for value in values:
            if len(value) != ID_BYTES:
                raise OutrouteError(f"an address has {ID_BYTES} bytes, not {len(value)}", code="placement.id")
        raw = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(-1, ID_BYTES)
    return raw.view(">u8").astype(np.uint64)


class Members:
    """The live members at one moment: an immutable set, in order of their ids.

    The same set of members gives the same owners, whatever the order in which it is given.

    Args:
        members: each id once.

    Raises:
        OutrouteError: an id is there twice (``placement.duplicate``).
    """

    __slots__ = ("_known", "_organisations", "_points", "members")

    def __init__(self, members: Sequence[Member]) -> None:
        self.members: tuple[Member, ...] = tuple(sorted(members, key=lambda member: member.id))
        for one, other in zip(self.members, self.members[1:], strict=False):
            if one.id == other.id:
                raise OutrouteError(
                    f"member {one.id.hex()[:16]} is there twice: keep its newest announcement only",
                    code="placement.duplicate",
                )
        numbers: dict[bytes, int] = {}
        self._organisations = np.array(
            [numbers.setdefault(member.organisation, len(numbers)) for member in self.members],
            dtype=np.int64,
        )
        self._points = points([member.id for member in self.members])
        self._known: dict[tuple[bytes, int], tuple[bytes, ...]] = {}

    def __len__(self) -> int:
        return len(self.members)

    def owners(
        self, addresses: Sequence[bytes] | NDArray[np.uint8], replicas: int = DEFAULT_REPLICAS
    ) -> NDArray[np.int64]:
        """The owners of each address, nearest first.

        Taken are the nearest member of each organisation, until there are ``replicas`` of them; where fewer
        organisations live, the nearest members left over fill up. So losing any one organisation loses one
        copy, as long as there are ``replicas`` organisations.

        Args:
            addresses: m addresses, as strings of 32 bytes or uint8[m, 32].
            replicas: how many owners, at least 1.

        Returns:
            int64[m, min(replicas, number of members)]: indices into ``members``, by rising distance.

        Raises:
            OutrouteError: ``replicas`` is below 1 (``placement.replicas``), or an address is malformed.
        """
        if replicas < 1:
            raise OutrouteError("at least one owner is needed: set replicas to 1 or more", code="placement.replicas")
        keys = points(addresses)
        wanted = min(replicas, len(self))
        chosen = np.empty((len(keys), wanted), dtype=np.int64)
        if wanted == 0:
            return chosen
        step = max(1, _BLOCK // len(self))
        for start in range(0, len(keys), step):
            block = keys[start : start + step]
            first = self._points[None, :, 0] ^ block[:, None, 0]
            for row, distances in enumerate(first):
                chosen[start + row] = self._nearest(block[row], distances, wanted)
        return chosen

    def owner_ids(self, addresses: Sequence[bytes], replicas: int = DEFAULT_REPLICAS) -> list[tuple[bytes, ...]]:
        """The ids of the owners of each address, nearest first; remembered, as the members never change."""
        known = self._known
        new = [address for address in dict.fromkeys(addresses) if (address, replicas) not in known]
        if len(known) + len(new) > _OWNERS_REMEMBERED:
            known.clear()
            new = list(dict.fromkeys(addresses))
        for address, row in zip(new, self.owners(new, replicas).tolist(), strict=True):
            known[address, replicas] = tuple(self.members[i].id for i in row)
        return [known[address, replicas] for address in addresses]

    def _nearest(self, key: NDArray[np.uint64], first: NDArray[np.uint64], wanted: int) -> NDArray[np.int64]:
        """The owners of one address; ``first`` is the leading word of every member's distance."""
        total = len(self)
        count = min(total, max(wanted * _CANDIDATES_PER_REPLICA, 8))
        while True:
            if count < total:
                near = np.argpartition(first, count - 1)[:count]
                edge = int(first[near].max())
            else:
                near, edge = np.arange(total), -1
            distance = self._points[near] ^ key
            order = np.lexsort((distance[:, 3], distance[:, 2], distance[:, 1], distance[:, 0]))
            near = near[order]
            _, leaders = np.unique(self._organisations[near], return_index=True)
            leaders = np.sort(leaders)[:wanted]
            # Enough organisations, and none of the members left out can tie with the last one taken.
            if len(leaders) == wanted and (edge < 0 or int(first[near[leaders[-1]]]) < edge):
                return np.asarray(near[leaders], dtype=np.int64)
            if count == total:
                rest = np.setdiff1d(np.arange(total), leaders)[: wanted - len(leaders)]
                return np.asarray(near[np.sort(np.concatenate([leaders, rest]))], dtype=np.int64)
            count = min(total, count * 4)
