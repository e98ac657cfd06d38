"""The frames of one Flight stream: the library's thread reads them, one more says the replies, so both lie not idle.

As ``outroute.transports.answering`` does in an event loop: some frames are under way at a time, replies go out in the
order of the frames, and who sends what is refused is read one frame at a time, and waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from outroute.transports.answering import AHEAD_FRAMES

__all__ = ["Answering"]


class Answering:
    """Frames under way on one stream.

    Args:
        say: sends the frames of a reply with its number; in a thread of its own.
        hold_up: seconds to wait after the frames of a reply.
    """

    def __init__(
        self, say: Callable[[int, Sequence[bytes]], None], hold_up: Callable[[Sequence[bytes]], float]
    ) -> None:
        self._say, self._hold_up = say, hold_up
        self._under_way: deque[tuple[int, Future[list[list[bytes]] | None]]] = deque()
        self._changed = threading.Condition()
        self._held_up = self._alone = self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="outroute-flight-say", daemon=True)
        self._thread.start()

    def enter(self, number: int, begin: Callable[[], Future[list[list[bytes]] | None]], *, alone: bool = False) -> None:
        """Wait until there is room for a frame, begin it, and have its reply said in its turn.

        Args:
            number: of the exchange.
            begin: begins it.
            alone: whether nothing else may be under way meanwhile: its reply may be large.

        Raises:
            Exception: replies cannot be sent any more, or one failed.
        """
        with self._changed:
            while self._error is None and len(self._under_way) >= self._most(alone):
                self._changed.wait()
            self._alone = alone
            if self._error is not None:
                raise self._error
            self._under_way.append((number, begin()))
            self._changed.notify_all()

    def _most(self, alone: bool) -> int:
        return 1 if alone or self._alone or self._held_up else AHEAD_FRAMES

    def finish(self) -> None:
        """No more frames: wait until all replies are said."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join()

    def _next(self) -> tuple[int, Future[list[list[bytes]] | None]] | None:
        with self._changed:
            while not self._under_way:
                if self._over:
                    return None
                self._changed.wait()
            return self._under_way[0]

    def _run(self) -> None:
        try:
            while (one := self._next()) is not None:
                number, answering = one
                (replies,) = answering.result() or ([],)
                self._say(number, replies)
                wait = self._hold_up(replies)
                self._held_up = wait > 0
                if wait:
                    time.sleep(wait)
                with self._changed:
                    self._under_way.popleft()
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  (told to the thread that reads, which ends the stream)
            with self._changed:
                self._error = error
                for _, answering in self._under_way:
                    answering.cancel()
                self._under_way.clear()
                self._over = True
                self._changed.notify_all()
