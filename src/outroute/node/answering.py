"""Which questions of others this node answered, for its log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from outroute.errors import StoreError
from outroute.store import NAMED, AuditLog, Event

__all__ = ["AnsweredQuestions"]

MINUTE = 60
"""Seconds whose questions of one asker share an entry: a busy holder would write little else."""
ASKERS = 1024
"""Askers remembered until their entries are written; at most 256 addresses each, 8 MiB."""


@dataclass(slots=True)
class _Asked:
    """What one member asked within a minute; ``addresses`` in the order in which they came first."""

    since: int
    questions: int = 0
    addresses: dict[bytes, None] = field(default_factory=dict)
    more: int = 0


class AnsweredQuestions:
    """Collects which addresses were asked for by whom, and writes one entry for each asker and minute.

    An entry is written once its minute is over, at the next question or call of ``write``; what was answered within the
    last minute before a crash is not in the log. Called from the transport's thread: safe for threads.

    Args:
        log: of the node.
        own: the node's id; what it asks itself is no question of others.
        clock: gives seconds since 1970-01-01 UTC.
    """

    def __init__(self, log: AuditLog, *, own: bytes, clock: Callable[[], int]) -> None:
        self._log, self._own, self._clock = log, own, clock
        self._asked: dict[bytes | None, _Asked] = {}
        self._lock = threading.Lock()

    def __call__(self, asker: bytes | None, addresses: Sequence[bytes]) -> None:
        """Note a question; see ``outroute.transports.keeper.Answered``."""
        if asker == self._own:
            return
        now = self._clock()
        with self._lock:
            self._write(now, everything=len(self._asked) >= ASKERS)
            entry = self._asked.setdefault(asker, _Asked(now))
            entry.questions += 1
            for address in addresses:
                if address in entry.addresses:
                    continue
                if len(entry.addresses) < NAMED:
                    entry.addresses[address] = None
                else:
                    entry.more += 1

    def write(self, *, everything: bool = False) -> None:
        """Write the entries of minutes that are over, or all."""
        with self._lock:
            self._write(self._clock(), everything=everything)

    def _write(self, now: int, *, everything: bool) -> None:
        for asker, entry in list(self._asked.items()):
            if not everything and 0 <= now - entry.since < MINUTE:
                continue
            try:
                self._log.append(
                    Event.ANSWERED,
                    now=now,
                    asker=asker,
                    since=entry.since,
                    questions=entry.questions,
                    addresses=list(entry.addresses),
                    addresses_not_named=entry.more,
                )
            except StoreError:  # a full disk: others are answered all the same, and the entry is written later
                if len(self._asked) < ASKERS:
                    return
            del self._asked[asker]
