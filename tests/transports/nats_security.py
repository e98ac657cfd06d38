"""Keys, certificates and credentials for NATS in tests, made anew each time."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
from pathlib import Path

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["certificates", "creds_file", "nkey_file", "operator"]

_VALID = datetime.timedelta(days=2)


def _written(path: Path, data: bytes) -> Path:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(data)
    return path


def certificates(directory: Path, *names: str) -> None:
    """An authority (``ca.pem``), and a certificate (``NAME.pem``, ``NAME.key``) for each name, all on 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])

    def certificate(name: str, key: ec.EllipticCurvePrivateKey, *, own: bool) -> x509.Certificate:
        subject = issuer if own else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        usage = x509.KeyUsage(
            digital_signature=not own,
            key_cert_sign=own,
            crl_sign=own,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _VALID)
            .not_valid_after(now + _VALID)
            .add_extension(x509.BasicConstraints(ca=own, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        )
        return (built if own else built.add_extension(place, critical=False)).sign(authority, hashes.SHA256())

    _written(directory / "ca.pem", certificate("", authority, own=True).public_bytes(serialization.Encoding.PEM))
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        made = certificate(name, key, own=False)
        _written(directory / f"{name}.pem", made.public_bytes(serialization.Encoding.PEM))
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _written(directory / f"{name}.key", secret)


class _Pair:
    def __init__(self, prefix: int) -> None:
        self.seed = bytes(nkeys.encode_seed(os.urandom(32), prefix))
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._pair.public_key.decode()

    def signed(self, name: str, subject: str, claims: dict[str, object]) -> str:
        def part(value: object) -> str:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

        body = {"jti": os.urandom(8).hex(), "iat": 1_700_000_000, "iss": self.public, "name": name, "sub": subject}
        text = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(body | {'nats': claims | {'version': 2}})}"
        return f"{text}.{base64.urlsafe_b64encode(self._pair.sign(text.encode())).rstrip(b'=').decode()}"


def nkey_file(path: Path) -> str:
    """A file with the seed of a new user; its public key."""
    pair = _Pair(nkeys.PREFIX_BYTE_USER)
    _written(path, pair.seed)
    return pair.public


def operator(directory: Path) -> tuple[str, Path]:
    """A server's configuration with an operator and one account, and the credentials file of a user in it."""
    boss, user = _Pair(nkeys.PREFIX_BYTE_OPERATOR), _Pair(nkeys.PREFIX_BYTE_USER)
    account, system = _Pair(nkeys.PREFIX_BYTE_ACCOUNT), _Pair(nkeys.PREFIX_BYTE_ACCOUNT)
    free_of = ("subs", "conn", "leaf", "imports", "exports", "data", "payload")
    names = (*free_of, "mem_storage", "disk_storage", "streams", "consumer")
    limits = dict.fromkeys(names, -1) | {"wildcards": True}
    own = boss.signed("operator", boss.public, {"type": "operator"})
    theirs = boss.signed("account", account.public, {"type": "account", "limits": limits})
    free = {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
    token = account.signed("user", user.public, free)
    inner = {"type": "account", "limits": dict.fromkeys(free_of, -1) | {"wildcards": True}}
    preload = f"{account.public}: {theirs}, {system.public}: {boss.signed('system', system.public, inner)}"
    config = f"operator: {own}\nsystem_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{ {preload} }}\n"
    return config, creds_file(directory / "user.creds", token, user.seed)


def creds_file(path: Path, token: str, seed: bytes) -> Path:
    """A credentials file as NATS' own tools write it."""
    text = (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return _written(path, text.encode())
