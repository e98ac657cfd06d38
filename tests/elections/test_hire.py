"""Hire: who is drawn on, and how far, on nodes whose honesty is known because they were made up here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from outroute.elections.alignment import Table, align, anchored, consensus
from outroute.elections.hire import UNPROVEN, Anchored, Hired, hire

Floats = npt.NDArray[np.float64]
WIDTH = 6
TRUTH = np.array([2.0, -1.5, 1.0, 0.0, 0.0, 0.5])


def chance(x: Floats, shift: float = 0.0) -> Floats:
    """Probability of the outcome in the world that honest nodes see."""
    return 1.0 / (1.0 + np.exp(-((x - 0.5) @ TRUTH) * 2.0 - shift))


def world(rng: np.random.Generator, packets: int, size: int = 5, shift: float = 0.0) -> tuple[Floats, Floats]:
    """Conditions [n, D] and shares [n, 1] of one honest node."""
    x = rng.random((packets, WIDTH))
    return x, rng.binomial(size, chance(x, shift))[:, None] / size


def table(parts: list[tuple[Floats, Floats]], size: float = 5.0) -> Table:
    counts = [len(x) for x, _ in parts]
    return Table(
        x=np.concatenate([x for x, _ in parts]),
        target=np.concatenate([y for _, y in parts]),
        size=np.full(sum(counts), size),
        node=np.repeat(np.arange(len(parts)), counts),
        nodes=len(parts),
        numeric=False,
    )


def own(rng: np.random.Generator, rows: int) -> Table:
    x = rng.random((rows, WIDTH))
    return Table(
        x=x,
        target=rng.binomial(1, chance(x))[:, None].astype(np.float64),
        size=np.ones(rows),
        node=np.zeros(rows, dtype=np.int64),
        nodes=1,
        numeric=False,
    )


def nobody() -> Table:
    return Table(
        x=np.zeros((0, WIDTH)),
        target=np.zeros((0, 1)),
        size=np.zeros(0),
        node=np.zeros(0, dtype=np.int64),
        nodes=1,
        numeric=False,
    )


def hired(packets: Table, mine: Table, organisation: list[int] | None = None, pinned: list[int] | None = None) -> Hired:
    names = np.arange(packets.nodes) if organisation is None else np.array(organisation)
    pins = None if pinned is None else np.array(pinned)
    return hire(packets, mine, np.arange(len(mine.x)), names, pins)


def flipped(part: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    return part[0], 1.0 - part[1]


def noise(rng: np.random.Generator, packets: int) -> tuple[Floats, Floats]:
    return rng.random((packets, WIDTH)), rng.binomial(5, 0.5, packets)[:, None] / 5


def test_honest_nodes_are_proven_and_liars_weigh_nothing() -> None:
    rng = np.random.default_rng(1)
    parts = [world(rng, 40) for _ in range(4)] + [flipped(world(rng, 40)) for _ in range(12)]
    found = hired(table(parts), own(rng, 150))
    assert found.proven[:4].all()
    assert (found.weight[:4] > 0.9).all()
    assert not found.proven[4:].any()
    assert found.contradicted[4:].all()
    assert found.weight[4:].max() < 0.02
    assert found.anchor is Anchored.OWN_OUTCOMES


def test_another_base_rate_is_no_lie() -> None:
    rng = np.random.default_rng(2)
    found = hired(table([world(rng, 60, shift=2.0), world(rng, 60, shift=-2.0), world(rng, 60)]), own(rng, 200))
    assert (found.weight > 0.9).all()


@pytest.mark.parametrize("seed", range(4))
def test_hundreds_of_random_sybils_together_stay_under_the_cap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [world(rng, 60) for _ in range(3)] + [noise(rng, 8) for _ in range(300)]
    packets, mine = table(parts), own(rng, 200)
    found = hired(packets, mine)
    mass = np.bincount(packets.node, packets.size)
    held = found.weight * mass
    assert float(held[~found.proven].sum()) <= UNPROVEN * (float(held[found.proven].sum()) + 200) * 1.001
    assert found.proven[:3].all()
    assert found.proven[3:].sum() <= 1  # the level of the test: one run in twenty


def test_a_lucky_direction_is_not_enough() -> None:
    """Random profiles predict own outcomes or their opposite by far; the node's own labels tell."""
    rng = np.random.default_rng(3)
    found = hired(table([noise(rng, 40) for _ in range(40)]), own(rng, 400))
    assert (np.abs(found.forward) > 4).sum() >= 4  # luck in plenty, seen from own outcomes alone
    assert found.proven.sum() <= 1


def test_without_own_outcomes_most_organisations_decide() -> None:
    rng = np.random.default_rng(4)
    parts = [world(rng, 60) for _ in range(5)] + [flipped(world(rng, 60)) for _ in range(4)]
    found = hired(table(parts), nobody())
    assert found.anchor is Anchored.CONSENSUS
    assert found.weight[:5].min() > 5 * found.weight[5:].max()


