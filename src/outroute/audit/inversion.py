"""Records from gradients and updates by search: DLG, iDLG, and Geiping et al.

All three look for records whose gradient (or whose whole local training) would be what was seen. Needs torch.

Sources: Zhu, Liu, Han, "Deep Leakage from Gradients" (NeurIPS 2019), algorithm 1; Zhao, Mopuri, Bilen, "iDLG: Improved
Deep Leakage from Gradients" (2020); Geiping, Bauermeister, Droege, Moeller, "Inverting Gradients - How easy is it to
break privacy in federated learning?" (NeurIPS 2020), sections 4 and 6 (several local steps). Departures: double
precision; labels are given to Geiping's attack, as in the paper; values are bounded to what the schema allows; and, for
tables, the prior is a small pull to the mean in place of total variation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.nets import Net, Training
from outroute.errors import MissingExtraError

__all__ = ["Attack", "Seen", "available", "invert", "update_of"]


class Attack(Enum):
    """How records are searched for."""

    DLG = "DLG"
    IDLG = "iDLG"
    GEIPING = "Geiping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the attacker knows.

    Attributes:
        net: weights before the round.
        update: what was seen: weights after minus weights before.
        training: how the client trains; every record is in every epoch, in an unknown order.
        labels: int64[n], classes of the records (for DLG only their number is used).
        side: points of an edge where records are square images; 0 for tables.
        low, high: float64[D], what a value can be.
        sparse: only the largest entries of the update were sent: the others say nothing.
    """

    net: Net
    update: Net
    training: Training
    labels: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    side: int = 0
    sparse: bool = False


ITERATIONS = {Attack.DLG: 40, Attack.IDLG: 40, Attack.GEIPING: 600}
"""Steps of the search; of DLG and iDLG each is a step of L-BFGS with up to 20 evaluations."""
RESTARTS = 2
"""Searches from other random records; the best objective counts."""
TOTAL_VARIATION = 1e-2
"""Weight of total variation for images."""
PULL = 1e-4
"""Weight of the squared standard scores for tables."""
RATE = 0.1
"""Of Adam on signed gradients, divided by ten at 3/8, 5/8 and 7/8 of the steps, as in Geiping's code."""


