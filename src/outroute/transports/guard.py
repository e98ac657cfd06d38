"""What a node checks before it keeps or believes a packet: once, with the results remembered.

A signature takes some 40 microseconds, which makes checking the ceiling of a node. So the cheap rules run
on every packet every time (they depend on the clock), and what needs the conditions or the signature is
remembered by the hash of all 512 bytes (not by identity, which leaves the signature out).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from outroute.fingerprint import address
from outroute.packet import (
    PACKET_BYTES,
    Flag,
    PacketArray,
    Rejection,
    check_derived,
    check_structure,
    verify_signatures,
)
from outroute.schema import Schema, facet_index
from outroute.transports.contract import ADDRESS_REFUSED, SCHEMA_REFUSED

__all__ = ["CHECKED_CACHED", "Guard"]

#: Packets whose check is remembered: at some 120 bytes each about 30 MB.
CHECKED_CACHED = 262_144


class Guard:
    """Checks packets of the schemas that a node serves.

    Args:
        schemas: which ones.
        secret: the network's secret, for addresses; empty in an open network.
        verify: checks signatures; replace it to use several threads.
        cached: checks remembered.
    """

    def __init__(
        self,
        schemas: Iterable[Schema],
        *,
        secret: bytes = b"",
        verify: Callable[[PacketArray], NDArray[np.bool_]] = verify_signatures,
        cached: int = CHECKED_CACHED,
    ) -> None:
        self.schemas = {schema.id: schema for schema in schemas}
        self.refused: Counter[int] = Counter()
        """Packets refused so far, by reason: a ``Rejection``, ADDRESS_REFUSED or SCHEMA_REFUSED."""
        self.verified = 0
        """Signatures checked so far."""
        self._secret = secret
        self._verify = verify
        self._cached = cached
        self._checked: dict[bytes, int] = {}
        self._addresses: dict[tuple[bytes, int, int], bytes] = {}

    def check(
        self, schema_id: bytes, addresses: Sequence[bytes], packets: PacketArray, *, now: int
    ) -> NDArray[np.uint8]:
        """Why each packet is refused, uint8[n]; 0 where it is accepted.

        Args:
            schema_id: the schema that they are said to belong to.
            addresses: the address under which each one came.
            packets: PACKET_DTYPE[n].
            now: seconds since 1970.
        """
        schema = self.schemas.get(schema_id)
        if schema is None:
            self.refused[SCHEMA_REFUSED] += len(packets)
            return np.full(len(packets), SCHEMA_REFUSED, dtype=np.uint8)
        reasons = check_structure(packets, schema, now)
        left = np.flatnonzero(reasons == Rejection.NONE)
        if len(left):
            reasons[left] = self._remembered(packets[left], schema)
            left = left[reasons[left] == Rejection.NONE]
            reasons[left[~self._belong(schema, [addresses[i] for i in left], packets[left])]] = ADDRESS_REFUSED
        for reason, number in zip(*np.unique(reasons[reasons != 0], return_counts=True), strict=True):
            self.refused[int(reason)] += int(number)
        return reasons

    def _remembered(self, packets: PacketArray, schema: Schema) -> NDArray[np.uint8]:
        """The rules that do not depend on the clock, each packet once."""
        raw = np.ascontiguousarray(packets).view(np.uint8).tobytes()
        sha = hashlib.sha256
        keys = [sha(raw[at : at + PACKET_BYTES]).digest() for at in range(0, len(raw), PACKET_BYTES)]
        known = [self._checked.get(key, -1) for key in keys]
        new = np.array([i for i, reason in enumerate(known) if reason < 0], dtype=np.intp)
        reasons = np.array(known, dtype=np.int16).astype(np.uint8)
        if len(new):
            found = check_derived(packets[new], schema)
            signed = np.flatnonzero(found == Rejection.NONE)
            found[signed[~self._verify(packets[new[signed]])]] = Rejection.SIGNATURE
            self.verified += len(signed)
            reasons[new] = found
            if len(self._checked) + len(new) > self._cached:
                for key in list(self._checked)[: self._cached // 4 + len(new)]:  # the oldest quarter
                    del self._checked[key]
            self._checked.update(zip((keys[i] for i in new.tolist()), found.tolist(), strict=True))
        return reasons

    def _belong(self, schema: Schema, addresses: Sequence[bytes], packets: PacketArray) -> NDArray[np.bool_]:
        """Whether each packet belongs to its address.

        A withdrawal has no conditions left that would name its facets; under a schema with facets it is
        believed, and at a wrong address it withdraws nothing.
        """
        facets = facet_index(schema, packets["conditions"][:, : schema.width]).tolist()
        cells = packets["cell"].tolist()
        free = (packets["flags"] & np.uint16(Flag.WITHDRAWAL) != 0) & bool(schema.facets)
        found = np.array(
            [
                self._address(schema, facet, cell) == own
                for facet, cell, own in zip(facets, cells, addresses, strict=True)
            ],
            dtype=np.bool_,
        )
        return np.asarray(found | free, dtype=np.bool_)

    def _address(self, schema: Schema, facet: int, cell: int) -> bytes:
        key = (schema.id, facet, cell)
        found = self._addresses.get(key)
        if found is None:
            if len(self._addresses) >= CHECKED_CACHED:
                self._addresses.clear()
            found = self._addresses[key] = address(schema, facet, cell, self._secret)
        return found
