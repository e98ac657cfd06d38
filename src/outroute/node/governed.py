"""What leaves a node, who let it leave, and how it is taken back: the half of ``Node`` that governs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.node.approval import Approval
from outroute.node.asking import Asker
from outroute.node.handing_over import ALL, Causes, hand_over, publish
from outroute.node.notices import Notices
from outroute.node.received import Received
from outroute.node.reports import Erasure, HandedOver, Published, TakenBack
from outroute.node.taking_back import (
    Keys,
    everywhere,
    known_case,
    noisy,
    packet_numbers,
    time_numbers,
    whole_releases,
)
from outroute.packet import PacketArray
from outroute.schema import Schema
from outroute.store import Approved, AuditLog, Erased, Event, Journal, Kind, Queued, Review, State, Withdrawn
from outroute.synthesis import Records
from outroute.transports import Holder

__all__ = ["NO_REASON", "Governed"]

T = TypeVar("T")

NO_REASON = "not given"
"""What stands in the log when nobody says why."""
_DAY = 86_400
_ENTRIES = 100
"""Entries of the log read at a time when it is read backwards."""


class Governed:
    """Outbox, approval, log and withdrawals of a node; ``Node`` is one."""

    schema: Schema
    successor: Governed | None = None
    """The node of the schema's successor, where both run in one process; else its directory is used when cases, times
    or subjects are taken back, and must not be in use."""
    cause_of: Causes | None = None
    """Cause ids for numbers of the outbox: they travel with the packets, for logs that are read together."""
    _journal: Journal
    _holder: Holder
    _received: Received
    _asker: Asker
    _approval: Approval
    _keys: Keys
    _notices: Notices
    _directory: Path | None
    _again: NDArray[np.int64]
    _own: Records | None
    _now: Callable[[], int]
    _alive: Callable[[], None]

    @property
    def id(self) -> bytes:
        """The node's id, 32 bytes."""
        return self._keys.identity.id

    @property
    def key(self) -> bytes:
        """The node's public key, 32 bytes: what others name it by when they certify, pin or give it shares."""
        return self._keys.identity.public_key

    @property
    def journal(self) -> Journal:
        """The node's state: observations, ``journal.outbox``, ``journal.log``."""
        return self._journal

    @property
    def log(self) -> AuditLog:
        """What left, when, to whom, and who approved it, as a chain that cannot be rewritten unnoticed."""
        return self._journal.log

    @property
    def notices(self) -> tuple[str, ...]:
        """What the operator should know, noticed at the start or since: the directory has a double, say."""
        return self._notices.texts

    # approving ----------------------------------------------------------------------------------------------

    def outbox(self, *states: State) -> PacketArray:
        """Packets of the outbox in some states (default all), in the order in which they were made."""
        return self._journal.outbox.page(*states, limit=ALL, kind=Kind.PACKET).packets

    def pending(self, *, after: int = 0, limit: int = 100) -> Queued:
        """Packets that wait for approval, oldest first.

        Args:
            after: the last number of the page before.
            limit: at most so many.
        """
        return self._journal.outbox.page(State.PENDING, after=after, limit=limit, kind=Kind.PACKET)

    def review(self, ids: NDArray[np.int64] | None = None) -> Review:
        """Put pending packets together under one digest, the SHA-256 of their bytes one after the other.

        Args:
            ids: their numbers (``Queued.ids``); default all that are pending.

        Raises:
            StoreError: nothing is pending, or one of them is not.
        """
        return self._journal.outbox.review(ids, now=self._now())

    def approve(self, digest: str, *, by: str) -> Approved:
        """Let exactly the bytes with this digest leave, with the next ``publish`` or ``hand_over``.

        Args:
            digest: of a review or of one packet, in hex; 12 digits or more.
            by: who approves, for the log.

        Raises:
            StoreError: unknown, ambiguous, or one of the packets is pending no longer; nothing is approved.
        """
        return self._journal.outbox.approve(digest, by=by, now=self._now())

    def reject(self, digest: str, *, by: str, again: bool = False) -> Approved:
        """Never let these bytes leave.

        Args:
            digest, by: as for ``approve``.
            again: their observations may leave in other packets; else they stay here.

        Raises:
            StoreError: as ``approve``.
        """
        return self._journal.outbox.reject(digest, by=by, now=self._now(), again=again)

    def approve_with(self, approval: Approval) -> None:
        """Let packets leave by other rules from now on.

        Raises:
            DataError: they do not fit the schema; the ones before stay.
        """
        approval.check(self.schema)
        self._approval = approval

    def _approve_by_rule(self) -> int:
        """Approve what waits and may leave without being looked at; how many packets."""
        if not self._approval.by:
            return 0
        waiting = self.pending(limit=ALL)
        good = self._approval.passes(self.schema, waiting.packets, now=self._now(), approved_today=self._approved_today)
        if good.any():
            self._journal.outbox.approve_ids(waiting.ids[good], by=self._approval.by, now=self._now())
        return int(good.sum())

    def _approved_today(self) -> int:
        """Packets approved by the rules since midnight UTC, by the log."""
        now = self._now()
        before, found = self.log.head()[0], 0
        while before > 0:
            first = max(0, before - _ENTRIES)
            entries = self.log.entries(after=first, limit=before - first)
            for entry in entries:
                if entry.at >= now - now % _DAY and entry.kind == Event.APPROVED:
                    found += len(entry.fields["identities"]) if entry.fields["by"] == self._approval.by else 0
            if not entries or max(entry.at for entry in entries) < now - now % _DAY:
                break
            before = first
        return found

    # handing over -------------------------------------------------------------------------------------------

    def publish(self) -> Published:
        """Hand what is approved to the holders of its addresses, withdrawals first; nothing else leaves.

        What is not acknowledged is sent again by the next call.

        Raises:
            TransportError: the holders serve another schema or have another network secret; nothing is given up.
        """
        self._alive()
        outbox = self._journal.outbox
        sent = publish(
            self._journal,
            self._holder,
            self.schema,
            own=self.id,
            again=self._again,
            now=self._now(),
            cause_of=self.cause_of,
        )
        self._again = self._again[:0]
        if len(sent.doubled):
            self._notices.doubled(len(sent.doubled))
            newest = int(outbox.get(sent.doubled).packets["sequence"].max()) >> 32
            if newest >= outbox.incarnation:  # else the numbers are others already, and these are sent again
                outbox.new_incarnation(self._now())
        if sent.gone:
            self._notices.gone(sent.gone)
        return sent.published

    def hand_over(self, path: Path | str | None = None, *, to: str, again: bool = False) -> HandedOver:
        """Give what is approved as bytes, 512 for each packet, for a receiver that no transport reaches.

        Withdrawals come first; a receiver also gets those of packets that it was handed before. Nobody knows whether
        the file arrives: what is in it counts as sent.

        Args:
            path: where to write it, replacing what is there; nothing is written when there is nothing to hand over.
                None to only return the bytes.
            to: who gets it, for the log.
            again: everything in force that was approved, also what was handed over before.

        Raises:
            StoreError: the file cannot be written, or ``to`` is no name; nothing counts as handed over.
        """
        self._alive()
        return hand_over(self._journal, self.schema, path, to=to, again=again, now=self._now())

    # taking back --------------------------------------------------------------------------------------------

    def withdraw(
        self,
        *,
        by: str,
        packet: str | None = None,
        case: object | None = None,
        since: int | None = None,
        until: int | None = None,
        reason: str = NO_REASON,
    ) -> TakenBack:
        """Take packets back: one, that of a case, or all of a time.

        What was approved gets a withdrawal in the outbox, which leaves with the next ``publish`` or ``hand_over``; what
        was not approved is dropped. Cases and times are withdrawn in the directories of schema successors too.

        Args:
            by: who withdraws, for the log.
            packet: digest or identity, at least 12 hexadecimal digits.
            case: id of a case.
            since, until: seconds since 1970-01-01 UTC; packets with an observation from the bucket of ``since`` on and
                before ``until``.
            reason: why, for the log; no case, no subject.

        Raises:
            DataError: none or several ways to say which packets (``withdraw.which``); another node's packet, or no
                packet (``withdraw.foreign``, ``withdraw.unknown``); no such case (``withdraw.case``).
            StoreError: ``by`` or ``reason`` is no text, or a successor's directory is in use; nothing is withdrawn.
        """
        self._alive()
        timed = since is not None or until is not None
        if (packet is not None) + (case is not None) + timed != 1 or (timed and (since is None or until is None)):
            raise DataError("say which packets: packet, case, or since and until", code="withdraw.which")
        if packet is not None:
            numbers = packet_numbers(self._journal, packet, self._others())
            return self._taken_back(self._withdraw(self._journal, self._keys, numbers, by, reason), ())

        known: list[bool] = []

        def act(journal: Journal, keys: Keys, schema: Schema) -> Withdrawn:
            if case is not None:
                known.append(known_case(journal, case))
                numbers = np.empty(0, dtype=np.int64) if noisy(schema) else journal.case_packets(case)
            else:
                assert since is not None
                assert until is not None
                numbers = time_numbers(journal, schema, since, until)
            return self._withdraw(journal, keys, numbers, by, reason)

        own, others = self._everywhere(act, lambda done: done)
        if case is not None and not any(known):
            raise DataError(f"this node knows no case '{case}': give its id as it was observed", code="withdraw.case")
        return self._taken_back(own, others)

    def correct(self, *, by: str, reason: str = "a correction") -> TakenBack:
        """Take back the packets with observations that changed after they left, and let the new values replace the old.

        Under the distiller ``private`` no packet is taken back: the new values replace the old here only.

        Args:
            by: who corrects, for the log.
            reason: why, for the log.
        """
        self._alive()
        nothing = np.empty(0, dtype=np.int64)
        if noisy(self.schema):
            applied = self._journal.amend(by=by, now=self._now(), reason=reason)
            amended = Withdrawn(ids=nothing, withdrawals=nothing, dropped=nothing, freed=0, applied=applied)
            return self._taken_back(amended, ())
        changed = np.unique(self._journal.conflicts().packet)
        queued = self._journal.outbox.get(changed)
        done = self._journal.correct(
            queued.ids, self._keys.withdrawals(queued.packets), by=by, reason=reason, now=self._now()
        )
        return self._taken_back(done, ())

    def erase(self, subject: object, *, by: str) -> Erasure:
        """Erase a subject: delete what is known of it, and withdraw and blank every packet that it contributed to.

        The same is done in the directories of schema successors. What left honest nodes' hands cannot be recalled.
        Under the distiller ``private`` no packet is withdrawn: what is taken back would tell of who was erased.

        Args:
            subject: its id, as it was observed; that of a case where cases have no subjects.
            by: who erases, for the log.

        Raises:
            StoreError: ``by`` is no text, or a successor's directory is in use; nothing is erased.
        """
        self._alive()

        def act(journal: Journal, keys: Keys, schema: Schema) -> Erased:
            told = noisy(schema)
            queued = journal.outbox.get([] if told else journal.subject_packets(subject))
            back = keys.withdrawals(queued.packets)
            return journal.erase(subject, queued.ids, back, by=by, now=self._now(), noisy=told)

        own, others = self._everywhere(act, lambda done: done.withdrawn)
        everything = [own, *(done for _, done in others)]
        return Erasure(
            observations=sum(done.observations for done in everything),
            questions=sum(done.questions for done in everything),
            withdrawn=self._taken_back(own.withdrawn, tuple((place, done.withdrawn) for place, done in others)),
        )

    def _withdraw(self, journal: Journal, keys: Keys, numbers: NDArray[np.int64], by: str, reason: str) -> Withdrawn:
        queued = journal.outbox.get(whole_releases(journal, numbers))
        withdrawals = keys.withdrawals(queued.packets)
        return journal.outbox.withdraw(queued.ids, withdrawals, by=by, reason=reason, now=self._now())

    def _everywhere(
        self, act: Callable[[Journal, Keys, Schema], T], withdrawn: Callable[[T], Withdrawn]
    ) -> tuple[T, tuple[tuple[Path, T], ...]]:
        """Do the same here and in the schema's successors; see ``everywhere``.

        Args:
            act: what to do.
            withdrawn: what became of packets, of what ``act`` gives.
        """
        later = self.successor
        if later is None:
            return everywhere(self._journal, self.schema, self._directory, self._keys, act, now=self._now())
        done, others = later._everywhere(act, withdrawn)
        later._let_go(withdrawn(done))
        return act(self._journal, self._keys, self.schema), ((later._directory or Path(), done), *others)

    def _let_go(self, own: Withdrawn) -> None:
        """Let nothing rest on what was taken back."""
        back = self._journal.outbox.get(own.withdrawals).packets
        mine = self._received.everything(self._now())
        if len(back) and np.isin(mine["sequence"], back["sequence"]).any():  # own packets came back in a file
            self._received.add(back, self._now())
        self._own = None
        self._asker.refit()

    def _taken_back(self, own: Withdrawn, others: tuple[tuple[Path, Withdrawn], ...]) -> TakenBack:
        self._let_go(own)
        return TakenBack(
            ids=own.ids,
            withdrawals=own.withdrawals,
            dropped=own.dropped,
            freed=own.freed,
            applied=own.applied,
            successors=others,
        )

    def _others(self) -> PacketArray:
        """Packets of others that this node knows."""
        return np.concatenate([self._received.everything(self._now()), self._asker.known()])
