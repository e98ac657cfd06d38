"""Releases with noise: the half of ``Node`` for schemas whose distiller is ``private``.

One release a time bucket, of every region, made when it is asked for whether anything was observed or not. It is
charged to the budget in the commit that puts it into the outbox, and from then on it leaves whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.distill import Grouping, Noise, Observations, Reason, distil_private, plan_of
from outroute.errors import PrivacyError, TransportError
from outroute.fingerprint import cells
from outroute.identity import Identity
from outroute.node.budgeting import BudgetReport, SubjectReport, promise_of, subject_report
from outroute.node.emitting import addresses_of
from outroute.node.governed import Governed
from outroute.node.portal import run
from outroute.node.reports import Distillation, TakenBack
from outroute.packet import PACKET_DTYPE, PacketArray, build_noisy, identities, regions_of, sign
from outroute.placement import Wanted
from outroute.schema import Distiller
from outroute.store import ANSWER_CAP, Approved, Doubt, Promise, Spent, Which

__all__ = ["Releasing"]

PROBES = 4
"""Cells in which own packets are looked for before a release; each release has a packet in every one, without delta."""
PROBES_DELTA = 64
"""The same with delta, where a release leaves cells out."""


class Releasing(Governed):
    """Releases and what may be done with them; all else is as in ``Governed``."""

    noise: Noise | None
    secret: bytes
    _identity: Identity
    _newest: Callable[[str], None]

    @property
    def _private(self) -> bool:
        return self.schema.privacy.distiller is Distiller.PRIVATE

    # releasing ----------------------------------------------------------------------------------------------

    def _release(self, k: int | None, streaming: bool, grouping: Grouping | None) -> Distillation:
        """Make the release of this time bucket; see ``Node.distil``."""
        schema, now = self.schema, self._now()
        if k not in (None, schema.privacy.k) or streaming or grouping is not None:
            raise PrivacyError(
                "under the distiller 'private' there is nothing to choose at a release: what it holds follows from the "
                "schema, and k too stands there",
                code="privacy.fixed",
            )
        promise = promise_of(schema)
        assert promise is not None
        budget = self._journal.budget
        self._look_for_lost_releases()
        spent = budget.spent()
        self._may_release(spent, promise)
        waiting = self._journal.counts()["waiting"]
        epoch = schema.time.bucket(now)
        if spent.last_epoch is not None and epoch <= spent.last_epoch:
            left = {Reason.NEXT_RELEASE: self._journal.counts()["ready"], Reason.NO_OUTCOME: waiting}
            return self._made(0, 0, {reason: n for reason, n in left.items() if n})
        seen = self._journal.observations(Which.READY)
        observations = Observations(
            codes=seen.codes, outcome=seen.outcome, subject=seen.subject, bucket=seen.bucket, facet=seen.facet
        )
        made = distil_private(schema, observations, budget.left(seen.subject, promise), self._source())
        number = len(made.regions)
        with self._journal.together():
            first = 0
            if number:
                packets = build_noisy(
                    schema,
                    author=self._identity.public_key,
                    sequence=np.uint64(self._journal.outbox.reserve(number)) + np.arange(number, dtype=np.uint64),
                    regions=made.regions,
                    sums=made.sums,
                    bucket=epoch,
                )
                sign(packets, self._identity)
                first = self._put(packets, seen.rows[made.rows], now)
            budget.charge(seen.subject[made.rows], epoch=epoch, first=first, packets=number, now=now)
            if not number:  # only with delta: what was counted is charged, and is not told again
                self._journal.leave_out(seen.rows[made.rows])
        budget.settle()
        withheld = dict(made.withheld.counts)
        if waiting:
            withheld[Reason.NO_OUTCOME] = withheld.get(Reason.NO_OUTCOME, 0) + waiting
        return self._made(number, len(made.rows), withheld)

    def _put(self, packets: PacketArray, rows: NDArray[np.int64], now: int) -> int:
        """Put a release into the outbox; the number of its first packet, with which all its observations are noted."""
        codes = packets["conditions"][:, : self.schema.width]
        addresses = addresses_of(self.schema, codes, packets["cell"].astype(np.int64), self.secret)
        nobody = np.empty(0, dtype=np.int64)
        members = [rows, *[nobody] * (len(packets) - 1)]
        release = self._journal.budget.spent().releases + 1
        return int(self._journal.outbox.add(packets, addresses, members, now=now, release=release)[0])

    def _made(self, packets: int, observations: int, withheld: dict[Reason, int]) -> Distillation:
        return Distillation(
            packets=packets,
            observations=observations,
            withheld=withheld,
            agreeing=0,
            k=self.schema.privacy.k,
            approved=self._approve_by_rule(),
            approved_by=self._approval.by,
        )

    def _source(self) -> Noise:
        if self.noise is None:
            from outroute.node.noise import OpenDPNoise

            self.noise = OpenDPNoise()
        return self.noise

    def _may_release(self, spent: Spent, promise: Promise) -> None:
        if spent.doubt is not None:
            said = {
                Doubt.COPIED: "this directory was copied, moved or restored from a backup, and what was released since "
                "is not known here. If nothing was, and no copy runs, vouch for it: outroute budget --vouch --by NAME",
                Doubt.SET_BACK: "an older journal was put back: releases were made that it does not know. Put the "
                "newest journal.db back",
                Doubt.SEEN: "the network has packets of this node that its outbox does not know: this directory "
                "was set back, or has a double. Put the newest journal.db back, and stop the double",
            }
            raise PrivacyError(
                f"{said[spent.doubt]}. Until then nothing is released, for the same people might be told of twice",
                code="privacy.doubt",
            )
        if spent.all_releases >= promise.releases:
            raise PrivacyError(
                f"the budget of this node is spent: all {promise.releases} releases were made. It goes on answering, "
                "asking and keeping packets; see outroute budget",
                code="privacy.spent",
            )

    def _look_for_lost_releases(self) -> None:
        """Find out whether the network, or a file, has packets of this node that its outbox does not know."""
        mine = [self._received.everything(self._now()), self._own_in_network()]
        found = np.concatenate(mine)
        keys = np.frombuffer(self._identity.public_key, dtype=np.uint8)
        found = found[(found["author"] == keys).all(axis=1)]
        if len(found) and not self._journal.outbox.knows(identities(found)):
            self._journal.budget.doubt(Doubt.SEEN)

    def _own_in_network(self) -> PacketArray:
        """What holders have of this node in some regions, always the same; nothing where nobody can be asked."""
        regions = regions_of(self.schema)
        many = PROBES_DELTA if self.schema.privacy.delta else PROBES
        chosen = np.unique(np.linspace(0, len(regions) - 1, min(many, len(regions))).astype(np.int64))
        codes = regions.codes[chosen]
        names = addresses_of(self.schema, codes, cells(self.schema, codes)[:, 0], self.secret)
        own = (Wanted(int.from_bytes(self._identity.public_key[:8], "little"), 0),)
        asked = self._holder.fetch(self.schema.id, list(dict.fromkeys(names)), cap=ANSWER_CAP, wanted=own)
        try:
            answers = run(asked)
        except TransportError:
            answers = []
        return np.concatenate([np.empty(0, dtype=PACKET_DTYPE), *(answer.packets for answer in answers)])

    # the budget ---------------------------------------------------------------------------------------------

    def budget(self) -> BudgetReport:
        """What was spent of the privacy that the schema promises, and what is left.

        Raises:
            PrivacyError: ``privacy.distiller``, the schema promises nothing that could be spent.
        """
        plan, promise = plan_of(self.schema), promise_of(self.schema)
        assert promise is not None
        spent = self._journal.budget.spent()
        ready = self._journal.observations(Which.READY)
        able = self._journal.budget.left(ready.subject, promise) > 0
        due = self._now() if spent.last_epoch is None else spent.last_epoch + self.schema.time.bucket_seconds
        return BudgetReport(
            schema=self.schema.name,
            promise=promise,
            spent=spent,
            due=due,
            scales=plan.scales,
            waiting=int(able.sum()),
            exhausted=int((~able).sum()),
        )

    def budget_of(self, subject: object) -> SubjectReport:
        """What one subject has given of its budget, and what is left of it.

        Args:
            subject: as its column names it.

        Raises:
            PrivacyError: ``privacy.distiller``, the schema promises nothing that could be spent.
        """
        plan_of(self.schema)
        return subject_report(self._journal, self.schema, subject)

    def vouch(self, *, by: str) -> BudgetReport:
        """Vouch that nothing was released since a backup was made, or by another copy of this directory.

        Args:
            by: who vouches, for the log.

        Raises:
            StoreError: ``budget.doubt``, something was; ``budget.sure``, nobody doubts it.
        """
        self._newest("vouch")
        self._look_for_lost_releases()
        self._journal.budget.vouch(by=by, now=self._now())
        return self.budget()

    # what leaves, leaves whole ------------------------------------------------------------------------------

    def approve(self, digest: str, *, by: str) -> Approved:
        """See ``Governed.approve``; under ``private`` whole releases only.

        Raises:
            PrivacyError: ``privacy.whole``.
        """
        if not self._private:
            return super().approve(digest, by=by)
        with self._journal.together():
            done = super().approve(digest, by=by)
            self._whole(done.ids)
        return done

    def reject(self, digest: str, *, by: str, again: bool = False) -> Approved:
        """See ``Governed.reject``; under ``private`` whole releases only, and what they cost stays spent.

        Raises:
            PrivacyError: ``privacy.whole``; ``privacy.again``, a release was drawn, whoever saw it.
        """
        if not self._private:
            return super().reject(digest, by=by, again=again)
        if again:
            raise PrivacyError(
                "a release with noise cannot be drawn again: choosing between two draws tells more than one. What it "
                "cost stays spent",
                code="privacy.again",
            )
        with self._journal.together():
            done = super().reject(digest, by=by)
            self._whole(done.ids)
        return done

    def _whole(self, ids: NDArray[np.int64]) -> None:
        for first, packets, _ in self._journal.budget.ranges().tolist():
            inside = int(((ids >= first) & (ids < first + packets)).sum())
            if 0 < inside < packets:
                raise PrivacyError(
                    f"a release leaves whole or not at all: {inside:,} of its {packets:,} packets would say by what "
                    "is missing what was observed. Review all that waits (outroute outbox show) and take that digest",
                    code="privacy.whole",
                )

    def _approve_by_rule(self) -> int:
        if not self._private:
            return super()._approve_by_rule()
        if not self._approval.by:
            return 0
        waiting = self.pending(limit=2**62)
        good = self._approval.passes(self.schema, waiting.packets, now=self._now(), approved_today=self._approved_today)
        for first, packets, _ in self._journal.budget.ranges().tolist():
            inside = (waiting.ids >= first) & (waiting.ids < first + packets)
            good[inside] = good[inside].all()
        if good.any():
            self._journal.outbox.approve_ids(waiting.ids[good], by=self._approval.by, now=self._now())
        return int(good.sum())

    # taking back --------------------------------------------------------------------------------------------

    def withdraw(self, **which: Any) -> TakenBack:
        """See ``Governed.withdraw``; under ``private`` whole releases only: that of a packet, or those of a time.

        Raises:
            PrivacyError: ``privacy.withdraw``, a case was named: taking back because of one case tells of it.
        """
        if self._private and which.get("case") is not None:
            raise PrivacyError(
                "under the distiller 'private' nothing is taken back because of one case: that would tell of it, and "
                "what left tells next to nothing of it. outroute erase deletes a subject here; outroute withdraw "
                "--since takes whole releases back",
                code="privacy.withdraw",
            )
        return super().withdraw(**which)
