"""All pairs against each pair by itself, and what strengths mean in worlds whose truth is known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outroute.elections import paths as module
from outroute.elections.keeping import Best, together
from outroute.elections.paths import BINS, LEAST, Search, finish, matrices, pair_count, strips, strongest
from outroute.elections.profiles import PRIOR_CELLS, Profiles, profiles
from outroute.elections.standing import standing

Floats = NDArray[np.float64]


def world(
    nodes: int,
    cells: int = 64,
    each: int = 40,
    *,
    likeness: float | Floats = 1.0,
    classes: int = 2,
    observations: int = 5,
    spread: float = 0.18,
    seed: int = 0,
) -> dict[str, Any]:
    """Packets of nodes whose deviations correlate with everybody's by `likeness`, each with its own base rate."""
    rng = np.random.default_rng(seed)
    node = np.repeat(np.arange(nodes), each)
    cell = rng.integers(0, cells, len(node))
    share = np.broadcast_to(np.asarray(likeness, dtype=np.float64), (nodes,))[:, None]
    common, own = rng.normal(0, 1, cells), rng.normal(0, 1, (nodes, cells))
    deviation = spread * (share * common + np.sqrt(1 - share**2) * own)
    rate = np.clip(0.5 + rng.normal(0, 0.1, (nodes, 1)) + deviation, 0.01, 0.99)[node, cell]
    size = np.full(len(node), float(observations))
    out: dict[str, Any] = {"node": node, "cell": cell, "size": size, "nodes": nodes, "cells": cells}
    if classes == 0:
        drawn = 20 + 40 * rate[:, None] + rng.normal(0, 4, (len(node), observations))
        return out | {"mean": drawn.mean(1), "variance": drawn.var(1)}
    rest = np.full((len(node), classes - 1), 1.0 / (classes - 1)) * (1 - rate)[:, None]
    return out | {"counts": rng.multinomial(observations, np.column_stack([rest, rate])).astype(np.float64)}


def all_pairs(known: Profiles) -> Floats:
    """Strengths as a symmetric matrix, each computed by itself from the entries in float64."""
    signal, reliability = (np.zeros((known.nodes, known.width)) for _ in range(2))
    signal[known.row, known.column], reliability[known.row, known.column] = known.signal, known.reliability
    out = np.zeros((known.nodes, known.nodes))
    for u in range(known.nodes):
        for v in range(u):
            value = signal[u] @ signal[v] / (reliability[u] @ reliability[v] + PRIOR_CELLS)
            out[u, v] = out[v, u] = np.clip(value, -1, 1)
    return out


def check_against_each_pair(known: Profiles, found: module.Paths, keep: int) -> None:
    whole = all_pairs(known)
    assert found.pairs == pair_count(known.nodes) == found.histogram.sum() == found.counted
    for others, values, sign in (
        (found.corroborating, found.corroboration, 1),
        (found.contradicting, found.contradiction, -1),
    ):
        best = np.sort(np.maximum(sign * whole, 0), axis=1)[:, ::-1][:, :keep]
        best = np.pad(best, ((0, 0), (0, keep - best.shape[1])))
        clear = np.abs(best - LEAST) > 1e-5
        np.testing.assert_allclose(sign * values[clear], np.where(best >= LEAST, best, 0)[clear], atol=1e-5)
        rows, places = np.nonzero(others >= 0)
        np.testing.assert_allclose(whole[rows, others[rows, places]], values[rows, places], atol=1e-5)
        assert (rows != others[rows, places]).all()
        for row in others:
            assert len(set(row[row >= 0])) == (row >= 0).sum()
    pairs = whole[np.triu_indices(known.nodes, 1)]
    bins = np.bincount(np.rint(pairs * 100).astype(np.int64) + 100, minlength=BINS)
    moved = np.abs(np.cumsum(found.histogram) - np.cumsum(bins))
    assert moved.max() <= 2 + len(pairs) // 10_000  # a float32 may fall on the other side of a bin's edge


