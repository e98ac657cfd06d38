"""What the elections expect of an outcome before they compare nodes: one small regression on everything.

A ridge regression (logistic for classes, one column against the rest) on conditions and their squares, with an
intercept per node so that sites with other base rates are not taken for sites that disagree. It is not a calculation
that answers questions; it takes out of the comparison that nodes see different cases.
Source: as `outroute.synthesis.regression`, which it resembles; here all variances are constants, because elections
want an expectation in milliseconds and not the best one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LATENT", "Baseline", "Rows", "fit_baseline", "probability", "rows_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STEPS = 5
"""Newton steps; logistic regressions with a ridge settle in as many."""
ROWS_MOST = 20_000
"""Rows that a regression reads; more change its coefficients by less than nodes differ."""
RIDGE = 0.25
"""Prior variance of a coefficient on standardised conditions, logit scale (numbers: times the noise, below)."""
INTERCEPT = 0.15
"""Prior variance of a node's intercept, as a share of the variance of one outcome on the scale of the score."""
LATENT = float(np.pi**2 / 3.0)
"""Variance of the logistic distribution: that of one outcome on the logit scale."""
SCORE_MOST = 8.0
"""Largest logit that the expectation may reach: odds of 3,000 to 1."""
CONSTANT = 1e-9
"""A column whose variance is below this carries nothing and is left out."""
BLOCK = 2_048
"""Rows whose regressors are held at once: they stay in the cache."""
FAR = 4.0
"""Standard deviations from the mean beyond which a condition counts as this far: squares grow quickly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Packets, or own records, in one form.

    Attributes:
        target: float64[n, K]: share of the positive class, of each class, or the mean in units of the outcome.
        within: float64[n], variance inside each row (numbers), else zeros.
        logistic: classes, and not numbers.
    """

    target: Floats
    within: Floats
    logistic: bool


def rows_of(counts: Floats | None, mean: Floats | None, variance: Floats | None) -> Rows:
    """Outcomes of packets as `Rows`."""
    if counts is not None:
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)
        return Rows(target=share[:, 1:] if share.shape[1] == 2 else share, within=np.zeros(len(share)), logistic=True)
    assert mean is not None
    assert variance is not None
    return Rows(target=mean[:, None], within=variance, logistic=False)


