"""SCAFFOLD, MOON, gossip and Ditto as fluke has them. Needs fluke-fl and torch.

The algorithms are fluke's classes, configured and run as its users do; ours is only the division of the records: each
site of a table is a client. What fluke does at the end of a run (a last evaluation, progress on the screen) is left
out.

Sources: Karimireddy et al., SCAFFOLD (ICML 2020); Li, He and Song, Model-Contrastive Federated Learning (CVPR 2021);
Ormandi et al., Gossip learning with linear models (2013); Li et al., Ditto (ICML 2021).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outroute.errors import MissingExtraError
from outroute.walls.opponents import nets
from outroute.walls.opponents.flower import STAGES
from outroute.walls.opponents.sites import Sites, Stage, mean_of

_before = list(sys.path), warnings.formatwarning
try:
    from fluke import DDict, FlukeENV
    from fluke.algorithms.decentralized import GossipDFL
    from fluke.algorithms.ditto import Ditto
    from fluke.algorithms.moon import MOON
    from fluke.algorithms.scaffold import SCAFFOLD
    from fluke.comm import ChannelObserver
    from fluke.data import FastDataLoader
    from fluke.utils import FederationObserver
    from rich.console import Console
    from rich.live import Live
except ImportError:
    raise MissingExtraError("walls", "A comparison with fluke's algorithms") from None
finally:
    # fluke puts the working directory into the module path and takes over how warnings look: both are put back.
    sys.path[:], warnings.formatwarning = _before

__all__ = ["FlukeFederation", "ditto", "gossip", "moon", "scaffold"]

_FLOAT_BYTES = 4
"""A number travels as a 32-bit float; fluke counts numbers."""


class _Division:
    """The records as fluke's splitters hand them out: one loader per client, nothing held back for tests."""

    def __init__(self, sites: Sites, work: nets.Work) -> None:
        self.loaders = [
            FastDataLoader(
                data.x,
                data.y,
                num_labels=sites.outputs,
                batch_size=work.batch_size(len(data)),
                shuffle=True,
                skip_singleton=False,
            )
            for data in nets.tensors(sites).values()
        ]

    def assign(self, n_clients: int, batch_size: int) -> Any:
        """Loaders of all clients; the batch size is each client's own."""
        return (self.loaders, [None] * n_clients), None


class _Watch(FederationObserver, ChannelObserver):  # type: ignore[misc]
    """Keeps a stage after each round, and counts what clients send."""

    def __init__(self, stage: Callable[[int, int], Stage], clients: int) -> None:
        self.stage, self.clients, self.sent = stage, clients, 0
        self.stages: list[Stage] = []
        self.stopped = False

    def interrupted(self) -> None:
        """Ctrl-C: fluke ends its rounds and says no more about it."""
        self.stopped = True

    def message_sent(self, to: Any, message: Any) -> None:
        """One message; what the server sends does not count."""
        if message.sender != "server":
            self.sent += message.size * _FLOAT_BYTES

    def end_round(self, round: int) -> None:
        """Keep the models as they are now."""
        self.stages.append(self.stage(round, self.sent // self.clients))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlukeFederation(nets.Seeded):
    """One of fluke's algorithms.

    Attributes:
        name, text, stages, personal: see :class:`~outroute.walls.opponents.sites.Federation`.
        algorithm: fluke's class.
        options: what is tried for each architecture: "work" of `nets.WORK`, and what clients take.
        linear: whether the linear model is tried too; MOON and prototypes need an encoder.
    """

    name: str
    text: str
    algorithm: Any
    options: Sequence[Mapping[str, Any]]
    linear: bool = True
    stages: Sequence[int] = STAGES
    personal: bool = False

    def settings(self, sites: Sites) -> Sequence[Mapping[str, Any]]:
        """Architectures with all options."""
        some = nets.architectures(sites) if self.linear else nets.architectures(sites)[1:]
        return [{"net": arch, **options} for arch in some for options in self.options]

    def _fit(self, sites: Sites, setting: Mapping[str, Any], rounds: int) -> list[Stage]:
        # The standard evaluation and the progress bars are switched off, and nothing is written to disk.
        environment = FlukeENV()
        environment.set_eval_cfg(pre_fit=False, post_fit=False, locals=False, server=False)
        environment._rich_live_renderer = Live(console=Console(quiet=True), auto_refresh=False)
        import torch

        work = nets.work_of(sites, setting["work"])
        client = {
            "batch_size": nets.BATCH,
            "local_epochs": work.passes,
            "loss": torch.nn.CrossEntropyLoss if sites.classes else torch.nn.MSELoss,
            "optimizer": {"name": "SGD", "lr": work.lr, "weight_decay": work.decay},
            "scheduler": {"name": "StepLR", "step_size": 1, "gamma": 1.0},
            **{key: value for key, value in setting.items() if key not in ("net", "work")},
        }
        network = nets.net(sites, setting["net"])
        if self.algorithm is Ditto:
            client |= {"model": nets.net(sites, setting["net"]), "tau": work.passes}
        parameters = DDict(client=client, server={"weighted": True}, model=network)
        clients = len(sites.names)
        made = _without_end(self.algorithm)(clients, _Division(sites, work), parameters)

        def stage(number: int, sent: int) -> Stage:
            models = {}
            if self.personal:
                models = {
                    site: nets.model_of(sites, one.local_model)
                    for site, one in zip(sites.names, made.clients, strict=True)
                }
                return Stage(rounds=number, models=models, shared=mean_of(models), bytes_up=sent)
            return Stage(rounds=number, models={}, shared=nets.model_of(sites, made.server.model), bytes_up=sent)

        watch = _Watch(stage, clients)
        made.set_callbacks([watch])
        if self.algorithm is GossipDFL:
            made.channel.attach([watch])
        made.run(n_rounds=rounds, eligible_perc=1.0)
        if watch.stopped:  # a federation of fewer rounds must not pass for the whole
            raise KeyboardInterrupt
        return watch.stages


def _without_end(algorithm: Any) -> Any:
    """The same algorithm without the last evaluation, which would train gossiping clients once more."""
    return type(algorithm.__name__, (algorithm,), {"finalize": lambda self: FlukeENV().close_cache()})


def scaffold() -> FlukeFederation:
    """SCAFFOLD: control variates against client drift."""
    options = [{"work": work} for work in nets.WORK]
    return FlukeFederation(name="scaffold", text="SCAFFOLD (fluke)", algorithm=SCAFFOLD, options=options)


def moon() -> FlukeFederation:
    """MOON: a contrastive loss holds clients near the shared network; it needs an encoder."""
    options = [{"work": work, "mu": mu, "tau": 0.5} for work in nets.WORK for mu in (0.1, 1.0)]
    return FlukeFederation(name="moon", text="MOON (fluke)", algorithm=MOON, options=options, linear=False)


def gossip() -> FlukeFederation:
    """Gossip learning: no server; each round a client sends its network to one other, chosen at random."""
    options = [{"work": work, "policy": "aggregate", "activation_rate": 1.0} for work in nets.WORK]
    return FlukeFederation(name="gossip", text="gossip (fluke)", algorithm=GossipDFL, options=options, personal=True)


def ditto() -> FlukeFederation:
    """Ditto: each site trains a network of its own that is pulled towards the shared one."""
    options = [{"work": "whole", "lam": 0.1}, {"work": "batches", "lam": 1.0}]
    return FlukeFederation(name="ditto", text="Ditto (fluke)", algorithm=Ditto, options=options, personal=True)
