"""What two synthesizers tell each other so that sums can be opened: a roll each, then their sums.

A *roll* names what somebody holds. Both add up exactly what stands in both rolls, in cohorts that each works out by
itself (``outroute.distill.pooling``), and no share is ever added twice. A file is a line of JSON and a line with its
author's signature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.distill.cohort import default_window
from outroute.distill.contribution import Contribution
from outroute.distill.pooling import pool
from outroute.distill.shares import vector_width
from outroute.errors import DataError
from outroute.identity import Identity, Purpose, verify

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = [
    "MAX_FILE_BYTES",
    "Roll",
    "Sum",
    "Sums",
    "add_up",
    "read_roll",
    "read_sums",
    "write_roll",
    "write_sums",
]

MAX_FILE_BYTES = 100_000_000
"""A roll or sums of more than 100 MB is nobody's: a roll of a million contributions has 35 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """What a synthesizer holds together with another one.

    Attributes:
        by, other: their public keys.
        k: fewest subjects of others that ``by`` asks for.
        ids: of the contributions, ascending.
    """

    by: bytes
    other: bytes
    k: int
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """One cohort's sum of shares at one synthesizer.

    Attributes:
        facet, cell, bucket: facet of all, lowest cell, latest bucket.
        members: contributions, of one subject each.
        sites: sites that they come from.
        share: uint64[``vector_width``].
    """

    facet: int
    cell: int
    bucket: int
    members: int
    sites: int
    share: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What a synthesizer opens.

    Attributes:
        by, other: public keys of the pair.
        k: fewest subjects beside those of any one site.
        digest: over the ids that were added; equal for both.
        sums: one a cohort.
        left: contributions that found no cohort.
    """

    by: bytes
    other: bytes
    k: int
    digest: bytes
    sums: tuple[Sum, ...]
    left: int


class _Why(IntEnum):
    """Why a file is refused."""

    FORM = 1
    SIGNATURE = 2
    SCHEMA = 3


_WHY = {
    _Why.FORM: ("is not one of these files, or was cut off", "shares.form"),
    _Why.SIGNATURE: ("was changed after it was signed", "shares.signature"),
    _Why.SCHEMA: ("belongs to another schema", "shares.schema"),
}


def add_up(
    schema: Schema, held: Sequence[Contribution], *, by: bytes, other: bytes, k: int
) -> tuple[Sums, list[bytes]]:
    """Add up the shares of every cohort.

    Args:
        schema: landmarks and times.
        held: contributions for this pair that stand in both rolls, none of them ever added before.
        by, other: public keys of the pair.
        k: fewest subjects beside those of any one site, at least the schema's floor.

    Returns:
        The sums, and the ids of what was added: never add these again.

    Raises:
        DataError: ``k`` lies below the floor.
    """
    if k < max(2, schema.privacy.k):
        raise DataError(f"at least {max(2, schema.privacy.k)} subjects: the schema's floor", code="shares.floor")
    ordered = sorted(held, key=lambda one: one.id)
    names = {key: i for i, key in enumerate(sorted({one.site for one in ordered}))}
    cohort = pool(
        schema,
        cell=np.array([one.cell for one in ordered], dtype=np.int64),
        facet=np.array([one.facet for one in ordered], dtype=np.int64),
        bucket=np.array([one.bucket for one in ordered], dtype=np.int64),
        site=np.array([names[one.site] for one in ordered], dtype=np.int64),
        k=k,
        window=default_window(schema),
    )
    sums = []
    for number in range(int(cohort.max(initial=-1)) + 1):
        members = [ordered[i] for i in np.flatnonzero(cohort == number).tolist()]
        share = np.zeros(vector_width(schema), dtype=np.uint64)
        for one in members:
            share += one.share
        sums.append(
            Sum(
                facet=members[0].facet,
                cell=min(one.cell for one in members),
                bucket=max(one.bucket for one in members),
                members=len(members),
                sites=len({one.site for one in members}),
                share=share,
            )
        )
    used = [one.id for one, number in zip(ordered, cohort.tolist(), strict=True) if number >= 0]
    digest = hashlib.sha256(b"".join(used)).digest()
    return (
        Sums(by=by, other=other, k=k, digest=digest, sums=tuple(sums), left=len(ordered) - len(used)),
        used,
    )


