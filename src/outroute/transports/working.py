"""The thread in which a link has frames answered: in the order in which they came, those that wait together at once.

Checking signatures and waiting for the disk hold up no event loop here. And what arrived meanwhile is answered as one
group, so that the deposits of several frames, of whichever senders, share one durable commit.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from outroute.transports.links import Handle

__all__ = ["GROUP_FRAMES", "HandleAll", "Worker"]

GROUP_FRAMES = 8
"""Frames answered as one group, at most: 1,024 packets are checked in some 20 ms, which the first of them has to wait.
"""

HandleAll = Callable[[Sequence[tuple[bytes, bytes]]], list[list[bytes]]]
"""A ``Handle`` for several frames, in order: as if they had been answered one after the other."""


class Worker:
    """One thread.

    Args:
        handle: answers a frame.
        handle_all: answers several; None for one after the other.
    """

    def __init__(self, handle: Handle, handle_all: HandleAll | None = None) -> None:
        self._handle, self.handle_all = handle, handle_all
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outroute-frames")
        self._lock = threading.Lock()
        self._waiting: deque[tuple[bytes, bytes, Future[list[bytes]]]] = deque()
        self._busy = False

    def submit(self, sender: bytes, frame: bytes) -> Future[list[bytes]]:
        """Have a frame answered; from any thread.

        Raises:
            RuntimeError: the worker is closed.
        """
        done: Future[list[bytes]] = Future()
        with self._lock:
            self._waiting.append((sender, frame, done))
            begin, self._busy = not self._busy, True
        if begin:
            self._thread.submit(self._work)
        return done

    async def answered(self, sender: bytes, frame: bytes) -> list[bytes]:
        """The same, in an event loop."""
        return await asyncio.wrap_future(self.submit(sender, frame))

    def _work(self) -> None:
        while True:
            with self._lock:
                group = [self._waiting.popleft() for _ in range(min(GROUP_FRAMES, len(self._waiting)))]
                self._busy = bool(group)
            if not group:
                return
            group = [one for one in group if one[2].set_running_or_notify_cancel()]
            if len(group) > 1 and self.handle_all is not None:
                try:
                    replies = self.handle_all([(sender, frame) for sender, frame, _ in group])
                    found: list[list[bytes] | BaseException] = list(replies)
                except BaseException as error:  # noqa: BLE001  (told to those who wait, who decide)
                    found = [error] * len(group)
            else:
                found = [self._one(sender, frame) for sender, frame, _ in group]
            for (_, _, done), said in zip(group, found, strict=True):
                if isinstance(said, BaseException):
                    done.set_exception(said)
                else:
                    done.set_result(said)

    def _one(self, sender: bytes, frame: bytes) -> list[bytes] | BaseException:
        try:
            return self._handle(sender, frame)
        except BaseException as error:  # noqa: BLE001  (told to those who wait, who decide)
            return error

    def close(self) -> None:
        """Answer nothing more, but for the group that is being answered; who waits is told that it was cancelled."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            left = list(self._waiting)
            self._waiting.clear()
        for _, _, done in left:
            with suppress(RuntimeError):
                done.cancel()
