"""A pull consumer: messages come in batches as fast as they are taken, and no faster.

One request for messages is on its way at a time, for as many as may wait here; so a slow reader holds a bounded number,
and the server keeps the rest. What was delivered and not confirmed comes again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outroute.errors import TransportError
from outroute.transports.contract import UnreachableError
from outroute.transports.nats_connection import ApiError, DeniedError, NatsConnection

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["ACK_SECONDS", "ConsumerGoneError", "Progress", "Puller"]

ACK_SECONDS = 30
"""Seconds after which what was delivered and not confirmed is delivered again."""
UNCONFIRMED_MOST = 1024
"""Messages delivered and not confirmed, at most."""
EXPIRES_SECONDS = 30
"""Seconds that a request for messages waits at the server."""
HEARTBEAT_SECONDS = 5
"""Seconds between the server's signs of life while a request waits; after three without one it is asked anew."""
FORGOTTEN_SECONDS = 30 * 86_400
"""Seconds after which the server forgets a durable consumer that nobody uses; its node starts it again from its own
note of where it was."""
EPHEMERAL_SECONDS = 300
"""The same for the consumer of a node that keeps packets in memory: as long as servers may be away."""
REFUSED_SECONDS = (0.05, 2.0)
"""Seconds before a request for messages that was refused is made again: the first, and the most it grows to."""
_NANO = 1_000_000_000
_NOT_FOUND = (10014, 10059)
_MANY_FILTERS_SINCE = (2, 10)


class ConsumerGoneError(Exception):
    """The consumer is not there any more, or no longer usable: bind it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a consumer is.

    Attributes:
        pending: messages not delivered yet.
        unconfirmed: messages delivered and not confirmed.
        delivered: deliveries so far, repetitions among them.
        confirmed: number in the stream up to which everything is confirmed.
    """

    pending: int
    unconfirmed: int
    delivered: int
    confirmed: int

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Progress:
        """From a consumer's info."""
        return cls(
            pending=int(info.get("num_pending", 0)),
            unconfirmed=int(info.get("num_ack_pending", 0)),
            delivered=int(info.get("delivered", {}).get("consumer_seq", 0)),
            confirmed=int(info.get("ack_floor", {}).get("stream_seq", 0)),
        )


