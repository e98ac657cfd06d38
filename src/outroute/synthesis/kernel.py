"""Kernel posterior: similar packets and own records, weighted by similarity, on top of a weak prior.

Similarity is exp(-d2 / (2 h2)), where d2 is the mean squared difference of conditions over the slots that
both sides have, weighted as the schema says. Binary outcomes: Beta-binomial posterior mean; categorical:
Dirichlet; numeric: Normal. A question looks only at the packets of the regions around it, so its cost does
not grow with the number of packets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from outroute.synthesis.evidence import Floats, Ints
from outroute.synthesis.scores import Link, Sample, logit, losses, normalise
from outroute.synthesis.settings import Settings

__all__ = ["Kernel", "Near", "fit_kernel"]

REGION_ITEMS = 256
"""Packets per region on average; a question reads whole regions, so smaller ones would cost more steps."""
BLOCK = 4_000_000
"""Similarities held at once (16 MB as float32)."""
TINY = 1e-6
"""Smallest squared bandwidth: below one part in a thousand of a declared range nothing is told apart."""

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """What lies near m questions.

    Attributes:
        score: float64[m, K], posterior mean on the score scale.
        mass: float64[m], effective number of observations near each question.
        variance: float64[m], variance of one outcome near the question (numeric), else zeros.
        node_mass: float64[m, N + 1], `mass` by node; own records last.
        node_mean: float64[m, N + 1, K], mean target near the question by node (0 where mass is 0).
        mean: float64[m, K], mean target near the question over all.
    """

    score: Floats
    mass: Floats
    variance: Floats
    node_mass: Floats
    node_mean: Floats
    mean: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metric:
    """Conditions prepared for distances by matrix products: values, squares and presence, times weights."""

    value: Singles
    square: Singles
    present: Singles | None

    @property
    def gaps(self) -> bool:
        return self.present is not None

    def take(self, rows: Ints) -> _Metric:
        present = None if self.present is None else self.present[rows]
        return _Metric(value=self.value[rows], square=self.square[rows], present=present)


def _metric(x: Floats, weights: Floats, complete: bool) -> _Metric:
    filled = np.nan_to_num(x)
    root = np.sqrt(weights)
    value = (filled * root).astype(np.float32)
    if complete:
        return _Metric(value=value, square=(value.astype(np.float64) ** 2).sum(1).astype(np.float32), present=None)
    present = (~np.isnan(x) * root).astype(np.float32)
    return _Metric(value=value, square=value**2, present=present)


def _distance(a: _Metric, b: _Metric) -> Singles:
    """Mean squared weighted difference, float32[m, n]; 1 where nothing is shared."""
    if a.present is None or b.present is None:
        # All values are finite; vectorised products may still raise the flag for lanes beyond the data.
        with np.errstate(invalid="ignore"):
            product = a.value @ b.value.T
        plain: Singles = np.maximum(a.square[:, None] + b.square[None, :] - 2.0 * product, 0.0)
        return plain
    here, there = (a.present > 0).astype(np.float32), (b.present > 0).astype(np.float32)
    with np.errstate(invalid="ignore"):
        shared = a.present @ b.present.T
        gap = a.square @ there.T + here @ b.square.T - 2.0 * (a.value @ b.value.T)
    out: Singles = np.where(shared > 0, np.maximum(gap, 0.0) / np.maximum(shared, 1e-9), np.float32(1.0))
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Packets (and own records) arranged for questions; see `fit_kernel`."""

    link: Link
    weights: Floats
    complete: bool
    items: _Metric
    sample: Sample
    fold: Ints
    nodes: int
    bandwidth: float
    prior: float
    centre: Floats
    noise: float
    marks: Ints
    landmarks: _Metric
    lists: tuple[Ints, ...]

    def near(self, x: Floats, fold: Ints | None = None, candidates: Ints | None = None) -> Near:
        """Read what is near conditions float64[m, D].

        Args:
            x: questions.
            fold: int64[m]; own records of a question's own fold are left out (cross-fitting).
            candidates: indices of the items to look at, for all questions alike; None: by region.
        """
        m, k = len(x), self.sample.target.shape[1]
        out = Near(
            score=np.zeros((m, k)),
            mass=np.zeros(m),
            variance=np.zeros(m),
            node_mass=np.zeros((m, self.nodes + 1)),
            node_mean=np.zeros((m, self.nodes + 1, k)),
            mean=np.zeros((m, k)),
        )
        asked = _metric(x, self.weights, self.complete and not bool(np.isnan(x).any()))
        if candidates is not None:
            groups = [(np.arange(m), candidates)]
        elif len(self.lists) == 1:
            groups = [(np.arange(m), self.lists[0])]
        else:
            nearest = self._nearest(asked, m)
            order = np.argsort(nearest, kind="stable")
            cuts = np.flatnonzero(np.diff(nearest[order])) + 1
            groups = [(rows, self.lists[int(nearest[rows[0]])]) for rows in np.split(order, cuts) if len(rows)]
        for rows, items in groups:
            step = max(1, BLOCK // max(1, len(items)))
            for i in range(0, len(rows), step):
                self._read(out, asked, rows[i : i + step], items, None if fold is None else fold[rows[i : i + step]])
        share = (self.prior * self.centre + out.mean * out.mass[:, None]) / (self.prior + out.mass[:, None])
        out.score[:] = share if self.link is Link.NUMERIC else _score(share, self.link)
        return out

    def _anew(self, items: Ints) -> _Metric:
        """Items prepared for questions that miss a slot, though no packet does."""
        return _metric(self.sample.x[items], self.weights, False)

    def _nearest(self, asked: _Metric, m: int) -> Ints:
        nearest = np.empty(m, np.int64)
        marks = self.landmarks if asked.gaps == self.landmarks.gaps else self._anew(self.marks)
        step = max(1, BLOCK // len(self.lists))
        for i in range(0, m, step):
            part = np.arange(i, min(m, i + step))
            nearest[part] = _distance(asked.take(part), marks).argmin(1)
        return nearest

    def _read(self, out: Near, asked: _Metric, rows: Ints, items: Ints, fold: Ints | None) -> None:
        if not len(items):
            return
        sample = self.sample
        there = self.items.take(items) if asked.gaps == self.items.gaps else self._anew(items)
        d2 = _distance(asked.take(rows), there)
        weight = np.exp(d2 * np.float32(-0.5 / self.bandwidth)) * sample.amount[items].astype(np.float32)
        if fold is not None:
            weight = np.where(self.fold[items][None, :] == fold[:, None], np.float32(0.0), weight)
        node = np.where(sample.node[items] < 0, self.nodes, sample.node[items])
        starts = np.flatnonzero(np.r_[True, node[1:] != node[:-1]])
        ids = node[starts]
        target = sample.target[items]
        mass = np.add.reduceat(weight, starts, axis=1).astype(np.float64)
        out.node_mass[rows[:, None], ids[None, :]] = mass
        total = mass.sum(1)
        safe = np.maximum(total, 1e-300)
        out.mass[rows] = total
        for c in range(target.shape[1]):
            part = np.add.reduceat(weight * target[:, c].astype(np.float32), starts, axis=1).astype(np.float64)
            out.node_mean[rows[:, None], ids[None, :], c] = np.divide(
                part, mass, out=np.zeros_like(part), where=mass > 0
            )
            out.mean[rows, c] = part.sum(1) / safe
        if self.link is Link.NUMERIC:
            second = (target[:, 0] ** 2 + sample.within[items]).astype(np.float32)
            local = np.maximum((weight @ second) / safe - out.mean[rows, 0] ** 2, 0.0)
            out.variance[rows] = (local * total + self.noise * 10.0) / (total + 10.0)


def _score(share: Floats, link: Link) -> Floats:
    return logit(share) if link is Link.BINARY else normalise(np.log(np.maximum(share, 1e-9)))


def fit_kernel(
    sample: Sample,
    fold: Ints,
    nodes: int,
    weights: Floats,
    *,
    link: Link,
    settings: Settings,
    rng: np.random.Generator,
) -> Kernel:
    """Arrange rows and choose the bandwidth.

    Args:
        sample: packets in canonical order, then own records (node -1).
        fold: int64[n], cross-fitting fold of own records; of packets the fold that must not see them, or -1.
        nodes: number of peer nodes.
        weights: float64[D], weight of each slot in similarity.
        link: kind of outcome.
        settings: constants.
        rng: draws landmarks and tuning rows.
    """
    order = np.argsort(np.where(sample.node < 0, nodes, sample.node), kind="stable")
    sample, fold = sample.take(order), fold[order]
    complete = not bool(np.isnan(sample.x).any())
    share = weights / weights.sum()
    items = _metric(sample.x, share, complete)
    everything = np.arange(sample.n)
    marks: Ints = everything[:1]
    lists: tuple[Ints, ...] = (everything,)
    if sample.n > settings.kernel_candidates:
        marks, lists = _regions(items, sample.n, settings, rng)
    total = np.maximum(sample.amount.sum(), 1e-12)
    centre = (sample.amount @ sample.target) / total
    if link is not Link.NUMERIC:
        centre = (sample.amount @ sample.target + 1.0 / max(2, sample.target.shape[1])) / (total + 1.0)
    around = (sample.target[:, 0] - centre[0]) ** 2 + sample.within
    noise = float(sample.amount @ around / total) if sample.n else 1.0
    base = Kernel(
        link=link,
        weights=share,
        complete=complete,
        items=items,
        sample=sample,
        fold=fold,
        nodes=nodes,
        bandwidth=0.01,
        prior=settings.kernel_prior,
        centre=centre,
        noise=noise,
        marks=marks,
        landmarks=items.take(marks),
        lists=lists,
    )
    return _tuned(base, settings, rng)


def _regions(items: _Metric, n: int, settings: Settings, rng: np.random.Generator) -> tuple[Ints, tuple[Ints, ...]]:
    count = int(np.ceil(n / REGION_ITEMS))
    drawn = np.sort(rng.choice(n, count, replace=False))
    marks = items.take(drawn)
    home = np.empty(n, np.int64)
    step = max(1, BLOCK // count)
    for i in range(0, n, step):
        part = np.arange(i, min(n, i + step))
        home[part] = _distance(items.take(part), marks).argmin(1)
    members = np.split(np.argsort(home, kind="stable"), np.cumsum(np.bincount(home, minlength=count))[:-1])
    sizes = np.array([len(v) for v in members])
    between = np.argsort(_distance(marks, marks), axis=1, kind="stable")
    lists = []
    for row in between:
        enough = int(np.searchsorted(np.cumsum(sizes[row]), settings.kernel_candidates)) + 1
        lists.append(np.sort(np.concatenate([members[j] for j in row[:enough]])))
    return drawn, tuple(lists)


def _tuned(kernel: Kernel, settings: Settings, rng: np.random.Generator) -> Kernel:
    """Choose the bandwidth by predicting packets of one node from the others (own records: other folds)."""
    sample = kernel.sample
    if not sample.n:
        return kernel
    rows = np.sort(rng.choice(sample.n, min(sample.n, settings.kernel_tuning_rows), replace=False))
    pool = np.sort(rng.choice(sample.n, min(sample.n, settings.kernel_candidates * 2), replace=False))
    rarity = sample.n / len(pool)
    d2 = _distance(kernel.items.take(rows), kernel.items.take(pool)).astype(np.float64)
    node, other = sample.node[rows], sample.node[pool]
    same = np.where(
        node[:, None] >= 0, node[:, None] == other[None, :], kernel.fold[rows][:, None] == kernel.fold[pool][None, :]
    )
    same &= (node[:, None] < 0) == (other[None, :] < 0)
    amount = np.where(same, 0.0, sample.amount[pool][None, :] * rarity)
    reach = np.cumsum(np.take_along_axis(amount, np.argsort(d2, axis=1), 1), axis=1)
    ranked = np.sort(d2, axis=1)
    best, chosen = np.inf, kernel.bandwidth
    for count in settings.neighbours:
        at = np.minimum((reach < count).sum(1), len(pool) - 1)
        h2 = max(float(np.median(ranked[np.arange(len(rows)), at])) / 2.0, TINY)
        weight = amount * np.exp(-0.5 * d2 / h2)
        mass = weight.sum(1, keepdims=True)
        share = (kernel.prior * kernel.centre + weight @ sample.target[pool]) / (kernel.prior + mass)
        score = share if kernel.link is Link.NUMERIC else _score(share, kernel.link)
        loss = float(np.average(losses(score, sample.target[rows], kernel.link), weights=sample.amount[rows]))
        if loss < best:
            best, chosen = loss, h2
    return replace(kernel, bandwidth=chosen)
