"""What leaves, who let it, and taking it back: everything that a privacy officer does, in order."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from .conftest import IDS, ROWS, in_json, invoke, let_leave, program, write_table

BY = ["--by", "Dr. Weber"]


@pytest.fixture
def west(world: Path) -> Path:
    """A third node whose packets wait for approval; south's are with north already."""
    invoke("observe", "west.csv", "--schema", "ward.toml", *IDS, "--node", "west")
    invoke("distil", "--node", "west")
    return world


def pending(node: str = "west", *options: str) -> dict[str, Any]:
    return in_json("outbox", "show", "--first", "10000", *options, "--node", node)


def received(node: str = "north") -> int:
    count = in_json("status", "--node", node)["received"]["packets"]
    assert isinstance(count, int)
    return count


def rest_of(status: dict[str, Any]) -> dict[str, Any]:
    """What a node knows, but for the log that everything adds to."""
    return {name: value for name, value in status.items() if name != "log"}


def test_nothing_leaves_before_its_bytes_are_approved(west: Path) -> None:
    told = invoke("publish", "-o", "west.orp", "--to", "north", "--node", "west")
    assert "still wait for approval" in told.stderr
    assert not Path("west.orp").exists()
    one = pending()["shown"][0]
    assert in_json("outbox", "approve", one["digest"][:12], *BY, "--node", "west")["digest"] == one["digest"]
    assert in_json("publish", "-o", "west.orp", "--to", "north", "--node", "west")["packets"] == 1
    assert hashlib.sha256(Path("west.orp").read_bytes()).hexdigest() == one["digest"]


