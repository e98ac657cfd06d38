"""``ask --explain``, ``ask --by``, ``pin`` and ``unpin``: tables, JSON and a picture of the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from outroute.cli import _explain
from outroute.cli._explain import MADE_FROM
from outroute.node.aged import Aged
from outroute.node.resting import Rests
from outroute.synthesis.settings import NAMES

from .conftest import IDS, SCHEMA, fails, in_json, invoke, let_leave

QUESTION = ("age=60", "sex=m", "crp=120")


@pytest.fixture
def known(world: Path) -> Path:
    """North knows packets of south, of west, and of a hospital that reports every outcome the wrong way round."""
    text = Path("west.csv").read_text(encoding="utf-8")
    turned = text.replace(",yes\n", ",?\n").replace(",no\n", ",yes\n").replace(",?\n", ",no\n")
    Path("wrong.csv").write_text(turned, encoding="utf-8")
    for name in ("west", "wrong"):
        invoke("observe", f"{name}.csv", "--schema", "ward.toml", *IDS, "--node", name)
        let_leave(name, Path(f"{name}.orp"))
        invoke("receive", f"{name}.orp", "--node", "north")
    return world


def plain(text: str) -> str:
    """Without lines of tables, and in one line."""
    return " ".join(re.sub("[│┃┌┐└┘├┤─━┏┓┗┛┡┩╇┳┴┬┼]", " ", text).split())


@pytest.mark.usefixtures("known")
def test_an_explanation_names_who_was_believed_and_why() -> None:
    found = in_json("ask", *QUESTION, "--node", "north", "--explain")
    reasons: dict[str, Any] = found["explanation"]
    wrong = json.loads(invoke("status", "--node", "wrong", "--json").stdout)["node"]
    verdicts = {one["node"]: one["verdict"] for one in reasons["nodes"]}
    assert verdicts.pop(wrong) == "contradicted"
    assert set(verdicts.values()) <= {"proven", "unproven"}
    assert reasons["basis"] == found["basis"] == "own outcomes"
    text = plain(invoke("ask", *QUESTION, "--node", "north", "--explain").stdout)
    assert "Other nodes were judged by the 80 outcomes that you observed yourself." in text
    assert "Who was believed" in text
    assert "What each calculation said" in text
    for one in reasons["nodes"]:
        assert one["node"][:12] in text
        assert one["verdict"] in text
    for one in reasons["calculations"]:
        weights = f"{one['before']:.0%} {one['prior']:.0%} {one['weight']:.0%}"
        assert f"{one['name']} {MADE_FROM[one['name']]} {one['estimate']:.1%} {weights}" in text
    for lost in reasons["lost"]:
        assert lost["packet"][:12] in text
    assert "Near this case: " in text
    assert "(no organisation certifies them, so each stands for itself)" in text
    assert "80 own outcomes; observed between 20" in text
    assert f"in {reasons['everything']['packets']} packets of" in text
    without = in_json("ask", *QUESTION, "--node", "north")
    assert "explanation" not in without
    assert without["estimate"] == found["estimate"]


@pytest.mark.usefixtures("known")
def test_the_strongest_paths_behind_an_answer_are_told() -> None:
    paths = in_json("ask", *QUESTION, "--node", "north", "--explain")["explanation"]["paths"]
    wrong = in_json("status", "--node", "wrong")["node"]
    assert (paths["nodes"], paths["own"], paths["pairs"]) == (4, True, 6)
    assert paths["contradictions"]
    assert all(wrong in (one["left"], one["right"]) for one in paths["contradictions"])
    text = plain(invoke("ask", *QUESTION, "--node", "north", "--explain").stdout)
    assert "Who agrees with whom" in text
    assert "6 paths between the 4 nodes behind this answer, your own records as one of them" in text
    for one in (*paths["corroborations"], *paths["contradictions"]):
        left, right = (
            "your own records" if end == "own" else end[:12] + " (contradicted)" * (end == wrong)
            for end in (one["left"], one["right"])
        )
        assert f"{left} {right} {one['strength']:+.2f} (" in text
        assert {"corroborates": "corroborate: ", "contradicts": "contradict: ", "undecided": "may be chance"}[
            one["verdict"]
        ] in text


def test_every_calculation_is_described() -> None:
    assert set(MADE_FROM) == set(NAMES)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (60, "1 minute"),
        (7_000, "117 minutes"),
        (3 * 3_600, "3 hours"),
        (30 * 86_400, "30 days"),
        (420 * 86_400, "14 months"),
        (3 * 365 * 86_400, "3.0 years"),
    ],
)
def test_a_time_is_told_as_people_say_it(seconds: int, told: str) -> None:
    assert _explain._duration(seconds) == told


@pytest.mark.parametrize(
    ("nodes", "organisations", "uncertified", "told"),
    [
        (0, 0, 0, "no other node"),
        (1, 1, 1, "1 node (no organisation certifies it)"),
        (5, 2, 0, "5 nodes (2 organisations)"),
        (4, 3, 1, "4 nodes (2 organisations, and 1 node that none certifies)"),
    ],
)
def test_organisations_are_told_from_nodes_that_nobody_certifies(
    nodes: int, organisations: int, uncertified: int, told: str
) -> None:
    rests = Rests(
        packets=9,
        observations=45.0,
        nodes=nodes,
        organisations=organisations,
        uncertified=uncertified,
        own=0,
        first=None,
        last=None,
        until=None,
    )
    assert _explain._from_whom(rests) == told


@pytest.mark.parametrize(
    ("aged", "told"),
    [
        (Aged(half_life=None), "old counts as what is new: your own outcomes show no half-life that tells better"),
        (Aged(half_life=45 * 86_400), "45 days old counts half, as your own outcomes say"),
        (
            Aged(half_life=365 * 86_400, since=1_700_000_000, left_out=1),
            "12 months old counts half, as your own outcomes say; 1 own outcome from before 2023-11-14 is left out",
        ),
    ],
)
def test_how_fast_things_age_is_told(aged: Aged, told: str) -> None:
    assert _explain._ageing(aged) == f"What is {told}."


@pytest.mark.usefixtures("known")
def test_a_picture_is_drawn_of_an_explanation() -> None:
    pytest.importorskip("matplotlib")
    done = invoke("ask", *QUESTION, "--node", "north", "--plot", "why.svg")
    assert "Picture: why.svg" in done.stderr
    assert "Who was believed" in done.stdout  # a picture is of an explanation
    drawn = Path("why.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml")
    assert "contradicted" in drawn
    assert "interval" in drawn
    assert "Who agrees with whom" in drawn
    assert "your own records and " in drawn
    assert "corroborates" in drawn


def test_what_cannot_be_explained_or_drawn_is_said(world: Path) -> None:
    pytest.importorskip("matplotlib")
    fails("ask", *QUESTION, "--node", "north", "--plot", "why.docx", cwd=world, says="cannot write why.docx")
    fails("ask", *QUESTION, "--node", "north", "--by", "sex", cwd=world, says='role = "action"')
    fails("ask", *QUESTION, "--node", "north", "--values", "f", cwd=world, says="name it with --by")
    fails("ask", *QUESTION, "--node", "north", "--by", "sex", "--explain", cwd=world, says="leave out --explain")
    fails("pin", "south", "--by", "W", "--node", "north", cwd=world, says="names no node")
    fails("pin", "0" * 12, "--by", "W", "--node", "north", cwd=world, says="no node that is known")
    fails("pin", "0" * 64, "--node", "north", cwd=world, says="--by")
    fails("unpin", "0" * 64, "--by", "W", "--node", "north", cwd=world, says="not pinned")


def test_who_knows_nobody_else_is_not_told_that_its_outcomes_are_too_few(world: Path) -> None:
    invoke("observe", "west.csv", "--schema", "ward.toml", *IDS, "--node", "alone")
    text = plain(invoke("ask", *QUESTION, "--node", "alone", "--explain").stdout)
    assert "No packet of another node is known here: all rests on your own 80 outcomes." in text
    assert "too few" not in text
    assert world.exists()


def test_a_node_without_outcomes_says_what_it_goes_by(known: Path) -> None:
    invoke("receive", "west.orp", "--schema", "ward.toml", "--node", "new")
    for name in ("south", "wrong", "north"):
        invoke("receive", f"{name}.orp", "--node", "new")
    found = in_json("ask", *QUESTION, "--node", "new", "--explain")
    assert found["basis"] == "consensus"
    assert "most organisations" in plain(invoke("ask", *QUESTION, "--node", "new", "--explain").stdout)
    assert known.exists()


@pytest.mark.usefixtures("known")
def test_a_pinned_node_is_believed_listed_logged_and_unpinned() -> None:
    wrong = in_json("status", "--node", "wrong")["node"]
    assert "No node is pinned" in invoke("pin", "--node", "north").stdout
    before = in_json("ask", *QUESTION, "--node", "north")["estimate"]
    made = in_json("pin", wrong[:12], "--by", "Dr. Weber", "--why", "audited", "--node", "north")
    assert made["node"] == wrong
    assert in_json("pin", "--node", "north")["pinned"] == [made]
    listed = invoke("pin", "--node", "north").stdout
    assert wrong[:16] in listed
    assert "audited" in listed
    found = in_json("ask", *QUESTION, "--node", "north", "--explain")
    verdicts = {one["node"]: one["verdict"] for one in found["explanation"]["nodes"]}
    assert verdicts[wrong] == "pinned"
    reason = next(one["why"] for one in found["explanation"]["nodes"] if one["node"] == wrong)
    assert "but your own 80 outcomes contradict it" in reason
    assert found["estimate"] != before
    log = in_json("log", "show", "--kind", "pinned", "--node", "north")
    assert "Dr. Weber" in json.dumps(log)
    invoke("unpin", wrong[:12], "--by", "Dr. Weber", "--node", "north")
    assert in_json("pin", "--node", "north")["pinned"] == []
    assert in_json("ask", *QUESTION, "--node", "north")["estimate"] == before
    invoke("log", "verify", "--node", "north")


def test_outcomes_are_compared_by_action_with_a_warning(world: Path) -> None:
    acting = SCHEMA
    for name in ("sex", "crp"):
        acting = acting.replace(f"[fields.{name}]\n", f'[fields.{name}]\nrole = "action"\n')
    Path("acting.toml").write_text(acting, encoding="utf-8")
    invoke("observe", "all.csv", "--schema", "acting.toml", *IDS, "--node", "one")
    assert "action" in invoke("schema", "show", "acting.toml").stdout
    found = in_json("ask", "age=60", "crp=120", "--node", "one", "--by", "sex")
    assert [one["value"] for one in found["actions"]] == ["f", "m"]
    assert found["positive"] == "yes"
    done = invoke("ask", "age=60", "crp=120", "--node", "one", "--by", "sex")
    text = plain(done.stdout)
    for one in found["actions"]:
        low, high = one["interval"]["low"], one["interval"]["high"]
        counts = f"{one['observations']:,.0f} {one['own']:,.0f} {one['nodes']} {one['organisations']} 20"
        assert f"{one['value']} {one['estimate']:.1%} {low:.1%} to {high:.1%} {counts}" in text
        assert one["first"] < one["until"]
    assert "does not say what doing it would change" in " ".join(done.stderr.split())
    numbers = in_json("ask", "age=60", "sex=m", "--node", "one", "--by", "crp", "--values", "20, 150,290")
    assert [one["value"] for one in numbers["actions"]] == ["20", "150", "290"]
    assert numbers["unit"] == "mg/l"
    assert numbers["actions"][2]["abstained"] is not None  # nobody had 290
    assert "no answer" in invoke("ask", "age=60", "--node", "one", "--by", "crp", "--values", "290").stdout
    fails("ask", "age=60", "--node", "one", "--by", "crp", cwd=world, says="say which values")
    fails("ask", "age=60", "--node", "one", "--by", "sex", "--values", "x", cwd=world, says="'x'")
