"""Two nodes that hand each other files: everything a user does, in order."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from pathlib import Path

import pytest

from outroute.cli._views import show_insight
from outroute.node import Node, Source
from outroute.schema import load

from .conftest import DROP, IDS, PROGRAM, ROWS, in_json, invoke


def test_the_loop_from_a_table_to_a_confirmed_outcome(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    north, south = built / "north.csv", built / "south.csv"
    invoke("schema", "infer", north, "--outcome", "sick", *IDS, *DROP, "-o", "ward.toml")
    invoke("schema", "check", "ward.toml")
    first = invoke("observe", north, "--schema", "ward.toml", *IDS, "--node", "north")
    assert f"{ROWS} rows: {ROWS} new" in first.stdout
    assert "nobody has reviewed age, sex, crp, sick" in first.stderr
    invoke("observe", south, "--schema", "ward.toml", *IDS, "--node", "south")
    again = in_json("observe", north, *IDS, "--node", "north")
    assert (again["added"], again["duplicate"]) == (0, ROWS)

    made = in_json("distil", "--node", "south")
    assert made["packets"] == made["pending"] > 5
    assert made["approved"] == 0
    review = in_json("outbox", "export", "-o", "review.orp", "--readable", "review.csv", "--node", "south")
    assert review["digest"] == hashlib.sha256(Path("review.orp").read_bytes()).hexdigest()
    assert review["bytes"] == Path("review.orp").stat().st_size == 512 * made["packets"]
    assert len(Path("review.csv").read_text(encoding="utf-8-sig").splitlines()) == made["packets"] + 1
    by = ["--by", "Dr. Weber", "--node", "south"]
    assert in_json("outbox", "approve", review["digest"], *by)["approved"] == made["packets"]
    left = in_json("publish", "-o", "south.orp", "--to", "north", "--node", "south")
    assert (left["packets"], left["withdrawals"], left["pending"]) == (made["packets"], 0, 0)
    assert Path("south.orp").read_bytes() == Path("review.orp").read_bytes()
    invoke("publish", "-o", "south.orp", "--to", "north", "--node", "south", code=2)
    assert in_json("publish", "-o", "south.orp", "--to", "north", "--node", "south", "--force")["packets"] == 0
    assert in_json("distil", "--node", "south")["packets"] == 0

    shown = in_json("packet", "inspect", "south.orp", "--schema", "ward.toml", "--first", "2")
    assert shown["packets"] == made["packets"]
    assert {"age", "sex", "crp"} == set(shown["shown"][0]["conditions"])
    assert shown["shown"][0]["subjects"] >= 5
    assert in_json("packet", "verify", "south.orp", "--schema", "ward.toml") == {
        "accepted": made["packets"],
        "refused": {},
    }

    taken = in_json("receive", "south.orp", "--node", "north")
    assert taken == {"accepted": made["packets"], "refused": {}, "in_force": {"packets": made["packets"], "nodes": 1}}
    assert in_json("receive", "south.orp", "--node", "north")["in_force"]["packets"] == made["packets"]

    asked = invoke("ask", "age=61", "sex=f", "--node", "north")
    assert "sick = yes: " in asked.stdout
    assert "own records (" in asked.stdout
    answer = in_json("ask", "age=61", "sex=f", "--node", "north", "--case", "visit-4711")
    assert answer["positive"] == "yes"
    assert 0 <= answer["interval"]["low"] <= answer["estimate"] <= answer["interval"]["high"] <= 1
    assert {s["node"] for s in answer["contributors"]} - {"own"}

    assert in_json("confirm", "visit-4711", "yes", "--node", "north")["result"] == "confirmed"
    assert in_json("confirm", "visit-4711", "yes", "--node", "north")["result"] == "duplicate"
    status = in_json("status", "--node", "north")
    assert (status["known"], status["waiting"], status["questions"]) == (ROWS + 1, 0, 0)
    assert status["received"] == {"packets": made["packets"], "nodes": 1}
    assert "of 1 other node in force" in invoke("status", "--node", "north").stdout


def test_own_packets_do_not_count_as_those_of_another(world: Path) -> None:
    before = in_json("status", "--node", "north")["received"]
    told = invoke("receive", "north.orp", "--node", "north")
    assert "of this node itself" in told.stderr
    assert in_json("status", "--node", "north")["received"] == before


def test_an_outcome_that_comes_later_is_waited_for(world: Path) -> None:
    header, *rows = Path("west.csv").read_text().splitlines()
    first = rows[0].split(",")
    Path("late.csv").write_text("\n".join([header, *(r.rsplit(",", 1)[0] + "," for r in rows)]) + "\n")
    invoke("observe", "late.csv", *IDS, "--schema", "ward.toml", "--node", "west")
    assert in_json("status", "--node", "west")["waiting"] == ROWS
    assert in_json("distil", "--node", "west")["withheld"] == {"no_outcome": ROWS}
    invoke("confirm", first[0], "no", "--node", "west")
    assert in_json("observe", "west.csv", *IDS, "--node", "west")["confirmed"] >= ROWS - 1


def test_a_mapping_and_options_that_say_the_same_are_refused(world: Path) -> None:
    invoke("schema", "mapping", "ward.toml", "west.csv", *IDS, "-o", "mapping.toml")
    told = invoke("observe", "west.csv", "--mapping", "mapping.toml", "--case", "visit", "--node", "north", code=2)
    assert "give one or the other" in told.stderr
    assert in_json("observe", "west.csv", "--mapping", "mapping.toml", "--node", "north")["added"] == ROWS


def test_a_contributor_of_nothing_is_not_named(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Node(load("ward.toml")) as node:
        insight = node.ask({"age": 50})
    assert insight.abstained
    sources = (Source(node="aa" * 32, observations=3.4), Source(node="bb" * 32, observations=0.4))
    show_insight(dataclasses.replace(insight, contributors=sources), positive="yes")
    shown = capsys.readouterr().out
    assert "No answer" in shown
    assert "aaaaaaaaaaaa (3)" in shown
    assert "bbbb" not in shown


def test_help_is_quick_because_heavy_libraries_stay_out() -> None:
    code = (
        "import sys; sys.argv = ['outroute', '--help']\n"
        "from outroute.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'sklearn', 'pyarrow', 'scipy', 'pandas', 'matplotlib', 'sqlite3', 'nacl'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([PROGRAM[0], "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout
