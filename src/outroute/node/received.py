"""Packets that came another way than over the transport, for example in a file."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.fingerprint import address
from outroute.packet import PACKET_DTYPE, PacketArray, expiry
from outroute.schema import Schema
from outroute.store import PacketStore
from outroute.transports.replicas import in_force

__all__ = ["RECEIVED_DIRECTORY", "Received"]

RECEIVED_DIRECTORY = "received"
"""Where they are kept, inside a node's directory."""


class Received:
    """Keeps accepted packets, on disk where the node does; opened when first needed. Safe for threads.

    They are filed by cell alone, without facets: a withdrawal names its cell but has no conditions that would name
    its facets.

    Args:
        schema: the schema.
        data_dir: the node's directory, or None for memory only.
    """

    def __init__(self, schema: Schema, data_dir: Path | str | None) -> None:
        self._schema = schema
        self._directory = None if data_dir is None else Path(data_dir) / RECEIVED_DIRECTORY
        self._store: PacketStore | None = None
        self._packets: PacketArray | None = None
        self._places: dict[int, bytes] = {}
        self._lock = threading.RLock()

    def add(self, packets: PacketArray, now: int) -> NDArray[np.uint8]:
        """Keep accepted packets, in one durable commit; an ``outroute.placement.Kept`` each."""
        with self._lock:
            if self._store is None:
                self._store = PacketStore(self._directory)
            self._packets = None
            return self._store.put(
                [self._place(cell) for cell in packets["cell"].tolist()],
                packets,
                bucket_seconds=self._schema.time.bucket_seconds,
                now=now,
            )

    def _place(self, cell: int) -> bytes:
        if cell not in self._places:
            self._places[cell] = address(self._schema, 0, cell)
        return self._places[cell]

    def everything(self, now: int) -> PacketArray:
        """All that is kept, withdrawals and proofs of equivocation among it; some may have expired since."""
        with self._lock:
            if self._packets is None:
                if self._store is None and self._directory is not None and self._directory.exists():
                    self._store = PacketStore(self._directory)
                    self._store.sweep(now)
                parts = [np.empty(0, dtype=PACKET_DTYPE)]
                if self._store is not None:
                    for place in self._store.addresses():
                        identities = self._store.entries(place, now=now).identities
                        parts.append(self._store.read(place, identities, now=now))
                self._packets = np.concatenate(parts)
            return self._packets

    def in_force(self, now: int) -> PacketArray:
        """What counts: not expired, not withdrawn, no two in one slot."""
        packets = in_force(self.everything(now))
        return packets[expiry(self._schema, packets) > now]

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        if self._store is not None:
            self._store.close()
