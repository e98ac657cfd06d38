"""One connection to NATS: it opens once or says in one line why not, and then comes back by itself for ever.

A request ends with a reply, an error of JetStream's, a refusal for want of a permission, or not in time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from outroute.errors import MissingExtraError, TransportError
from outroute.transports.contract import UnreachableError
from outroute.transports.nats_options import NatsOptions

if TYPE_CHECKING:
    from nats.aio.client import Client, Server
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["API_SECONDS", "ApiError", "DeniedError", "NatsConnection"]

CONNECT_SECONDS = 5
"""Seconds for a server to take a connection, handshakes included."""
BACK_OFF_SECONDS = (0.1, 5.0)
"""Seconds before the next attempt to reconnect: the first, and the most it grows to; drawn around, so that all nodes
do not come at once."""
API_SECONDS = 5.0
"""Seconds for an answer of JetStream's own interface; a new leader takes some."""
PING_SECONDS = 20
"""Seconds between signs of life; two that stay unanswered end the connection."""
PENDING_BYTES = 16 << 20
"""Bytes that wait to be sent while servers are away: all frames in flight, several times over."""

_log = logging.getLogger("outroute.nats")
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)


class ApiError(Exception):
    """JetStream said no.

    Attributes:
        code: like HTTP's.
        number: JetStream's own.
    """

    def __init__(self, code: int, number: int, text: str) -> None:
        super().__init__(text)
        self.code, self.number = code, number

    @classmethod
    def of(cls, error: Mapping[str, Any]) -> ApiError:
        """From the ``error`` of a reply."""
        code, number = error.get("code"), error.get("err_code")
        return cls(
            code if isinstance(code, int) else 0,
            number if isinstance(number, int) else 0,
            str(error.get("description", ""))[:200],
        )


class DeniedError(TransportError):
    """This user may not do that: the message names the subject to allow."""

    def __init__(self, what: str, subject: str) -> None:
        super().__init__(
            f"the NATS server does not let this user {what} '{subject}': have the permission added", code="nats.denied"
        )


