"""Transports by the scheme of their URL: those that come with outroute, and plug-ins.

A plug-in is one class, registered as an entry point of the group ``outroute.transports`` whose name is the scheme::

    [project.entry-points."outroute.transports"]
    shared = "outroute_shared:SharedLink"

The class says what it is in class attributes, all of them optional:

* ``about``: one line; ``url``: how its URL is written; ``options``: what each option of the URL means, by name;
* ``capabilities``: see ``Capabilities`` (``durable`` means: as ``outroute node`` uses it, with its store on disk).

And it is one of two kinds:

* **A link** carries frames between two nodes; everything else (who is there, copies, repair, receipts) is done above
  it. It has ``from_url(url) -> LinkMaker``, and what that makes is a ``MemberLink``. A subclass of
  ``outroute.transports.linking.LinkBase`` has everything but ``listen`` and ``connect``.
* **A holder** keeps packets and answers addresses by itself, because it is a store that others run. It has
  ``for_node(url, setting) -> NodeTransport`` with ``start()``; see ``outroute.transports.serving`` for both. The node
  calls ``start``, then ``join`` with the places that the user named (if any), then ``deposit`` and ``fetch`` as it
  needs, and ``close`` at the end (``stop`` and ``abandon`` instead when starting failed).

What comes with outroute stands in ``BUILT_IN``; nothing of it is imported before it is used.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from outroute.errors import MissingExtraError, TransportError
from outroute.transports.contract import Capabilities
from outroute.transports.links import LinkMaker
from outroute.transports.nats_options import OPTIONS
from outroute.transports.serving import Setting, StartedTransport
from outroute.transports.url import Url, bad, parse_url

__all__ = ["BUILT_IN", "GROUP", "Entry", "entry_of", "holder_of", "installed", "link_of", "link_type"]

GROUP = "outroute.transports"
"""The group of entry points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A transport that can be named.

    Attributes:
        scheme: of its URLs.
        about: what it is, in one line.
        url: how its URL is written.
        target: its class, ``module:name``.
        capabilities: what it promises, as ``outroute node`` uses it; None when the plug-in does not say.
        options: what each option of the URL means.
        extra: what to install, ``pip install 'outroute[EXTRA]'``; empty when nothing.
        needs: modules that the extra brings.
        plugin: the package that brings it; empty for those of outroute.
        problem: why it cannot be used, when a plug-in is broken.
    """

    scheme: str
    about: str
    url: str
    target: str
    capabilities: Capabilities | None
    options: Mapping[str, str] = field(default_factory=dict)
    extra: str = ""
    needs: tuple[str, ...] = ()
    plugin: str = ""
    problem: str = ""

    @property
    def installed(self) -> bool:
        """Whether everything that it needs is there."""
        return not self.problem and all(importlib.util.find_spec(name) is not None for name in self.needs)

    def load(self) -> Any:
        """Its class.

        Raises:
            MissingExtraError: a part of it is not installed.
            TransportError: the plug-in is broken.
        """
        if self.problem:
            raise TransportError(f"the transport {self.scheme}:// {self.problem}", code="transport.plugin")
        if not self.installed:
            raise MissingExtraError(self.extra, f"the transport {self.scheme}://")
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


_ALL = Capabilities(durable=True, ordered=True, back_pressure=True, secure=True)

_SECURITY = "on (default): mutual TLS; off: everybody on the way can read and change frames"

BUILT_IN: tuple[Entry, ...] = (
    Entry(
        scheme="dht",
        about="TLS links between nodes that find each other in a DHT and by telling each other; the default",
        url="dht://[HOST:PORT]",
        target="outroute.transports.tls:TlsLink",
        capabilities=_ALL,
        extra="dht",
        needs=("cryptography",),  # what the table needs is said where it is asked for: not every system has it
    ),
    Entry(
        scheme="direct",
        about="TLS links between nodes that find each other by telling each other alone",
        url="direct://[HOST:PORT]",
        target="outroute.transports.tls:TlsLink",
        capabilities=_ALL,
        extra="dht",
        needs=("cryptography",),
    ),
    Entry(
        scheme="local",
        about="nodes of one process, for trying things out; outroute node is alone with it",
        url="local://",
        target="outroute.transports.inside:InsideLink",
        capabilities=_ALL,
    ),
    Entry(
        scheme="zeromq",
        about="ZeroMQ between nodes: ROUTER and DEALER, CURVE keys that follow from node keys, an allow-list",
        url="zeromq://[HOST:PORT][?security=off]",
        target="outroute.transports.zeromq:ZeroMqLink",
        capabilities=_ALL,
        options={"security": "on (default): CURVE; off: nothing is encrypted or proved, on this machine only"},
        extra="zeromq",
        needs=("zmq",),
    ),
    Entry(
        scheme="grpc",
        about="gRPC streams between nodes, mutual TLS, reflection",
        url="grpc://[HOST:PORT][?security=off]",
        target="outroute.transports.grpc_link:GrpcLink",
        capabilities=_ALL,
        options={"security": _SECURITY},
        extra="grpc",
        needs=("grpc", "grpc_reflection", "cryptography"),
    ),
    Entry(
        scheme="flight",
        about="Arrow Flight between nodes, packets as tables for any Arrow client, mutual TLS",
        url="flight://[HOST:PORT][?security=off]",
        target="outroute.transports.flight_link:FlightLink",
        capabilities=_ALL,
        options={"security": _SECURITY},
        extra="flight",
        needs=("pyarrow", "cryptography"),
    ),
    Entry(
        scheme="nats",
        about="NATS JetStream, servers that others run; durable and secure as far as these are set up so",
        url="nats://HOST:PORT[,HOST:PORT][?options=FILE]",
        target="outroute.transports.nats:NatsHolder",
        capabilities=Capabilities(durable=False, ordered=True, back_pressure=True, secure=False),
        options=OPTIONS,
        extra="nats",
        needs=("nats", "nkeys"),
    ),
)
"""What comes with outroute, by how much a user has to know; one entry a transport."""


def installed() -> list[Entry]:
    """All transports, those of outroute first, then plug-ins by name. A plug-in does not replace one of outroute's."""
    found = {entry.scheme: entry for entry in BUILT_IN}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda one: one.name):
        if point.name not in found:
            found[point.name] = _plugin(point)
    return list(found.values())


