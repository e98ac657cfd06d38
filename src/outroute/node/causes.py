"""Cause ids: which observations led to which packets, for logs that are read together.

The first observation after a distillation opens a cause of 16 random bytes; those that follow share it, because they
are condensed together. The packets made of them carry it in every frame, so it stands in the holders' logs too, until
they are acknowledged. It is random: nothing about a record can be learnt from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from outroute.store import Outbox

__all__ = ["CAUSES_KEPT", "Causes"]

CAUSES_FILE = "causes.json"
CAUSES_KEPT = 4096
"""Distillations remembered; packets of older ones go without a cause."""
NO_CAUSE = bytes(16)


class Causes:
    """Causes of one node, kept in its directory.

    Args:
        directory: the node's.
        outbox: whose rows they belong to.
    """

    def __init__(self, directory: Path, outbox: Outbox) -> None:
        self._path, self._outbox = directory / CAUSES_FILE, outbox
        self._open = b""
        self._made: list[tuple[int, int, bytes]] = []
        self._read()
        self._last = _last_number(outbox)

    def observed(self, cause: bytes) -> bytes:
        """Something was observed: its cause, which is the one already open if there is one."""
        if not self._open:
            self._open = cause
            self._write()
        return self._open

    def distilled(self) -> bytes:
        """Packets may have been made: the cause that they carry; the next observation opens another."""
        first, self._last = self._last + 1, _last_number(self._outbox, self._last)
        if self._last < first:
            return self._open or NO_CAUSE
        cause, self._open = self._open or os.urandom(16), b""
        self._made = [*self._made, (first, self._last, cause)][-CAUSES_KEPT:]
        self._write()
        return cause

    def of(self, numbers: Sequence[int]) -> list[bytes]:
        """The causes of rows of the outbox; zeros where none is known."""
        known: dict[int, bytes] = {}
        for number in numbers:
            if number not in known:
                found = (cause for first, last, cause in reversed(self._made) if first <= number <= last)
                known[number] = next(found, NO_CAUSE)
        return [known[number] for number in numbers]

    def _read(self) -> None:
        """Logs are not worth refusing to start: a file that cannot be read counts as empty."""
        try:
            content = json.loads(self._path.read_text(encoding="ascii"))
            self._open = bytes.fromhex(content["open"])
            self._made = [(int(a), int(b), bytes.fromhex(c)) for a, b, c in content["made"]]
        except (OSError, ValueError, KeyError, TypeError):
            self._open, self._made = b"", []

    def _write(self) -> None:
        content = {"open": self._open.hex(), "made": [(a, b, c.hex()) for a, b, c in self._made]}
        part = self._path.with_name(f".{CAUSES_FILE}.part")
        try:
            part.write_text(json.dumps(content), encoding="ascii")
            os.replace(part, self._path)
        except OSError:
            part.unlink(missing_ok=True)  # a full disk: the cause is lost with the process, nothing else


def _last_number(outbox: Outbox, known: int = 0) -> int:
    """The highest number in the outbox; ``known`` is there already, or 0."""

    def beyond(number: int) -> bool:
        return len(outbox.page(after=number, limit=1)) > 0

    step, low = 1, known
    if not beyond(low):
        return low
    while beyond(low + step):
        low, step = low + step, step * 2
    high = low + step  # something lies after low, nothing after high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if beyond(middle) else (low, middle)
    return high
