"""What is approved leaves: to the holders of its addresses, or as a file."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.errors import StoreError, TransportError
from outroute.node.portal import run
from outroute.node.reports import HandedOver, Published
from outroute.packet import expiry
from outroute.schema import Schema
from outroute.store import AuditLog, Event, Journal, Kind, Queued, State
from outroute.store.outgoing import APPROVED_STATES, operator_text
from outroute.transports import ADDRESS_REFUSED, SCHEMA_REFUSED, Deposited, Holder, Receipt

__all__ = ["Sent", "hand_over", "publish"]

PUBLISH_AT_ONCE = 4096
"""Packets handed to the transport at a time: 2 MB."""
ALL = 2**62
_ENTRIES = 1000
"""Entries of the log read at a time, at most 17 kB each."""


Causes = Callable[[Sequence[int]], Sequence[bytes]]
"""Numbers of the outbox -> cause ids of 16 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of what was handed to the transport.

    Attributes:
        published: the counts.
        doubled: int64[n], own packets whose slot has another packet of this node at a holder.
        gone: how many packets a holder refused because their slot was withdrawn, and not by this directory.
    """

    published: Published
    doubled: NDArray[np.int64]
    gone: int


def publish(
    journal: Journal,
    holder: Holder,
    schema: Schema,
    *,
    own: bytes,
    again: NDArray[np.int64],
    now: int,
    cause_of: Causes | None = None,
) -> Sent:
    """Hand over what is approved, withdrawals first.

    Args:
        journal: its outbox is handed over.
        holder: the transport.
        schema: of the packets.
        own: the node's id, which is no recipient.
        again: numbers of acknowledged packets and withdrawals to hand over again; those withdrawn since are left out.
        now: seconds since 1970-01-01 UTC.
        cause_of: cause ids for numbers of the outbox, for logs; default none.

    Raises:
        TransportError: see ``Node.publish``.
    """
    outbox = journal.outbox
    repeated = outbox.get(again)
    repeated = repeated.where(repeated.states == State.ACKNOWLEDGED)
    durable = holder.capabilities.durable
    sent = acknowledged = refused = withdrawals = gone = 0
    doubled: list[NDArray[np.int64]] = []
    for whole in (outbox.queued(limit=ALL), repeated):
        for part, cause in _parts(whole.ids, cause_of):
            ids, packet = whole.ids[part], whole.kinds[part] == Kind.PACKET
            done = run(holder.deposit(schema.id, whole.addresses[part], whole.packets[part], cause=cause))
            kept = done.acknowledged if durable else done.replicated
            foreign = np.isin(done.reasons, (SCHEMA_REFUSED, ADDRESS_REFUSED)) & (done.receipts == Receipt.REJECTED)
            strange = (foreign.sum(axis=1) >= done.needed) & ~kept
            final = done.refused & ~kept & ~strange
            for state, rows in ((State.ACKNOWLEDGED, kept), (State.REFUSED, final), (State.SENT, ~kept & ~final)):
                _mark(journal, ids, rows, state, done, own=own, now=now)
            if strange.any():
                raise TransportError(
                    f"the holders refuse {int(strange.sum()):,} packets as belonging to another schema or network "
                    "secret: compare both with the network's; the packets stay in the outbox",
                    code="transport.schema",
                )
            doubled.append(ids[done.any(Receipt.EQUIVOCATION) & packet])
            gone += int((done.any(Receipt.WITHDRAWN) & packet).sum())
            sent, withdrawals = sent + len(ids), withdrawals + int((~packet).sum())
            acknowledged, refused = acknowledged + int(kept.sum()), refused + int(final.sum())
    published = Published(
        sent=sent,
        acknowledged=acknowledged,
        refused=refused,
        pending=sent - acknowledged - refused,
        withdrawals=withdrawals,
    )
    return Sent(published=published, doubled=np.concatenate([np.empty(0, dtype=np.int64), *doubled]), gone=gone)


def _parts(ids: NDArray[np.int64], cause_of: Causes | None) -> Iterator[tuple[slice, bytes]]:
    """Rows that are handed to the transport together: neighbours with the same cause."""
    causes = [bytes(16)] * len(ids) if cause_of is None else cause_of(ids.tolist())
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or at - start == PUBLISH_AT_ONCE or causes[at] != causes[start]:
            yield slice(start, at), causes[start]
            start = at


def _mark(
    journal: Journal,
    ids: NDArray[np.int64],
    rows: NDArray[np.bool_],
    state: State,
    done: Deposited,
    *,
    own: bytes,
    now: int,
) -> None:
    """Note how far rows have come; what went to the same members stands in one entry of the log."""
    groups: dict[tuple[bytes, ...], list[int]] = defaultdict(list)
    for row in np.flatnonzero(rows).tolist():
        members = done.holders[row] if done.holders else ()
        groups[tuple(sorted(member for member in members if member != own))].append(row)
    with journal.together():
        for members, chosen in sorted(groups.items()):
            journal.outbox.mark(ids[chosen], state, now=now, recipients=members)


def hand_over(
    journal: Journal, schema: Schema, path: Path | str | None, *, to: str, again: bool, now: int
) -> HandedOver:
    """Give what is approved as bytes; see ``Node.hand_over``.

    Raises:
        StoreError: ``outbox.text``, ``to`` is empty or too long; ``file.write``, the file cannot be written. Then
            nothing counts as handed over.
    """
    recipient = f"file: {operator_text(to, 'who gets the packets')}"
    queued = journal.outbox.queued(*(APPROVED_STATES if again else (State.QUEUED,)), limit=ALL)
    late = expiry(schema, queued.packets) <= now
    journal.outbox.mark(queued.ids[late & (queued.states == State.QUEUED)], State.REFUSED, now=now)
    rows = [queued.where(~late)]
    if not again:
        owed = _owed(journal, recipient)
        rows.insert(0, owed.where(expiry(schema, owed.packets) > now))
    content = b"".join(part.packets.tobytes() for part in rows)
    kinds = np.concatenate([part.kinds for part in rows])
    ids = np.concatenate([part.ids for part in rows])
    part_file = None if path is None or not content else _written(Path(path), content)
    if len(ids):
        journal.outbox.mark(ids, State.SENT, now=now, recipients=(recipient,))
    if part_file is not None and path is not None:
        _renamed(part_file, Path(path))
    return HandedOver(
        packets=int((kinds == Kind.PACKET).sum()), withdrawals=int((kinds == Kind.WITHDRAWAL).sum()), content=content
    )


def _owed(journal: Journal, recipient: str) -> Queued:
    """Withdrawals that went elsewhere already, of packets that this recipient has."""
    sent = journal.outbox.queued(State.SENT, State.ACKNOWLEDGED, State.REFUSED, limit=ALL)
    back = sent.where(sent.kinds == Kind.WITHDRAWAL)
    if not len(back):
        return back
    has = _handed_over(journal.log, recipient)
    originals = journal.outbox.get(back.withdraws)
    names = dict(zip(originals.ids.tolist(), originals.identities, strict=True))
    owed = [
        names[number].hex() in has and own.hex() not in has
        for number, own in zip(back.withdraws.tolist(), back.identities, strict=True)
    ]
    return back.where(np.array(owed, dtype=np.bool_))


def _handed_over(log: AuditLog, recipient: str) -> set[str]:
    """Identities, in hex, of everything that a recipient was given, by the log."""
    found: set[str] = set()
    after = 0
    while entries := log.entries(after=after, limit=_ENTRIES):
        after = entries[-1].number
        for entry in entries:
            if entry.kind == Event.SENT and recipient in entry.fields.get("recipients", ()):
                found.update(entry.fields["identities"])
    return found


def _written(path: Path, content: bytes) -> Path:
    """Write beside the place, so that what is noted as handed over is on the disk, and a crash leaves no half file."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write '{path}': {error.strerror}; nothing was handed over", code="file.write"
        ) from None
    return part


def _renamed(part: Path, path: Path) -> None:
    try:
        os.replace(part, path)
    except OSError as error:
        raise StoreError(
            f"cannot write '{path}': {error.strerror}; what was to be in it is in '{part}'", code="file.write"
        ) from None
