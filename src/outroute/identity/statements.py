"""What keys say about keys: memberships, revocations, successions.

A statement is true because of its signatures, wherever it comes from; so members pass statements on to each other and
keep them. Layout, little-endian:

| bytes | field |
|---|---|
| 4 | ``ORS`` and version 1 |
| 1 | kind |
| rest | membership: certificate (144), signature of the node (64) |
| | revocation: organisation (32), subject (32), at (8), compromised (1), signature (64) |
| | succession: old key (32), new key (32), at (8), certified (1), certificate (0 or 144), two signatures (64 + 64) |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import TypeAlias

from outroute.errors import OutrouteError
from outroute.identity.certificates import CERTIFICATE_BYTES, Certificate
from outroute.identity.keys import KEY_BYTES, SIGNATURE_BYTES, Identity, Purpose, verify

__all__ = [
    "STATEMENT_BYTES",
    "Membership",
    "Revocation",
    "Statement",
    "StatementKind",
    "Succession",
    "read_statement",
]

_MAGIC = b"ORS\x01"
_REVOCATION = struct.Struct("<32s32sqB")
_SUCCESSION = struct.Struct("<32s32sqB")

STATEMENT_BYTES = len(_MAGIC) + 1 + _SUCCESSION.size + CERTIFICATE_BYTES + 2 * SIGNATURE_BYTES
"""Bytes of the longest statement: a succession with a certificate."""


@unique
class StatementKind(IntEnum):
    """What a statement is; the numbers are stable."""

    MEMBERSHIP = 1
    REVOCATION = 2
    SUCCESSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A certificate that its node has accepted.

    Without the node's signature anybody could claim a foreign node as his own, count it under his caps and revoke it.

    Attributes:
        certificate: the organisation's word.
        signature: the node's, over the certificate, 64 bytes.
    """

    certificate: Certificate
    signature: bytes

    @classmethod
    def accept(cls, node: Identity, certificate: Certificate) -> Membership:
        """As a node, accept a certificate.

        Raises:
            OutrouteError: the certificate is for another key.
        """
        if certificate.node != node.public_key:
            raise OutrouteError(
                f"this certificate is for node key {certificate.node.hex()}, the key here is {node.public_key.hex()}: "
                "have this one certified",
                code="identity.other_key",
            )
        return cls(certificate=certificate, signature=node.sign(Purpose.MEMBERSHIP, certificate.to_bytes()))

    def genuine(self) -> bool:
        """Whether both signatures are right; nothing is said about the time."""
        return self.certificate.genuine() and verify(
            Purpose.MEMBERSHIP, self.certificate.node, self.certificate.to_bytes(), self.signature
        )

    def to_bytes(self) -> bytes:
        """The statement as it travels."""
        return _head(StatementKind.MEMBERSHIP) + self.certificate.to_bytes() + self.signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """An organisation's word that a key of its own counts no more; it cannot be taken back.

    Attributes:
        organisation: public key of the organisation that says so, 32 bytes.
        subject: public key that is revoked: of a node, or the organisation's own.
        at: when, seconds since 1970-01-01 UTC.
        compromised: others may have the private key, so nothing that it signed is believed, now or before.
        signature: 64 bytes.
    """

    organisation: bytes
    subject: bytes
    at: int
    compromised: bool
    signature: bytes

    @classmethod
    def make(cls, organisation: Identity, subject: bytes, *, at: int, compromised: bool = False) -> Revocation:
        """Revoke a node's key, or the organisation's own.

        Raises:
            OutrouteError: the subject has not 32 bytes.
        """
        if len(subject) != KEY_BYTES:
            raise OutrouteError(f"revoke a public key of {KEY_BYTES} bytes", code="identity.revoke")
        body = _REVOCATION.pack(organisation.public_key, subject, at, compromised)
        return cls(
            organisation=organisation.public_key,
            subject=subject,
            at=at,
            compromised=compromised,
            signature=organisation.sign(Purpose.REVOCATION, body),
        )

    def _body(self) -> bytes:
        return _REVOCATION.pack(self.organisation, self.subject, self.at, self.compromised)

    def genuine(self) -> bool:
        """Whether the signature is right; whether the organisation may revoke the subject is another question."""
        return verify(Purpose.REVOCATION, self.organisation, self._body(), self.signature)

    def to_bytes(self) -> bytes:
        """The statement as it travels."""
        return _head(StatementKind.REVOCATION) + self._body() + self.signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """The word of two keys that the second goes on where the first ends.

    Attributes:
        old, new: public keys, 32 bytes each.
        at: when, seconds since 1970-01-01 UTC.
        certificate: of the new key by the organisation of the old one; ``None`` for organisations and for nodes of
            no organisation. With it a stolen node key is of no use: the thief's key has no certificate.
        old_signature, new_signature: 64 bytes each, over everything before them.
    """

    old: bytes
    new: bytes
    at: int
    certificate: Certificate | None
    old_signature: bytes
    new_signature: bytes

    @classmethod
    def make(cls, old: Identity, new: Identity, *, at: int, certificate: Certificate | None = None) -> Succession:
        """Let a new key follow an old one.

        Raises:
            OutrouteError: both are the same key, or the certificate is for another one.
        """
        if old.public_key == new.public_key:
            raise OutrouteError("a key cannot follow itself: make a new one", code="identity.succession")
        if certificate is not None and certificate.node != new.public_key:
            raise OutrouteError(
                f"this certificate is for node key {certificate.node.hex()}, the new key is {new.public_key.hex()}: "
                "have the new one certified",
                code="identity.other_key",
            )
        body = _succession_body(old.public_key, new.public_key, at, certificate)
        return cls(
            old=old.public_key,
            new=new.public_key,
            at=at,
            certificate=certificate,
            old_signature=old.sign(Purpose.SUCCESSION, body),
            new_signature=new.sign(Purpose.SUCCESSION, body),
        )

    def _body(self) -> bytes:
        return _succession_body(self.old, self.new, self.at, self.certificate)

    def genuine(self) -> bool:
        """Whether all signatures are right, that of the certificate among them."""
        if self.old == self.new:
            return False
        if self.certificate is not None and not (self.certificate.node == self.new and self.certificate.genuine()):
            return False
        body = self._body()
        return verify(Purpose.SUCCESSION, self.old, body, self.old_signature) and verify(
            Purpose.SUCCESSION, self.new, body, self.new_signature
        )

    def to_bytes(self) -> bytes:
        """The statement as it travels."""
        return _head(StatementKind.SUCCESSION) + self._body() + self.old_signature + self.new_signature


