"""What a node checks before it keeps or believes a packet: once, with the results remembered.

A signature takes some 40 microseconds, which makes checking the ceiling of a node. So what was found is remembered by
the hash of all 512 bytes (not by identity, which leaves the signature out). Of what was found right once only the rules
that depend on the clock, on the place or on what is known about keys run again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from outroute.fingerprint import address
from outroute.identity import Register
from outroute.packet import (
    PACKET_BYTES,
    Flag,
    PacketArray,
    Rejection,
    check_derived,
    check_structure,
    expiry,
    verify_signatures,
)
from outroute.packet.layout import FUTURE_SECONDS
from outroute.schema import Schema, facet_index
from outroute.transports.contract import ADDRESS_REFUSED, AUTHOR_COMPROMISED, AUTHOR_REVOKED, SCHEMA_REFUSED

__all__ = ["CHECKED_CACHED", "Guard", "Use"]

#: Packets whose check is remembered: at some 120 bytes each about 30 MB.
CHECKED_CACHED = 262_144

_NEVER = -1
"""In place of a reason: never checked."""


class Use(Enum):
    """What packets are checked for: of a revoked author, what is kept stays and what is new is refused."""

    #: They answer a question.
    ANSWER = "answer"
    #: They are brought by their author, or on its behalf.
    DEPOSIT = "deposit"
    #: Another holder has kept them and passes them on.
    REPAIR = "repair"


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
        """Packets refused so far, by reason: a ``Rejection`` or one of the reasons of ``outroute.transports``."""
        self.register: Register | None = None
        """What is known about keys; see ``under``."""
        self._verified: Counter[str] = Counter()
        self._secret = secret
        self._verify = verify
        self._cached = cached
        self._checked: dict[bytes, int] = {}
        self._addresses: dict[tuple[bytes, int, int], bytes] = {}

    @property
    def verified(self) -> int:
        """Signatures checked so far."""
        return self._verified["signatures"]

    def under(self, register: Register) -> Guard:
        """The same guard, its memory and its counts shared, judging authors by what one member knows about keys."""
        own = copy(self)
        own.register = register
        return own

    def check(
        self,
        schema_id: bytes,
        addresses: Sequence[bytes],
        packets: PacketArray,
        *,
        now: int,
        use: Use = Use.ANSWER,
    ) -> NDArray[np.uint8]:
        """Why each packet is refused, uint8[n]; 0 where it is accepted.

        Args:
            schema_id: the schema that they are said to belong to.
            addresses: the address under which each one came.
            packets: PACKET_DTYPE[n].
            now: seconds since 1970.
            use: what they are checked for.
        """
        schema = self.schemas.get(schema_id)
        if schema is None:
            self.refused[SCHEMA_REFUSED] += len(packets)
            return np.full(len(packets), SCHEMA_REFUSED, dtype=np.uint8)
        keys = _hashes(packets)
        known = [self._checked.get(key, _NEVER) for key in keys]
        if not any(known) and (packets["schema"] == np.frombuffer(schema_id, dtype=np.uint8)).all():
            reasons = _timely(packets, schema, now)
        else:
            reasons = check_structure(packets, schema, now)
            left = np.flatnonzero(reasons == Rejection.NONE)
            rows = left.tolist()
            reasons[left] = self._remembered(
                _some(packets, left), [keys[i] for i in rows], [known[i] for i in rows], schema
            )
        left = np.flatnonzero(reasons == Rejection.NONE)
        reasons[left[~self._belong(schema, [addresses[i] for i in left.tolist()], _some(packets, left))]] = (
            ADDRESS_REFUSED
        )
        if self.register is not None and self.register.any_revoked:
            left = np.flatnonzero(reasons == Rejection.NONE)
            reasons[left] = self._authors(_some(packets, left), now, use)
        if reasons.any():
            for reason, number in zip(*np.unique(reasons[reasons != 0], return_counts=True), strict=True):
                self.refused[int(reason)] += int(number)
        return reasons

    def compromised(self, packets: PacketArray, now: int) -> NDArray[np.bool_]:
        """Which packets nobody believes any more, as others may have their author's key: bool[n]."""
        return np.asarray(self._authors(packets, now, Use.ANSWER) == AUTHOR_COMPROMISED, dtype=np.bool_)

    def _authors(self, packets: PacketArray, now: int, use: Use) -> NDArray[np.uint8]:
        """Why the author of each packet is not believed, uint8[n]; withdrawals are taken from everybody."""
        reasons = np.zeros(len(packets), dtype=np.uint8)
        register = self.register
        if register is None or not register.any_revoked:
            return reasons
        brings = packets["flags"] & np.uint16(Flag.WITHDRAWAL) == 0
        authors, which = np.unique(packets["author"], axis=0, return_inverse=True)
        which = which.reshape(-1)
        for number, author in enumerate(authors):
            why = register.revocations_of(author.tobytes(), now)
            if not why:
                continue
            own = brings & (which == number)
            if any(one.compromised for one in why):
                reasons[own] = AUTHOR_COMPROMISED
            elif use is Use.DEPOSIT:
                reasons[own] = AUTHOR_REVOKED
            elif use is Use.REPAIR:
                reasons[own & (packets["bucket"] > why[0].at)] = AUTHOR_REVOKED
        return reasons

    def _remembered(
        self, packets: PacketArray, keys: Sequence[bytes], known: Sequence[int], schema: Schema
    ) -> NDArray[np.uint8]:
        """The rules that do not depend on the clock, each packet once."""
        reasons = np.array(known, dtype=np.int16).astype(np.uint8)
        new = np.array([i for i, reason in enumerate(known) if reason == _NEVER], dtype=np.intp)
        if len(new):
            fresh = _some(packets, new)
            found = check_derived(fresh, schema)
            signed = np.flatnonzero(found == Rejection.NONE)
            found[signed[~self._verify(_some(fresh, signed))]] = Rejection.SIGNATURE
            self._verified["signatures"] += len(signed)
            reasons[new] = found
            if len(self._checked) + len(new) > self._cached:
                for key in list(self._checked)[: self._cached // 4 + len(new)]:  # the oldest quarter
                    self._checked.pop(key, None)  # another thread may have been here
            self._checked.update(zip((keys[i] for i in new.tolist()), found.tolist(), strict=True))
        return reasons

    def address_of(self, schema_id: bytes, facet: int, cell: int) -> bytes:
        """The address of a cell of a schema that is served, 32 bytes."""
        return self._address(self.schemas[schema_id], facet, cell)

    def addresses(self, schema_id: bytes, packets: PacketArray) -> list[bytes]:
        """Where packets of a schema that is served belong, by what they say themselves.

        A withdrawal of a schema with facets does not say it; it gets the address of the first combination.
        """
        schema = self.schemas[schema_id]
        facets = facet_index(schema, packets["conditions"][:, : schema.width]).tolist()
        return [self._address(schema, *one) for one in zip(facets, packets["cell"].tolist(), strict=True)]

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


def _hashes(packets: PacketArray) -> list[bytes]:
    """SHA-256 of all bytes of each packet."""
    raw = np.ascontiguousarray(packets).view(np.uint8).tobytes()
    sha = hashlib.sha256
    return [sha(raw[at : at + PACKET_BYTES]).digest() for at in range(0, len(raw), PACKET_BYTES)]


def _some(packets: PacketArray, rows: NDArray[np.intp]) -> PacketArray:
    """Some rows, in order; nothing is copied when it is all of them."""
    return packets if len(rows) == len(packets) else packets[rows]


def _timely(packets: PacketArray, schema: Schema, now: int) -> NDArray[np.uint8]:
    """What can have become of packets that were right when they were checked, uint8[n]."""
    reasons = np.zeros(len(packets), dtype=np.uint8)
    reasons[packets["bucket"] > now + FUTURE_SECONDS] = Rejection.FUTURE  # the clock was set back
    reasons[expiry(schema, packets) <= now] = Rejection.EXPIRED
    return reasons
