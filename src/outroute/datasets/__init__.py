"""Real data from several organisations, with schemas declared by hand.

``flights`` comes with the extra ``demo``; the others are read from the directory that ``OUTROUTE_DATA`` names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from outroute.datasets.azpro import azpro
from outroute.datasets.base import DATA_VARIABLE, Dataset, GroupKind, data_file
from outroute.datasets.beijing import beijing
from outroute.datasets.flights import flights
from outroute.datasets.heart import heart
from outroute.datasets.opt import opt
from outroute.errors import DataError

__all__ = [
    "DATA_VARIABLE",
    "NAMES",
    "Dataset",
    "GroupKind",
    "azpro",
    "beijing",
    "data_file",
    "flights",
    "heart",
    "load",
    "opt",
]

_LOADERS: dict[str, Callable[..., Dataset]] = {
    "azpro": azpro,
    "beijing": beijing,
    "flights": flights,
    "heart": heart,
    "opt": opt,
}
NAMES = tuple(_LOADERS)
"""Names that :func:`load` knows."""


def load(name: str, **options: Any) -> Dataset:
    """A data set by its name; `options` are those of its loader.

    Raises:
        DataError: no such name, or its files are missing.
        MissingExtraError: ``flights`` without the extra ``demo``.
    """
    if name not in _LOADERS:
        raise DataError(f"no data set {name!r}; there are {', '.join(NAMES)}", code="data.name")
    return _LOADERS[name](**options)
