"""A bridge from ordinary calls to transports, which are asynchronous.

One event loop in a thread of its own serves the process, so that calls work from scripts, from notebooks (where a
loop is running already) and from threads alike.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run"]

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _forget() -> None:
    """A forked child has no thread of its parent's: it starts its own."""
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _started() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="outroute", daemon=True).start()
        return _loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its value; an interrupt cancels it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _started())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
