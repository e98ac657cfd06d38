"""Withdrawals: which packets, signed with which key, here and where the observations were carried over to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError, StoreError
from outroute.identity import Identity, node_id
from outroute.node.migrating import SCHEMA_FILE, successors
from outroute.packet import PacketArray, identities, withdraw
from outroute.schema import Distiller, Schema, load
from outroute.store import Journal, Kind
from outroute.store.keys import former_identities
from outroute.store.outgoing import prefix_range

__all__ = ["Keys", "everywhere", "known_case", "noisy", "packet_numbers", "time_numbers", "whole_releases"]

T = TypeVar("T")


@dataclass(slots=True)
class Keys:
    """The keys that a node has or had: only the key that signed a packet withdraws it.

    Attributes:
        identity: the node's.
        directory: of the node, where its former keys lie; None in memory.
    """

    identity: Identity
    directory: Path | None
    _former: dict[bytes, Identity] = field(default_factory=dict, init=False, repr=False)

    def withdrawals(self, packets: PacketArray) -> PacketArray:
        """A signed withdrawal of each packet, in the same order.

        Raises:
            StoreError: ``node.key``, the key of one of them is not there.
        """
        out = packets.copy()
        authors = np.ascontiguousarray(packets["author"]).view("V32")[:, 0]
        for author in np.unique(authors):
            rows = authors == author
            out[rows] = withdraw(packets[rows], self._of(bytes(author)))
        return out

    def _of(self, author: bytes) -> Identity:
        if author == self.identity.public_key:
            return self.identity
        if author not in self._former and self.directory is not None:
            self._former = former_identities(self.directory)
        if author not in self._former:
            raise StoreError(
                f"a packet was signed with the key {author.hex()[:16]}, which this node had before and which is not in "
                f"'{self.directory}': put the old key file (*.old.key) back, only it can withdraw the packet",
                code="node.key",
            )
        return self._former[author]


def packet_numbers(journal: Journal, prefix: str, others: PacketArray) -> NDArray[np.int64]:
    """The number of the one packet of the outbox with this digest or identity, int64 ``[1]``.

    Args:
        journal: of the node.
        prefix: at least 12 hexadecimal digits of it.
        others: packets of others, to say whose it is when it is not this node's.

    Raises:
        DataError: ``withdraw.foreign``, another node's; ``withdraw.unknown``; ``withdraw.ambiguous``.
        StoreError: too few digits.
    """
    found = journal.outbox.find(prefix)
    own = found.ids[found.kinds == Kind.PACKET]
    if len(own) == 1:
        return np.asarray(own, dtype=np.int64)
    if len(own) > 1:
        raise DataError(f"{len(own)} packets begin with {prefix}: give more digits", code="withdraw.ambiguous")
    if len(found):
        raise DataError(
            f"{prefix} is a withdrawal, and stays: distil again what it set free", code="withdraw.withdrawal"
        )
    low, high = prefix_range(prefix)
    for identity, author in zip(identities(others), others["author"], strict=True):
        if low <= identity <= high:
            raise DataError(
                f"the packet {prefix[:16]} is by node {node_id(bytes(author)).hex()[:16]}: only its author can "
                "withdraw it; ask them",
                code="withdraw.foreign",
            )
    raise DataError(
        f"no packet of this node has a digest or identity that begins with {prefix}, and only its author can withdraw "
        "a packet: see outroute outbox show --state all",
        code="withdraw.unknown",
    )


def noisy(schema: Schema) -> bool:
    """Whether packets of a schema hold counts with noise, of which none may be taken back alone."""
    return schema.privacy.distiller is Distiller.PRIVATE


def time_numbers(journal: Journal, schema: Schema, since: int, until: int) -> NDArray[np.int64]:
    """Numbers of the packets of a time: with an observation of it, or, with noise, released in it.

    Which release holds an observation of some time must not be told by what is taken back.
    """
    first = schema.time.bucket(since)
    if not noisy(schema):
        return journal.time_packets(first, until)
    ranges = journal.budget.ranges()
    return np.asarray(ranges[(ranges[:, 2] >= first) & (ranges[:, 2] < until), 0], dtype=np.int64)


def whole_releases(journal: Journal, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """These packets, and with noise all that were released together with one of them."""
    found = [
        np.arange(first, first + packets)
        for first, packets, _ in journal.budget.ranges().tolist()
        if ((numbers >= first) & (numbers < first + packets)).any()
    ]
    return np.unique(np.concatenate([numbers, *found]))


def known_case(journal: Journal, case: object) -> bool:
    """Whether a case was ever observed here."""
    return bool(journal.dated([case], -1)[0] != -1)


def everywhere(
    journal: Journal,
    schema: Schema,
    directory: Path | None,
    keys: Keys,
    act: Callable[[Journal, Keys, Schema], T],
    *,
    now: int,
) -> tuple[T, tuple[tuple[Path, T], ...]]:
    """Do the same to a journal and to those of its schema's successors, which hold the same cases.

    All are opened before anything is changed, and the node's own comes last: what was interrupted is done by doing it
    again.

    Args:
        journal: the node's own.
        schema: the node's.
        directory: of the node; None in memory.
        keys: the node's.
        act: what to do.
        now: seconds since 1970-01-01 UTC.

    Returns:
        What it gave for the own journal, and for each successor.

    Raises:
        StoreError: a successor is in use by another process; nothing is done.
    """
    with ExitStack() as stack:
        others: list[tuple[Path, Journal, Schema]] = []
        for place in () if directory is None else successors(directory):
            later = load(place / SCHEMA_FILE)
            opened = stack.enter_context(closing(Journal(place, schema_id=later.id, width=later.width, now=now)))
            others.append((place, opened, later))
        done = tuple((path, act(opened, Keys(keys.identity, path), later)) for path, opened, later in others)
        return act(journal, keys, schema), done