class NatsConnection:
    """A connection, and what went wrong with it.

    Args:
        options: where and as whom.
        name: shown in the servers' monitoring.
    """

    def __init__(self, options: NatsOptions, name: str) -> None:
        self.options, self._name = options, name
        self.problem = ""
        """What is wrong with the connection now; empty while it stands."""
        self.denied: dict[str, str] = {}
        """Subjects that this user may not use, and how."""
        self.on_return: Callable[[], Awaitable[None]] | None = None
        """Called after each reconnection."""
        self.on_end: Callable[[], Awaitable[None]] | None = None
        """Called when the servers ended the connection for good: credentials that were withdrawn, say."""
        self._client: Client | None = None
        self._attempts = 0
        self._asking: dict[str, set[asyncio.Task[Msg]]] = {}
        self._last: Exception | None = None
        self._closing = False

    @property
    def client(self) -> Client:
        """The client of nats-py.

        Raises:
            UnreachableError: not connected.
        """
        if self._client is None:
            raise UnreachableError("not connected to NATS", code="nats.unreachable")
        return self._client

    @property
    def up(self) -> bool:
        """Whether a server is connected now."""
        return self._client is not None and self._client.is_connected

    @property
    def version(self) -> tuple[int, int]:
        """Of the server connected last."""
        match = re.match(r"(\d+)\.(\d+)", str(self._info.get("version", "")))
        return (int(match[1]), int(match[2])) if match else (0, 0)

    @property
    def max_payload(self) -> int:
        """Bytes of a message that the server takes, at most."""
        return int(self._info.get("max_payload", 0)) or 1 << 20

    @property
    def secure(self) -> bool:
        """Whether this node proves who it is, and every byte is encrypted."""
        return self.options.tls and self.options.authenticated

    @property
    def _info(self) -> dict[str, Any]:
        found: dict[str, Any] = {} if self._client is None else self._client._server_info
        return found

    def statistics(self) -> dict[str, int]:
        """Messages, bytes and reconnections so far, as nats-py counts them."""
        return {} if self._client is None else {name: int(value) for name, value in self._client.stats.items()}

    async def open(self) -> None:
        """Connect.

        Raises:
            MissingExtraError: nats-py is not installed.
            TransportError: nobody answers, or this node is refused.
        """
        try:
            from outroute.transports.nats_client import VerifyingClient
        except ImportError as error:
            raise MissingExtraError("nats", "the transport nats") from error
        import nats.errors

        options, login, context = self.options, self._login(), self.options.context()
        if context is not None:
            login["tls"] = context
        if options.inbox:
            login["inbox_prefix"] = options.inbox
        client = VerifyingClient(tls_needed=options.tls)
        self._last, self._closing, self._attempts = None, False, 0
        try:
            await client.connect(
                servers=list(options.servers),
                name=self._name,
                error_cb=self._on_error,
                disconnected_cb=self._on_gone,
                reconnected_cb=self._on_back,
                closed_cb=self._on_closed,
                connect_timeout=CONNECT_SECONDS,
                reconnect_time_wait=0,
                max_reconnect_attempts=1,
                reconnect_to_server_handler=self._next_server,
                ping_interval=PING_SECONDS,
                pending_size=PENDING_BYTES,
                **login,
            )
        except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
            await client.close()
            raise self._failed(self._last or error) from None
        if not client.is_connected:  # hung up on without a word, which nats-py takes for a connection
            await client.close()
            raise self._failed(self._last or ConnectionResetError())
        client.options["max_reconnect_attempts"] = -1  # from now on for ever
        self._client, self.problem = client, ""

    def _login(self) -> dict[str, Any]:
        options = self.options
        if options.creds is not None:
            return {"user_credentials": str(options.creds)}
        if options.nkey is not None:
            return {"nkeys_seed": str(options.nkey)}
        if options.password_file is not None:
            return {"user": options.user, "password": options.secret(options.password_file)}
        if options.token_file is not None:
            return {"token": options.secret(options.token_file)}
        return {}

    def _failed(self, error: Exception) -> TransportError:
        """Why there is no connection, in one line."""
        text, where = str(error), self.options.named
        given = next(
            (str(file) for file in (self.options.creds, self.options.nkey, self.options.password_file) if file), ""
        )
        with_what = f"the credentials of '{given}'" if given else "a node without these credentials"
        advice = "have the user added, or name others with creds, nkey, or user and password_file"
        if "authorization" in text.lower() or "authentication" in text.lower():
            return TransportError(
                f"the NATS server at {where} refuses {with_what}: {advice}",
                code="nats.credentials",
            )
        if isinstance(error, (ConnectionResetError, BrokenPipeError)):
            # A server that refuses says so and hangs up; what it said is lost when the line is reset before it is read.
            # In TLS 1.3 a certificate that it misses is among that: this side's handshake is over before it is asked.
            wants = (
                "wants a certificate of this node's (cert and key), or refuses"
                if self.options.tls and self.options.cert is None
                else "refuses"
            )
            return TransportError(
                f"who answers at {where} hung up while this node logged in: a NATS server that {wants} {with_what}, "
                f"or no NATS server. {advice.capitalize()}; or look whether the address is right",
                code="nats.credentials",
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate is not accepted ({error.verify_message}): name its authority with ca"
            return TransportError(f"the NATS server at {where}: {why}", code="nats.certificate")
        if isinstance(error, ssl.SSLError):
            return TransportError(
                f"no TLS with the NATS server at {where} ({error.reason or 'it hung up'}): it may want a certificate "
                "of this node's, cert and key",
                code="nats.certificate",
            )
        if "secure connection" in text.lower():
            return TransportError(
                f"the NATS server at {where} does not speak TLS: have it added there, or leave out tls, ca and cert",
                code="nats.certificate",
            )
        why = getattr(error, "strerror", None) or ("no answer in time" if isinstance(error, TimeoutError) else text)
        return TransportError(
            f"no NATS server answers at {where} ({why or type(error).__name__}): is it running, and is the address "
            "right?",
            code="nats.unreachable",
        )

    # what the client tells ----------------------------------------------------------------------------------

    def _next_server(self, servers: list[Server], _: Mapping[str, Any]) -> tuple[Server | None, float]:
        """Whom to call next, and after how many seconds."""
        first, most = BACK_OFF_SECONDS
        tried = self._attempts
        self._attempts += 1
        delay = min(first * 2.0 ** min(tried // max(len(servers), 1), 10), most)
        return servers[tried % len(servers)], delay * random.uniform(0.5, 1.0)  # spreads nodes; decides nothing

    async def _on_error(self, error: Exception) -> None:
        self._last = error
        match = _VIOLATION.search(str(error))
        if match is None:
            level = logging.DEBUG if self._client is None else logging.INFO  # at the start it becomes the error itself
            _log.log(level, "nats error", extra={"problem": str(error)[:200]})
            return
        how, subject = match[1].lower(), match[2]
        waiting = [
            name for name in self._asking if name.lower() == subject.lower()
        ]  # nats-py tells it in small letters
        self.denied[waiting[0] if waiting else subject] = how
        for name in waiting:
            for task in self._asking[name]:
                task.cancel()
        _log.warning("permission missing", extra={"subject": subject, "wanted": how})

    async def _on_gone(self) -> None:
        if not self._closing and self._client is not None:
            self.problem = f"the connection to {self.options.named} is gone: it is tried again"
            _log.warning("connection lost")

    async def _on_back(self) -> None:
        self.problem, self._attempts = "", 0
        _log.info("connected again")
        if self.on_return is not None:
            await self.on_return()

    async def _on_closed(self) -> None:
        if self._closing or self._client is None:
            return
        self.problem = str(self._failed(self._last or TimeoutError()))
        _log.warning("connection ended", extra={"problem": self.problem})
        if self.on_end is not None:
            await self.on_end()

    # asking -------------------------------------------------------------------------------------------------

    async def request(
        self, subject: str, payload: bytes, *, seconds: float, headers: dict[str, str] | None = None
    ) -> Msg:
        """Send a request and wait for its reply.

        Raises:
            UnreachableError: no reply in time, or nobody there (``nats.nobody``).
            DeniedError: this user may not send it.
        """
        import nats.errors

        if self.denied.get(subject) == "publish":
            del self.denied[subject]  # permissions may have been added since
        task = asyncio.ensure_future(self.client.request(subject, payload, timeout=seconds, headers=headers))
        self._asking.setdefault(subject, set()).add(task)
        try:
            return await task
        except nats.errors.NoRespondersError:
            raise UnreachableError(f"nobody answers at '{subject}'", code="nats.nobody") from None
        except nats.errors.MaxPayloadError:
            raise TransportError(
                f"the NATS server takes messages of {self.max_payload:,} bytes only: raise max_payload there",
                code="nats.payload",
            ) from None
        except (nats.errors.Error, OSError) as error:
            raise UnreachableError(
                f"NATS does not answer ({type(error).__name__}): {self.problem or subject}", code="nats.unreachable"
            ) from None
        except asyncio.CancelledError:
            if not task.cancelled() or self.denied.get(subject) != "publish":
                task.cancel()
                raise
            raise DeniedError("publish to", subject) from None
        finally:
            waiting = self._asking[subject]
            waiting.discard(task)
            if not waiting:
                del self._asking[subject]

    async def api(
        self, name: str, body: Mapping[str, Any] | None = None, *, seconds: float = API_SECONDS
    ) -> dict[str, Any]:
        """Call JetStream's interface: ``STREAM.INFO.x``, say.

        Raises:
            ApiError: it answers with an error.
            UnreachableError, DeniedError: see ``request``.
        """
        domain = f"$JS.{self.options.domain}.API" if self.options.domain else "$JS.API"
        payload = b"" if body is None else json.dumps(body).encode()
        reply = await self.request(f"{domain}.{name}", payload, seconds=seconds)
        try:
            found = json.loads(reply.data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UnreachableError(f"JetStream answers nonsense to {name}", code="nats.unreachable")
        error = found.get("error")
        if isinstance(error, dict):
            raise ApiError.of(error)
        return found

    async def subscribe(self, subject: str, on: Callable[[Msg], Awaitable[None]], *, queue: str = "") -> Subscription:
        """Take messages in; what waits is bounded by whoever asks for them."""
        return await self.client.subscribe(subject, queue=queue, cb=on)

    async def close(self) -> None:
        """Send what waits, and end the connection; harmless when repeated."""
        import nats.errors

        self._closing = True
        client, self._client = self._client, None
        if client is None:
            return
        try:
            if client.is_connected:
                await client.flush(timeout=CONNECT_SECONDS)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            _log.info("not all was sent", extra={"problem": str(error)[:200]})
        await client.close()
