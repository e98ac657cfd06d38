"""Explanations say what elections found, in bounded space; comparisons are associations, and say where nobody knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outroute.errors import DataError, SchemaError
from outroute.node import Node
from outroute.node.behind import PATHS_SHOWN
from outroute.node.comparing import VALUES_MOST, WARNING, Comparison
from outroute.node.electing import Electing
from outroute.node.explaining import LOST_HERE, SHOWN, Explanation, _but
from outroute.node.nearby import near_of, nearest
from outroute.node.pairing import OWN
from outroute.packet import PacketArray, identities
from outroute.schema import OutcomeKind, Schema, drawn_landmarks, encode, unit_scale

from .making import (
    ALL_LEAVE,
    DAY,
    FIELDS,
    KINDS,
    NOW,
    QUESTION,
    Clock,
    filled,
    identity,
    network_of,
    schema_of,
    table_of,
)
from .test_electing import BINARY, asker, turned

AGE, DOSE, WARD = FIELDS
ACTING = (AGE, replace(DOSE, action=True), replace(WARD, action=True))


def acting(kind: OutcomeKind = BINARY) -> Schema:
    return schema_of(kind, fields=ACTING, landmarks=drawn_landmarks(ACTING, 6))


def packets_of(schema: Schema, table: dict[str, list[Any]], name: str, now: int = NOW) -> PacketArray:
    with Node(schema, identity=identity(name), clock=lambda: now, approval=ALL_LEAVE) as node:
        node.observe(table, case="case")
        node.distil()
        return node.journal.outbox.page(limit=10_000).packets


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_an_explanation_is_json_and_back_and_agrees_with_its_insight(kind: OutcomeKind) -> None:
    with network_of(schema_of(kind)) as nodes:
        filled(nodes, kind)
        plain = nodes["north"].ask(QUESTION)
        insight = nodes["north"].ask(QUESTION, explain=True)
    found = insight.explanation
    assert plain.explanation is None
    assert "explanation" not in plain.to_dict()
    assert found is not None
    told = json.loads(json.dumps(insight.to_dict(), allow_nan=False))
    assert Explanation.from_dict(told["explanation"]) == found
    assert {n: v for n, v in told.items() if n != "explanation"} == json.loads(json.dumps(plain.to_dict()))
    assert {one.name: (one.weight, one.estimate) for one in found.calculations} == insight.calculations
    assert sum(one.before for one in found.calculations) == pytest.approx(1)
    assert [one.prior for one in found.calculations] == [one.before for one in found.calculations]  # nothing confirmed
    assert found.basis == insight.basis
    assert found.everything.packets <= insight.reach.packets
    assert found.near.packets <= near_of(insight.reach.packets)
    assert found.everything.own == 60
    assert found.near.own <= 60
    assert {one.node for one in found.nodes} == {node.id.hex() for site, node in nodes.items() if site != "north"}


def test_whoever_is_named_or_not_is_counted_once() -> None:
    """Many nodes: ten are named, liars among them; the rest is summed up, and nothing is lost between."""
    schema = schema_of(BINARY, landmarks=drawn_landmarks(FIELDS, 6))
    with Node(schema, clock=lambda: NOW) as node:
        for i in range(16):
            table = table_of(BINARY, f"peer {i}", 60)
            node.receive(packets_of(schema, turned(table, schema) if i >= 10 else table, f"peer {i}"))
        node.observe(table_of(BINARY, "asker", 200), case="case")
        found = node.ask(QUESTION, explain=True).explanation
        assert found is not None
        known = len(node.received())
    assert len(found.nodes) == SHOWN
    assert len({one.node for one in found.nodes}) == SHOWN
    assert sum(rest.nodes for rest in found.others) == 16 - SHOWN
    assert any(one.weight < 0.5 for one in found.nodes)
    assert any(one.weight >= 0.5 for one in found.nodes)
    counted = sum(one.counted for one in (*found.nodes, *found.others))
    assert counted == pytest.approx(found.near.observations)
    assert len(found.lost) <= SHOWN
    assert len(found.copies) <= SHOWN
    assert found.everything.packets <= known


def test_why_names_the_outcomes_and_scores_that_decided() -> None:
    with asker(BINARY, 3, 3, 120, size=240) as (node, bad):
        found = node.ask(QUESTION, explain=True).explanation
    assert found is not None
    for one in found.nodes:
        if one.node in bad:
            assert "your own 120 outcomes contradict it" in one.why
        elif one.verdict == "proven":
            assert f"predict your own 120 outcomes (z {one.predicts:.1f})" in one.why
            assert f"{one.needed:.1f} rules out luck among 6 nodes" in one.why
            assert one.follows > one.needed


def test_losers_name_a_packet_that_exists_and_whom_they_lost_to() -> None:
    """A node that is right elsewhere lies in one ward: its packets there lose to others or to own outcomes."""
    schema = schema_of(BINARY, landmarks=drawn_landmarks(FIELDS, 6))
    table = table_of(BINARY, "sly", 400)
    opposite = turned(table, schema)
    table["late"] = [
        no if ward == "green" else yes
        for yes, no, ward in zip(table["late"], opposite["late"], table["ward"], strict=True)
    ]
    with Node(schema, clock=lambda: NOW) as node:
        names = {}
        for name, what in (("sly", table), *((f"peer {i}", table_of(BINARY, f"peer {i}", 400)) for i in range(4))):
            packets = packets_of(schema, what, name)
            names |= {one.hex(): identity(name).id.hex() for one in identities(packets)}
            node.receive(packets)
        node.observe(table_of(BINARY, "asker", 300), case="case")
        found = node.ask({"age": 90, "dose": 8, "ward": "green"}, explain=True).explanation
    assert found is not None
    assert found.lost
    sly = identity("sly").id.hex()
    assert sly in {one.node for one in found.lost}
    for one in found.nodes:
        lost = one.counted < LOST_HERE * one.weight * one.near
        assert ("near this case most of what it says lost" in one.why) == lost
    for one in found.lost:
        assert names[one.packet] == one.node
        assert one.weight < 0.9
        if one.to_packet is not None:
            assert names[one.to_packet] == one.to
            assert one.to != one.node


@pytest.mark.parametrize(
    ("weight", "near", "counted", "said"),
    [(1.0, 60, 0, True), (1.0, 60, 31, False), (0.0, 60, 0, False), (1, 0, 0, False)],
)
def test_a_node_that_is_believed_and_not_here_is_told_so(
    weight: float, near: float, counted: float, said: bool
) -> None:
    assert bool(_but(weight, near, counted)) == said


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_paths_behind_an_insight_are_those_between_nodes_near_it(kind: OutcomeKind) -> None:
    """The same strengths as among all nodes, own records one of them, few, and only of nodes near the case."""
    schema = schema_of(kind, landmarks=drawn_landmarks(FIELDS, 24))
    with Node(schema, clock=lambda: NOW) as node:
        liars = set()
        for i in range(7):
            table, name = table_of(kind, f"peer {i}", 500), f"peer {i}"
            if i >= 5:
                table = turned(table, schema)
                liars.add(identity(name).id.hex())
            node.receive(packets_of(schema, table, name))
        far = table_of(kind, "far", 60)
        far["age"] = [20 + 5 * (age - 20) / 75 for age in far["age"]]
        node.receive(packets_of(schema, far, "far"))
        node.observe(table_of(kind, "asker", 500), case="case")
        found = node.ask({"age": 90, "dose": 9, "ward": "green"}, explain=True).explanation
        everywhere = {frozenset((OWN, one.node)): one.path for one in node.paths(top=100).peers if one.path is not None}
        everything = node.paths(top=100)
    assert found is not None
    paths = found.paths
    assert identity("far").id.hex() not in {one.node for one in found.nodes if one.near}
    assert paths.own
    assert paths.nodes == 1 + 7
    assert paths.pairs == 8 * 7 // 2
    assert len(paths.corroborations) == len(paths.contradictions) == PATHS_SHOWN
    assert 0 <= paths.undecided + paths.unshared < paths.pairs
    known = everywhere | {
        frozenset((one.left, one.right)): one for one in (*everything.corroborations, *everything.contradictions)
    }
    for sign, shown in ((1, paths.corroborations), (-1, paths.contradictions)):
        mine = [one.strength for pair, one in known.items() if OWN in pair and one is not None]
        strongest = sign * max(sign * strength for strength in mine)
        assert next(one.strength for one in shown if one.left == OWN) == pytest.approx(strongest)
    for shown, sign in ((paths.corroborations, 1), (paths.contradictions, -1)):
        strengths = [sign * one.strength for one in shown]
        assert strengths == sorted(strengths, reverse=True)
        assert strengths[-1] > 0
        for one in shown:
            other = known[frozenset((one.left, one.right))]
            assert other is not None
            assert (one.strength, one.cells) == (pytest.approx(other.strength), other.cells)
            assert (one.left in liars) != (one.right in liars) or sign > 0
    for one in paths.contradictions:
        assert len({one.left, one.right} & liars) == 1
    for one in paths.corroborations:
        assert len({one.left, one.right} & liars) != 1


def test_whoever_is_alone_has_no_paths() -> None:
    with Node(schema_of(BINARY), clock=lambda: NOW) as node:
        nobody = node.ask(QUESTION, explain=True).explanation
        node.observe(table_of(BINARY, "asker", 40), case="case")
        alone = node.ask(QUESTION, explain=True).explanation
    assert nobody is not None
    assert alone is not None
    assert (nobody.paths.nodes, nobody.paths.own, nobody.paths.pairs) == (0, False, 0)
    assert (alone.paths.nodes, alone.paths.own, alone.paths.pairs) == (1, True, 0)
    assert alone.paths.corroborations == alone.paths.contradictions == ()


def test_time_organisations_and_elections_off_are_told() -> None:
    schema = schema_of(BINARY)
    with Node(schema, clock=lambda: NOW, electing=Electing(packets=False)) as node:
        for day, name in ((10, "early"), (2, "late")):
            when = NOW - day * DAY
            node.receive(packets_of(schema, table_of(BINARY, name), name, when))
        found = node.ask(QUESTION, explain=True).explanation
        assert found is not None
        assert (found.basis, found.nodes, found.lost) == ("nothing", (), ())
        assert found.everything.nodes == found.everything.organisations == 2
        assert found.everything.last is not None
        assert found.everything.first is not None
        assert found.everything.last - found.everything.first == 8 * DAY
        assert found.everything.until == found.everything.last + schema.time.bucket_seconds
        assert found.everything.uncertified == 2
        assert found.everything.observations == 120
    with Node(schema, clock=lambda: NOW) as node:
        alone = node.ask(QUESTION, explain=True).explanation
        assert alone is not None
        assert (alone.near.packets, alone.near.first, alone.everything.own) == (0, None, 0)
        node.observe(table_of(BINARY, "asker", 30), case="case")
        own = node.ask(QUESTION, explain=True).explanation
        assert own is not None
        assert own.everything.own == 30
        assert own.everything.first is not None  # own outcomes have their time too
        assert own.everything.first <= NOW < own.everything.first + schema.time.bucket_seconds


def test_confirmed_questions_show_in_the_weights() -> None:
    with network_of(schema_of(BINARY)) as nodes:
        filled(nodes, BINARY)
        north = nodes["north"]
        for i in range(12):
            north.ask(QUESTION | {"age": 30 + 5 * i}, case_id=f"q{i}")
            north.confirm(f"q{i}", "yes" if i > 6 else "no")
        found = north.ask(QUESTION, explain=True).explanation
    assert found is not None
    assert found.confirmed == 12
    assert found.own_outcomes == 72
    assert [one.prior for one in found.calculations] != [one.before for one in found.calculations]


def test_pins_stay_after_a_restart_and_name_a_node_by_a_start_of_its_id(tmp_path: Path) -> None:
    schema = schema_of(BINARY)
    other = identity("peer").id.hex()
    with Node(schema, data_dir=tmp_path, clock=Clock()) as node:
        with pytest.raises(DataError) as caught:
            node.pin(other[:12], by="a test")
        assert caught.value.code == "pin.node"
        node.receive(packets_of(schema, table_of(BINARY, "peer"), "peer"))
        node.pin(other[:12], by="a test", why="audited")
        with pytest.raises(DataError, match="who pins"):
            node.pin(other, by=" ")
    with Node(schema, data_dir=tmp_path, clock=Clock()) as node:
        assert [(one.node, one.by, one.why) for one in node.pins()] == [(other, "a test", "audited")]
        found = node.ask(QUESTION, explain=True)
        assert found.basis == "pinned nodes"
        assert found.explanation is not None
        assert found.explanation.nodes[0].verdict == "pinned"
        node.unpin(other[:8], by="a test")
        assert node.pins() == ()
        assert node.ask(QUESTION).basis == "nothing"
        with pytest.raises(DataError, match="not pinned"):
            node.unpin(other, by="a test")


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_outcomes_are_compared_by_every_category(kind: OutcomeKind) -> None:
    with network_of(acting(kind)) as nodes:
        filled(nodes, kind, 200)
        found = nodes["north"].compare({"age": 60, "dose": 5}, "ward")
        each = [nodes["north"].ask({"age": 60, "dose": 5, "ward": ward}) for ward in WARD.categories]
    assert [one.value for one in found.actions] == list(WARD.categories)
    assert found.warning == WARNING
    assert Comparison.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    for one, asked in zip(found.actions, each, strict=True):
        assert one.abstained is None
        assert one.overlap.observations > one.overlap.own > 0
        assert one.overlap.nodes >= 1
        values = [list(e.values()) if isinstance(e, dict) else [e] for e in (one.estimate, asked.estimate)]
        assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_an_action_that_nobody_took_in_such_cases_gets_no_answer() -> None:
    schema = acting()
    table = table_of(BINARY, "north", 200)
    rows = [i for i in range(200) if not (table["ward"][i] == "blue" and table["age"][i] > 50)]
    table = {name: [values[i] for i in rows] for name, values in table.items()}
    with Node(schema, clock=lambda: NOW) as node:
        node.observe(table, case="case")
        old = {one.value: one for one in node.compare({"age": 85, "dose": 5, "ward": "blue"}, "ward").actions}
        young = {one.value: one for one in node.compare({"age": 25, "dose": 5}, "ward").actions}
    assert old["blue"].overlap.observations == 0
    assert old["blue"].abstained is not None
    assert old["red"].abstained is None
    assert young["blue"].abstained is None


def test_a_number_is_compared_at_the_values_named() -> None:
    with network_of(acting()) as nodes:
        filled(nodes, BINARY, 200)
        north = nodes["north"]
        found = north.compare({"age": 60, "ward": "green"}, "dose", ["2", "8"])
        assert [one.value for one in found.actions] == ["2", "8"]
        assert found.unit == "mg"
        assert isinstance(found.actions[0].estimate, float)
        for values, says in ((None, "say which values"), ([], "between 1 and"), (["2", "2"], "twice"), ([""], "empty")):
            with pytest.raises(DataError, match=says):
                north.compare({"age": 60}, "dose", values)
        with pytest.raises(DataError, match=f"and {VALUES_MOST} values"):
            north.compare({"age": 60}, "dose", [i / 10 for i in range(VALUES_MOST + 1)])
        with pytest.raises(SchemaError, match="actions are dose, ward"):
            north.compare({"dose": 3}, "age")


def test_a_schema_without_actions_says_how_to_name_one() -> None:
    with Node(schema_of(BINARY), clock=lambda: NOW) as node, pytest.raises(SchemaError, match='role = "action"'):
        node.compare({"age": 60}, "ward")


def test_near_is_what_agrees_in_facets_and_is_close_in_what_is_known() -> None:
    schema = schema_of(BINARY, facet=True)
    rows = {
        "age": [50, 52, 90, 50, None],
        "dose": [5, 5, 5, 5, 5],
        "ward": ["red"] * 5,
        "sex": ["f", "f", "f", "m", "f"],
    }
    x = unit_scale(schema, encode(schema, rows).codes)
    near, distance = nearest(schema, x, x[0], 10)
    assert near.tolist() == [0, 4, 1, 2]
    assert np.all(np.diff(distance) >= 0)
    assert nearest(schema, x, x[0], 10, schema.slots["sex"])[0].tolist() == [0, 3, 4, 1, 2]
    assert nearest(schema, x, x[0], 2)[0].tolist() == [0, 4]
