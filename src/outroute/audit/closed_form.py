"""Records from gradients without any search: what the first layer's gradient says when one record made it.

Source: Phong, Aono, Hayashi, Wang, Moriai, "Privacy-Preserving Deep Learning via Additively Homomorphic Encryption"
(2017), section 3: the gradient of a unit's weights is its input times the gradient of its bias. Labels: Zhao, Mopuri,
Bilen, "iDLG" (2020), section 3.2: the bias of the true class alone has a gradient below zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outroute.audit.nets import Net

__all__ = ["label_of", "record_of", "record_of_largest"]

LEAST = 1e-12
"""A bias whose gradient is smaller says nothing."""


def record_of(gradient: Net) -> NDArray[np.float64]:
    """The input that made this gradient, if it was one; else a mean of inputs, weighted by their slopes. float64[D]."""
    weights, bias = gradient.layers[0]
    unit = int(np.abs(bias).argmax())
    if abs(bias[unit]) < LEAST:
        return np.zeros(len(weights))
    return np.asarray(weights[:, unit] / bias[unit])


def record_of_largest(gradient: Net) -> NDArray[np.float64]:
    """The same where only the largest entries were sent: of each input, the largest weight at a unit whose bias was
    sent too; 0 (the mean of standard scores) where there is none. float64[D]."""
    weights, bias = gradient.layers[0]
    sent = np.abs(bias) >= LEAST
    if not sent.any():
        return np.zeros(len(weights))
    part, slopes = weights[:, sent], bias[sent]
    unit = np.abs(part).argmax(axis=1)
    return np.asarray(part[np.arange(len(part)), unit] / slopes[unit])


def label_of(gradient: Net) -> int:
    """The class of the one record that made this gradient."""
    return int(gradient.layers[-1][1].argmin())
