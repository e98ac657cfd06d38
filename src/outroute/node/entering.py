"""A node enters its network: it takes a port, and calls whoever it knows a place of."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from outroute.errors import OutrouteError, TransportError
from outroute.node.joining import Joining, Place, kept_peers
from outroute.node.members import Pinned
from outroute.node.meshing import Mesh
from outroute.node.portal import run
from outroute.transports.dht import DhtFinder
from outroute.transports.serving import StartedTransport

__all__ = ["Entering"]

PORT_ATTEMPTS = 8
"""Attempts to find one number that is free for TCP and UDP."""


class Entering:
    """The way of one node into its network.

    Args:
        transport: not started yet.
        finder: its node of the table, not started yet; None for no table.
        joining: how it takes part.
        directory: the node's.
        pinned: the list of members that it goes by.
        key: its public key.
    """

    def __init__(
        self,
        transport: Mesh | StartedTransport,
        finder: DhtFinder | None,
        *,
        joining: Joining,
        directory: Path,
        pinned: Pinned | None,
        key: bytes,
    ) -> None:
        self._transport, self._finder, self._joining = transport, finder, joining
        self._directory, self._pinned, self._key = directory, pinned, key

    def enter(self) -> dict[str, str]:
        """Take a port, and join; what went wrong and is tried again later.

        Raises:
            TransportError: a port is taken, or nobody answered and this node was in no network before.
        """
        if isinstance(self._transport, Mesh):
            self._take_port(self._transport)
        else:
            run(self._transport.start())
        try:
            run(self._transport.join(map(str, self.places())))
        except OutrouteError as error:
            if not kept_peers(self._directory) and self._joining.join:
                raise
            return {"join": str(error)}
        return {}

    def _take_port(self, mesh: Mesh) -> None:
        listen = self._joining.listen
        for attempt in range(PORT_ATTEMPTS):
            try:
                self._listen(mesh, listen if attempt or listen.port else replace(listen, port=self._joining.prefer))
                break
            except TransportError as error:
                # A free UDP port may be a taken TCP port: another one, unless this one was asked for.
                if error.code != "transport.listen" or listen.port or attempt == PORT_ATTEMPTS - 1:
                    raise
                if self._finder is not None:
                    run(self._finder.close())

    def _listen(self, mesh: Mesh, listen: Place) -> None:
        port = listen.port
        if self._finder is not None:
            bootstrap = [(place.host.strip("[]"), place.port) for place in self.places()]
            host = "" if listen.anywhere or not _is_ipv4(listen.host) else listen.host
            udp = self._finder.start(host=host, port=self._joining.dht or port, bootstrap=bootstrap)
            port = port or (udp if not self._joining.dht else 0)
        advertise = self._joining.advertise
        run(mesh.start(listen.host, port, advertise=None if advertise is None else str(advertise)))

    def places(self) -> list[Place]:
        """Whom to call: those named, those listed, those met before; this node itself left out."""
        listed = [] if self._pinned is None else self._pinned.places(self._key)
        kept = kept_peers(self._directory)
        if isinstance(self._transport, Mesh):  # it may have been on another transport before
            kept = [place for place in kept if self._transport.link.is_place(str(place))]
        found = dict.fromkeys([*self._joining.join, *listed, *kept])
        return [place for place in found if str(place) != self._transport.endpoint]

    def abandon(self) -> None:
        """Close what was opened, when the start failed."""
        with contextlib.suppress(OutrouteError):
            run(self._transport.stop())
        if self._finder is not None:
            run(self._finder.close())


def _is_ipv4(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(part.isdecimal() and int(part) < 256 for part in parts)
