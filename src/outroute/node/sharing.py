"""Shares at a node: as a site that gives them, and as a synthesizer that adds them up with another one.

Whoever has too few subjects for a cohort of its own gives shares of its observations to two synthesizers. They exchange
rolls, then sums, and come to the packets of a *pair*: signed by a key that these two have in common.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from outroute.distill import Observations
from outroute.distill.combining import combine
from outroute.distill.contribution import Refusal, contribute, pair_of, read
from outroute.distill.opening import Roll, add_up, read_roll, read_sums, write_roll, write_sums
from outroute.errors import DataError, PrivacyError, StoreError
from outroute.node.node import Node
from outroute.packet import PacketArray
from outroute.schema import Distiller
from outroute.store import Which
from outroute.store.outgoing import operator_text
from outroute.store.sharing import Sharing

__all__ = [
    "MOST_OF_A_SITE",
    "Added",
    "Given",
    "Opened",
    "give_shares",
    "open_sums",
    "roll_of",
    "sum_shares",
    "take_shares",
]

MOST_OF_A_SITE = 100
"""Contributions of one site that wait at a time: who has more subjects forms cohorts of its own, and who lies about all
of them reaches so many cohorts at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a site gave.

    Attributes:
        pair: public keys of the two synthesizers.
        files: what goes to each, in the same order.
        observations: how many are in them, one a subject.
        left: with an outcome and free, but of a subject that is in them already, or left in a packet before.
        digest: SHA-256 over both files, which stands in the log.
    """

    pair: tuple[bytes, bytes]
    files: tuple[bytes, bytes]
    observations: int
    left: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What a synthesizer added up.

    Attributes:
        content: for the other synthesizer; worth nothing without its own.
        cohorts, contributions: how many were added.
        left: contributions that found no cohort, and wait for others.
    """

    content: bytes
    cohorts: int
    contributions: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What two sums made.

    Attributes:
        packets: of the pair, to be handed on as any packets.
        pair: the pair's public key, their author.
        spoilt: cohorts whose sum no honest sites can have; nobody gets a packet of them.
        agreeing: cohorts whose outcomes agree (more than the schema allows) that found no other to join.
    """

    packets: PacketArray
    pair: bytes
    spoilt: int
    agreeing: int


def give_shares(node: Node, first: bytes, second: bytes, *, by: str) -> Given:
    """Split what is ready into shares for two synthesizers; approved by who says so, and in no other packet afterwards.

    Args:
        node: the site.
        first, second: public keys of the synthesizers, in any order.
        by: who approves it, for the log.

    Raises:
        PrivacyError: the schema's distiller is ``single``: there is nobody to protect.
        DataError: the keys do not fit; nothing is ready.
    """
    pair = pair_of(first, second)
    by = operator_text(by, "who approves")
    assert node.identity is not None
    if node.identity.public_key in pair:
        raise DataError("a synthesizer cannot give shares to itself: name two other nodes", code="shares.pair")
    if node.schema.privacy.distiller is Distiller.SINGLE:
        raise PrivacyError(
            "the schema's observations concern no person: outroute distil makes a packet of each", code="shares.single"
        )
    if node.schema.privacy.distiller is Distiller.PRIVATE:
        raise PrivacyError(
            "the schema promises differential privacy over all that leaves, and sums of shares carry no noise: "
            "outroute distil makes the release",
            code="shares.private",
        )
    journal = node.journal
    ready = journal.observations(Which.READY)
    split = contribute(
        node.schema,
        Observations(
            codes=ready.codes,
            outcome=ready.outcome,
            subject=ready.subject,
            bucket=ready.bucket,
            facet=ready.facet,
            stale=ready.emitted,
        ),
        identity=node.identity,
        pair=pair,
        nonce=secrets.token_bytes,
    )
    if not len(split.members):
        raise DataError(
            "no observation is ready to be shared: outroute observe brings some, with outcomes", code="shares.empty"
        )
    digest = hashlib.sha256(split.files[0] + split.files[1]).digest()
    journal.set_aside(
        ready.rows[split.members],
        now=int(node.clock()),
        by=by,
        digest=digest,
        recipients=[f"synthesizer {key.hex()}" for key in pair],
    )
    return Given(
        pair=pair,
        files=split.files,
        observations=len(split.members),
        left=len(ready.rows) - len(split.members),
        digest=digest,
    )


def take_shares(
    node: Node, directory: Path, contents: list[bytes], *, admitted: frozenset[bytes] | None, most: int = MOST_OF_A_SITE
) -> tuple[int, dict[Refusal, int], dict[str, int]]:
    """As a synthesizer, keep what sites sent.

    Args:
        node: the synthesizer.
        directory: its.
        contents: files of sites.
        admitted: public keys of the sites that may contribute; None: everybody.
        most: contributions of one site that wait at a time.

    Returns:
        How many contributions are new, how many were refused for each reason, and what is held now.
    """
    identity = node.identity
    assert identity is not None
    sharing = Sharing(directory)
    try:
        found = (one for content in contents for one in read(node.schema, content, identity, admitted=admitted))
        new, refused = sharing.add(found, most=most)
        return new, refused, sharing.counts()
    finally:
        sharing.close()


def roll_of(node: Node, directory: Path, other: bytes, *, k: int | None) -> tuple[bytes, int]:
    """What is held together with another synthesizer, for it; the file and the number of contributions."""
    identity = node.identity
    assert identity is not None
    pair_of(identity.public_key, other)
    wanted = _k(node, k)
    sharing = Sharing(directory)
    try:
        ids = sharing.roll(other)
    finally:
        sharing.close()
    roll = Roll(by=identity.public_key, other=other, k=wanted, ids=ids)
    return write_roll(node.schema, roll, identity), len(ids)


def sum_shares(node: Node, directory: Path, content: bytes, *, k: int | None) -> Added:
    """Add up what stands in the other's roll and in the own one; afterwards these shares are gone here.

    Args:
        node: a synthesizer.
        directory: the node's.
        content: the other's roll.
        k: fewest subjects beside those of any one site; the larger of this and the other's counts.

    Raises:
        DataError: the roll cannot be used, or nothing can be added up.
    """
    identity = node.identity
    assert identity is not None
    roll = read_roll(node.schema, content)
    if roll.other != identity.public_key:
        raise DataError("this roll is for another synthesizer", code="shares.pair")
    wanted = max(_k(node, k), roll.k)
    sharing = Sharing(directory)
    try:
        held = sharing.rolled(roll.by, roll.ids)
        sums, used = add_up(node.schema, held, by=identity.public_key, other=roll.by, k=wanted)
        if not sums.sums:
            raise StoreError(
                f"{len(held)} contributions stand in both rolls: too few for a cohort of {wanted} subjects beside "
                "those of any one site. Nothing was opened; wait for more sites, then exchange rolls again",
                code="shares.few",
            )
        out = write_sums(node.schema, sums, identity)
        # Spent before anybody sees the sums: whatever happens next, no share is added up twice.
        sharing.spend(used)
    finally:
        sharing.close()
    return Added(content=out, cohorts=len(sums.sums), contributions=len(used), left=sums.left)


def open_sums(node: Node, one: bytes, two: bytes) -> Opened:
    """Make packets of both synthesizers' sums.

    Raises:
        DataError: the files cannot be used, or do not belong together.
    """
    identity = node.identity
    assert identity is not None
    first, second = read_sums(node.schema, one), read_sums(node.schema, two)
    made = combine(node.schema, first, second, identity)
    other = second.by if first.by == identity.public_key else first.by
    return Opened(
        packets=made.packets,
        pair=identity.paired(other, node.schema.id).public_key,
        spoilt=len(made.spoilt),
        agreeing=made.agreeing,
    )


def _k(node: Node, k: int | None) -> int:
    floor = max(2, node.schema.privacy.k)
    if k is not None and k < floor:
        raise PrivacyError(f"cohorts of {k} are below the floor of the schema: at least {floor}", code="privacy.floor")
    return floor if k is None else k
