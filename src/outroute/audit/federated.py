"""Settings of a federation that are attacked, and naming who trained in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outroute.audit.accounting import noise_for
from outroute.audit.naming import Named
from outroute.audit.nets import HIDDEN, Net, Training
from outroute.audit.updates import ROUNDS, WHOLE, Client, Federation, average

if TYPE_CHECKING:
    from outroute.audit.clients import Clients

__all__ = ["CLIP", "EPOCHS", "federations", "name_by_updates"]

EPOCHS = 5
"""Epochs of a realistic client in each round."""
CLIP = 1.0
"""Longest gradient of a record where clipping is on."""


def federations(classes: int, epsilon: float) -> dict[str, tuple[Federation, bool]]:
    """Settings of a federation that are attacked: how it is run, and whether only the sum of updates is seen.

    Args:
        classes: of the outcome.
        epsilon: of the setting with clipping and noise, for one subject over all rounds.
    """
    local = Training(epochs=EPOCHS)
    noisy = replace(WHOLE, clip=CLIP, noise=noise_for(epsilon, ROUNDS))
    return {
        "one step": (Federation(classes=classes, rounds=1, training=WHOLE), False),
        f"{ROUNDS} rounds": (Federation(classes=classes, training=WHOLE), False),
        f"{ROUNDS} rounds, secure aggregation": (Federation(classes=classes, training=WHOLE), True),
        f"{ROUNDS} rounds of {EPOCHS} epochs": (Federation(classes=classes, training=local), False),
        f"{ROUNDS} rounds of {EPOCHS} epochs, secure aggregation": (Federation(classes=classes, training=local), True),
        f"{ROUNDS} rounds of {EPOCHS} epochs, hidden layer": (
            Federation(classes=classes, hidden=HIDDEN, training=local),
            False,
        ),
        f"{ROUNDS} rounds, clipping and noise, epsilon {epsilon:g}": (
            Federation(classes=classes, training=noisy),
            False,
        ),
    }


def name_by_updates(clients: Clients, how: Federation, rng: np.random.Generator, *, aggregated: bool = False) -> Named:
    """An attacker with the list of all candidates solves for who trained: least squares over all rounds.

    A step over all records is the sum of their gradients, which the server can work out for every candidate: as many
    equations as weights, in every round. Several local steps make that approximate. As many are named as trained, which
    servers are told. Half of each site's subjects are in, so chance is one half.
    """
    inside = {n: rng.permutation(len(c.y)) < len(c.y) // 2 for n, c in clients.sites.items()}
    names = list(clients.sites)
    everybody = Client(
        x=np.vstack([clients.sites[n].x for n in names]),
        y=np.concatenate([clients.sites[n].y for n in names]),
        subject=np.zeros(0, dtype=np.int64),
    )
    gram: dict[str, NDArray[np.float64]] = {}
    sides: dict[str, NDArray[np.float64]] = {}

    def seen(net: Net, updates: Mapping[str, Net], sizes: Mapping[str, int]) -> None:
        total = sum(sizes.values())
        together = sum((u.times(sizes[n] / total) for n, u in updates.items()), net.times(0.0))
        parts = {"": (everybody, together)} if aggregated else {n: (clients.sites[n], u) for n, u in updates.items()}
        for name, (client, update) in parts.items():
            inputs, slopes = net.errors(client.x, client.y)
            # Inner products of gradients of linear layers are products of inner products.
            if name not in gram:
                gram[name], sides[name] = np.zeros((len(client.y), len(client.y))), np.zeros(len(client.y))
            for a, s in zip(inputs, slopes, strict=True):
                gram[name] += (a @ a.T + 1.0) * (s @ s.T)
            sides[name] -= net.along(client.x, client.y, update)

    average({n: c.take(inside[n]) for n, c in clients.sites.items()}, how, rng, seen=seen)
    right = wrong = members = number = 0
    for name, matrix in gram.items():
        truth = np.concatenate([inside[n] for n in names]) if aggregated else inside[name]
        ridge = 1e-9 * np.trace(matrix) / len(matrix)
        share = np.linalg.solve(matrix + ridge * np.eye(len(matrix)), sides[name])
        top = np.argsort(-share, kind="stable")[: int(truth.sum())]
        right, wrong = right + int(truth[top].sum()), wrong + int((~truth[top]).sum())
        members, number = members + int(truth.sum()), number + len(truth)
    return Named(
        named=right / max(members, 1),
        precision=right / max(right + wrong, 1),
        solved=1.0,
        candidates=number / max(len(gram), 1),
        chance=members / max(number, 1),
        members=members,
    )
