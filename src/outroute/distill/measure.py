"""What grouping costs: the same observations through every way of grouping, and what is lost on the way.

For benchmarks and for choosing defaults; nothing here runs when a node distils.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.distill.aggregate import aggregate, agreeing
from outroute.distill.cohort import Grouping, distil
from outroute.distill.model import Agreement, Cohorts, Observations
from outroute.distill.space import embed
from outroute.distill.streaming import Waiting, distil_waiting
from outroute.schema import MISSING

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["METHODS", "Figure", "arrivals", "compare", "grouping_loss"]

Method = Callable[["Schema", Observations, int, np.random.Generator], Cohorts]
Scorer = Callable[[Sequence[Cohorts], Observations], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One way of grouping at one k, means over sites and repeats.

    Attributes:
        method: a name in ``METHODS``.
        k: subjects in a cohort.
        loss: squared error inside cohorts, as a share of the squared error around the site's mean (0 to 1), of what
            was emitted.
        score: what the scorer said of the cohorts of all other sites, tested on this one; NaN without a scorer.
        agreeing: share of cohorts whose outcomes all agree (0 to 1).
        withheld: share of observations with a known outcome that stayed at home (0 to 1).
        cohorts: number of cohorts of all sites together.
        seconds: time to group one site, if a clock was given; else NaN.
    """

    method: str
    k: int
    loss: float
    score: float
    agreeing: float
    withheld: float
    cohorts: float
    seconds: float


def grouping_loss(schema: Schema, observations: Observations, cohorts: Cohorts) -> float:
    """Squared error inside cohorts over squared error around the mean, both in the schema's own similarity.

    Returns:
        0 (members are equal) to 1 (cohorts tell nothing); NaN without cohorts, 0 where all rows are equal.
    """
    if not len(cohorts):
        return float("nan")
    points = embed(schema, observations.codes)[cohorts.rows].astype(np.float64)
    which = np.repeat(np.arange(len(cohorts)), cohorts.size)
    centre = np.add.reduceat(points, cohorts.offsets[:-1], axis=0) / cohorts.size[:, None]
    total = float(((points - points.mean(axis=0)) ** 2).sum())
    return float(((points - centre[which]) ** 2).sum()) / total if total > 0 else 0.0


def arrivals(
    schema: Schema,
    observations: Observations,
    order: NDArray[np.int64],
    k: int,
    *,
    waiting: Waiting | None = None,
    grouping: Grouping | None = None,
    step: int = 1,
) -> Cohorts:
    """Stream observations in ``order``, ``step`` at a time, and collect what leaves; what still waits is not in it.

    Args:
        schema: fields, weights, floor.
        observations: n rows.
        order: int64, rows in order of arrival.
        k: subjects in a cohort.
        waiting, grouping: as for ``distil_waiting``.
        step: rows that arrive between two rounds.
    """
    group = np.full(len(observations), -1, dtype=np.int64)
    pool = np.zeros(0, dtype=np.int64)
    now = int(observations.bucket.min(initial=0))
    for at in range(0, len(order), step):
        pool = np.sort(np.append(pool, order[at : at + step]))
        now = max(now, int(observations.bucket[order[at : at + step]].max()))
        found = distil_waiting(
            schema, observations.take(pool), now=now, k=k, grouping=grouping, waiting=waiting
        ).cohorts
        which = np.repeat(np.arange(len(found)), found.size)
        group[pool[found.rows]] = which + group.max(initial=-1) + 1
        pool = pool[group[pool] < 0]
    return aggregate(schema, observations, group)


def _streaming(grouping: Grouping) -> Method:
    return lambda schema, observations, k, rng: arrivals(
        schema, observations, rng.permutation(len(observations)), k, grouping=grouping
    )


