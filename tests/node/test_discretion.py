"""Coarse questions and dummies: what is asked for, what it says, and that the answer rests on no less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.fingerprint import cells
from outroute.node import Node
from outroute.node.discretion import Discretion, cover, groups_of
from outroute.node.electing import Electing
from outroute.node.local import guard_for, join_local
from outroute.schema import OutcomeKind, Schema, drawn_landmarks, encode, facet_index
from outroute.store import Event, Journal
from outroute.transports import LocalNetwork

from .making import ALL_LEAVE, NOW, QUESTION, Clock, filled, identity, network_of, schema_of, table_of

BINARY = OutcomeKind.BINARY
SECRET = b"s" * 32


def wide(count: int = 60) -> Schema:
    made = schema_of(BINARY)
    return replace(made, landmarks=drawn_landmarks(made.fields, count))


def codes_of(schema: Schema, n: int, site: str = "asked") -> NDArray[np.uint16]:
    columns: dict[str, Any] = {name: np.array(v) for name, v in table_of(BINARY, site, n).items()}
    return encode(schema, {f.name: columns[f.name] for f in schema.fields}).codes


def asked(schema: Schema, codes: NDArray[np.uint16], how: Discretion, secret: bytes = SECRET) -> set[tuple[int, int]]:
    return cover(schema, codes, facet_index(schema, codes), probes=4, discretion=how, secret=secret)


@given(size=st.integers(2, 70), count=st.integers(1, 60))
def test_groups_are_of_neighbours_and_the_same_for_everybody(size: int, count: int) -> None:
    schema = wide(count)
    group = groups_of(schema, size)
    assert np.bincount(group).max() <= size
    assert sorted(set(group.tolist())) == list(range(int(group.max()) + 1))
    assert np.array_equal(group, groups_of.__wrapped__(schema, size))


def test_a_coarse_question_holds_the_plain_one_and_says_groups_only() -> None:
    schema = wide()
    codes = codes_of(schema, 40)
    group = groups_of(schema, 8)
    for i in range(len(codes)):
        one = codes[i : i + 1]
        plain, coarse = asked(schema, one, Discretion()), asked(schema, one, Discretion(group=8))
        assert plain <= coarse
        inside = {int(group[cell]) for _, cell in coarse}
        assert coarse == {(0, cell) for cell in range(60) if int(group[cell]) in inside}
    assert asked(schema, codes, Discretion()) == {(0, cell) for cell in cells(schema, codes, 4).ravel().tolist()}


@given(count=st.integers(1, 9), row=st.integers(0, 39))
def test_dummies_look_like_the_question_and_never_change(count: int, row: int) -> None:
    schema = wide()
    one = codes_of(schema, 40)[row : row + 1]
    how = Discretion(dummies=count)
    seen = asked(schema, one, how)
    home = int(cells(schema, one)[0, 0])
    around = [set(some) for some in cells(schema, schema.landmarks.codes, 4).tolist()]
    inside = {cell for _, cell in seen}
    # Whatever is asked for is the neighbourhood of some landmarks; the real one is one of at least count + 1.
    possible = [cell for cell in range(60) if around[cell] <= inside]
    assert home in possible
    assert len(possible) >= count + 1
    assert set().union(*(around[cell] for cell in possible)) == inside
    # The same for every case of the cell, and again and again; another node draws others.
    assert seen == asked(schema, schema.landmarks.codes[home : home + 1], how)
    assert seen == asked(schema, one, how)
    assert any(asked(schema, one, how, bytes([i]) * 32) != seen for i in range(5))


def test_dummies_stay_within_the_facets_that_a_landmark_has() -> None:
    schema = schema_of(BINARY, facet=True)
    schema = replace(schema, landmarks=drawn_landmarks(schema.fields, 40))
    slots = schema.slots["sex"]
    one = schema.landmarks.codes[3:4]
    for facet, cell in asked(schema, one, Discretion(dummies=5)):
        assert facet == int(facet_index(schema, one)[0])
        assert 0 <= cell < 40
    home = schema.landmarks.codes[:, slots]
    drawn = cover(schema, one, facet_index(schema, one), probes=1, discretion=Discretion(dummies=5), secret=SECRET)
    assert len(drawn) == 6
    assert all(np.array_equal(home[cell], home[3]) for _, cell in drawn)


@pytest.mark.parametrize("text", ["plain", "coarse=16", "dummies=3"])
def test_ways_of_asking_are_read(text: str) -> None:
    found = Discretion.parse(text)
    assert (found.group, found.dummies) == {"plain": (0, 0), "coarse=16": (16, 0), "dummies=3": (0, 3)}[text]


@pytest.mark.parametrize(
    "text", ["", "coarse", "coarse=1", "coarse=0", "dummies=65", "dummies=-1", "dummy=3", "coarse=9999"]
)
def test_other_ways_are_refused(text: str) -> None:
    with pytest.raises(DataError) as caught:
        Discretion.parse(text)
    assert caught.value.code == "data.questions"


@pytest.mark.parametrize("how", [Discretion(group=4), Discretion(dummies=3)], ids=["coarse", "dummies"])
def test_a_discreet_node_asks_more_remembers_it_and_answers(
    how: Discretion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same dummies in every run of the test; that a directory keeps its secret is what test_a_secret_stays shows.
    monkeypatch.setattr(Journal, "derived", lambda _, label: SECRET)
    schema, clock = replace(schema_of(BINARY), landmarks=drawn_landmarks(schema_of(BINARY).fields, 24)), Clock()
    network = LocalNetwork(clock=clock)
    with network_of(schema, clock=clock, network=network) as nodes:
        filled(nodes, BINARY)
        insights, seen = [], []
        for number, way in enumerate((Discretion(), how, how)):
            name = "discreet" if number else "plain"
            transport = join_local(network, identity(name), schema, guard=guard_for(schema))
            with Node(
                schema,
                transport=transport,
                identity=identity(name),
                data_dir=tmp_path / name,
                clock=clock,
                approval=ALL_LEAVE,
                discretion=way,
            ) as node:
                if number < 2:
                    node.observe(table_of(BINARY, "own", 12), case="case")
                before = len(node.log.entries(limit=10_000))
                insights.append(node.ask(QUESTION))
                entries = node.log.entries(after=before, limit=1000)
                seen.append({a for e in entries if e.kind == Event.ASKED for a in e.fields["addresses"]})
            network.kill(identity(name).id)
        assert len(seen[1]) > len(seen[0])
        assert seen[1] == seen[2]  # after a restart, too
        assert insights[1].reach.packets > insights[0].reach.packets
        assert insights[1].abstained is None


def test_a_budget_and_discretion_exclude_each_other() -> None:
    with pytest.raises(DataError) as caught:
        Node(schema_of(BINARY), electing=Electing(budget=5), discretion=Discretion(dummies=1), clock=lambda: NOW)
    assert caught.value.code == "data.questions"


def test_a_secret_stays(tmp_path: Path) -> None:
    found = []
    for place in ("a", "a", "b"):
        journal = Journal(tmp_path / place, schema_id=bytes(32), width=3, now=NOW)
        found.append((journal.derived(b"x"), journal.derived(b"y")))
        journal.close()
    assert found[0] == found[1] != found[2]
    assert found[0][0] != found[0][1]
