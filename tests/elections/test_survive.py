"""Packets compete within their neighbourhood: who fades, who stays, and who can make whom fade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.elections.survive import NOBODY, OWN, Survival, survive
from outroute.errors import DataError

SLOPE = np.array([2.0, -1.5, 1.0, 0.0])
SIZE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Nodes that see the same numeric outcome, and what an own site has seen."""

    x: Any
    node: Any
    mean: Any
    own_x: Any
    own_y: Any

    @property
    def corner(self) -> Any:
        return (self.x[:, 0] > 0.5) & (self.x[:, 1] < 0.5)

    def survive(self, trust: Any = None, **more: Any) -> Survival:
        n = len(self.x)
        given: dict[str, Any] = {"size": np.full(n, SIZE), "mean": self.mean, "variance": np.ones(n)} | more
        size = given.pop("size")
        trust = np.ones(int(self.node.max()) + 1) if trust is None else trust
        rng = np.random.default_rng(1)
        return survive(self.x, np.ones(4), self.node, trust, size, own_x=self.own_x, own_y=self.own_y, rng=rng, **given)


def world(nodes: int, *, packets: int = 40, own: int = 0, seed: int = 0, bases: Any = None) -> World:
    rng = np.random.default_rng(seed)
    node = np.repeat(np.arange(nodes), packets)
    x = rng.random((len(node), 4))
    base = np.zeros(nodes) if bases is None else np.asarray(bases)
    mean = 2.0 * (x - 0.5) @ SLOPE + base[node] + rng.normal(size=len(node)) / np.sqrt(SIZE)
    own_x = rng.random((own, 4))
    own_y = 2.0 * (own_x - 0.5) @ SLOPE + 0.3 + rng.normal(size=own)
    return World(x=x, node=node, mean=mean, own_x=own_x, own_y=own_y)


def lying(honest: World, liars: Any, where: Any, what: float = -3.0) -> World:
    bad = np.isin(honest.node, liars) & where
    mean = np.where(bad, what, honest.mean)
    return World(x=honest.x, node=honest.node, mean=mean, own_x=honest.own_x, own_y=honest.own_y)


def test_what_own_outcomes_contradict_fades_there_and_only_there():
    made = world(12, own=600)
    made = lying(made, range(4, 12), made.corner)  # twice as many liars as honest nodes, all fully trusted
    out = made.survive()
    liar = made.node >= 4
    assert out.weight[liar & made.corner].mean() < 0.3
    assert out.weight[liar & ~made.corner].mean() > 0.7
    assert out.weight[~liar].mean() > 0.9
    lost = liar & made.corner & (out.weight < 0.5)
    assert (out.opponent[lost] == OWN).mean() > 0.5
    assert (out.opponent_packet[out.opponent == OWN] == -1).all()


def test_many_who_are_not_trusted_cannot_vote_out_few_who_are():
    made = world(31)
    made = lying(made, range(4, 31), made.corner)
    trust = np.where(np.arange(31) < 4, 1.0, 0.02)
    out = made.survive(trust)
    liar = made.node >= 4
    assert out.weight[~liar & made.corner].mean() > 0.95
    assert out.weight[liar & made.corner].mean() < 0.3
    assert out.weight[~liar].min() > 0.5


def test_losers_are_told_which_packet_of_which_node_they_lost_to():
    made = world(5)
    made = lying(made, [4], made.corner)
    out = made.survive()
    lost = np.flatnonzero((made.node == 4) & (out.weight < 0.5))
    assert len(lost)
    assert np.isin(out.opponent[lost], range(4)).all()
    winner = out.opponent_packet[lost]
    assert (winner >= 0).all()
    assert (made.node[winner] == out.opponent[lost]).all()
    assert (out.region[winner] == out.region[lost]).all()
    assert (out.opposition[lost] > out.support[lost]).all()
    assert (np.abs(out.z[lost]) > 2).all()
    assert (out.opponent[out.weight >= 0.9] == NOBODY).all()


def test_nobody_loses_to_as_much_trust_as_its_own():
    made = world(2)
    made = lying(made, [1], made.corner)
    assert made.survive().weight.min() > 0.99


def test_a_rare_outcome_that_nobody_contradicts_stays():
    made = world(5)
    alone = np.tile([0.02, 0.98, 0.02, 0.98], (3, 1)) + 5.0  # far from everything else
    made = World(
        x=np.concatenate([made.x, alone]),
        node=np.concatenate([made.node, np.full(3, 4)]),
        mean=np.concatenate([made.mean, np.full(3, 40.0)]),
        own_x=made.own_x,
        own_y=made.own_y,
    )
    assert made.survive().weight[-3:].min() > 0.99


def test_other_base_rates_are_no_contradiction():
    made = world(6, own=200, bases=[-3, -1, 0, 0.5, 2, 3])
    weight = made.survive().weight
    assert min(weight[made.node == u].mean() for u in range(6)) > 0.9


def test_honest_nodes_keep_their_weight():
    kept = [world(8, own=100, seed=seed).survive().weight.mean() for seed in range(5)]
    assert min(kept) > 0.95


def test_an_organisation_has_one_vote():
    made = world(13)
    made = lying(made, range(3, 13), made.corner)
    liar = made.node >= 3
    each = made.survive()
    together = made.survive(organisation=np.array([0, 1, 2, *[3] * 10]))
    assert each.weight[~liar & made.corner].mean() < 0.6  # ten against three
    assert together.weight[~liar & made.corner].mean() > 0.95
    assert together.weight[liar & made.corner].mean() < each.weight[liar & made.corner].mean()


