"""What a site with few subjects sends to each of two synthesizers: one envelope an observation, signed and sealed.

In the clear stand whose it is, where it lies (cell, facets, time bucket) and for which pair; under the seal stands one
of its two shares. See ``docs/specification.md``, Shares.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill.shares import SEED_BYTES, drawn_share, other_share, vector_width, vectors_of
from outroute.errors import DataError
from outroute.fingerprint import cells
from outroute.identity import KEY_BYTES, SEAL_BYTES, SIGNATURE_BYTES, Identity, Purpose, seal, verify
from outroute.schema import facet_index

if TYPE_CHECKING:
    from outroute.distill.model import Observations
    from outroute.schema import Schema

__all__ = [
    "HEADER_BYTES",
    "MAX_CONTRIBUTIONS",
    "Contribution",
    "Refusal",
    "Split",
    "contribute",
    "envelope_bytes",
    "pair_of",
    "read",
]

MAX_CONTRIBUTIONS = 100_000
"""Envelopes read from one file: a site that has more can form cohorts of its own."""
_MAGIC = b"ORC\1"
_HEADER = struct.Struct("<4sBxxx32s32s32s32s16sQIIq")
HEADER_BYTES = _HEADER.size
"""What stands in the clear."""
_ID_BYTES = 16


class Refusal(IntEnum):
    """Why an envelope is not taken; nothing of it is kept."""

    FORM = 1
    """Not of this form or length; nothing after it in the file is read."""
    SCHEMA = 2
    """For another schema, or a cell, facet or bucket that the schema does not have."""
    ADDRESSEE = 3
    """For other synthesizers."""
    SIGNATURE = 4
    """Not signed by the site that it names."""
    SEAL = 5
    """Its seal does not open, or what is under it belongs to another envelope."""
    KNOWN = 6
    """Here already."""
    STRANGER = 7
    """By a site that is not on the list of those admitted."""
    FULL = 8
    """There is no room for more."""
    MANY = 9
    """Its site has as many waiting already as a site may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """One envelope, opened.

    Attributes:
        id: 16 random bytes, the same in both envelopes of one observation.
        site: public key of the site.
        other: public key of the other synthesizer.
        facet, cell, bucket: where and when the observation lies.
        share: uint64[``vector_width``].
    """

    id: bytes
    site: bytes
    other: bytes
    facet: int
    cell: int
    bucket: int
    share: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Observations as shares.

    Attributes:
        pair: public keys of the two synthesizers, the lower one first.
        files: what goes to each of them, in the same order.
        members: int64[n]; the rows that are in them.
    """

    pair: tuple[bytes, bytes]
    files: tuple[bytes, bytes]
    members: NDArray[np.int64]


def pair_of(first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """Two synthesizers in the order in which everybody names them.

    Raises:
        DataError: they are the same, or no public keys.
    """
    if len(first) != KEY_BYTES or len(second) != KEY_BYTES or first == second:
        raise DataError(
            "shares go to two different synthesizers: give the public keys of both, 64 hex digits each. They should "
            "belong to organisations that do not work together against you",
            code="shares.pair",
        )
    return (first, second) if first < second else (second, first)


def contribute(
    schema: Schema,
    observations: Observations,
    *,
    identity: Identity,
    pair: tuple[bytes, bytes],
    nonce: Callable[[int], bytes],
) -> Split:
    """Split observations into sealed shares, the first of each subject; the others stay for another time.

    Args:
        schema: the schema.
        observations: with known outcomes, in no packet, never sent before.
        identity: the site's key.
        pair: see ``pair_of``.
        nonce: fresh random bytes, as many as asked for.
    """
    known = np.flatnonzero(~np.isnan(observations.outcome) & ~observations.stale)
    _, first = np.unique(observations.subject[known], return_index=True)
    rows = np.sort(known[first])
    codes = observations.codes[rows]
    vectors = vectors_of(schema, codes, observations.outcome[rows])
    cell, facet = cells(schema, codes)[:, 0], facet_index(schema, codes)
    files: tuple[list[bytes], list[bytes]] = ([], [])
    for i, row in enumerate(rows.tolist()):
        name, seed = nonce(_ID_BYTES), nonce(SEED_BYTES)
        for role, share in enumerate((seed, other_share(vectors[i], seed).astype("<u8").tobytes())):
            sealed = seal(pair[role], name + identity.public_key + share)
            head = _HEADER.pack(
                _MAGIC,
                role,
                schema.id,
                identity.public_key,
                *pair,
                name,
                int(facet[i]),
                int(cell[i]),
                len(sealed),
                int(observations.bucket[row]),
            )
            files[role].append(head + sealed + identity.sign(Purpose.SHARES, head + sealed))
    return Split(pair=pair, files=(b"".join(files[0]), b"".join(files[1])), members=rows)


def envelope_bytes(schema: Schema, role: int) -> int:
    """Bytes of an envelope: for the first synthesizer (role 0) with a seed, for the second with numbers."""
    share = SEED_BYTES if role == 0 else vector_width(schema) * 8
    return HEADER_BYTES + _ID_BYTES + KEY_BYTES + share + SEAL_BYTES + SIGNATURE_BYTES


def read(
    schema: Schema, content: bytes, identity: Identity, *, admitted: frozenset[bytes] | None = None
) -> Iterator[Contribution | Refusal]:
    """Open envelopes, one after the other; of what is wrong, why.

    Args:
        schema: the only schema served.
        content: a file of envelopes.
        identity: the synthesizer's key.
        admitted: public keys of the sites that may contribute; None: everybody.
    """
    at = 0
    for _ in range(MAX_CONTRIBUTIONS):
        if at == len(content):
            return
        head = content[at : at + HEADER_BYTES]
        role = head[4] if len(head) == HEADER_BYTES else 2
        if role > 1 or head[:4] != _MAGIC or len(content) - at < envelope_bytes(schema, role):
            yield Refusal.FORM
            return
        whole = content[at : at + envelope_bytes(schema, role)]
        at += len(whole)
        yield _open(schema, whole, identity, admitted)
    if at < len(content):
        yield Refusal.FULL


def _open(
    schema: Schema, whole: bytes, identity: Identity, admitted: frozenset[bytes] | None
) -> Contribution | Refusal:
    _, role, schema_id, site, low, high, name, facet, cell, size, bucket = _HEADER.unpack_from(whole)
    sealed, signature = whole[HEADER_BYTES:-SIGNATURE_BYTES], whole[-SIGNATURE_BYTES:]
    if size != len(sealed):
        return Refusal.FORM
    limit = 2**40
    if (
        schema_id != schema.id
        or cell >= len(schema.landmarks)
        or facet >= _facets(schema)
        or not -limit < bucket < limit
        or bucket % schema.time.bucket_seconds
    ):
        return Refusal.SCHEMA
    if not low < high or (low, high)[role] != identity.public_key or site in (low, high):
        return Refusal.ADDRESSEE
    if admitted is not None and site not in admitted:
        return Refusal.STRANGER
    if not verify(Purpose.SHARES, site, whole[:-SIGNATURE_BYTES], signature):
        return Refusal.SIGNATURE
    opened = identity.unseal(sealed)
    if opened is None or opened[: _ID_BYTES + KEY_BYTES] != name + site:
        return Refusal.SEAL
    share = opened[_ID_BYTES + KEY_BYTES :]
    width = vector_width(schema)
    return Contribution(
        id=name,
        site=site,
        other=(low, high)[1 - role],
        facet=facet,
        cell=cell,
        bucket=bucket,
        share=drawn_share(share, width) if role == 0 else np.frombuffer(share, dtype="<u8").astype(np.uint64),
    )


def _facets(schema: Schema) -> int:
    out = 1
    for item in schema.facets:
        out *= item.width + 1
    return out