@pytest.mark.parametrize("nodes", [1, 2, 3, 7, 255, 257, 700])
@pytest.mark.parametrize("parts", [1, 3])
def test_all_pairs_are_what_each_pair_is_by_itself(nodes: int, parts: int) -> None:
    known = profiles(**world(nodes, likeness=0.6))
    with ThreadPoolExecutor(2) as pool:
        found = strongest(known, keep=4, parts=parts, each=pool.map if parts > 1 else map)
    check_against_each_pair(known, found, 4)


@settings(max_examples=25, deadline=None)
@given(
    nodes=st.integers(2, 90),
    rows=st.integers(1, 40),
    columns=st.integers(1, 70),
    keep=st.integers(1, 12),
    each=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_blocks_of_any_shape_give_the_same(
    nodes: int, rows: int, columns: int, keep: int, each: int, seed: int
) -> None:
    known = profiles(**world(nodes, cells=20, each=each, likeness=0.5, seed=seed))
    search = Search(matrices(known, keep), rows=rows, columns=columns)
    for first in strips(nodes, rows=rows)[0]:
        search.add(first)
    check_against_each_pair(known, finish([search]), keep)


@pytest.mark.parametrize("parts", [1, 3])
def test_of_many_pairs_a_fixed_eighth_of_the_blocks_is_counted_and_all_are_evaluated(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = profiles(**world(300, likeness=0.6))
    whole = strongest(known, keep=4)
    monkeypatch.setattr(module, "COUNT_ALL", pair_count(300) - 1)
    searches = [Search(matrices(known, 4), rows=16, columns=24) for _ in range(parts)]
    chosen = np.zeros((300, 300), np.bool_)
    for search, firsts in zip(searches, strips(300, parts, 16), strict=True):
        for first in firsts:
            search.add(first)
            for number, (here, there) in enumerate(search.blocks(first)):
                chosen[here, there] = (first // 16 + number) % 8 == 0
    found = finish(searches)
    chosen &= np.arange(300)[:, None] < np.arange(300)
    assert found.pairs == pair_count(300)
    assert found.counted == found.histogram.sum() == chosen.sum()
    assert 0.09 < found.counted / found.pairs < 0.16
    bins = np.bincount(np.rint(all_pairs(known)[chosen] * 100).astype(np.int64) + 100, minlength=BINS)
    assert np.abs(np.cumsum(found.histogram) - np.cumsum(bins)).max() <= 2
    np.testing.assert_allclose(found.corroboration, whole.corroboration, atol=1e-5)
    np.testing.assert_allclose(found.contradiction, whole.contradiction, atol=1e-5)


def test_a_bar_that_was_guessed_too_high_loses_nothing() -> None:
    """A few nodes have friends that the sample does not show: their strengths are not normal."""
    camps = np.where(np.arange(600) % 50 == 0, 1.0, 0.0)
    known = profiles(**world(600, likeness=camps, each=100))
    given = matrices(known, 5)
    given.bars[:] = 95.0  # hardly anything passes
    search = Search(given)
    for first in strips(600)[0]:
        search.add(first)
    found = finish([search])
    assert found.again > 300
    check_against_each_pair(known, found, 5)


def test_many_equal_nodes_overflow_nothing() -> None:
    """Two hundred Sybils that say the same, and one that says the opposite."""
    one = world(1, each=60)
    copies = 200
    packets = {name: np.concatenate([one[name]] * copies) for name in ("cell", "size", "counts")}
    packets["node"] = np.repeat(np.arange(copies), 60)
    packets["counts"][-60:] = packets["counts"][-60:, ::-1]
    found = strongest(profiles(**packets, nodes=copies, cells=64), keep=3)
    assert (found.corroborating[:-1] >= 0).all()
    assert (found.contradicting[:-1, 0] == copies - 1).all()
    assert (found.contradicting[-1] >= 0).all()
    assert (found.corroborating[-1] == -1).all()


def test_the_highest_are_kept_whatever_comes_first() -> None:
    rng = np.random.default_rng(4)
    values = rng.permutation(40 * 500).reshape(40, 500).astype(np.float32) / 200 + 1
    best = Best(np.full(40, 1.0, np.float32), 6)
    for part in np.array_split(rng.permutation(40 * 500), 37):
        best.offer(part // 500, part % 500, values[part // 500, part % 500])
    others, kept = best.sorted()
    np.testing.assert_array_equal(kept, np.sort(values, 1)[:, ::-1][:, :6])
    np.testing.assert_array_equal(np.take_along_axis(values, others, 1), kept)


def test_several_that_share_their_bars_keep_the_highest_together() -> None:
    """Half of the candidates to each, in turns; the second rejects what the first has ten better ones of."""
    rng = np.random.default_rng(5)
    values = rng.normal(2, 1, (30, 900)).astype(np.float32).clip(0.01)
    values[3] = 1.5  # all alike
    bars = np.full(30, 0.01, np.float32)
    two = [Best(bars, 7), Best(bars, 7)]
    for turn, part in enumerate(np.array_split(rng.permutation(30 * 900), 60)):
        two[turn % 2].offer(part // 900, part % 900, values[part // 900, part % 900])
    others, kept = together(two)
    np.testing.assert_array_equal(kept, np.sort(values, 1)[:, ::-1][:, :7])
    np.testing.assert_array_equal(np.take_along_axis(values, others, 1), kept)
    assert all(len(set(row)) == 7 for row in others.tolist())
    assert (bars > 1).all()


@pytest.mark.parametrize("keep", [1, 12])
def test_bars_that_rise_all_the_time_lose_nothing(keep: int) -> None:
    """The nodes that come last agree most, so that each strip brings stronger paths than the one before."""
    known = profiles(**world(500, likeness=np.linspace(-0.9, 1.0, 500), each=30))
    given = matrices(known, keep)
    low = given.bars.copy()
    searches = [Search(given, rows=32, columns=64) for _ in range(2)]
    for search, firsts in zip(searches, strips(500, 2, 32), strict=True):
        for first in firsts:
            search.add(first)
            search.settle()
    check_against_each_pair(known, finish(searches), keep)
    assert (given.bars >= low).all()
    assert (given.bars[0] > low[0]).mean() > 0.5


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_nodes_with_nothing_in_common_have_paths_as_wide_as_they_say(classes: int) -> None:
    """Over pairs of independent nodes, strength / its spread under chance has standard deviation 1."""
    known = profiles(**world(300, likeness=0.0, classes=classes))
    left, right = np.triu_indices(300, 1)
    made = known.compare(left, right)
    chance = np.sqrt(made.effective) / (made.effective + PRIOR_CELLS)
    assert abs((made.strength / chance).std() - 1) < 0.1
    assert abs((made.strength / chance).mean()) < 0.05
    assert (np.abs(made.strength) < 1.645 * made.error).mean() > 0.9


@pytest.mark.parametrize("classes", [0, 2, 4])
@pytest.mark.parametrize("observations", [3, 12])
def test_sampling_noise_is_taken_out(classes: int, observations: int) -> None:
    """The moment estimate N / W over all pairs is the true correlation, however few observations a packet has."""
    found = []
    for seed in range(4):
        known = profiles(
            **world(200, likeness=np.sqrt(0.5), classes=classes, observations=observations, each=80, seed=seed)
        )
        left, right = np.triu_indices(200, 1)
        made = known.compare(left, right)
        met = made.strength * (made.effective + PRIOR_CELLS)
        found.append(met.sum() / made.effective.sum())
    assert abs(np.mean(found) - 0.5) < 0.1


def test_another_base_rate_is_no_contradiction_and_flipped_outcomes_are() -> None:
    one = world(1, each=200, observations=20)
    two = world(1, each=200, observations=20)
    rng = np.random.default_rng(8)
    shifted = two["counts"].copy()
    shifted[:, 0] += rng.binomial(20, 0.9, 200)  # many more negatives everywhere
    packets = {
        "node": np.repeat([0, 1, 2], 200),
        "cell": np.concatenate([one["cell"]] * 3),
        "counts": np.concatenate([one["counts"], shifted, one["counts"][:, ::-1]]),
        "nodes": 3,
        "cells": 64,
    }
    known = profiles(**packets, size=packets["counts"].sum(1))
    made = known.compare(np.array([0, 0]), np.array([1, 2]))
    assert made.strength[0] > 0.8
    assert made.strength[1] < -0.8


def test_few_observations_are_not_believed_to_disagree() -> None:
    """A node with three cohorts of five that all came out against everybody's."""
    packets = world(50, likeness=1.0, each=120)
    weak = packets["node"] == 49
    keep = ~weak | (np.cumsum(weak) <= 3)
    for name in ("node", "cell", "size", "counts"):
        packets[name] = packets[name][keep]
    packets["counts"][packets["node"] == 49] = packets["counts"][packets["node"] == 49][:, ::-1]
    made = profiles(**packets).compare(np.full(49, 49), np.arange(49))
    assert (np.abs(made.strength) < 1.645 * made.error).all()
    assert (made.effective < 3).all()


def test_exaggeration_gains_nothing() -> None:
    """A node that says 0 or 5 of 5 everywhere is no better corroborated than one that says what it saw."""
    packets = world(60, likeness=1.0, each=150)
    loud = packets["node"] == 0
    packets["counts"][loud] = 5.0 * (packets["counts"][loud] > 2.5)
    made = profiles(**packets).compare(np.repeat([0, 1], 58), np.tile(np.arange(2, 60), 2))
    assert made.strength[:58].mean() < made.strength[58:].mean() + 0.02


def test_nothing_is_said_about_nothing() -> None:
    none = np.empty(0, dtype=np.int64)
    empty = profiles(node=none, cell=none, size=np.empty(0), counts=np.empty((0, 2)), nodes=4, cells=3)
    assert len(empty.compare(none, none).strength) == 0
    found = strongest(empty, keep=2)
    assert (found.corroborating == -1).all()
    assert found.histogram[100] == 6
    assert (standing(empty).value == 0).all()
    one_cell = profiles(  # no other cell that it could be compared with
        node=np.array([0, 1]),
        cell=np.array([0, 0]),
        size=np.array([5.0, 5.0]),
        counts=np.array([[5.0, 0], [0, 5.0]]),
        nodes=2,
        cells=1,
    )
    assert one_cell.compare(np.array([0]), np.array([1])).strength[0] == 0
    silent = world(3)
    silent["counts"][:] = [5.0, 0.0]
    assert (profiles(**silent).compare(np.array([0, 1]), np.array([1, 2])).strength == 0).all()


def explicit_standing(known: Profiles) -> Floats:
    signal, reliability = (part.astype(np.float64) for part in known.dense())
    reach = np.sqrt(PRIOR_CELLS + (reliability**2).sum(1))
    matrix = signal @ signal.T / np.outer(reach, reach)
    np.fill_diagonal(matrix, 0.0)
    vector: Floats = np.linalg.eigh(matrix)[1][:, -1]
    return vector if vector.sum() >= 0 else -vector


@pytest.mark.parametrize("nodes", [3, 64, 65, 400])
def test_the_implicit_form_is_the_explicit_one(nodes: int) -> None:
    likeness = np.where(np.arange(nodes) % 5 == 1, -0.7, 0.8)
    known = profiles(**world(nodes, likeness=likeness, each=60, seed=2))
    value = standing(known).value
    np.testing.assert_allclose(value, explicit_standing(known), atol=1e-6)
    if nodes > 60:
        assert (value[likeness > 0] > 0).mean() > 0.95
        assert (value[likeness < 0] < 0).mean() > 0.9


def test_standing_is_the_majoritys_and_says_so() -> None:
    """What the docs say of it: with four liars in five that say the same, it is the liars'."""
    known = profiles(**world(50, likeness=np.where(np.arange(50) < 10, 0.9, -0.9), each=80))
    value = standing(known).value
    assert (value[:10] < 0).all()
    assert (value[10:] > 0).all()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"counts": None}, "paths.outcome"),
        ({"mean": np.zeros(120)}, "paths.outcome"),
        ({"node": np.full(120, 9)}, "paths.index"),
        ({"cell": np.full(120, -1)}, "paths.index"),
    ],
)
def test_misuse_is_said(change: dict[str, Any], code: str) -> None:
    from outroute.errors import DataError

    with pytest.raises(DataError) as caught:
        profiles(**(world(3) | change))
    assert caught.value.code == code


def test_nothing_to_keep_is_refused() -> None:
    from outroute.errors import DataError

    known = profiles(**world(3))
    for wrong in ({"keep": 0}, {"parts": 0}):
        with pytest.raises(DataError):
            strongest(known, **wrong)
