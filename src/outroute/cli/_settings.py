"""How a node was started last, so that it starts the same way from its directory alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outroute.cli._common import write_files
from outroute.errors import DataError, StoreError, TransportError

if TYPE_CHECKING:
    from outroute.node.discretion import Discretion
    from outroute.node.electing import Electing
    from outroute.node.joining import Joining
    from outroute.schema import Schema
    from outroute.synthesis import Settings as SynthesisSettings
    from outroute.transports.url import Url

__all__ = ["SETTINGS_FILE", "Settings"]

SETTINGS_FILE = "node.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options of ``outroute node``, as text; empty where nobody said anything. ``port`` is the one used last."""

    transport: str = ""
    listen: str = ""
    port: int = 0
    advertise: str = ""
    join: list[str] = field(default_factory=list)
    dht: str = ""
    http: str = ""
    roles: str = ""
    secret_file: str = ""
    members: str = ""
    open: bool = False
    budget: str = ""
    questions: str = ""
    calculations: str = ""
    ageing: str = ""

    @classmethod
    def kept(cls, directory: Path, given: Mapping[str, Any]) -> Settings:
        """Those kept in a directory, under what is given now.

        Raises:
            StoreError: the file is damaged.
        """
        file = directory / SETTINGS_FILE
        old: dict[str, Any] = {}
        if file.exists():
            try:
                old = json.loads(file.read_text(encoding="utf-8"))
                old = {one.name: old[one.name] for one in fields(cls) if one.name in old}
            except (ValueError, TypeError) as error:
                raise StoreError(
                    f"'{file}' is damaged: delete it and give the options again", code="node.settings"
                ) from (error)
        if given.get("open"):
            old |= {"secret_file": "", "members": ""}
        elif given.get("secret_file") or given.get("members"):
            old["open"] = False
        if given.get("transport"):
            old |= _moved(old, given)
        return cls(**(old | {name: value for name, value in given.items() if value}))

    def keep(self, directory: Path) -> None:
        """Keep them for the next start."""
        content = json.dumps({name: value for name, value in asdict(self).items() if value}, indent=2) + "\n"
        file = directory / SETTINGS_FILE
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            write_files({file: content}, force=True)

    def secret(self, directory: Path) -> Path:
        """The file with the network secret, where there is one."""
        from outroute.node.joining import SECRET_FILE

        return Path(self.secret_file) if self.secret_file else directory / SECRET_FILE

    def electing(self) -> Electing:
        """How the node elects.

        Raises:
            DataError: the budget is no number of packets, or goes together with ageing; ageing is neither on nor off.
        """
        from outroute.node.electing import Electing

        if self.ageing not in ("", "on", "off"):
            raise DataError(f"--ageing is on or off: not {self.ageing!r}", code="data.ageing")
        ageing = self.ageing == "on"
        if self.budget in ("", "all"):
            return Electing(ageing=ageing)
        if not (self.budget.isascii() and self.budget.isdigit()):
            raise DataError(f"--budget is a number of packets, or all: not {self.budget!r}", code="data.budget")
        return Electing(budget=int(self.budget), ageing=ageing)

    def discretion(self) -> Discretion:
        """How much more than needed the node asks for.

        Raises:
            DataError: that is no way of asking.
        """
        from outroute.node.discretion import Discretion

        return Discretion.parse(self.questions or "plain")

    def synthesis(self) -> SynthesisSettings:
        """Which calculations take part in the node's answers.

        Raises:
            DataError: there is no such calculation.
        """
        from outroute.synthesis import Settings as SynthesisSettings
        from outroute.synthesis.settings import NAMES

        wanted = tuple(name.strip() for name in self.calculations.split(",") if name.strip())
        if self.calculations in ("", "all"):
            return SynthesisSettings()
        unknown = [name for name in wanted if name not in NAMES]
        if unknown or not wanted:
            what = f"'{unknown[0]}' is none" if unknown else "there is none"
            raise DataError(f"--calculations: {what}; name some of {', '.join(NAMES)}", code="data.calculations")
        return SynthesisSettings(calculations=wanted)

    def joining(self, directory: Path, schema: Schema) -> Joining:
        """How the node takes part.

        Raises:
            TransportError: a place, role or port cannot be read, or a closed network's secret is missing.
            StoreError: the secret cannot be read or made.
        """
        from outroute.node.joining import (
            DEFAULT_TRANSPORT,
            SECRET_FILE,
            Joining,
            load_secrets,
            make_secret,
            member_place,
            place_of,
            roles_of,
        )
        from outroute.schema import Distiller
        from outroute.transports.channel import Secrets
        from outroute.transports.registry import link_type
        from outroute.transports.url import parse_url

        url = parse_url(self.transport or DEFAULT_TRANSPORT)
        links = link_type(url)
        written = "" if links is None or not url.host else f"{url.host}:{url.port}"
        place = place_of(self.listen or written or "127.0.0.1:0", default_host="127.0.0.1")
        join = tuple(member_place(one, default_host="127.0.0.1") for one in self.join)
        for one in join:
            if links is not None and not links.is_place(str(one)):
                raise TransportError(f"--join: '{one}' is no place: {links.place_hint}", code="transport.endpoint")
        own = directory / SECRET_FILE
        if self.open or self.members:
            secrets = load_secrets(Path(self.secret_file)) if self.secret_file else Secrets()
        elif self.secret_file:
            secrets = load_secrets(Path(self.secret_file))
        elif own.exists():
            secrets = load_secrets(own)
        elif schema.privacy.distiller is Distiller.SINGLE:
            secrets = Secrets()
        elif join:
            raise TransportError(
                f"this schema's networks are closed: give --secret-file with the network's secret (a copy of the file "
                f"{SECRET_FILE} in the first node's directory), or --members with its list of members; --open for a "
                "network of anybody",
                code="transport.secret",
            )
        else:
            secrets = make_secret(directory)
        closed = bool(secrets.known) or bool(self.members)
        return Joining(
            listen=place,
            prefer=self.port,
            advertise=place_of(self.advertise) if self.advertise else None,
            join=join,
            dht=_dht(self.dht or ("off" if closed else "auto"), url),
            secrets=secrets,
            members=Path(self.members) if self.members else None,
            roles=roles_of(self.roles or "emit,ask,hold"),
            transport=url,
        )


def _moved(old: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options kept from before that say nothing any more under the transport given now.

    Raises:
        TransportError: the transport is no URL, or it and --listen name two places.
    """
    from outroute.node.joining import DEFAULT_TRANSPORT
    from outroute.transports.url import parse_url

    now, before = parse_url(given["transport"]), parse_url(old.get("transport") or DEFAULT_TRANSPORT)
    if now.host and given.get("listen"):
        raise TransportError(
            f"{now} says where to listen: leave --listen out, or the place in the URL", code="transport.url"
        )
    other = now.scheme != before.scheme
    return ({"listen": ""} if now.host else {}) | ({"join": [], "dht": "", "advertise": ""} if other else {})


def _dht(text: str, url: Url) -> int | None:
    """UDP port of the table: 0 for the link's number, None for none."""
    if url.scheme != "dht" and text not in ("off", "auto"):
        raise TransportError(f"--dht belongs to dht://, {url.scheme}:// does without", code="transport.dht")
    if text == "off" or url.scheme != "dht":
        return None
    if text == "on":
        return 0
    if text == "auto":
        from importlib.util import find_spec

        return None if find_spec("opendht") is None else 0
    if text.isdecimal() and 0 < int(text) < 65_536:
        return int(text)
    raise TransportError(f"--dht takes a port, on or off, not '{text[:20]}'", code="transport.dht")
