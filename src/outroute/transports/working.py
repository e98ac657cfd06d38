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
from functools import partial
from itertools import accumulate, pairwise

from outroute.transports.links import Handle

__all__ = ["GROUP_FRAMES", "HandleAll", "Waiting", "Worker"]

GROUP_FRAMES = 8
"""Frames answered as one group, at most: 1,024 packets are checked in some 20 ms, which the first of them has to wait.
"""

HandleAll = Callable[[Sequence[tuple[bytes, bytes]]], list[list[bytes]]]
"""A ``Handle`` for several frames, in order: as if they had been answered one after the other."""


Waiting = asyncio.Future[list[list[bytes]] | None]
"""Where an event loop waits for the answers to some frames."""


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
        self._jobs: deque[_Job] = deque()
        self._busy = False
        self._closed = False

    def submit(self, sender: bytes, frame: bytes) -> Future[list[list[bytes]] | None]:
        """Have a frame answered; from any thread.

        Raises:
            RuntimeError: the worker is closed.
        """
        done: Future[list[list[bytes]] | None] = Future()
        self._enter(_Job(sender, [frame], done))
        return done

    def begin(self, sender: bytes, frames: Sequence[bytes], done: Waiting) -> None:
        """Have some frames answered that came together, and the answers put where an event loop waits for them.

        Raises:
            RuntimeError: the worker is closed.
        """
        self._enter(_Job(sender, frames, done))

    async def answered(self, sender: bytes, frame: bytes) -> list[bytes]:
        """Have a frame answered, and wait for it."""
        done: Waiting = asyncio.get_running_loop().create_future()
        self._enter(_Job(sender, [frame], done))
        found = await done
        assert found is not None
        return found[0]

    def _enter(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("this link is closed")
            self._jobs.append(job)
            begin, self._busy = not self._busy, True
        if begin:
            self._thread.submit(self._work)

    def _group(self) -> list[_Job]:
        """The next jobs, with up to ``GROUP_FRAMES`` frames if the first has no more."""
        with self._lock:
            group: list[_Job] = []
            size = 0
            while self._jobs and (not group or size + len(self._jobs[0].frames) <= GROUP_FRAMES):
                group.append(self._jobs.popleft())
                size += len(group[-1].frames)
            self._busy = bool(group)
        return group

    def _work(self) -> None:
        while group := self._group():
            wanted = [job for job in group if job.wanted()]
            if not wanted:
                continue
            jobs = [(job.sender, frame) for job in wanted for frame in job.frames]
            try:
                if len(jobs) > 1 and self.handle_all is not None:
                    replies = self.handle_all(jobs)
                else:
                    replies = [self._handle(*job) for job in jobs]
            except BaseException as error:  # noqa: BLE001  (told to those who wait, who decide)
                _tell([(job, error) for job in wanted])
                continue
            ends = [0, *accumulate(len(job.frames) for job in wanted)]
            _tell([(job, replies[at:end]) for job, (at, end) in zip(wanted, pairwise(ends), strict=True)])

    def close(self) -> None:
        """Answer nothing more, but for the group that is being answered; who waits is told that it was cancelled."""
        with self._lock:
            self._closed = True
            left = list(self._jobs)
            self._jobs.clear()
        self._thread.shutdown(wait=False)
        for job in left:
            job.cancel()


class _Job:
    """Frames of one sender, and who waits for their answers."""

    __slots__ = ("_done", "frames", "sender")

    def __init__(
        self, sender: bytes, frames: Sequence[bytes], done: Waiting | Future[list[list[bytes]] | None]
    ) -> None:
        self.sender, self.frames, self._done = sender, frames, done

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Where the answers are awaited; None for a thread."""
        return None if isinstance(self._done, Future) else self._done.get_loop()

    def wanted(self) -> bool:
        """Whether somebody still waits; from now on a thread cannot give up."""
        return self._done.set_running_or_notify_cancel() if isinstance(self._done, Future) else not self._done.done()

    def settle(self, said: list[list[bytes]] | BaseException) -> None:
        """Hand over the answers; in the loop, where it is one that waits."""
        if self._done.done():
            return  # who waited has given up
        if isinstance(said, BaseException):
            self._done.set_exception(said)
        else:
            self._done.set_result(said)

    def cancel(self) -> None:
        """Say that there will be none."""
        if isinstance(self._done, Future):
            self._done.cancel()
        else:
            _in_loop(self._done.get_loop(), self._done.cancel)


def _tell(answers: Sequence[tuple[_Job, list[list[bytes]] | BaseException]]) -> None:
    """Tell those who wait, each event loop once: waking one from a thread costs more than answering a small frame."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[_Job, list[list[bytes]] | BaseException]]] = {}
    for job, said in answers:
        loop = job.loop
        if loop is None:
            job.settle(said)
        else:
            loops.setdefault(loop, []).append((job, said))
    for loop, some in loops.items():
        _in_loop(loop, partial(_settle, some))


def _settle(answers: Sequence[tuple[_Job, list[list[bytes]] | BaseException]]) -> None:
    for job, said in answers:
        job.settle(said)


def _in_loop(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # it is closed, and nobody waits
        loop.call_soon_threadsafe(what)
