"""Flower's own strategies, called as its server calls them, round after round in this process. Needs flwr and torch.

Every client is a `ClientProxy`: it receives the strategy's `FitIns` (weights and settings as they travel), trains, and
answers with a `FitRes`. What a client does is what Flower's users write: a few passes over its own records; under
FedProx with the proximal term whose weight the strategy sends.

Sources: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data (AISTATS 2017); Li et
al., Federated Optimization in Heterogeneous Networks (MLSys 2020), section 3.2 (FedProx); McMahan et al., Learning
Differentially Private Recurrent Language Models (ICLR 2018), section 2.2 (noise on the mean of clipped updates).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outroute.errors import MissingExtraError
from outroute.walls.flower_log import quiet
from outroute.walls.opponents import nets
from outroute.walls.opponents.sites import Sites, Stage

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
try:
    from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.server import SimpleClientManager
    from flwr.server import strategy as strategies
    from flwr.server.client_proxy import ClientProxy
except ImportError:
    raise MissingExtraError("walls", "A comparison with Flower") from None

__all__ = [
    "FINE_TUNING",
    "STAGES",
    "FineTuned",
    "FlowerClient",
    "FlowerNet",
    "fedavg",
    "fedavg_dp",
    "fedprox",
    "rounds_of",
]

STAGES = (4, 12, 30)
"""Rounds after which a fit is looked at: on heart most settings had converged by the twelfth."""
NOISE, CLIPPING = 1.0, 1.0
"""Multiplier of the noise, the least that Flower's documentation recommends for strong privacy, and the largest norm of
a site's update."""
FINE_TUNING = (2, 8)
"""Passes over its own records that a site may make after the last round."""


class FlowerClient(ClientProxy):  # type: ignore[misc]
    """A client in this process; `work` takes FitIns and returns tensors and how many records there were."""

    def __init__(self, cid: str, work: Callable[[Any], tuple[Any, int]]) -> None:
        super().__init__(cid)
        self.work = work
        self.sent = 0

    def fit(self, ins: Any, timeout: float | None, group_id: int | None) -> Any:
        """Train on own records."""
        parameters, count = self.work(ins)
        self.sent += sum(len(tensor) for tensor in parameters.tensors)
        return FitRes(Status(code=Code.OK, message=""), parameters, count, {})

    def get_properties(self, ins: Any, timeout: float | None, group_id: int | None) -> Any:
        """Nobody asks."""
        raise NotImplementedError

    def get_parameters(self, ins: Any, timeout: float | None, group_id: int | None) -> Any:
        """Nobody asks: the server draws the first weights."""
        raise NotImplementedError

    def evaluate(self, ins: Any, timeout: float | None, group_id: int | None) -> Any:
        """Nobody asks."""
        raise NotImplementedError

    def reconnect(self, ins: Any, timeout: float | None, group_id: int | None) -> Any:
        """Nobody asks."""
        raise NotImplementedError


def rounds_of(strategy: Any, clients: Sequence[FlowerClient], parameters: Any, rounds: int) -> Iterator[Any]:
    """Parameters after each round: configure_fit, fit at every client, aggregate_fit.

    Raises:
        RuntimeError: the strategy gives no parameters.
    """
    manager = SimpleClientManager()
    for client in clients:
        manager.register(client)
    for number in range(1, rounds + 1):
        asked = strategy.configure_fit(server_round=number, parameters=parameters, client_manager=manager)
        order = sorted(asked, key=lambda pair: str(pair[0].cid))  # sums of floats do not depend on who answers first
        results = [(client, client.fit(ins, None, None)) for client, ins in order]
        parameters, _ = strategy.aggregate_fit(number, results, [])
        if parameters is None:
            raise RuntimeError("the strategy gives no parameters")
        yield parameters


