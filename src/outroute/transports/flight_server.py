"""The Flight server of a member: frames of other members, and tables of packets for any Arrow client.

| call | descriptor or ticket | what it does |
|---|---|---|
| handshake | | a hello (``channel``), answered by a reply and a token that every later call carries |
| do_exchange | path ``frames`` | frames of members, requests and replies |
| do_put | path ``packets``, schema id in hex | deposits a table of packets with the owners of their cells |
| get_flight_info | the same, or with facet and cell after it | tickets, one for each cell |
| do_get | a ticket | the packets of a cell as a table, from its owners, each verified |
| list_flights | | the schemas that are served |

Threads are those of the library, one for each call under way; here are the bounds of what they may do.
"""

from __future__ import annotations

import secrets as random_bytes
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
from numpy.typing import NDArray

from outroute.transports.answering import deposits
from outroute.transports.flight_answering import Answering
from outroute.transports.flight_client import FRAMES
from outroute.transports.flight_tables import batch_of, message_of, packets_in, table_schema, told_of
from outroute.transports.frames import FRAME_BYTES, FRAME_PACKETS
from outroute.transports.links import CALLERS_MOST, SKIPPED_BYTES

if TYPE_CHECKING:
    from outroute.packet import PacketArray

__all__ = ["PACKETS", "TOKEN_BYTES", "Caller", "Desk", "Sessions", "Tables", "serve"]

PACKETS = b"packets"
"""First word of the descriptors of tables."""
TOKEN_BYTES = 32
"""Bytes of a session's token: nobody guesses it."""
SESSION_SECONDS = 3600.0
"""Seconds after its last call that a session lasts."""
SESSIONS_PER_NODE = 8
"""Sessions of one node at a time; the oldest has to go."""
CALLS_MOST = 64
"""Calls under way at a time; each holds a thread of the library's, a stream of frames one more."""
ENDPOINTS_MOST = 4096
"""Cells in one answer; a schema with more is asked cell by cell."""
FAREWELL = bytes(5)
"""Metadata of the message that says: this server goes, end your streams. No exchange has the number 0."""
_TICKET = struct.Struct("<4s32sQI")
_TICKET_MAGIC = b"ORT\x01"


@dataclass(slots=True)
class Caller:
    """Somebody who proved who it is.

    Attributes:
        id: of its node.
        key: its public key.
        seen: monotonic seconds of its last call.
    """

    id: bytes
    key: bytes
    seen: float


