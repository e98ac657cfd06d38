"""A node's directory under a schema -> one under its successor, inside it.

The successor's observations are the node's own, encoded anew; what left under the parent is put into the new outbox
with the same members or not at all, and waits for approval there. The parent stays as it is, to be served until its
packets expire. Source: DESIGN section 4, "Schemas are immutable".
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.distill import Distilled, Observations, Withheld
from outroute.distill.aggregate import aggregate
from outroute.errors import StoreError
from outroute.identity import Identity
from outroute.node.budgeting import carry_budget, check_promise
from outroute.node.emitting import make_packets
from outroute.schema import (
    Distiller,
    Migration,
    ProblemKind,
    Schema,
    SchemaSignature,
    dumps,
    facet_index,
    load_signatures,
    recipe_of,
    require_signed,
    write_signatures,
)
from outroute.store import Journal, Kind, Observed, Outbox, State, Which
from outroute.store.keys import KEY_FILE, load_identity
from outroute.store.outgoing import APPROVED_STATES
from outroute.store.rounding import Rounding
from outroute.store.statements import CERTIFICATE_FILE, STATEMENTS_FILE
from outroute.store.succession import begin_successor, note_successor

__all__ = [
    "LANDMARKS_FILE",
    "SCHEMA_FILE",
    "SUCCESSOR",
    "Moved",
    "NotAgain",
    "check_agreed",
    "migrate",
    "successor_dir",
    "successors",
]

SUCCESSOR = "next"
"""Name of the successor's directory inside the parent's."""
SCHEMA_FILE, LANDMARKS_FILE = "schema.toml", "schema.landmarks"
_UNFINISHED = "next.part"
_AT_ONCE = 4096
"""Packets looked at together: 2 MB."""


@unique
class NotAgain(StrEnum):
    """Why a packet is not put into the successor's outbox; its observations wait for new ones to leave with."""

    LOST = "a member has no place in the successor"
    CHANGED = "a member changed after it left"
    FACETS = "its members differ in a facet of the successor"
    FLOOR = "too few subjects for the successor"
    BUDGET = "the promise of differential privacy counts what has left once"
    EXPIRED = "it would have expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What was carried over.

    Attributes:
        directory: of the successor.
        observations: carried over.
        lost: observations with a value outside a narrowed range: they stay with the parent only.
        missing: by field, in how many observations a category that is gone became missing.
        dropped, added: fields, see ``outroute.schema.Migration``.
        packets: packets with the same members, waiting for approval in the successor's outbox.
        not_again: why other packets in force are not, and how many.
    """

    directory: Path
    observations: int
    lost: int
    missing: Mapping[str, int]
    dropped: tuple[str, ...]
    added: tuple[str, ...]
    packets: int
    not_again: Mapping[NotAgain, int]


def successor_dir(data_dir: Path | str) -> Path | None:
    """The directory of a node's successor, when its observations were carried over; new ones belong there."""
    found = Path(data_dir) / SUCCESSOR
    return found if found.is_dir() else None


def successors(data_dir: Path | str) -> tuple[Path, ...]:
    """The successor's directory, its successor's, and so on: erasing and withdrawing concern all of them."""
    found = successor_dir(data_dir)
    return () if found is None else (found, *successors(found))


def check_agreed(schema: Schema, data_dir: Path | str | None, signatures: Iterable[SchemaSignature] = ()) -> None:
    """Refuse a schema that too few of the organisations it names have signed.

    Args:
        schema: about to be served.
        data_dir: its signatures may lie there, in ``schema.signatures``.
        signatures: further ones.

    Raises:
        SchemaError: ``schema.unsigned``.
    """
    if schema.quorum:
        kept = () if data_dir is None else load_signatures(Path(data_dir) / SCHEMA_FILE)
        require_signed(schema, (*kept, *signatures))


