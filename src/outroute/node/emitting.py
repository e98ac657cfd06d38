"""Own observations -> cohorts -> signed packets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outroute.distill import Distilled, Grouping, Observations, blurred, distil, distil_single, distil_waiting
from outroute.fingerprint import address
from outroute.identity import Identity
from outroute.packet import PacketArray, build, commit, sign
from outroute.schema import Distiller, Schema, facet_index

__all__ = ["Made", "addresses_of", "condense", "in_order", "make_packets", "observation_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Packets ready to leave.

    Attributes:
        packets: signed, ``[n]``.
        addresses: where each goes.
        members: rows of the observations that each condenses.
        secrets: nonce of each commitment, to be shown to an auditor.
    """

    packets: PacketArray
    addresses: tuple[bytes, ...]
    members: tuple[NDArray[np.int64], ...]
    secrets: tuple[bytes, ...]


def condense(
    schema: Schema,
    observations: Observations,
    *,
    now: int,
    k: int | None,
    streaming: bool,
    grouping: Grouping | None,
) -> Distilled:
    """Condense what has not left yet.

    Args:
        schema: sets the floor.
        observations: with known outcomes, in no packet yet.
        now: seconds since 1970-01-01 UTC.
        k: subjects in a packet; None for the floor. 1 takes the ``single`` distiller.
        streaming: leave observations waiting until a tight cohort has come together.
        grouping: how cohorts are formed.

    Raises:
        PrivacyError: when ``k`` lies below the floor.
    """
    if (schema.privacy.k if k is None else k) == 1:
        return distil_single(schema, observations)
    # Numbered as they came: the journal's own numbers are hashes under a secret, and would break ties by chance.
    observations = replace(observations, subject=in_order(observations.subject))
    if streaming:
        return distil_waiting(schema, observations, now=now, k=k, grouping=grouping)
    return distil(schema, observations, k=k, grouping=grouping)


def in_order(label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels numbered by first appearance, int64 ``[n]``."""
    _, first, index = np.unique(label, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[index.reshape(-1)]


def observation_bytes(codes: NDArray[np.uint16], outcome: NDArray[np.float64]) -> bytes:
    """Canonical bytes of condensed observations: codes (u16) and outcome (f64) each, little-endian, sorted, joined."""
    rows = [c.tobytes() + o.tobytes() for c, o in zip(codes.astype("<u2"), outcome.astype("<f8"), strict=True)]
    return b"".join(sorted(rows))


def addresses_of(
    schema: Schema, codes: NDArray[np.uint16], cell: NDArray[np.int64], secret: bytes
) -> tuple[bytes, ...]:
    """Address of each row of conditions in its cell."""
    known: dict[tuple[int, int], bytes] = {}
    out = []
    for pair in zip(facet_index(schema, codes).tolist(), cell.tolist(), strict=True):
        if pair not in known:
            known[pair] = address(schema, pair[0], pair[1], secret)
        out.append(known[pair])
    return tuple(out)


def make_packets(
    schema: Schema,
    observations: Observations,
    distilled: Distilled,
    *,
    identity: Identity,
    first_sequence: int,
    nonce: Callable[[], bytes],
    secret: bytes,
) -> Made:
    """Turn cohorts into signed packets, with the noise that the schema asks for.

    Args:
        schema: the schema.
        observations: what was condensed.
        distilled: the cohorts.
        identity: signs.
        first_sequence: of as many numbers as there are cohorts, reserved before.
        nonce: a fresh 32-byte secret at each call.
        secret: the network's, for addresses.
    """
    single = len(distilled.cohorts) > 0 and distilled.k == 1
    c = distilled.cohorts
    if not single:
        # Sequence numbers are used once, so noise is never drawn twice from one key.
        c = blurred(schema, c, identity.derived(b"noise" + schema.id + first_sequence.to_bytes(8, "little")))
    n = len(c)
    members = tuple(c.rows[c.offsets[i] : c.offsets[i + 1]] for i in range(n))
    secrets = tuple(nonce() for _ in range(n))
    commitments = np.zeros((n, 32), dtype=np.uint8)
    for i, rows in enumerate(members):
        data = observation_bytes(observations.codes[rows], observations.outcome[rows])
        commitments[i] = np.frombuffer(commit(secrets[i], data), dtype=np.uint8)
    packets = build(
        schema,
        author=identity.public_key,
        sequence=np.arange(first_sequence, first_sequence + n, dtype=np.uint64),
        codes=c.codes,
        size=c.size,
        subjects=c.subjects,
        bucket=c.bucket,
        distiller=Distiller.SINGLE if single else Distiller.COHORT,
        counts=None if c.counts is None else c.counts.astype(np.int64),
        mean=c.mean if c.counts is None else None,
        variance=c.variance if c.counts is None else None,
        commitment=commitments,
    )
    sign(packets, identity)
    return Made(
        packets=packets,
        addresses=addresses_of(schema, c.codes, packets["cell"].astype(np.int64), secret),
        members=members,
        secrets=secrets,
    )
