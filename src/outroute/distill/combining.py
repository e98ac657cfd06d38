"""Two synthesizers' sums -> packets of the pair, with what the schema asks of cohorts: dissent, noise, lots."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill.blurring import blurred
from outroute.distill.cohort import default_window
from outroute.distill.model import Cohorts
from outroute.distill.opening import Sum, Sums
from outroute.distill.shares import Spoilt, Total, total
from outroute.errors import DataError
from outroute.identity import Identity
from outroute.packet import PACKET_DTYPE, PacketArray, build, sign
from outroute.schema import MISSING, Distiller, facet_index

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["Combined", "combine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """What two sums make.

    Attributes:
        packets: signed by the pair's common key, as any packet.
        spoilt: per cohort whose sum no honest sites can have: its lowest cell, and why. It is in no packet.
        agreeing: cohorts with too little dissent that found no other to join; they are in no packet.
    """

    packets: PacketArray
    spoilt: tuple[tuple[int, Spoilt], ...]
    agreeing: int


@dataclass(slots=True)
class _Cohort:
    """A cohort while others join it."""

    place: tuple[int, int]
    bucket: int
    members: int
    sums: NDArray[np.uint64]
    total: Total


def combine(schema: Schema, one: Sums, two: Sums, identity: Identity) -> Combined:
    """Make the packets of two sums; either synthesizer makes the same ones.

    Cohorts with too little dissent join the nearest one of their facet and time window. Noise is drawn from a secret of
    the pair, so that it is the same for both and nobody else can take it away.

    Args:
        schema: the schema.
        one, two: of both synthesizers, over the same contributions.
        identity: of one of them.

    Raises:
        DataError: they do not belong together, or to this key.
    """
    if (one.by, one.other) != (two.other, two.by) or identity.public_key not in (one.by, two.by):
        raise DataError(
            "these are not the sums of both synthesizers of one pair, or this node is none of them", code="shares.pair"
        )
    same = (one.k, one.digest, [_described(s) for s in one.sums])
    if same != (two.k, two.digest, [_described(s) for s in two.sums]):
        raise DataError(
            "the two synthesizers did not add up the same contributions: both must use the newest roll of the other. "
            "What was added is spent and cannot be added again",
            code="shares.differ",
        )
    window = default_window(schema)
    found: list[_Cohort] = []
    spoilt: list[tuple[int, Spoilt]] = []
    for mine, theirs in zip(one.sums, two.sums, strict=True):
        sums = mine.share + theirs.share
        opened = total(schema, mine.members, sums)
        if isinstance(opened, Total) and facet_index(schema, opened.codes[None])[0] != mine.facet:
            # Somebody says another facet under the seal than outside. It must not be joined with those that are right.
            opened = Spoilt.CONDITIONS
        if isinstance(opened, Spoilt):
            spoilt.append((mine.cell, opened))
        else:
            place = (mine.facet, mine.bucket // window)
            found.append(_Cohort(place=place, bucket=mine.bucket, members=mine.members, sums=sums, total=opened))
    kept, agreeing = _with_dissent(schema, found)
    other = two.by if identity.public_key == one.by else one.by
    packets = _packets(schema, kept, identity.paired(other, schema.id), one.digest)
    return Combined(packets=packets, spoilt=tuple(spoilt), agreeing=agreeing)


def _described(one: Sum) -> tuple[int, ...]:
    return (one.facet, one.cell, one.bucket, one.members, one.sites)


def _poor(schema: Schema, cohort: _Cohort) -> bool:
    """Whether it has too little dissent; of numbers, sums tell only whether all are equal."""
    counts = cohort.total.counts
    if counts is None:
        return schema.privacy.dissent > 0 and cohort.total.variance == 0.0
    return cohort.members - int(counts.max()) < schema.privacy.dissent


def _with_dissent(schema: Schema, found: list[_Cohort]) -> tuple[list[_Cohort], int]:
    """Join cohorts until none has too little; those that stay alone with it are left out, and counted."""
    kept, alone = list(found), 0
    while True:
        poor = [number for number, cohort in enumerate(kept) if _poor(schema, cohort)]
        if not poor:
            return kept, alone
        mine = min(poor, key=lambda number: kept[number].members)
        near = [n for n, cohort in enumerate(kept) if n != mine and cohort.place == kept[mine].place]
        gone = kept[mine]
        alone += not near
        if near:
            best = min(near, key=lambda number: _distance(schema, kept[number].total.codes, gone.total.codes))
            host = kept[best]
            members, sums = host.members + gone.members, host.sums + gone.sums
            joined = total(schema, members, sums)
            assert isinstance(joined, Total), "two sums of honest form make a third"
            kept[best] = _Cohort(
                place=host.place,
                bucket=max(host.bucket, gone.bucket),
                members=members,
                sums=sums,
                total=joined,
            )
        del kept[mine]


def _distance(schema: Schema, a: NDArray[np.uint16], b: NDArray[np.uint16]) -> int:
    """Weighted squared distance of two cohorts' conditions over the fields that both have; whole numbers."""
    both = (a != MISSING) & (b != MISSING)
    apart = a.astype(np.int64) - b.astype(np.int64)
    return int((schema.slot_weights * apart * apart)[both].sum())


def _packets(schema: Schema, kept: list[_Cohort], pair: Identity, digest: bytes) -> PacketArray:
    if not kept:
        return np.empty(0, dtype=PACKET_DTYPE)
    classes = schema.outcome.has_classes
    size = np.array([cohort.members for cohort in kept], dtype=np.int64)
    counts = None
    if classes:
        counts = np.stack([c.total.counts for c in kept if c.total.counts is not None]).astype(np.uint32)
    none = np.zeros(0, dtype=np.int64)
    made = blurred(
        schema,
        Cohorts(
            rows=none,
            offsets=none,
            codes=np.stack([cohort.total.codes for cohort in kept]),
            size=size,
            subjects=size,
            bucket=np.array([cohort.bucket for cohort in kept], dtype=np.int64),
            facet=np.array([cohort.place[0] for cohort in kept], dtype=np.int64),
            counts=counts,
            mean=np.array([cohort.total.mean for cohort in kept]),
            variance=np.array([cohort.total.variance for cohort in kept]),
        ),
        pair.derived(b"noise" + schema.id + digest),
    )
    packets = build(
        schema,
        author=pair.public_key,
        sequence=np.array([_sequence(digest, number) for number in range(len(kept))], dtype=np.uint64),
        codes=made.codes,
        size=made.size,
        subjects=made.subjects,
        bucket=made.bucket,
        distiller=Distiller.COHORT,
        counts=None if made.counts is None else made.counts.astype(np.int64),
        mean=None if classes else made.mean,
        variance=None if classes else made.variance,
    )
    sign(packets, pair)
    return packets


def _sequence(digest: bytes, number: int) -> int:
    """A sequence number that both synthesizers give, and that no other cohort of theirs has."""
    return int.from_bytes(hashlib.sha256(digest + number.to_bytes(4, "little")).digest()[:8], "little")
