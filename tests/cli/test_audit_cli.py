"""``outroute audit`` on the small world's tables: what it finds, what it refuses, what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from .conftest import DROP, PROGRAM, fails, in_json, invoke

QUICK = ["--outcome", "sick", *DROP[1:], "--drop", "visit", "--subject", "patient", "--quick"]


def test_sites_are_attacked_beside_federated_averaging(world: Path) -> None:
    found = in_json("audit", world / "all.csv", "--site", "hospital", *QUICK, "--html", world / "audit.html")
    single, cohort = found["packets"]["single records"], found["packets"]["cohorts of 5"]
    assert single["membership"]["likelihood_ratio"]["auc"]["value"] > 0.95
    assert single["reconstruction"]["advantage_db"]["packet"] > 60
    assert cohort["membership"]["likelihood_ratio"]["auc"]["value"] < 0.95
    assert cohort["reconstruction"]["advantage_db"]["packet"] < 10
    settings = found["federated"]["settings"]
    assert {"one step", "20 rounds, secure aggregation", "20 rounds of 5 epochs"} <= set(settings)
    assert any("clipping and noise" in name for name in settings)
    exact = next(row for row in found["federated"]["inversion"] if row["attack"] == "closed form")
    assert exact["advantage_db"] > 60
    assert found["addresses"]["found_open"] == 1.0
    assert found["addresses"]["found_keyed"] == 0.0
    for of in (single, cohort, *settings.values()):
        assert 0 < of["utility"]["auc"] < 1
    _is_one_page((world / "audit.html").read_text(encoding="utf-8"))


def _is_one_page(text: str) -> None:
    """Nothing is fetched, no script runs, plots and tables are there."""
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append(tag)
            assert tag not in ("script", "link", "iframe")
            for name, value in attrs:
                assert name not in ("src", "srcset") or (value or "").startswith("data:")

    Reader().feed(text)
    assert seen.count("svg") == 3
    assert seen.count("table") == 4
    assert not re.search(r"url\((?!#)", text)


def test_one_site_alone(world: Path) -> None:
    found = in_json("audit", world / "north.csv", "--schema", world / "ward.toml", "--no-federated", *QUICK)
    assert list(found["sites"]) == ["own"]
    assert "federated" not in found
    assert found["packets"]["cohorts of 5"]["membership"]["subjects"] == 40


def test_the_same_seed_finds_the_same(world: Path) -> None:
    runs = [in_json("audit", world / "north.csv", "--no-federated", "--seed", "3", *QUICK) for _ in range(2)]
    for run in runs:
        run.pop("seconds_in_all")
    assert runs[0] == runs[1]


def test_for_people(world: Path) -> None:
    text = " ".join(invoke("audit", world / "north.csv", "--k", "8", "--no-federated", *QUICK).stdout.split())
    assert "cohorts of 8" in text
    assert "Naming members" in text
    assert "guarantees nothing" in text
    assert "+6 dB halves the error" in text
    assert not re.search(r"\+(?:[6-9]\d|1\d\d)\.\d+ dB (?:for people|;)", text), "beyond 60 it says that it is exact"
    assert "?." not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["all.csv", "--outcome", "sic", "--site", "hospital"], "sic"),
        (["all.csv", "--outcome", "sick", "--site", "clinic"], "clinic"),
        (["nothing.csv", "--outcome", "sick"], "nothing.csv"),
        (["all.csv", "--outcome", "sick", "--html", "no/where.html"], "There is no folder"),
        (["all.csv", "--outcome", "sick", "--html", "."], "is a folder"),
        (["all.csv", "--outcome", "sick", "--k", "1"], "--k"),
        (["all.csv", "--outcome", "sick", "--epsilon", "0"], "--epsilon"),
    ],
)
def test_bad_input_says_what_is_wrong(world: Path, arguments: list[str], says: str) -> None:
    fails("audit", *arguments, cwd=world, says=says)


def test_three_records_are_too_few_to_say_much(world: Path) -> None:
    lines = (world / "north.csv").read_text().splitlines()
    (world / "few.csv").write_text("\n".join(lines[:4]) + "\n")
    fails("audit", "few.csv", "--outcome", "sick", "--quick", cwd=world, says="rows")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupted_it_leaves_the_old_report(world: Path) -> None:
    """The report is written whole at the end, or not at all."""
    report = world / "audit.html"
    report.write_text("old")
    before = sorted(path.name for path in world.iterdir())
    command = [*PROGRAM, "audit", "all.csv", "--site", "hospital", *QUICK[:-1], "--html", "audit.html"]
    process = subprocess.Popen(command, cwd=world, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    deadline = time.monotonic() + 120
    while "membership" not in process.stderr.readline():  # it says what it does, so it is at work
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert report.read_text() == "old"
    assert sorted(path.name for path in world.iterdir()) == before