Statement: TypeAlias = Membership | Revocation | Succession


def read_statement(data: bytes) -> Statement | None:
    """Read a statement, ``None`` when it is malformed; call ``genuine`` before believing it.

    There is one encoding only: what was read gives the same bytes again.
    """
    if data[: len(_MAGIC)] != _MAGIC or not len(_MAGIC) < len(data) <= STATEMENT_BYTES:
        return None
    kind, body = data[len(_MAGIC)], data[len(_MAGIC) + 1 :]
    if kind == StatementKind.MEMBERSHIP and len(body) == CERTIFICATE_BYTES + SIGNATURE_BYTES:
        return Membership(
            certificate=Certificate.from_bytes(body[:CERTIFICATE_BYTES]), signature=body[CERTIFICATE_BYTES:]
        )
    if kind == StatementKind.REVOCATION and len(body) == _REVOCATION.size + SIGNATURE_BYTES:
        organisation, subject, at, compromised = _REVOCATION.unpack_from(body)
        if compromised > 1:
            return None
        return Revocation(
            organisation=organisation,
            subject=subject,
            at=at,
            compromised=bool(compromised),
            signature=body[_REVOCATION.size :],
        )
    if kind == StatementKind.SUCCESSION and len(body) >= _SUCCESSION.size:
        old, new, at, certified = _SUCCESSION.unpack_from(body)
        end = _SUCCESSION.size + (CERTIFICATE_BYTES if certified else 0)
        if certified > 1 or len(body) != end + 2 * SIGNATURE_BYTES:
            return None
        return Succession(
            old=old,
            new=new,
            at=at,
            certificate=Certificate.from_bytes(body[_SUCCESSION.size : end]) if certified else None,
            old_signature=body[end : end + SIGNATURE_BYTES],
            new_signature=body[end + SIGNATURE_BYTES :],
        )
    return None


def _head(kind: StatementKind) -> bytes:
    return _MAGIC + bytes([kind])


def _succession_body(old: bytes, new: bytes, at: int, certificate: Certificate | None) -> bytes:
    fixed = _SUCCESSION.pack(old, new, at, certificate is not None)
    return fixed + (b"" if certificate is None else certificate.to_bytes())
