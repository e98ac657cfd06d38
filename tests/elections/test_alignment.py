"""Scores from sums kept by node are those of a plain loop over packets; and they stay when outcomes come one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outroute.elections import alignment
from outroute.elections.alignment import (
    Alignment,
    Anchor,
    Floats,
    Summaries,
    Table,
    align,
    aligned,
    anchored,
    extended,
    ridge,
    standardised,
)
from outroute.elections.hire import hire, prepare

WIDTH = 5


def made(seed: int, *, nodes: int, columns: int, numeric: bool = False, missing: bool = True) -> tuple[Table, Table]:
    """Packets of some nodes, one of them silent and one with three packets; and own records."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(WIDTH, columns))

    def table(n: int, node: Any, count: int) -> Table:
        x = rng.random((n, WIDTH))
        score = (x - 0.5) @ truth * 2 + rng.normal(0, 0.5, (n, columns))
        target = score if numeric else 1 / (1 + np.exp(-score))
        if not numeric and columns > 1:
            target = np.exp(score) / np.exp(score).sum(1, keepdims=True)
        if missing:
            x[rng.random(x.shape) < 0.2] = np.nan
        size = rng.integers(1, 9, n).astype(np.float64) if count > 1 else np.ones(n)
        return Table(x=x, target=target, size=size, node=node, nodes=count, numeric=numeric)

    node = np.concatenate([rng.integers(2, nodes, 30 * nodes), [1, 1, 1]])
    return table(len(node), node, nodes), table(90, np.zeros(90, np.int64), 1)


def looped(packets: Table, anchor: Anchor) -> tuple[Floats, Floats, Floats]:
    """Correlations of each node with an anchor, forward and reverse, and the one expected; one node after the other."""
    z = standardised(packets.x, anchor.centre, anchor.spread)
    out = np.zeros((3, packets.nodes))
    for node in range(packets.nodes):
        rows = packets.node == node
        if rows.sum() < 4:
            continue
        size, target = packets.size[rows], packets.target[rows]
        rate = np.average(target, axis=0, weights=size)
        said = z[rows] @ anchor.profile
        said = said - np.average(said, axis=0, weights=size)
        left = target - rate
        both, one, other = (float(size @ (a * b).sum(1)) for a, b in ((said, left), (said, said), (left, left)))
        out[1, node] = both / np.sqrt(one * other)
        bend = 1.0 if packets.numeric else max(float((rate * (1 - rate)).mean()), 1e-3)
        out[2, node] = min(anchor.slope * bend * np.sqrt(one / other), alignment.MOST)
        spoken = anchor.z @ ridge(z[rows], size, target, packets.numeric)
        spoken = spoken - spoken.mean(0)
        whole = np.sqrt((spoken**2).sum() * (anchor.target**2).sum())
        out[0, node] = (spoken * anchor.target).sum() / whole
    return out[0], out[1], out[2]


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize("columns", [1, 3])
def test_sums_say_what_packets_say(columns: int, numeric: bool) -> None:
    packets, own = made(columns, nodes=9, columns=1 if numeric else columns, numeric=numeric)
    anchor = anchored(own, np.arange(90) // 2)
    found = align(packets, anchor)
    forward, reverse, expected = looped(packets, anchor)
    rows = np.maximum(np.bincount(packets.node, minlength=9).astype(np.float64), 4)
    groups = np.full(9, 45.0)
    for scores, correlation, freedom in (
        (found.forward, forward, groups),
        (found.reverse, reverse, rows),
        (found.expected, expected, rows),
    ):
        assert np.allclose(scores, alignment._scores(correlation, freedom), rtol=1e-9, atol=1e-9)
    assert found.judged.tolist() == [False, False] + [True] * 7
    assert np.allclose(found.mass, np.bincount(packets.node, packets.size, 9))


def test_it_does_not_matter_how_many_nodes_are_worked_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    packets, own = made(4, nodes=12, columns=2)
    anchor = anchored(own, np.arange(90))
    whole = align(packets, anchor)
    monkeypatch.setattr(alignment, "KEPT_MOST", 0)
    monkeypatch.setattr(alignment, "BLOCK", 1)
    summed = Summaries(packets, anchor.centre, anchor.spread)
    assert sum(1 for _ in summed.blocks()) == 10
    for _ in range(2):
        again = aligned(summed, anchor)
        for name in Alignment.__slots__:
            assert np.allclose(getattr(whole, name), getattr(again, name), rtol=1e-12)


def test_a_profile_of_own_records_and_some_nodes_is_that_of_all_rows_together() -> None:
    packets, own = made(5, nodes=6, columns=1)
    anchor = anchored(own, np.arange(90))
    weight = np.array([1.0, 1.0, 0.5, 0.0, 1.0, 0.0])
    made_ = extended(anchor, own, Summaries(packets, anchor.centre, anchor.spread), weight)
    z, target, size = [anchor.z - anchor.z.mean(0)], [own.target], [own.size]
    for node in (2, 4):  # node 1 has too few packets
        rows = packets.node == node
        theirs = standardised(packets.x[rows], anchor.centre, anchor.spread)
        z.append(theirs - np.average(theirs, axis=0, weights=packets.size[rows]))
        rate = np.average(packets.target[rows], axis=0, weights=packets.size[rows])
        target.append(packets.target[rows] - rate + own.target.mean(0))
        size.append(packets.size[rows] * weight[node])
    plain = ridge(np.concatenate(z), np.concatenate(size), np.concatenate(target), False)
    assert np.allclose(made_.profile, plain, rtol=1e-9)


@pytest.mark.parametrize("pinned", [None, np.array([3])])
def test_hiring_step_by_step_with_one_preparation_is_hiring_anew(pinned: Any) -> None:
    """Conditions are standardised as at the start, so scores differ a little; without anything new, not at all."""
    packets, own = made(6, nodes=20, columns=1)
    home = np.arange(20)

    def first(count: int) -> Table:
        return Table(
            x=own.x[:count],
            target=own.target[:count],
            size=own.size[:count],
            node=own.node[:count],
            nodes=1,
            numeric=False,
        )

    ready = prepare(packets, first(60), home, pinned)
    same, anew = ready.hire(first(60), np.arange(60)), hire(packets, first(60), np.arange(60), home, pinned)
    assert np.array_equal(same.weight, anew.weight)
    assert np.array_equal(same.reverse, anew.reverse)
    for count in (61, 63):  # a node fits all anew when a twentieth is new
        step, anew = (
            ready.hire(first(count), np.arange(count)),
            hire(packets, first(count), np.arange(count), home, pinned),
        )
        assert np.abs(step.forward - anew.forward).max() < 0.1
        assert np.abs(step.weight - anew.weight).max() < 0.1
        assert step.anchor is anew.anchor
