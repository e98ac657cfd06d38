"""What an audit tries, and how hard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from outroute.audit.emission import Emitter, cohorts
from outroute.audit.noisy import private
from outroute.audit.searching import Plan
from outroute.audit.sequence import STEPS, arriving
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
        worth: subjects of a site, for the utility, at most: without attacks more of them are quick, and intervals
            narrower.
        watched: shadow emissions of what leaves over time, at least 8; 0: leave it out.
    """

    shadows: int = 32
    subjects: int = 200
    sites: int = 6
    packets: int = 4
    plan: Plan = field(default_factory=Plan)
    repeats: int = 20
    worth: int = 500
    watched: int = 16


QUICK = Effort(
    shadows=12,
    subjects=80,
    sites=4,
    packets=2,
    plan=Plan(targets=2, batches=1, iterations=150, restarts=1, realistic=0),
    repeats=2,
    worth=80,
    watched=8,
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
        arrive: the same while records arrive, for :mod:`outroute.audit.sequence`; None: not looked at.
    """

    name: str
    emit: Emitter
    k: int = 0
    epsilon: float = 0.0
    arrive: Emitter | None = None


RELEASES = 4
"""Of `private` while records arrive."""
_ADVICE = Grouping(agreement=Agreement.MERGE, dissent=2)
_NOISE = Decimal("0.1")
ADVISED = Setting(
    name="cohorts of 10, noise 0.1, dissent 2",
    emit=cohorts(10, _ADVICE, noise=_NOISE),
    k=10,
    arrive=arriving(10, _ADVICE, noise=_NOISE),
)
"""What founders are advised to ask for where records concern persons (docs/founders.md)."""


def settings_of(
    ks: tuple[int, ...],
    *,
    advised: bool = True,
    epsilon: float | None = None,
    grid: Mapping[str, int] | None = None,
    watch: tuple[int, ...] | None = None,
) -> list[Setting]:
    """Single records (1), cohorts of these sizes with the schema's own noise, cohorts as advised, and ``private``.

    Args:
        ks: subjects in a packet.
        advised: also as advised.
        epsilon: also ``private`` with this lifetime budget of a subject; None: not.
        grid: levels of the fields that make the regions of ``private``; None: landmarks drawn from declared ranges.
        watch: of which sizes what leaves over time is attacked too; None: of all above 1.
    """
    out = [
        Setting(
            name="single records" if k == 1 else f"cohorts of {k}",
            emit=cohorts(k),
            k=k,
            arrive=arriving(k) if k > 1 and (watch is None or k in watch) else None,
        )
        for k in ks
    ]
    if advised:
        out.append(ADVISED)
    if epsilon is not None:
        budget = Decimal(f"{epsilon:.6f}")
        ends = tuple(STEPS * part // RELEASES - 1 for part in range(1, RELEASES))
        out.append(
            Setting(
                name=f"private, epsilon {epsilon:g}",
                emit=private(budget, grid=grid),
                epsilon=epsilon,
                arrive=private(budget, grid=grid, until=ends),
            )
        )
    return out
