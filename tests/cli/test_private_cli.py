"""A schema with differential privacy, from its file to an answer, and its budget, by the commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outroute.service import Client
from service.processes import Process

from .conftest import IDS, in_json, invoke, rows_of, write_table

import numpy as np  # isort: skip

PRIVATE = """\
name = "ward"

[outcome]
name = "sick"
kind = "binary"
classes = ["no", "yes"]

[privacy]
distiller = "private"
epsilon = 1
m = 1
releases = 2
subject = "patient"

[time]
bucket = "30 days"
lifetime = "5 years"

[landmarks]
kind = "grid"
levels = { age = 4, crp = 3 }

[fields.age]
kind = "numeric"
low = 0
high = 110
unit = "years"
integer = true

[fields.sex]
kind = "categorical"
categories = ["f", "m"]

[fields.crp]
kind = "numeric"
low = 0
high = 300
unit = "mg/l"
"""


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """A schema and two tables of a hundred patients, each with two visits."""
    (tmp_path / "ward.toml").write_text(PRIVATE, encoding="utf-8")
    for number, site in enumerate(("north", "south")):
        write_table(tmp_path / f"{site}.csv", rows_of(site, 200, 0.0, np.random.default_rng(number)))
    return tmp_path


def observed(ward: Path, site: str) -> Path:
    node = ward / site
    invoke("observe", ward / f"{site}.csv", "--schema", ward / "ward.toml", *IDS, "--node", node)
    return node


def test_from_a_schema_to_an_answer(ward: Path) -> None:
    said = in_json("schema", "show", ward / "ward.toml")
    assert (said["privacy"]["distiller"], said["privacy"]["epsilon"], said["landmarks"]["kind"]) == (
        "private",
        "1",
        "grid",
    )
    assert "counts with noise: epsilon 1" in invoke("schema", "show", ward / "ward.toml").output
    invoke("schema", "check", ward / "ward.toml", ward / "north.csv")
    north, south = observed(ward, "north"), observed(ward, "south")
    made = in_json("distil", "--node", south)
    assert (made["packets"], made["observations"], made["withheld"]) == (12, 100, {"spent": 100})
    shown = invoke("outbox", "show", "--node", south, "--first", "1")
    assert "counted with noise" in shown.output
    digest = in_json("outbox", "show", "--node", south)["digest"]
    one = in_json("outbox", "show", "--node", south)["shown"][0]
    assert one["subjects"] is None
    bytes_of = invoke("outbox", "show", one["digest"], "--node", south).output
    assert "counts with noise, whether anybody was observed or not" in bytes_of
    refused = invoke("outbox", "approve", one["digest"], "--by", "W", "--node", south, code=2)
    assert "whole or not at all" in refused.output
    invoke("outbox", "approve", digest, "--by", "W", "--node", south)
    invoke("publish", "-o", ward / "south.orp", "--to", "north", "--node", south)
    assert (ward / "south.orp").stat().st_size == 12 * 512
    invoke("receive", ward / "south.orp", "--node", north)
    insight = in_json("ask", "age=61", "sex=f", "crp=120", "--node", north)
    assert len(insight["contributors"]) == 2
    assert 0 < insight["estimate"] < 1
    again = invoke("distil", "--node", south)
    assert "this time bucket had one" in again.output


def test_what_it_would_give_each_site(ward: Path) -> None:
    header, *north = (ward / "north.csv").read_text(encoding="utf-8").splitlines()
    south = (ward / "south.csv").read_text(encoding="utf-8").splitlines()[1:]
    (ward / "all.csv").write_text("\n".join([header, *north, *south]) + "\n", encoding="utf-8")
    arguments = ["evaluate", ward / "all.csv", "--outcome=sick", "--site=hospital", "--subject=patient"]
    arguments.append(f"--schema={ward / 'ward.toml'}")
    found = in_json(*arguments, "--repeats=1")
    assert (found["packets"], found["records_out"]) == (2 * 12, 0)
    assert found["promise"] == {
        "epsilon": "1",
        "delta": "0",
        "m": 1,
        "subject": "patient",
        "regions": 12,
        "releases": 1,
    }
    shown = " ".join(invoke(*arguments, "--repeats=1").stderr.split())
    assert "counts with noise, one for each of 12 cells: epsilon 1 for each patient, all of it in one release" in shown
    assert "no cohorts to choose --k for" in " ".join(invoke(*arguments, "--k=9", code=2).output.split())


def test_what_peers_releases_give_my_own_cases(ward: Path) -> None:
    south = observed(ward, "south")
    invoke("distil", "--node", south)
    digest = in_json("outbox", "show", "--node", south)["digest"]
    invoke("outbox", "approve", digest, "--by", "W", "--node", south)
    invoke("publish", "-o", ward / "south.orp", "--to", "north", "--node", south)
    arguments = ["evaluate", ward / "north.csv", "--outcome=sick", "--subject=patient", "--repeats=1"]
    found = in_json(*arguments, f"--schema={ward / 'ward.toml'}", f"--packets={ward / 'south.orp'}")
    assert found["peers"] == {"packets": 12, "nodes": 1}
    assert (found["promise"]["epsilon"], found["bytes_out"]) == ("1", 0)


def test_the_budget_and_what_it_forbids(ward: Path) -> None:
    node = observed(ward, "north")
    before = in_json("budget", "--node", node)
    assert (before["releases_left"], before["records"]["waiting"], before["doubt"]) == (2, 200, None)
    invoke("distil", "--node", node)
    after = in_json("budget", "--node", node)
    assert after["subjects"]["by_records_given"] == {"1": 100}
    assert after["records"] == {"waiting": 0, "exhausted": 100}
    assert after["most_epsilon_of_one_subject"] == "1"
    assert "1 of 2 made" in invoke("budget", "--node", node).output
    one = in_json("budget", "--subject", "north-p3", "--node", node)
    assert one["epsilon"] == {"promised": "1", "spent": "1", "spent_under_predecessors": "0"}
    assert one["records"] == {"observed": 2, "given": 1, "left": 0}
    told = invoke("budget", "--subject", "north-p3", "--node", node).output
    assert "epsilon 1 of 1" in told
    assert "north-p3" not in told + json.dumps(one)
    assert "knows nothing" in invoke("budget", "--subject", "nobody", "--node", node, code=1).output
    both = invoke("budget", "--subject", "a", "--vouch", "--by", "W", "--node", node, code=2)
    assert "leave out --subject" in both.output
    case = invoke("withdraw", "--case", "north-3", "--by", "W", "--node", node, code=2)
    assert "nothing is taken back because of one case" in case.output
    assert invoke("erase", "north-p3", "--by", "W", "--node", node)
    assert in_json("budget", "--node", node)["subjects"]["erased"] == 1
    assert in_json("budget", "--subject", "north-p3", "--node", node)["ended"] == "erased"


def test_a_copy_has_to_be_vouched_for(ward: Path) -> None:
    node = observed(ward, "north")
    invoke("distil", "--node", node)
    shutil.copytree(node, ward / "copy")
    refused = invoke("distil", "--node", ward / "copy", code=2)
    assert "outroute budget --vouch" in refused.output
    assert in_json("budget", "--node", ward / "copy")["doubt"] == "copied"
    assert "go together" in invoke("budget", "--vouch", "--node", ward / "copy", code=2).output
    vouched = in_json("budget", "--vouch", "--by", "W", "--node", ward / "copy")
    assert (vouched["doubt"], vouched["releases_left"]) == (None, 1)
    assert "vouched" in invoke("log", "show", "--node", ward / "copy").output


def test_a_draft_with_a_promise(ward: Path) -> None:
    invoke("schema", "infer", ward / "north.csv", "--outcome", "sick", "--epsilon", "0.5", "-o", ward / "draft.toml")
    text = (ward / "draft.toml").read_text(encoding="utf-8")
    assert 'distiller = "private"' in text
    assert "epsilon = 0.5" in text
    said = invoke("schema", "check", ward / "draft.toml").output
    assert "concerns packets, not this file" in " ".join(said.split())


def test_no_budget_for_cohorts(ward: Path) -> None:
    (ward / "cohort.toml").write_text(
        PRIVATE.replace('distiller = "private"\nepsilon = 1\nm = 1\nreleases = 2\n', 'distiller = "cohort"\nk = 5\n'),
        encoding="utf-8",
    )
    invoke("observe", ward / "north.csv", "--schema", ward / "cohort.toml", *IDS, "--node", ward / "n")
    assert "promises no" in " ".join(invoke("budget", "--node", ward / "n", code=2).output.split())


@pytest.fixture
def running(ward: Path) -> Iterator[Process]:
    process = Process("--schema", ward / "ward.toml", directory=ward / "live")
    yield process
    assert process.end() == 0


def test_a_running_node_tells_its_budget(running: Process, ward: Path) -> None:
    invoke("observe", ward / "north.csv", *IDS, "--node", ward / "live")
    assert in_json("distil", "--node", ward / "live")["packets"] == 12
    found = in_json("budget", "--node", ward / "live")
    assert (found["releases_made"], found["subjects"]["by_records_given"]) == (1, {"1": 100})
    assert in_json("budget", "--subject", "north-p3", "--node", ward / "live")["records"]["left"] == 0
    with running.client() as client:
        assert isinstance(client, Client)
        assert client.budget() == found
    assert "nothing to vouch for" in invoke("budget", "--vouch", "--by", "W", "--node", ward / "live", code=2).output
