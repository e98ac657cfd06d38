"""Who may use a node's HTTP interface, and how much may be sent to it.

The interface is for this machine unless its operator says otherwise. A token is always needed for what changes
something or shows what has not left yet, and for everything when the interface is reachable from elsewhere. On this
machine only requests that name it are answered, so that no web page can reach it under another name.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from outroute.errors import StoreError

__all__ = ["BODY_BYTES", "BODY_SECONDS", "OPEN_PATHS", "TOKEN_FILE", "Access", "is_loopback", "load_token"]

TOKEN_FILE = "api.token"
"""In a node's directory, mode 0600."""
BODY_BYTES = 16 * 1024 * 1024
"""Bytes of a request: some 10,000 observations of 100 fields."""
BODY_SECONDS = 30.0
"""Seconds that a request may take to arrive."""
OPEN_PATHS = ("/health", "/peers", "/metrics", "/openapi.json", "/cells/", "/status")
"""What may be read on this machine without the token; what others know anyway, and counts."""
_LINGER_SECONDS = 1.0
"""So long a sender of too much is listened to before it is told so."""
_TOKEN_BYTES = 1024

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def load_token(directory: Path, *, create: bool = True) -> str:
    """The token of a node's interface; made on first use.

    Raises:
        StoreError: it cannot be read or written, or others may read it.
    """
    path = directory / TOKEN_FILE
    try:
        if create:
            try:
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                    file.write(secrets.token_urlsafe(32) + "\n")
            except FileExistsError:
                pass
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise StoreError(f"others may read '{path}': chmod 600 {path}", code="api.token")
        with open(path, encoding="ascii", errors="replace") as file:
            token = file.read(_TOKEN_BYTES).strip()
    except OSError as error:
        raise StoreError(f"cannot use the token file '{path}': {error.strerror}", code="api.token") from None
    if not token:
        raise StoreError(f"the token file '{path}' is empty: delete it, and start the node again", code="api.token")
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host name or address."""
    host = host.strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """Lets requests through that may pass, and cuts off what is too large or too slow (ASGI).

    Args:
        app: what answers.
        token: of the interface.
        local: whether only this machine reaches it.
        body_bytes, body_seconds: bounds of a request.
    """

    def __init__(
        self,
        app: App,
        *,
        token: str,
        local: bool,
        body_bytes: int = BODY_BYTES,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._app, self._local = app, local
        self._bearer = b"Bearer " + token.encode()
        self._bytes, self._seconds = body_bytes, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._local and not is_loopback(_host_of(headers.get(b"host", b"").decode("latin-1"))):
            await _refuse(send, 421, "api.host", "ask for 127.0.0.1 or localhost: this interface is for this machine")
            return
        if not self._may(scope, headers):
            await _refuse(
                send, 401, "api.token", f"send the token from the node's file {TOKEN_FILE}: Authorization: Bearer TOKEN"
            )
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self._bytes:
            await _let_pass(receive, self._bytes)
            await _refuse(
                send, 413, "api.size", f"a request has at most {self._bytes:,} bytes: send fewer rows at once"
            )
            return
        body = b""
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    if len(body) > self._bytes:
                        await _let_pass(receive, self._bytes)
                        await _refuse(
                            send,
                            413,
                            "api.size",
                            f"a request has at most {self._bytes:,} bytes: send fewer rows at once",
                        )
                        return
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            await _refuse(send, 408, "api.slow", f"a request arrives within {self._seconds:g} seconds")
            return
        given = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    def _may(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        if hmac.compare_digest(headers.get(b"authorization", b""), self._bearer):
            return True
        path = str(scope["path"])
        free = any(path == one or (one.endswith("/") and path.startswith(one)) for one in OPEN_PATHS)
        return self._local and free and scope["method"] in ("GET", "HEAD")


def _host_of(header: str) -> str:
    """The host of a ``Host`` header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0]


async def _let_pass(receive: Receive, most: int) -> None:
    """Read on for a moment what will not be used: who still sends would see a broken connection not the reason."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            passed = 0
            while passed < most:
                message = await receive()
                passed += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
