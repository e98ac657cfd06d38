"""Paths as a node sees them: other nodes, itself, and somebody who says the opposite."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from outroute.errors import DataError
from outroute.node import Node
from outroute.node.pairing import OWN
from outroute.node.pathways import Pathways
from outroute.packet import PacketArray
from outroute.schema import OutcomeKind, Schema, drawn_landmarks

from .making import ALL_LEAVE, FIELDS, KINDS, NOW, schema_of, table_of


def schema_for(kind: OutcomeKind) -> Schema:
    return schema_of(kind, landmarks=drawn_landmarks(FIELDS, 24))


def turned(table: dict[str, list[Any]], schema: Schema) -> dict[str, list[Any]]:
    """The same cases with the opposite outcome."""
    outcome = schema.outcome
    if not outcome.has_classes:
        return table | {outcome.name: [60 - value for value in table[outcome.name]]}
    other = dict(zip(outcome.classes, reversed(outcome.classes), strict=True))
    return table | {outcome.name: [other[value] for value in table[outcome.name]]}


def packets_of(schema: Schema, table: dict[str, list[Any]]) -> PacketArray:
    with Node(schema, clock=lambda: NOW, approval=ALL_LEAVE) as node:
        node.observe(table, case="case")
        node.distil()
        return node.journal.outbox.page(limit=10_000).packets


@pytest.mark.parametrize("kind", KINDS)
def test_who_sees_the_same_corroborates_and_who_turns_it_round_contradicts(kind: OutcomeKind) -> None:
    schema = schema_for(kind)
    with Node(schema, clock=lambda: NOW) as node:
        for site in ("north", "south"):
            node.receive(packets_of(schema, table_of(kind, site, 600)))
        node.receive(packets_of(schema, turned(table_of(kind, "east", 600), schema)))
        before = node.paths()
        assert [peer.path for peer in before.peers] == [None] * 3
        assert OWN not in before.pictured
        node.observe(table_of(kind, "west", 600), case="case")
        found = node.paths(top=2)
    assert found.pairs == 6
    assert found.peers[0].node == OWN
    assert found.peers[0].packets == found.peers[0].observations == 600
    verdicts = [peer.path.verdict for peer in found.peers[1:] if peer.path]
    assert verdicts == ["corroborates", "corroborates", "contradicts"]
    liar = found.peers[3].node
    assert found.peers[3].standing < 0 < min(peer.standing for peer in found.peers[:3])
    assert len(found.corroborations) == len(found.contradictions) == 2
    assert all(liar in (pair.left, pair.right) for pair in found.contradictions)
    assert not any(liar in (pair.left, pair.right) for pair in found.corroborations)
    assert found.corroborations[0].strength >= found.corroborations[1].strength
    assert found.matrix[0][0] is None
    assert found.matrix[0][3] == found.matrix[3][0] == found.peers[3].path.strength  # type: ignore[union-attr]
    assert Pathways.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_conditions_and_outcomes_of_own_records_stay_here() -> None:
    """Nothing in what a running node tells about paths names a cell or a case; what is asked is addresses."""
    kind = OutcomeKind.BINARY
    schema = schema_for(kind)
    with Node(schema, clock=lambda: NOW) as node:
        node.receive(packets_of(schema, table_of(kind, "north")))
        node.observe(table_of(kind, "west"), case="case")
        told = node.paths().to_dict()
    assert set(told) == {"pairs", "nodes", "corroborations", "contradictions", "matrix"}
    assert "west-" not in json.dumps(told)


def test_a_node_alone_has_no_paths() -> None:
    with Node(schema_for(OutcomeKind.BINARY), clock=lambda: NOW) as node:
        assert node.paths() == Pathways(peers=(), corroborations=(), contradictions=(), pairs=0, pictured=(), matrix=())
        node.observe(table_of(OutcomeKind.BINARY, "west"), case="case")
        alone = node.paths()
        assert (len(alone.peers), alone.pairs, alone.matrix) == (1, 0, ((None,),))
        with pytest.raises(DataError) as caught:
            node.paths(top=0)
        assert caught.value.code == "paths.top"


def test_the_strongest_of_many_nodes_are_shown() -> None:
    """More nodes than the picture holds: those with the strongest paths are in it, and nothing is counted twice."""
    kind = OutcomeKind.BINARY
    schema = schema_for(kind)
    with Node(schema, clock=lambda: NOW) as node:
        for i in range(45):
            node.receive(packets_of(schema, table_of(kind, f"site {i}", 60 if i else 600)))
        node.observe(table_of(kind, "west", 600), case="case")
        found = node.paths(top=3)
    assert len(found.peers) == 46
    assert len(found.pictured) == len(found.matrix) == 40
    assert found.pictured[0] == OWN
    shown = {one for pair in (*found.corroborations, *found.contradictions) for one in (pair.left, pair.right)}
    assert shown <= set(found.pictured)
    best = max(peer.path.strength for peer in found.peers[1:] if peer.path)
    assert found.corroborations[0].strength >= best - 1e-6
    strengths = np.array([pair.strength for pair in found.corroborations])
    assert (np.diff(strengths) <= 1e-6).all()
    assert len({(pair.left, pair.right) for pair in found.corroborations}) == 3
