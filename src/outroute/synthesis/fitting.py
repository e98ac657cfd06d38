"""Fit everything once, then answer many questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from outroute.synthesis.answers import Abstention, Answers, Basis
from outroute.synthesis.calculations import Own, Peers, Problem, finish, fit_own, fit_peers
from outroute.synthesis.evidence import Evidence, Floats, Ints, Records, SchemaLike, class_count
from outroute.synthesis.intervals import Spread, bounds, fit_spread
from outroute.synthesis.kernel import Kernel, Near, fit_kernel
from outroute.synthesis.leftout import believed, left_out
from outroute.synthesis.recalibration import Recalibration, recalibrate
from outroute.synthesis.regression import spread_guess
from outroute.synthesis.scores import (
    Link,
    Scale,
    losses,
    probability,
    residual,
    sample_of_evidence,
    sample_of_records,
    scale_of,
)
from outroute.synthesis.settings import NAMES, Settings
from outroute.synthesis.witnesses import witnesses

__all__ = ["Fitted", "Mixing", "fit"]

Objective = Callable[[Floats], tuple[float, Floats]]
Mixing = Callable[[tuple[str, ...], Floats, Objective], Floats]
"""(names, default weights float64[J], loss of a mixture with its gradient) -> weights float64[J]."""

DEFAULT_WEIGHT = {
    "kernel": 1.0,
    "regression": 0.5,
    "boosting": 1.0,
    "adjusted": 2.0,
    "adjusted-boosting": 0.5,
    "local": 1.0,
    "local-boosting": 0.25,
}
"""Weights before any outcome has spoken: what reads peers first, what reads a handful of records last."""
CONCURRENT_MOST = 20_000
"""Packets up to which those concurrent with own records are left out of their scores. It takes a fit of everything
for each fold; above this, minutes for one asker, and peers are believed a little too much instead."""
LEFT_OUT_MOST = 0.6
"""Share of packets that one fit may leave out as concurrent: fewer, larger parts cost fewer fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A synthesis fitted to one asker; `answer` asks it.

    Attributes:
        nodes: peers whose packets count, sorted by id.
        calculations: names, in the order of `weights`.
        weights: float64[J].
        losses: float64[n, J], loss of each recalibrated calculation on scored own records (cross-fitted).
        spread: what the interval rests on.
        link, scale, settings: of the fit.
    """

    nodes: tuple[bytes, ...]
    calculations: tuple[str, ...]
    weights: Floats
    losses: Floats
    spread: Spread
    link: Link
    scale: Scale
    settings: Settings
    basis: Basis
    noise: float
    range: tuple[float, float]
    _peers: Peers | None
    _own: Own | None
    _kernel: Kernel
    _each: tuple[Recalibration, ...]
    _last: Recalibration

    def answer(self, x: Floats, *, candidates: Ints | None = None) -> Answers:
        """Answer m questions.

        Args:
            x: float64[m, D], conditions on the unit scale, NaN missing.
            candidates: items (of `evidence` in canonical order, then own records) that the kernel may look
                at; None: those of the regions around each question.
        """
        scores, near = _scores(self.calculations, self._peers, self._own, self._kernel, x, self.link, candidates)
        each = np.stack([r(scores[:, j], self.link) for j, r in enumerate(self._each)], axis=1)
        mixed = self._last(np.einsum("j,mjk->mk", self.weights, each), self.link)
        doubt = np.einsum("j,mjk->mk", self.weights, (each - mixed[:, None]) ** 2)
        low, middle, high = bounds(
            self.spread, mixed, doubt, near, link=self.link, scale=self.scale, outcome_range=self.range
        )
        shares = probability(each.reshape(-1, each.shape[2]), self.link).reshape(each.shape)
        if self.link is Link.NUMERIC:
            shares = np.clip(shares * self.scale.spread + self.scale.centre, *self.range)
        who = witnesses(near, self.link, self.scale, self.settings, len(self.nodes))
        abstained = np.full(len(x), Abstention.NONE, np.uint8)
        abstained[near.mass < self.settings.support_least] = Abstention.THIN_SUPPORT
        if not self._kernel.sample.n:
            abstained[:] = Abstention.NO_EVIDENCE
        flat = self.link is not Link.CATEGORICAL
        return Answers(
            estimate=middle[:, 0] if flat else middle,
            low=low[:, 0] if flat else low,
            high=high[:, 0] if flat else high,
            support=near.mass,
            nodes=(near.node_mass[:, :-1] >= 0.5).sum(1),
            abstained=abstained,
            heterogeneity=self.spread.heterogeneity,
            basis=self.basis,
            calculations=self.calculations,
            weights=self.weights,
            by_calculation=shares[:, :, 0] if flat else shares,
            contributors=who.contributors,
            contributions=who.contributions,
            own=near.node_mass[:, -1],
            disagreeing=who.disagreeing,
            disagreeing_estimate=who.estimates,
        )

    def loss(self, x: Floats, y: Floats) -> Floats:
        """Loss of each calculation on outcomes that the fit has not seen, float64[m, J], for `Trust.update`.

        Args:
            x: float64[m, D], conditions.
            y: float64[m], class index, or value in outcome units.
        """
        scores, _ = _scores(self.calculations, self._peers, self._own, self._kernel, x, self.link, None)
        columns = scores.shape[2]
        own = Records(x=x, y=y, group=np.zeros(len(y), np.int64))
        target = sample_of_records(own, self.link, columns, self.scale).target
        sd = float(np.sqrt(self.noise))
        parts = [losses(r(scores[:, j], self.link), target, self.link, sd) for j, r in enumerate(self._each)]
        return np.stack(parts, axis=1)


def _scores(
    names: tuple[str, ...],
    peers: Peers | None,
    own: Own | None,
    kernel: Kernel,
    x: Floats,
    link: Link,
    candidates: Ints | None,
) -> tuple[Floats, Near]:
    near = kernel.near(x, candidates=candidates)
    raw: dict[str, Floats] = {}
    offset = None
    if peers is not None:
        raw |= peers.raw(x)
        offset = _offset(raw)
    if own is not None:
        raw |= own.raw(x, offset)
    finished = {name: finish(value, link) for name, value in raw.items()}
    finished["kernel"] = near.score
    return np.stack([finished[name] for name in names], axis=1), near


def _offset(raw: dict[str, Floats]) -> Floats:
    """What peers say, for those who correct it: the average of what reads packets only."""
    parts = [raw[name] for name in ("regression", "boosting") if name in raw]
    out: Floats = np.mean(parts, axis=0)
    return out


def fit(
    schema: SchemaLike,
    evidence: Evidence,
    own: Records,
    *,
    settings: Settings | None = None,
    rng: np.random.Generator,
    trust: Mixing | None = None,
) -> Fitted:
    """Fit all calculations for one asker and decide how far to believe each.

    Own records are used three times (estimation, recalibration, trust) and are scored before they enter any:
    calculations fitted on them are cross-fitted by `Records.group`, the kernel leaves the fold out.

    Args:
        schema: what the network agreed on.
        evidence: peers' packets; order does not matter.
        own: own records; may be empty.
        settings: constants.
        rng: draws folds, landmarks and samples.
        trust: turns cross-fitted losses into weights; None keeps the default weights.
    """
    settings = Settings() if settings is None else settings
    link = Link(int(schema.outcome.kind))
    evidence = evidence.canonical()
    scale = scale_of(evidence, own)
    mine = sample_of_records(own, link, class_count(schema), scale)
    packets = sample_of_evidence(evidence, scale)
    fold, folds = _folds(own, settings, rng)
    problem = Problem(
        link=link,
        slots=schema.slots,
        weights=np.asarray(schema.slot_weights, np.float64),
        peers=packets,
        nodes=len(evidence.nodes),
        own=mine,
        fold=fold,
        folds=folds,
        settings=settings,
    )
    peers = fit_peers(problem, rng)
    between = spread_guess(settings, link) if peers is None or problem.nodes < 3 else peers.spread
    banned = _concurrent(evidence, own, fold)
    said = _said(problem, peers, banned, rng)
    offset = _offset(said) if said else None
    kernel = fit_kernel(
        packets.join(mine),
        np.concatenate([banned, fold]),
        problem.nodes,
        problem.weights,
        link=link,
        settings=settings,
        rng=rng,
    )
    large = own.n > settings.large_site and folds >= 2
    everyone = None if large or folds < 2 else fit_own(problem, np.arange(own.n), offset, between)
    rows = np.flatnonzero(fold == 0) if large else np.arange(own.n)
    available = len(rows)
    if available > settings.scored_rows:
        rows = np.sort(rng.choice(rows, settings.scored_rows, replace=False))
    names, scores, near, first = _cross_fitted(
        problem, said, large or everyone is not None, kernel, offset, between, rows
    )
    if large:
        everyone = first
    target = mine.target[rows]
    noise = 1.0
    if link is Link.NUMERIC:
        noise = _noise(scores, target, peers)
    each = tuple(
        recalibrate(
            scores[:, j],
            target,
            link=link,
            intercept_variance=settings.spread_most if name.startswith("local") else between,
            slope_sd=settings.slope_sd,
            noise=noise,
        )
        for j, name in enumerate(names)
    )
    moved = np.stack([r(scores[:, j], link) for j, r in enumerate(each)], axis=1)
    sd = float(np.sqrt(noise))
    table = np.stack([losses(moved[:, j], target, link, sd) for j in range(len(names))], axis=1)
    weights = np.array([DEFAULT_WEIGHT[name] for name in names])
    weights /= weights.sum()
    basis = Basis.DEFAULT
    if trust is not None and own.n:
        basis = Basis.OWN_OUTCOMES
        blown = available / len(rows)

        def objective(w: Floats) -> tuple[float, Floats]:
            mixed = np.einsum("j,njk->nk", w, moved)
            loss = float(losses(mixed, target, link, sd).sum())
            slope = -np.einsum("nk,njk->j", residual(mixed, target, link), moved) / (
                sd**2 if link is Link.NUMERIC else 1
            )
            return blown * loss, blown * slope

        weights = trust(names, weights, objective)
    mixed = np.einsum("j,njk->nk", weights, moved)
    last = recalibrate(mixed, target, link=link, intercept_variance=between, slope_sd=settings.slope_sd, noise=noise)
    spread = fit_spread(
        problem,
        peers,
        last(mixed, link),
        target,
        near,
        last.variance,
        available / max(1, len(rows)),
        np.einsum("j,njk->nk", weights, (moved - mixed[:, None]) ** 2),
        believed(problem, peers, kernel, rng),
        left_out(problem, peers, kernel, DEFAULT_WEIGHT),
        scale=scale,
        outcome_range=(float(schema.outcome.low or 0.0), float(schema.outcome.high or 0.0)),
    )
    return Fitted(
        nodes=evidence.nodes,
        calculations=names,
        weights=weights,
        losses=table,
        spread=spread,
        link=link,
        scale=scale,
        settings=settings,
        basis=basis,
        noise=noise,
        range=spread.range,
        _peers=peers,
        _own=everyone,
        _kernel=kernel,
        _each=each,
        _last=last,
    )


def _concurrent(evidence: Evidence, own: Records, fold: Ints) -> Ints:
    """Fold whose own records share a bucket with each packet, int64[n]; -1 where none does."""
    out = np.full(evidence.n, -1, np.int64)
    if own.timed and own.n and evidence.n <= CONCURRENT_MOST:
        buckets, first = np.unique(own.group, return_index=True)
        at = np.minimum(np.searchsorted(buckets, evidence.bucket), len(buckets) - 1)
        out = np.where(buckets[at] == evidence.bucket, fold[first][at], -1)
    return out


def _said(problem: Problem, peers: Peers | None, banned: Ints, rng: np.random.Generator) -> dict[str, Floats]:
    """What the calculations on packets say about own records, float64[own, K] each, concurrent packets left out."""
    if peers is None:
        return {}
    said = {name: value.copy() for name, value in peers.raw(problem.own.x).items()}
    share = np.bincount(banned[banned >= 0], minlength=problem.folds) / max(1, len(banned))
    part: list[int] = []
    for f in range(problem.folds):
        part.append(f)
        if f + 1 < problem.folds and share[part].sum() + share[f + 1] <= LEFT_OUT_MOST:
            continue
        rows = np.flatnonzero(np.isin(problem.fold, part))
        if share[part].sum() > 0 and len(rows):
            less = fit_peers(problem, rng, np.flatnonzero(np.isin(banned, part)))
            heard = {} if less is None else less.raw(problem.own.x[rows])
            for name, value in said.items():
                value[rows] = heard.get(name, heard.get("regression", value[rows]))
        part = []
    return said


def _noise(scores: Floats, target: Floats, peers: Peers | None) -> float:
    if len(scores) < 2:
        return 1.0 if peers is None else peers.noise
    gap = target[:, None, :] - scores
    return max(float(np.min(np.var(gap[:, :, 0], axis=0))), 1e-6)


def _folds(own: Records, settings: Settings, rng: np.random.Generator) -> tuple[Ints, int]:
    """Fold of every own record, whole groups together; 0 or 1 folds mean that nothing can be cross-fitted."""
    names, index = np.unique(own.group, return_inverse=True)
    wanted = settings.folds_large if own.n > settings.large_site else settings.folds
    folds = min(wanted, len(names))
    place = rng.permutation(len(names)) % max(folds, 1)
    return place[index.reshape(-1)].astype(np.int64), folds


def _cross_fitted(
    problem: Problem,
    said: dict[str, Floats],
    fitted: bool,
    kernel: Kernel,
    offset: Floats | None,
    between: float,
    rows: Ints,
) -> tuple[tuple[str, ...], Floats, Near, Own | None]:
    """Scores of own records `rows` by every calculation, float64[n, J, K], none having seen its own fold.

    Returns names, scores, what lies near, and the model that has not seen fold 0.
    """
    x, link = problem.own.x, problem.link
    near = kernel.near(x[rows], fold=problem.fold[rows])
    raw = {name: value[rows] for name, value in said.items()}
    first = None
    if fitted:
        own: dict[str, Floats] = {}
        seen: dict[int, dict[str, Floats]] = {}
        for f in np.unique(problem.fold[rows]).tolist():
            model = fit_own(problem, np.flatnonzero(problem.fold != f), offset, between)
            first = model if f == 0 else first
            held = problem.fold[rows] == f
            if model is None:
                seen[f] = {}
                continue
            seen[f] = model.raw(x[rows[held]], None if offset is None else offset[rows[held]])
        for name in set.intersection(*(set(part) for part in seen.values())):
            own[name] = np.zeros((len(rows), problem.columns))
            for f, part in seen.items():
                own[name][problem.fold[rows] == f] = part[name]
        raw |= own
    finished = {name: finish(value, link) for name, value in raw.items()}
    finished["kernel"] = near.score
    names = tuple(name for name in NAMES if name in finished and name in {"kernel", *problem.settings.calculations})
    return names, np.stack([finished[name] for name in names], axis=1), near, first
