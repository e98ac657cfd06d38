"""Real processes, really killed between observing, distilling and publishing: nothing twice, nothing lost."""

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

from node.making import ALL_LEAVE, QUESTION, Clock, schema_of, table_of
from outroute.node import Node
from outroute.packet import slots
from outroute.schema import OutcomeKind
from outroute.store import State, Which

TESTS = Path(__file__).parent.parent
KILLS = 4
BATCH = 20

#: Observes, distils and publishes without end, and says after each step what is safe. A batch has a number.
WORKER = """
import sys
from node.making import *
from outroute.schema import encode
from outroute.store import State

schema = schema_of(OutcomeKind.BINARY)
number = int(sys.argv[2])
with Node(schema, data_dir=sys.argv[1], clock=Clock(), approval=ALL_LEAVE) as node:
    print("ready", flush=True)
    while True:
        table = table_of(OutcomeKind.BINARY, f"batch {number}", 20)
        cases, late = table.pop("case"), np.array([float(x == "yes") for x in table.pop("late")])
        node.observe_encoded(encode(schema, table).codes, late, cases=cases)
        print("observed", number, flush=True)
        made = node.distil()
        print("distilled", made.observations, flush=True)
        node.publish()
        print("published", len(node.outbox(State.ACKNOWLEDGED)), flush=True)
        number += 1
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_nothing_is_lost_and_nothing_counts_twice(tmp_path: Path) -> None:
    moments = random.Random(3)
    observed: set[int] = set()
    published = 0
    for attempt in range(KILLS):
        start = attempt * 10_000
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(start)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):  # a line cut off by the kill was not said
                word, value = line.split()
                if word == "observed":
                    observed.add(int(value))
                elif word == "published":
                    published = max(published, int(value))
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    assert observed
    schema = schema_of(OutcomeKind.BINARY)
    with Node(schema, data_dir=tmp_path, clock=Clock(), approval=ALL_LEAVE) as node:
        known = node.counts()["known"]
        assert known % BATCH == 0  # whole batches only
        assert known >= BATCH * len(observed)
        for number in observed:
            report = node.observe(table_of(OutcomeKind.BINARY, f"batch {number}", BATCH), case="case")
            assert report.duplicate == BATCH
        assert len(node.outbox(State.ACKNOWLEDGED)) >= published
        node.distil()
        node.publish()
        packets = node.outbox()
        # Every observation is in one packet or still here, and every packet has a slot of its own.
        assert int(packets["size"].sum()) + node.counts()["ready"] == known
        members = node._journal.observations(Which.KNOWN).packet
        assert np.bincount(members[members >= 0], minlength=len(packets) + 1)[1:].tolist() == packets["size"].tolist()
        assert len(set(slots(packets))) == len(packets)
        assert len(node.outbox(State.ACKNOWLEDGED)) == len(packets)
        insight = node.ask(QUESTION)
    with Node(schema, data_dir=tmp_path, clock=Clock(), approval=ALL_LEAVE) as node:
        again = node.ask(QUESTION)
        assert again.to_dict() == insight.to_dict()
        # The store has each packet once: another node that reads it sees them all.
        assert node.transport.shelf.count() == len(packets)  # type: ignore[union-attr]
