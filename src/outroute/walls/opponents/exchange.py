"""Opponents that share no weights either: FedProto (prototypes) and FedMD (outputs). Written from their papers.

fluke 0.8.1 has FedProto, but its module imports torchvision, which this comparison does without; FedMD it has not.

Sources: Tan et al., FedProto: Federated Prototype Learning across Heterogeneous Clients (AAAI 2022), equations 4 to 7:
clients send the mean code of each class, the server averages them by number of records, and clients are pulled towards
the shared prototypes. Departure: probabilities are those of the client's own head, since distances to prototypes
are none. FedProto has no form for numbers: a prototype belongs to a class.
Li and Wang, FedMD: Heterogenous Federated Learning via Model Distillation (2019), algorithm 1: communicate class scores
on a public data set, average them, digest (fit the average), revisit (train on own records). Departure: tables have
no public data set; its conditions are drawn from the means and deviations that the sites add up, without labels, so the
paper's training on public labels falls away. For numbers, what is averaged is the prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from outroute.walls.opponents import nets
from outroute.walls.opponents.flower import STAGES
from outroute.walls.opponents.sites import Sites, Stage, mean_of

__all__ = ["PUBLIC", "FedMD", "FedProto"]

PUBLIC = 256
"""Conditions that FedMD's clients compare their outputs on in a round."""
_FLOAT_BYTES = 4


def _stage(sites: Sites, number: int, networks: Mapping[str, Any], sent: int) -> Stage:
    models = {site: nets.model_of(sites, network) for site, network in networks.items()}
    return Stage(rounds=number, models=models, shared=mean_of(models), bytes_up=sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedProto(nets.Seeded):
    """Each site's own network, pulled towards prototypes that all share."""

    name: str = "fedproto"
    text: str = "FedProto (from its paper)"
    stages: Sequence[int] = STAGES
    personal: bool = True

    def settings(self, sites: Sites) -> Sequence[Mapping[str, Any]]:
        """Little and much work in a round, two weights of the pull; an encoder is needed."""
        arch = nets.architectures(sites)[1]
        return [{"net": arch, "work": work, "lam": lam} for work in nets.WORK for lam in (0.1, 1.0)]

    def _fit(self, sites: Sites, setting: Mapping[str, Any], rounds: int) -> Iterator[Stage]:
        data, loss, work = nets.tensors(sites), nets.loss_of(sites.classes), nets.work_of(sites, setting["work"])
        first = nets.net(sites, setting["net"])
        networks = {site: nets.net(sites, setting["net"]) for site in sites.names}
        for network in networks.values():
            network.load_state_dict(first.state_dict())
        shared: Any = None
        known = torch.zeros(sites.classes, dtype=torch.bool)
        sent = 0
        for number in range(1, rounds + 1):
            sums, counts = [], []
            for site, network in networks.items():
                target, there = shared, known.clone()

                def pull(code: Any, y: Any, target: Any = target, there: Any = there) -> Any:
                    if target is None:
                        return code.sum() * 0.0
                    away = ((code - target[y]) ** 2).mean(dim=1)
                    return setting["lam"] * (away * there[y]).mean()

                nets.train(network, data[site], loss, work, extra=pull)
                with torch.no_grad():
                    codes = network.encoder(data[site].x)
                hot = torch.nn.functional.one_hot(data[site].y, sites.classes).float()
                sums.append(hot.T @ codes)
                counts.append(hot.sum(dim=0))
            total, count = torch.stack(sums).sum(dim=0), torch.stack(counts).sum(dim=0)
            shared, known = total / count.clamp(min=1.0)[:, None], count > 0
            sent += _FLOAT_BYTES * (shared.numel() + sites.classes)
            yield _stage(sites, number, networks, sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedMD(nets.Seeded):
    """Each site's own network; what travels is what it says about public conditions."""

    name: str = "fedmd"
    text: str = "FedMD (from its paper)"
    stages: Sequence[int] = STAGES
    personal: bool = True

    def settings(self, sites: Sites) -> Sequence[Mapping[str, Any]]:
        """Both architectures, little and much work in a round."""
        return [{"net": arch, "work": work} for arch in nets.architectures(sites) for work in nets.WORK]

    def _fit(self, sites: Sites, setting: Mapping[str, Any], rounds: int) -> Iterator[Stage]:
        data, loss, work = nets.tensors(sites), nets.loss_of(sites.classes), nets.work_of(sites, setting["work"])
        networks = {site: nets.net(sites, setting["net"]) for site in sites.names}
        features = next(iter(sites.z.values())).shape[1]
        for site, network in networks.items():
            nets.train(network, data[site], loss, work)
        sent = 0
        for number in range(1, rounds + 1):
            public = torch.randn(PUBLIC, features)
            with torch.no_grad():
                agreed = torch.stack([network(public) for network in networks.values()]).mean(dim=0)
            digest = nets.Tensors(x=public, y=agreed)
            for site, network in networks.items():
                nets.train(network, digest, torch.nn.functional.mse_loss, work, passes=1)
                nets.train(network, data[site], loss, work)
            sent += _FLOAT_BYTES * agreed.numel()
            yield _stage(sites, number, networks, sent)
