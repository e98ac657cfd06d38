"""How long a privacy officer waits: the commands of the outbox over many packets that wait for approval.

    python -m benchmarks.outbox --packets 100000 --json

Fills the outbox of a node with signed packets, and then runs the real commands one after the other, each in a process
of its own, as a user does: a page, a filter, the export with its table, approval by digest, the file that leaves, and
the log. Wall-clock seconds from start to end of a process; `start` is what a process costs that does nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import NOW, heart_like, options, show, some_packets
from outroute.fingerprint import address
from outroute.schema import Schema, dumps
from outroute.store import Journal

PROGRAM = [sys.executable, "-c", "from outroute.cli import main; main()"]
BY = ["--by", "benchmark"]


def filled(directory: Path, schema: Schema, count: int) -> None:
    """A node's directory with so many packets that wait for approval."""
    directory.mkdir(mode=0o700)
    (directory / "schema.toml").write_text(dumps(schema), encoding="utf-8")
    packets = some_packets(schema, count)
    known = {cell: address(schema, 0, cell) for cell in np.unique(packets["cell"]).tolist()}
    with Journal(directory, schema_id=schema.id, width=schema.width, now=NOW) as journal:
        journal.outbox.add(
            packets,
            [known[cell] for cell in packets["cell"].tolist()],
            [np.empty(0, dtype=np.int64)] * count,
            now=NOW,
        )


def timed(directory: Path, *arguments: str) -> tuple[float, dict[str, Any]]:
    """Seconds of a command, and what it said."""
    began = time.perf_counter()
    done = subprocess.run(
        [*PROGRAM, *arguments, "--json", "--node", str(directory)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return seconds, found


def started() -> float:
    """Seconds of a process that only starts."""
    began = time.perf_counter()
    subprocess.run([*PROGRAM, "--version"], capture_output=True, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--packets", type=int, default=100_000)
    args = parser.parse_args()
    count = 2_000 if args.quick else args.packets
    seconds = {"start": started()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        node, review, left = folder / "node", folder / "review.orp", folder / "left.orp"
        filled(node, heart_like(), count)
        seconds["show a page"], page = timed(node, "outbox", "show", "--first", "20")
        middle = str(page["shown"][-1]["number"] + count // 2)
        seconds["show a later page"], _ = timed(node, "outbox", "show", "--first", "20", "--after", middle)
        seconds["filter"], flagged = timed(node, "outbox", "show", "--agreeing", "--first", "20")
        readable = ["--readable", str(folder / "review.csv")]
        seconds["export with table"], exported = timed(node, "outbox", "export", "-o", str(review), *readable)
        seconds["reject the flagged"], rejected = timed(node, "outbox", "reject", flagged["digest"], *BY)
        rest = timed(node, "outbox", "show", "--first", "1")[1]
        seconds["approve the rest"], approved = timed(node, "outbox", "approve", rest["digest"], *BY)
        seconds["publish to a file"], published = timed(node, "publish", "-o", str(left), "--to", "nobody")
        seconds["status"], _ = timed(node, "status")
        seconds["verify the log"], log = timed(node, "log", "verify")
        if not approved["approved"] == published["packets"] == count - rejected["rejected"]:
            raise SystemExit("what left is not what was approved")
        found = {
            "packets": count,
            "exported": exported["packets"],
            "flagged": flagged["packets"],
            "log_entries": log["entries"],
            "journal_bytes": (node / "journal.db").stat().st_size,
            "seconds": seconds,
        }
    show(found, args.json)


if __name__ == "__main__":
    main()
