"""A node that is really killed while it releases: no release without its charge, no charge without its release."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from outroute.store import COUNT_FILE, Which

from .making import DAY, NOW, Clock
from .test_releasing import node_of, private_schema

TESTS = Path(__file__).parent.parent
KILLS = 3

#: Observes and releases without end, a day later each time, and says after each release how many there are.
WORKER = """
import sys
from pathlib import Path
from node.making import DAY, NOW, Clock
from node.test_releasing import node_of, private_schema, see

clock = Clock()
with node_of(private_schema(releases=10_000, m=2), Path(sys.argv[1]), clock) as node:
    made = node.budget().spent.releases
    print("ready", made, flush=True)
    while True:
        see(node, 4, start=4 * made, subjects=[f"p{(4 * made + i) // 3}" for i in range(4)])
        clock.now = NOW + DAY * (made + 1)
        assert node.distil().packets == 9
        made = node.budget().spent.releases
        print("released", made, flush=True)
"""


def test_a_release_and_its_charge_are_one(tmp_path: Path) -> None:
    schema = private_schema(releases=10_000, m=2)
    moments = random.Random(7)
    told = 0
    for _ in range(KILLS):
        environment = os.environ | {"PYTHONPATH": str(TESTS)}
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=TESTS,
        )
        assert worker.stdout is not None
        assert worker.stdout.readline().startswith("ready")
        for _ in range(moments.randrange(2, 6)):
            told = int(worker.stdout.readline().split()[1])
        time.sleep(moments.uniform(0.0, 0.02))  # so that it dies at any point of the next one
        worker.send_signal(signal.SIGKILL)
        rest = worker.communicate()[0].split()
        told = max([told, *(int(word) for word in rest if word.isdigit())])
        clock = Clock()
        clock.now = NOW + DAY * 100_000
        with node_of(schema, tmp_path, clock) as node:
            spent = node.budget().spent
            assert spent.doubt is None
            assert spent.releases >= told
            ranges = node.journal.budget.ranges()
            assert len(node.outbox()) == 9 * spent.releases == int(ranges[:, 1].sum())
            assert ranges[:, 0].tolist() == [1 + 9 * i for i in range(spent.releases)]
            inside = int((node.journal.observations(Which.KNOWN).packet >= 0).sum())
            assert sum(records * subjects for records, subjects in spent.given.items()) == inside
            assert max(spent.given) <= 2
            assert int((tmp_path / COUNT_FILE).read_text()) == spent.releases
