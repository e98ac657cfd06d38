"""Connections of the HTTP interface: bounded in number, and in the time until a request has come.

The server itself waits for the rest of a request for ever, and counts a connection only once it has asked something.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["CONNECTIONS_MOST", "HEADER_SECONDS", "REQUESTS_MOST", "Connection"]

REQUESTS_MOST = 128
"""Requests at a time; more are told to come again."""
CONNECTIONS_MOST = 2 * REQUESTS_MOST
"""Connections at a time; more are closed at once. The second half are those that are told to come again."""
HEADER_SECONDS = 10.0
"""Seconds from a connection, or from the end of the request before, until the next request's headers are there."""
FLUSH_SECONDS = 30.0
"""Seconds that a connection may take to read the rest of an answer when it is being closed."""


class Connection(H11Protocol):
    """One connection; see ``asyncio.Protocol``."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        if len(self.connections) >= CONNECTIONS_MOST:
            transport.abort()
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request have come."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self._stop_watching()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for a while."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(FLUSH_SECONDS, self.transport.abort)

    def _watch(self) -> None:
        """While no request is being answered, one has to come in time, however its bytes are spread."""
        answering: Any = self.cycle
        if answering is not None and not answering.response_complete:
            self._stop_watching()
        elif self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(HEADER_SECONDS, self._end)

    def _stop_watching(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.abort()
