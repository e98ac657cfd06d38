"""Certificates: an organisation's word that a node is its own.

Only the key of an organisation certifies, and only nodes: there are no chains, so a stolen node key enrols nobody.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from outroute.errors import OutrouteError
from outroute.identity.keys import CLOCK_SKEW_SECONDS, KEY_BYTES, SIGNATURE_BYTES, Identity, Purpose, verify

__all__ = ["CERTIFICATE_BYTES", "Certificate", "certify"]

_CERTIFICATE = struct.Struct("<32s32sqq")
CERTIFICATE_BYTES = _CERTIFICATE.size + SIGNATURE_BYTES
"""Organisation key, node key, not before, not after, signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """An organisation's word that a node is its own.

    Attributes:
        organisation: public key of the organisation, 32 bytes.
        node: public key of the node, 32 bytes.
        not_before, not_after: seconds since 1970-01-01 UTC.
        signature: 64 bytes.
    """

    organisation: bytes
    node: bytes
    not_before: int
    not_after: int
    signature: bytes

    def __post_init__(self) -> None:
        if (len(self.organisation), len(self.node), len(self.signature)) != (KEY_BYTES, KEY_BYTES, SIGNATURE_BYTES):
            raise OutrouteError(
                "a certificate holds two keys of 32 bytes and a signature of 64", code="identity.certificate"
            )

    @classmethod
    def from_bytes(cls, data: bytes) -> Certificate:
        """Read a certificate; call :meth:`holds` before believing it.

        Raises:
            OutrouteError: when it has not the right size.
        """
        if len(data) != CERTIFICATE_BYTES:
            raise OutrouteError(f"a certificate has {CERTIFICATE_BYTES} bytes", code="identity.certificate")
        organisation, node, not_before, not_after = _CERTIFICATE.unpack_from(data)
        return cls(
            organisation=organisation,
            node=node,
            not_before=not_before,
            not_after=not_after,
            signature=data[_CERTIFICATE.size :],
        )

    def to_bytes(self) -> bytes:
        """The certificate as it travels."""
        return _CERTIFICATE.pack(self.organisation, self.node, self.not_before, self.not_after) + self.signature

    def in_time(self, now: int) -> bool:
        """Whether ``now`` lies in its time, give or take the clock skew."""
        return self.not_before - CLOCK_SKEW_SECONDS <= now <= self.not_after + CLOCK_SKEW_SECONDS

    def genuine(self) -> bool:
        """Whether the signature is right; nothing is said about the time."""
        return verify(Purpose.CERTIFICATE, self.organisation, self.to_bytes()[: _CERTIFICATE.size], self.signature)

    def holds(self, now: int) -> bool:
        """Whether the signature is right and ``now`` lies in its time, give or take the clock skew."""
        return self.in_time(now) and self.genuine()


def certify(organisation: Identity, node_key: bytes, *, not_before: int, not_after: int) -> Certificate:
    """Certify a node's public key for a time; see :meth:`Identity.certify`.

    Raises:
        OutrouteError: when the key has not 32 bytes, or the time ends before it begins.
    """
    if len(node_key) != KEY_BYTES or not_after < not_before:
        raise OutrouteError("certify a key of 32 bytes, for a time that ends after it begins", code="identity.certify")
    body = _CERTIFICATE.pack(organisation.public_key, node_key, not_before, not_after)
    return Certificate.from_bytes(body + organisation.sign(Purpose.CERTIFICATE, body))
