"""Membership inference on updates, and the noise that a guarantee takes."""

from __future__ import annotations

import numpy as np
import pytest

from outroute.audit import judge
from outroute.audit.accounting import gaussian_delta, noise_for
from outroute.audit.nets import Net, Training, new_net, train
from outroute.audit.updates import Client, Federation, average, update_pairs


def client(n: int, seed: int, width: int = 6) -> Client:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    return Client(x=x, y=(x[:, 0] + rng.normal(size=n) > 0).astype(np.int64), subject=np.arange(n))


def test_gradients_are_those_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    one = client(5, 1)
    net = new_net(6, 3, rng, hidden=4)
    found = net.gradient(one.x, one.y).flat()
    flat = net.flat()
    for place in rng.permutation(flat.size)[:10]:
        move = np.zeros(flat.size)
        move[place] = 1e-6
        up, down = (net.like(flat + s * move).losses(one.x, one.y).mean() for s in (1, -1))
        assert found[place] == pytest.approx((up - down) / 2e-6, abs=1e-6)
    each = [net.gradient(one.x[i : i + 1], one.y[i : i + 1]).flat() for i in range(5)]
    assert net.norms(one.x, one.y) == pytest.approx([np.linalg.norm(g) for g in each])
    direction = Net(layers=net.layers)
    assert net.along(one.x, one.y, direction) == pytest.approx([g @ flat for g in each])


def test_a_federation_learns() -> None:
    clients = {"a": client(80, 1), "b": client(60, 2)}
    how = Federation(classes=2, rounds=10, training=Training(epochs=2, rate=0.5))
    net = average(clients, how, np.random.default_rng(0))
    test = client(400, 3)
    assert (net.probabilities(test.x).argmax(axis=1) == test.y).mean() > 0.65


def test_membership_is_seen_in_updates_and_noise_hides_it() -> None:
    clients = {"a": client(24, 1, 30), "b": client(24, 2, 30)}
    few = Federation(classes=2, rounds=4, training=Training(batch=0, rate=0.5))
    noisy = Federation(classes=2, rounds=4, training=Training(batch=0, rate=0.5, clip=1.0, noise=200.0))
    plain = judge(update_pairs(clients, few, np.random.default_rng(0), shadows=32), np.random.default_rng(0))
    hidden = judge(update_pairs(clients, noisy, np.random.default_rng(0), shadows=32), np.random.default_rng(0))
    together = judge(
        update_pairs(clients, few, np.random.default_rng(0), shadows=32, aggregated=True), np.random.default_rng(0)
    )
    assert plain is not None
    assert hidden is not None
    assert together is not None
    assert plain.ratio.auc.value > 0.75
    assert abs(hidden.ratio.auc.value - 0.5) < 0.08
    assert together.ratio.auc.value > 0.55


def test_clipped_steps_move_no_further_than_the_clip() -> None:
    one = client(40, 5)
    net = new_net(6, 2, np.random.default_rng(0), hidden=0)
    how = Training(batch=0, rate=1.0, clip=0.01)
    moved = train(net, one.x, one.y, how, np.random.default_rng(0)) - net
    assert np.linalg.norm(moved.flat()) <= 0.01 + 1e-12


def test_noise_follows_the_exact_gaussian_mechanism() -> None:
    assert gaussian_delta(1.0, noise_for(1.0, 1)) == pytest.approx(1e-5, rel=1e-6)
    # Known value: epsilon 1, delta 1e-5 takes 3.73 (Balle and Wang's analytic mechanism), the classical bound 4.84.
    assert noise_for(1.0, 1) == pytest.approx(3.73, abs=0.01)
    assert noise_for(1.0, 25) == pytest.approx(5 * noise_for(1.0, 1))