def settings_of(everybody: int) -> dict[str, Any]:
    """All clients in every round, nobody evaluates."""
    return {
        "fraction_fit": 1.0,
        "fraction_evaluate": 0.0,
        "min_fit_clients": everybody,
        "min_available_clients": everybody,
        "fit_metrics_aggregation_fn": lambda _: {},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerNet(nets.Seeded):
    """Networks under one of Flower's strategies.

    Attributes:
        name, text, stages, personal: see :class:`~outroute.walls.opponents.sites.Federation`.
        options: what is tried for each architecture: "work" of `nets.WORK`, and what the strategy takes ("mu",
            "noise").
    """

    name: str
    text: str
    options: Sequence[Mapping[str, Any]]
    stages: Sequence[int] = STAGES
    personal: bool = False

    def settings(self, sites: Sites) -> Sequence[Mapping[str, Any]]:
        """Both architectures with all options."""
        return [{"net": arch, **options} for arch in nets.architectures(sites) for options in self.options]

    def _fit(self, sites: Sites, setting: Mapping[str, Any], rounds: int) -> Iterator[Stage]:
        for number, network, sent in self.networks(sites, setting, rounds):
            model = nets.model_of(sites, network)
            yield Stage(rounds=number, models={}, shared=model, bytes_up=sent)

    def networks(self, sites: Sites, setting: Mapping[str, Any], rounds: int) -> Iterator[tuple[int, Any, int]]:
        """Round, the network after it (the same object each time), and bytes that a client has sent."""
        network, data = nets.net(sites, setting["net"]), nets.tensors(sites)
        loss, how = nets.loss_of(sites.classes), nets.work_of(sites, setting["work"])

        def work_of(site: str) -> Callable[[Any], tuple[Any, int]]:
            def work(ins: FitIns) -> tuple[Any, int]:
                nets.load(network, parameters_to_ndarrays(ins.parameters))
                pull = float(ins.config.get("proximal_mu", 0.0))
                nets.train(network, data[site], loss, how, pull=pull)
                return ndarrays_to_parameters(nets.arrays(network)), len(data[site])

            return work

        clients = [FlowerClient(site, work_of(site)) for site in sites.names]
        if "mu" in setting:
            strategy = strategies.FedProx(proximal_mu=setting["mu"], **settings_of(len(clients)))
        else:
            strategy = strategies.FedAvg(**settings_of(len(clients)))
        if "noise" in setting:
            strategy = strategies.DifferentialPrivacyServerSideFixedClipping(
                strategy,
                noise_multiplier=setting["noise"],
                clipping_norm=CLIPPING,
                num_sampled_clients=len(clients),
            )
        start = ndarrays_to_parameters(nets.arrays(network))
        with quiet():  # told in every round: how much noise was added
            for number, parameters in enumerate(rounds_of(strategy, clients, start, rounds), start=1):
                nets.load(network, parameters_to_ndarrays(parameters))
                yield number, network, round(sum(client.sent for client in clients) / len(clients))


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuned:
    """Federated averaging, and then every site trains the shared network on its own records."""

    name: str = "fedavg_tuned"
    text: str = "FedAvg (Flower), fine-tuned at each site"
    stages: Sequence[int] = STAGES
    personal: bool = True

    def settings(self, sites: Sites) -> Sequence[Mapping[str, Any]]:
        """Both architectures, two lengths of fine-tuning."""
        return [{"net": arch, "passes": passes} for arch in nets.architectures(sites) for passes in FINE_TUNING]

    def fit(self, sites: Sites, setting: Mapping[str, Any], rounds: int, seed: int) -> Iterator[Stage]:
        """A stage after those of `stages` and the last one."""
        import copy

        shared = ("fine-tuning", setting["net"], rounds, seed)
        if shared not in sites.memo:
            with nets.seeded(seed):
                sites.memo[shared] = [
                    (number, copy.deepcopy(network), sent)
                    for number, network, sent in fedavg().networks(
                        sites, {"net": setting["net"], "work": "whole"}, rounds
                    )
                    if number in self.stages or number == rounds
                ]
        data, loss = nets.tensors(sites), nets.loss_of(sites.classes)
        for number, network, sent in sites.memo[shared]:
            models = {}
            with nets.seeded(seed + number):
                for site in sites.names:
                    own = copy.deepcopy(network)
                    nets.train(own, data[site], loss, nets.work_of(sites, "batches"), passes=setting["passes"])
                    models[site] = nets.model_of(sites, own)
            yield Stage(rounds=number, models=models, shared=nets.model_of(sites, network), bytes_up=sent)


def fedavg() -> FlowerNet:
    """Flower's FedAvg."""
    return FlowerNet(name="fedavg", text="FedAvg (Flower)", options=[{"work": work} for work in nets.WORK])


def fedavg_dp() -> FlowerNet:
    """Flower's FedAvg with its differential privacy on the server: whole sites are protected, not records."""
    options = [{"work": work, "noise": NOISE} for work in nets.WORK]
    return FlowerNet(name="fedavg_dp", text="FedAvg (Flower), differential privacy of whole sites", options=options)


def fedprox() -> FlowerNet:
    """Flower's FedProx; the more work in a round, the stronger the proximal term that is tried."""
    options = [{"work": "whole", "mu": 0.1}, {"work": "batches", "mu": 1.0}]
    return FlowerNet(name="fedprox", text="FedProx (Flower)", options=options)
