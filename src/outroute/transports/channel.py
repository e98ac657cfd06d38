"""The handshake of a direct channel, as pure functions of bytes.

TLS 1.3 carries everything; its certificate is made anew by every process and says nothing about who is there. Who is
there is proved inside: either side signs, with its node key, the fingerprint of that very certificate and the other's
node id. So nobody can pass a proof on (his certificate is another), and outsiders do not even see node keys. In a
closed network either side proves too that it knows the network secret, the current or the previous one while it
rotates; the caller proves it first, so a stranger learns nothing from the one called.

| hello, bytes | field |
|---|---|
| 4 | ``ORC`` and version 1 |
| 32 | the caller's public key |
| 32 | nonce |
| 32 + 32 | proof of each secret that the caller knows, newest first; zero where there is none |
| 64 | signature by the caller |

| reply, bytes | field |
|---|---|
| 4 | ``ORC`` and version 1 |
| 32 | public key of the one called |
| 1 | which proof of the hello it recognised: 1 or 2; 0 in an open network |
| 32 | proof of that secret; zero in an open network |
| 64 | signature by the one called |

Source: DESIGN section 5 and RFC 8446; the binding to the certificate follows RFC 5929, section 4
(tls-server-end-point).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum, unique

from outroute.errors import TransportError
from outroute.identity import Identity, Purpose, node_id, verify

__all__ = [
    "ANYBODY",
    "HELLO_BYTES",
    "REPLY_BYTES",
    "SECRETS_KNOWN",
    "SECRET_BYTES",
    "Accepted",
    "ChannelReason",
    "Secrets",
    "answer_hello",
    "check_reply",
    "make_hello",
]

SECRET_BYTES = 32
"""Bytes of a network secret: as many as the hash that proves it."""
ANYBODY = bytes(32)
"""In place of the id of the node called: whoever is there. Only its announcements, each signed by its own member, are
read over such a channel: it is how a newcomer begins that knows a place and nobody's key."""
SECRETS_KNOWN = 2
"""The current and the previous secret, while it rotates."""

_MAGIC = b"ORC\x01"
_HELLO = struct.Struct("<4s32s32s32s32s64s")
_REPLY = struct.Struct("<4s32sB32s64s")
HELLO_BYTES, REPLY_BYTES = _HELLO.size, _REPLY.size
_NO_PROOF = bytes(32)


@unique
class ChannelReason(IntEnum):
    """Why a channel is refused; the numbers are stable."""

    #: Not the bytes of a handshake of this version.
    MALFORMED = 1
    #: The network secret is not known to the other side, or one side belongs to an open network.
    SECRET = 2
    #: The signature is wrong, or it is another node than the one called.
    IDENTITY = 3
    #: The node is not admitted: revoked, or not on the list of members.
    NOT_ADMITTED = 4


@dataclass(frozen=True, slots=True)
class Secrets:
    """The network secrets that a node knows, newest first; none in an open network.

    Raises:
        TransportError: more than two, or one that has not 32 bytes.
    """

    known: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if len(self.known) > SECRETS_KNOWN or any(len(secret) != SECRET_BYTES for secret in self.known):
            raise TransportError(
                f"a network has one secret of {SECRET_BYTES} bytes, and the previous one while it rotates",
                code="transport.secret",
            )

    def __repr__(self) -> str:
        return f"Secrets({len(self.known)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The other side has proved who it is.

    Attributes:
        key: its public key, 32 bytes.
        reply: what the one called sends back; empty at the caller.
    """

    key: bytes
    reply: bytes = b""


def _proof(secret: bytes, side: bytes, transcript: bytes) -> bytes:
    return hmac.new(secret, b"outroute channel v1\0" + side + transcript, hashlib.sha256).digest()


def make_hello(identity: Identity, *, called: bytes, certificate: bytes, nonce: bytes, secrets: Secrets) -> bytes:
    """What a caller says first.

    Args:
        identity: the caller's.
        called: id of the node that it wants to reach, 32 bytes, or ``ANYBODY``.
        certificate: SHA-256 of the TLS certificate (DER) that the other side showed, 32 bytes.
        nonce: 32 fresh bytes.
        secrets: the network secrets that it knows.
    """
    transcript = certificate + called + identity.public_key + nonce
    proofs = [_proof(secret, b"caller", transcript) for secret in secrets.known]
    proofs += [_NO_PROOF] * (SECRETS_KNOWN - len(proofs))
    signature = identity.sign(Purpose.CHANNEL, b"caller" + transcript + b"".join(proofs))
    return _HELLO.pack(_MAGIC, identity.public_key, nonce, *proofs, signature)


def answer_hello(identity: Identity, hello: bytes, *, certificate: bytes, secrets: Secrets) -> Accepted | ChannelReason:
    """Check a caller's hello; what to send back, or why not.

    Args:
        identity: of the node called.
        hello: as received.
        certificate: SHA-256 of the own TLS certificate (DER), 32 bytes.
        secrets: the network secrets known here.
    """
    if len(hello) != HELLO_BYTES or not hello.startswith(_MAGIC):
        return ChannelReason.MALFORMED
    _, key, nonce, *proofs, signature = _HELLO.unpack(hello)
    for called in (identity.id, ANYBODY):
        transcript = certificate + called + key + nonce
        if verify(Purpose.CHANNEL, key, b"caller" + transcript + b"".join(proofs), signature):
            break
    else:
        return ChannelReason.IDENTITY
    which, proof = 0, _NO_PROOF
    if secrets.known:
        for secret in secrets.known:
            wanted = _proof(secret, b"caller", transcript)
            for place, given in enumerate(proofs, 1):
                if not which and hmac.compare_digest(wanted, given):
                    which, proof = place, _proof(secret, b"called", transcript)
    if bool(which) != bool(secrets.known) or (not which and any(given != _NO_PROOF for given in proofs)):
        return ChannelReason.SECRET
    body = _reply_body(hello, identity.public_key, which, proof)
    return Accepted(
        key=key,
        reply=_REPLY.pack(
            _MAGIC, identity.public_key, which, proof, identity.sign(Purpose.CHANNEL, b"called" + certificate + body)
        ),
    )


def check_reply(
    reply: bytes, hello: bytes, *, called: bytes, certificate: bytes, secrets: Secrets
) -> Accepted | ChannelReason:
    """Check what the one called sent back.

    Args:
        reply: as received.
        hello: as sent.
        called, certificate, secrets: as for ``make_hello``.
    """
    if len(reply) != REPLY_BYTES or not reply.startswith(_MAGIC):
        return ChannelReason.MALFORMED
    _, key, which, proof, signature = _REPLY.unpack(reply)
    if called not in (node_id(key), ANYBODY):
        return ChannelReason.IDENTITY
    if secrets.known:
        if not 1 <= which <= len(secrets.known):
            return ChannelReason.SECRET
        _, own, nonce, *_ = _HELLO.unpack(hello)
        wanted = _proof(secrets.known[which - 1], b"called", certificate + called + own + nonce)
        if not hmac.compare_digest(wanted, proof):
            return ChannelReason.SECRET
    elif which or proof != _NO_PROOF:
        return ChannelReason.SECRET
    if not verify(Purpose.CHANNEL, key, b"called" + certificate + _reply_body(hello, key, which, proof), signature):
        return ChannelReason.IDENTITY
    return Accepted(key=key)


def _reply_body(hello: bytes, key: bytes, which: int, proof: bytes) -> bytes:
    return hashlib.sha256(hello).digest() + key + bytes([which]) + proof
