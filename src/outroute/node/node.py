"""One node: observe, distil, publish, ask, confirm."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.distill import Grouping, Observations, Reason
from outroute.errors import DataError
from outroute.identity import Identity
from outroute.node.asking import PROBES, Asker
from outroute.node.emitting import condense, make_packets
from outroute.node.evidence import records_of, verify_in_threads
from outroute.node.insight import Insight, Insights
from outroute.node.local import join_local
from outroute.node.portal import run
from outroute.packet import PacketArray, Rejection, accept, as_packets
from outroute.schema import Schema, encode, encode_outcome, facet_index
from outroute.store import Journal, Noted, State, Which, load_identity
from outroute.synthesis import Records, Settings
from outroute.transports import Holder, LocalNetwork

if TYPE_CHECKING:
    from outroute.tables.mapping import TableMapping
    from outroute.tables.observed import RowProblem

__all__ = ["Distillation", "Node", "ObserveReport", "Published"]

PUBLISH_AT_ONCE = 4096
"""Packets handed to the transport at a time: 2 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveReport:
    """What became of a table.

    Attributes:
        seen: rows read.
        added, duplicate, confirmed, updated, conflict: observations by what they were to this node. A conflict is
            a case that changed after it had left in a packet: the old one stays until it is corrected.
        waiting: rows among them whose outcome is not known yet.
        refused: rows that could not be used.
        problems: why, one entry a field and reason.
    """

    seen: int = 0
    added: int = 0
    duplicate: int = 0
    confirmed: int = 0
    updated: int = 0
    conflict: int = 0
    waiting: int = 0
    refused: int = 0
    problems: tuple[RowProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """What distilling made and what it withheld.

    Attributes:
        packets: new packets in the outbox.
        observations: condensed in them.
        withheld: observations that stay, by reason.
        agreeing: packets whose outcomes all agree.
        k: subjects asked for in a packet.
    """

    packets: int
    observations: int
    withheld: Mapping[Reason, int]
    agreeing: int
    k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of the packets that were handed to the transport.

    Attributes:
        sent: packets handed over.
        acknowledged: kept by enough holders (in memory counts where the network keeps nothing on disk).
        refused: refused for good.
        pending: to be sent again.
    """

    sent: int
    acknowledged: int
    refused: int
    pending: int


@dataclass
class Node:
    """One participant of a network. Observations never leave it; packets do.

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
    """

    schema: Schema
    transport: Holder | None = None
    data_dir: Path | str | None = None
    identity: Identity | None = None
    secret: bytes = b""
    clock: Callable[[], float] = time.time
    seed: int = 0
    settings: Settings = field(default_factory=Settings)
    restored: bool = False

    def __post_init__(self) -> None:
        if self.identity is None:
            made = Identity(secrets.token_bytes(32)) if self.data_dir is None else load_identity(self.data_dir)
            self.identity = made
        self._identity: Identity = self.identity
        self._journal = Journal(
            self.data_dir,
            schema_id=self.schema.id,
            width=self.schema.width,
            now=self._now(),
            restored=self.restored,
        )
        try:
            if self.transport is None:
                network = LocalNetwork(clock=self._now)
                self.transport = join_local(
                    network, self._identity, self.schema, data_dir=self.data_dir, secret=self.secret
                )
        except BaseException:
            self._journal.close()
            raise
        self._holder: Holder = self.transport
        self._asker = Asker(
            self.schema,
            self._holder,
            own_key=self._identity.public_key,
            secret=self.secret,
            seed=self.seed,
            settings=self.settings,
        )
        self._own: Records | None = None
        self._own_codes: NDArray[np.uint16] | None = None

    def _now(self) -> int:
        return int(self.clock())

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
                table, or a mapping of columns. Read in batches.
            mapping: how its columns become the schema's fields; default the same names.
            case: column that names a case. Without it a case is known by its whole row.
            subject: column that names a subject; k counts subjects. Default: each case is its own.
            time: column that says when it was observed; default now.
            outcome: column with the outcome, when it is not called as in the schema.

        Returns:
            What became of every row. Rows without an outcome wait until ``confirm`` or ``observe`` brings it.

        Raises:
            DataError: when the table cannot be used; nothing of the batch concerned is kept.
        """
        from outroute.tables.applying import apply_batches
        from outroute.tables.mapping import default_mapping
        from outroute.tables.observed import Tally
        from outroute.tables.reading import iter_batches

        if mapping is None:
            mapping = default_mapping(
                self.schema,
                outcome=outcome,
                case=(case,) if case else (),
                subject=(subject,) if subject else (),
                time=(time,) if time else (),
            )
        totals = dict.fromkeys(Noted, 0)
        repeated: dict[bytes, int] = {}
        tally = Tally()
        batches = iter_batches(table, only=mapping.columns)
        for part in apply_batches(mapping, self.schema, batches, outcomes="optional"):
            tally.add(part)
            codes = encode(self.schema, part.columns).codes
            ids: Any = part.case
            if not mapping.case:
                ids = [c.tobytes() + repr(o).encode() for c, o in zip(codes, part.outcome.tolist(), strict=True)]
                ids = _numbered(ids, repeated)
            noted = self.observe_encoded(
                codes, part.outcome, cases=ids, subjects=part.subject if mapping.subject else None, times=part.time
            )
            for kind, count in noted.items():
                totals[kind] += count
        return ObserveReport(
            seen=tally.seen,
            added=totals[Noted.ADDED],
            duplicate=totals[Noted.DUPLICATE],
            confirmed=totals[Noted.CONFIRMED],
            updated=totals[Noted.UPDATED],
            conflict=totals[Noted.CONFLICT],
            waiting=tally.waiting,
            refused=tally.refused,
            problems=tally.problems,
        )

    def observe_encoded(
        self,
        codes: NDArray[np.uint16],
        outcome: NDArray[np.float64],
        *,
        cases: Sequence[Any] | NDArray[Any],
        subjects: Sequence[Any] | NDArray[Any] | None = None,
        times: NDArray[np.int64] | None = None,
    ) -> dict[Noted, int]:
        """Take observations in that are encoded already.

        Args:
            codes: uint16 ``[n, width]``.
            outcome: float64 ``[n]``, NaN while not known.
            cases: n ids.
            subjects: n ids; default the cases.
            times: int64 ``[n]``, seconds since 1970-01-01 UTC; default now.

        Returns:
            How many rows were what to this node.
        """
        width = self.schema.time.bucket_seconds
        when = np.full(len(codes), self._now(), dtype=np.int64) if times is None else times
        noted = self._journal.observe(
            cases,
            codes,
            outcome,
            bucket=when - when % width,
            facet=facet_index(self.schema, codes),
            subjects=subjects,
        )
        self._own = None
        values, numbers = np.unique(noted, return_counts=True)
        return {Noted(int(v)): int(n) for v, n in zip(values, numbers, strict=True)}

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
        noted = Noted(int(self._journal.confirm([case], value)[0]))
        if noted is Noted.UNKNOWN:
            asked = self._journal.question(case, forget=True)
            if asked is None:
                return noted
            codes = np.frombuffer(asked.payload, dtype="<u2").astype(np.uint16)[None, :]
            times = np.array([asked.asked], dtype=np.int64)
            self.observe_encoded(codes, value, cases=[case], times=times)
            noted = Noted.CONFIRMED
        self._own = None
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
        wanted = states or tuple(State)
        total = sum(self._journal.outbox.counts()[s] for s in wanted)
        return self._journal.outbox.queued(*wanted, limit=max(1, total)).packets

    def publish(self) -> Published:
        """Hand the packets of the outbox to the holders of their addresses; what is not acknowledged stays queued."""
        outbox = self._journal.outbox
        left = outbox.counts()
        queued = outbox.queued(limit=max(1, left[State.QUEUED] + left[State.SENT]))
        sent = acknowledged = refused = 0
        durable = self._holder.capabilities.durable
        for at in range(0, len(queued.ids), PUBLISH_AT_ONCE):
            part = slice(at, at + PUBLISH_AT_ONCE)
            done = run(self._holder.deposit(self.schema.id, queued.addresses[part], queued.packets[part]))
            ids = queued.ids[part]
            kept = done.acknowledged if durable else done.replicated
            final = done.refused & ~kept
            outbox.mark(ids[kept], State.ACKNOWLEDGED)
            outbox.mark(ids[final], State.REFUSED)
            outbox.mark(ids[~kept & ~final], State.SENT)
            sent, acknowledged, refused = sent + len(ids), acknowledged + int(kept.sum()), refused + int(final.sum())
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
        codes = self._encode({name: [value] for name, value in case.items()}, 1)
        insight = self._ask(codes, probes)[0]
        if case_id is not None:
            self._journal.ask(case_id, codes.astype("<u2").tobytes(), now=self._now())
        return insight

    def ask_many(self, cases: Any, *, probes: int = PROBES) -> Insights:
        """Answer many questions, sharing what is fetched, checked and fitted.

        Args:
            cases: columns by field name (mapping or DataFrame), or codes uint16 ``[m, width]``.
            probes: nearest cells to ask for each.
        """
        if isinstance(cases, np.ndarray) and cases.dtype == np.uint16:
            return self._ask(cases, probes)
        columns = {str(name): np.asarray(cases[name]) for name in cases if name in self.schema.slots}
        lengths = {len(c) for c in columns.values()}
        return self._ask(self._encode(columns, lengths.pop() if len(lengths) == 1 else 0), probes)

    def _encode(self, columns: Mapping[str, Any], n: int) -> NDArray[np.uint16]:
        encoded = encode(self.schema, columns)
        if encoded.problems:
            first = encoded.problems[0]
            f = self.schema.field(first.field)
            allowed = f"{f.low} to {f.high} {f.unit}".strip() if f.low is not None else ", ".join(f.categories)
            raise DataError(
                f"{first.field}: '{first.example}' is {first.kind.value}; the schema allows {allowed}",
                code="data.question",
            )
        return encoded.codes if len(encoded.codes) else np.full((n, self.schema.width), 65535, dtype=np.uint16)

    def _ask(self, codes: NDArray[np.uint16], probes: int) -> Insights:
        now = self._now()
        own, own_codes = self._records()
        wanted = self._asker.addresses(codes, probes)
        if len(own_codes):
            wanted = sorted({*wanted, *self._asker.addresses(own_codes, 1)})
        self._asker.fetch(wanted, now)
        return self._asker.answer(codes, own, now)

    def _records(self) -> tuple[Records, NDArray[np.uint16]]:
        """Own records and their codes, read once after each change."""
        if self._own is None or self._own_codes is None:
            seen = self._journal.observations(Which.KNOWN)
            self._own = records_of(self.schema, seen.codes, seen.outcome, seen.subject, seen.bucket)
            self._own_codes = seen.codes
        return self._own, self._own_codes

    def receive(self, packets: PacketArray | bytes) -> dict[Rejection, int]:
        """Take packets that came another way than over the transport, for example in a file.

        They count in answers of this node until it is closed; they are not passed on.

        Returns:
            How many were refused, by reason.
        """
        verdicts = accept(packets, self.schema, self._now(), verify=verify_in_threads)
        array = packets if isinstance(packets, np.ndarray) else as_packets(packets)
        self._asker.give(array[verdicts.ok[: len(array)]])
        return verdicts.counted()

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
        run(self._holder.close())
        self._journal.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _numbered(ids: Sequence[bytes], seen: dict[bytes, int]) -> list[bytes]:
    """Equal rows of one table are different cases: each gets its number among its equals."""
    out = []
    for one in ids:
        key = hashlib.sha256(one).digest()
        count = seen[key] = seen.get(key, 0) + 1
        out.append(key + count.to_bytes(4, "little"))
    return out
