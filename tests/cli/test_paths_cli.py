"""``outroute paths``: table, JSON and picture of the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import IDS, fails, in_json, invoke, let_leave


@pytest.fixture
def three(world: Path) -> Path:
    """North knows packets of south and of a hospital that reports every outcome the wrong way round."""
    text = Path("west.csv").read_text(encoding="utf-8")
    turned = text.replace(",yes\n", ",?\n").replace(",no\n", ",yes\n").replace(",?\n", ",no\n")
    Path("wrong.csv").write_text(turned, encoding="utf-8")
    invoke("observe", "wrong.csv", "--schema", "ward.toml", *IDS, "--node", "wrong")
    let_leave("wrong", Path("wrong.orp"))
    invoke("receive", "wrong.orp", "--node", "north")
    return world


@pytest.mark.usefixtures("three")
def test_table_and_json_say_the_same() -> None:
    found = in_json("paths", "--node", "north")
    assert found["pairs"] == 3
    own, south, wrong = found["nodes"]
    assert own["node"] == "own"
    assert south["path"]["strength"] > 0 > wrong["path"]["strength"]
    assert found["contradictions"][0]["strength"] <= found["contradictions"][-1]["strength"] < 0
    shown = invoke("paths", "--node", "north", "--top", "1")
    text = " ".join(shown.stdout.split())
    for node in (south, wrong):
        assert node["node"][:12] in text
        assert f"{node['path']['strength']:+.2f} (" in text
        assert node["path"]["verdict"] in text
    assert "this node" in text
    assert "Strongest contradictions" in text
    assert "3 pairs compared" in shown.stderr


@pytest.mark.usefixtures("three")
def test_a_picture_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    invoke("paths", "--node", "north", "--plot", "paths.svg")
    drawn = Path("paths.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml")
    assert "3 of 3 nodes" in drawn
    invoke("paths", "--node", "north", "--plot", "paths.png")
    assert Path("paths.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_or_compared_is_said(world: Path) -> None:
    pytest.importorskip("matplotlib")
    invoke("observe", "west.csv", "--schema", "ward.toml", *IDS, "--node", "west")
    assert "nobody to compare" in " ".join(invoke("paths", "--node", "west").stderr.split())
    fails("paths", "--node", "west", "--plot", "paths.png", cwd=world, says="no two nodes")
    fails("paths", "--node", "north", "--plot", "paths.docx", cwd=world, says="cannot write paths.docx")
    fails("paths", "--node", "nowhere", cwd=world, says="There is no node")
