"""Membership inference on updates, and the noise that a guarantee takes."""

from __future__ import annotations

import numpy as np
import pytest

from outroute.audit import cohorts, judge
from outroute.audit.accounting import gaussian_delta, noise_for
from outroute.audit.federated import federations
from outroute.audit.nets import Net, Training, new_net, train
from outroute.audit.updates import WHOLE, Client, Federation, average, largest, update_pairs
from outroute.audit.utility import MARGIN, against_first, federated_utility, packet_utility, utility_splits

from .making import observed, world


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


def test_only_the_largest_entries_are_sent_and_the_rest_waits() -> None:
    net = new_net(6, 3, np.random.default_rng(0), hidden=4)
    cut = largest(net, 0.1)
    assert (cut.flat() != 0).sum() == round(0.1 * net.flat().size)
    assert np.abs(cut.flat()).max() == np.abs(net.flat()).max()
    clients = {"a": client(80, 1), "b": client(60, 2)}
    how = Federation(classes=2, rounds=30, training=WHOLE)
    sent: list[int] = []

    def seen(net: Net, updates: dict[str, Net], sizes: dict[str, int]) -> None:
        sent.extend(int((update.flat() != 0).sum()) for update in updates.values())

    few = average(
        clients, Federation(classes=2, rounds=30, training=WHOLE, top=0.2), np.random.default_rng(0), seen=seen
    )
    whole = average(clients, how, np.random.default_rng(0))
    assert max(sent) <= 4  # of 14, with ties between the two classes
    # What is not sent now is sent later: both end near each other.
    assert np.abs(few.flat() - whole.flat()).max() < 0.5 * np.abs(whole.flat()).max()


def test_single_records_are_worth_what_averaging_plain_steps_is_worth() -> None:
    """One step of every site, averaged by records, is one step over all records: both sides' models are made alike."""
    made = world()
    sites = {name: observed(made, 80, seed, missing=0.1) for name, seed in (("a", 1), ("b", 2))}
    splits = utility_splits(sites, np.random.default_rng(0), 3)
    packets = packet_utility(made, splits, cohorts(1), np.random.default_rng(0))
    plain = federations(2, 1.0)["20 rounds"][0]
    federated = federated_utility(made, splits, plain, np.random.default_rng(0))
    assert packets.splits == pytest.approx(federated.splits, abs=1e-6)
    assert packets.log_loss == pytest.approx(federated.log_loss, abs=1e-6)


def test_every_setting_is_compared_with_single_records() -> None:
    first, other = [0.8, 0.81, 0.79, 0.8], [0.78, 0.795, 0.77, 0.78]
    found = {
        "packets": {"single records": {"utility": {"splits": first}}, "cohorts of 5": {"utility": {"splits": other}}},
        "federated": {"settings": {"one step": {"utility": {"splits": first}}, "numbers": {"utility": {"splits": []}}}},
    }
    against_first(found, "auc")
    less = found["packets"]["cohorts of 5"]["utility"]["minus_single_records"]
    assert less["mean"] == pytest.approx(-0.01875)
    assert less["margin"] == MARGIN
    assert less["low"] < less["mean"] < less["high"]
    assert "minus_single_records" not in found["federated"]["settings"]["numbers"]["utility"]


def test_averaging_is_that_of_flower() -> None:
    aggregate = pytest.importorskip("flwr.server.strategy.aggregate", reason="Flower is installed in .venv-walls only")
    clients = {"a": client(80, 1), "b": client(60, 2)}
    before = new_net(6, 2, np.random.default_rng(0), hidden=4)
    how = Federation(classes=2, rounds=1, hidden=4, training=WHOLE)
    ours = average(clients, how, np.random.default_rng(0), start=before)
    trained = [train(before, c.x, c.y, WHOLE, np.random.default_rng(0)) for c in clients.values()]
    weights = [
        ([part for layer in net.layers for part in layer], len(c.y))
        for net, c in zip(trained, clients.values(), strict=True)
    ]
    theirs = np.concatenate([part.reshape(-1) for part in aggregate.aggregate(weights)])
    assert ours.flat() == pytest.approx(theirs)
