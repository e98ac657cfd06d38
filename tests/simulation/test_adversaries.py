"""Attackers on evidence: well-formed, seeded, each with the lie that it is named after, and none with a secret."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

from outroute.errors import DataError
from outroute.simulation import ADVERSARIES, SYBILS, Region, attack, imitate, outcomes, standardised, together
from outroute.simulation.adaptive import LIES, guess, pretended
from outroute.synthesis import Evidence, Records
from synthesis.worlds import BINARY, NUMBER, THREE, packets

SCHEMAS = {"binary": BINARY, "three": THREE, "number": NUMBER}


def world(kind: str = "binary", *, missing: float = 0.1, buckets: int = 4) -> Evidence:
    """Five honest nodes of 40 packets over four time buckets."""
    rng = np.random.default_rng(5)
    made = packets(SCHEMAS[kind], 5, 40, rng, missing=missing)
    return replace(made, bucket=rng.integers(0, buckets, made.n) * 86_400, cell=rng.integers(0, 8, made.n))


def region(read: Evidence) -> Region:
    centre = read.x[~np.isnan(read.x).any(axis=1)][0]
    return Region(centre=centre, scale=standardised(read.x)[1], radius=0.7)


def made(name: str, read: Evidence, count: int = 4, seed: int = 1, **options: object) -> Evidence:
    return attack(name, read, count, np.random.default_rng(seed), region=region(read), **options)  # type: ignore[arg-type]


def columns(e: Evidence) -> list[np.ndarray]:
    found = [e.x, e.node, e.size, e.bucket, e.cell, e.counts, e.mean, e.variance, e.weight]
    return [column for column in found if column is not None]


def agreement(a: Evidence, b: Evidence) -> float:
    """Correlation of what two sets of packets say about one set of conditions."""
    if a.counts is not None and b.counts is not None:
        one, two = (e.counts[:, -1] / e.counts.sum(axis=1) for e in (a, b))
    else:
        one, two = a.mean, b.mean
    return float(np.corrcoef(one, two)[0, 1])


@pytest.mark.parametrize("kind", SCHEMAS)
@pytest.mark.parametrize("name", ADVERSARIES)
def test_every_attack_is_seeded_and_its_packets_look_like_honest_ones(name: str, kind: str) -> None:
    read = world(kind)
    found = made(name, read)
    assert all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(columns(found), columns(made(name, read)), strict=True)
    )
    other = made(name, read, seed=2)
    assert found.nodes != other.nodes
    # Somebody else: no attacker signs as a honest node, and no two as one.
    assert not set(found.nodes) & set(read.nodes)
    assert len(set(found.nodes)) == len(found.nodes)
    assert set(found.node.tolist()) == set(range(len(found.nodes)))
    # Sizes, buckets and cells are some that honest packets have; conditions lie where theirs do.
    for column in ("size", "bucket", "cell"):
        assert set(getattr(found, column).tolist()) <= set(getattr(read, column).tolist())
    assert (np.nanmin(found.x, axis=0) >= np.nanmin(read.x, axis=0)).all()
    assert (np.nanmax(found.x, axis=0) <= np.nanmax(read.x, axis=0)).all()
    shares = found.x[:, 3:5].sum(axis=1)
    assert np.allclose(shares[~np.isnan(shares)], 1.0)
    if found.counts is not None:
        assert (found.counts >= 0).all()
        assert np.array_equal(found.counts, np.rint(found.counts))
        assert np.array_equal(found.counts.sum(axis=1), found.size)
    else:
        assert found.mean is not None
        assert found.variance is not None
        assert read.mean is not None
        assert read.mean.min() <= found.mean.min()
        assert found.mean.max() <= read.mean.max()
        assert (found.variance >= 0).all()


def test_no_attack_sees_own_records() -> None:
    seen = inspect.signature(attack).parameters
    assert not any("Records" in str(p.annotation) for name, p in seen.items() if name != "rule")
    assert "own" not in seen


@pytest.mark.parametrize("kind", SCHEMAS)
def test_an_imitator_is_as_good_as_honest(kind: str) -> None:
    read = world(kind)
    copy, index = imitate(read, 3, np.random.default_rng(0))
    assert agreement(copy, read.take(index)) == pytest.approx(1.0)
    assert not np.array_equal(copy.x, read.x[index], equal_nan=True)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_flipped_outcomes_are_the_opposite(kind: str) -> None:
    read = world(kind)
    honest, _ = imitate(read, 4, np.random.default_rng(1))
    lie = made("label-flip", read)
    assert np.array_equal(honest.x, lie.x, equal_nan=True)
    if honest.counts is not None:
        assert np.array_equal(lie.counts, honest.counts[:, ::-1])
    else:
        assert agreement(honest, lie) < -0.95


@pytest.mark.parametrize("kind", SCHEMAS)
def test_random_and_base_rate_tell_nothing_about_conditions(kind: str) -> None:
    read = world(kind)
    honest, _ = imitate(read, 40, np.random.default_rng(1))
    assert abs(agreement(made("random", read, 40), honest)) < 0.1
    rider = made("free-rider", read, 40)
    if rider.mean is not None:
        assert np.ptp(rider.mean) == 0
    else:
        assert abs(agreement(rider, honest)) < 0.1
        assert np.abs(outcomes(rider).rate - outcomes(read).rate).max() < 0.03


def test_constant_attackers_all_say_the_rarest_class() -> None:
    for kind in ("binary", "three"):
        read = world(kind)
        counts = made("constant", read).counts
        assert counts is not None
        assert (counts.argmax(axis=1) == int(outcomes(read).rate.argmin())).all()
        assert ((counts > 0).sum(axis=1) == 1).all()


def test_sybils_come_by_the_hundred_with_few_packets_each() -> None:
    found = made("sybils", world(), 2)
    assert len(found.nodes) == SYBILS
    assert np.bincount(found.node).max() == 8
    assert len(made("sybils", world(), SYBILS + 50).nodes) == SYBILS + 50


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_backdoor_lies_inside_its_region_only(kind: str) -> None:
    read = world(kind)
    where = region(read)
    honest, _ = imitate(read, 6, np.random.default_rng(1))
    lie = made("backdoor", read, 6)
    inside = where.contains(lie.x)
    assert 0.4 < inside.mean() < 0.9
    outside = ~inside
    if lie.counts is not None and honest.counts is not None:
        assert np.array_equal(lie.counts[outside], honest.counts[outside])
        assert ((lie.counts[inside] > 0).sum(axis=1) == 1).all()
        assert len(set(lie.counts[inside].argmax(axis=1).tolist())) == 1
    else:
        assert np.array_equal(lie.mean[outside], honest.mean[outside])
        assert np.ptp(lie.mean[inside]) == 0


def test_a_backdoor_reaches_a_region_where_nobody_has_been() -> None:
    read = world(missing=0.0)
    where = Region(centre=np.array([3.0, 3.0, 3.0, 1.0, 0.0]), scale=np.ones(5), radius=0.3)
    assert not where.contains(read.x).any()
    found = attack("backdoor", read, 3, np.random.default_rng(0), region=where)
    assert where.contains(found.x).sum() > 0.3 * found.n


def test_on_off_and_camouflage_are_honest_by_time() -> None:
    read = world()
    honest, _ = imitate(read, 4, np.random.default_rng(1))
    day = honest.bucket // 86_400
    for name, lying in (("on-off", day % 2 == 0), ("camouflage", None)):
        found = made(name, read)
        wrong = (found.counts != honest.counts).any(axis=1)
        assert 0 < wrong.sum() < found.n
        if lying is not None:
            even = honest.counts[:, 0] == honest.counts[:, 1]
            assert np.array_equal(wrong | even, lying | even)
        else:
            for node in range(4):
                mine = found.node == node
                assert day[mine & wrong].min() > day[mine].min()
                assert (day[mine & wrong].min() >= np.quantile(day[mine], 0.5)).all()


def test_without_times_the_order_of_packets_stands_for_time() -> None:
    read = world(buckets=1)
    honest, _ = imitate(read, 4, np.random.default_rng(1))
    found = made("camouflage", read)
    wrong = (found.counts != honest.counts).any(axis=1)
    for node in range(4):
        mine = np.flatnonzero(found.node == node)
        assert not wrong[mine[: len(mine) // 2]].any()
        assert wrong[mine[len(mine) // 2 :]].mean() > 0.5


@pytest.mark.parametrize("kind", SCHEMAS)
def test_colluders_agree_with_each_other_and_not_with_the_truth(kind: str) -> None:
    read = world(kind, missing=0.0)
    found = made("colluding", read, 8)
    said = found.counts[:, -1] / found.size if found.counts is not None else found.mean
    z = np.concatenate([np.ones((found.n, 1)), found.x[:, :4]], axis=1)

    def unexplained(rows: np.ndarray, by: np.ndarray) -> float:
        fitted = np.linalg.lstsq(z[by], said[by], rcond=None)[0]
        return float(np.var(said[rows] - z[rows] @ fitted) / np.var(said[rows]))

    half = found.node < 4
    # What four of them say foretells what the other four say.
    assert unexplained(~half, half) < 0.35
    honest, _ = imitate(read, 8, np.random.default_rng(1))
    assert agreement(found, honest) < 0.9


def test_copy_cats_repeat_one_honest_node() -> None:
    read = world(missing=0.0)
    found = made("copy-cat", read, 4, victim=read.nodes[0])
    rows = {tuple(x) + tuple(c): n for x, c, n in zip(read.x, read.counts, read.node, strict=True)}
    copied = {
        rows.get(tuple(x) + tuple(c))
        for x, c in zip(found.x[found.node % 2 == 0], found.counts[found.node % 2 == 0], strict=True)
    }
    assert len(copied) == 1
    assert copied.pop() in (1, 2, 3, 4)
    assert (np.bincount(found.node) == 40).all()


def test_slander_contradicts_one_honest_node_to_the_point() -> None:
    read = world(missing=0.0)
    found = made("slander", read, 3)
    index = {tuple(x): i for i, x in enumerate(read.x)}
    against = [index[tuple(x)] for x in found.x]
    assert len(set(read.node[against].tolist())) == 1
    assert np.array_equal(found.counts, read.counts[against][:, ::-1])


def test_what_an_equivocator_signed_twice_weighs_nothing() -> None:
    found = made("equivocator", world(), 6)
    assert set(found.weight.tolist()) == {0.0, 1.0}
    assert found.canonical().n == int(found.weight.sum())


def test_the_adaptive_attacker_lies_as_much_as_the_rule_believes() -> None:
    read = world(missing=0.0)
    honest, _ = imitate(read, 4, np.random.default_rng(1))
    different = (honest.counts[:, 0] != honest.counts[:, 1]).mean()

    def lies(rule: object) -> float:
        found = made("adaptive", read, rule=rule)
        return float((found.counts != honest.counts).any(axis=1).mean() / different)

    def strict(packets_: Evidence, own: Records) -> np.ndarray:
        """Whoever lies in more than a quarter of its packets is not believed at all."""
        fresh = packets_.take(np.arange(read.n, packets_.n))
        wrong = (fresh.counts != honest.counts).any(axis=1).mean() / different
        return np.concatenate([np.ones(read.n), np.full(fresh.n, float(wrong <= 0.25))])

    assert lies(lambda e, own: np.ones(e.n)) == pytest.approx(1.0)
    assert 0.1 < lies(strict) <= 0.25
    assert lies(lambda e, own: np.zeros(e.n)) <= 2 * LIES[0]
    assert 0 < lies(None) < 1


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_guess_at_elections_tells_honest_from_flipped(kind: str) -> None:
    read = world(kind, missing=0.0)
    lie = made("label-flip", read)
    rng = np.random.default_rng(3)
    records = pretended(read, rng)
    weight = guess(together(read, lie), records)
    honest, lying = weight[: read.n].mean(), weight[read.n :].mean()
    assert honest > 0.2
    # With three classes the middle one stays what it was, and is foretold as well as before.
    assert lying < (0.9 * honest if kind == "three" else 0.05)


def test_adaptive_attackers_aim_at_what_the_victim_has_not_shown() -> None:
    read = world(missing=0.0)
    shown = read.node == 0
    moved = replace(read, x=np.where(shown[:, None] & (np.arange(5) == 0), 0.0, read.x))
    found = made("adaptive", moved, 6, victim=moved.nodes[0], rule=lambda e, own: np.r_[np.ones(200), _few(e, 200)])
    honest, _ = imitate(moved, 6, np.random.default_rng(1))
    wrong = (found.counts != honest.counts).any(axis=1)
    assert 0 < wrong.mean() < 0.4
    assert found.x[wrong, 0].mean() > found.x[~wrong, 0].mean() + 0.1


def _few(e: Evidence, honest: int) -> np.ndarray:
    """A rule that believes only who lies in at most three packets of ten (told by comparing with the imitation)."""
    moved = world(missing=0.0)
    moved = replace(moved, x=np.where((moved.node == 0)[:, None] & (np.arange(5) == 0), 0.0, moved.x))
    same, _ = imitate(moved, 6, np.random.default_rng(1))
    wrong = (e.counts[honest:] != same.counts).any(axis=1).mean()
    return np.full(e.n - honest, float(wrong <= 0.3))


def test_misuse_says_what_to_do() -> None:
    read = world()
    rng = np.random.default_rng(0)
    for code, call in {
        "simulation.name": lambda: attack("nonsense", read, 1, rng),
        "simulation.region": lambda: attack("backdoor", read, 1, rng),
        "simulation.count": lambda: attack("random", read, 0, rng),
        "simulation.read": lambda: attack("random", read.take(np.zeros(0, dtype=np.int64)), 1, rng),
    }.items():
        with pytest.raises(DataError) as caught:
            call()
        assert caught.value.code == code


def test_together_keeps_nodes_apart_and_joins_equal_ones() -> None:
    read = world()
    lie = made("random", read, 2)
    both = together(read, lie)
    assert both.n == read.n + lie.n
    assert both.nodes == read.nodes + lie.nodes
    assert [both.nodes[i] for i in both.node[read.n :]] == [lie.nodes[i] for i in lie.node]
    assert both.weight is None
    again = together(both, read)
    assert again.nodes == both.nodes
    weighed = together(read, made("equivocator", read, 2))
    assert weighed.weight is not None
    assert (weighed.weight[: read.n] == 1).all()


def test_region_counts_present_slots_only() -> None:
    ball = Region(centre=np.array([0.0, np.nan, 1.0]), scale=np.array([1.0, 1.0, 2.0]), radius=1.0)
    x = np.array([[0.0, 9.0, 1.0], [1.0, 0.0, 1.0], [np.nan, 0.0, 5.0], [np.nan, 0.0, np.nan]])
    assert np.allclose(ball.distance(x), [0.0, np.sqrt(0.5), 2.0, np.inf])
    assert ball.contains(x).tolist() == [True, True, False, False]
