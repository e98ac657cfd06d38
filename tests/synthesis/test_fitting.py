"""What must hold of fits and answers, whatever the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from outroute.elections import elect
from outroute.errors import DataError
from outroute.synthesis import Abstention, Basis, Evidence, Fitted, Heterogeneity, Records, Settings, fit

from .worlds import BINARY, NUMBER, THREE, MadeSchema, conditions, no_packets, no_records, outcomes, packets, records


def trusted(names, prior, objective):
    return elect(objective, prior)


def fitted(schema: MadeSchema, evidence: Evidence, own: Records, *, trust=trusted, **settings) -> Fitted:
    return fit(schema, evidence, own, settings=Settings(**settings), rng=np.random.default_rng(3), trust=trust)


def log_loss(p: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(np.where(y > 0, p, 1 - p)).mean())


@pytest.mark.parametrize("schema", [BINARY, THREE, NUMBER], ids=["binary", "categorical", "numeric"])
def test_order_of_packets_and_names_of_nodes_change_nothing(schema: MadeSchema) -> None:
    rng = np.random.default_rng(0)
    evidence, own, x = packets(schema, 4, 80, rng), records(schema, 60, rng), conditions(20, rng)
    mixed = evidence.take(rng.permutation(evidence.n))
    turned = replace(mixed, nodes=mixed.nodes[::-1], node=3 - mixed.node)
    plain, other = fitted(schema, evidence, own).answer(x), fitted(schema, turned, own).answer(x)
    np.testing.assert_array_equal(plain.estimate, other.estimate)
    np.testing.assert_array_equal(plain.low, other.low)
    np.testing.assert_array_equal(plain.contributors, other.contributors)


def test_a_packet_without_weight_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    evidence, own, x = packets(BINARY, 4, 60, rng), records(BINARY, 50, rng), conditions(15, rng)
    lies = replace(evidence, counts=evidence.counts[:, ::-1], bucket=evidence.bucket + 1)
    both = Evidence(
        x=np.concatenate([evidence.x, lies.x]),
        node=np.concatenate([evidence.node, lies.node + 4]),
        nodes=(*evidence.nodes, *(bytes([9, j]) * 16 for j in range(4))),
        size=np.concatenate([evidence.size, lies.size]),
        counts=np.concatenate([evidence.counts, lies.counts]),
        mean=None,
        variance=None,
        bucket=np.concatenate([evidence.bucket, lies.bucket]),
        cell=np.concatenate([evidence.cell, lies.cell]),
        weight=np.repeat([1.0, 0.0], evidence.n),
    )
    plain, other = fitted(BINARY, evidence, own), fitted(BINARY, both, own)
    assert other.nodes == plain.nodes
    np.testing.assert_allclose(other.answer(x).estimate, plain.answer(x).estimate, rtol=0, atol=0)
    half = fitted(BINARY, replace(both, weight=np.repeat([1.0, 0.5], evidence.n)), own)
    assert np.abs(half.answer(x).estimate - plain.answer(x).estimate).max() > 0.01


@pytest.mark.parametrize("schema", [BINARY, THREE, NUMBER], ids=["binary", "categorical", "numeric"])
def test_one_question_is_answered_like_many(schema: MadeSchema) -> None:
    rng = np.random.default_rng(2)
    model = fitted(schema, packets(schema, 5, 700, rng), records(schema, 800, rng))
    x = conditions(100, rng)
    many = model.answer(x)
    for i in (0, 50, 99):
        one = model.answer(x[i : i + 1])
        np.testing.assert_allclose(one.estimate[0], many.estimate[i], rtol=1e-5)
        np.testing.assert_allclose(one.support[0], many.support[i], rtol=1e-4)
        np.testing.assert_allclose(one.high[0], many.high[i], rtol=1e-4)


@pytest.mark.parametrize("schema", [BINARY, THREE, NUMBER], ids=["binary", "categorical", "numeric"])
@pytest.mark.parametrize("own_count", [0, 1, 7, 40, 700])
@pytest.mark.parametrize("each", [0, 1, 100])
def test_every_size_gives_sane_answers(schema: MadeSchema, own_count: int, each: int) -> None:
    rng = np.random.default_rng(own_count + each)
    evidence = packets(schema, 3, each, rng, missing=0.2) if each else no_packets(schema)
    own = records(schema, own_count, rng, missing=0.2) if own_count else no_records()
    x = conditions(30, rng, missing=0.3)
    x[0] = np.nan
    a = fitted(schema, evidence, own).answer(x)
    assert np.isfinite(a.estimate).all()
    assert (a.low <= a.estimate + 1e-12).all()
    assert (a.estimate <= a.high + 1e-12).all()
    assert a.weights.sum() == pytest.approx(1.0)
    if schema is THREE:
        np.testing.assert_allclose(a.estimate.sum(1), 1.0)
    if schema is NUMBER:
        assert (a.low >= -10.0).all()
        assert (a.high <= 30.0).all()
    else:
        assert (a.low >= 0.0).all()
        assert (a.high <= 1.0).all()
    if not own_count and not each:
        assert (a.abstained == Abstention.NO_EVIDENCE).all()
    assert a.basis == (Basis.OWN_OUTCOMES if own_count else Basis.DEFAULT)


def test_only_one_packet_and_nothing_of_ones_own_abstains() -> None:
    rng = np.random.default_rng(4)
    one = packets(BINARY, 1, 1, rng).take(np.array([0]))
    far = one.x + 0.9
    a = fitted(BINARY, replace(one, size=np.array([3.0])), no_records()).answer(far)
    assert a.abstained[0] == Abstention.THIN_SUPPORT
    assert a.heterogeneity is Heterogeneity.UNKNOWN
    assert 0.0 < a.estimate[0] < 1.0


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_all_outcomes_equal(label: float) -> None:
    rng = np.random.default_rng(5)
    evidence = packets(BINARY, 3, 100, rng)
    counts = np.zeros_like(evidence.counts)
    counts[:, int(label)] = 5.0
    own = replace(records(BINARY, 100, rng), y=np.full(100, label))
    a = fitted(BINARY, replace(evidence, counts=counts), own).answer(conditions(20, rng))
    assert (np.abs(a.estimate - label) < 0.05).all()
    number = fitted(
        NUMBER,
        replace(packets(NUMBER, 3, 100, rng), mean=np.full(300, 4.0), variance=np.zeros(300)),
        Records(x=conditions(50, rng), y=np.full(50, 4.0), group=np.arange(50)),
    )
    np.testing.assert_allclose(number.answer(conditions(5, rng)).estimate, 4.0, atol=1e-3)


def test_fewer_than_three_nodes_leave_heterogeneity_unknown() -> None:
    rng = np.random.default_rng(6)
    for nodes, known in ((1, Heterogeneity.UNKNOWN), (2, Heterogeneity.UNKNOWN), (3, Heterogeneity.KNOWN)):
        model = fitted(BINARY, packets(BINARY, nodes, 40, rng), no_records())
        assert model.answer(conditions(1, rng)).heterogeneity is known


def test_intervals_widen_with_heterogeneity_and_narrow_with_own_records() -> None:
    rng = np.random.default_rng(7)
    x = np.full((1, 5), 0.5)
    width = {}
    for spread in (0.0, 2.0):
        evidence = packets(BINARY, 12, 60, np.random.default_rng(8), spread=spread)
        for count in (0, 300):
            own = records(BINARY, count, rng) if count else no_records()
            a = fitted(BINARY, evidence, own).answer(x)
            width[spread, count] = float(a.high[0] - a.low[0])
    assert width[2.0, 0] > 1.5 * width[0.0, 0]
    assert width[2.0, 300] < 0.5 * width[2.0, 0]


def test_own_outcomes_of_a_group_never_reach_the_score_of_that_group() -> None:
    """Outcomes are pure noise by group, conditions name the group: who peeks looks far better than chance."""
    rng = np.random.default_rng(9)
    group = np.repeat(np.arange(200), 5)
    x = conditions(200, rng)[group] + rng.normal(0, 1e-4, (1000, 5))
    y = rng.integers(0, 2, 200).astype(np.float64)[group]
    evidence = packets(BINARY, 3, 100, rng)
    evidence = replace(evidence, counts=np.full_like(evidence.counts, 2.5))
    honest = fitted(BINARY, evidence, Records(x=x, y=y, group=group))
    assert "local-boosting" in honest.calculations
    assert (honest.losses.mean(0) > 0.68).all(), dict(zip(honest.calculations, honest.losses.mean(0), strict=True))
    peeking = fitted(BINARY, evidence, Records(x=x, y=y, group=np.arange(1000)))
    assert peeking.losses.mean(0).min() < 0.6


def test_packets_of_the_same_day_do_not_score_a_record() -> None:
    """Outcomes are a coin toss per day, the same for all nodes: only who reads that very day looks good."""
    rng = np.random.default_rng(18)
    days = np.arange(120)
    coin = rng.permutation(np.repeat([0.0, 1.0], 60))
    where = rng.random((120, 5))
    node = np.tile(np.arange(3), 120)
    evidence = Evidence(
        x=np.repeat(where, 3, axis=0),
        node=node.astype(np.int64),
        nodes=(b"a", b"b", b"c"),
        size=np.full(360, 5.0),
        counts=5.0 * np.stack([1 - coin, coin], axis=1).repeat(3, axis=0),
        mean=None,
        variance=None,
        bucket=days.repeat(3),
        cell=np.zeros(360, np.int64),
    )
    own = Records(x=where.repeat(4, axis=0), y=coin.repeat(4), group=days.repeat(4), timed=True)
    honest = fitted(BINARY, evidence, own)
    assert (honest.losses.mean(0) > 0.65).all(), dict(zip(honest.calculations, honest.losses.mean(0), strict=True))
    assert fitted(BINARY, evidence, replace(own, timed=False)).losses.mean(0).min() < 0.5


def test_changing_the_outcomes_of_one_fold_leaves_that_folds_kernel_scores_alone() -> None:
    rng = np.random.default_rng(10)
    own, evidence = records(BINARY, 60, rng), packets(BINARY, 3, 30, rng)
    model = fitted(BINARY, evidence, own)
    kernel = model._kernel
    fold = kernel.fold[kernel.sample.node < 0]
    x = kernel.sample.x[kernel.sample.node < 0]
    before = kernel.near(x, fold=fold).score
    mine = (kernel.sample.node < 0) & (kernel.fold == 0)
    target = np.where(mine[:, None], 1.0 - kernel.sample.target, kernel.sample.target)
    after = replace(kernel, sample=replace(kernel.sample, target=target)).near(x, fold=fold).score
    np.testing.assert_array_equal(before[fold == 0], after[fold == 0])
    assert np.abs(before[fold != 0] - after[fold != 0]).max() > 0


def test_peers_help_a_small_site_and_do_not_hurt_a_large_one() -> None:
    gains = {20: [], 1500: []}
    for seed in range(4):
        rng = np.random.default_rng(100 + seed)
        evidence = packets(BINARY, 8, 100, rng)
        for count in gains:
            own = records(BINARY, count, rng, offset=-0.4)
            x = conditions(3000, rng)
            y = outcomes(BINARY, x, -0.4, rng)
            together = fitted(BINARY, evidence, own).answer(x).estimate
            alone = fitted(BINARY, no_packets(BINARY), own).answer(x).estimate
            gains[count].append(log_loss(alone, y) - log_loss(together, y))
    assert np.mean(gains[20]) > 0.02
    assert np.mean(gains[1500]) > -0.01


def test_a_site_with_another_base_rate_is_recalibrated() -> None:
    rng = np.random.default_rng(11)
    evidence, own = packets(BINARY, 6, 100, rng, spread=0.2), records(BINARY, 200, rng, offset=-2.0)
    x = conditions(2000, rng)
    y = outcomes(BINARY, x, -2.0, rng)
    a = fitted(BINARY, evidence, own).answer(x)
    assert abs(a.estimate.mean() - y.mean()) < 0.06
    assert abs(fitted(BINARY, evidence, no_records()).answer(x).estimate.mean() - y.mean()) > 0.2


def test_who_contributed_and_who_disagreed() -> None:
    rng = np.random.default_rng(12)
    evidence = packets(BINARY, 6, 60, rng, spread=0.0)
    liar = evidence.node == 2
    counts = np.where(liar[:, None], evidence.counts[:, ::-1], evidence.counts)
    model = fitted(BINARY, replace(evidence, counts=counts), no_records())
    x = np.array([[0.95, 0.5, 0.5, 1.0, 0.0]])
    a = model.answer(x)
    assert a.disagreeing[0, 0] == model.nodes.index(evidence.nodes[2])
    assert a.disagreeing_estimate[0, 0] < 0.5 < a.estimate[0]
    assert (a.contributors[0] >= 0).all()
    assert (np.diff(a.contributions[0]) <= 0).all()
    assert a.nodes[0] == 6
    assert a.contributions[0].sum() <= a.support[0] + 1e-6


def test_only_candidates_are_read_near_the_question() -> None:
    rng = np.random.default_rng(13)
    model = fitted(BINARY, packets(BINARY, 4, 50, rng), no_records())
    x = np.array([[0.5, 0.5, 0.5, 0.5, 0.5]])
    some = model.answer(x, candidates=np.arange(50))
    assert some.support[0] < model.answer(x).support[0]
    assert some.nodes[0] == 1


def test_confirmed_outcomes_are_scored_for_trust() -> None:
    rng = np.random.default_rng(14)
    model = fitted(BINARY, packets(BINARY, 4, 50, rng), records(BINARY, 50, rng))
    later = records(BINARY, 30, rng)
    table = model.loss(later.x, later.y)
    assert table.shape == (30, len(model.calculations))
    assert (table > 0).all()


def test_named_calculations_can_be_left_out() -> None:
    rng = np.random.default_rng(15)
    model = fitted(BINARY, packets(BINARY, 4, 50, rng), records(BINARY, 50, rng), calculations=("regression",))
    assert model.calculations == ("kernel", "regression")


def test_large_sites_are_judged_on_a_part_that_nothing_was_fitted_on() -> None:
    rng = np.random.default_rng(16)
    own = records(BINARY, 700, rng)
    model = fitted(BINARY, packets(BINARY, 4, 100, rng), own, large_site=500)
    assert len(model.losses) == pytest.approx(140, abs=2)
    assert np.isfinite(model.answer(conditions(10, rng)).estimate).all()


def test_misuse_is_refused_with_what_to_do() -> None:
    rng = np.random.default_rng(17)
    with pytest.raises(DataError, match="leave open cases out"):
        Records(x=np.zeros((1, 5)), y=np.array([np.nan]), group=np.zeros(1, np.int64))
    with pytest.raises(DataError, match="equal length"):
        replace(packets(BINARY, 2, 3, rng), size=np.ones(5))
    with pytest.raises(DataError, match="index into nodes"):
        replace(packets(BINARY, 2, 3, rng), nodes=(b"x",))
    with pytest.raises(DataError, match="counts"):
        replace(packets(BINARY, 2, 3, rng), counts=None)
