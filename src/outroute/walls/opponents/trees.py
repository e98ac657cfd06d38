"""Flower's federated XGBoost: bagging of trees. Needs flwr and xgboost.

The strategy is Flower's `FedXgbBagging`. In each round every client goes on from the shared trees, grows one more on
its own records, and sends that one; the strategy appends the trees of all clients. As Flower's own example advises for
bagging, the learning rate is divided by the number of clients, since all of them correct the same errors.
No form for more than two classes: the strategy appends one tree a client and round, and counts it to the first class.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import MissingExtraError
from outroute.trial.estimators import Model
from outroute.walls.opponents.flower import FlowerClient, rounds_of, settings_of
from outroute.walls.opponents.sites import Sites, Stage

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
try:
    import xgboost
    from flwr.common import FitIns, Parameters
    from flwr.server.strategy import FedXgbBagging
except ImportError:
    raise MissingExtraError("walls", "A comparison with federated XGBoost") from None

__all__ = ["Bagging"]

DEPTHS = (2, 4)
"""Of a tree."""
ETAS = (0.15, 0.5)
"""Learning rates, before they are divided by the number of clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bagging:
    """Federated bagging of boosted trees, for two classes and for numbers."""

    name: str = "xgb_bagging"
    text: str = "XGBoost bagging (Flower)"
    stages: Sequence[int] = (8, 16, 32)
    personal: bool = False

    def settings(self, sites: Sites) -> Sequence[Mapping[str, Any]]:
        """Two depths, two learning rates."""
        return [{"depth": depth, "eta": eta} for depth in DEPTHS for eta in ETAS]

    def fit(self, sites: Sites, setting: Mapping[str, Any], rounds: int, seed: int) -> Iterator[Stage]:
        """Stages after those of `stages` and the last one."""
        names = sites.names
        first = np.concatenate(list(sites.y.values())).mean()
        parameters = {
            "objective": "binary:logistic" if sites.classes else "reg:squarederror",
            "base_score": float(np.clip(first, 1e-3, 1 - 1e-3)) if sites.classes else 0.0,
            "max_depth": setting["depth"],
            "eta": setting["eta"] / len(names),
            "tree_method": "hist",
            "nthread": 1,
            "seed": seed,
        }

        def work_of(site: str) -> Callable[[Any], tuple[Any, int]]:
            records = xgboost.DMatrix(sites.z[site], label=sites.y[site])

            def work(ins: FitIns) -> tuple[Any, int]:
                booster = xgboost.Booster(params=parameters, cache=[records])
                if ins.parameters.tensors:
                    booster.load_model(bytearray(ins.parameters.tensors[0]))
                    booster.set_param(parameters)
                booster.update(records, booster.num_boosted_rounds())
                count = booster.num_boosted_rounds()
                tree = booster[count - 1 : count].save_raw("json")
                return Parameters(tensor_type="", tensors=[bytes(tree)]), int(records.num_row())

            return work

        clients = [FlowerClient(site, work_of(site)) for site in names]
        strategy = FedXgbBagging(**settings_of(len(clients)))
        start = Parameters(tensor_type="", tensors=[])
        for number, after in enumerate(rounds_of(strategy, clients, start, rounds), start=1):
            if number in self.stages or number == rounds:
                sent = round(sum(client.sent for client in clients) / len(clients))
                yield Stage(rounds=number, models={}, shared=_model(sites, after.tensors[0]), bytes_up=sent)


def _model(sites: Sites, trees: bytes) -> Model:
    booster = xgboost.Booster(params={"nthread": 1})
    booster.load_model(bytearray(trees))

    def model(x: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(x):
            return np.empty((0, sites.classes) if sites.classes else (0,))
        value = booster.predict(xgboost.DMatrix(sites.scores(x).astype(np.float32))).astype(np.float64)
        if sites.classes:
            return np.stack([1 - value, value], axis=1)
        return sites.centre + sites.spread * value  # type: ignore[no-any-return]

    return model
