"""``outroute groups``: the operator of a fleet says which nodes belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from outroute.errors import DataError
from outroute.node.groups import load_groups, sizes

from .conftest import IDS, fails, in_json, invoke, let_leave

QUESTION = ("age=60", "sex=m", "crp=120")


def node_id(name: str) -> str:
    return str(in_json("status", "--node", name)["node"])


def refused(*arguments: str, told: str) -> None:
    assert told in " ".join(invoke(*arguments, code=2).output.split())


@pytest.fixture
def fleet(world: Path) -> Path:
    """A newcomer that knows packets of west, east and two copies of a device that reports outcomes turned round."""
    text = Path("west.csv").read_text(encoding="utf-8")
    turned = text.replace(",yes\n", ",?\n").replace(",no\n", ",yes\n").replace(",?\n", ",no\n")
    for name in ("wrong", "wrong2", "wrong3"):
        Path(f"{name}.csv").write_text(turned.replace("west-", f"{name}-"), encoding="utf-8")
    Path("east.csv").write_text(text.replace("west-", "east-"), encoding="utf-8")
    for name in ("west", "east", "wrong", "wrong2", "wrong3"):
        invoke("observe", f"{name}.csv", "--schema", "ward.toml", *IDS, "--node", name)
        let_leave(name, Path(f"{name}.orp"))
        invoke("receive", f"{name}.orp", "--schema", "ward.toml", "--node", "newcomer")
    return world


@pytest.mark.usefixtures("fleet")
def test_most_groups_decide_where_nobody_certifies_and_not_most_nodes() -> None:
    wrong = [node_id(name) for name in ("wrong", "wrong2", "wrong3")]
    before = in_json("ask", *QUESTION, "--node", "newcomer", "--explain")
    assert before["basis"] == "consensus"
    models = {node_id("west"): "model a", node_id("east"): "model b", **dict.fromkeys(wrong, "model c")}
    Path("models.csv").write_text("node,group\n" + "".join(f"{n},{g}\n" for n, g in models.items()), encoding="utf-8")
    shown = invoke("groups", "models.csv", "--node", "newcomer").stdout
    assert all(group in shown for group in ("model a", "model b", "model c"))
    assert in_json("groups", "--node", "newcomer") == {
        "groups": {"model c": 3, "model a": 1, "model b": 1},
        "nodes": 5,
    }
    after = in_json("ask", *QUESTION, "--node", "newcomer", "--explain")
    assert after["basis"] == "declared groups"

    def share(found: dict[str, object]) -> float:
        nodes = found["explanation"]["nodes"]  # type: ignore[index]
        return sum(one["weight"] for one in nodes if one["node"] in wrong) / sum(one["weight"] for one in nodes)

    assert share(after) < share(before)
    assert "most declared groups" in invoke("ask", *QUESTION, "--node", "newcomer", "--explain").stdout
    assert invoke("groups", "--clear", "--node", "newcomer").stdout.strip() == "No groups are declared."
    assert in_json("ask", *QUESTION, "--node", "newcomer")["basis"] == "consensus"


@pytest.mark.usefixtures("world")
def test_a_file_that_is_none_changes_nothing() -> None:
    one = "ab" * 32
    Path("good.csv").write_text(f"node,group\n{one},model a\n", encoding="utf-8")
    invoke("groups", "good.csv", "--node", "north")
    for content, told in (
        (f"{one},model a\n", "must begin with the line"),
        ("node,group\n", "names no node"),
        (f"node,group\n{one[:20]},model a\n", "no node's id"),
        (f"node,group\n{one},\n", "1 to 64 bytes"),
        (f"node,group\n{one},{'é' * 33}\n", "1 to 64 bytes"),
        (f"node,group\n{one},a,b\n", "not 3 cells"),
        (f"node,group\n{one},model a\n{one.upper()},model b\n", "in group 'model a' already"),
    ):
        Path("bad.csv").write_text(content, encoding="utf-8")
        refused("groups", "bad.csv", "--node", "north", told=told)
    Path("bad.csv").write_bytes(b"\xff\xfe")
    refused("groups", "bad.csv", "--node", "north", told="not UTF-8")
    refused("groups", "good.csv", "--clear", "--node", "north", told="not both")
    fails("groups", "away.csv", "--node", "north", cwd=Path.cwd(), says="cannot read")
    assert json.loads(invoke("groups", "--node", "north", "--json").stdout)["groups"] == {"model a": 1}


def test_a_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("node,group\n" + "".join(f"{i:064x},model {i % 3}\n" for i in range(1, 9)), encoding="utf-8")
    assert sizes(load_groups(file)) == {"model 1": 3, "model 2": 3, "model 0": 2}
    monkeypatch.setattr("outroute.node.groups.GROUPS_BYTES", 100)
    with pytest.raises(DataError, match="larger than 100 bytes"):
        load_groups(file)
