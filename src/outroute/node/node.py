"""One node: observe, distil, publish, ask, confirm."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.distill import Grouping, Noise, Observations, Reason
from outroute.elections import Trust
from outroute.errors import DataError, StoreError, TransportError
from outroute.identity import Identity
from outroute.node.answering import AnsweredQuestions
from outroute.node.approval import Approval, default_approval
from outroute.node.asking import PROBES, Asker
from outroute.node.believing import Beliefs, said_of
from outroute.node.choosing import Choosing
from outroute.node.discretion import Discretion
from outroute.node.electing import Electing
from outroute.node.emitting import condense, make_packets
from outroute.node.evidence import records_of, verify_in_threads
from outroute.node.handing_over import ALL
from outroute.node.insight import Insight, Insights
from outroute.node.local import join_local, leave, listen, organisation_of, origin_of, own_keys, serves, tend
from outroute.node.migrating import check_agreed, successor_dir
from outroute.node.notices import Notices
from outroute.node.pathways import TOP, Pathways, paths_between
from outroute.node.questions import codes_of_case, codes_of_cases
from outroute.node.received import Received
from outroute.node.reports import Distillation
from outroute.node.taking_back import Keys
from outroute.packet import Flag, PacketArray, Rejection, accept, as_packets
from outroute.schema import Schema, SchemaSignature
from outroute.store import Event, Journal, State, Which, Withdrawn, load_identity
from outroute.synthesis import Records, Settings
from outroute.transports import Answer, Holder, LocalNetwork, Traffic

__all__ = ["Node"]


@dataclass(eq=False)
class Node(Choosing):
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
        electing: whether packets are elected, and whom the operator pins.
        discretion: how much more than needed questions ask for, so that holders learn less about cases.
        restored: say so when ``data_dir`` comes from a backup.
        approval: who lets packets leave (``outroute.node.approval``); default somebody by hand, by ``approve``, unless
            the schema's distiller is ``single``.
        signatures: of organisations that agreed to the schema, beside those in ``data_dir``.
        noise: under the distiller ``private``; default OpenDP's. Another one promises nothing.

    Raises:
        SchemaError: ``schema.unsigned``, the schema names organisations, and too few of them signed it.
        DataError: ``approval`` does not fit the schema.
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
    electing: Electing = field(default_factory=Electing, repr=False)
    discretion: Discretion = field(default_factory=Discretion, repr=False)
    restored: bool = False
    approval: Approval | None = None
    signatures: Sequence[SchemaSignature] = field(default=(), repr=False)
    noise: Noise | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._closed = False
        check_agreed(self.schema, self.data_dir, self.signatures)
        if self.electing.budget is not None and self.discretion != Discretion():
            raise DataError(
                "a budget fetches the fewest packets, coarse questions and dummies more than needed: choose one",
                code="data.questions",
            )
        self._approval = default_approval(self.schema) if self.approval is None else self.approval
        self._approval.check(self.schema)
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
        self._directory = None if self.data_dir is None else Path(self.data_dir)
        self._keys, self._notices = Keys(self._identity, self._directory), Notices()
        self._received = Received(self.schema, self.data_dir)
        self._journal = Journal(
            self.data_dir,
            schema_id=self.schema.id,
            width=self.schema.width,
            now=self._now(),
            restored=self.restored,
        )
        self._joined = self.transport is not None
        try:
            self._holder = self.transport or self._alone()
        except BaseException:
            self._journal.close()
            raise
        self.transport = self._holder
        self._answered = AnsweredQuestions(self.log, own=self.id, clock=self._now)
        self._own: Records | None = None
        self._when = np.empty(0, dtype=np.int64)
        self._home: tuple[bytes, ...] = ()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        """All that comes before the first call."""
        outbox, now = self._journal.outbox, self._now()
        # What others keep in memory only may be gone: it is handed over again.
        forgetful = self.data_dir is not None and not self._holder.capabilities.durable
        self._again = outbox.queued(State.ACKNOWLEDGED, limit=ALL).ids if forgetful else np.empty(0, dtype=np.int64)
        tend(self._holder, now)
        self._beliefs = Beliefs(self.schema, self._journal)
        self._asker = Asker(
            self.schema,
            self._holder,
            self._received,
            own_keys=own_keys(self._holder, self._identity.public_key),
            secret=self.secret,
            seed=self.seed,
            settings=self.settings,
            electing=self.electing,
            organisation=organisation_of(self._holder),
            trust=self._beliefs.trust,
            asked=self._note_asked,
            origin=origin_of(self._holder),
            discretion=self.discretion,
            private=self._journal.derived(b"outroute dummies v1"),
        )
        self._believe(self.pins())
        listen(self._holder, answered=self._answered, withdrawn=self._asker.forget)
        if outbox.copied:
            self._notices.copied()
        if self._joined:
            self.log.append(Event.STARTED, now=now, node=self.id, schema=self.schema.id, incarnation=outbox.incarnation)

    def _alone(self) -> Holder:
        network = LocalNetwork(clock=self._now)
        return join_local(network, self._identity, self.schema, data_dir=self.data_dir, secret=self.secret, replicas=1)

    def _now(self) -> int:
        return int(self.clock())

    def _newest(self, what: str) -> None:
        """Refuse what belongs to the schema's successor: the same observation must not leave twice."""
        self._alive()
        later = None if self._directory is None else successor_dir(self._directory)
        if later is not None:
            raise StoreError(
                f"this node's observations were carried over to the schema's successor: {what} there, in '{later}'; "
                "here what has left is served until it expires",
                code="node.successor",
            )

    def _alive(self) -> None:
        if self._closed:
            raise StoreError("this node is closed: open it again", code="store.closed")

    # what leaves --------------------------------------------------------------------------------------------

    def distil(
        self, *, k: int | None = None, streaming: bool = False, grouping: Grouping | None = None
    ) -> Distillation:
        """Condense what has an outcome and is in no packet yet into signed packets in the outbox.

        There they wait until somebody approves them (``review``, ``approve``), unless ``approval`` lets them leave.
        What left before, in a packet that was withdrawn since, only joins cohorts of k subjects that are new. Under the
        distiller ``private`` this is the release of the current time bucket, which can be made once.

        Args:
            k: subjects in a packet; default the schema's floor, never below it.
            streaming: leave observations waiting until a tight cohort has come together.
            grouping: how cohorts are formed.

        Raises:
            PrivacyError: when ``k`` lies below the schema's floor; ``privacy.spent``, the budget of releases is spent;
                ``privacy.doubt``, it is not known what was released.
            StoreError: ``node.successor``, see ``confirm``.
        """
        self._newest("distil")
        if self._private:
            return self._release(k, streaming, grouping)
        ready = self._journal.observations(Which.READY)
        waiting = self._journal.counts()["waiting"]
        observations = Observations(
            codes=ready.codes,
            outcome=ready.outcome,
            subject=ready.subject,
            bucket=ready.bucket,
            facet=ready.facet,
            stale=ready.emitted,
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
                now=self._now(),
            )
        approved = self._approve_by_rule()
        withheld = dict(made.withheld.counts)
        if waiting:
            withheld[Reason.NO_OUTCOME] = withheld.get(Reason.NO_OUTCOME, 0) + waiting
        return Distillation(
            packets=n,
            observations=len(made.cohorts.rows),
            withheld=withheld,
            agreeing=made.agreeing,
            k=made.k,
            approved=approved,
            approved_by=self._approval.by,
        )

    # ask ----------------------------------------------------------------------------------------------------

    def ask(
        self,
        case: Mapping[str, Any],
        *,
        case_id: object | None = None,
        probes: int = PROBES,
        explain: bool = False,
    ) -> Insight:
        """What happened to cases like this one, elsewhere and here.

        Args:
            case: values by field name; what is left out is missing.
            case_id: remember the question and what every calculation says of it under this id, until ``confirm`` or
                ``observe`` brings its outcome. The same id again replaces what was said.
            probes: nearest cells to ask.
            explain: say why, too (``Insight.explanation``).

        Raises:
            DataError, SchemaError: when a value or a name is not the schema's.
        """
        codes = codes_of_case(self.schema, case)
        insights = self._ask(codes, probes)
        if case_id is not None and self._asker.fitted is not None:
            said = said_of(self.schema, self._asker.fitted, insights.answers)
            self._beliefs.ask(case_id, codes, said, now=self._now())
        insight = insights[0]
        return replace(insight, explanation=self._asker.explain(codes, insight, self._mine())) if explain else insight

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
            self._home = self._asker.homes(seen.codes)
            self._own = records_of(self.schema, seen.codes, seen.outcome, seen.subject, seen.bucket)
            self._when = seen.bucket
        return self._asker.answer(codes, self._own, when=self._when, home=self._home, probes=probes, now=self._now())

    def _note_asked(self, answers: Sequence[Answer], now: int) -> None:
        """Log a question: which cells, and to whom it went besides this node."""
        self._answered.write()
        known = [answer.asked for answer in answers if answer.asked is not None]
        members = sorted({member for asked in known for member in asked} - {self.id})
        told = {"recipients": members} if known else {}
        self.log.append(Event.ASKED, now=now, addresses=[answer.address for answer in answers], **told)

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
        refused = verdicts.counted()
        back = int(((accepted["flags"] & np.uint16(Flag.WITHDRAWAL)) != 0).sum())
        if len(accepted) or refused:
            self.log.append(
                Event.RECEIVED,
                now=now,
                packets=len(accepted) - back,
                withdrawals=back,
                refused=sum(refused.values()),
            )
        return refused

    def paths(self, *, top: int = TOP) -> Pathways:
        """Who corroborates or contradicts whom, own records among them, in the packets that this node knows.

        The cells of own records are fetched, as for a question.

        Args:
            top: strongest paths of either sign to show.

        Raises:
            DataError: ``top`` lies outside 1..1,000.
        """
        self._alive()
        now, seen = self._now(), self._journal.observations(Which.KNOWN)
        self._asker.fetch(self._asker.addresses(seen.codes, 1), now)
        packets = self._asker.packets(now)
        return paths_between(self.schema, packets, seen.codes, seen.outcome, top=top, origin=origin_of(self._holder))

    def received(self) -> PacketArray:
        """Packets that ``receive`` took in and that are in force, each once."""
        self._alive()
        return self._received.in_force(self._now())

    def _let_go(self, own: Withdrawn) -> None:
        super()._let_go(own)
        self._beliefs.erased()

    # housekeeping -------------------------------------------------------------------------------------------

    @property
    def trust(self) -> Trust:
        """Running trust in the calculations, by outcomes that became known after questions had been answered."""
        return self._beliefs.trust()

    @property
    def bytes_out(self) -> int:
        """Bytes that left this node: deposits, questions, replication, announcements, replies to others."""
        return self._holder.traffic.bytes_out

    @property
    def traffic(self) -> Traffic:
        """Bytes of frames that left this node and came to it, by what they were for."""
        return self._holder.traffic

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
            listen(self._holder, answered=None, withdrawn=None)
            leave(self._holder)
            self._answered.write(everything=True)
            if self._joined:
                self.log.append(Event.STOPPED, now=self._now())
        finally:
            self._received.close()
            self._journal.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
