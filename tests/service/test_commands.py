"""Every command works while a node runs on its directory, and says the same as without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import IDS, in_json, invoke, write_table
from outroute.packet import PACKET_BYTES
from service.processes import Process, Town, until

BY = ["--by", "Dr. Weber"]


@pytest.fixture
def south(folder: Path) -> Path:
    """A file with all packets of south, which does not run."""
    invoke("observe", "south.csv", "--schema", "ward.toml", *IDS, "--node", "south")
    let_leave("south")
    invoke("publish", "-o", "south.orp", "--to", "north", "--node", "south")
    return folder / "south.orp"


@pytest.fixture
def north(south: Path, town: Town) -> Iterator[Process]:
    """North runs; alone, it keeps its packets itself."""
    process = town.start("north", "--schema", "ward.toml")
    in_json("observe", "north.csv", *IDS, "--node", "north")
    yield process
    assert process.end() == 0


def let_leave(node: str) -> int:
    made = in_json("distil", "--node", node)["packets"]
    digest = in_json("outbox", "show", "--node", node)["digest"]
    assert in_json("outbox", "approve", digest, *BY, "--node", node)["approved"] == made
    return int(made)


def sent() -> bool:
    return in_json("status", "--node", "north")["packets_queued"] == 0


def test_files_go_in_and_out(north: Process, south: Path) -> None:
    alone = in_json("receive", south, "--node", "elsewhere", "--schema", "ward.toml")
    assert in_json("receive", south, "--node", "north") == alone
    assert alone["in_force"]["nodes"] == 1
    Path("cut.orp").write_bytes(south.read_bytes()[:700] + bytes(PACKET_BYTES))
    assert in_json("receive", "cut.orp", "--node", "north", code=1) == in_json(
        "receive", "cut.orp", "--node", "elsewhere", code=1
    )
    told = invoke("receive", "cut.orp", "--node", "north", code=1)
    assert "does not end with a whole packet" in told.stderr
    assert in_json("status", "--node", "north")["received"] == {"packets": alone["accepted"], "nodes": 1}
    assert in_json("ask", "age=61", "--node", "north")["reach"]["packets"] == alone["accepted"]
    assert in_json("evaluate", "north.csv", "--outcome", "sick", "--schema", "ward.toml", "--node", "north", *IDS)

    made = let_leave("north")
    until(sent, "all is sent")
    told = invoke("publish", "-o", "north.orp", "--to", "south", "--node", "north")
    assert "--all writes that to a file too" in told.stderr
    assert not Path("north.orp").exists()
    handed = in_json("publish", "-o", "north.orp", "--to", "south", "--all", "--node", "north")
    assert (handed["packets"], handed["bytes"]) == (made, made * PACKET_BYTES)
    assert Path("north.orp").stat().st_size == made * PACKET_BYTES
    assert in_json("receive", "north.orp", "--node", "south")["accepted"] == made
    entries = in_json("log", "show", "--kind", "sent", "--node", "north")["entries"]
    assert ["file: south"] in [entry.get("recipients") for entry in entries]
    assert "exists already" in invoke("publish", "-o", "north.orp", "--to", "x", "--node", "north", code=2).stderr


def test_the_log_is_the_same_from_both_sides(north: Process) -> None:
    let_leave("north")
    until(sent, "all is sent")
    shown = in_json("log", "show", "--after", "0", "--first", "10000", "--node", "north")
    assert shown["count"] == len(shown["entries"]) > 4
    checked = in_json("log", "verify", "--node", "north")
    assert checked["whole"]
    assert in_json("log", "verify", "--head", shown["head"], "--node", "north")["whole"]
    assert not in_json("log", "verify", "--head", "f" * 64, "--node", "north", code=1)["whole"]
    assert "is a hash" in invoke("log", "verify", "--head", "xyz", "--node", "north", code=2).stderr
    written = in_json("log", "export", "-o", "chain.log", "--node", "north")
    assert written["entries"] >= shown["count"]
    assert in_json("log", "verify", "chain.log", "--head", written["head"])["entries"] == written["entries"]
    told = invoke("log", "show", "--kind", "approved", "--node", "north").stdout
    assert "Dr. Weber" in told
    assert north.end() == 0
    after = in_json("log", "show", "--after", "0", "--first", "10000", "--node", "north")
    assert after["entries"][: shown["count"]] == shown["entries"]
    assert in_json("log", "verify", "--head", written["head"], "--node", "north")["whole"]


def test_what_was_a_mistake_is_taken_back(north: Process) -> None:
    def both(*arguments: str, code: int = 0) -> dict[str, Any]:
        """The same on north, which runs, and on another node with the same table, which does not."""
        running = in_json(*arguments, *BY, "--node", "north", code=code)
        stopped = in_json(*arguments, *BY, "--node", "twin", code=code)
        assert set(running) == set(stopped)
        return running

    invoke("observe", "north.csv", "--schema", "ward.toml", *IDS, "--node", "twin")
    for node in ("north", "twin"):
        let_leave(node)
    until(sent, "all is sent")
    lines = Path("north.csv").read_text().splitlines()
    turned = lines[7].replace(",yes", ",NO").replace(",no", ",yes").replace(",NO", ",no")
    write_table(Path("changed.csv"), [turned])
    for node in ("north", "twin"):
        assert in_json("observe", "changed.csv", *IDS, "--node", node)["conflict"] == 1
    corrected = both("correct")
    assert (corrected["corrected"], corrected["withdrawn"]) == (1, 1)
    done = both("withdraw", "--case", "north-3", "--reason", "entered twice")
    assert done["withdrawn"] + done["dropped"] <= 1
    assert both("withdraw", "--since", "2020-01-01", "--until", "2020-01-31")["withdrawn"] == 0
    erased = both("erase", "north-p9")
    assert erased["observations"] == 2
    assert both("erase", "nobody", code=1)["observations"] == 0
    assert "no case" in invoke("withdraw", "--case", "x", *BY, "--node", "north", code=2).stderr
    packet = next(one for one in in_json("outbox", "show", "--state", "all", "--node", "north")["shown"])
    told = invoke("withdraw", "--packet", packet["digest"], *BY, "--node", "north")
    assert "publish" not in told.stderr
    until(lambda: in_json("status", "--node", "north")["withdrawals_to_send"] == 0, "they are handed over")
    kinds = {one["kind"] for one in in_json("log", "show", "--after", "0", "--node", "north")["entries"]}
    assert {"corrected", "withdrawn"} <= kinds
    said = north.log.read_text()
    assert "north-p9" not in said
    assert json.dumps("north-3") not in said
