"""What an audit tries, and how hard."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from outroute.audit.emission import Emitter, cohorts
from outroute.audit.federated import Plan
from outroute.distill import Agreement, Grouping

__all__ = ["ADVISED", "QUICK", "Effort", "Setting", "settings_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is tried.

    Attributes:
        shadows: emissions (and runs of a federation) of membership inference.
        subjects: of a site at most; more are drawn at random.
        sites: at most, spread evenly from the largest to the smallest.
        packets: solved for their members, at each site.
        plan: of the search for records in updates.
        repeats: splits of the utility.
    """

    shadows: int = 32
    subjects: int = 200
    sites: int = 6
    packets: int = 4
    plan: Plan = field(default_factory=Plan)
    repeats: int = 5


QUICK = Effort(
    shadows=12,
    subjects=80,
    sites=4,
    packets=2,
    plan=Plan(targets=2, batches=1, iterations=150, restarts=1, realistic=0),
    repeats=2,
)
"""Seconds: it shows that an audit runs and what it looks like; its intervals are wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way of emitting that is attacked.

    Attributes:
        name: for people.
        emit: the distiller.
        k: subjects in a packet; 0 where that means nothing (``private``).
        epsilon: lifetime budget of a subject; 0 for none.
    """

    name: str
    emit: Emitter
    k: int = 0
    epsilon: float = 0.0


def settings_of(ks: tuple[int, ...], *, advised: bool = True) -> list[Setting]:
    """Single records (1), cohorts of these sizes with the schema's own noise, and cohorts as advised."""
    out = [Setting(name="single records" if k == 1 else f"cohorts of {k}", emit=cohorts(k), k=k) for k in ks]
    return [*out, ADVISED] if advised else out


ADVISED = Setting(
    name="cohorts of 10, noise 0.1, dissent 2",
    emit=cohorts(10, Grouping(agreement=Agreement.MERGE, dissent=2), noise=Decimal("0.1")),
    k=10,
)
"""What founders are advised to ask for where records concern persons (docs/founders.md)."""
