"""Numerical libraries on one thread while calculations are fitted.

Their parallel regions last a fraction of a millisecond here. On a busy machine the threads of such a region wait for
each other longer than they work: with twice as many threads as free cores a fit took ten times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["single_threaded"]


@cache
def _controller(boosting: bool) -> Any:
    if boosting:
        import sklearn.utils  # noqa: F401  (its libraries must be loaded before they can be limited)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def single_threaded(*, boosting: bool) -> Iterator[None]:
    """One thread inside.

    Args:
        boosting: also in scikit-learn, which is loaded then.
    """
    with _controller(boosting).limit(limits=1):
        yield
