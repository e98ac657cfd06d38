"""Certificates of links whose library does TLS itself and hides it: gRPC and Arrow Flight.

Who is there is proved inside, as over our own TLS (see ``channel``), by a hello bound to the certificate that the one
called showed. These libraries do not tell a caller which certificate that was. So the caller looks first: it makes a
TLS connection of its own, takes the certificate, whoever shows it, and then has the library open its connections with
this certificate as the only root that it trusts. What the library reaches is then whoever has the private key of this
very certificate, and no other certificate is under it: each process makes a key of its own and signs nothing else with
it. The hello is bound to the same certificate, and the one called answers it only if it is its own. Who stands between
has the choice of showing his own certificate, for which the hello is worthless elsewhere, or the true one, whose
private key he has not. A restarted process has another certificate: a channel that breaks begins with a new look.

Both sides show certificates (mutual TLS). Those of callers are signed by an authority whose private key is derived
from the network secret, so every member can make one, nobody else can, and strangers do not get past the handshake of
TLS to the large parsers behind it. In an open network the secret is empty and anybody can. While a secret rotates, the
one called trusts the authorities of both, and a caller tries the newest first. This proves no more than membership;
which member it is the hello says.

Source: RFC 5929, section 4 (tls-server-end-point); RFC 5869 (derivation of the key of the authority).
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from outroute.errors import MissingExtraError
from outroute.transports.channel import Secrets
from outroute.transports.tls_context import client_context
from outroute.transports.url import Url, bad

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, Name

__all__ = [
    "SECURITY_MEANS",
    "TLS_NAME",
    "Pair",
    "Papers",
    "Shown",
    "keep_quiet",
    "look",
    "own_certificate",
    "place_parts",
    "secure_by",
]

SECURITY_MEANS = "on (default): mutual TLS; off: everybody on the way can read and change frames"
"""What the option ``security`` of a URL means."""

TLS_NAME = "outroute"
"""The name in every certificate: it says nothing, but libraries want to compare one."""

_BEGIN = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_END = _BEGIN + datetime.timedelta(days=36_500)
"""Nobody looks at the time of these certificates; a clock that is wrong must not break a channel."""
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group P-256 (SEC 2, section 2.4.2); 48 derived bytes modulo it are even to within 2**-128."""
_DERIVED_BYTES = 48
_FIRST_BYTES = 9
"""Bytes of the frame header with which a server of HTTP/2 begins once it has taken a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A private key and its certificate, both PEM."""

    key: bytes
    certificate: bytes

    def __repr__(self) -> str:
        return "Pair(...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The certificate that somebody shows.

    Attributes:
        certificate: PEM.
        digest: SHA-256 of its DER form: what hellos are bound to.
    """

    certificate: bytes
    digest: bytes


def keep_quiet() -> None:
    """Have the gRPC in these libraries write nothing to standard error, where the node's own log is.

    It would write what strangers do. Whoever looks for a fault sets the variable.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def own_certificate(extra: str) -> tuple[Pair, Shown]:
    """A fresh certificate for one that is called, signed by nobody but itself.

    Raises:
        MissingExtraError: the package ``cryptography`` is missing; names the extra.
    """
    ec = _curves(extra)
    key = ec.generate_private_key(ec.SECP256R1())
    made = _made(key, _name(TLS_NAME), key, _name(TLS_NAME))
    return _pair(key, made), Shown(certificate=_pem(made), digest=_digest(made))


