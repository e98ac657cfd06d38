"""FedMA: hidden units are matched before they are averaged.

Two networks with their hidden units in another order are the same function, and their plain mean is another one. FedMA
looks for the order in which the units of all clients agree best, and averages in that order.

Source: Wang, Yurochkin, Sun, Papailiopoulos and Khazaeni, Federated Learning with Matched Averaging (ICLR 2020),
sections 2.1 (permutation invariance), 2.2 (matching one client at a time, the others held, by the Hungarian algorithm)
and algorithm 1 (a layer is matched and frozen, clients go on with the next one; the last layer is averaged by the
clients' class proportions); with communication, section 2.3. Departures: the number of global units is that of a
client's (the paper lets it grow under a prior); the cost of a match is the squared distance (equation 2 with a
Gaussian), of incoming weights and bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PASSES", "Layers", "average", "matched", "matched_average", "reorder"]

Floats = NDArray[np.float64]

PASSES = 10
"""Times that all clients are matched again at most; matching ends when no order changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """A network with one hidden layer.

    Attributes:
        w1: float64[features, hidden].
        b1: float64[hidden].
        w2: float64[hidden, outputs].
        b2: float64[outputs].
    """

    w1: Floats
    b1: Floats
    w2: Floats
    b2: Floats

    def __call__(self, x: Floats) -> Floats:
        """Outputs for float64[n, features], with rectified linear units."""
        out: Floats = np.maximum(x @ self.w1 + self.b1, 0.0) @ self.w2 + self.b2
        return out


def reorder(layers: Layers, order: NDArray[np.int64]) -> Layers:
    """The same function with its hidden units in another order."""
    return Layers(w1=layers.w1[:, order], b1=layers.b1[order], w2=layers.w2[order], b2=layers.b2)


def average(clients: Sequence[Layers], weights: Floats) -> Layers:
    """Plain mean, unit by unit in the order in which they stand."""
    share = weights / weights.sum()

    def mean(name: str) -> Floats:
        out: Floats = np.tensordot(share, np.stack([getattr(client, name) for client in clients]), axes=1)
        return out

    return Layers(w1=mean("w1"), b1=mean("b1"), w2=mean("w2"), b2=mean("b2"))


def matched(clients: Sequence[Layers], weights: Floats) -> list[NDArray[np.int64]]:
    """For each client, the order of its hidden units that fits the mean of the others best.

    Args:
        clients: networks of the same shape.
        weights: float64[clients], for example numbers of records.
    """
    from scipy.optimize import linear_sum_assignment

    units = [np.concatenate([client.w1.T, client.b1[:, None]], axis=1) for client in clients]
    first = int(np.argmax(weights))
    orders = [np.arange(len(unit)) for unit in units]
    total, weight = weights[first] * units[first], float(weights[first])
    inside = {first}
    for _ in range(PASSES):
        changed = False
        for i in [*range(first), *range(first + 1, len(clients))]:
            if i in inside:  # the others are held while this one is matched again
                total, weight = total - weights[i] * units[i][orders[i]], weight - float(weights[i])
            centre = total / weight
            cost = ((centre[:, None, :] - units[i][None, :, :]) ** 2).sum(axis=2)
            order = linear_sum_assignment(cost)[1].astype(np.int64)
            changed |= i not in inside or not np.array_equal(order, orders[i])
            inside.add(i)
            orders[i] = order
            total, weight = total + weights[i] * units[i][order], weight + float(weights[i])
        if not changed:
            break
    return orders


def matched_average(clients: Sequence[Layers], weights: Floats) -> Layers:
    """The mean of networks whose hidden units were put into the order in which they agree."""
    orders = matched(clients, weights)
    return average([reorder(client, order) for client, order in zip(clients, orders, strict=True)], weights)