def _plugin(point: metadata.EntryPoint) -> Entry:
    package = point.dist.name if point.dist is not None else point.value
    try:
        loaded = point.load()
        kind = any(callable(getattr(loaded, name, None)) for name in ("from_url", "for_node"))
        problem = "" if kind else f"of the package '{package}' has neither from_url nor for_node: ask its authors"
    except Exception as error:  # noqa: BLE001  (somebody else's code: whatever it raises is shown, not passed on)
        loaded, problem = None, f"of the package '{package}' cannot be loaded ({type(error).__name__}: {error})"
    capabilities = getattr(loaded, "capabilities", None)
    return Entry(
        scheme=point.name,
        about=str(getattr(loaded, "about", "") or f"from the package {package}"),
        url=str(getattr(loaded, "url", "") or f"{point.name}://"),
        target=point.value,
        capabilities=capabilities if isinstance(capabilities, Capabilities) else None,
        options=dict(getattr(loaded, "options", None) or {}),
        plugin=package,
        problem=problem,
    )


def entry_of(url: Url) -> Entry:
    """The transport of a URL.

    Raises:
        TransportError: there is none; the message names those that are.
    """
    entries = {entry.scheme: entry for entry in installed()}
    if url.scheme not in entries:
        known = ", ".join(f"{name}://" for name in entries)
        raise bad(str(url), f"there is no transport '{url.scheme}'; there are {known} (see outroute transports)")
    return entries[url.scheme]


def link_type(url: Url) -> Any | None:
    """The class of a URL's links; None when its transport is a holder by itself.

    Raises:
        MissingExtraError: a part of it is not installed.
        TransportError: there is no such transport, or the URL of a link cannot be used.
    """
    found = entry_of(url).load()
    if not hasattr(found, "from_url"):
        return None
    if url.user or url.password or "," in url.place:
        raise bad(str(url), f"{url.scheme}:// names one place and nobody: write {url.scheme}://HOST:PORT")
    found.from_url(url)
    return found


def link_of(url: Url | str) -> LinkMaker:
    """What makes the links of a URL.

    Raises:
        MissingExtraError: a part of it is not installed.
        TransportError: there is no such transport, it has no links, or the URL cannot be used.
    """
    url = parse_url(url) if isinstance(url, str) else url
    found = link_type(url)
    if found is None:
        raise bad(str(url), f"{url.scheme}:// is a store that others run, it has no links between nodes")
    made: LinkMaker = found.from_url(url)
    return made


def holder_of(url: Url, setting: Setting) -> StartedTransport:
    """The transport of a URL that is a ``Holder`` by itself, not started yet.

    Raises:
        MissingExtraError: a part of it is not installed.
        TransportError: there is no such transport, or the URL cannot be used.
    """
    made: StartedTransport = entry_of(url).load().for_node(url, setting)
    return made
