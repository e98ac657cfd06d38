"""Who sends what is refused waits longer and longer: a flood of rubbish gets no larger share of a node than a trickle.

Refusing costs as much work as keeping. So the next frame of such a node is read later; pure, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from outroute.transports.contract import Receipt
from outroute.transports.frames import HEADER_BYTES, Kind

__all__ = ["HELD_UP_SECONDS", "REFUSALS_FREE", "Refusals"]

#: Frames of a node that may be refused before it has to wait: clocks differ, members are revoked, rules change.
REFUSALS_FREE = 4

#: Seconds that a node waits at most whose frames are refused, each time.
HELD_UP_SECONDS = 4.0

#: Seconds of the first wait; each refusal doubles it.
_FIRST_SECONDS = 0.05

#: Refusals counted at most, beyond the free ones: with these the longest wait is reached.
_COUNTED = 8.0

#: Refused frames that a good one makes up for: who sends more than one in five that is refused has to wait.
_PER_GOOD = 0.25

#: Nodes whose refused frames are remembered; more than can be connected at a time.
_REMEMBERED = 4096


class Refusals:
    """Frames refused, by sender."""

    def __init__(self) -> None:
        self._counts: dict[bytes, float] = {}

    def wait(self, sender: bytes, replies: Sequence[bytes]) -> float:
        """Seconds until the next frame of a sender is read, after these replies to the last one."""
        count = self._counts.pop(sender, 0.0)
        if not _refuses(replies):
            if count > _PER_GOOD:
                self._counts[sender] = count - _PER_GOOD
            return 0.0
        if len(self._counts) >= _REMEMBERED:
            self._counts.pop(next(iter(self._counts)))
        self._counts[sender] = count = min(count + 1.0, REFUSALS_FREE + _COUNTED)
        if count <= REFUSALS_FREE:
            return 0.0
        return float(min(_FIRST_SECONDS * 2.0 ** (count - REFUSALS_FREE - 1), HELD_UP_SECONDS))


def _refuses(replies: Sequence[bytes]) -> bool:
    """Whether a reply refuses a frame, or more than half of its packets."""
    if not replies or len(replies[0]) < 5 or replies[0][4] not in (Kind.RECEIPTS, Kind.REFUSED):
        return False  # no need to read a large answer
    if replies[0][4] == Kind.REFUSED:
        return True
    receipts = replies[0][HEADER_BYTES::2]  # every second byte says why; this member wrote it itself
    return 2 * receipts.count(Receipt.REJECTED) > len(receipts)
