"""The line of a link: TLS 1.3 with a certificate made anew by every process (who is there is proved inside, see
``channel``), over TCP that notices when the other end is away."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import socket
import ssl
import tempfile
from pathlib import Path

from outroute.errors import TransportError

__all__ = ["QUIET_SECONDS", "UNHEARD_SECONDS", "client_context", "notice_end", "server_context"]

QUIET_SECONDS = 30
"""Seconds after which an idle connection is tried; its other end may have been cut off and not know of it."""
UNHEARD_SECONDS = 15
"""Seconds without an acknowledgement after which a connection ends. Left to itself TCP waits twice as long from
attempt to attempt: after a cut of a minute a connection would go on only a minute after the line is mended."""
_ATTEMPTS = 3

_LIFETIME = datetime.timedelta(days=36_500)
"""Nobody looks at the time of this certificate; a clock that is wrong must not break the channel."""


def notice_end(line: asyncio.BaseTransport) -> None:
    """Have the system end a connection whose other end is away, as far as it can be told to."""
    found = line.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", QUIET_SECONDS),
        ("TCP_KEEPALIVE", QUIET_SECONDS),  # its name on macOS
        ("TCP_KEEPINTVL", UNHEARD_SECONDS // _ATTEMPTS),
        ("TCP_KEEPCNT", _ATTEMPTS),
        ("TCP_USER_TIMEOUT", 1000 * UNHEARD_SECONDS),
    ):
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def client_context() -> ssl.SSLContext:
    """For those who call: encrypts, and leaves it to our own handshake to prove who was reached."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def server_context() -> tuple[ssl.SSLContext, bytes]:
    """For those who are called: a context with a fresh certificate, and the SHA-256 of that certificate.

    Raises:
        TransportError: the package ``cryptography`` is missing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise TransportError(
            "a node that others reach needs the extra 'dht': pip install 'outroute[dht]'", code="transport.extra"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "outroute")])
    begin = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + _LIFETIME)
        .sign(key, hashes.SHA256())
    )
    shown = made.public_bytes(serialization.Encoding.DER)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory(prefix="outroute-") as folder:  # the engine reads files only
        path = Path(folder) / "channel.pem"
        path.touch(0o600)
        path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(path)
    return context, hashlib.sha256(shown).digest()
