"""The HTTP interface of a running node as a server in a thread of its own."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time

import uvicorn

from outroute.errors import StoreError, TransportError
from outroute.node.joining import Place
from outroute.node.living import LivingNode
from outroute.service.access import Access, is_loopback, load_token
from outroute.service.api import make_app
from outroute.service.connections import REQUESTS_MOST, Connection
from outroute.service.server_file import API_FILE

__all__ = ["Server"]

KEEP_SECONDS = 15
"""Seconds that an idle connection stays open."""
STOP_SECONDS = 5
"""Seconds that requests under way are given when the node stops."""
START_SECONDS = 20.0
"""Seconds that the server may take to begin; it takes a tenth of one."""


class Server:
    """Answers HTTP for a node until it is closed.

    Args:
        living: the node.
        place: where to listen; port 0 for any free one.

    Raises:
        TransportError: the port is taken.
        StoreError: the token cannot be used, or the node's directory not written.
    """

    def __init__(self, living: LivingNode, place: Place) -> None:
        self._file = living.directory / API_FILE
        token = load_token(living.directory)
        host = place.host.strip("[]")
        try:
            self._socket = socket.create_server(
                (host, place.port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
            )
        except OSError as error:
            raise TransportError(
                f"cannot listen on {place} for HTTP ({error.strerror or error}): choose another with --http",
                code="api.listen",
            ) from error
        port = int(self._socket.getsockname()[1])
        self.local = is_loopback(host)
        reached = "127.0.0.1" if place.anywhere else place.host
        self.url = f"http://{reached}:{port}"
        app = Access(make_app(living), token=token, local=self.local)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=Connection,
            ws="none",
            limit_concurrency=REQUESTS_MOST,
            timeout_keep_alive=KEEP_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="outroute-http", daemon=True
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self._thread.start()
        end = time.monotonic() + START_SECONDS
        while not self._server.started and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        if not self._server.started:
            self.close()
            raise TransportError(f"the HTTP interface did not start on {place}: see the log", code="api.start")
        try:
            self._note({"url": self.url, "node": living.id.hex(), "pid": os.getpid()})
        except OSError as error:
            self.close()
            raise StoreError(f"cannot write '{self._file}': {error.strerror}", code="api.file") from None

    def _note(self, content: dict[str, object]) -> None:
        part = self._file.with_name(f".{API_FILE}.part")
        part.write_text(json.dumps(content) + "\n", encoding="utf-8")
        os.replace(part, self._file)

    def close(self) -> None:
        """Answer what is under way, and end."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS + 2)
        self._socket.close()
