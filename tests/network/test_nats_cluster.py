"""Three NATS servers that keep a stream together, and the leader killed while packets flow; a gateway with devices.

The benchmarks themselves run here, small: what they find is asserted, never how long it takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 280


def found(benchmark: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{benchmark}", "--quick", "--json"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_leader_that_is_killed_while_packets_flow_loses_nothing_acknowledged() -> None:
    cluster = found("nats_cluster")
    assert cluster["durable"]
    assert cluster["acknowledged"] > 0
    assert (cluster["lost"], cluster["twice"], cluster["everything_read"]) == (0, 0, True)
    assert len(cluster["stall_seconds"]) == 1


def test_what_devices_publish_leaves_in_full_frames() -> None:
    gateway = found("gateway")
    assert gateway["acknowledged"] == gateway["packets"] == gateway["observations"] + 1  # and the one that warmed it up
    assert gateway["bytes_per_device"]["in"] > 0
    # 72 bytes of header and 34 of address are little in a frame of 128 packets, and much in one of a few.
    assert 512 < gateway["bytes_out_per_packet"] < 530
