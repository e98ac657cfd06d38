"""Explanations, comparisons and pins at a node that runs: the same as in its directory once it has stopped."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import IDS, in_json, invoke, let_leave
from service.processes import Process

QUESTION = ("ask", "age=60", "sex=m", "crp=120", "--node", "north")


def test_a_running_node_explains_compares_and_pins(folder: Path) -> None:
    text = Path("ward.toml").read_text(encoding="utf-8")
    Path("acting.toml").write_text(text.replace("[fields.sex]\n", '[fields.sex]\nrole = "action"\n'), encoding="utf-8")
    for name in ("south", "north"):
        invoke("observe", f"{name}.csv", "--schema", "acting.toml", *IDS, "--node", name)
    let_leave("south", folder / "south.orp")
    invoke("receive", "south.orp", "--node", "north")
    explained, compared = in_json(*QUESTION, "--explain"), in_json(*QUESTION, "--by", "sex")
    south = explained["explanation"]["nodes"][0]["node"]
    node = Process("--listen", "127.0.0.1:0", "--dht", "off", directory=folder / "north")
    try:
        assert in_json(*QUESTION, "--explain") == explained
        assert explained["explanation"]["paths"]["pairs"] == 1
        assert in_json(*QUESTION, "--by", "sex") == compared
        assert "Who was believed" in invoke(*QUESTION, "--explain").stdout
        assert "explanation" not in in_json(*QUESTION)
        made = in_json("pin", south[:12], "--by", "Dr. Weber", "--why", "audited", "--node", "north")
        assert made["node"] == south
        assert in_json("pin", "--node", "north")["pinned"] == [made]
        pinned = in_json(*QUESTION, "--explain")["explanation"]
        assert pinned["nodes"][0]["verdict"] == "pinned"
    finally:
        assert node.end() == 0
    assert in_json("pin", "--node", "north")["pinned"] == [made]
    assert in_json(*QUESTION, "--explain")["explanation"] == pinned
    invoke("unpin", south, "--by", "Dr. Weber", "--node", "north")
    assert in_json(*QUESTION, "--explain") == explained
