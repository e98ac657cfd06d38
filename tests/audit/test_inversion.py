"""Records from gradients: exact for one record; by search where torch is installed (scripts/test runs it there)."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from outroute.audit.clients import clients_of
from outroute.audit.closed_form import label_of, record_of
from outroute.audit.convolution import convolutional, trained
from outroute.audit.federated import federations, name_by_updates
from outroute.audit.inversion import Attack, Seen, available, invert
from outroute.audit.nets import Net, Training, new_net, train
from outroute.audit.scores import FieldScale
from outroute.audit.searching import Plan, inversions
from outroute.errors import MissingExtraError

from .making import observed, world

SCHEMA = world()
STEP = Training(batch=0, rate=0.1)
SITES = {name: observed(SCHEMA, 40, seed) for name, seed in (("a", 1), ("b", 2), ("c", 3))}


def update(n: int, seed: int, how: Training = STEP) -> tuple[Net, Net, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 12)), rng.integers(0, 4, n)
    net = new_net(12, 4, rng, hidden=16)
    return net, train(net, x, y, how, rng) - net, x, y


@pytest.mark.parametrize("hidden", [0, 16])
def test_one_record_is_read_off_its_gradient(hidden: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1, 12)), np.array([2])
    net = new_net(12, 4, rng, hidden=hidden)
    gradient = (train(net, x, y, STEP, rng) - net).times(-1 / STEP.rate)
    assert record_of(gradient) == pytest.approx(x[0])
    assert label_of(gradient) == 2


def test_noise_spoils_the_closed_form_and_the_table_says_so() -> None:
    clients = clients_of(SCHEMA, SITES)
    scale = FieldScale.of(SCHEMA, np.vstack(list(clients.x.values())))
    plan = Plan(targets=2, batches=1, iterations=20, restarts=1, realistic=0)
    rows = inversions(clients, scale, np.random.default_rng(0), epsilon=1.0, plan=plan)
    closed = {row.setting: row for row in rows if row.attack == "closed form"}
    assert closed["one record, one step"].error < 1e-6
    assert closed["one record, one step, clipping and noise, epsilon 1"].advantage < 3
    assert any(row.attack == "Geiping" for row in rows) == available()


def test_clients_go_back_to_conditions() -> None:
    clients = clients_of(SCHEMA, SITES)
    for name, client in clients.sites.items():
        known = ~np.isnan(clients.x[name])
        assert clients.back(client.x)[known] == pytest.approx(clients.x[name][known])
        assert (client.x >= clients.low - 1e-9).all()
        assert (client.x <= clients.high + 1e-9).all()


def test_candidates_are_named_from_sums_of_gradients_and_not_through_noise() -> None:
    clients = clients_of(SCHEMA, SITES)
    settings = federations(clients.classes, 1.0)
    plain = name_by_updates(clients, settings["20 rounds"][0], np.random.default_rng(0))
    noisy = next(how for name, (how, _) in settings.items() if "noise" in name)
    hidden = name_by_updates(clients, noisy, np.random.default_rng(0))
    assert plain.named > 0.75
    assert abs(hidden.named - hidden.chance) < 0.2


def test_without_torch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    net, moved, x, y = update(1, 1)
    seen = Seen(net=net, update=moved, training=STEP, labels=y, low=np.full(12, -4.0), high=np.full(12, 4.0))
    assert not available()
    with pytest.raises(MissingExtraError, match=r"outroute\[audit\]"):
        invert(seen, Attack.DLG, 0)
    assert len(x) == 1


@pytest.mark.parametrize("attack", list(Attack))
def test_one_record_is_found_by_search(attack: Attack) -> None:
    pytest.importorskip("torch")
    net, moved, x, y = update(1, 1)
    seen = Seen(net=net, update=moved, training=STEP, labels=y, low=np.full(12, -4.0), high=np.full(12, 4.0))
    found = invert(seen, attack, 0)
    assert np.abs(found - x).max() < 0.05


def test_several_records_are_found_by_geiping_and_noise_is_not() -> None:
    pytest.importorskip("torch")
    net, moved, x, y = update(3, 3)
    seen = Seen(net=net, update=moved, training=STEP, labels=y, low=np.full(12, -4.0), high=np.full(12, 4.0))
    found = invert(seen, Attack.GEIPING, 0)
    nearest = ((found[:, None, :] - x[None]) ** 2).mean(axis=2).min(axis=0)
    assert nearest.mean() < 0.5
    rng = np.random.default_rng(0)
    blind = moved.like(rng.normal(size=moved.flat().size))
    nothing = invert(
        Seen(net=net, update=blind, training=STEP, labels=y, low=seen.low, high=seen.high), Attack.GEIPING, 0
    )
    assert ((nothing[:, None, :] - x[None]) ** 2).mean(axis=2).min(axis=0).mean() > 0.5


def test_a_whole_local_training_is_searched_through() -> None:
    pytest.importorskip("torch")
    how = Training(epochs=3, batch=0, rate=0.1)
    net, moved, x, y = update(1, 5, how)
    seen = Seen(net=net, update=moved, training=how, labels=y, low=np.full(12, -4.0), high=np.full(12, 4.0))
    assert np.abs(invert(seen, Attack.GEIPING, 0) - x).max() < 0.1


def test_an_image_is_found_in_the_update_of_a_convolutional_network() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:8, :8]
    x = np.exp(-((down - 3) ** 2 + (across - 5) ** 2) / 6).reshape(1, 64) * 4 - 1
    y = np.array([2])
    net = convolutional(8, 3, rng)
    assert [weights.shape for weights, _ in net.layers] == [(8, 1, 3, 3), (16, 8, 3, 3), (64, 3)]

    def loss(of: Net) -> float:
        """By torch's own layers."""
        (a, b), (c, d), (e, f) = ((torch.tensor(w), torch.tensor(bias)) for w, bias in of.layers)
        value = torch.tensor(x).reshape(1, 1, 8, 8)
        for weights, bias in ((a, b), (c, d)):
            value = torch.nn.functional.avg_pool2d(torch.tanh(torch.conv2d(value, weights, bias, padding=1)), 2)
        return float(torch.nn.functional.cross_entropy(value.reshape(1, -1) @ e + f, torch.tensor(y)))

    moved = trained(net, x, y, STEP)
    flat, slope = net.flat(), moved.flat() / -STEP.rate
    for at in (0, 60, 80, 300, 1250, 1300, len(flat) - 1):  # weights and biases of every layer
        step = np.zeros(len(flat))
        step[at] = 1e-5
        numeric = (loss(net.like(flat + step)) - loss(net.like(flat - step))) / 2e-5
        assert slope[at] == pytest.approx(numeric, abs=1e-7), at
    seen = Seen(net=net, update=moved, training=STEP, labels=y, low=np.full(64, -2.0), high=np.full(64, 4.0), side=8)
    for attack, iterations in ((Attack.IDLG, None), (Attack.GEIPING, 400)):
        found = invert(seen, attack, 0, iterations=iterations, restarts=1)
        assert ((found - x) ** 2).mean() < 0.1 * ((x.mean() - x) ** 2).mean(), attack