def migrate(
    data_dir: Path | str,
    old: Schema,
    new: Schema,
    *,
    now: int,
    signatures: Iterable[SchemaSignature] = (),
    identity: Identity | None = None,
    secret: bytes = b"",
    nonce: Callable[[], bytes] = lambda: secrets.token_bytes(32),
) -> Moved:
    """Carry a node's observations over to the successor of its schema, into ``data_dir/next``; all of it or nothing.

    Args:
        data_dir: of a node that is not running.
        old: its schema.
        new: the successor, which names ``old`` as its parent.
        now: seconds since 1970-01-01 UTC.
        signatures: of ``new``, where it names organisations.
        identity: the node's key; default the one in ``data_dir``, which the successor keeps.
        secret: the network's, for addresses.
        nonce: gives a fresh secret of 32 bytes for each commitment.

    Raises:
        SchemaError: ``schema.parent``, ``schema.outcome``, ``schema.unsigned``.
        PrivacyError: ``migrate.private``, the successor promises less than differential privacy, and ``old`` does.
        StoreError: ``migrate.done``, it has a successor already; ``migrate.pending``, packets wait for approval;
            ``migrate.write``, the directory cannot be written; or it is in use. Nothing is changed.
    """
    folder = Path(data_dir)
    migration = Migration(old=old, new=new)
    check_promise(old, new)
    signed = tuple(signatures)
    require_signed(new, signed)
    if successor_dir(folder) is not None:
        raise StoreError(
            f"'{folder}' has a successor already, in '{folder / SUCCESSOR}': give that one, to go on from there",
            code="migrate.done",
        )
    who = load_identity(folder, create=False) if identity is None else identity
    part = folder / _UNFINISHED
    with closing(Journal(folder, schema_id=old.id, width=old.width, now=now)) as parent:
        waiting = parent.outbox.counts()[State.PENDING]
        if waiting:
            raise StoreError(
                f"{waiting:,} packets wait for approval under '{old.name}': approve or reject them first (outroute "
                "outbox), so that nothing leaves twice",
                code="migrate.pending",
            )
        shutil.rmtree(part, ignore_errors=True)
        try:
            moved = _carry(parent, part, migration, who, now=now, secret=secret, nonce=nonce)
            _files(folder, part, new, signed)
            note_successor(parent, schema_id=new.id, now=now, observations=moved.observations)
            os.rename(part, folder / SUCCESSOR)
            _sync(folder)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(error, OSError):
                raise StoreError(
                    f"cannot write the successor into '{folder}': {error.strerror}; nothing was carried over, make "
                    "room or check permissions and run it again",
                    code="migrate.write",
                ) from error
            raise
    return moved


def _carry(
    parent: Journal,
    part: Path,
    migration: Migration,
    identity: Identity,
    *,
    now: int,
    secret: bytes,
    nonce: Callable[[], bytes],
) -> Moved:
    """The successor's journal: observations, and packets with the same members."""
    new = migration.new
    before = _everything(parent)
    changed = parent.conflicts()
    values = _newest(before, changed)
    coded = migration.codes(values.codes)
    outcome, no_outcome = migration.outcome(values.outcome)
    keep = np.ones(len(before.rows), dtype=np.bool_)
    keep[coded.lost] = False
    keep[no_outcome] = False
    kept = np.flatnonzero(keep)
    facet = facet_index(new, coded.codes[kept])
    bucket = migration.bucket(values.bucket[kept])
    journal = begin_successor(
        parent,
        part,
        parent_id=migration.old.id,
        schema_id=new.id,
        now=now,
        rows=before.rows[kept],
        codes=coded.codes[kept],
        outcome=outcome[kept],
        bucket=bucket,
        facet=facet,
        rounding=Rounding(
            last_row=int(before.rows.max(initial=0)),
            codes=migration.rounding(None if parent.rounding is None else parent.rounding.codes),
            before=max(migration.old.time.bucket_seconds, 0 if parent.rounding is None else parent.rounding.before),
            after=new.time.bucket_seconds,
        ),
    )
    carry_budget(parent, journal, migration, before)
    observations = Observations(
        codes=coded.codes[kept], outcome=outcome[kept], subject=values.subject[kept], bucket=bucket, facet=facet
    )
    whole = keep & ~np.isin(before.rows, changed.rows)
    with closing(journal):
        again, why = _cohorts(parent.outbox, new, before.packet, keep, whole, observations, now=now)
        for distiller, group in again.items():
            _emit(journal, new, observations, group, distiller, before.rows[kept], identity, secret, nonce, now)
        packets = journal.outbox.counts()[State.PENDING]
    gone = {p.field: len(p.rows) for p in coded.problems if p.kind is ProblemKind.UNKNOWN_CATEGORY}
    return Moved(
        directory=part.with_name(SUCCESSOR),
        observations=len(kept),
        lost=len(before.rows) - len(kept),
        missing=gone,
        dropped=migration.dropped,
        added=migration.added,
        packets=packets,
        not_again=why,
    )


def _everything(journal: Journal) -> Observed:
    """All observations, with and without an outcome, in order of arrival."""
    parts = [journal.observations(which) for which in (Which.KNOWN, Which.WAITING)]
    joined = {
        name: np.concatenate([getattr(one, name) for one in parts])
        for name in ("rows", "codes", "outcome", "subject", "bucket", "facet", "packet", "emitted")
    }
    order = np.argsort(joined["rows"], kind="stable")
    return Observed(**{name: array[order] for name, array in joined.items()})


def _newest(before: Observed, changed: Observed) -> Observed:
    """Observations with the values that came in after they had left."""
    at = np.searchsorted(before.rows, changed.rows)
    out = {name: getattr(before, name).copy() for name in ("codes", "outcome", "subject", "bucket")}
    for name, array in out.items():
        array[at] = getattr(changed, name)
    return Observed(rows=before.rows, facet=before.facet, packet=before.packet, emitted=before.emitted, **out)


