"""Rules by which a server puts clients' weights together, and what lying clients send instead of theirs.

The rules of others are Flower's own strategies, called as its server calls them: FedAvg, Krum, MultiKrum, Median and
TrimmedMean. FLTrust, which Flower does not have, is written from its paper (`outroute.trial.fltrust`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outroute.errors import MissingExtraError
from outroute.trial.fltrust import combine

__all__ = [
    "FLOWER_RULES",
    "Liar",
    "Rule",
    "Weights",
    "flower",
    "flower_functions",
    "fltrust_rule",
    "gaussian",
    "idle",
    "leaning",
    "little_is_enough",
]

Weights = NDArray[np.float32]
"""Weights of the linear model, float32[1 + features, outputs]."""

GAUSSIAN_NORM = 10.0
"""Length of a random update, in lengths of the honest one."""
MAJORITY_Z = 1.5
"""Standard deviations by which attackers in a majority move the mean: about what is possible just below one half."""
TRIM_MOST = 0.49
"""Largest part that TrimmedMean may cut at either end: Flower refuses one half."""


class Liar(Protocol):
    """What an attacker sends instead of what it has learnt."""

    def __call__(self, shared: Weights, mine: Weights, honest: Weights, rng: np.random.Generator) -> Weights:
        """Weights to send.

        Args:
            shared: what the server sent.
            mine: what honest training on the attacker's records gives.
            honest: float32[h, ...], what the honest clients send in this round.
            rng: draws.
        """


class Rule(Protocol):
    """How a server puts clients' weights together."""

    def __call__(self, number: int, shared: Weights, sent: Weights, rows: NDArray[np.int64], root: Weights) -> Weights:
        """New weights.

        Args:
            number: round, from 1.
            shared: weights that the clients started from.
            sent: float32[n, ...], what they sent.
            rows: int64[n], how many records each says it has.
            root: what training on the server's own records gives; equal to `shared` if it has none.
        """


def gaussian(shared: Weights, mine: Weights, honest: Weights, rng: np.random.Generator) -> Weights:
    """A random direction, `GAUSSIAN_NORM` times as long as the honest update.

    Source: Blanchard et al. (2017), section 5 (Gaussian attack).
    """
    way = rng.normal(size=mine.shape)
    length = float(np.linalg.norm(mine - shared)) * GAUSSIAN_NORM
    out: Weights = (shared + way * (length / np.linalg.norm(way))).astype(np.float32)
    return out


def idle(shared: Weights, mine: Weights, honest: Weights, rng: np.random.Generator) -> Weights:
    """What the server sent, unchanged. Source: Lin et al. (2019), section 3 (free-riders)."""
    return shared


def leaning(shared: Weights, mine: Weights, honest: Weights, rng: np.random.Generator) -> Weights:
    """Half way between where the honest go and where the attacker wants to go, as long as an honest update.

    Trust by FLTrust is the cosine with the honest direction, and harm the part across it: their product is largest at
    45 degrees. What is across is taken from training on the attacker's records.
    Source: Cao et al. (2021), section V (adaptive attack: the update that does most harm under the rule), for a
    single step and with the mean of the honest updates in place of the server's, which nobody sees.
    """
    forth = (honest.mean(axis=0) - shared).astype(np.float64)
    length = float(np.linalg.norm(forth))
    if length == 0:
        return mine
    wanted = (mine - shared).astype(np.float64)
    across = wanted - forth * (float((wanted * forth).sum()) / length**2)
    size = float(np.linalg.norm(across))
    if size == 0:
        return mine
    out: Weights = (shared + (forth + across * (length / size)) / np.sqrt(2)).astype(np.float32)
    return out


def little_is_enough(clients: int, attackers: int) -> Liar:
    """As many standard deviations off the honest mean as a majority of clients still surrounds.

    Source: Baruch et al. (2019), A Little Is Enough, algorithm 3: the z below which a normal distribution has
    (n - m - s) / (n - m), with s the honest clients that m attackers of n must outdo for a majority. Departure: with
    a majority already s is below one, and z is `MAJORITY_Z`.
    """
    from scipy.special import ndtri

    needed = clients // 2 + 1 - attackers
    honest = max(clients - attackers, 1)
    z = MAJORITY_Z
    if needed >= 1:
        z = max(float(ndtri((honest - needed) / honest)), 0.0) if needed < honest else 0.0

    def liar(shared: Weights, mine: Weights, honest: Weights, rng: np.random.Generator) -> Weights:
        out: Weights = (honest.mean(axis=0) - z * honest.std(axis=0)).astype(np.float32)
        return out

    return liar