def test_the_reviewed_bytes_are_those_that_leave(west: Path) -> None:
    shown = pending()
    exported = in_json("outbox", "export", "-o", "review.orp", "--readable", "review.csv", "--node", "west")
    assert exported["digest"] == shown["digest"]
    with open("review.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    data = Path("review.orp").read_bytes()
    for i, (row, view) in enumerate(zip(rows, shown["shown"], strict=True)):
        assert row["digest"] == view["digest"] == hashlib.sha256(data[i * 512 : (i + 1) * 512]).hexdigest()
        assert int(row["subjects"]) == view["subjects"] >= 5
        assert float(row["age (years)"]) == pytest.approx(view["conditions"]["age"], abs=0.06)
        assert int(row["sick = yes"]) == view["outcome"]["yes"]
        assert (row["outcomes_agree"] == "yes") == (0 in view["outcome"].values())
    let_leave("west", Path("west.orp"))
    assert Path("west.orp").read_bytes() == data


def test_one_packet_is_shown_byte_by_byte(west: Path) -> None:
    in_json("outbox", "export", "-o", "review.orp", "--node", "west")
    view = pending()["shown"][1]
    found = in_json("outbox", "show", view["digest"][:12], "--node", "west")
    joined = bytes.fromhex("".join(part["hex"] for part in found["side_by_side"]))
    assert joined == Path("review.orp").read_bytes()[512:1024]
    screen = invoke("outbox", "show", view["identity"], "--node", "west").stdout
    assert "what it says" in screen
    assert f"age: {view['readable']['age']}" in screen
    assert view["digest"] in screen


def test_pages_and_filters_of_a_review(west: Path) -> None:
    whole = pending()
    pages, after = [], 0
    while True:
        page = in_json("outbox", "show", "--first", "3", "--after", str(after), "--node", "west")
        assert page["digest"] == whole["digest"]
        pages += page["shown"]
        if page["next_after"] is None:
            break
        after = page["next_after"]
    assert pages == whole["shown"]
    small = pending("west", "--subjects", "5")
    assert [v["digest"] for v in small["shown"]] == [v["digest"] for v in whole["shown"] if v["subjects"] == 5]
    assert 0 < small["packets"] < whole["packets"]
    in_json("outbox", "approve", small["digest"], *BY, "--node", "west")
    assert {v["subjects"] for v in pending()["shown"]} == {v["subjects"] for v in whole["shown"]} - {5}
    assert pending("west", "--state", "approved")["packets"] == small["packets"]
    agree = pending("west", "--state", "all", "--agreeing")
    assert agree["packets"] == agree["outcomes_agree"] == sum(v["outcomes_agree"] for v in whole["shown"])


def test_outcomes_that_all_agree_are_flagged(world: Path) -> None:
    """Where the data concern persons such cohorts are joined or withheld; so here they are sensors."""
    text = Path("ward.toml").read_text().replace('distiller = "cohort"\nk = 5', 'distiller = "single"\nk = 1')
    Path("single.toml").write_text(text)
    write_table(Path("yes.csv"), [row.rsplit(",", 1)[0] + ",yes" for row in Path("west.csv").read_text().split()[1:]])
    invoke("observe", "yes.csv", "--schema", "single.toml", *IDS, "--node", "west")
    assert "all outcomes agree" in invoke("distil", "--k", "5", "--node", "west").stderr
    told = invoke("outbox", "show", "--state", "all", "--first", "1", "--node", "west")
    assert "CAUTION" in told.stdout
    assert "all outcomes agree" in told.stderr
    found = pending("west", "--state", "all", "--agreeing")
    assert found["packets"] == found["outcomes_agree"] == pending("west", "--state", "all")["packets"] > 0


def test_rejected_bytes_never_leave(west: Path) -> None:
    before = pending()
    one = before["shown"][0]
    assert in_json("outbox", "reject", one["digest"], *BY, "--node", "west")["rejected"] == 1
    assert in_json("distil", "--node", "west")["packets"] == 0
    told = invoke("outbox", "approve", before["digest"], *BY, "--node", "west", code=2)
    assert "no longer waiting for approval" in told.stderr
    assert in_json("status", "--node", "west")["packets_queued"] == 0
    let_leave("west", Path("west.orp"))
    assert one["digest"] not in {
        hashlib.sha256(Path("west.orp").read_bytes()[at : at + 512]).hexdigest()
        for at in range(0, Path("west.orp").stat().st_size, 512)
    }
    assert in_json("outbox", "reject", one["digest"], "--again", *BY, "--node", "west")["again"] is True
    assert in_json("distil", "--node", "west")["observations"] == one["observations"]


def test_rules_approve_within_their_bounds_and_the_rest_waits(west: Path) -> None:
    invoke("outbox", "reject", pending()["digest"], "--again", *BY, "--node", "west")
    Path("rules.toml").write_text('name = "six"\nsubjects_least = 6\nagreeing = false\n')
    made = in_json("distil", "--rules", "rules.toml", "--node", "west")
    assert made["approved"] + made["pending"] == made["packets"]
    assert made["approved"] > 0
    assert made["pending"] > 0
    assert made["approved_by"] == "rule: six"
    for view in pending("west", "--state", "approved")["shown"]:
        assert view["subjects"] >= 6
        assert not view["outcomes_agree"]
    assert all(v["subjects"] < 6 or v["outcomes_agree"] for v in pending()["shown"])
    approved = in_json("log", "show", "--kind", "approved", "--node", "west")["entries"]
    assert approved[-1]["by"] == "rule: six"
    assert Path("west/approve.toml").exists()
    invoke("distil", "--by-hand", "--node", "west")
    assert not Path("west/approve.toml").exists()


def test_a_withdrawn_case_is_dropped_where_its_packet_went(west: Path) -> None:
    let_leave("west", Path("west.orp"))
    invoke("receive", "west.orp", "--node", "north")
    before = received()
    done = in_json("withdraw", "--case", "west-3", *BY, "--reason", "entered twice", "--node", "west")
    assert (done["withdrawn"], done["dropped"]) == (1, 0)
    assert done["freed"] >= 5
    assert received() == before
    left = in_json("publish", "-o", "back.orp", "--to", "north", "--node", "west")
    assert (left["packets"], left["withdrawals"], left["bytes"]) == (0, 1, 512)
    invoke("receive", "back.orp", "--node", "north")
    assert received() == before - 1
    invoke("receive", "west.orp", "--node", "north")
    assert received() == before - 1, "an old copy brought back is refused"
    assert in_json("distil", "--node", "west")["packets"] == 0, "what is left of a cohort waits for k new subjects"


def test_a_packet_that_nobody_approved_is_dropped_and_nothing_is_sent(west: Path) -> None:
    one = pending()["shown"][0]
    done = in_json("withdraw", "--packet", one["digest"], *BY, "--node", "west")
    assert (done["withdrawn"], done["dropped"], done["freed"]) == (0, 1, one["observations"])
    assert in_json("publish", "-o", "x.orp", "--to", "north", "--node", "west")["bytes"] == 0
    assert in_json("distil", "--node", "west")["observations"] == one["observations"]


def test_a_period_is_withdrawn_whole(world: Path) -> None:
    header, *rows = Path("west.csv").read_text().splitlines()
    at = header.split(",").index("day")
    left = []
    for number, day in enumerate(("2025-01-20", "2025-09-20")):
        cells = [row.split(",") for row in rows[number * 40 : number * 40 + 40]]
        for cell in cells:
            cell[at] = day
        write_table(Path("half.csv"), [",".join(cell) for cell in cells])
        invoke("observe", "half.csv", "--schema", "ward.toml", *IDS, "--time", "day", "--node", "west")
        let_leave("west", Path(f"{day}.orp"))
        left.append(Path(f"{day}.orp").stat().st_size // 512)
    days = ["--since", "2025-01-31", "--until", "2025-09-08"]
    assert in_json("withdraw", *days, *BY, "--node", "west")["withdrawn"] == left[0], "a bucket that is cut goes whole"
    assert "No packet" in invoke("withdraw", *days, *BY, "--node", "west").stdout
    days = ["--since", "2025-09-25", "--until", "2025-09-25"]
    assert in_json("withdraw", *days, *BY, "--node", "west")["withdrawn"] == left[1]


def test_values_that_changed_after_leaving_are_corrected(west: Path) -> None:
    let_leave("west", Path("west.orp"))
    header, *rows = Path("west.csv").read_text().splitlines()
    rows[3] = rows[3].rsplit(",", 1)[0] + (",no" if rows[3].endswith("yes") else ",yes")
    write_table(Path("west.csv"), rows)
    assert header
    told = invoke("observe", "west.csv", *IDS, "--node", "west")
    assert "outroute correct" in told.stderr
    assert in_json("status", "--node", "west")["conflicts"] == 1
    done = in_json("correct", *BY, "--node", "west")
    assert (done["corrected"], done["withdrawn"]) == (1, 1)
    assert in_json("status", "--node", "west")["conflicts"] == 0
    assert in_json("observe", "west.csv", *IDS, "--node", "west")["duplicate"] == ROWS


def test_erasing_a_subject_takes_back_every_packet_with_it(west: Path) -> None:
    let_leave("west", Path("west.orp"))
    (Path("who.txt")).write_text("west-p4\n")
    with open("who.txt") as stdin:
        done = program("erase", "-", *BY, "--node", "west", "--json", cwd=west, stdin=stdin)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["observations"] == 2
    assert 1 <= found["withdrawn"] <= 2
    assert in_json("status", "--node", "west")["known"] == ROWS - 2
    assert {v["kind"] for v in pending("west", "--state", "withdrawn")["shown"]} == {"erased"}
    assert "nothing" in invoke("erase", "west-p4", *BY, "--node", "west", code=1).stdout
    assert "west-p4" not in invoke("log", "show", "--after", "0", "--node", "west").stdout


def test_the_log_says_who_and_when_and_is_whole(west: Path) -> None:
    let_leave("west", Path("west.orp"), to="the hospital in the south")
    invoke("ask", "age=50", "--node", "west")
    invoke("withdraw", "--case", "west-3", *BY, "--reason", "entered twice", "--node", "west")
    entries = in_json("log", "show", "--after", "0", "--first", "1000", "--node", "west")["entries"]
    kinds = [entry["kind"] for entry in entries]
    for kind in ("distilled", "reviewed", "approved", "sent", "asked", "withdrawn"):
        assert kind in kinds
    assert kinds.index("distilled") < kinds.index("approved") < kinds.index("sent") < kinds.index("withdrawn")
    by_kind = {entry["kind"]: entry for entry in entries}
    assert by_kind["approved"]["by"] == "Dr. Weber"
    assert any("the hospital in the south" in name for name in by_kind["sent"]["recipients"])
    assert by_kind["withdrawn"]["reason"] == "entered twice"
    text = json.dumps(entries)
    assert "west-3" not in text
    assert '"age"' not in text
    assert [e["number"] for e in entries] == list(range(1, len(entries) + 1))
    head = in_json("log", "verify", "--node", "west")["head"]
    newest = in_json("log", "show", "--first", "2", "--node", "west")
    assert len(newest["entries"]) == 2
    invoke("log", "verify", "--head", head, "--node", "west")


def test_a_log_that_was_touched_is_found_out(west: Path) -> None:
    let_leave("west", Path("west.orp"))
    head = in_json("log", "verify", "--node", "west")["head"]
    shutil.copy("west/journal.db", "kept.db")

    def touched(change: str) -> str:
        database = sqlite3.connect("west/journal.db")
        with database:
            assert database.execute(change).rowcount == 1
        database.close()
        told = invoke("log", "verify", "--node", "west", code=1)
        assert not in_json("log", "verify", "--node", "west", code=1)["whole"]
        shutil.copy("kept.db", "west/journal.db")
        for left in ("west/journal.db-wal", "west/journal.db-shm"):
            Path(left).unlink(missing_ok=True)
        return str(told.stderr)

    text = "CAST(entry AS TEXT)"
    assert "was changed" in touched(
        f"UPDATE log SET entry = replace({text}, 'Dr. Weber', 'Dr. Faust') WHERE {text} LIKE '%Weber%'"
    )
    assert "missing" in touched("DELETE FROM log WHERE number = 2")
    assert "cut off" in touched("DELETE FROM log WHERE number = (SELECT max(number) FROM log)")
    invoke("log", "verify", "--head", head, "--node", "west")


def test_a_log_cut_off_on_its_way_is_found_out(west: Path) -> None:
    exported = in_json("log", "export", "-o", "west.log", "--node", "west")
    assert in_json("log", "verify", "west.log", "--head", exported["head"][:12])["entries"] == exported["entries"]
    lines = Path("west.log").read_text().splitlines(keepends=True)
    for cut in (lines[:-1], lines[:1], [], lines[1:], [*lines[:-1], lines[-1][: len(lines[-1]) // 2]]):
        Path("cut.log").write_text("".join(cut))
        found = in_json("log", "verify", "cut.log", code=1)
        assert found["problems"]
    rewritten = in_json("log", "verify", "west.log", "--head", "ab" * 32, code=1)
    assert "not in this log" in rewritten["problems"][0]


def test_a_copied_directory_says_so_at_its_start(west: Path) -> None:
    let_leave("west", Path("west.orp"))
    shutil.copytree("west", "twin")
    told = invoke("status", "--node", "twin")
    assert "warning:" in told.stderr
    assert "cop" in told.stderr
    kinds = [e["kind"] for e in in_json("log", "show", "--node", "twin")["entries"]]
    assert "copied" in kinds
    assert "copied" not in [e["kind"] for e in in_json("log", "show", "--node", "west")["entries"]]


def test_a_backup_written_over_the_directory_is_said_by_hand(west: Path) -> None:
    def kinds() -> list[str]:
        return [e["kind"] for e in in_json("log", "show", "--after", "0", "--node", "west")["entries"]]

    assert "copied" not in kinds()
    assert "backup" in invoke("status", "--restored", "--node", "west").stderr
    assert kinds().count("copied") == 1
    invoke("status", "--node", "west")
    assert kinds().count("copied") == 1


def test_a_lost_file_can_be_written_again_without_a_new_approval(west: Path) -> None:
    let_leave("west", Path("west.orp"))
    again = in_json("publish", "-o", "again.orp", "--to", "south", "--all", "--node", "west")
    assert Path("again.orp").read_bytes() == Path("west.orp").read_bytes()
    assert again["packets"] > 0


def test_a_successor_takes_new_observations_and_what_is_taken_back_concerns_both(west: Path) -> None:
    let_leave("west", Path("west.orp"))
    parent = in_json("schema", "show", "ward.toml")["id"]
    text = Path("ward.toml").read_text().replace("5 years", "4 years")
    Path("ward-2.toml").write_text(f'parent = "{parent}"\n{text}')
    moved = in_json("schema", "migrate", "ward-2.toml", "--node", "west")
    assert pending("west/next")["packets"] == moved["packets"] > 0
    told = invoke("observe", "west.csv", *IDS, "--node", "west", code=2)
    assert "--node west/next" in told.stderr
    assert in_json("observe", "west.csv", *IDS, "--node", "west/next")["duplicate"] == ROWS
    let_leave("west/next", Path("next.orp"))
    done = in_json("withdraw", "--case", "west-3", *BY, "--node", "west")
    assert done["withdrawn"] == 1
    assert done["successors"] == {"west/next": {"withdrawn": 1, "dropped": 0}}
    for node in ("west", "west/next"):
        left = in_json("publish", "-o", f"{Path(node).name}-back.orp", "--to", "north", "--node", node)
        assert (left["packets"], left["withdrawals"]) == (0, 1)
    erased = in_json("erase", "west-p8", *BY, "--node", "west")
    assert erased["observations"] == 4
    assert in_json("status", "--node", "west/next")["known"] == ROWS - 2
