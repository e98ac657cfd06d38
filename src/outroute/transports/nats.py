"""NATS as a holder: JetStream keeps frames, nodes read their part of the stream into stores of their own.

See ``docs/nats.md`` for what goes where and why. The rules are those of every transport: each packet is checked before
it is sent and before it is kept, sequence and deduplication lie in the frames and in the stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.errors import OutrouteError, TransportError
from outroute.identity import Certificate, Identity, Learned, Refused
from outroute.packet import PacketArray
from outroute.placement import DEFAULT_REPLICAS, Wanted, majority
from outroute.schema import Schema
from outroute.transports.contract import (
    SCHEMA_REFUSED,
    Answer,
    Deposited,
    Receipt,
    Role,
    Traffic,
)
from outroute.transports.exchanging import REQUEST_SECONDS, Exchanger
from outroute.transports.frames import FRAME_BYTES
from outroute.transports.guard import Guard, Use
from outroute.transports.keeper import CAP_LIMIT, Keeper
from outroute.transports.nats_asking import Answering, GroupLink, group_members
from outroute.transports.nats_connection import NatsConnection
from outroute.transports.nats_facts import NatsFacts
from outroute.transports.nats_keeping import Keeping
from outroute.transports.nats_options import OPTIONS, NatsOptions, nats_options
from outroute.transports.nats_presence import Presence
from outroute.transports.nats_sending import Sending
from outroute.transports.nats_statements import NatsStatements
from outroute.transports.nats_stream import Stream, open_stream
from outroute.transports.nats_subjects import GROUPS, Subjects, group_of, kept_shards, shard_of
from outroute.transports.reading import Reader
from outroute.transports.serving import OwnShelf, Setting
from outroute.transports.standing import EXCHANGE_SECONDS, Organisations, Standing
from outroute.transports.url import Url

__all__ = ["FRESH_SECONDS", "NatsHolder"]

FRESH_SECONDS = 3.0
"""Seconds that a question waits for what was acknowledged before it; then the answer says that some may lack."""
START_SECONDS = 600.0
"""Seconds that a node reads before it answers others: what it has by then, it answers."""
REOPEN_SECONDS = 10.0
"""Seconds between attempts to come back after the servers ended the connection for good."""
HEADER_BYTES = 4096
"""Bytes of a message around its frame, at most."""
_CHECK_BESIDE = 32
"""Packets that are checked in another thread: so many take longer than a thread."""

_log = logging.getLogger("outroute.nats")


class NatsHolder(NatsFacts):
    """A ``Holder`` over NATS JetStream.

    Args:
        options: where, as whom, and which part.
        schema: what the node serves.
        identity: the node's.
        guard: checks packets.
        standing: what the node knows about keys.
        clock: seconds since 1970.
        shelf: where the node keeps packets; None for one that keeps none.
        directory: of the node; None for one that starts from the stream's beginning each time.
        roles: what it does.
        certificate: its organisation's word for it.
        request_seconds: time-out of a question to others.
    """

    about = "NATS JetStream, servers that others run; durable and secure as far as these are set up so"
    url = "nats://HOST:PORT[,HOST:PORT][?options=FILE]"
    options: Mapping[str, str] = OPTIONS

    def __init__(
        self,
        options: NatsOptions,
        *,
        schema: Schema,
        identity: Identity,
        guard: Guard,
        standing: Standing,
        clock: Callable[[], int],
        shelf: OwnShelf | None,
        directory: Path | None = None,
        roles: Role = Role.EMIT | Role.ASK | Role.HOLD,
        certificate: Certificate | None = None,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self.settings, self.schema, self.endpoint = options, schema, ""
        self.id = identity.id
        self.standing, self.guard = standing, guard.under(standing.register)
        self.refused: Counter[int] = Counter()
        """Packets of the stream that were refused, by reason."""
        self._shelf, self._directory, self._clock = shelf, directory, clock
        self._traffic = Traffic()
        self._subjects = Subjects(prefix=options.prefix, schema=schema.id)
        self._kept = kept_shards(options.keep) if shelf is not None else frozenset()
        self._connection = NatsConnection(options, f"outroute {identity.id.hex()[:16]}")
        self._organisations = Organisations(standing.register, clock, {})
        self._group = group_of(identity.public_key if certificate is None else certificate.organisation)
        self._presence = Presence(
            self._connection,
            self._subjects,
            identity=identity,
            roles=roles,
            certificate=certificate,
            clock=clock,
            register=standing.register,
            traffic=self._traffic,
        )
        self._sampled = 0
        self._stream: Stream | None = None
        self._keeping: Keeping | None = None
        self._answering: Answering | None = None
        self._statements: NatsStatements | None = None
        self._sending: Sending | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._problems: dict[str, str] = {}
        if shelf is not None:
            self.shelf: OwnShelf = shelf
            self.keeper = Keeper(shelf, guard, owns=self._keeps, clock=clock, standing=standing)
        self._link = GroupLink(self._connection, self._subjects, traffic=self._traffic)
        self._reader = Reader(
            Exchanger(self._link, request_seconds=request_seconds),
            self.guard,
            owners=group_members,
            clock=clock,
            replicas=GROUPS,
            organisation_of=self._organisations,
        )

    @classmethod
    def for_node(cls, url: Url, setting: Setting) -> NatsHolder:
        """See ``outroute.transports.serving.HolderMaker``."""
        if setting.join:
            raise TransportError("over NATS no node is called: leave out --join", code="nats.join")
        return cls(
            nats_options(url, setting.directory),
            schema=setting.schema,
            identity=setting.identity,
            guard=setting.guard,
            standing=setting.standing,
            clock=setting.clock,
            shelf=setting.open_shelf() if Role.HOLD in setting.roles else None,
            directory=setting.directory,
            roles=setting.roles,
            certificate=setting.certificate,
        )

    def _keeps(self, addresses: Sequence[bytes]) -> list[bool]:
        return [shard_of(address) in self._kept for address in addresses]

    # life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, find or make the stream, and live on until ``close``.

        Raises:
            TransportError: the servers cannot be reached, refuse this node, or have no stream for it.
            MissingExtraError: nats-py is not installed.
        """
        self._connection.on_return, self._connection.on_end = self._returned, self._ended
        try:
            await self._open()
        except BaseException:
            await self.stop()
            raise
        self._spawn(self._tend())
        self._spawn(self._presence.go_on())

    def _spawn(self, work: object) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.ensure_future(work))  # type: ignore[call-overload]

    async def _open(self) -> None:
        connection = self._connection
        await connection.open()
        if connection.max_payload < FRAME_BYTES + HEADER_BYTES:
            raise TransportError(
                f"the NATS server takes messages of {connection.max_payload:,} bytes at most, frames have up to "
                f"{FRAME_BYTES + HEADER_BYTES:,}: raise max_payload there",
                code="nats.payload",
            )
        stream = self._stream = await open_stream(connection, self._subjects, self.schema)
        await self._link.start()
        await self._presence.start()
        self._statements = NatsStatements(
            connection, stream, self._subjects, self.standing, clock=self._clock, traffic=self._traffic
        )
        await self._statements.start()
        self._sample()
        if self._shelf is not None:
            self._keeping = Keeping(
                connection,
                stream,
                self._subjects,
                self.keeper,
                keep=self.settings.keep,
                member=self.id,
                clock=self._clock,
                traffic=self._traffic,
                directory=self._directory,
                refused=self.refused,
            )
            await self._keeping.start()
            self._answering = Answering(
                connection,
                self._subjects,
                self.keeper,
                group=self._group,
                keep=self.settings.keep,
                traffic=self._traffic,
            )
            self._spawn(self._answer_when_fresh(self._answering))
        self._sending = Sending(
            connection,
            stream,
            self._subjects,
            schema=self.schema,
            traffic=self._traffic,
            keeping=self._keeping,
            kept=self._kept,
        )

    async def _answer_when_fresh(self, answering: Answering) -> None:
        if self._keeping is not None:
            await self._keeping.fresh(START_SECONDS)
        try:
            await answering.start()
        except OutrouteError as error:
            self._problems["answer"] = str(error)

    async def _returned(self) -> None:
        """The connection was away and is back."""
        if self._keeping is not None:
            self._keeping.returned()
        if self._statements is not None:
            self._statements.returned()

    async def _ended(self) -> None:
        """The servers ended the connection for good: somebody may set it right, so it is tried again now and then."""
        self._spawn(self._reopen())

    async def _reopen(self) -> None:
        while True:
            await asyncio.sleep(REOPEN_SECONDS)
            try:
                await self._end_parts()
                await self._open()
                self._problems.pop("connection", None)
                return
            except OutrouteError as error:
                self._problems["connection"] = str(error)

    async def _tend(self) -> None:
        """Every quarter of a minute: what commands wrote about keys is told, organisations are counted anew."""
        while True:
            try:
                self.standing.refresh(self._clock())
                if self._statements is not None and self._connection.up:
                    await self._statements.offer()
                self._sample()
                self._problems.pop("statements", None)
            except OutrouteError as error:
                self._problems["statements"] = str(error)
            await asyncio.sleep(EXCHANGE_SECONDS)

    def _sample(self) -> None:
        """Let the store count packets by the organisations that are known now."""
        version = self.standing.register.version
        if version != self._sampled and self._shelf is not None:
            self._sampled = version
            self._shelf.set_organisations(dict(self._organisations))

    async def _end_parts(self) -> None:
        for part in (self._presence, self._answering, self._keeping, self._statements):
            if part is not None:
                await part.close()
        self._answering = self._keeping = self._statements = self._sending = None

    async def stop(self) -> None:
        """End at once; the store stays open until ``abandon``."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        with contextlib.suppress(OutrouteError):
            await self._end_parts()
        await self._connection.close()

    async def close(self) -> None:
        """Confirm what is kept, leave, and close the store; harmless when repeated."""
        await self.stop()
        self.abandon()

    def abandon(self) -> None:
        """Close the store."""
        if self._shelf is not None:
            self._shelf.close()

    # using --------------------------------------------------------------------------------------------------

    async def tell(self, statements: Iterable[bytes]) -> list[Learned | Refused]:
        """Take statements in, from the operator or an organisation, and tell everybody.

        Raises:
            StoreError: they cannot be kept.
            UnreachableError: the servers are away; they are told later.
        """
        if self._statements is None:
            return self.standing.learn(statements, self._clock())
        found = await self._statements.tell(statements)
        self._sample()
        return found

    async def deposit(
        self, schema: bytes, addresses: Sequence[bytes], packets: PacketArray, *, cause: bytes = bytes(16)
    ) -> Deposited:
        """See ``Holder.deposit``: one copy is needed, the stream's, which has as many copies as it was made with."""
        receipts = np.full((len(packets), 1), Receipt.UNREACHABLE, dtype=np.uint8)
        if schema != self.schema.id:
            return Deposited(
                receipts=np.full_like(receipts, Receipt.REJECTED),
                reasons=np.full_like(receipts, SCHEMA_REFUSED),
                needed=1,
            )
        reasons = np.zeros_like(receipts)
        if len(packets):
            reasons[:, 0] = await self._check(schema, addresses, packets)
            receipts[reasons[:, 0] != 0, 0] = Receipt.REJECTED
            good = np.flatnonzero(reasons[:, 0] == 0)
            if len(good) and self._sending is not None:
                if len(good) < len(packets):  # a copy of all takes longer than sending it
                    addresses, packets = [addresses[row] for row in good.tolist()], packets[good]
                receipts[good, 0] = await self._sending.send(schema, addresses, packets, cause, self._clock())
        return Deposited(receipts=receipts, reasons=reasons, needed=1)

    async def _check(self, schema: bytes, addresses: Sequence[bytes], packets: PacketArray) -> NDArray[np.uint8]:
        now = self._clock()
        if len(packets) < _CHECK_BESIDE:
            return self.guard.check(schema, addresses, packets, now=now, use=Use.DEPOSIT)
        return await asyncio.to_thread(self.guard.check, schema, addresses, packets, now=now, use=Use.DEPOSIT)

    async def fetch(
        self,
        schema: bytes,
        addresses: Sequence[bytes],
        *,
        cap: int,
        wanted: Sequence[Wanted] = (),
        cause: bytes = bytes(16),
    ) -> list[Answer]:
        """See ``Holder.fetch``: at home where the shard is kept, else by groups of those who keep it."""
        own = [name for name in dict.fromkeys(addresses) if shard_of(name) in self._kept]
        others = [name for name in dict.fromkeys(addresses) if shard_of(name) not in self._kept]
        found: dict[bytes, Answer] = {}
        if others:
            asked = await self._reader.fetch(schema, others, cap=cap, wanted=wanted, cause=cause)
            found |= {one.address: _anonymous(one) for one in asked}
        if own and self._shelf is not None:
            fresh = self._keeping is not None and await self._keeping.fresh(FRESH_SECONDS)
            found |= {one.address: one for one in self._at_home(own, min(cap, CAP_LIMIT), wanted, fresh)}
        return [found[name] for name in addresses]

    def _at_home(self, addresses: Sequence[bytes], cap: int, wanted: Sequence[Wanted], fresh: bool) -> Iterable[Answer]:
        assert self._shelf is not None
        now = self._clock()
        cells = self._shelf.fetch(addresses, now=now, cap=cap, wanted=tuple(sorted(wanted)))
        for name, cell in zip(addresses, cells, strict=True):
            packets = self.keeper.believed(cell.packets, now)
            yield Answer(
                address=name,
                packets=packets,
                left_out=cell.left_out,
                refused=0,
                complete=True,
                agreed=None,
                asked=(),
                # What was acknowledged may not have arrived yet, as with holders that fell silent.
                silent=0 if fresh else majority(DEFAULT_REPLICAS),
            )


def _anonymous(answer: Answer) -> Answer:
    """An answer of groups, of which it is not known who they are."""
    return Answer(
        address=answer.address,
        packets=answer.packets,
        left_out=answer.left_out,
        refused=answer.refused,
        complete=answer.complete,
        agreed=answer.agreed,
        asked=None,
        silent=0 if answer.complete else majority(DEFAULT_REPLICAS),
    )