def fltrust_rule(number: int, shared: Weights, sent: Weights, rows: NDArray[np.int64], root: Weights) -> Weights:
    """FLTrust: clients weigh by how far their updates point the same way as that of the server's own records."""
    update = combine((root - shared).astype(np.float64), (sent - shared).astype(np.float64))
    out: Weights = (shared + update).astype(np.float32)
    return out


def flower(name: str, clients: int, attackers: int) -> Rule:
    """One of Flower's strategies as a rule.

    Args:
        name: of `FLOWER_RULES`, or bulyan, which needs 4 f + 3 clients with f attackers.
        clients: how many there are.
        attackers: how many of them lie, as Krum, MultiKrum and TrimmedMean want to be told.

    Raises:
        MissingExtraError: Flower is not installed.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    try:
        from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
        from flwr.server import strategy as strategies
    except ImportError:
        raise MissingExtraError("walls", "A comparison with Flower's rules") from None
    quiet: dict[str, Any] = {"fit_metrics_aggregation_fn": lambda _: {}}
    made: dict[str, Callable[[], Any]] = {
        "fedavg": lambda: strategies.FedAvg(**quiet),
        "krum": lambda: strategies.Krum(num_malicious_clients=attackers, **quiet),
        "multikrum": lambda: strategies.Krum(
            num_malicious_clients=attackers, num_clients_to_keep=max(1, clients - attackers), **quiet
        ),
        "median": lambda: strategies.FedMedian(**quiet),
        "bulyan": lambda: strategies.Bulyan(num_malicious_clients=attackers, to_keep=0, **quiet),
        "trimmed": lambda: strategies.FedTrimmedAvg(beta=min(attackers / clients, TRIM_MOST), **quiet),
    }
    strategy = made[name]()
    fine = Status(code=Code.OK, message="")

    def rule(number: int, shared: Weights, sent: Weights, rows: NDArray[np.int64], root: Weights) -> Weights:
        results = [
            # A strategy looks at what was sent, never at who sent it.
            (None, FitRes(fine, ndarrays_to_parameters([weights]), int(count), {}))
            for weights, count in zip(sent, rows, strict=True)
        ]
        new, _ = strategy.aggregate_fit(number, results, [])
        return np.asarray(parameters_to_ndarrays(new)[0], dtype=np.float32)

    return rule


def flower_functions(name: str, clients: int, attackers: int) -> Rule:
    """The functions behind Flower's strategies as a rule: the same sums without turning weights into bytes and back.

    For many rounds of small models, of which that takes most of the time; `flower` takes the strategies whole. Both
    give the same weights up to rounding.

    Args:
        name, clients, attackers: see `flower`.

    Raises:
        MissingExtraError: Flower is not installed.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    try:
        from flwr.server.strategy import aggregate as functions
    except ImportError:
        raise MissingExtraError("walls", "A comparison with Flower's rules") from None
    beta = min(attackers / clients, TRIM_MOST)
    made: dict[str, Callable[[Any], Any]] = {
        "fedavg": functions.aggregate,
        "krum": lambda sent: functions.aggregate_krum(sent, attackers, 0),
        "multikrum": lambda sent: functions.aggregate_krum(sent, attackers, max(1, clients - attackers)),
        "median": functions.aggregate_median,
        "trimmed": lambda sent: functions.aggregate_trimmed_avg(sent, beta),
        "bulyan": lambda sent: functions.aggregate_bulyan(sent, attackers, functions.aggregate_krum, to_keep=0),
    }
    combine_all = made[name]

    def rule(number: int, shared: Weights, sent: Weights, rows: NDArray[np.int64], root: Weights) -> Weights:
        new = combine_all([([weights], int(count)) for weights, count in zip(sent, rows, strict=True)])
        return np.asarray(new[0], dtype=np.float32)

    return rule


FLOWER_RULES = ("fedavg", "krum", "multikrum", "median", "trimmed")
"""Flower's strategies that are compared with."""
