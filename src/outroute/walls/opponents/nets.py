"""Networks of the federated opponents, and how a client trains them. Needs torch.

Every network is an encoder with a head, as MOON, FedProto and fluke want it: a linear model (nothing before the head),
one hidden layer, or for pictures a small convolutional network.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import MissingExtraError
from outroute.trial.estimators import Model
from outroute.walls.opponents.sites import Sites, Stage

try:
    import torch
except ImportError:
    raise MissingExtraError("walls", "Federated learning of networks") from None

__all__ = [
    "BATCH",
    "HIDDEN",
    "STEPS",
    "WORK",
    "Net",
    "Seeded",
    "Tensors",
    "Work",
    "architectures",
    "arrays",
    "batch_size",
    "load",
    "model_of",
    "net",
    "seeded",
    "tensors",
    "train",
    "work_of",
]

HIDDEN = 32
"""Units of the hidden layer; the last layer of a convolutional encoder has four times as many outputs."""
BATCH = 32
"""Records in a batch, more where a client has more than `STEPS` batches of them."""
STEPS = 16
"""Batches of a pass at most: more records make batches larger, so that a round takes bounded time."""


class Net(torch.nn.Module):  # type: ignore[misc]
    """An encoder and a head."""

    def __init__(self, encoder: Any, head: Any) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, x: Any) -> Any:
        """float32[n, features] -> float32[n, outputs]."""
        return self.head(self.encoder(x))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a client does in a round.

    Attributes:
        lr: learning rate.
        passes: over its own records.
        whole: all records make one batch; else batches of `BATCH` (see `batch_size`).
        decay: L2 penalty of all weights; the number of rounds, which is tuned, regularises beside it.
    """

    lr: float
    passes: int
    whole: bool
    decay: float

    def batch_size(self, rows: int) -> int:
        """Records in a batch of a client with so many."""
        return rows if self.whole else batch_size(rows)


WORK = {
    "whole": Work(lr=0.3, passes=3, whole=True, decay=0.03),
    "batches": Work(lr=0.1, passes=2, whole=False, decay=0.003),
}
"""Little work in a round, which keeps clients together, with a penalty that suits few records; or much, which learns in
fewer rounds, with one that suits many. Either is tried. With a penalty of 0.003 in both, FedAvg did worse on opt."""