class Sessions:
    """Who is behind a token; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[bytes, Caller] = {}

    def open(self, id: bytes, key: bytes) -> bytes:
        """A new session; its token."""
        token, now = random_bytes.token_bytes(TOKEN_BYTES), time.monotonic()
        with self._lock:
            own = [name for name, one in self._known.items() if one.id == id]
            old = [name for name, one in self._known.items() if one.seen < now - SESSION_SECONDS]
            for name in (*own[: max(0, len(own) - SESSIONS_PER_NODE + 1)], *old):
                self._known.pop(name, None)
            while len(self._known) >= CALLERS_MOST:
                del self._known[min(self._known, key=lambda name: self._known[name].seen)]
            self._known[token] = Caller(id, key, now)
        return token

    def of(self, token: bytes) -> Caller | None:
        """Who it is; None when there is no such session (any more)."""
        now = time.monotonic()
        with self._lock:
            found = self._known.get(token)
            if found is None or found.seen < now - SESSION_SECONDS:
                return None
            found.seen = now
            return found


class Desk(Protocol):
    """What the server needs of its link; called in any thread."""

    def greeted(self, hello: bytes) -> tuple[bytes, bytes | None]:
        """What to send back to a hello, and the public key of who is let in."""

    def admitted(self, key: bytes) -> bool:
        """Whether a node is still admitted."""

    def entered(self, sender: bytes) -> bool:
        """One more stream of frames; ``left`` has to follow either way."""

    def left(self, sender: bytes) -> None:
        """A stream of frames has ended."""

    def handed(self, caller: Caller, frame: bytes) -> Future[list[list[bytes]] | None]:
        """What will be the frames of a reply, alone in a list."""

    def hold_up(self, sender: bytes, replies: Sequence[bytes]) -> float:
        """Seconds to wait after the frames of a reply, before the next frame of a caller."""

    def drop(self, why: str) -> None:
        """Count something that was cut off."""


class Tables(Protocol):
    """What a member offers to Arrow clients; called in any thread."""

    def cells(self, schema: bytes) -> tuple[int, int] | None:
        """How many facet combinations and cells a schema has; None when it is not served."""

    def schemas(self) -> list[bytes]:
        """Ids of the schemas that are served."""

    def deposit(self, schema: bytes, packets: PacketArray) -> NDArray[np.uint8]:
        """Deposit packets, uint8[n, 2]: an ``outroute.transports.flight_offer.State``, and why one was refused."""

    def fetch(self, schema: bytes, facet: int, cell: int) -> PacketArray:
        """The packets of a cell."""


class _Handshakes(flight.ServerAuthHandler):  # type: ignore[misc]
    """Sessions begin with a hello."""

    def __init__(self, desk: Desk, sessions: Sessions, id_of: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._desk, self._sessions, self._id_of = desk, sessions, id_of

    def authenticate(self, outgoing: Any, incoming: Any) -> None:
        reply, key = self._desk.greeted(bytes(incoming.read()))
        outgoing.write(reply if key is None else reply + self._sessions.open(self._id_of(key), key))

    def is_valid(self, token: bytes) -> bytes:
        if not token or self._sessions.of(bytes(token)) is None:
            raise flight.FlightUnauthenticatedError("no session: begin with a handshake")
        return bytes(token)


class Stream:
    """A stream of frames under way; its writer is used by one thread at a time."""

    def __init__(self, writer: Any) -> None:
        self._writer, self._lock, self._over = writer, threading.Lock(), False

    def say(self, number: int, frames: Sequence[bytes]) -> None:
        """The frames of a reply."""
        with self._lock:
            for at, frame in enumerate(frames, 1):
                head, batch = message_of(number, frame, more=at < len(frames))
                if batch is None:
                    self._writer.write_metadata(head)
                else:
                    self._writer.write_with_metadata(batch, head)

    def farewell(self) -> None:
        """Ask whoever is at the other end to end the stream."""
        with self._lock:
            if not self._over:
                self._writer.write_metadata(FAREWELL)

    def end(self) -> None:
        """It ends: nobody may write to it any more, the library would abort the process."""
        with self._lock:
            self._over = True


class Server(flight.FlightServerBase):  # type: ignore[misc]
    """See the module; made by ``serve``."""

    def __init__(self, desk: Desk, tables: Tables | None, sessions: Sessions, **options: Any) -> None:
        super().__init__(**options)
        self._desk, self._tables, self._sessions = desk, tables, sessions
        self._calls = threading.BoundedSemaphore(CALLS_MOST)
        self.streams: set[Stream] = set()

    def _caller(self, context: Any) -> Caller:
        found = self._sessions.of(context.peer_identity())
        if found is None or not self._desk.admitted(found.key):
            raise flight.FlightUnauthorizedError("no longer admitted")
        return found

    def _begin(self) -> None:
        if not self._calls.acquire(blocking=False):
            self._desk.drop("full")
            raise flight.FlightUnavailableError("too many calls at a time: try again")

    def _chunks(self, reader: Any) -> Iterator[Any]:
        """What a caller sends, until it ends."""
        while True:
            try:
                chunk = reader.read_chunk()
            except StopIteration:
                return
            except pa.ArrowInvalid:
                self._desk.drop("malformed")
                raise
            yield chunk

    # frames -------------------------------------------------------------------------------------------------

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Frames of another member."""
        caller = self._caller(context)
        if descriptor.path != [FRAMES]:
            raise flight.FlightServerError("there is one exchange: path 'frames'")
        self._begin()
        stream = Stream(writer)
        try:
            if not self._desk.entered(caller.id):
                raise flight.FlightUnavailableError("this node has streams enough here")
            writer.begin(table_schema())
            self.streams.add(stream)
            self._frames(caller, reader, stream)
        finally:
            stream.end()
            self.streams.discard(stream)
            self._desk.left(caller.id)
            self._calls.release()

    def _frames(self, caller: Caller, reader: Any, stream: Stream) -> None:
        answering = Answering(stream.say, lambda replies: self._desk.hold_up(caller.id, replies))
        try:
            for chunk in self._chunks(reader):
                found = told_of(chunk, SKIPPED_BYTES)
                if found is None:
                    big = len(chunk.app_metadata or b"") > FRAME_BYTES or (
                        chunk.data is not None and chunk.data.num_rows
                    )
                    self._desk.drop("oversized" if big else "malformed")
                    raise flight.FlightServerError("a message over the limit, or none")
                if not self._desk.admitted(caller.key):  # revoked meanwhile
                    raise flight.FlightUnauthorizedError("no longer admitted")
                number, _, frame = found
                answering.enter(number, partial(self._desk.handed, caller, frame), alone=not deposits(frame))
        finally:
            answering.finish()

    # tables -------------------------------------------------------------------------------------------------

    def _of(self, path: Sequence[bytes]) -> tuple[Tables, bytes, tuple[int, int] | None]:
        """The tables, the schema and the cell (facet, number) that a path names."""
        words = [bytes(word).decode("ascii", "replace") for word in path]
        if self._tables is None or len(words) not in (2, 4) or words[0] != PACKETS.decode():
            raise flight.FlightServerError("there are tables at: packets, SCHEMA-ID[, FACET, CELL]")
        try:
            schema = bytes.fromhex(words[1])
            facet, cell = (int(word) for word in words[2:]) if len(words) == 4 else (0, -1)
        except ValueError:
            raise flight.FlightServerError("a schema id is 64 hexadecimal digits, facet and cell are numbers") from None
        count = self._tables.cells(schema)
        if count is None:
            raise flight.FlightServerError("this schema is not served here")
        if len(words) == 2:
            return self._tables, schema, None
        if not (0 <= facet < count[0] and 0 <= cell < count[1]):
            raise flight.FlightServerError(f"facets of this schema: 0 to {count[0] - 1}, cells: 0 to {count[1] - 1}")
        return self._tables, schema, (facet, cell)

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """A table of packets; two bytes for each packet come back after each batch."""
        self._caller(context)
        tables, schema, _ = self._of(descriptor.path)
        self._begin()
        try:
            for chunk in self._chunks(reader):
                packets = None if chunk.data is None else packets_in(chunk.data)
                if packets is None:
                    self._desk.drop("malformed")
                    raise flight.FlightServerError("a table of packets has one column of 512 bytes, none of them null")
                self._caller(context)
                for at in range(0, len(packets), FRAME_PACKETS):
                    found = tables.deposit(schema, packets[at : at + FRAME_PACKETS])
                    writer.write(pa.py_buffer(np.ascontiguousarray(found).tobytes()))
        finally:
            self._calls.release()

    def do_get(self, context: Any, ticket: Any) -> Any:
        """The packets of a cell."""
        self._caller(context)
        data = bytes(ticket.ticket)
        if len(data) != _TICKET.size or not data.startswith(_TICKET_MAGIC):
            raise flight.FlightServerError("no ticket of this server: ask for one with get_flight_info")
        _, schema, facet, cell = _TICKET.unpack(data)
        tables, _, _ = self._of([PACKETS, schema.hex().encode(), b"%d" % facet, b"%d" % cell])
        self._begin()
        try:
            found = tables.fetch(schema, facet, cell)
        finally:
            self._calls.release()
        batches = [batch_of(found[at : at + FRAME_PACKETS]) for at in range(0, len(found), FRAME_PACKETS)]
        return flight.RecordBatchStream(pa.Table.from_batches(batches, table_schema()))

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        """Tickets: of one cell, or of all cells of a schema."""
        self._caller(context)
        return self._info(descriptor.path)

    def _info(self, path: Sequence[bytes]) -> Any:
        tables, schema, one = self._of(path)
        facets, cells = tables.cells(schema) or (0, 0)
        if one is None and facets * cells > ENDPOINTS_MOST:
            raise flight.FlightServerError(f"{facets * cells} cells: ask for one after the other, with FACET and CELL")
        wanted = [one] if one is not None else [(facet, cell) for facet in range(facets) for cell in range(cells)]
        points = [flight.FlightEndpoint(_TICKET.pack(_TICKET_MAGIC, schema, *cell), []) for cell in wanted]
        return flight.FlightInfo(table_schema(), flight.FlightDescriptor.for_path(*path), points, -1, -1)

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[Any]:
        """The schemas that are served."""
        self._caller(context)
        for schema in [] if self._tables is None else self._tables.schemas():
            path = (PACKETS, schema.hex().encode())
            yield flight.FlightInfo(table_schema(), flight.FlightDescriptor.for_path(*path), [], -1, -1)


def serve(desk: Desk, tables: Tables | None, id_of: Callable[[bytes], bytes], **options: Any) -> Server:
    """A server that takes calls from now on.

    Args:
        desk: its link.
        tables: what it offers to Arrow clients besides; None for nothing.
        id_of: a node's id by its public key.
        options: of ``pyarrow.flight.FlightServerBase``.

    Raises:
        pyarrow.ArrowException: the place cannot be used.
    """
    sessions = Sessions()
    return Server(desk, tables, sessions, auth_handler=_Handshakes(desk, sessions, id_of), **options)
