"""Messages from a subject of a NATS stream, for whoever confirms each batch once it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outroute.errors import TransportError
from outroute.transports.contract import UnreachableError
from outroute.transports.nats_connection import API_SECONDS, ApiError, DeniedError, NatsConnection
from outroute.transports.nats_options import NatsOptions
from outroute.transports.nats_pulling import ConsumerGoneError, Puller
from outroute.transports.nats_statements import refusal
from outroute.transports.nats_stream import covers
from outroute.transports.nats_subjects import is_subject

if TYPE_CHECKING:
    from nats.aio.msg import Msg

__all__ = ["Message", "NatsSource"]

WAITING_MOST = 512
"""Messages that wait here at most: the server keeps the rest, so a slow disk slows nobody but this reader."""
MADE_AGE_SECONDS = 7 * 86_400
"""Seconds that observations stay in a stream that is made here: a gateway may be away for a week."""
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message.

    Attributes:
        subject: under which it came.
        number: its number in the stream.
        data: its bytes.
    """

    subject: str
    number: int
    data: bytes


class NatsSource:
    """A durable consumer of one subject.

    Args:
        options: where, and as whom.
        topic: the subject, with wildcards.
        name: of the consumer: the same name goes on where it was.
        make: whether to make a stream where none keeps the subject.

    Raises:
        TransportError: the topic is no subject.
    """

    def __init__(self, options: NatsOptions, topic: str, *, name: str, make: bool = False) -> None:
        if not is_subject(topic, wildcards=True):
            raise TransportError(
                f"'{topic}' is no subject: words between dots without spaces, * for one word, > for the last ones",
                code="nats.subject",
            )
        self._options, self.topic, self._name, self._make = options, topic, name, make
        self.connection = NatsConnection(options, f"outroute gateway {name}")
        self._puller: Puller | None = None
        self._held: list[Msg] = []
        self.created = ""
        """When the stream was made: numbers belong to it."""
        self.received = 0
        """Bytes of messages so far, repetitions among them."""

    async def start(self) -> None:
        """Connect and find the stream.

        Raises:
            TransportError: the servers cannot be reached or refuse, or no stream keeps the subject.
        """
        await self.connection.open()
        try:
            await self._find()
        except BaseException:
            await self.connection.close()
            raise

    async def _find(self) -> None:
        try:
            stream = self._options.stream or await self._stream()
            info = await self.connection.api(f"STREAM.INFO.{stream}")
        except ApiError as error:
            raise TransportError(f"the stream of '{self.topic}': {error}", code="nats.stream") from None
        kept = info.get("config", {}).get("subjects") or []
        if not any(covers(one, self.topic) for one in kept):
            raise TransportError(f"stream '{stream}' does not keep '{self.topic}'", code="nats.stream")
        self.created = str(info.get("created", ""))
        self._puller = Puller(
            self.connection, stream=stream, name=self._name, filters=[self.topic], durable=True, most=WAITING_MOST
        )
        await self._bind()

    async def _stream(self) -> str:
        found = await self.connection.api("STREAM.NAMES", {"subject": self.topic})
        names = found.get("streams") or []
        if len(names) == 1:
            return str(names[0])
        if names:
            raise TransportError(
                f"several streams keep '{self.topic}': name one with ?stream= in the address", code="nats.stream"
            )
        if not self._make:
            raise TransportError(
                f"no stream keeps '{self.topic}': have one made, or give --make-stream", code="nats.stream"
            )
        name = "".join(one if one.isalnum() else "_" for one in self.topic)
        config = {
            "name": name,
            "subjects": [self.topic],
            "retention": "limits",
            "storage": self._options.storage,
            "num_replicas": self._options.replicas,
            "max_age": MADE_AGE_SECONDS * _NANO,
        }
        try:
            await self.connection.api(f"STREAM.CREATE.{name}", config)
        except DeniedError:
            raise TransportError(
                f"no stream keeps '{self.topic}', and this user may not make one: have an administrator make it",
                code="nats.stream",
            ) from None
        return name

    async def _bind(self) -> None:
        assert self._puller is not None
        info, first = await self._puller.info(), 1
        if info is not None and info.get("num_ack_pending"):
            # What was delivered and not confirmed would come again half a minute later only.
            first = int(info.get("ack_floor", {}).get("stream_seq", 0)) + 1
            await self._puller.remove()
            info = None
        if info is None:
            await self._puller.make(first)
        await self._puller.listen()
        self.connection.on_return = self._returned

    async def _returned(self) -> None:
        if self._puller is not None:
            self._puller.ask_again()

    async def pull(self, most: int) -> list[Message]:
        """Some messages, at least one; they come again unless ``confirm`` is called.

        Raises:
            TransportError: the servers are away, or the consumer cannot be made again.
        """
        if self._puller is None:
            raise UnreachableError("not started", code="nats.unreachable")
        while True:
            try:
                self._held = await self._puller.pull(most)
                break
            except ConsumerGoneError:
                await self._bind()
        self.received += sum(len(one.data) for one in self._held)
        return [Message(subject=one.subject, number=one.metadata.sequence.stream, data=one.data) for one in self._held]

    async def confirm(self) -> None:
        """What was pulled last is kept."""
        if self._puller is not None:
            await self._puller.confirm(self._held)
        self._held = []

    async def publish(self, subject: str, messages: Sequence[tuple[bytes, dict[str, str]]]) -> None:
        """Give messages to a stream.

        Raises:
            TransportError: no stream takes them.
        """
        replies = await asyncio.gather(
            *(
                self.connection.request(subject, data, seconds=API_SECONDS, headers=headers)
                for data, headers in messages
            )
        )
        for reply in replies:
            error = refusal(reply.data)
            if error is not None:
                raise TransportError(f"no stream takes '{subject}': {error}", code="nats.refused")

    async def close(self) -> None:
        """End; what was not confirmed comes again at the next start."""
        if self._puller is not None:
            await self._puller.deafen()
        await self.connection.close()