def work_of(sites: Sites, name: str) -> Work:
    """Work of `WORK` at a learning rate that these records can stand.

    A step must not be longer than one over the curvature of a linear model, or training diverges. For classes that is
    half the largest eigenvalue of the standard scores of all sites together: their loss flattens where a step was too
    long. Squared errors do not, so for numbers it is twice the largest eigenvalue of any site.
    """
    if "curvature" not in sites.memo:
        grams = []
        for z in [np.concatenate(list(sites.z.values()))] if sites.classes else sites.z.values():
            wide = np.concatenate([np.ones((len(z), 1)), z], axis=1).astype(np.float64)
            grams.append(float(np.linalg.eigvalsh(wide.T @ wide / len(wide))[-1]))
        sites.memo["curvature"] = (0.5 if sites.classes else 2.0) * max(grams)
    work = WORK[name]
    return replace(work, lr=min(work.lr, 1 / sites.memo["curvature"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """One client's records."""

    x: Any
    y: Any

    def __len__(self) -> int:
        return len(self.x)


def architectures(sites: Sites) -> tuple[str, str]:
    """The two that are tried: linear, and one hidden layer (a convolutional network for pictures)."""
    return ("linear", "cnn" if sites.image else "mlp")


def net(sites: Sites, architecture: str, hidden: int = HIDDEN) -> Net:
    """A network with random weights from torch's generator."""
    features, outputs = next(iter(sites.z.values())).shape[1], sites.outputs
    if architecture == "linear":
        made = Net(torch.nn.Identity(), torch.nn.Linear(features, outputs))
        torch.nn.init.zeros_(made.head.weight)
        torch.nn.init.zeros_(made.head.bias)
        return made
    if architecture == "mlp":
        return Net(
            torch.nn.Sequential(torch.nn.Linear(features, hidden), torch.nn.ReLU()), torch.nn.Linear(hidden, outputs)
        )
    if sites.image is None:
        raise ValueError("a convolutional network needs pictures")
    down, across = sites.image
    encoder = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, down, across)),
        torch.nn.Conv2d(1, hidden // 2, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(hidden // 2, hidden, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
    )
    return Net(encoder, torch.nn.Linear(hidden * (down // 4) * (across // 4), outputs))


def tensors(sites: Sites) -> dict[str, Tensors]:
    """Records of all sites; classes as int64[n], numbers as float32[n, 1]."""
    out = {}
    for site, z in sites.z.items():
        y = sites.y[site]
        target = torch.tensor(y.astype(np.int64)) if sites.classes else torch.tensor(y.astype(np.float32))[:, None]
        out[site] = Tensors(x=torch.tensor(z), y=target)
    return out


def batch_size(rows: int) -> int:
    """Records in a batch of a client."""
    return max(BATCH, -(-rows // STEPS))


def loss_of(classes: int) -> Callable[[Any, Any], Any]:
    """Cross-entropy, or the mean squared error of numbers."""
    functional = torch.nn.functional
    return functional.cross_entropy if classes else functional.mse_loss  # type: ignore[no-any-return]


def train(
    network: Any,
    data: Tensors,
    loss: Callable[[Any, Any], Any],
    work: Work,
    *,
    passes: int | None = None,
    pull: float = 0.0,
    extra: Callable[[Any, Any], Any] | None = None,
    frozen: Sequence[int] = (),
) -> None:
    """Plain stochastic gradient descent in place.

    Args:
        network: what is trained.
        data: of one client; each epoch sees all of it in a new order.
        loss: of outputs and targets.
        work: learning rate, passes and batches.
        passes: in place of those of `work`.
        pull: weight mu of the proximal term mu/2 |w - w_0|^2, with w_0 the weights at the start.
        extra: a further loss of (encoded records, targets).
        frozen: positions of parameters that stay.
    """
    parameters = [p for i, p in enumerate(network.parameters()) if i not in frozen]
    start = [p.detach().clone() for p in parameters] if pull else []
    size, lr = work.batch_size(len(data)), work.lr
    for _ in range(work.passes if passes is None else passes):
        order = torch.randperm(len(data))
        for rows in order.split(size):
            x, y = data.x[rows], data.y[rows]
            code = network.encoder(x)
            value = loss(network.head(code), y)
            if extra is not None:
                value = value + extra(code, y)
            slopes = torch.autograd.grad(value, parameters, allow_unused=True)
            with torch.no_grad():
                for i, (weights, slope) in enumerate(zip(parameters, slopes, strict=True)):
                    if slope is None:
                        continue
                    weights.mul_(1 - lr * work.decay)
                    if pull:
                        weights.sub_(weights - start[i], alpha=lr * pull)
                    weights.sub_(slope, alpha=lr)


def arrays(network: Any) -> list[NDArray[np.float32]]:
    """Parameters as arrays."""
    return [p.detach().numpy().copy() for p in network.parameters()]


def load(network: Any, values: Sequence[NDArray[np.float32]]) -> None:
    """Put arrays into the parameters."""
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def model_of(sites: Sites, network: Any) -> Model:
    """What a network says about conditions, with its weights as they are now."""
    import copy

    kept = copy.deepcopy(network).eval()

    def scores(z: NDArray[np.float32]) -> NDArray[np.float64]:
        with torch.no_grad():
            return kept(torch.from_numpy(z)).numpy().astype(np.float64)  # type: ignore[no-any-return]

    return sites.model(scores)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Everything random follows from the seed, one thread; generators and threads are put back afterwards.

    Flower and fluke draw from the global generators of Python, numpy and torch.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state(), torch.get_num_threads()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_num_threads(states[3])


class Seeded:
    """A federation whose `_fit` draws from the global generators: it is run through while they follow from the seed."""

    __slots__ = ()

    def fit(self, sites: Sites, setting: Mapping[str, Any], rounds: int, seed: int) -> Iterator[Stage]:
        """One stage after each round."""
        with seeded(seed):
            stages = list(self._fit(sites, setting, rounds))
        yield from stages

    def _fit(self, sites: Sites, setting: Mapping[str, Any], rounds: int) -> Iterable[Stage]:
        raise NotImplementedError