class Papers:
    """What a member shows as a caller, and which callers' certificates it trusts; made anew when the secrets change.

    Args:
        extra: of the link, for the message when a package is missing.
    """

    def __init__(self, extra: str) -> None:
        self._extra = extra
        self._made: tuple[Secrets, tuple[Pair, ...], bytes] | None = None

    def pairs(self, secrets: Secrets) -> tuple[Pair, ...]:
        """A certificate for each secret that is known, newest first; one where there is none."""
        return self._of(secrets)[1]

    def roots(self, secrets: Secrets) -> bytes:
        """The authorities of all secrets that are known, PEM."""
        return self._of(secrets)[2]

    def _of(self, secrets: Secrets) -> tuple[Secrets, tuple[Pair, ...], bytes]:
        made = self._made
        if made is None or made[0] != secrets:
            ec = _curves(self._extra)
            pairs, roots = [], b""
            for secret in secrets.known or (b"",):
                authority, name = _authority(secret)
                roots += _pem(_made(authority, name, authority, name, authority=True))
                own = ec.generate_private_key(ec.SECP256R1())
                pairs.append(_pair(own, _made(own, _name(TLS_NAME), authority, name)))
            made = self._made = secrets, tuple(pairs), roots
        return made


async def look(host: str, port: int, pairs: tuple[Pair, ...]) -> tuple[Shown, Pair] | None:
    """The certificate that is shown at a place, and which of some pairs is taken there; None when none is.

    Args:
        host, port: the place.
        pairs: for the caller, tried in order.

    Raises:
        OSError: nobody is there, or not with TLS.
    """
    for pair in pairs:
        context = client_context()
        context.set_alpn_protocols(["h2"])
        with tempfile.TemporaryDirectory(prefix="outroute-") as folder:  # the engine reads files only
            path = Path(folder) / "caller.pem"
            path.touch(0o600)
            path.write_bytes(pair.key + pair.certificate)
            context.load_cert_chain(path)
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="")
        try:
            shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            # TLS 1.3 tells a caller that its certificate is refused only after its own part of the handshake.
            await reader.readexactly(_FIRST_BYTES)
        except (asyncio.IncompleteReadError, ssl.SSLError, ConnectionError):
            continue
        finally:
            writer.transport.abort()
        certificate = ssl.DER_cert_to_PEM_cert(shown).encode()
        return Shown(certificate=certificate, digest=hashlib.sha256(shown).digest()), pair
    return None


def place_parts(place: str) -> tuple[str, int]:
    """Host, without brackets, and port of a place for which ``is_place`` is true."""
    host, _, port = place.rpartition(":")
    return host.strip("[]"), int(port)


def secure_by(url: Url, options: Mapping[str, str]) -> bool:
    """Whether the links of a URL have TLS.

    Args:
        url: its only option is ``security``, on or off; it has no path.
        options: those that its transport has.

    Raises:
        TransportError: it cannot be used.
    """
    url.only(options)
    if url.path not in ("", "/"):
        raise bad(url.text, f"{url.scheme}:// has no path")
    said = url.options.get("security", "on")
    if said not in ("on", "off"):
        raise bad(url.text, "security is on or off")
    return said == "on"


def _curves(extra: str):  # type: ignore[no-untyped-def]
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingExtraError(extra, "a link with TLS") from error
    return ec


def _name(text: str) -> Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _authority(secret: bytes) -> tuple[EllipticCurvePrivateKey, Name]:
    """The authority of a network; its name tells two of them apart and gives nothing away."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    def derive(what: bytes, length: int) -> bytes:
        return HKDF(hashes.SHA256(), length, salt=None, info=b"outroute callers v1\0" + what).derive(secret)

    number = int.from_bytes(derive(b"key", _DERIVED_BYTES), "big") % (_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1()), _name(f"{TLS_NAME} {derive(b'name', 8).hex()}")


def _made(
    key: EllipticCurvePrivateKey,
    name: Name,
    signer: EllipticCurvePrivateKey,
    issuer: Name,
    *,
    authority: bool = False,
) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(TLS_NAME)]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _pem(made: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return made.public_bytes(Encoding.PEM)


def _digest(made: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return hashlib.sha256(made.public_bytes(Encoding.DER)).digest()


def _pair(key: EllipticCurvePrivateKey, made: Certificate) -> Pair:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(key=private, certificate=_pem(made))
