"""Six tiny practices and two synthesizers, from observations to packets that a seventh node receives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from outroute.cli.app import app

from .conftest import IDS, in_json, invoke, rows_of, write_table

SITES = [f"tiny{i}" for i in range(6)]


def key_of(node: str) -> str:
    found = in_json("status", "--node", node)["key"]
    assert isinstance(found, str)
    return found


@pytest.fixture
def tiny(world: Path) -> Path:
    """Six nodes of two patients each, and two synthesizers with nothing of their own."""
    rng = np.random.default_rng(5)
    for site in SITES:
        write_table(world / f"{site}.csv", rows_of(site, 4, 0.0, rng))
        invoke("observe", f"{site}.csv", "--schema", "ward.toml", *IDS, "--node", site)
    for who in ("a", "b"):
        write_table(world / "one.csv", rows_of(who, 1, 0.0, rng))
        invoke("observe", "one.csv", "--schema", "ward.toml", *IDS, "--node", who)
    return world


def give(site: str, first: str, second: str) -> dict[str, object]:
    return in_json(
        "shares", "give", "--to", first, "--to", second, "-o", f"{site}.a", "-o", f"{site}.b", "--by", "Dr. Weber",
        "--node", site,
    )  # fmt: skip


def test_from_tiny_practices_to_packets(tiny: Path) -> None:
    a, b = key_of("a"), key_of("b")
    assert in_json("distil", "--node", "tiny0")["packets"] == 0  # too few for a cohort
    for site in SITES:
        given = give(site, a, b)
        assert (given["observations"], given["left"]) == (2, 2)
    (tiny / "known.txt").write_text("\n".join([f"{key_of(site)}  # {site}" for site in SITES[:-1]]) + "\n")
    for who in "ab":
        files = [f"{site}.{who}" for site in SITES]
        one = in_json("shares", "take", files[0], "--most", "1", "--node", who)
        assert (one["new"], one["refused"]) == (1, {"many": 1})
        taken = in_json("shares", "take", *files, "--sites", "known.txt", "--node", who)
        assert (taken["new"], taken["held"], taken["refused"]) == (9, 10, {"known": 1, "stranger": 2})
        assert in_json("shares", "take", f"{SITES[-1]}.{who}", *files[:1], "--node", who)["refused"] == {"known": 2}
    in_json("shares", "roll", "--with", b, "-o", "a.roll", "--node", "a")
    assert in_json("shares", "roll", "--with", a, "-o", "b.roll", "--node", "b")["contributions"] == 12
    assert in_json("shares", "sum", "b.roll", "-o", "a.sums", "--node", "a")["contributions"] == 12
    assert in_json("shares", "sum", "a.roll", "-o", "b.sums", "--node", "b")["left"] == 0
    made = in_json("shares", "combine", "a.sums", "b.sums", "-o", "a.orp", "--node", "a")
    assert made["observations"] == 12
    assert made["spoilt"] == 0
    invoke("shares", "combine", "b.sums", "a.sums", "-o", "b.orp", "--node", "b")
    assert Path("a.orp").read_bytes() == Path("b.orp").read_bytes()
    assert in_json("receive", "a.orp", "--node", "tiny0")["accepted"] == made["packets"]
    assert Path("a.orp").read_bytes()[40:72].hex() == made["author"]
    # Every share is added up once.
    again = CliRunner().invoke(app, ["shares", "sum", "b.roll", "-o", "again.sums", "--json", "--node", "a"])
    assert again.exit_code == 2
    assert json.loads(again.stdout)["error"]["code"] == "shares.few"
    assert in_json("shares", "take", "tiny0.a", "--node", "a")["refused"] == {"known": 2}


def test_what_left_as_shares_stands_in_the_log_and_leaves_no_other_way(tiny: Path) -> None:
    a, b = key_of("a"), key_of("b")
    given = give("tiny0", a, b)
    entry = in_json("log", "show", "--node", "tiny0")["entries"][-1]
    assert entry["kind"] == "shared"
    assert entry["digest"] == given["digest"]
    assert entry["by"] == "Dr. Weber"
    assert sorted(entry["recipients"]) == sorted([f"synthesizer {a}", f"synthesizer {b}"])
    second = give("tiny1", b, a)
    assert second["observations"] == 2
    # The two other visits of its patients may leave next time; then nothing is left.
    Path("tiny0.a").unlink()
    Path("tiny0.b").unlink()
    assert give("tiny0", a, b)["observations"] == 2
    told = CliRunner().invoke(
        app, ["shares", "give", "--to", a, "--to", b, "-o", "x.a", "-o", "x.b", "--by", "me", "--node", "tiny0"]
    )
    assert told.exit_code == 2
    assert "no observation is ready" in told.stderr
    assert in_json("distil", "--k", "5", "--node", "tiny0")["packets"] == 0
    assert in_json("status", "--node", "tiny0")["known"] == 4  # own answers still use them


def test_mistakes_say_what_to_do(tiny: Path) -> None:
    a = key_of("a")
    for arguments, code in (
        (["give", "--to", a, "--to", a, "-o", "x", "-o", "y", "--by", "me", "--node", "tiny0"], "shares.pair"),
        (["give", "--to", a, "-o", "x", "--by", "me", "--node", "tiny0"], "shares.pair"),
        (["give", "--to", a, "--to", "zz", "-o", "x", "-o", "y", "--by", "me", "--node", "tiny0"], "shares.key"),
        (["sum", "one.csv", "-o", "x", "--node", "a"], "shares.form"),
        (["roll", "--with", a, "-o", "x", "--node", "a"], "shares.pair"),
        (["roll", "--with", key_of("b"), "-o", "x", "--k", "2", "--node", "a"], "privacy.floor"),
        (["combine", "one.csv", "-o", "x", "--node", "a"], "shares.pair"),
    ):
        done = CliRunner().invoke(app, ["shares", *arguments, "--json"])
        assert done.exit_code == 2, arguments
        assert json.loads(done.stdout)["error"]["code"] == code, arguments
    assert not Path("x").exists()
