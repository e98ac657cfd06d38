"""Bad input at the real program: one line that says what to do, a non-zero exit, nothing lost or half-written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest

from .conftest import IDS, PROGRAM, ROWS, fails, in_json, program


def known(world: Path, node: str = "north") -> dict[str, object]:
    """What a node knows; that it opens at all is half of the test."""
    done = program("status", "--node", node, "--json", cwd=world)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def edited(world: Path, column: str, row: int, value: str) -> Path:
    """north.csv with another value in one place."""
    header, *rows = (world / "north.csv").read_text().splitlines()
    cells = rows[row].split(",")
    cells[header.split(",").index(column)] = value
    rows[row] = ",".join(cells)
    path = world / "edited.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (",crp,", ",crpp,", "Did you mean 'crpp'?"),
        (",crp,", ",c_reactive,", "lacks 'crp'"),
        ("visit,", "visitt,", "Did you mean 'visitt'?"),
    ],
)
def test_a_missing_column_is_named_before_a_node_is_made(world: Path, old: str, new: str, says: str) -> None:
    text = (world / "north.csv").read_text()
    (world / "renamed.csv").write_text(text.replace(old, new, 1))
    fails("observe", "renamed.csv", "--schema=ward.toml", *IDS, "--node=fresh", cwd=world, says=says)
    assert not (world / "fresh").exists()


def test_a_wrong_unit_is_suspected(world: Path) -> None:
    header, *rows = (world / "north.csv").read_text().splitlines()
    at = header.split(",").index("crp")
    cells = [row.split(",") for row in rows]
    for row in cells:  # mg/l in a table of ug/l
        row[at] = str(float(row[at]) * 1000 + 1000)
    (world / "unit.csv").write_text("\n".join([header, *(",".join(row) for row in cells)]) + "\n")
    told = fails("observe", "unit.csv", "--schema=ward.toml", *IDS, "--node=fresh", cwd=world, says="crp", code=2)
    assert "unit" in told


def test_a_value_out_of_range_refuses_its_row_and_keeps_the_others(world: Path) -> None:
    path = edited(world, "crp", 4, "9999")
    told = fails(
        "observe", path, "--schema=ward.toml", *IDS, "--node=fresh", cwd=world, says="outside the range", code=1
    )
    assert "row 5 (case north-4)" in told
    assert known(world, "fresh")["known"] == ROWS - 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["status", "--node=nobody"], 2, "There is no node in 'nobody'"),
        (["status", "--node=north.csv"], 2, "'north.csv' is a file"),
        (["observe", "north.csv", *IDS, "--node=nobody"], 2, "with --schema"),
        (["observe", "north.csv", "--schema=ward.toml", "--node=new"], 2, "Name the column that names a case"),
        (["observe", "nort.csv", "--schema=ward.toml", *IDS, "--node=new"], 2, "Did you mean 'north.csv'"),
        (["observe", "north.csv", "--schema=no.toml", *IDS, "--node=new"], 2, "no.toml"),
        (["observe", "west.csv", "--schema=other.toml", *IDS, "--node=north"], 2, "belongs to schema 'ward'"),
        (["ask", "agee=50", "--node=north"], 2, "did you mean age?"),
        (["ask", "sex=x", "--node=north"], 2, "the schema allows f, m"),
        (["ask", "age=500", "--node=north"], 2, "the schema allows 0 to 110"),
        (["ask", "age=old", "--node=north"], 2, "not a number"),
        (["ask", "age", "--node=north"], 2, "write field=value"),
        (["confirm", "nobody", "yes", "--node=north"], 1, ""),
        (["confirm", "north-1", "perhaps", "--node=north"], 2, "is not one of no, yes"),
        (["distil", "--k=2", "--node=north"], 2, "below the floor of schema 'ward': at least 5"),
        (["receive", "no.orp", "--node=north"], 2, "Cannot read 'no.orp'"),
        (["receive", ".", "--node=north"], 2, "Is a directory"),
        (["receive", "empty.orp", "--node=north"], 2, "is empty"),
        (["packet", "inspect", "tiny.orp"], 2, "it was cut off"),
        (["packet", "inspect", "noise.orp"], 2, "not a packet of version 1"),
        (["packet", "verify", "south.orp", "--schema=other.toml"], 1, ""),
        (["evalute", "x"], 2, "Did you mean 'evaluate'?"),
        (["status", "--nod=north"], 2, "--node"),
        (["ask", "--node=north"], 2, "Missing argument"),
    ],
)
def test_misuse_is_one_line_and_changes_nothing(world: Path, arguments: list[str], code: int, says: str) -> None:
    (world / "other.toml").write_text((world / "ward.toml").read_text().replace("high = 110", "high = 120"))
    (world / "empty.orp").write_bytes(b"")
    (world / "tiny.orp").write_bytes((world / "south.orp").read_bytes()[:300])
    (world / "noise.orp").write_bytes(np.random.default_rng(1).bytes(5000))
    before = in_json("status", "--node=north")
    told = fails(*arguments, cwd=world, says=says, code=code)
    assert len([line for line in told.splitlines() if line.startswith("error:")]) <= 1
    assert in_json("status", "--node=north") == before
    assert not (world / "new").exists()


def test_an_output_that_cannot_be_written_leaves_observations_ungrouped(world: Path) -> None:
    in_json("observe", "west.csv", "--schema=ward.toml", *IDS, "--node=west")
    before = in_json("status", "--node=west")
    fails("distil", "--node=west", "-o", "nowhere/x.orp", cwd=world, says="There is no folder")
    fails("distil", "--node=west", "-o", "south.orp", cwd=world, says="--force replaces it")
    assert in_json("status", "--node=west") == before


def test_what_cannot_run_says_so_in_json_too(world: Path) -> None:
    done = program("ask", "agee=50", "--node=north", "--json", cwd=world)
    assert done.returncode == 2
    assert "did you mean age?" in json.loads(done.stdout)["error"]["message"]


def test_packets_of_another_schema_are_refused_and_the_way_out_is_named(world: Path) -> None:
    (world / "other.toml").write_text((world / "ward.toml").read_text().replace("high = 110", "high = 120"))
    for command in (["observe", "west.csv", "--schema=other.toml", *IDS], ["distil", "-o", "west.orp"]):
        assert program(*command, "--node=west", cwd=world).returncode == 0
    before = known(world)["received"]
    told = fails("receive", "west.orp", "--node=north", cwd=world, says="of another schema", code=1)
    assert "This node serves schema 'ward'" in told
    assert known(world)["received"] == before


def test_a_file_that_was_cut_off_gives_its_whole_packets(world: Path) -> None:
    (world / "cut.orp").write_bytes((world / "north.orp").read_bytes()[: 512 + 188])
    fails("receive", "cut.orp", "--node=south", cwd=world, says="it was cut off on its way", code=1)
    assert known(world, "south")["received"] == {"packets": 1, "nodes": 1}


def test_random_bytes_are_refused_and_counted(world: Path) -> None:
    (world / "noise.orp").write_bytes(np.random.default_rng(1).bytes(20 * 512))
    before = known(world)["received"]
    done = program("receive", "noise.orp", "--node=north", "--json", cwd=world)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["accepted"], sum(found["refused"].values())) == (0, 20)
    assert known(world)["received"] == before


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs /proc/self/mem, a file that nobody can read")
def test_a_file_that_cannot_be_read(world: Path) -> None:
    fails("observe", "/proc/self/mem", "--schema=ward.toml", *IDS, "--node=new", cwd=world, says="reading stopped")
    fails("receive", "/proc/self/mem", "--node=north", cwd=world, says="/proc/self/mem")
    assert not (world / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(world: Path) -> None:
    (world / "north.csv").chmod(0)
    fails("observe", "north.csv", "--schema=ward.toml", *IDS, "--node=new", cwd=world, says="north.csv")


def test_a_node_is_private(world: Path) -> None:
    assert stat.S_IMODE((world / "north").stat().st_mode) == 0o700
    assert stat.S_IMODE((world / "north" / "node.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("command", [["packet", "inspect", "south.orp", "--first=50"], ["schema", "show", "ward.toml"]])
def test_a_reader_that_goes_away_is_no_error(world: Path, command: list[str]) -> None:
    running = subprocess.Popen(
        [*PROGRAM, *command], cwd=world, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    said = running.stderr.read()
    assert running.wait(60) == 141
    assert "Traceback" not in said
    assert "rror" not in said
    running.stderr.close()
