"""Three NATS servers that keep a stream together, and the leader killed while packets flow."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.nats_cluster import measure


def test_a_leader_that_is_killed_while_packets_flow_loses_nothing_acknowledged(tmp_path: Path) -> None:
    found = asyncio.run(measure(tmp_path, kills=1, between=6.0))
    assert found["durable"]
    assert found["acknowledged"] > 0
    assert (found["lost"], found["twice"], found["everything_read"]) == (0, 0, True)
