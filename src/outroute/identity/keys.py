"""Key pairs, node ids and signatures.

Every kind of signature has a prefix of its own, so that none can be passed off as another. Source: RFC 8032 (Ed25519);
DESIGN sections 2 and 4.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import Enum
from typing import TYPE_CHECKING

from nacl import bindings, exceptions

from outroute.errors import OutrouteError

if TYPE_CHECKING:
    from outroute.identity.certificates import Certificate

__all__ = [
    "CLOCK_SKEW_SECONDS",
    "KEY_BYTES",
    "SIGNATURE_BYTES",
    "SEAL_BYTES",
    "Identity",
    "Purpose",
    "exchange_key",
    "node_id",
    "seal",
    "signing_keys",
    "verify",
]

KEY_BYTES = 32
"""An Ed25519 public key, and the seed of a private one."""
SIGNATURE_BYTES = 64
"""An Ed25519 signature."""
SEAL_BYTES = bindings.crypto_box_SEALBYTES
"""What sealing adds to a message: a one-time public key and an authenticator."""
_FIELD = 2**255 - 19
CLOCK_SKEW_SECONDS = 600
"""Clocks of honest members differ by at most ten minutes."""


class Purpose(Enum):
    """What a signature is for; its value is the prefix of the signed bytes."""

    PACKET = b"outroute packet v1\0"
    CERTIFICATE = b"outroute certificate v1\0"
    ANNOUNCEMENT = b"outroute announcement v1\0"
    MEMBERSHIP = b"outroute membership v1\0"
    REVOCATION = b"outroute revocation v1\0"
    SUCCESSION = b"outroute succession v1\0"
    SCHEMA = b"outroute schema v1\0"
    LOG = b"outroute log v1\0"
    CHANNEL = b"outroute channel v1\0"
    MEMBERS = b"outroute members v1\0"
    SHARES = b"outroute shares v1\0"


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


def seal(public_key: bytes, message: bytes) -> bytes:
    """Encrypt for the node with this key alone, ``SEAL_BYTES`` longer than the message; nobody else can tell by whom.

    A sealed box (X25519, XSalsa20-Poly1305); its one-time key is drawn inside the library.

    Raises:
        OutrouteError: no usable public key.
    """
    try:
        point = bindings.crypto_sign_ed25519_pk_to_curve25519(public_key)
        sealed: bytes = bindings.crypto_box_seal(message, point)
    except (exceptions.CryptoError, exceptions.ValueError, exceptions.TypeError, RuntimeError):
        raise OutrouteError("this is no public key of a node: 64 hex digits", code="identity.seal") from None
    return sealed


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

    def unseal(self, sealed: bytes) -> bytes | None:
        """What somebody sealed for this key (``outroute.identity.seal``); None when it was not, or was changed."""
        try:
            public = bindings.crypto_sign_ed25519_pk_to_curve25519(self.public_key)
            opened: bytes = bindings.crypto_box_seal_open(sealed, public, self._exchange_key())
        except (exceptions.CryptoError, exceptions.ValueError, exceptions.TypeError):
            return None
        return opened

    def paired(self, other: bytes, context: bytes) -> Identity:
        """A key pair that this key and another one have in common, and nobody else: either of them can sign with it.

        Args:
            other: the other's public key.
            context: what it is for, 32 bytes; another context gives another key.

        Raises:
            OutrouteError: ``other`` is this key itself, or no usable public key.
        """
        if other == self.public_key:
            raise OutrouteError("a pair is of two different keys", code="identity.pair")
        try:
            point = bindings.crypto_sign_ed25519_pk_to_curve25519(other)
            common = bindings.crypto_box_beforenm(point, self._exchange_key())
        except (exceptions.CryptoError, exceptions.ValueError, exceptions.TypeError, RuntimeError):
            raise OutrouteError("this is no public key of a node: 64 hex digits", code="identity.pair") from None
        names = b"".join(sorted((self.public_key, other)))
        return Identity(hmac.new(common, b"outroute pair v1\0" + names + context, hashlib.sha256).digest())

    def derived(self, context: bytes) -> bytes:
        """A secret of this key for one purpose, 32 bytes: nobody without the key can tell it."""
        return hmac.new(self._secret, b"outroute derived v1\0" + context, hashlib.sha256).digest()

    def _exchange_key(self) -> bytes:
        """The private key for X25519 that belongs to this one."""
        made: bytes = bindings.crypto_sign_ed25519_sk_to_curve25519(self._secret)
        return made

    def exchange_keys(self) -> tuple[bytes, bytes]:
        """The Curve25519 key pair that follows from this identity, (public, secret), 32 bytes each.

        For channels that encrypt with a key of their two ends; see ``exchange_key``.
        """
        return exchange_key(self.public_key), self._exchange_key()

    def certify(self, node_key: bytes, *, not_before: int, not_after: int) -> Certificate:
        """As an organisation, certify a node's public key for a time (seconds since 1970-01-01 UTC).

        Raises:
            OutrouteError: when the key has not 32 bytes, or the time ends before it begins.
        """
        from outroute.identity.certificates import certify

        return certify(self, node_key, not_before=not_before, not_after=not_after)

    def __repr__(self) -> str:
        return f"Identity({self.id.hex()[:12]})"


def exchange_key(public_key: bytes) -> bytes:
    """The public Curve25519 key that follows from a node's public key, 32 bytes.

    Raises:
        OutrouteError: it is no public key.

    Source: RFC 7748, section 4.1 (the map between the curves); libsodium's conversion.
    """
    try:
        found: bytes = bindings.crypto_sign_ed25519_pk_to_curve25519(public_key)
    except (exceptions.CryptoError, exceptions.ValueError, exceptions.TypeError, RuntimeError) as error:
        raise OutrouteError("these 32 bytes are no public key of a node", code="identity.key") from error
    return found


def signing_keys(exchange: bytes) -> tuple[bytes, bytes]:
    """The two node keys, one of them the sender's, from which a public Curve25519 key follows, 32 bytes each.

    The map between the curves forgets one bit, the sign. Whoever proves the Curve25519 key can sign with one of these
    only by being that node, so a list of admitted nodes may be asked for both.

    Source: RFC 7748, section 4.1: y = (u - 1) / (u + 1).
    """
    u = int.from_bytes(exchange, "little") & (2**255 - 1)
    y = (u - 1) * pow(u + 1, -1, _FIELD) % _FIELD if (u + 1) % _FIELD else 0
    return y.to_bytes(KEY_BYTES, "little"), (y | 1 << 255).to_bytes(KEY_BYTES, "little")
