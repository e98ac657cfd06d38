"""Federated opponents of the walls, each a method of a trial, driven as their users drive them.

Nothing heavy is imported before :func:`federations` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from outroute.errors import MissingExtraError
from outroute.trial import Method, local, majority, pooled
from outroute.walls.opponents.baselines import one_shot, pooled_site
from outroute.walls.opponents.learner import CONVERGED, Recalibrated, Tuned

__all__ = [
    "BASELINES",
    "CONVERGED",
    "GROUPS",
    "LABELS",
    "NO_FORM",
    "QUICK",
    "Recalibrated",
    "Tuned",
    "available",
    "baselines",
    "cannot",
    "federations",
]

LABELS: Mapping[str, str] = {
    "majority": "site majority",
    "local": "each site on its own, best by inner validation",
    "pooled": "all records pooled, linear",
    "pooled_site": "all records pooled with the site's name, linear",
    "one_shot": "one-shot averaging, linear",
    "fedavg": "FedAvg (Flower)",
    "fedavg_recal": "FedAvg (Flower), recalibrated at each site",
    "fedavg_tuned": "FedAvg (Flower), fine-tuned at each site",
    "fedavg_dp": "FedAvg (Flower), differential privacy of whole sites",
    "fedprox": "FedProx (Flower)",
    "xgb_bagging": "XGBoost bagging (Flower)",
    "xgb_bagging_recal": "XGBoost bagging (Flower), recalibrated at each site",
    "scaffold": "SCAFFOLD (fluke)",
    "moon": "MOON (fluke)",
    "gossip": "gossip (fluke)",
    "ditto": "Ditto (fluke)",
    "fedma": "FedMA (from its paper)",
    "fedproto": "FedProto (from its paper)",
    "fedmd": "FedMD (from its paper)",
}
"""All methods by name, for people."""

BASELINES = ("majority", "local", "pooled", "pooled_site", "one_shot")
"""Shown for comparison; they cannot win."""

GROUPS: Mapping[str, Sequence[str]] = {
    "flower": ("fedavg", "fedavg_recal", "fedavg_tuned", "fedprox"),
    "private": ("fedavg_dp",),
    "trees": ("xgb_bagging", "xgb_bagging_recal"),
    "scaffold": ("scaffold",),
    "moon": ("moon",),
    "fluke": ("gossip", "ditto"),
    "papers": ("fedma", "fedproto", "fedmd"),
}
"""Methods that are run together: they share fits, or are short."""

QUICK: Mapping[str, Sequence[str]] = {
    "flower": ("fedavg", "fedavg_recal", "fedavg_tuned"),
    "trees": ("xgb_bagging", "xgb_bagging_recal"),
    "scaffold": ("scaffold",),
}
"""The same for a quick look."""

NO_FORM: Mapping[str, str] = {
    "fedproto": "FedProto has no form for numbers: a prototype belongs to a class",
    "xgb_bagging": "Flower's XGBoost bagging has no form for more than two classes: it counts every tree to the first",
    "xgb_bagging_recal": "",
}
"""Why a method is left out where it cannot be run."""


def cannot(name: str, classes: int) -> bool:
    """Whether a method has no form for an outcome of so many classes (0: a number)."""
    return (name == "fedproto" and not classes) or (name.startswith("xgb") and classes > 2)


def baselines(names: Sequence[str] = BASELINES) -> tuple[Method, ...]:
    """Baselines by name."""
    made = {
        "majority": majority,
        "local": local,
        "pooled": pooled,
        "pooled_site": pooled_site,
        "one_shot": one_shot,
    }
    return tuple(made[name]() for name in names)


def federations(names: Sequence[str]) -> tuple[Tuned | Recalibrated, ...]:
    """Federated methods by name.

    Raises:
        MissingExtraError: a library of the extra `walls` is missing.
    """
    from outroute.walls.opponents import exchange, fedma, flower, fluke, trees

    made: dict[str, Callable[[], Tuned | Recalibrated]] = {
        "fedavg": lambda: Tuned(flower.fedavg()),
        "fedavg_recal": lambda: Recalibrated(flower.fedavg()),
        "fedavg_tuned": lambda: Tuned(flower.FineTuned()),
        "fedavg_dp": lambda: Tuned(flower.fedavg_dp()),
        "fedprox": lambda: Tuned(flower.fedprox()),
        "xgb_bagging": lambda: Tuned(trees.Bagging()),
        "xgb_bagging_recal": lambda: Recalibrated(trees.Bagging()),
        "scaffold": lambda: Tuned(fluke.scaffold()),
        "moon": lambda: Tuned(fluke.moon()),
        "gossip": lambda: Tuned(fluke.gossip()),
        "ditto": lambda: Tuned(fluke.ditto()),
        "fedma": lambda: Tuned(fedma.FedMA()),
        "fedproto": lambda: Tuned(exchange.FedProto()),
        "fedmd": lambda: Tuned(exchange.FedMD()),
    }
    return tuple(made[name]() for name in names)


def available() -> bool:
    """Whether everything that the federated methods need is installed."""
    try:
        federations(())
    except (ImportError, MissingExtraError):
        return False
    return True