def test_an_organisation_counts_once_in_the_consensus() -> None:
    rng = np.random.default_rng(5)
    parts = [world(rng, 60) for _ in range(3)] + [flipped(world(rng, 60)) for _ in range(9)]
    swamped = hired(table(parts), nobody())
    counted = hired(table(parts), nobody(), [0, 1, 2] + [3] * 9)
    assert swamped.weight[:3].max() < swamped.weight[3:].min()  # twelve organisations: the nine win
    assert counted.weight[:3].min() > 5 * counted.weight[3:].max()


def test_pinned_nodes_anchor_an_asker_without_outcomes() -> None:
    rng = np.random.default_rng(6)
    parts = [world(rng, 60) for _ in range(2)] + [flipped(world(rng, 60)) for _ in range(8)]
    found = hired(table(parts), nobody(), pinned=[0])
    assert found.anchor is Anchored.PINNED
    assert found.weight[0] == 1.0
    assert found.weight[1] > 0.5
    assert found.weight[2:].max() < 0.1


def test_two_organisations_and_no_outcomes_leave_everybody_alike() -> None:
    rng = np.random.default_rng(7)
    found = hired(table([world(rng, 30), flipped(world(rng, 30))]), nobody())
    assert found.anchor is Anchored.NOTHING
    assert found.weight.tolist() == [1.0, 1.0]


def test_no_organisation_holds_more_than_half() -> None:
    rng = np.random.default_rng(8)
    parts = [world(rng, 400)] * 3 + [world(rng, 40), world(rng, 40)]
    packets, mine = table(parts), own(rng, 150)
    found = hired(packets, mine, [0, 0, 0, 1, 2])
    held = found.weight * np.bincount(packets.node, packets.size)
    assert held[:3].sum() <= held[3:].sum() + 150 + 1e-6


def test_the_order_of_nodes_changes_nothing() -> None:
    rng = np.random.default_rng(9)
    parts = [world(rng, 30) for _ in range(3)] + [flipped(world(rng, 30)), noise(rng, 30), world(rng, 2)]
    mine = own(rng, 80)
    order = rng.permutation(len(parts))
    one = hired(table(parts), mine).weight
    other = hired(table([parts[i] for i in order]), mine).weight
    assert np.allclose(one[order], other)


def test_numbers_are_judged_too() -> None:
    rng = np.random.default_rng(10)

    def numbers(rows: int, sign: float) -> tuple[Floats, Floats]:
        x = rng.random((rows, WIDTH))
        return x, (sign * 30.0 * (x @ TRUTH) + rng.normal(0, 20, rows))[:, None]

    parts = [numbers(40, 1.0), numbers(40, 1.0), numbers(40, -1.0), numbers(40, 0.0)]
    x, y = numbers(100, 1.0)
    packets = Table(
        x=np.concatenate([p[0] for p in parts]),
        target=np.concatenate([p[1] for p in parts]),
        size=np.full(160, 5.0),
        node=np.repeat(np.arange(4), 40),
        nodes=4,
        numeric=True,
    )
    mine = Table(x=x, target=y, size=np.ones(100), node=np.zeros(100, dtype=np.int64), nodes=1, numeric=True)
    found = hired(packets, mine)
    assert (found.weight[:2] > 0.9).all()
    assert found.weight[2] < 0.02
    assert not found.proven[3]


def test_missing_conditions_say_nothing() -> None:
    rng = np.random.default_rng(11)
    x, y = world(rng, 60)
    x[:, 0] = np.nan
    empty = np.full((20, WIDTH), np.nan)
    found = hired(table([(x, y), (empty, np.full((20, 1), 0.4))]), own(rng, 150))
    assert np.isfinite(found.weight).all()
    assert not found.proven[1]


@pytest.mark.parametrize("rows", [0, 1, 3, 5])
def test_a_handful_of_own_outcomes_is_no_anchor_yet(rows: int) -> None:
    rng = np.random.default_rng(12)
    found = hired(table([world(rng, 60) for _ in range(4)]), own(rng, rows))
    assert found.consensus_share > 0.5
    assert (found.weight > 0.3).all()


def test_scores_are_those_of_chance_for_random_nodes() -> None:
    """The reverse test has its level, whatever own records say."""
    rng = np.random.default_rng(13)
    mine = own(rng, 500)
    packets = table([noise(rng, 12) for _ in range(800)])
    z = align(packets, anchored(mine, np.arange(500))).reverse
    assert 0.03 < float((z > 1.645).mean()) < 0.075
    assert 0.9 < float(z.std()) < 1.1


def test_the_consensus_breaks_down_at_half() -> None:
    rng = np.random.default_rng(14)
    for liars, right in ((4, True), (6, False)):
        parts = [world(rng, 80) for _ in range(10 - liars)] + [flipped(world(rng, 80)) for _ in range(liars)]
        profile = consensus(table(parts), np.arange(10)).profile[:, 0]
        assert (float(np.corrcoef(profile, TRUTH)[0, 1]) > 0) is right
