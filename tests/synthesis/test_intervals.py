from __future__ import annotations

from dataclasses import replace

import numpy as np

from outroute.synthesis import Evidence, Records, coverage, fit, places
from outroute.synthesis.intervals import CUTS

from .worlds import NUMBER, WIDTH, conditions


def _noise(x: np.ndarray) -> np.ndarray:
    """Outcomes scatter a tenth as much at one end of the range as at the other."""
    return 0.3 + 2.7 * x[:, 0]


def _outcome(x: np.ndarray, offset: float, rng: np.random.Generator) -> np.ndarray:
    return -6.0 + offset + 12.0 * x[:, 0] + _noise(x) * rng.normal(0, 1, len(x))


def _network(nodes: int, each: int, rng: np.random.Generator) -> Evidence:
    parts, means, variances = [], [], []
    for _ in range(nodes):
        x = conditions(each, rng)
        offset = rng.normal(0, 0.3)
        seen = np.stack([_outcome(x, offset, rng) for _ in range(5)], axis=1)
        parts.append(x)
        means.append(seen.mean(1))
        variances.append(seen.var(1))
    n = nodes * each
    return Evidence(
        x=np.concatenate(parts),
        node=np.repeat(np.arange(nodes), each),
        nodes=tuple(b"%02d" % i for i in range(nodes)),
        size=np.full(n, 5.0),
        counts=None,
        mean=np.concatenate(means),
        variance=np.concatenate(variances),
        bucket=np.zeros(n, np.int64),
        cell=np.zeros(n, np.int64),
    )


def _records(n: int, rng: np.random.Generator) -> Records:
    x = conditions(n, rng) if n else np.zeros((0, WIDTH))
    return Records(x=x, y=_outcome(x, 0.0, rng), group=np.arange(n))


def test_width_follows_the_noise_of_newcomers_and_residents() -> None:
    """Coverage holds where outcomes scatter little and where they scatter much, not only on average."""
    for count in (0, 300):
        rng = np.random.default_rng(31)
        model = fit(NUMBER, _network(8, 100, rng), _records(count, rng), rng=rng)
        x = conditions(3000, rng)
        y = _outcome(x, 0.0, rng)
        answers = model.answer(x)
        inside = (y >= answers.low) & (y <= answers.high)
        width = answers.high - answers.low
        calm, wild = x[:, 0] < 0.25, x[:, 0] > 0.75
        assert width[wild].mean() > 2.0 * width[calm].mean()
        assert 0.80 < inside[calm].mean() < 0.995
        assert 0.80 < inside[wild].mean() < 0.995
        assert 0.85 < inside.mean() < 0.97


def test_every_decile_of_support_is_covered() -> None:
    """Thin support included: records pile up at one end of the range, questions come from everywhere."""
    rng = np.random.default_rng(32)
    evidence = _network(8, 200, rng)
    kept = rng.random(evidence.n) < 0.03 + evidence.x[:, 1] ** 3
    own = _records(600, rng)
    there = rng.random(own.n) < 0.1 + own.x[:, 1] ** 2
    own = Records(x=own.x[there], y=own.y[there], group=own.group[there])
    model = fit(NUMBER, evidence.take(np.flatnonzero(kept)), own, rng=rng)
    x = conditions(6000, rng)
    y = _outcome(x, 0.0, rng)
    found = coverage(*places(model, model.answer(x), y, rng))
    assert len(model.spread.edges) == len(CUTS)
    assert (found.deciles > 0.80).all(), found.deciles


def test_intervals_are_the_same_again_and_inside_the_range() -> None:
    """With peers enough to be asked about each other, and with too few."""
    evidence = _network(4, 60, np.random.default_rng(33))
    x = conditions(20, np.random.default_rng(34))
    found = []
    for nodes in (4, 2):
        rng = np.random.default_rng(35)
        some = evidence.take(np.flatnonzero(evidence.node < nodes))
        again = fit(NUMBER, some, _records(0, rng), rng=rng).answer(x)
        rng = np.random.default_rng(35)
        once = fit(NUMBER, some, _records(0, rng), rng=rng).answer(x)
        assert (again.low == once.low).all()
        assert (again.high == once.high).all()
        found.append(once)
    for answers in found:
        assert (answers.low <= answers.estimate).all()
        assert (answers.estimate <= answers.high).all()
        assert (answers.low >= -10.0).all()
        assert (answers.high <= 30.0).all()


def test_a_constant_outcome_gives_finite_bounds() -> None:
    rng = np.random.default_rng(36)
    evidence = _network(4, 30, rng)
    evidence = replace(evidence, mean=np.full(evidence.n, 2.0), variance=np.zeros(evidence.n))
    for count in (0, 1, 9):
        own = _records(count, rng)
        answers = fit(NUMBER, evidence, Records(x=own.x, y=np.full(count, 2.0), group=own.group), rng=rng).answer(
            conditions(10, rng)
        )
        assert np.isfinite(answers.low).all()
        assert np.isfinite(answers.high).all()
