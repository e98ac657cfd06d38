"""What a node over NATS says of itself: what it promises, who is there, what goes wrong, what it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from outroute.transports.channel import Secrets
from outroute.transports.contract import Announcement, Capabilities, Traffic
from outroute.transports.keeper import Keeper
from outroute.transports.nats_connection import NatsConnection
from outroute.transports.nats_keeping import Keeping
from outroute.transports.nats_presence import Presence
from outroute.transports.nats_statements import NatsStatements
from outroute.transports.nats_stream import Stream
from outroute.transports.serving import Counted, OwnShelf, named, reasons_of
from outroute.transports.standing import Organisations

__all__ = ["NatsFacts"]


class NatsFacts:
    """The half of ``NatsHolder`` that only looks; ``NatsHolder`` is one and makes the parts."""

    keeper: Keeper
    refused: Counter[int]
    _shelf: OwnShelf | None
    _traffic: Traffic
    _connection: NatsConnection
    _organisations: Organisations
    _presence: Presence
    _stream: Stream | None
    _keeping: Keeping | None
    _statements: NatsStatements | None
    _problems: dict[str, str]

    @property
    def capabilities(self) -> Capabilities:
        """Durable where the stream is; see ``outroute.transports.nats_stream``."""
        return Capabilities(
            durable=self._stream is not None and self._stream.durable,
            ordered=True,
            back_pressure=True,
            secure=self._connection.secure,
        )

    @property
    def traffic(self) -> Traffic:
        """Bytes of frames sent to the servers and received from them."""
        return self._traffic

    @property
    def organisations(self) -> Mapping[bytes, bytes]:
        """Organisation's key by author's key, as far as it is known."""
        return self._organisations

    @property
    def announcements(self) -> Counter[str]:
        """Announcements heard, by what came of them."""
        return self._presence.heard

    @property
    def problems(self) -> Mapping[str, str]:
        """What goes wrong at the moment."""
        found = dict(self._problems)
        if self._connection.problem:
            found["connection"] = self._connection.problem
        for subject, how in dict(self._connection.denied).items():
            found["permission"] = f"this user may not {how} '{subject}': have the permission added at the NATS server"
        for name, part in (("keep", self._keeping), ("statements", self._statements)):
            if part is not None and part.problem:
                found[name] = part.problem
        if self._stream is not None and not self._stream.durable:
            found["durable"] = f"what leaves is replicated, not acknowledged as durable: {self._stream.why}"
        return found

    def peers(self) -> list[Announcement]:
        """Announcements of the nodes that are there, this one's among them, by id."""
        return self._presence.peers()

    def network_size(self) -> int:
        """How many nodes are there."""
        return len(self.peers())

    async def join(self, places: Iterable[str]) -> None:
        """No node is called, also none that this node met on another transport; the servers are in the address."""

    def renew(self, secrets: Secrets) -> None:
        """The servers know who may take part; the network secret plays no part."""

    def sweep(self, now: int) -> None:
        """Delete what has expired from the node's own store."""
        if self._shelf is not None:
            self._shelf.sweep(now)

    def counted(self) -> Iterable[Counted]:
        """The connection's own counts."""
        if self._shelf is not None:
            for name, text, label, values in (
                ("receipts_total", "Packets of the stream taken or not", "receipt", named(self.keeper.receipts)),
                ("refused_frames_total", "Frames refused", "reason", named(self.keeper.refused_frames)),
                ("refused_packets_total", "Packets of the stream refused", "reason", reasons_of(self.refused)),
            ):
                yield Counted(name=name, text=text, label=label, values=values)
        stats = self._connection.statistics()
        yield Counted(name="nats_total", text="Counts of the NATS connection", label="what", values=stats)
