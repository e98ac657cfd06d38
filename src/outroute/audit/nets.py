"""The models that a federation trains here: logistic regression, and a network with one hidden layer; in numpy.

Small on purpose: what a table of a few hundred records carries, and what attacks on updates are strongest against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Net", "Training", "new_net", "train"]

HIDDEN = 32
"""Units of the hidden layer."""

Layers = tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """Weights: softmax over linear layers with tanh between them.

    Attributes:
        layers: (weights float64[inputs, outputs], bias float64[outputs]), first to last. Those of
            `outroute.audit.convolution` are of four dimensions; only sums and searches know what to do with them.
    """

    layers: Layers

    def __add__(self, other: Net) -> Net:
        return Net(layers=tuple((a + c, b + d) for (a, b), (c, d) in zip(self.layers, other.layers, strict=True)))

    def __sub__(self, other: Net) -> Net:
        return self + other.times(-1.0)

    def times(self, factor: float) -> Net:
        """All weights times a number."""
        return Net(layers=tuple((a * factor, b * factor) for a, b in self.layers))

    def flat(self) -> NDArray[np.float64]:
        """All weights in one row."""
        return np.concatenate([part.reshape(-1) for layer in self.layers for part in layer])

    def like(self, flat: NDArray[np.float64]) -> Net:
        """Weights of this shape from one row."""
        out, at = [], 0
        for weights, bias in self.layers:
            middle, end = at + weights.size, at + weights.size + bias.size
            out.append((flat[at:middle].reshape(weights.shape), flat[middle:end]))
            at = end
        return Net(layers=tuple(out))

    def _pass(self, x: NDArray[np.float64]) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        """Inputs of every layer, and class probabilities."""
        inputs = [x]
        for weights, bias in self.layers[:-1]:
            inputs.append(np.tanh(inputs[-1] @ weights + bias))
        weights, bias = self.layers[-1]
        value = inputs[-1] @ weights + bias
        power = np.exp(value - value.max(axis=1, keepdims=True))
        return inputs, power / power.sum(axis=1, keepdims=True)

    def probabilities(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[n, C]."""
        return self._pass(x)[1]

    def losses(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cross-entropy of each record, float64[n], in nats."""
        return -np.log(np.maximum(self.probabilities(x)[np.arange(len(y)), y], 1e-12))

    def errors(
        self, x: NDArray[np.float64], y: NDArray[np.int64]
    ) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """Inputs of every layer and slopes of the loss at its outputs, a row a record: gradients are their products."""
        inputs, probability = self._pass(x)
        slope = probability.copy()
        slope[np.arange(len(y)), y] -= 1.0
        slopes = [slope]
        for number in range(len(self.layers) - 1, 0, -1):
            slope = (slope @ self.layers[number][0].T) * (1 - inputs[number] ** 2)
            slopes.insert(0, slope)
        return inputs, slopes

    def gradient(self, x: NDArray[np.float64], y: NDArray[np.int64], weight: NDArray[np.float64] | None = None) -> Net:
        """Sum over records of their gradients, each times its weight (default: the mean)."""
        inputs, slopes = self.errors(x, y)
        each = np.full(len(y), 1 / max(len(y), 1)) if weight is None else weight
        return Net(
            layers=tuple(
                (a.T @ (s * each[:, None]), (s * each[:, None]).sum(axis=0))
                for a, s in zip(inputs, slopes, strict=True)
            )
        )

    def norms(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
        """Length of each record's gradient, float64[n]."""
        inputs, slopes = self.errors(x, y)
        square = sum(((a**2).sum(axis=1) + 1.0) * (s**2).sum(axis=1) for a, s in zip(inputs, slopes, strict=True))
        return np.asarray(np.sqrt(square))

    def along(self, x: NDArray[np.float64], y: NDArray[np.int64], direction: Net) -> NDArray[np.float64]:
        """Inner product of each record's gradient with a direction in weights, float64[n]."""
        inputs, slopes = self.errors(x, y)
        out = np.zeros(len(y))
        for a, s, (weights, bias) in zip(inputs, slopes, direction.layers, strict=True):
            out += np.einsum("nj,nj->n", a @ weights, s) + s @ bias
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a client trains in one round.

    Attributes:
        epochs: passes over its records.
        batch: records of a step; 0: all of them.
        rate: step size.
        clip: longest gradient of a record; 0: no clipping.
        noise: standard deviation of Gaussian noise in each step, as a multiple of ``clip``, added to the sum of the
            clipped gradients.
    """

    epochs: int = 1
    batch: int = 32
    rate: float = 0.1
    clip: float = 0.0
    noise: float = 0.0


def new_net(inputs: int, classes: int, rng: np.random.Generator, *, hidden: int = HIDDEN) -> Net:
    """Random weights (hidden > 0), or zeros for a logistic regression (hidden = 0)."""
    if not hidden:
        return Net(layers=((np.zeros((inputs, classes)), np.zeros(classes)),))
    return Net(
        layers=(
            (rng.normal(size=(inputs, hidden)) / np.sqrt(inputs), rng.normal(size=hidden) * 0.1),
            (rng.normal(size=(hidden, classes)) / np.sqrt(hidden), rng.normal(size=classes) * 0.1),
        )
    )


def train(net: Net, x: NDArray[np.float64], y: NDArray[np.int64], how: Training, rng: np.random.Generator) -> Net:
    """One round at one client: the weights afterwards."""
    if not len(y):
        return net
    for _ in range(how.epochs):
        order = rng.permutation(len(y))
        size = how.batch or len(y)
        for at in range(0, len(y), size):
            part = order[at : at + size]
            net = net - _step(net, x[part], y[part], how, rng).times(how.rate)
    return net


def _step(net: Net, x: NDArray[np.float64], y: NDArray[np.int64], how: Training, rng: np.random.Generator) -> Net:
    if not how.clip:
        return net.gradient(x, y)
    factor = np.minimum(1.0, how.clip / np.maximum(net.norms(x, y), 1e-12))
    total = net.gradient(x, y, factor)
    flat = total.flat()
    return total.like((flat + rng.normal(0.0, how.noise * how.clip, flat.size)) / len(y))
