"""Real processes, really killed at random moments: what was acknowledged is there, and nothing is damaged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from outroute.packet import identities
from outroute.store import Journal, PacketStore, Which
from store.making import NOW, SCHEMA, make_packets, place

TESTS = Path(__file__).parent.parent
KILLS = 10

#: Writes without end, and says after each commit what it was told is safe. Numbers go on from argument 2.
WRITER = """
import sys
import numpy as np
from outroute.store import Journal, PacketStore, Which
from store.making import BUCKET_SECONDS, NOW, SCHEMA, make_packets, place

store = PacketStore(sys.argv[1])
journal = Journal(sys.argv[1], schema_id=SCHEMA.id, width=SCHEMA.width, now=NOW)
number = int(sys.argv[2])
print("ready", flush=True)
while True:
    packets = make_packets(16, first=16 * number)
    store.put([place(i % 3) for i in range(16)], packets, bucket_seconds=BUCKET_SECONDS, now=NOW)
    print("packets", number, flush=True)
    cases = range(16 * number, 16 * number + 16)
    codes = np.full((16, SCHEMA.width), number % 60000, dtype=np.uint16)
    journal.observe(cases, codes, np.ones(16), bucket=np.zeros(16, dtype=np.int64))
    print("observed", number, flush=True)
    rows = journal.observations(Which.READY).rows
    first = journal.outbox.reserve(1)
    print("sequence", first, flush=True)
    journal.outbox.add(make_packets(1, author=1, first=first), [place(0)], [rows])
    print("queued", first, flush=True)
    number += 1
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    moments = random.Random(20)
    said: dict[str, list[int]] = {"packets": [], "observed": [], "sequence": [], "queued": []}
    number = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):  # a line cut off by the kill was not said
                word, value = line.split()
                said[word].append(int(value))
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        number += 1000
    assert len(said["packets"]) > KILLS
    with PacketStore(tmp_path) as store:
        held = {i for f in store.fetch([place(i) for i in range(3)], now=NOW, cap=10**6) for i in identities(f.packets)}
    for written in said["packets"]:
        assert held >= set(identities(make_packets(16, first=16 * written)))
    with Journal(tmp_path, schema_id=SCHEMA.id, width=SCHEMA.width, now=NOW) as journal:
        found = journal.observations(Which.KNOWN)
        codes = set(found.codes[:, 0].tolist())
        assert codes >= {written % 60000 for written in said["observed"]}
        assert len(found.rows) % 16 == 0  # whole batches only
        assert len(set(said["sequence"])) == len(said["sequence"])
        queued = journal.outbox.queued(limit=10**6)
        assert set(queued.packets["sequence"].tolist()) >= set(said["queued"])
        assert journal.outbox.reserve(1) > max(said["sequence"])
        in_packets = np.bincount(found.packet[found.packet >= 0])
        assert in_packets.sum() >= 16 * len(said["queued"])
