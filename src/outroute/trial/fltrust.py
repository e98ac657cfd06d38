"""FLTrust: a server that has a few records of its own believes clients as far as they point the same way.

Source: Cao, Fang, Liu and Gong (2021), FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping, NDSS,
section IV-B: trust score = ReLU of the cosine between a client's update and the server's (equation 2); updates
rescaled to the length of the server's (equation 3); their mean weighted by trust is the global update (equation 4),
applied with learning rate 1 after the server's own number of local steps (equation 5).
Departure: if nobody is trusted, nothing changes (the paper leaves 0/0 open).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["combine", "trust_scores"]

Floats = NDArray[np.float64]

_LENGTH_LEAST = 1e-12
"""Updates shorter than this have no direction, and are not trusted."""


def trust_scores(root: Floats, updates: Floats) -> Floats:
    """Trust in each update, float64[n] in [0, 1].

    Args:
        root: the update of the server's own records, any shape.
        updates: float64[n, ...], the clients' updates.
    """
    flat, own = updates.reshape(len(updates), -1), root.reshape(-1)
    length = np.sqrt((flat**2).sum(axis=1)) * np.sqrt((own**2).sum())
    cosine = flat @ own / np.maximum(length, _LENGTH_LEAST)
    out: Floats = np.where(length > _LENGTH_LEAST, np.clip(cosine, 0.0, 1.0), 0.0)
    return out


def combine(root: Floats, updates: Floats) -> Floats:
    """The global update, of the shape of `root`; zero if no client is trusted."""
    trust = trust_scores(root, updates)
    if trust.sum() <= 0:
        return np.zeros_like(root)
    flat = updates.reshape(len(updates), -1)
    length = np.sqrt((flat**2).sum(axis=1))
    scaled = flat * (np.sqrt((root**2).sum()) / np.maximum(length, _LENGTH_LEAST))[:, None]
    mean: Floats = (trust @ scaled) / trust.sum()
    return mean.reshape(root.shape)
