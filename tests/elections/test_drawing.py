"""Drawing: whose packets are fetched, in worlds where it is known who is honest and who has what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elections.test_hire import Floats, flipped, noise, own, table, world
from outroute.elections.alignment import PACKETS_LEAST, Ints, Table
from outroute.elections.drawing import (
    AUTHORS_MOST,
    ORGANISATION,
    ROUNDS,
    Ask,
    Known,
    demand_of,
    draw,
    fetch,
    scout,
)
from outroute.elections.hire import Hired, hire
from outroute.elections.reliance import reliability

CELLS = 4


def cell_of(x: Floats) -> Ints:
    """Cells are slices of the first slot."""
    return np.minimum((x[:, 0] * CELLS).astype(np.int64), CELLS - 1)


@dataclass
class Holders:
    """All packets there are, and what was asked for."""

    packets: Table
    organisation: Ints
    asked: list[Ask] = field(default_factory=list)
    calls: int = 0

    def __post_init__(self) -> None:
        self.cell = cell_of(self.packets.x)
        self.sent = np.zeros(len(self.cell), dtype=bool)
        self.spent = np.zeros((self.packets.nodes, CELLS), dtype=bool)

    def __call__(self, asks: Sequence[Ask]) -> Known:
        self.calls += 1
        self.asked += asks
        for one in asks:
            rows = np.flatnonzero((self.cell == one.cell) & ~self.sent)
            if one.nodes:
                rows = rows[np.isin(self.packets.node[rows], one.nodes)]
            turn = np.zeros(len(rows))
            for node in np.unique(self.packets.node[rows]):
                mine = self.packets.node[rows] == node
                turn[mine] = np.arange(mine.sum())
            shown = rows[np.lexsort((self.packets.node[rows], turn))[: one.count]]
            self.sent[shown] = True
            if len(shown) == len(rows):
                self.spent[list(one.nodes) if one.nodes else slice(None), one.cell] = True
        return self.known()

    def known(self) -> Known:
        rows = np.flatnonzero(self.sent)
        p = self.packets
        return Known(
            packets=replace(p, x=p.x[rows], target=p.target[rows], size=p.size[rows], node=p.node[rows]),
            cell=self.cell[rows],
            fetched=len(rows),
            left=np.bincount(self.cell[~self.sent], minlength=CELLS),
            spent=self.spent,
            organisation=self.organisation,
        )

    def of(self, nodes: Sequence[int]) -> int:
        return int(np.isin(self.packets.node[self.sent], nodes).sum())


def holders(parts: list[tuple[Floats, Floats]], organisation: list[int] | None = None) -> Holders:
    names = np.arange(len(parts)) if organisation is None else np.array(organisation)
    return Holders(table(parts), names)


def asked_from(source: Holders, mine: Table, budget: int, seed: int = 0, cells: Sequence[int] = range(CELLS)) -> Known:
    near = np.array([list(cells)])
    region = cell_of(mine.x)
    return fetch(
        source,
        mine,
        np.arange(len(mine.x)),
        region,
        demand_of(near, region, CELLS),
        budget=budget,
        rng=np.random.default_rng(seed),
    )


def test_liars_are_asked_less_than_honest_nodes() -> None:
    rng = np.random.default_rng(1)
    parts = [world(rng, 60) for _ in range(4)] + [flipped(world(rng, 60)) for _ in range(4)]
    source = holders(parts)
    asked_from(source, own(rng, 150), 160)
    assert source.of(range(4)) > 2 * source.of(range(4, 8))
    later = [one for one in source.asked[CELLS:] if one.count]
    assert later
    named = [node for one in later for node in one.nodes]
    assert sum(node < 4 for node in named) > 2 * sum(node >= 4 for node in named)


def test_random_nodes_cost_less_than_half() -> None:
    rng = np.random.default_rng(2)
    parts = [world(rng, 60) for _ in range(4)] + [noise(rng, 60) for _ in range(12)]
    source = holders(parts)
    asked_from(source, own(rng, 150), 240)
    assert source.of(range(4)) / source.sent.sum() > 0.4  # of all packets, a quarter is theirs


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    nodes=st.integers(1, 7),
    budget=st.integers(1, 120),
    rows=st.integers(0, 40),
    organisations=st.integers(1, 4),
)
def test_never_more_than_the_budget_and_half_for_one_organisation(
    seed: int, nodes: int, budget: int, rows: int, organisations: int
) -> None:
    rng = np.random.default_rng(seed)
    parts = [world(rng, int(rng.integers(1, 60))) for _ in range(nodes)]
    names = [i % organisations for i in range(nodes)]
    source = holders(parts, names)
    known = asked_from(source, own(rng, rows), budget, seed)
    assert len(known.cell) == source.sent.sum() <= budget
    assert source.calls <= ROUNDS
    assert all(len(one.nodes) <= AUTHORS_MOST and one.count >= 0 for one in source.asked)
    # Scouting takes what there is, by turns; from there on the cap holds.
    scouted = Holders(source.packets, source.organisation)
    scouted(source.asked[:CELLS])
    if len(set(np.array(names)[np.unique(scouted.packets.node[scouted.sent])])) >= 3:
        share = np.bincount(source.organisation[known.packets.node])
        before = np.bincount(source.organisation[scouted.packets.node[scouted.sent]], minlength=len(share))
        assert (share <= np.maximum(np.floor(ORGANISATION * budget), before)).all()


def test_the_same_again() -> None:
    def once(seed: int) -> list[Ask]:
        rng = np.random.default_rng(3)
        source = holders([world(rng, 50) for _ in range(5)])
        asked_from(source, own(rng, 80), 60, seed)
        return source.asked

    assert once(7) == once(7)
    assert once(7) != once(8)


def test_what_is_scouted_follows_demand_and_all_cells_are_counted() -> None:
    demand = np.array([0.0, 5.0, 1.0, 0.0])
    first = [0] * CELLS
    for seed in range(200):
        asks = scout(demand, 20, np.random.default_rng(seed))
        assert [one.cell for one in asks] == list(range(CELLS))
        assert sum(one.count for one in asks) == 8
        for one in asks:
            first[one.cell] += one.count > 0
    assert first[0] == first[3] == 0
    assert first[1] > 3 * first[2] > 0


def test_demand_is_shared_out() -> None:
    found = demand_of(np.array([[0, 1], [0, 2]]), np.array([3, 3, -1]), CELLS)
    np.testing.assert_allclose(found, [2 / 3, 1 / 6, 1 / 6, 1.0])
    np.testing.assert_allclose(demand_of(np.array([[-1, 2]]), np.zeros(0, dtype=np.int64), CELLS), [0, 0, 1, 0])


def hired_of(known: Known, mine: Table) -> Hired:
    return hire(known.packets, mine, np.arange(len(mine.x)), known.organisation)


def drawn_from(source: Holders, mine: Table, count: int, demand: Floats, seed: int = 0) -> tuple[Ask, ...]:
    known = source.known()
    return draw(
        known,
        mine,
        np.arange(len(mine.x)),
        cell_of(mine.x),
        hired_of(known, mine),
        demand=demand,
        count=count,
        total=10_000,
        rng=np.random.default_rng(seed),
    )


def test_a_cell_that_is_well_covered_is_not_asked_again() -> None:
    rng = np.random.default_rng(4)
    source = holders([world(rng, 2000) for _ in range(6)])
    source([Ask(cell=c, nodes=(), count=6) for c in range(CELLS)])
    mine = own(rng, 60)
    demand = np.array([1.0, 1.0, 0.0, 0.0])
    before = drawn_from(source, mine, 30, demand)
    assert {one.cell for one in before} == {0, 1}
    source([Ask(cell=0, nodes=(), count=2900)])
    assert (source.known().left > 0)[0]
    assert {one.cell for one in drawn_from(source, mine, 30, demand)} == {1}


def test_a_newcomer_gets_its_chance() -> None:
    rng = np.random.default_rng(5)
    parts = [world(rng, 200) for _ in range(6)]
    source = holders(parts)
    source([Ask(cell=c, nodes=(0, 1, 2, 3, 4), count=100) for c in range(CELLS)])
    source([Ask(cell=1, nodes=(5,), count=1)])
    asked = drawn_from(source, own(rng, 150), 40, np.ones(CELLS))
    assert any(5 in one.nodes for one in asked)
    assert source.known().of_each()[5] < PACKETS_LEAST


def test_newcomers_take_turns_by_organisation() -> None:
    rng = np.random.default_rng(6)
    parts = [world(rng, 200) for _ in range(3)] + [world(rng, 10) for _ in range(31)]
    organisation = [0, 1, 2, *[3] * 30, 4]
    found = 0
    for seed in range(10):
        source = holders(parts, organisation)
        source([Ask(cell=c, nodes=(0, 1, 2), count=60) for c in range(CELLS)])
        source([Ask(cell=c, nodes=tuple(range(3, 34)), count=31) for c in range(1)])
        known = source.known()
        mine = own(rng, 150)
        weight = np.where(np.arange(34) < 3, 1.0, 0.0)  # nobody new would be asked for what it is worth
        hired = replace(hired_of(known, mine), weight=weight, contradicted=weight == 0)
        asked = draw(
            known,
            mine,
            np.arange(150),
            cell_of(mine.x),
            hired,
            demand=np.ones(CELLS),
            count=60,
            total=10_000,
            rng=np.random.default_rng(seed),
        )
        found += any(33 in one.nodes for one in asked)
    assert found == 10  # one of 31 newcomers, and one of two organisations


def test_nobody_is_left_to_ask() -> None:
    rng = np.random.default_rng(7)
    source = holders([world(rng, 20) for _ in range(3)])
    known = asked_from(source, own(rng, 50), 10_000)
    assert source.sent.all()
    assert known.left.sum() == 0
    assert source.calls < ROUNDS
    assert drawn_from(source, own(rng, 50), 10, np.ones(CELLS)) == ()


def test_a_node_is_relied_on_where_own_outcomes_bear_it_out() -> None:
    """Own outcomes follow one pattern in the first cell and another elsewhere; each node knows one of them."""
    rng = np.random.default_rng(8)
    other = np.array([0.0, 0.0, 0.0, 3.0, -2.0, 0.0])

    def elsewhere(x: Floats) -> Floats:
        return 1.0 / (1.0 + np.exp(-((x - 0.5) @ other) * 2.0))

    x = rng.random((200, 6))
    first = (x, rng.binomial(5, elsewhere(x))[:, None] / 5)
    source = holders([first, *[world(rng, 200) for _ in range(3)]])
    known = source([Ask(cell=c, nodes=(), count=1000) for c in range(CELLS)])
    mine = own(rng, 600)
    inside = cell_of(mine.x) == 0
    target = np.where(inside, rng.binomial(1, elsewhere(mine.x)), mine.target[:, 0])[:, None].astype(np.float64)
    mine = replace(mine, target=target)
    hired = replace(hired_of(known, mine), weight=np.full(4, 0.5), contradicted=np.zeros(4, dtype=bool))
    mean, doubt = reliability(known, mine, np.arange(600), cell_of(mine.x), hired)
    assert mean[0, 0] > mean[0, 1:].max()
    assert (mean[1:, 0] < mean[1:, 1:].min(axis=1)).all()
    assert ((mean >= 0) & (mean <= 1) & (doubt > 0)).all()


@pytest.mark.parametrize("rows", [0, 2])
def test_without_own_outcomes_nothing_is_learnt_about_regions(rows: int) -> None:
    rng = np.random.default_rng(9)
    source = holders([world(rng, 40) for _ in range(4)])
    known = asked_from(source, own(rng, rows), 60)
    mine = own(rng, rows)
    mean, _ = reliability(known, mine, np.arange(rows), cell_of(mine.x), hired_of(known, mine))
    assert (mean == mean[:, :1]).all()
    assert source.sent.sum() > 30


def test_an_outcome_that_became_known_counts_at_once() -> None:
    """Nothing is kept between fetches: own records alone decide."""
    rng = np.random.default_rng(10)
    source = holders([world(rng, 60) for _ in range(3)])
    known = asked_from(source, own(rng, 60), 100)
    mine = own(rng, 120)

    def judged(count: int, target: npt.NDArray[np.float64]) -> Floats:
        some = replace(mine, x=mine.x[:count], target=target[:count], size=mine.size[:count], node=mine.node[:count])
        return reliability(known, some, np.arange(count), cell_of(some.x), hired_of(known, some))[0]

    before, after = judged(119, mine.target), judged(120, mine.target)
    assert (before != after).any()
    assert (judged(119, mine.target) == before).all()