def _cohorts(
    outbox: Outbox,
    new: Schema,
    packet: NDArray[np.int64],
    keep: NDArray[np.bool_],
    whole: NDArray[np.bool_],
    observations: Observations,
    *,
    now: int,
) -> tuple[dict[Distiller, NDArray[np.int64]], dict[NotAgain, int]]:
    """Which packets in force are emitted again, by distiller: the packet of each kept observation, -1 for none.

    Args:
        outbox: the parent's.
        new: the successor.
        packet: int64[n], the packet that each of the parent's observations is in, or -1.
        keep: bool[n], carried over.
        whole: bool[n], carried over and not changed since it left.
        observations: those kept, under the successor.
        now: seconds since 1970.

    Returns:
        The groups, and why others are not.
    """
    mine = packet[keep]
    again = {distiller: np.full(len(mine), -1, dtype=np.int64) for distiller in Distiller}
    why: Counter[NotAgain] = Counter()
    lost = set(packet[~keep & (packet >= 0)].tolist())
    changed = set(packet[~whole & (packet >= 0)].tolist())
    order = np.argsort(mine, kind="stable")
    ordered = mine[order]
    after = 0
    while True:
        page = outbox.page(*APPROVED_STATES, after=after, limit=_AT_ONCE, kind=Kind.PACKET)
        if not len(page):
            return again, dict(why)
        after = int(page.ids[-1])
        first = np.searchsorted(ordered, page.ids, side="left")
        last = np.searchsorted(ordered, page.ids, side="right")
        for i, number in enumerate(page.ids.tolist()):
            members = order[first[i] : last[i]]
            distiller = Distiller(int(page.packets["distiller"][i]))
            if Distiller.PRIVATE in (distiller, new.privacy.distiller):
                why[NotAgain.BUDGET] += 1
                continue
            if number in lost or len(members) != int(page.packets["size"][i]):
                reason: NotAgain | None = NotAgain.LOST
            elif number in changed:
                reason = NotAgain.CHANGED
            else:
                reason = _refused(new, observations, members, distiller, now)
            if reason is None:
                again[distiller][members] = number
            else:
                why[reason] += 1


def _refused(
    new: Schema, observations: Observations, members: NDArray[np.int64], distiller: Distiller, now: int
) -> NotAgain | None:
    """Why the successor cannot hold a packet of these observations, or ``None``."""
    if len(np.unique(observations.facet[members])) > 1:
        return NotAgain.FACETS
    alone = distiller is Distiller.SINGLE and new.privacy.distiller is not Distiller.SINGLE
    if alone or len(np.unique(observations.subject[members])) < new.privacy.k:
        return NotAgain.FLOOR
    end = int(observations.bucket[members].max()) + new.time.bucket_seconds + new.time.lifetime_seconds
    return NotAgain.EXPIRED if end <= now else None


def _emit(
    journal: Journal,
    new: Schema,
    observations: Observations,
    group: NDArray[np.int64],
    distiller: Distiller,
    rows: NDArray[np.int64],
    identity: Identity,
    secret: bytes,
    nonce: Callable[[], bytes],
    now: int,
) -> None:
    """Put packets with these members into the successor's outbox, where they wait for approval."""
    cohorts = aggregate(new, observations, group)
    if not len(cohorts):
        return
    nothing = Withheld(rows=np.empty(0, dtype=np.int64), reasons=np.empty(0, dtype=np.uint8))
    made = make_packets(
        new,
        observations,
        # k = 1 is what the distiller "single" asks for; a cohort was formed with 2 at least.
        Distilled(cohorts=cohorts, withheld=nothing, k=1 if distiller is Distiller.SINGLE else max(2, new.privacy.k)),
        identity=identity,
        first_sequence=journal.outbox.reserve(len(cohorts)),
        nonce=nonce,
        secret=secret,
    )
    members = [rows[of_packet] for of_packet in made.members]
    journal.outbox.add(made.packets, made.addresses, members, secrets=made.secrets, now=now)


def _files(folder: Path, part: Path, new: Schema, signatures: tuple[SchemaSignature, ...]) -> None:
    """Key, standing, schema and signatures of the successor."""
    learnt = recipe_of(new.fields, new.landmarks) is None
    files = {SCHEMA_FILE: dumps(new, landmarks_file=LANDMARKS_FILE if learnt else None).encode()}
    if learnt:
        files[LANDMARKS_FILE] = new.landmarks.to_bytes()
    if signatures:
        files[Path(SCHEMA_FILE).with_suffix(".signatures").name] = write_signatures(signatures).encode()
    for name in (KEY_FILE, CERTIFICATE_FILE, STATEMENTS_FILE):
        if (folder / name).exists():
            files[name] = (folder / name).read_bytes()
    for name, content in files.items():
        with os.fdopen(os.open(part / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    _sync(part)


def _sync(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
