"""What a node says about its budget of differential privacy."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from outroute.errors import PrivacyError
from outroute.schema import Distiller, Migration, Schema, decimal_text
from outroute.store import Before, Given, Journal, Observed, Promise, Spent, Which

__all__ = ["BudgetReport", "SubjectReport", "carry_budget", "check_promise", "promise_of", "subject_report"]


def promise_of(schema: Schema) -> Promise | None:
    """What a schema promises; None where its distiller is another."""
    p = schema.privacy
    if p.epsilon is None or p.m is None or p.releases is None:
        return None
    return Promise(epsilon=p.epsilon, delta=p.delta, m=p.m, releases=p.releases)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReport:
    """What a node has spent of its budget, and what is left.

    Attributes:
        schema: name.
        promise: what the schema promises.
        spent: what was spent.
        due: from when on the next release may be made, if one is left; seconds.
        scales: scale of the noise on each sum of a packet.
        waiting: records that may leave with the next release.
        exhausted: records whose subject has given all that it may.
    """

    schema: str
    promise: Promise
    spent: Spent
    due: int
    scales: tuple[float, ...]
    waiting: int
    exhausted: int

    @property
    def releases_left(self) -> int:
        """Releases that may still be made; 0 while there is doubt."""
        return 0 if self.spent.doubt else max(self.promise.releases - self.spent.all_releases, 0)

    @property
    def next_release(self) -> int | None:
        """From when on the next release may be made, seconds; None where none is left."""
        return self.due if self.releases_left else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        p, s = self.promise, self.spent
        given = {str(n): count for n, count in sorted(s.given.items())}
        return {
            "schema": self.schema,
            "epsilon": decimal_text(p.epsilon),
            "delta": decimal_text(p.delta),
            "records_per_subject": p.m,
            "releases": p.releases,
            "releases_made": s.all_releases,
            "releases_left": self.releases_left,
            "spent": self.releases_left == 0,
            "doubt": None if s.doubt is None else s.doubt.value,
            "next_release": self.next_release,
            "noise_scales": list(self.scales),
            "subjects": {
                "by_records_given": given,
                "nothing_left": sum(count for n, count in s.given.items() if n >= p.m) + s.erased + s.gone,
                "erased": s.erased,
                "left_before_without_a_promise": s.gone,
                "bound_by_predecessors": s.bound,
            },
            "most_epsilon_of_one_subject": decimal_text(self.most_epsilon),
            "records": {"waiting": self.waiting, "exhausted": self.exhausted},
            "predecessors": [
                {"schema": b.schema, "name": b.name, "releases": b.releases, "epsilon": b.epsilon or None}
                for b in s.before
            ],
        }

    @property
    def most_epsilon(self) -> Any:
        """Epsilon that was spent on the subject that gave most records under this schema."""
        return self.promise.epsilon * max(self.spent.given, default=0) / self.promise.m


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectReport:
    """What one subject has given of its budget, and what is left of it.

    Attributes:
        promise: what the schema promises.
        known: whether this node has observed or released anything of it.
        observed: its records here.
        given: its records that are in releases under this schema.
        left: records that it may still give, in all releases to come together.
        epsilon, before: what that cost it under this schema, and under its predecessors.
        ended: ``erased`` or ``left before without a promise``: why it gives nothing more, if that is why.
    """

    promise: Promise
    known: bool
    observed: int
    given: int
    left: int
    epsilon: Decimal
    before: Decimal
    ended: str | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the subject is not named in it."""
        return {
            "known": self.known,
            "records": {"observed": self.observed, "given": self.given, "left": self.left},
            "epsilon": {
                "promised": decimal_text(self.promise.epsilon),
                "spent": decimal_text(self.epsilon),
                "spent_under_predecessors": decimal_text(self.before),
            },
            "ended": self.ended,
        }


def subject_report(journal: Journal, schema: Schema, subject: object) -> SubjectReport:
    """What one subject has given of its budget, and what is left of it.

    Args:
        journal: the node's.
        schema: whose distiller is ``private``.
        subject: as its column names it.
    """
    promise = promise_of(schema)
    assert promise is not None
    numbers = journal.subject_numbers(subject)
    seen = sum(
        int(np.isin(journal.observations(which).subject, numbers).sum()) for which in (Which.KNOWN, Which.WAITING)
    )
    gave = next((one for number in numbers if (one := journal.budget.given(number, promise)) is not None), None)
    nothing = Given(records=0, epsilon_before=Fraction(0), left=promise.m, erased=False, gone=False)
    what = gave or nothing
    return SubjectReport(
        promise=promise,
        known=gave is not None or seen > 0,
        observed=seen,
        given=what.records,
        left=what.left,
        epsilon=promise.epsilon * what.records / promise.m,
        before=Decimal(what.epsilon_before.numerator) / what.epsilon_before.denominator,
        ended="erased" if what.erased else "left before without a promise" if what.gone else None,
    )


def check_promise(old: Schema, new: Schema) -> None:
    """A promise for a node's lifetime is not taken back by another schema."""
    if old.privacy.distiller is Distiller.PRIVATE and new.privacy.distiller is not Distiller.PRIVATE:
        raise PrivacyError(
            f"'{old.name}' promised differential privacy over this node's lifetime, and '{new.name}' does not: its "
            "observations cannot be carried over. A successor has the distiller 'private' too",
            code="migrate.private",
        )


def carry_budget(parent: Journal, journal: Journal, migration: Migration, before: Observed) -> None:
    """What was spent stays spent; who left without a promise gives nothing under one."""
    old = migration.old
    promise = promise_of(old)
    said = Before(
        schema=old.id.hex(),
        name=old.name,
        releases=parent.budget.spent().releases,
        epsilon="" if promise is None else decimal_text(promise.epsilon),
        delta="" if promise is None else decimal_text(promise.delta),
        m=0 if promise is None else promise.m,
    )
    private = migration.new.privacy.distiller is Distiller.PRIVATE
    bare = before.subject[before.emitted] if private and promise is None else np.empty(0, dtype=np.int64)
    journal.budget.carry(parent.budget, said, promise, bare)
