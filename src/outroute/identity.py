"""Keys, node ids and organisations.

Every kind of signature has a prefix of its own, so that none can be passed off as another. Node ids and organisation
ids are hashes of public keys. Source: RFC 8032 (Ed25519); DESIGN sections 2 and 4.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import Enum

from nacl import bindings, exceptions

from outroute.errors import OutrouteError

__all__ = [
    "CERTIFICATE_BYTES",
    "CLOCK_SKEW_SECONDS",
    "KEY_BYTES",
    "SIGNATURE_BYTES",
    "Certificate",
    "Identity",
    "Purpose",
    "node_id",
    "verify",
]

KEY_BYTES = 32
"""An Ed25519 public key, and the seed of a private one."""
SIGNATURE_BYTES = 64
"""An Ed25519 signature."""
CLOCK_SKEW_SECONDS = 600
"""Clocks of honest members differ by at most ten minutes."""

_CERTIFICATE = struct.Struct("<32s32sqq")
CERTIFICATE_BYTES = _CERTIFICATE.size + SIGNATURE_BYTES
"""Organisation key, node key, not before, not after, signature."""


class Purpose(Enum):
    """What a signature is for; its value is the prefix of the signed bytes."""

    PACKET = b"outroute packet v1\0"
    CERTIFICATE = b"outroute certificate v1\0"
    ANNOUNCEMENT = b"outroute announcement v1\0"


def node_id(public_key: bytes) -> bytes:
    """Id of the node with this key: SHA-256 over a prefix and the key, 32 bytes."""
    return hashlib.sha256(b"outroute node v1\0" + public_key).digest()


def verify(purpose: Purpose, public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) over ``message`` was made by ``public_key`` (32 bytes) for ``purpose``."""
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + purpose.value + message, public_key)
    except (exceptions.BadSignatureError, exceptions.ValueError):
        return False
    return True


class Identity:
    """A key pair that signs. Its text never shows the private half."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, seed: bytes) -> None:
        """Make the key pair of a 32-byte seed.

        Raises:
            OutrouteError: when the seed is not 32 bytes.
        """
        if len(seed) != KEY_BYTES:
            raise OutrouteError("a key seed has 32 bytes", code="identity.seed")
        self.public_key: bytes
        self.public_key, self._secret = bindings.crypto_sign_seed_keypair(seed)

    @property
    def id(self) -> bytes:
        """The node's id."""
        return node_id(self.public_key)

    def sign(self, purpose: Purpose, message: bytes) -> bytes:
        """Signature over the purpose's prefix and ``message``, 64 bytes."""
        signed: bytes = bindings.crypto_sign(purpose.value + message, self._secret)
        return signed[:SIGNATURE_BYTES]

    def certify(self, node_key: bytes, *, not_before: int, not_after: int) -> Certificate:
        """As an organisation, certify a node's public key for a time (seconds since 1970-01-01 UTC).

        Raises:
            OutrouteError: when the key has not 32 bytes, or the time ends before it begins.
        """
        if len(node_key) != KEY_BYTES or not_after < not_before:
            raise OutrouteError(
                "certify a key of 32 bytes, for a time that ends after it begins", code="identity.certify"
            )
        body = _CERTIFICATE.pack(self.public_key, node_key, not_before, not_after)
        return Certificate.from_bytes(body + self.sign(Purpose.CERTIFICATE, body))

    def __repr__(self) -> str:
        return f"Identity({self.id.hex()[:12]})"


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

    def holds(self, now: int) -> bool:
        """Whether the signature is right and ``now`` lies in its time, give or take the clock skew."""
        if not self.not_before - CLOCK_SKEW_SECONDS <= now <= self.not_after + CLOCK_SKEW_SECONDS:
            return False
        return verify(Purpose.CERTIFICATE, self.organisation, self.to_bytes()[: _CERTIFICATE.size], self.signature)