def test_who_boasts_with_size_does_not_win():
    made = world(5)
    made = lying(made, [4], made.corner)
    size = np.where(made.node == 4, 60_000.0, SIZE)
    out = made.survive(size=size)
    assert out.weight[(made.node != 4) & made.corner].mean() > 0.9
    assert out.weight[(made.node == 4) & made.corner].mean() < 0.3


def test_confirmed_outcomes_change_verdicts_where_they_lie_and_nowhere_else():
    made = world(12)
    made = lying(made, range(4, 12), made.corner)
    before = made.survive()
    middle = made.x[made.corner][0]
    rng = np.random.default_rng(5)
    x = middle + rng.normal(size=(60, 4)) * 0.05
    y = 2.0 * (x - 0.5) @ SLOPE + 0.3 + rng.normal(size=60)
    after = before.confirm(x, y)
    here = before.region == before.regions(middle[None])[0]
    liar = made.node >= 4
    assert before.weight[here & liar].mean() > 0.5  # eight against four, and nothing to tell them apart
    assert after.weight[here & liar].mean() < 0.2
    assert after.weight[here & ~liar].mean() > 0.9
    far = np.abs(made.x - middle).max(1) > 0.7
    assert (after.weight[far] == before.weight[far]).any()
    assert (before.weight == made.survive().weight).all()  # what was is not changed


def test_confirming_one_by_one_is_confirming_at_once():
    made = world(6, own=50)
    made = lying(made, [4, 5], made.corner)
    start = made.survive()
    rng = np.random.default_rng(3)
    x, y = rng.random((12, 4)), rng.normal(size=12)
    step = start
    for i in range(12):
        step = step.confirm(x[i : i + 1], y[i : i + 1])
    at_once = start.confirm(x, y)
    np.testing.assert_allclose(step.weight, at_once.weight, atol=1e-9)
    np.testing.assert_allclose(step.support, at_once.support, atol=1e-9)
    assert (step.opponent == at_once.opponent).all()


def test_packets_without_weight_have_no_say():
    made = world(6)
    made = lying(made, range(2, 6), made.corner)
    liar = made.node >= 2
    out = made.survive(weight=np.where(liar, 0.0, 1.0))
    assert out.weight[~liar].min() > 0.99


@pytest.mark.parametrize("classes", [2, 4])
def test_classes(classes: int):
    rng = np.random.default_rng(0)
    node = np.repeat(np.arange(8), 60)
    x = rng.random((len(node), 3))
    group = (x[:, 0] * 2).astype(int) * (classes // 2)
    chance = np.full((len(node), classes), 0.1 / max(classes - 1, 1))
    chance[np.arange(len(node)), group] += 0.9 - 0.1 / max(classes - 1, 1)
    counts = np.array([rng.multinomial(8, p / p.sum()) for p in chance]).astype(float)
    corner = x[:, 0] > 0.5
    liar = node >= 6
    counts[liar & corner] = np.roll(counts[liar & corner], 1, axis=1)
    out = survive(
        x,
        np.ones(3),
        node,
        np.ones(8),
        np.full(len(node), 8.0),
        counts=counts,
        own_x=np.zeros((0, 3)),
        own_y=np.zeros(0),
        rng=rng,
    )
    assert out.weight[liar & corner].mean() < 0.4
    assert out.weight[~liar].mean() > 0.9


def test_the_same_seed_gives_the_same_verdicts():
    made = world(5, own=30)
    first, second = made.survive(), made.survive()
    assert (first.weight == second.weight).all()
    assert (first.opponent_packet == second.opponent_packet).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    packets=st.integers(0, 60),
    own=st.integers(0, 20),
    nodes=st.integers(1, 6),
    classes=st.integers(0, 3),
)
def test_any_input_gives_weights_between_zero_and_one(seed: int, packets: int, own: int, nodes: int, classes: int):
    rng = np.random.default_rng(seed)
    x = rng.random((packets, 3))
    x[rng.random(x.shape) < 0.3] = np.nan
    kinds: dict[str, Any] = (
        {"counts": rng.integers(0, 9, (packets, classes)).astype(float)}
        if classes >= 2
        else {"mean": rng.normal(size=packets) * 1e3, "variance": rng.random(packets)}
    )
    own_y = rng.integers(0, max(classes, 1), own).astype(float)
    out = survive(
        x,
        np.array([1.0, 0.0, 3.0]),
        rng.integers(0, nodes, packets),
        rng.integers(0, 2, nodes) * rng.random(nodes),
        rng.integers(0, 3, packets) * 4.0,
        own_x=rng.random((own, 3)),
        own_y=own_y,
        weight=rng.integers(0, 2, packets) * 1.0,
        organisation=rng.integers(0, 3, nodes),
        rng=rng,
        **kinds,
    )
    again = out.confirm(rng.random((2, 3)), np.zeros(2))
    for found in (out, again):
        assert ((found.weight >= 0) & (found.weight <= 1)).all()
        assert np.isfinite(found.support).all()
        assert np.isfinite(found.opposition).all()
        assert np.isfinite(found.z).all()
        assert ((found.opponent >= OWN) & (found.opponent < nodes)).all()


def test_misuse_is_said():
    x, node = np.zeros((2, 3)), np.array([0, 1])
    none: dict[str, Any] = {"own_x": np.zeros((0, 3)), "own_y": np.zeros(0), "rng": np.random.default_rng(0)}
    with pytest.raises(DataError, match="either counts"):
        survive(x, np.ones(3), node, np.ones(2), np.ones(2), **none)
    with pytest.raises(DataError, match="equal length"):
        survive(x, np.ones(3), node, np.ones(2), np.ones(3), counts=np.ones((2, 2)), **none)
    with pytest.raises(DataError, match="outside"):
        survive(x, np.ones(3), node + 1, np.ones(2), np.ones(2), counts=np.ones((2, 2)), **none)