class Puller:
    """One consumer of one stream.

    Args:
        connection: carries it.
        stream: the stream's name.
        name: the consumer's.
        filters: subjects that it takes.
        durable: whether it outlives this process.
        most: messages that may wait here.
    """

    def __init__(
        self,
        connection: NatsConnection,
        *,
        stream: str,
        name: str,
        filters: Sequence[str],
        durable: bool,
        most: int,
    ) -> None:
        self._connection, self._stream, self.name = connection, stream, name
        self._filters, self._durable, self._most = list(filters), durable, most
        self._waiting: deque[Msg] = deque()
        self._more = asyncio.Event()
        self._owed = 0
        self._pause = 0.0
        self._broken = ""
        self._subscription: Subscription | None = None
        self._inbox = ""

    async def info(self) -> dict[str, Any] | None:
        """What the server says of it; None where there is none.

        Raises:
            TransportError: the server cannot be asked.
        """
        try:
            return await self._connection.api(f"CONSUMER.INFO.{self._stream}.{self.name}")
        except ApiError as error:
            if error.number in _NOT_FOUND:
                return None
            raise TransportError(f"JetStream says nothing of consumer '{self.name}': {error}") from None

    async def make(self, first: int) -> None:
        """Make it anew, from a message of the stream on (1: from the beginning).

        Raises:
            TransportError: it may not be made, or the server is too old (``nats.consumer``).
        """
        config: dict[str, Any] = {
            "ack_policy": "explicit",
            "ack_wait": ACK_SECONDS * _NANO,
            "max_ack_pending": UNCONFIRMED_MOST,
            "replay_policy": "instant",
            "deliver_policy": "by_start_sequence" if first > 1 else "all",
            "inactive_threshold": (FORGOTTEN_SECONDS if self._durable else EPHEMERAL_SECONDS) * _NANO,
            **({"opt_start_seq": first} if first > 1 else {}),
            **({"durable_name": self.name} if self._durable else {"name": self.name, "mem_storage": True}),
        }
        subject = f"CONSUMER.CREATE.{self._stream}.{self.name}"
        if len(self._filters) == 1:
            config["filter_subject"] = self._filters[0]
            subject += f".{self._filters[0]}"
        elif self._connection.version >= _MANY_FILTERS_SINCE:
            config["filter_subjects"] = self._filters
        else:
            raise TransportError(
                "several parts of the shards at once need a NATS server of 2.10 or newer: keep all, or one part",
                code="nats.consumer",
            )
        try:
            await self._connection.api(subject, {"stream_name": self._stream, "config": config})
        except (ApiError, DeniedError) as error:
            raise TransportError(
                f"consumer '{self.name}' of stream '{self._stream}' cannot be made: {error}", code="nats.consumer"
            ) from None

    async def remove(self) -> None:
        """Delete it; that it is not there is no matter.

        Raises:
            TransportError: it may not be deleted.
        """
        try:
            await self._connection.api(f"CONSUMER.DELETE.{self._stream}.{self.name}")
        except ApiError as error:
            if error.number not in _NOT_FOUND:
                raise TransportError(
                    f"consumer '{self.name}' cannot be deleted: {error}", code="nats.consumer"
                ) from None

    async def listen(self) -> None:
        """Be ready to take messages."""
        await self.deafen()
        self._inbox = self._connection.client.new_inbox()
        self._subscription = await self._connection.subscribe(self._inbox, self._on)
        self._broken, self._owed = "", 0

    async def deafen(self) -> None:
        """Take no more; what waits here is forgotten and comes again."""
        subscription, self._subscription = self._subscription, None
        self._waiting.clear()
        if subscription is not None and self._connection.up:
            await subscription.unsubscribe()

    def ask_again(self) -> None:
        """Requests on their way may be lost: the connection was."""
        self._owed = 0
        self._more.set()

    def bind_again(self, why: str) -> None:
        """Let ``pull`` end, once nothing waits here any more: what was on its way may be lost."""
        self._broken = why
        self._more.set()

    async def _on(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status") if not message.data else None
        if status is None or message.subject != self._inbox:
            self._owed -= 1
            self._pause = 0.0
            self._waiting.append(message)
        elif status != "100":
            self._owed = 0  # this request is over
            text = str((message.headers or {}).get("Description", "")).lower()
            if status == "409" and ("deleted" in text or "push based" in text):
                self._broken = text
            if status not in ("404", "408"):  # not because its time was over: a server that starts, a leader that goes
                first, most = REFUSED_SECONDS
                self._pause = min(max(2 * self._pause, first), most)
        self._more.set()

    async def pull(self, most: int) -> list[Msg]:
        """Up to so many messages, at least one, as soon as there are any.

        Raises:
            ConsumerGoneError: bind it again.
            UnreachableError: the server cannot be asked.
        """
        while not self._waiting:
            if self._broken:
                raise ConsumerGoneError(self._broken)
            if self._owed <= 0:
                if self._pause:
                    await asyncio.sleep(self._pause)
                    if await self.info() is None:
                        raise ConsumerGoneError("the server does not know it any more")
                await self._ask()
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), 3 * HEARTBEAT_SECONDS)
            except TimeoutError:
                self._owed = 0
                if await self.info() is None:
                    raise ConsumerGoneError("the server does not know it any more") from None
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        if self._owed <= 0 and not self._waiting:
            await self._ask()  # on its way while these are worked on
        return taken

    async def _ask(self) -> None:
        import nats.errors

        domain = self._connection.options.domain
        api = f"$JS.{domain}.API" if domain else "$JS.API"
        wanted = {
            "batch": self._most,
            "expires": EXPIRES_SECONDS * _NANO,
            "idle_heartbeat": HEARTBEAT_SECONDS * _NANO,
        }
        subject = f"{api}.CONSUMER.MSG.NEXT.{self._stream}.{self.name}"
        try:
            await self._connection.client.publish(subject, json.dumps(wanted).encode(), reply=self._inbox)
        except (nats.errors.Error, OSError) as error:
            raise UnreachableError(f"NATS is away ({type(error).__name__})", code="nats.unreachable") from None
        self._owed = self._most

    async def progress(self) -> Progress:
        """How far it is.

        Raises:
            ConsumerGoneError: it is not there.
            UnreachableError: the server cannot be asked.
        """
        found = await self.info()
        if found is None:
            raise ConsumerGoneError("the server does not know it any more")
        return Progress.of(found)

    async def confirm(self, messages: Sequence[Msg]) -> None:
        """Say that these are kept; what is lost of it leads to repetitions only."""
        import nats.errors

        try:
            for message in messages:
                await self._connection.client.publish(message.reply, b"+ACK")
        except (nats.errors.Error, OSError, UnreachableError):
            return  # the server is away: it delivers them again