def _at_random(schema: Schema, observations: Observations, k: int, rng: np.random.Generator) -> Cohorts:
    """Groups drawn by lot, whatever the conditions: how bad grouping can be. Assumes a subject a row."""
    n = len(observations)
    group = np.full(n, -1, dtype=np.int64)
    if n >= k:
        group[rng.permutation(n)] = np.minimum(np.arange(n) // k, n // k - 1)
    group[np.isnan(observations.outcome)] = -1
    return aggregate(schema, observations, group)


def _standardised(schema: Schema, observations: Observations) -> NDArray[np.float64]:
    """Weights that give every field the same variance here, as textbook MDAV does."""
    weights = np.zeros(schema.width)
    for where in schema.slots.values():
        part = observations.codes[:, where].astype(np.float64)
        part[observations.codes[:, where] == MISSING] = np.nan
        held = part[~np.isnan(part[:, 0])]
        spread = float(held.var(axis=0).sum()) if len(held) else 0.0
        weights[where] = 1e9 / spread if spread > 0 else 0.0
    return weights


def _batch(grouping: Grouping) -> Method:
    return lambda schema, observations, k, _: distil(schema, observations, k=k, grouping=grouping).cohorts


_PLAIN = Grouping(agreement=Agreement.ALLOW)
_MERGED = Grouping(agreement=Agreement.MERGE)

METHODS: Mapping[str, Method] = {
    "batch": _batch(_PLAIN),
    "batch, merged": _batch(_MERGED),
    "small blocks": _batch(replace(_PLAIN, block_rows=64)),
    "one block (MDAV)": _batch(replace(_PLAIN, block_rows=2**31)),
    "standardised MDAV": lambda schema, observations, k, _: (
        distil(
            schema,
            observations,
            k=k,
            grouping=replace(_PLAIN, block_rows=2**31, slot_weights=_standardised(schema, observations)),
        ).cohorts
    ),
    "class-aware": _batch(replace(_PLAIN, outcome_pull=1.0)),
    "streaming": _streaming(_PLAIN),
    "streaming, merged": _streaming(_MERGED),
    "at random": _at_random,
}
"""Ways of grouping to compare. The one-block ones hold n^2 distances: for sites of up to about 10,000 rows."""


def compare(
    schema: Schema,
    sites: Mapping[str, Observations],
    *,
    ks: Iterable[int],
    rng: np.random.Generator,
    methods: Iterable[str] = tuple(METHODS),
    repeats: int = 1,
    share: float = 1.0,
    scorer: Scorer | None = None,
    clock: Callable[[], float] | None = None,
) -> list[Figure]:
    """Group every site every way; all ways see the same rows in the same repeat.

    Args:
        schema: its floor must not exceed the smallest of ``ks``.
        sites: observations of each site.
        ks: subjects in a cohort.
        rng: draws the rows of each repeat, and orders of arrival.
        methods: names in ``METHODS``.
        repeats: rounds to average over.
        share: part of each site's rows that is drawn in each round (0 to 1].
        scorer: given the cohorts of all other sites and one whole site, a number (say, AUC).
        clock: seconds; for example ``time.perf_counter``.

    Raises:
        PrivacyError: when one of ``ks`` lies below the schema's floor.
    """
    names, wanted = list(methods), list(ks)
    table: dict[tuple[int, str], list[tuple[float, ...]]] = {(k, name): [] for k in wanted for name in names}
    for _ in range(repeats):
        drawn = {
            site: rows.take(np.sort(rng.permutation(len(rows))[: round(share * len(rows))]))
            for site, rows in sites.items()
        }
        for (k, name), figures in table.items():
            figures.append(_round(schema, sites, drawn, k, METHODS[name], rng, scorer, clock))
    out = []
    for (k, name), figures in table.items():
        loss, score, agree, withheld, number, seconds = np.mean(figures, axis=0).tolist()
        out.append(
            Figure(
                method=name,
                k=k,
                loss=loss,
                score=score,
                agreeing=agree,
                withheld=withheld,
                cohorts=number,
                seconds=seconds,
            )
        )
    return out


def _round(
    schema: Schema,
    sites: Mapping[str, Observations],
    drawn: Mapping[str, Observations],
    k: int,
    method: Method,
    rng: np.random.Generator,
    scorer: Scorer | None,
    clock: Callable[[], float] | None,
) -> tuple[float, ...]:
    """One way at one k over all sites: the columns of a ``Figure``."""
    made: dict[str, Cohorts] = {}
    start = clock() if clock else float("nan")
    for site, rows in drawn.items():
        made[site] = method(schema, rows, k, rng)
    seconds = (clock() - start) / len(drawn) if clock else float("nan")
    known = sum(int((~np.isnan(rows.outcome)).sum()) for rows in drawn.values())
    emitted = sum(len(c.rows) for c in made.values())
    number = sum(len(c) for c in made.values())
    losses = [grouping_loss(schema, drawn[site], c) for site, c in made.items() if len(c)]
    alike = sum(int(agreeing(c, drawn[site]).sum()) for site, c in made.items())
    score = float("nan")
    if scorer is not None:
        score = float(np.mean([scorer([c for s, c in made.items() if s != site], sites[site]) for site in sites]))
    return (
        float(np.mean(losses)) if losses else float("nan"),
        score,
        alike / number if number else 0.0,
        1.0 - emitted / known if known else 0.0,
        float(number),
        seconds,
    )