def probability(score: Floats, logistic: bool) -> Floats:
    """Expected share, or the number itself."""
    if not logistic:
        return score
    out: Floats = 0.5 * (1.0 + np.tanh(0.5 * np.clip(score, -SCORE_MOST, SCORE_MOST)))
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A fitted expectation.

    Attributes:
        centre, spread: float64[D], of the conditions.
        kept: slots used; `curved`: those whose squares are used too.
        coefficients: float64[P + 1, K], intercept last.
        intercepts: float64[N, K], deviation of each node, shrunk.
        noise: float64[K], variance of one outcome (numbers); for classes, `LATENT`.
        logistic: classes, and not numbers.
    """

    centre: Floats
    spread: Floats
    kept: Ints
    curved: Ints
    coefficients: Floats
    intercepts: Floats
    noise: Floats
    logistic: bool

    def score(self, x: Floats) -> Floats:
        """Score of conditions float64[m, D] at a node with an average intercept, float64[m, K]."""
        out = np.empty((len(x), self.coefficients.shape[1]))
        for start in range(0, len(x), BLOCK):
            part = slice(start, start + BLOCK)
            out[part] = _features(x[part], self.centre, self.spread, self.kept, self.curved) @ self.coefficients
        return out


def _features(x: Floats, centre: Floats, spread: Floats, kept: Ints, curved: Ints) -> Floats:
    out = np.ones((len(x), len(kept) + len(curved) + 1))
    z = np.nan_to_num((x[:, kept] - centre[kept]) / spread[kept], nan=0.0)
    np.clip(z, -FAR, FAR, out=out[:, : len(kept)])
    bent = np.nan_to_num((x[:, curved] - centre[curved]) / spread[curved], nan=0.0)
    out[:, len(kept) : -1] = (np.minimum(np.abs(bent), FAR) ** 2 - 1.0) / np.sqrt(2.0)
    return out


def fit_baseline(
    x: Floats, rows: Rows, amount: Floats, node: Ints, nodes: int, *, rng: np.random.Generator | None = None
) -> Baseline:
    """Fit the expectation.

    Args:
        x: float64[n, D], conditions, unit scale, NaN missing.
        rows: their outcomes.
        amount: float64[n] >= 0, observations times weight.
        node: int64[n] in 0..nodes-1.
        nodes: number of nodes, at least one.
        rng: draws rows where there are more than `ROWS_MOST`; None reads all.
    """
    if rng is not None and len(x) > ROWS_MOST:
        part = np.sort(rng.choice(len(x), ROWS_MOST, replace=False))
        rows = Rows(target=rows.target[part], within=rows.within[part], logistic=rows.logistic)
        x, amount, node = x[part], amount[part], node[part]
    total = max(float(amount.sum()), 1e-12)
    present = ~np.isnan(x) * amount[:, None]
    here = np.maximum(present.sum(0), 1e-12)
    filled = np.nan_to_num(x)
    centre = (present * filled).sum(0) / here
    variance = (present * (filled - centre) ** 2).sum(0) / here
    spread = np.sqrt(np.maximum(variance, CONSTANT))
    kept = np.flatnonzero(variance > CONSTANT)
    # A slot of a category is mostly zero or one, and its square says nothing new.
    edge = (present * ((filled == 0.0) | (filled == 1.0))).sum(0) / here
    curved = kept[edge[kept] < 0.5]
    order = np.argsort(node, kind="stable")
    z = _features(x[order], centre, spread, kept, curved)
    columns = rows.target.shape[1]
    coefficients = np.zeros((z.shape[1], columns))
    intercepts = np.zeros((nodes, columns))
    noise = np.full(columns, LATENT)
    for c in range(columns):
        coefficients[:, c], intercepts[:, c], noise[c] = _column(
            z, rows.target[order, c], rows.within[order], amount[order], node[order], nodes, rows.logistic, total
        )
    return Baseline(
        centre=centre,
        spread=spread,
        kept=kept,
        curved=curved,
        coefficients=coefficients,
        intercepts=intercepts,
        noise=noise,
        logistic=rows.logistic,
    )


def _column(
    z: Floats, target: Floats, within: Floats, amount: Floats, node: Ints, nodes: int, logistic: bool, total: float
) -> tuple[Floats, Floats, float]:
    """One column: coefficients, intercepts and noise; rows sorted by node."""
    beta, u = np.zeros(z.shape[1]), np.zeros(nodes)
    rate = float(amount @ target) / total
    noise = LATENT
    beta[-1] = rate
    if logistic:
        rate = (rate * total + 0.5) / (total + 1.0)
        beta[-1] = np.log(rate / (1.0 - rate))
    else:
        noise = max(float(amount @ ((target - rate) ** 2 + within)) / total, 1e-12)
    middle = beta[-1]
    starts = np.flatnonzero(np.r_[True, node[1:] != node[:-1]]) if len(node) else np.zeros(0, np.int64)
    ids = node[starts]
    for _ in range(STEPS if logistic else 3):
        score = z @ beta + u[node]
        if logistic:
            share = probability(score, True)
            curve = amount * np.maximum(share * (1.0 - share), 1e-4)
            slope = amount * (target - share)
        else:
            curve = amount / noise
            slope = curve * (target - score)
        precision = np.full(len(beta), 1.0 / (RIDGE * (1.0 if logistic else noise)))
        precision[-1] = 1e-6
        hessian = (z * curve[:, None]).T @ z + np.diag(precision)
        pull = precision * beta
        pull[-1] = precision[-1] * (beta[-1] - middle)
        gradient = z.T @ slope - pull
        loose = 1.0 / (INTERCEPT * noise)
        d = np.bincount(node, curve, nodes) + loose
        e = np.bincount(node, slope, nodes) - loose * u
        b = np.zeros((nodes, len(beta)))
        if len(starts):
            b[ids] = np.add.reduceat(z * curve[:, None], starts, axis=0)
        step = np.linalg.solve(hessian - (b / d[:, None]).T @ b, gradient - b.T @ (e / d))
        largest = float(np.abs(step).max())
        if logistic and largest > 3.0:
            step *= 3.0 / largest
        beta = beta + step
        u = u + (e - b @ step) / d
        if not logistic:
            gap = target - z @ beta - u[node]
            noise = max(float(amount @ (gap**2 + within)) / total, 1e-12)
    return beta, u, noise
