"""A process of its own that ends others when the one that started them is gone, however it went.

It is run as a program, by its path: ``python coordinator_guard.py FOLDER MARK``. On standard input it is told which
process groups there are, one number a line. When its input ends (at the end of the ``with``, after Ctrl-C, after
SIGKILL of whoever started it), it kills these groups, and all processes whose environment holds MARK (some programs
start others in sessions of their own), and removes FOLDER. It needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MARK", "main", "marked"]

MARK = "OUTROUTE_WALLS_MARK"
"""Variable in the environment of everything that is started."""
ROUNDS = 50
"""Looks for processes that are left; one that was just starting another may need a second look."""
LOOK_SECONDS = 0.1


def marked(mark: str) -> list[int]:
    """Processes that carry a mark and run, where the system tells (Linux)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (one / "environ").read_bytes().split(b"\0"):
                found.append(int(one.name))
    return found


def end(groups: Iterable[int], mark: str) -> None:
    """Kill everything, until nothing is left."""
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(ROUNDS):
        left = [one for one in marked(mark) if one != os.getpid()]
        if not left:
            return
        for one in left:
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
        time.sleep(LOOK_SECONDS)


def main() -> None:
    """Wait for the end of the input, and do what is to be done."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    folder, mark = sys.argv[1:]
    groups = [int(line) for line in sys.stdin if line.strip()]
    end(groups, mark)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
