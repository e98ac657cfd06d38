"""FedMA as an opponent: one hidden layer, trained with torch, matched by `outroute.walls.opponents.matching`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.walls.opponents import nets
from outroute.walls.opponents.matching import Layers, average, matched, reorder
from outroute.walls.opponents.sites import Sites, Stage

__all__ = ["FedMA"]

_HIDDEN_LAYER = (0, 1)
"""Positions of the hidden layer's weights and bias among a network's parameters."""
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FedMA(nets.Seeded):
    """Matched averaging with communication: several rounds, the matched network is where the next one starts.

    In the first round every client starts from weights of its own. In each round clients train all layers, the hidden
    units are matched and averaged, clients train the last layer with the hidden one held, and the last layer is
    averaged by the clients' class proportions (by numbers of records where the outcome is a number).
    """

    name: str = "fedma"
    text: str = "FedMA (from its paper)"
    stages: Sequence[int] = (3, 8, 20)
    personal: bool = False

    def settings(self, sites: Sites) -> Sequence[Mapping[str, Any]]:
        """Little and much work in a round, two widths."""
        return [{"work": work, "hidden": hidden} for work in nets.WORK for hidden in (nets.HIDDEN // 2, nets.HIDDEN)]

    def _fit(self, sites: Sites, setting: Mapping[str, Any], rounds: int) -> Iterator[Stage]:
        data, loss, work = nets.tensors(sites), nets.loss_of(sites.classes), nets.work_of(sites, setting["work"])
        clients = {site: nets.net(sites, "mlp", setting["hidden"]) for site in sites.names}
        size = np.array([len(data[site]) for site in sites.names], dtype=np.float64)
        shared = copy.deepcopy(clients[sites.names[0]])
        sent = 0
        for number in range(1, rounds + 1):
            for site, network in clients.items():
                nets.train(network, data[site], loss, work)
            layers = [_layers(network) for network in clients.values()]
            orders = matched(layers, size)
            layers = [reorder(one, order) for one, order in zip(layers, orders, strict=True)]
            hidden = average(layers, size)
            for network, one in zip(clients.values(), layers, strict=True):
                _put(network, Layers(w1=hidden.w1, b1=hidden.b1, w2=one.w2, b2=one.b2))
            for site, network in clients.items():
                nets.train(network, data[site], loss, work, passes=1, frozen=_HIDDEN_LAYER)
            _put(shared, _last(sites, hidden, [_layers(network) for network in clients.values()]))
            for network in clients.values():
                network.load_state_dict(shared.state_dict())
            width = layers[0]
            sent += _FLOAT_BYTES * (width.w1.size + width.b1.size + 2 * (width.w2.size + width.b2.size))
            yield Stage(rounds=number, models={}, shared=nets.model_of(sites, shared), bytes_up=sent)


def _last(sites: Sites, hidden: Layers, clients: Sequence[Layers]) -> Layers:
    """The last layer, averaged per class by how many records of it each client has."""
    if sites.classes:
        counts = np.stack([np.bincount(y.astype(np.int64), minlength=sites.classes) for y in sites.y.values()]).astype(
            np.float64
        )
        counts[:, counts.sum(axis=0) == 0] = 1.0  # a class that nobody has
    else:
        counts = np.array([[float(len(y))] for y in sites.y.values()])
    share: NDArray[np.float64] = counts / counts.sum(axis=0)
    w2 = np.einsum("ko,kho->ho", share, np.stack([one.w2 for one in clients]))
    b2 = np.einsum("ko,ko->o", share, np.stack([one.b2 for one in clients]))
    return Layers(w1=hidden.w1, b1=hidden.b1, w2=w2, b2=b2)


def _layers(network: Any) -> Layers:
    w1, b1, w2, b2 = (value.astype(np.float64) for value in nets.arrays(network))
    return Layers(w1=w1.T, b1=b1, w2=w2.T, b2=b2)


def _put(network: Any, layers: Layers) -> None:
    nets.load(network, [value.astype(np.float32) for value in (layers.w1.T, layers.b1, layers.w2.T, layers.b2)])
