"""Bad input at the real program: one line that says what to do, a non-zero exit, nothing lost or half-written."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest

from .conftest import IDS, PROGRAM, ROWS, fails, in_json, let_leave, program


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


def test_an_output_that_cannot_be_written_hands_nothing_over(world: Path) -> None:
    in_json("observe", "west.csv", "--schema=ward.toml", *IDS, "--node=west")
    in_json("distil", "--node=west")
    digest = in_json("outbox", "show", "--node=west")["digest"]
    waiting = in_json("status", "--node=west")
    for command in (["outbox", "export"], ["publish", "--to=north"]):
        fails(*command, "--node=west", "-o", "nowhere/x.orp", cwd=world, says="There is no folder")
        fails(*command, "--node=west", "-o", "south.orp", cwd=world, says="--force replaces it")
        after = in_json("status", "--node=west")
        assert [after[name] for name in after if name != "log"] == [waiting[name] for name in waiting if name != "log"]
        if command[0] == "outbox":
            in_json("outbox", "approve", digest, "--by=me", "--node=west")
            waiting = in_json("status", "--node=west")
    assert in_json("publish", "--to=north", "--node=west", "-o", "west.orp")["packets"] == waiting["packets_queued"] > 0


def test_what_cannot_run_says_so_in_json_too(world: Path) -> None:
    done = program("ask", "agee=50", "--node=north", "--json", cwd=world)
    assert done.returncode == 2
    assert "did you mean age?" in json.loads(done.stdout)["error"]["message"]


def test_packets_of_another_schema_are_refused_and_the_way_out_is_named(world: Path) -> None:
    (world / "other.toml").write_text((world / "ward.toml").read_text().replace("high = 110", "high = 120"))
    assert program("observe", "west.csv", "--schema=other.toml", *IDS, "--node=west", cwd=world).returncode == 0
    let_leave("west", world / "west.orp")
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


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["outbox", "approve", "ab" * 32, "--by=me"], 2, "outroute outbox show"),
        (["outbox", "approve", "abc", "--by=me"], 2, "12 to 64 hexadecimal digits"),
        (["outbox", "approve", "no digest at all", "--by=me"], 2, "hexadecimal digits"),
        (["outbox", "approve", "ab" * 32], 2, "--by"),
        (["outbox", "approve", "DIGEST", "--by= "], 2, "say who"),
        (["outbox", "approve", "DIGEST", "--by=two\nlines"], 2, "on one line"),
        (["outbox", "reject", "ab" * 32, "--by=me"], 2, "outroute outbox show"),
        (["outbox", "show", "ab" * 32], 2, "No packet of this outbox"),
        (["outbox", "show", "--state=gone"], 2, "'gone' is not one of"),
        (["outbox", "show", "--first=0"], 2, "--first"),
        (["outbox", "export"], 2, "--output"),
        (["outbox", "export", "-o", "."], 2, "exists already"),
        (["publish", "-o", "x.orp"], 2, "--to NAME"),
        (["publish", "--to=north"], 2, "-o FILE"),
        (["publish", "-o", "x.orp", "--to= "], 2, "1 to 200 characters"),
        (["withdraw", "--by=me"], 2, "Say which packets"),
        (["withdraw", "--by=me", "--case=west-3", "--packet=DIGEST"], 2, "Say which packets"),
        (["withdraw", "--by=me", "--case=nobody"], 2, "nobody"),
        (["withdraw", "--by=me", "--packet=" + "ab" * 32], 2, "ab"),
        (["withdraw", "--by=me", "--since=2025-01-01"], 2, "both --since and --until"),
        (["withdraw", "--by=me", "--since=yesterday", "--until=2025-01-01"], 2, "write it as 2025-01-31"),
        (["withdraw", "--by=me", "--since=2025-02-01", "--until=2025-01-01"], 2, "lies after"),
        (["withdraw", "--case=west-3"], 2, "--by"),
        (["erase", "--by=me"], 2, "Missing argument"),
        (["log", "show", "--kind=aproved"], 2, "There is no kind 'aproved'"),
        (["log", "verify", "no.log"], 2, "Cannot read 'no.log'"),
        (["log", "verify", "--head=xyz"], 2, "a head is a hash"),
        (["log", "export", "-o", "south.orp"], 2, "--force replaces it"),
        (["distil", "--rules=none.toml"], 2, "none.toml"),
        (["distil", "--rules=unknown.toml"], 2, "subjects_least"),
        (["distil", "--rules=type.toml"], 2, "subjects_least"),
        (["distil", "--rules=broken.toml"], 2, "broken.toml"),
        (["distil", "--rules=rules.toml", "--by-hand"], 2, "not both"),
    ],
)
def test_misuse_of_governance_is_one_line_and_decides_nothing(
    world: Path, arguments: list[str], code: int, says: str
) -> None:
    in_json("observe", "west.csv", "--schema=ward.toml", *IDS, "--node=west")
    in_json("distil", "--node=west")
    (world / "unknown.toml").write_text('name = "x"\nsubject_least = 6\n')
    (world / "type.toml").write_text('name = "x"\nsubjects_least = "six"\n')
    (world / "broken.toml").write_text('name = "x\n')
    (world / "rules.toml").write_text('name = "x"\nsubjects_least = 6\n')
    digest = in_json("outbox", "show", "--node=west")["digest"]
    before = in_json("status", "--node=west")
    told = fails(*(a.replace("DIGEST", digest) for a in arguments), "--node=west", cwd=world, says=says, code=code)
    assert len([line for line in told.splitlines() if line.startswith("error:")]) <= 1
    after = in_json("status", "--node=west")
    assert {**before, "log": None} == {**after, "log": None}
    assert in_json("outbox", "show", "--node=west")["digest"] == digest
    assert not (world / "west" / "approve.toml").exists()
    assert not (world / "x.orp").exists()
    assert in_json("log", "verify", "--node=west")["whole"]


def test_the_packet_of_another_cannot_be_withdrawn(world: Path) -> None:
    theirs = in_json("packet", "inspect", "south.orp", "--schema=ward.toml", "--first=1")["shown"][0]["identity"]
    before = known(world)
    told = fails("withdraw", f"--packet={theirs}", "--by=me", "--node=north", cwd=world, says="author")
    assert theirs[:12] in told
    assert {**known(world), "log": None} == {**before, "log": None}


def test_a_log_that_was_cut_off_is_one_clear_line(world: Path) -> None:
    in_json("log", "export", "-o", "north.log", "--node=north")
    text = (world / "north.log").read_text()
    (world / "cut.log").write_text(text[: len(text) * 2 // 3])
    told = fails("log", "verify", "cut.log", cwd=world, says="cut off", code=1)
    assert len(told.splitlines()) <= 2
    (world / "noise.log").write_bytes(np.random.default_rng(1).bytes(3000))
    fails("log", "verify", "noise.log", cwd=world, says="warning:", code=1)


def test_bytes_that_changed_since_the_review_are_not_approved(world: Path) -> None:
    in_json("observe", "west.csv", "--schema=ward.toml", *IDS, "--node=west")
    in_json("distil", "--node=west")
    digest = in_json("outbox", "show", "--node=west")["digest"]
    database = sqlite3.connect(world / "west" / "journal.db")
    with database:
        assert database.execute("UPDATE outbox SET body = zeroblob(512) WHERE id = 1").rowcount == 1
    database.close()
    fails("outbox", "approve", digest, "--by=me", "--node=west", cwd=world, says="error:")
    assert known(world, "west")["packets_queued"] == 0


def test_a_schema_signed_by_too_few_makes_no_node(world: Path) -> None:
    for name in ("one", "two"):
        in_json("org", "init", name)
    keys = [in_json("org", "show", "--org", name)["organisation"] for name in ("one", "two")]
    agreed = f'\n[agreement]\norganisations = ["{keys[0]}", "{keys[1]}"]\nquorum = 2\n'
    (world / "agreed.toml").write_text((world / "ward.toml").read_text() + agreed)
    in_json("schema", "sign", "agreed.toml", "--org", "one")
    arguments = ["observe", "west.csv", "--schema=agreed.toml", *IDS, "--node=new"]
    fails(*arguments, cwd=world, says="signed by 1 of the 2 organisations")
    assert not (world / "new").exists()
    in_json("schema", "sign", "agreed.toml", "--org", "two")
    assert program(*arguments, cwd=world).returncode == 0
    (world / "new" / "schema.signatures").unlink()
    fails("distil", "--node=new", cwd=world, says="signed by 0 of the 2 organisations")


def test_a_protected_key_needs_its_passphrase_and_never_shows_it(world: Path) -> None:
    secret = "correct horse battery staple"
    (world / "secret.txt").write_text(secret + "\n")
    (world / "secret.txt").chmod(0o600)
    assert program("org", "protect", "--node=north", "--new-passphrase-file=secret.txt", cwd=world).returncode == 0
    told = fails("status", "--node=north", cwd=world, says="passphrase", stdin=subprocess.DEVNULL)
    wrong = fails("status", "--node=north", cwd=world, says="passphrase", variables={"OUTROUTE_PASSPHRASE": "wrong"})
    done = program("status", "--node=north", cwd=world, variables={"OUTROUTE_PASSPHRASE": secret})
    assert done.returncode == 0, done.stderr
    assert secret not in told + wrong + done.stdout + done.stderr