def write_roll(schema: Schema, roll: Roll, identity: Identity) -> bytes:
    """A roll as a file."""
    ids = "".join(one.hex() for one in roll.ids)
    return _signed(schema, identity, {"what": "roll", "other": roll.other.hex(), "k": roll.k, "ids": ids})


def read_roll(schema: Schema, content: bytes) -> Roll:
    """A roll from a file.

    Raises:
        DataError: it is none, was changed, or belongs to another schema.
    """
    found, by = _checked(schema, content, "roll")
    try:
        raw = bytes.fromhex(found["ids"])
        roll = Roll(
            by=by,
            other=bytes.fromhex(found["other"]),
            k=int(found["k"]),
            ids=tuple(raw[at : at + 16] for at in range(0, len(raw), 16)),
        )
    except (KeyError, TypeError, ValueError):
        raise _refused(_Why.FORM) from None
    return roll


def write_sums(schema: Schema, sums: Sums, identity: Identity) -> bytes:
    """Sums as a file."""
    rows = [[s.facet, s.cell, s.bucket, s.members, s.sites, s.share.astype("<u8").tobytes().hex()] for s in sums.sums]
    return _signed(
        schema,
        identity,
        {
            "what": "sums",
            "other": sums.other.hex(),
            "k": sums.k,
            "digest": sums.digest.hex(),
            "left": sums.left,
            "sums": rows,
        },
    )


def read_sums(schema: Schema, content: bytes) -> Sums:
    """Sums from a file.

    Raises:
        DataError: they are none, were changed, or belong to another schema.
    """
    found, by = _checked(schema, content, "sums")
    width = vector_width(schema)
    try:
        sums = []
        for facet, cell, bucket, members, sites, share in found["sums"]:
            numbers = np.frombuffer(bytes.fromhex(share), dtype="<u8").astype(np.uint64)
            if len(numbers) != width or not all(type(v) is int for v in (facet, cell, bucket, members, sites)):
                raise ValueError
            sums.append(Sum(facet=facet, cell=cell, bucket=bucket, members=members, sites=sites, share=numbers))
        made = Sums(
            by=by,
            other=bytes.fromhex(found["other"]),
            k=int(found["k"]),
            digest=bytes.fromhex(found["digest"]),
            sums=tuple(sums),
            left=int(found["left"]),
        )
    except (KeyError, TypeError, ValueError):
        raise _refused(_Why.FORM) from None
    if any(not 1 <= s.members <= 65_535 for s in made.sums):
        raise _refused(_Why.FORM)
    return made


def _signed(schema: Schema, identity: Identity, content: dict[str, Any]) -> bytes:
    said = {"version": 1, "schema": schema.id.hex(), "by": identity.public_key.hex(), **content}
    line = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return line + b"\n" + identity.sign(Purpose.SHARES, line).hex().encode() + b"\n"


def _checked(schema: Schema, content: bytes, what: str) -> tuple[dict[str, Any], bytes]:
    line, _, rest = content.partition(b"\n")
    try:
        if len(content) > MAX_FILE_BYTES:
            raise ValueError
        found = json.loads(line)
        by, signature = bytes.fromhex(found["by"]), bytes.fromhex(rest.decode("ascii").strip())
        named = bytes.fromhex(found["schema"])
        if found["what"] != what or found["version"] != 1:
            raise ValueError
    except (KeyError, TypeError, ValueError, RecursionError):
        raise _refused(_Why.FORM) from None
    if not verify(Purpose.SHARES, by, line, signature):
        raise _refused(_Why.SIGNATURE)
    if named != schema.id:
        raise _refused(_Why.SCHEMA)
    return found, by


def _refused(why: _Why) -> DataError:
    text, code = _WHY[why]
    return DataError(f"this file {text}: ask its author for it again", code=code)
