"""How fast evidence ages is elected on own outcomes, each predicted from what was known before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outroute.elections.ageing import CERTAIN, FLOOR, HALF_LIVES, OWN_LEAST, Ageing, ageing
from outroute.errors import DataError

DAY = 86_400
NOW = 700 * DAY


def table(turn: float | None, *, seed: int = 0, numeric: bool = False, packets: int = 1500, own: int = 800) -> Any:
    """Packets and own records over 700 days; after day `turn` conditions mean the opposite."""
    rng = np.random.default_rng(seed)

    def part(n: int) -> tuple[Any, Any, Any]:
        x, day = rng.random((n, 3)), rng.integers(0, 700, n)
        sign = np.ones(n) if turn is None else np.where(day < turn, 1.0, -1.0)
        return x, day.astype(np.int64) * DAY, sign * (x[:, 0] - 0.5) * 6.0

    x, bucket, score = part(packets)
    own_x, own_bucket, own_score = part(own)
    kinds: dict[str, Any]
    if numeric:
        kinds = {"mean": score + rng.normal(size=packets) / 2, "variance": np.ones(packets)}
        own_y = own_score + rng.normal(size=own)
    else:
        yes = rng.binomial(5, 1 / (1 + np.exp(-score)))
        kinds = {"counts": np.stack([5 - yes, yes], axis=1).astype(float)}
        own_y = (rng.random(own) < 1 / (1 + np.exp(-own_score))).astype(float)
    columns = {"x": x, "node": rng.integers(0, 5, packets), "size": np.full(packets, 5.0), "bucket": bucket}
    return columns | kinds | {"own_x": own_x, "own_y": own_y, "own_bucket": own_bucket}


@pytest.mark.parametrize("numeric", [False, True])
def test_what_changed_makes_the_past_age(numeric: bool):
    found = ageing(**table(350, numeric=numeric), now=NOW)
    assert found.half_life is not None
    assert found.half_life <= 180 * DAY
    best = HALF_LIVES.index(found.half_life)
    assert found.gains[best] > CERTAIN * found.errors[best] > 0
    assert found.scored > 500


@pytest.mark.parametrize("seed", range(4))
def test_what_does_not_change_does_not_age(seed: int):
    found = ageing(**table(None, seed=seed), now=NOW)
    assert found.half_life is None
    assert len(found.gains) == len(HALF_LIVES)
    assert (found.gains < CERTAIN * found.errors).all()
    assert (found.weight(np.array([0, NOW]), NOW) == 1).all()
    assert found.current(np.array([0, NOW]), NOW).all()


def test_forgetting_costs_what_does_not_change():
    few = [ageing(**table(None, seed=seed, packets=200), now=NOW).gains[-1] for seed in range(5)]
    assert np.mean(few) < 0


def test_nothing_is_elected_from_too_little():
    assert ageing(**table(350, own=59), now=NOW).half_life is None
    few = table(350)
    few["own_bucket"] = few["own_bucket"] // (200 * DAY) * 200 * DAY  # four times only
    assert ageing(**few, now=NOW).half_life is None


def test_no_packets_at_all():
    alone = table(350, packets=0)
    assert ageing(**alone, now=NOW).half_life is not None


def test_the_future_is_not_read():
    now = 500 * DAY
    columns = table(350)
    before = ageing(**columns, now=now)
    late, own_late = columns["bucket"] > now, columns["own_bucket"] > now
    assert late.any()
    assert own_late.any()
    columns["counts"] = np.where(late[:, None], 5.0 - columns["counts"], columns["counts"])
    columns["own_y"] = np.where(own_late, 1.0 - columns["own_y"], columns["own_y"])
    after = ageing(**columns, now=now)
    assert (before.gains == after.gains).all()
    assert before.half_life == after.half_life


def test_an_outcome_is_scored_before_it_is_learnt_from():
    """Outcomes of the last day are only ever asked about: they move gains by their own losses, which are bounded."""
    columns = table(350)
    last = columns["own_bucket"] == columns["own_bucket"].max()
    before = ageing(**columns, now=NOW)
    columns["own_y"] = np.where(last, 1.0 - columns["own_y"], columns["own_y"])
    after = ageing(**columns, now=NOW)
    assert (before.gains != after.gains).any()
    assert np.abs(before.gains - after.gains).max() <= 2 * 6.0 * last.sum() / before.scored
    first = columns["own_bucket"] == columns["own_bucket"].min()
    columns["own_y"] = np.where(first, 1.0 - columns["own_y"], columns["own_y"])
    assert (ageing(**columns, now=NOW).gains != after.gains).all()  # the first day is learnt from by all


def test_weights_halve_and_have_a_floor():
    made = Ageing(half_life=10 * DAY, half_lives=HALF_LIVES, gains=np.zeros(7), errors=np.zeros(7), scored=0)
    at = np.array([100, 90, 80, 0]) * DAY
    np.testing.assert_allclose(made.weight(at, 100 * DAY), [1, 0.5, 0.25, FLOOR])
    np.testing.assert_allclose(made.weight(at - 100 * DAY, 100 * DAY)[:2], [1, 0.5])  # all old: the newest counts
    assert made.weight(np.zeros(0, np.int64), 0).shape == (0,)


def test_records_that_are_too_old_are_left_out_unless_there_are_few():
    made = Ageing(half_life=10 * DAY, half_lives=HALF_LIVES, gains=np.zeros(7), errors=np.zeros(7), scored=0)
    many = np.arange(OWN_LEAST + 300) * DAY // 2
    now = int(many[-1])
    kept = made.current(many, now)
    assert kept.sum() == OWN_LEAST
    assert kept[-1]
    assert not kept[0]
    assert made.current(many[:10], now).all()


def test_node_weight_takes_nodes_out():
    columns = table(None)
    liar = columns["node"] == 0
    columns["counts"] = np.where(liar[:, None], 5.0 - columns["counts"], columns["counts"])
    out = ageing(**columns, now=NOW, node_weight=np.array([0.0, 1, 1, 1, 1]))
    columns["counts"] = np.where(liar[:, None], 2.5, columns["counts"])
    same = ageing(**columns, now=NOW, node_weight=np.array([0.0, 1, 1, 1, 1]))
    np.testing.assert_allclose(out.gains, same.gains)


def test_misuse_is_said():
    columns = table(None)
    del columns["counts"]
    with pytest.raises(DataError, match="either counts"):
        ageing(**columns, now=NOW)
    columns = table(None)
    columns["size"] = columns["size"][:-1]
    with pytest.raises(DataError, match="equal length"):
        ageing(**columns, now=NOW)
