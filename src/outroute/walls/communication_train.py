"""Federated learning of a linear model with what compresses its messages, and the score after every round.

Sources: error feedback and signs: Seide et al., 1-Bit Stochastic Gradient Descent, Interspeech 2014, and Karimireddy
et al., Error Feedback Fixes SignSGD, ICML 2019, algorithm 2; top-k with memory: Stich et al., Sparsified SGD with
Memory, NeurIPS 2018, algorithm 1; 8 bits: symmetric uniform quantisation, one scale for each array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.trial import Fold
from outroute.trial.estimators import Layout, Model
from outroute.trial.federated import ROUNDS, Lossy, federated
from outroute.trial.opponents import Tuned
from outroute.trial.recalibrate import recalibration

__all__ = ["CHECKED", "METHODS", "ONE_SHOT_STEPS", "Memory", "Method", "eight_bits", "largest", "signs", "train"]

Weights = NDArray[np.float32]
Score = Callable[[Mapping[str, NDArray[np.float64]]], Mapping[str, float]]
"""Predictions for the test cases of each site -> mean scores over the sites."""

CHECKED = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, ROUNDS)
"""Rounds after which the shared model is scored."""
ONE_SHOT_STEPS = 600
"""Steps of one-shot averaging at each site: as many as federated averaging takes in all its rounds, at most."""
TOP_SHARE = 0.1
"""Share of the weights that top-k sends, the largest changes; 1 at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way of sending a model of P weights.

    Attributes:
        name: for people.
        up, down: bytes of the arrays of one round and site, by P.
        rounds: 1 for one-shot averaging, else ``ROUNDS``.
    """

    name: str
    up: Callable[[int], int]
    down: Callable[[int], int]
    rounds: int = ROUNDS


def _index_bytes(weights: int) -> int:
    return 2 if weights <= 0xFFFF else 4


def top(weights: int) -> int:
    """How many weights top-k sends."""
    return max(1, math.ceil(TOP_SHARE * weights))


METHODS: Mapping[str, Method] = {
    "one_shot": Method(name="one-shot averaging", up=lambda p: 4 * p, down=lambda p: 4 * p, rounds=1),
    "fedavg": Method(name="federated averaging", up=lambda p: 4 * p, down=lambda p: 4 * p),
    "top": Method(
        name="federated averaging, top 10 % of changes",
        up=lambda p: top(p) * (4 + _index_bytes(p)),
        down=lambda p: 4 * p,
    ),
    "bits8": Method(name="federated averaging, 8 bits", up=lambda p: p + 4, down=lambda p: p + 4),
    "bit1": Method(name="federated averaging, 1 bit up", up=lambda p: math.ceil(p / 8) + 4, down=lambda p: 4 * p),
}
"""Federated learning of one linear model, by how its weights travel."""


def largest(change: Weights) -> Weights:
    """All but the largest changes are zero."""
    flat = change.reshape(-1)
    kept = np.argsort(-np.abs(flat), kind="stable")[: top(flat.size)]
    out = np.zeros_like(flat)
    out[kept] = flat[kept]
    return out.reshape(change.shape)


def eight_bits(values: Weights) -> Weights:
    """Rounded to 255 equal steps between minus and plus the largest."""
    scale = float(np.abs(values).max()) / 127
    return values if scale == 0 else (np.round(values / scale) * scale).astype(np.float32)


def signs(change: Weights) -> Weights:
    """One bit each, and the mean size."""
    size = np.float32(np.abs(change).mean())
    return np.where(change >= 0, size, -size).astype(np.float32)


class Memory:
    """Error feedback: what compression left out is added to the next change of the same site."""

    def __init__(self, compress: Callable[[Weights], Weights]) -> None:
        self._compress = compress
        self._left: dict[int, Weights] = {}

    def __call__(self, site: int, change: Weights) -> Weights:
        """What is sent of a change."""
        wanted = change + self._left.get(site, np.zeros_like(change))
        sent = self._compress(wanted)
        self._left[site] = (wanted - sent).astype(np.float32)
        return sent


def _lossy(key: str) -> tuple[Lossy | None, Lossy | None]:
    """Of a method: up, and down."""
    if key == "top":
        return Memory(largest), None
    if key == "bit1":
        return Memory(signs), None
    if key == "bits8":
        return Memory(eight_bits), lambda _, weights: eight_bits(weights)
    return None, None


def train(fold: Fold, tuned: Tuned, key: str, score: Score) -> dict[str, Any]:
    """One method on one split.

    Args:
        fold: the split.
        tuned: the settings that inner validation chose for federated averaging.
        key: of the method.
        score: scores predictions.

    Returns:
        ``weights`` of the model, and by number of rounds the scores of the model as it is (``plain``) and
        recalibrated at each site on its own training rows (``recal``), which sends nothing.
    """
    found: dict[str, Any] = {"weights": int(tuned.fitted.weights.size), "rounds": [], "plain": [], "recal": []}

    def after(number: int, model: Model) -> None:
        if number not in CHECKED:
            return
        plain = {site: model(cases.x) for site, cases in fold.test.items()}
        recalibrated = {
            site: recalibration(model(fold.train[site].x), fold.train[site].y, fold.classes)(values)
            for site, values in plain.items()
        }
        found["rounds"].append(number)
        found["plain"].append(score(plain))
        found["recal"].append(score(recalibrated))

    up, down = _lossy(key)
    one = METHODS[key].rounds == 1
    federated(
        {site: (rows.x, rows.y) for site, rows in fold.train.items()},
        layout=Layout.of(fold.schema),
        classes=fold.classes,
        strength=tuned.strength,
        local_steps=ONE_SHOT_STEPS if one else tuned.local_steps,
        rounds=METHODS[key].rounds,
        up=up,
        down=down,
        after=after,
    )
    return found
