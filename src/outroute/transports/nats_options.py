"""Where NATS servers are and how to use them: from an address, and a file that it names.

Secrets stay in files of their own. What is wrong is said in one line that never repeats a secret.
"""

from __future__ import annotations

import re
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outroute.errors import TransportError
from outroute.transports.url import Url, bad

__all__ = ["DEFAULT_PORT", "OPTIONS", "NatsOptions", "nats_options"]

DEFAULT_PORT = 4222
"""Port of a NATS server, where the address names none."""
SERVERS_MOST = 32
"""Servers in one address: a cluster has three or five, a supercluster tells the others by itself."""
OPTIONS_BYTES = 65_536
"""Bytes of an options file, at most: it holds a dozen short lines."""
SECRET_BYTES = 4096
"""Bytes of a file with a password or token, at most."""
REPLICAS_MOST = 5
"""Copies of a stream that JetStream allows."""

_HOST = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)
_WORDS = re.compile(r"[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,7}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_MONITOR = re.compile(r"https?://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?", re.ASCII)
_FILES = ("creds", "nkey", "password_file", "token_file", "ca", "cert", "key")

OPTIONS = {
    "options": "TOML file with any of the others; its paths are relative to it",
    "creds": "credentials file of a user (JWT and seed)",
    "nkey": "file with the seed of an NKey",
    "user": "user with a password",
    "password_file": "file with that password",
    "token_file": "file with a token",
    "tls": "on: never speak in the clear; so with ca or cert",
    "ca": "certificates (PEM) that the servers' are checked by; default the system's",
    "cert": "this node's own certificate (PEM), for mutual TLS",
    "key": "its private key (PEM)",
    "prefix": "first words of all subjects; default outroute",
    "domain": "JetStream domain",
    "stream": "name of a stream that an administrator made",
    "replicas": "copies of a stream that is made; default 1",
    "storage": "file (default) or memory, of a stream that is made",
    "keep": "shards that this node keeps, by their first digits (0,1,2,3 is a quarter); default all",
    "sync": "always: all servers have sync_interval: always",
    "monitor": "http://HOST:PORT where servers' monitoring is read, separated by commas",
    "inbox": "prefix of replies, where permissions ask for one",
}
"""The options of an address and of an options file: what each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsOptions:
    """How to reach and use NATS.

    Attributes:
        servers: ``nats://host:port`` each, at least one.
        tls: never speak in the clear.
        creds, nkey, password_file, token_file: files with secrets, of which one at most is used.
        user: name that goes with ``password_file``.
        ca, cert, key: PEM files.
        prefix: first words of all subjects.
        domain: of JetStream; empty for none.
        stream: name of a stream that an administrator made; empty for the one named by prefix and schema.
        replicas: copies of a stream that is made, 1 to 5.
        storage: of a stream that is made, ``file`` or ``memory``.
        keep: first hexadecimal digits of the shards that this node keeps, one or two each; empty for all.
        sync: whether the servers are declared to sync before they acknowledge.
        monitor: where servers' monitoring is read.
        inbox: prefix of replies; empty for the usual one.
    """

    servers: tuple[str, ...]
    tls: bool = False
    creds: Path | None = None
    nkey: Path | None = None
    user: str = ""
    password_file: Path | None = None
    token_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    prefix: str = "outroute"
    domain: str = ""
    stream: str = ""
    replicas: int = 1
    storage: str = "file"
    keep: tuple[str, ...] = ()
    sync: bool = False
    monitor: tuple[str, ...] = ()
    inbox: str = ""

    @property
    def named(self) -> str:
        """The servers, for messages: nothing in it is secret."""
        return ", ".join(self.servers)

    @property
    def authenticated(self) -> bool:
        """Whether this node proves who it is."""
        return any((self.creds, self.nkey, self.password_file, self.token_file, self.cert))

    def context(self) -> ssl.SSLContext | None:
        """What TLS goes by; None where only the clear is spoken.

        Raises:
            TransportError: a certificate cannot be read, or is none.
        """
        if not self.tls:
            return None
        try:
            made = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            made.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert is not None:
                made.load_cert_chain(self.cert, self.key)
        except OSError as error:  # ssl.SSLError is one
            files = ", ".join(f"'{one}'" for one in (self.ca, self.cert, self.key) if one is not None)
            raise TransportError(
                f"the certificates {files} cannot be used: {error.strerror or error}", code="nats.certificate"
            ) from None
        return made

    def secret(self, file: Path) -> str:
        """The one line of a file with a password or a token.

        Raises:
            TransportError: it cannot be read.
        """
        try:
            with open(file, encoding="utf-8") as opened:
                text = opened.read(SECRET_BYTES).strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise TransportError(f"cannot read '{file}': {why}", code="nats.secret") from None
        if not text or "\n" in text:
            raise TransportError(f"'{file}' has to hold one line, the secret", code="nats.secret")
        return text


def nats_options(url: Url, directory: Path | None = None) -> NatsOptions:
    """What an address such as ``nats://a:4222,b:4222?prefix=clinic`` says, and the file that it names, if any.

    Args:
        url: the address.
        directory: of the node: where files are looked for that are not where the command runs.

    Raises:
        TransportError: it cannot be used (``transport.url``, ``nats.option``), or a file is not there (``nats.file``).
    """
    if url.user or url.password:
        raise bad(
            str(url),
            "an address must not hold a user, password or token, which logs and process lists would show: put user "
            "and password_file, token_file, creds or nkey into an options file (?options=nats.toml)",
        )
    if url.path not in ("", "/"):
        raise bad(str(url), "there is something between the servers and the options")
    given: dict[str, Any] = dict(url.options)
    file = given.pop("options", "")
    base = Path()
    if file:
        path = Path(file)
        if directory is not None and not path.exists() and (directory / path).exists():
            path = directory / path
        base = path.parent
        given = {**_read(path), **given}
    elif directory is not None and any(not Path(given.get(name, ".")).exists() for name in _FILES):
        base = directory
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        known = ", ".join(sorted(OPTIONS))
        raise TransportError(f"nats:// has no option '{unknown[0][:40]}'; it has {known}", code="nats.option")
    texts = {name: str(value) for name, value in given.items()}
    files: dict[str, Any] = {name: _file(name, base / texts[name]) for name in _FILES if texts.get(name)}
    made = NatsOptions(
        servers=_servers(url),
        tls=_one_of("tls", texts.get("tls", ""), ("", "on")) == "on" or "ca" in files or "cert" in files,
        user=texts.get("user", ""),
        prefix=_word("prefix", texts.get("prefix", "outroute")),
        domain=_word("domain", texts.get("domain", "")),
        stream=_stream(texts.get("stream", "")),
        replicas=_replicas(texts.get("replicas", "1")),
        storage=_one_of("storage", texts.get("storage", "file"), ("file", "memory")),
        keep=_shards(texts.get("keep", "")),
        sync=_one_of("sync", texts.get("sync", ""), ("", "always")) == "always",
        monitor=_monitors(texts.get("monitor", "")),
        inbox=_word("inbox", texts.get("inbox", "")),
        **files,
    )
    _check_together(made)
    return made


def _check_together(made: NatsOptions) -> None:
    ways = [name for name in ("creds", "nkey", "password_file", "token_file") if getattr(made, name) is not None]
    if len(ways) > 1:
        raise TransportError(f"{' and '.join(ways)} exclude each other: give one", code="nats.option")
    if bool(made.user) != (made.password_file is not None):
        raise TransportError("user and password_file go together: give both", code="nats.option")
    if made.key is not None and made.cert is None:
        raise TransportError("key belongs to a certificate: give cert too", code="nats.option")


def _servers(url: Url) -> tuple[str, ...]:
    names = (url.place or "127.0.0.1").split(",")
    if len(names) > SERVERS_MOST:
        raise bad(str(url), f"it names more than {SERVERS_MOST} servers")
    found = []
    for name in names:
        match = _HOST.fullmatch(name)
        port = int(match[2] or DEFAULT_PORT) if match else 0
        if match is None or not 0 < port < 65_536:
            raise bad(str(url), f"'{name[:60]}' is no HOST:PORT of a NATS server")
        found.append(f"nats://{match[1]}:{port}")
    return tuple(found)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        with open(file, "rb") as opened:
            found = tomllib.loads(opened.read(OPTIONS_BYTES).decode())
    except OSError as error:
        raise TransportError(f"cannot read the options file '{file}': {error.strerror}", code="nats.file") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise TransportError(f"'{file}' is no TOML: write NAME = \"VALUE\", one a line", code="nats.file") from None
    for name, value in found.items():
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            found[name] = ",".join(value)
        elif isinstance(value, bool) or not isinstance(value, str | int):
            raise TransportError(f"'{file}': {name[:40]} is no text, number or list of texts", code="nats.option")
    return found


def _file(name: str, path: Path) -> Path:
    if not path.is_file():
        raise TransportError(f"there is no file '{path}' ({name})", code="nats.file")
    return path.absolute()


def _word(name: str, text: str) -> str:
    if text and not _WORDS.fullmatch(text):
        raise TransportError(
            f"{name} is made of letters, digits, '-' and '_', words separated by dots: not '{text[:40]}'",
            code="nats.option",
        )
    return text


def _stream(text: str) -> str:
    if text and not _NAME.fullmatch(text):
        raise TransportError(f"stream is a name of letters, digits, '-' and '_': not '{text[:40]}'", code="nats.option")
    return text


def _replicas(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= REPLICAS_MOST):
        raise TransportError(f"replicas is a number from 1 to {REPLICAS_MOST}", code="nats.option")
    return int(text)


def _one_of(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise TransportError(
            f"{name} is {' or '.join(one for one in allowed if one)}: not '{text[:40]}'", code="nats.option"
        )
    return text


def _shards(text: str) -> tuple[str, ...]:
    if text in ("", "all"):
        return ()
    found = text.lower().split(",")
    if any(not re.fullmatch("[0-9a-f]{1,2}", one) for one in found):
        raise TransportError(
            "keep names shards by one or two hexadecimal digits, separated by commas: keep=0,1,2,3 is a quarter",
            code="nats.option",
        )
    return tuple(dict.fromkeys(found))


def _monitors(text: str) -> tuple[str, ...]:
    found = tuple(one.rstrip("/") for one in text.split(",") if one)
    if any(not _MONITOR.fullmatch(one) for one in found):
        raise TransportError("monitor is http://HOST:PORT, several separated by commas", code="nats.option")
    return found