def available() -> bool:
    """Whether torch is installed."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("audit", "Searching for records in gradients (DLG, iDLG, Geiping)") from None
    return torch


def invert(
    seen: Seen,
    attack: Attack,
    seed: int,
    *,
    iterations: int | None = None,
    restarts: int = RESTARTS,
) -> NDArray[np.float64]:
    """Guesses of the records, float64[n, D], in no particular order.

    Raises:
        MissingExtraError: torch is not installed.
    """
    torch = _torch()
    steps = iterations or ITERATIONS[attack]
    best: tuple[float, NDArray[np.float64]] | None = None
    for restart in range(restarts):
        generator = torch.Generator().manual_seed(seed * 1000 + restart)
        search = _geiping if attack is Attack.GEIPING else _dlg
        found = search(torch, seen, attack, generator, steps)
        if best is None or found[0] < best[0]:
            best = found
    assert best is not None
    return np.clip(best[1], seen.low, seen.high)


def _weights(torch: Any, net: Net) -> list[Any]:
    return [torch.tensor(part, dtype=torch.float64) for layer in net.layers for part in layer]


def _loss(torch: Any, weights: list[Any], x: Any, target: Any) -> Any:
    """Mean cross-entropy of records under the weights; ``target``: probabilities of classes."""
    value = x
    for at in range(0, len(weights) - 2, 2):
        if weights[at].ndim == 4:
            value = _convolved(torch, value, weights[at], weights[at + 1])
        else:
            value = torch.tanh(value @ weights[at] + weights[at + 1])
    value = value @ weights[-2] + weights[-1]
    return -(torch.log_softmax(value, dim=1) * target).sum(dim=1).mean()


def _convolved(torch: Any, value: Any, weights: Any, bias: Any) -> Any:
    """Images, one row each, through a convolution, tanh, and the mean of each 2 by 2 points."""
    channels = weights.shape[1]
    side = round((value.shape[1] / channels) ** 0.5)
    images = value.reshape(len(value), channels, side, side)
    seen = torch.tanh(torch.nn.functional.conv2d(images, weights, bias, padding=weights.shape[2] // 2))
    return torch.nn.functional.avg_pool2d(seen, 2).reshape(len(value), -1)


def update_of(seen: Seen, x: NDArray[np.float64]) -> Net:
    """The update of a client with these records float64[n, D]; what was seen is not looked at.

    Raises:
        MissingExtraError: torch is not installed.
    """
    torch = _torch()
    target = torch.nn.functional.one_hot(torch.tensor(seen.labels), len(seen.net.layers[-1][1])).to(torch.float64)
    made = _update(torch, seen, _weights(torch, seen.net), torch.tensor(x, dtype=torch.float64), target)
    parts = [part.detach().numpy() for part in made]
    return Net(layers=tuple(zip(parts[::2], parts[1::2], strict=True)))


def _gradient(torch: Any, weights: list[Any], x: Any, target: Any) -> list[Any]:
    weights = [w.detach().requires_grad_(True) for w in weights]
    return list(torch.autograd.grad(_loss(torch, weights, x, target), weights, create_graph=True))


def _update(torch: Any, seen: Seen, start: list[Any], x: Any, target: Any) -> list[Any]:
    """What a client with these records would send: its whole local training, differentiable in the records."""
    how = seen.training
    weights = [w.detach().requires_grad_(True) for w in start]
    size = how.batch or len(x)
    now = weights
    for _ in range(how.epochs):
        for at in range(0, len(x), size):
            slopes = torch.autograd.grad(
                _loss(torch, now, x[at : at + size], target[at : at + size]), now, create_graph=True
            )
            now = [w - how.rate * slope for w, slope in zip(now, slopes, strict=True)]
    return [a - b for a, b in zip(now, weights, strict=True)]


def _sent(made: list[Any], wanted: list[Any], seen: Seen) -> list[Any]:
    """Only what was sent is compared."""
    return [a * (b != 0) for a, b in zip(made, wanted, strict=True)] if seen.sparse else made


def _dlg(torch: Any, seen: Seen, attack: Attack, generator: Any, steps: int) -> tuple[float, NDArray[np.float64]]:
    """Squared distance of gradients, by L-BFGS, over records (and, for DLG, their labels)."""
    start = _weights(torch, seen.net)
    scale = -1 / (seen.training.rate * seen.training.epochs)
    wanted = [torch.tensor(part * scale) for layer in seen.update.layers for part in layer]
    n, classes = len(seen.labels), len(seen.net.layers[-1][1])
    x = torch.randn((n, len(seen.low)), generator=generator, dtype=torch.float64).requires_grad_(True)
    labels = torch.randn((n, classes), generator=generator, dtype=torch.float64).requires_grad_(True)
    fixed = torch.nn.functional.one_hot(torch.tensor(seen.labels), classes).to(torch.float64)
    free = [x, labels] if attack is Attack.DLG else [x]
    optimiser = torch.optim.LBFGS(free, lr=1.0, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimiser.zero_grad()
        target = torch.softmax(labels, dim=1) if attack is Attack.DLG else fixed
        made = _sent(_gradient(torch, start, x, target), wanted, seen)
        cost = sum(((a - b) ** 2).sum() for a, b in zip(made, wanted, strict=True))
        cost.backward()
        return cost

    last = float("inf")
    for _ in range(steps):
        cost = float(optimiser.step(closure).detach())
        if not np.isfinite(cost) or last - cost < 1e-16:
            break
        last = cost
    end = float(closure().detach())
    found = np.nan_to_num(x.detach().numpy())
    return (end if np.isfinite(end) else float("inf")), found


def _geiping(torch: Any, seen: Seen, attack: Attack, generator: Any, steps: int) -> tuple[float, NDArray[np.float64]]:
    """Cosine distance of updates with a prior, by Adam on signed gradients."""
    start = _weights(torch, seen.net)
    wanted = [torch.tensor(part) for layer in seen.update.layers for part in layer]
    length = torch.sqrt(sum((part**2).sum() for part in wanted))
    n = len(seen.labels)
    low, high = (torch.tensor(part, dtype=torch.float64) for part in (seen.low, seen.high))
    x = torch.randn((n, len(seen.low)), generator=generator, dtype=torch.float64)
    x = torch.minimum(torch.maximum(x, low), high).requires_grad_(True)
    target = torch.nn.functional.one_hot(torch.tensor(seen.labels), len(seen.net.layers[-1][1])).to(torch.float64)
    optimiser = torch.optim.Adam([x], lr=RATE)
    falls = [steps * part // 8 for part in (3, 5, 7)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones=falls, gamma=0.1)
    cost = float("inf")
    for _ in range(steps):
        optimiser.zero_grad()
        made = _sent(_update(torch, seen, start, x, target), wanted, seen)
        product = sum((a * b).sum() for a, b in zip(made, wanted, strict=True))
        own = torch.sqrt(sum((part**2).sum() for part in made))
        away = 1 - product / (own * length + 1e-20)
        prior = _variation(x, seen.side) * TOTAL_VARIATION if seen.side else PULL * (x**2).mean()
        (away + prior).backward()
        x.grad.sign_()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            x.copy_(torch.minimum(torch.maximum(x, low), high))
        cost = float(away.detach())
    return cost, np.asarray(x.detach().numpy())


def _variation(x: Any, side: int) -> Any:
    image = x.reshape(-1, side, side)
    return (image[:, 1:] - image[:, :-1]).abs().mean() + (image[:, :, 1:] - image[:, :, :-1]).abs().mean()
