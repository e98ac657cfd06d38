"""Coarse parallelism: whole fits side by side, each on one thread.

Parallel regions inside a fit (OpenMP, BLAS) are switched off: on small tables they cost more than they save, and on
a busy machine their threads wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from outroute.node import threads

__all__ = ["cores", "side_by_side", "single_threaded"]

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def single_threaded() -> AbstractContextManager[None]:
    """Numerical libraries use one thread inside."""
    return threads.single_threaded(boosting=True)


def side_by_side(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``[function(item) for item in items]``, as many at a time as there are cores; the first ones start first."""
    workers = min(cores(), len(items))
    if workers < 2:
        return [function(item) for item in items]
    with single_threaded():  # BLAS has one setting for the process: hold it for all workers
        pool = ThreadPoolExecutor(workers)
        try:
            return list(pool.map(_limited(function), items))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _limited(function: Callable[[T], R]) -> Callable[[T], R]:
    def call(item: T) -> R:
        with single_threaded():  # OpenMP has one setting for each thread
            return function(item)

    return call
