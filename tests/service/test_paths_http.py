"""Paths at a node that runs: the same as at the node in its directory once it has stopped."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import IDS, in_json, invoke, let_leave
from service.processes import Process


def test_a_running_node_tells_of_paths(folder: Path) -> None:
    invoke("observe", "south.csv", "--schema", "ward.toml", *IDS, "--node", "south")
    let_leave("south", folder / "south.orp")
    invoke("observe", "north.csv", "--schema", "ward.toml", *IDS, "--node", "north")
    invoke("receive", "south.orp", "--node", "north")
    stopped = in_json("paths", "--node", "north")
    assert stopped["pairs"] == 1
    assert stopped["nodes"][1]["path"]["cells"] > 0
    with_http = Process("--listen", "127.0.0.1:0", "--dht", "off", directory=folder / "north")
    try:
        assert in_json("paths", "--node", "north", "--top", "3") == stopped
        assert "1 pair compared" in invoke("paths", "--node", "north").stderr
    finally:
        assert with_http.end() == 0
