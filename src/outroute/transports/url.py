"""How a transport is written: ``SCHEME://[HOST[:PORT]][/PATH][?OPTION=VALUE&...]``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from outroute.errors import TransportError

__all__ = ["URL_CHARACTERS", "Url", "parse_url"]

URL_CHARACTERS = 2048
"""Characters of a URL, at most: a cluster of servers and a path to credentials have room."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """A transport's URL, taken apart.

    Attributes:
        scheme: which transport, in small letters.
        host: empty when the URL names none.
        port: 0 when the URL names none.
        path: what follows the host, with its first slash, decoded; empty when there is none.
        place: ``HOST:PORT``, or several with commas between them, as written; what a transport of servers reads.
        options: by name.
        text: the URL without user name and password, for messages.
        user: user name, or empty.
        password: or empty; never shown.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    place: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.text

    def only(self, known: Iterable[str]) -> None:
        """Refuse options that a transport does not have.

        Raises:
            TransportError: there is such an option.
        """
        names = sorted(known)
        for name in self.options:
            if name not in names:
                has = f"it has {', '.join(names)}" if names else "it has none"
                raise bad(self.text, f"{self.scheme}:// has no option '{name[:40]}'; {has}")


def bad(text: str, why: str) -> TransportError:
    """The error for a URL that cannot be used."""
    return TransportError(f"'{text[:200]}': {why}", code="transport.url")


def parse_url(text: str) -> Url:
    """Take a URL apart.

    Args:
        text: what somebody wrote; a scheme alone (``zeromq``) counts as ``zeromq://``.

    Raises:
        TransportError: it is no URL of a transport.
    """
    text = text.strip()
    if _SCHEME.fullmatch(text):
        text += "://"
    shown = re.sub(r"//[^/?#]*@", "//", text)
    if len(text) > URL_CHARACTERS or not text.isprintable():
        raise bad(shown, f"a URL has at most {URL_CHARACTERS} characters, all of them printable")
    scheme, colon, _ = text.partition("://")
    if not colon or not _SCHEME.fullmatch(scheme.lower()):
        raise bad(shown, "write a transport as SCHEME://..., for example dht:// or zeromq://0.0.0.0:7411")
    try:
        parts = urlsplit(text, allow_fragments=False)
        account, _, place = parts.netloc.rpartition("@")
        several = "," in place
        host, port = ("", 0) if several else (parts.hostname or "", parts.port or 0)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise bad(shown, f"no URL ({error})") from None
    user, _, password = account.partition(":")
    return Url(
        scheme=scheme.lower(),
        host=f"[{host}]" if ":" in host else host,
        port=port,
        path=unquote(parts.path),
        place=place,
        options=options,
        text=shown,
        user=unquote(user),
        password=unquote(password),
    )
