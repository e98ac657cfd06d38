"""A small convolutional network for square images, and what a client sends of it (training needs torch).

Its weights stand in a `Net` like those of any other here: layers of four dimensions are convolutions. Two of 3 by 3
points with tanh and the mean of each 2 by 2 points, then classes: the smallest of the kind that pictures are learnt by.
Smooth throughout, as the search for gradients wants it (Zhu, Liu and Han 2019, section 4, replace ReLU and strides).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from outroute.audit.inversion import Seen, update_of
from outroute.audit.nets import Net, Training

__all__ = ["CHANNELS", "POINTS", "convolutional", "trained"]

CHANNELS = (8, 16)
"""Of the two convolutions."""
POINTS = 3
"""Across a convolution."""


def convolutional(side: int, classes: int, rng: np.random.Generator) -> Net:
    """Random weights for images of `side` by `side` points, at least 4."""
    layers, before = [], 1
    for channels in CHANNELS:
        shape = (channels, before, POINTS, POINTS)
        wide = before * POINTS**2
        layers.append((rng.normal(size=shape) / np.sqrt(wide), rng.normal(size=channels) * 0.1))
        before = channels
    wide = before * (side // 4) ** 2
    layers.append((rng.normal(size=(wide, classes)) / np.sqrt(wide), rng.normal(size=classes) * 0.1))
    return Net(layers=tuple(layers))


def trained(net: Net, x: NDArray[np.float64], y: NDArray[np.int64], training: Training) -> Net:
    """Update of a client with records float64[n, side * side] and classes int64[n]: weights after minus weights before.

    Without clipping and noise.

    Raises:
        MissingExtraError: torch is not installed.
    """
    nothing = np.zeros(x.shape[1])
    how = replace(training, clip=0.0, noise=0.0)
    return update_of(Seen(net=net, update=net, training=how, labels=y, low=nothing, high=nothing), x)
