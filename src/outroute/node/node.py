"""One node: observe, distil, publish, ask, confirm."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.distill import Grouping, Observations, Reason
from outroute.errors import DataError, StoreError, TransportError
from outroute.identity import Identity
from outroute.node.asking import PROBES, Asker
from outroute.node.emitting import condense, make_packets
from outroute.node.evidence import records_of, verify_in_threads
from outroute.node.insight import Insight, Insights
from outroute.node.local import join_local, leave, serves, tend
from outroute.node.observing import DatedJournal, observe_table
from outroute.node.portal import run
from outroute.node.questions import codes_of_case, codes_of_cases
from outroute.node.received import Received
from outroute.node.reports import Distillation, ObserveReport, Published
from outroute.packet import PacketArray, Rejection, accept, as_packets
from outroute.schema import Schema, encode_outcome, facet_index
from outroute.store import Noted, State, Which, load_identity
from outroute.synthesis import Records, Settings
from outroute.transports import ADDRESS_REFUSED, SCHEMA_REFUSED, Holder, LocalNetwork, Receipt

if TYPE_CHECKING:
    from outroute.tables.mapping import TableMapping

__all__ = ["Node"]

PUBLISH_AT_ONCE = 4096
"""Packets handed to the transport at a time: 2 MB."""


@dataclass(eq=False)
class Node:
    """One participant of a network. Observations never leave it; packets do.

    One thread at a time may use it. It owns the transport that it is given and closes it.

    Args:
        schema: what the network agrees on.
        transport: keeps packets and answers addresses; default a network of its own in this process.
        data_dir: keeps the node's state across restarts; default in memory only.
        identity: the node's key; default the one in ``data_dir``, or a fresh one.
        secret: the network's secret for addresses; empty in an open network.
        clock: gives seconds since 1970-01-01 UTC.
        seed: of everything that draws, so that equal evidence gives equal answers.
        settings: constants of the synthesis.
        restored: say so when ``data_dir`` comes from a backup.

    Raises:
        StoreError: ``data_dir`` is in use by another process, belongs to another schema, or cannot be used.
        TransportError: ``transport`` serves other schemas.
    """

    schema: Schema
    transport: Holder | None = None
    data_dir: Path | str | None = None
    identity: Identity | None = field(default=None, repr=False)
    secret: bytes = field(default=b"", repr=False)
    clock: Callable[[], float] = field(default=time.time, repr=False)
    seed: int = 0
    settings: Settings = field(default_factory=Settings, repr=False)
    restored: bool = False

    def __post_init__(self) -> None:
        self._closed = False
        if self.transport is not None and not serves(self.transport, self.schema):
            raise TransportError(
                f"the transport does not serve schema '{self.schema.name}' ({self.schema.id.hex()[:16]}): join the "
                "network with the same schema file as the others, landmarks included",
                code="transport.schema",
            )
        if self.identity is None:
            made = Identity(secrets.token_bytes(32)) if self.data_dir is None else load_identity(self.data_dir)
            self.identity = made
        self._identity: Identity = self.identity
        self._received = Received(self.schema, self.data_dir)
        self._journal = DatedJournal(
            self.data_dir,
            schema_id=self.schema.id,
            width=self.schema.width,
            now=self._now(),
            restored=self.restored,
        )
        try:
            self._holder = self.transport or self._alone()
        except BaseException:
            self._journal.close()
            raise
        self.transport = self._holder
        try:
            if self.data_dir is not None and not self._holder.capabilities.durable:
                # What others keep in memory only may be gone: it is handed over again.
                kept = self._journal.outbox.queued(State.ACKNOWLEDGED, limit=2**62)
                self._journal.outbox.mark(kept.ids, State.SENT)
            tend(self._holder, self._now())
        except BaseException:
            self.close()
            raise
        self._asker = Asker(
            self.schema,
            self._holder,
            self._received,
            own_key=self._identity.public_key,
            secret=self.secret,
            seed=self.seed,
            settings=self.settings,
        )
        self._own: Records | None = None
        self._home: list[bytes] = []

    def _alone(self) -> Holder:
        network = LocalNetwork(clock=self._now)
        return join_local(network, self._identity, self.schema, data_dir=self.data_dir, secret=self.secret, replicas=1)

    def _now(self) -> int:
        return int(self.clock())

    def _alive(self) -> None:
        if self._closed:
            raise StoreError("this node is closed: open it again", code="store.closed")

    @property
    def id(self) -> bytes:
        """The node's id, 32 bytes."""
        return self._identity.id

    # observe ------------------------------------------------------------------------------------------------

    def observe(
        self,
        table: Any,
        *,
        mapping: TableMapping | None = None,
        case: str | None = None,
        subject: str | None = None,
        time: str | None = None,
        outcome: str | None = None,
    ) -> ObserveReport:
        """Take observations in; the same table again changes nothing.

        Args:
            table: path of a CSV, Parquet or NDJSON file, ``"-"`` for NDJSON on standard input, a DataFrame, an Arrow
                table, or a mapping of columns. Read in batches, each kept in one durable step.
            mapping: how its columns become the schema's fields; default the same names.
            case: column that names a case. Without it a case is known by its whole row and its number among equal
                rows of the table; then an outcome that comes later makes it another case.
            subject: column that names a subject; k counts subjects. Default: each case is its own.
            time: column that says when it was observed; default when this node first saw it.
            outcome: column with the outcome, when it is not called as in the schema.

        Returns:
            What became of every row. Rows without an outcome wait until ``confirm`` or ``observe`` brings it.

        Raises:
            DataError: when the table cannot be used; nothing of the batch concerned is kept, batches before it are.
        """
        from outroute.tables.mapping import default_mapping

        self._alive()
        if mapping is None:
            mapping = default_mapping(
                self.schema,
                outcome=outcome,
                case=(case,) if case else (),
                subject=(subject,) if subject else (),
                time=(time,) if time else (),
            )
        return observe_table(self.schema, table, mapping, self.observe_encoded)

    def observe_encoded(
        self,
        codes: NDArray[np.uint16],
        outcome: NDArray[np.float64],
        *,
        cases: Sequence[Any] | NDArray[Any],
        subjects: Sequence[Any] | NDArray[Any] | None = None,
        times: NDArray[np.int64] | None = None,
    ) -> dict[Noted, int]:
        """Take observations in that are encoded already, in one durable step.

        Args:
            codes: uint16 ``[n, width]``.
            outcome: float64 ``[n]``, NaN while not known.
            cases: n ids.
            subjects: n ids; default the cases.
            times: int64 ``[n]``, seconds since 1970-01-01 UTC; default when this node first saw the case.

        Returns:
            How many rows were what to this node.
        """
        bucket_of = self.schema.time.bucket_seconds
        now = self._now()
        if times is None:
            bucket = self._journal.dated(cases, now - now % bucket_of)
        else:
            bucket = times - times % bucket_of
        facet = facet_index(self.schema, codes)
        self._own = None
        noted = self._journal.observe(cases, codes, outcome, bucket=bucket, facet=facet, subjects=subjects)
        values, numbers = np.unique(noted, return_counts=True)
        found = {Noted(int(v)): int(n) for v, n in zip(values, numbers, strict=True)}
        if Noted.UPDATED in found:
            self._asker.refit()
        return found

    def confirm(self, case: object, outcome: Any) -> Noted:
        """Bring the outcome of a case that was observed or asked about before.

        Args:
            case: its id.
            outcome: class name, class index or number.

        Returns:
            What it was: ``CONFIRMED``, ``DUPLICATE``, ``UPDATED``, ``CONFLICT`` (it has left in a packet with another
            outcome) or ``UNKNOWN``.

        Raises:
            DataError: when the outcome is not one of the schema's.
        """
        value = encode_outcome(self.schema.outcome, [outcome])
        if np.isnan(value[0]):
            raise DataError("confirm needs an outcome: the case waits for it already", code="data.outcome")
        self._own = None
        noted = Noted(int(self._journal.confirm([case], value)[0]))
        if noted is Noted.UNKNOWN:
            asked = self._journal.question(case)
            if asked is None:
                return noted
            codes = np.frombuffer(asked.payload, dtype="<u2").astype(np.uint16)[None, :]
            self.observe_encoded(codes, value, cases=[case], times=np.array([asked.asked], dtype=np.int64))
            self._journal.question(case, forget=True)
            return Noted.CONFIRMED
        if noted is Noted.UPDATED:
            self._asker.refit()
        return noted

    # what leaves --------------------------------------------------------------------------------------------

    def distil(
        self, *, k: int | None = None, streaming: bool = False, grouping: Grouping | None = None
    ) -> Distillation:
        """Condense what has an outcome and has not left yet into signed packets in the outbox.

        Args:
            k: subjects in a packet; default the schema's floor, never below it.
            streaming: leave observations waiting until a tight cohort has come together.
            grouping: how cohorts are formed.

        Raises:
            PrivacyError: when ``k`` lies below the schema's floor.
        """
        ready = self._journal.observations(Which.READY)
        waiting = self._journal.counts()["waiting"]
        observations = Observations(
            codes=ready.codes,
            outcome=ready.outcome,
            subject=ready.subject,
            bucket=ready.bucket,
            facet=ready.facet,
        )
        made = condense(self.schema, observations, now=self._now(), k=k, streaming=streaming, grouping=grouping)
        n = len(made.cohorts)
        if n:
            packets = make_packets(
                self.schema,
                observations,
                made,
                identity=self._identity,
                first_sequence=self._journal.outbox.reserve(n),
                nonce=lambda: secrets.token_bytes(32),
                secret=self.secret,
            )
            self._journal.outbox.add(
                packets.packets,
                packets.addresses,
                [ready.rows[rows] for rows in packets.members],
                secrets=packets.secrets,
            )
        withheld = dict(made.withheld.counts)
        if waiting:
            withheld[Reason.NO_OUTCOME] = withheld.get(Reason.NO_OUTCOME, 0) + waiting
        return Distillation(
            packets=n,
            observations=len(made.cohorts.rows),
            withheld=withheld,
            agreeing=made.agreeing,
            k=made.k,
        )

    def outbox(self, *states: State) -> PacketArray:
        """Packets of the outbox in some states (default all), in the order in which they were made."""
        return self._journal.outbox.queued(*(states or tuple(State)), limit=2**62).packets

    def publish(self) -> Published:
        """Hand the packets of the outbox to the holders of their addresses; what is not acknowledged stays queued.

        Raises:
            TransportError: the holders serve another schema or have another network secret; nothing is given up.
        """
        outbox = self._journal.outbox
        queued = outbox.queued(limit=2**62)
        acknowledged = refused = 0
        durable = self._holder.capabilities.durable
        for at in range(0, len(queued.ids), PUBLISH_AT_ONCE):
            part = slice(at, at + PUBLISH_AT_ONCE)
            ids = queued.ids[part]
            done = run(self._holder.deposit(self.schema.id, queued.addresses[part], queued.packets[part]))
            kept = done.acknowledged if durable else done.replicated
            foreign = np.isin(done.reasons, (SCHEMA_REFUSED, ADDRESS_REFUSED)) & (done.receipts == Receipt.REJECTED)
            strange = (foreign.sum(axis=1) >= done.needed) & ~kept
            final = done.refused & ~kept & ~strange
            outbox.mark(ids[kept], State.ACKNOWLEDGED)
            outbox.mark(ids[final], State.REFUSED)
            outbox.mark(ids[~kept & ~final], State.SENT)
            if strange.any():
                raise TransportError(
                    f"the holders refuse {int(strange.sum()):,} packets as belonging to another schema or network "
                    "secret: compare both with the network's; the packets stay in the outbox",
                    code="transport.schema",
                )
            acknowledged, refused = acknowledged + int(kept.sum()), refused + int(final.sum())
        sent = len(queued.ids)
        return Published(sent=sent, acknowledged=acknowledged, refused=refused, pending=sent - acknowledged - refused)

    # ask ----------------------------------------------------------------------------------------------------

    def ask(self, case: Mapping[str, Any], *, case_id: object | None = None, probes: int = PROBES) -> Insight:
        """What happened to cases like this one, elsewhere and here.

        Args:
            case: values by field name; what is left out is missing.
            case_id: remember the question under this id, so that ``confirm`` can bring its outcome.
            probes: nearest cells to ask.

        Raises:
            DataError, SchemaError: when a value or a name is not the schema's.
        """
        codes = codes_of_case(self.schema, case)
        insight = self._ask(codes, probes)[0]
        if case_id is not None:
            self._journal.ask(case_id, codes.astype("<u2").tobytes(), now=self._now())
        return insight

    def ask_many(self, cases: Any, *, probes: int = PROBES) -> Insights:
        """Answer many questions, sharing what is fetched, checked and fitted.

        Args:
            cases: columns by field name (mapping or DataFrame; those that are no fields are ignored), a sequence of
                mappings, or codes uint16 ``[m, width]``.
            probes: nearest cells to ask for each.

        Raises:
            DataError, SchemaError: when a value or a name is not the schema's.
        """
        return self._ask(codes_of_cases(self.schema, cases), probes)

    def _ask(self, codes: NDArray[np.uint16], probes: int) -> Insights:
        self._alive()
        if probes < 1:
            raise DataError("a question asks at least one cell: probes >= 1", code="data.probes")
        if self._own is None:
            seen = self._journal.observations(Which.KNOWN)
            self._home = self._asker.addresses(seen.codes, 1)
            self._own = records_of(self.schema, seen.codes, seen.outcome, seen.subject, seen.bucket)
        return self._asker.answer(codes, self._own, home=self._home, probes=probes, now=self._now())

    def receive(self, packets: PacketArray | bytes) -> dict[Rejection, int]:
        """Take packets that came another way than over the transport, for example in a file.

        Each is checked by every rule. Those accepted are kept with the node and count in its answers from now on;
        they are not passed on.

        Returns:
            How many were refused, by reason.
        """
        self._alive()
        now = self._now()
        verdicts = accept(packets, self.schema, now, verify=verify_in_threads)
        array = packets if isinstance(packets, np.ndarray) else as_packets(packets)
        accepted = array[verdicts.ok[: len(array)]]
        if len(accepted):
            self._received.add(accepted, now)
            self._asker.refit()
        return verdicts.counted()

    def received(self) -> PacketArray:
        """Packets that ``receive`` took in and that are in force, each once."""
        self._alive()
        return self._received.in_force(self._now())

    # housekeeping -------------------------------------------------------------------------------------------

    @property
    def bytes_out(self) -> int:
        """Bytes that left this node: deposits, questions, replication, announcements, replies to others."""
        return self._holder.traffic.bytes_out

    def counts(self) -> dict[str, int]:
        """Observations known, ready, waiting and in conflict; questions remembered; packets by state."""
        out = self._journal.counts()
        return out | {f"packets_{s.name.lower()}": n for s, n in self._journal.outbox.counts().items()}

    def close(self) -> None:
        """Leave the network and close the files; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        try:
            leave(self._holder)
        finally:
            self._received.close()
            self._journal.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
