"""A node that fetches for a question what helps most, within a budget of packets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from node.making import QUESTION, Clock, TappedNetwork, filled, network_of, schema_of, table_of
from outroute.elections.drawing import ROUNDS
from outroute.errors import DataError
from outroute.node import Node
from outroute.node.asking import CELL_SECONDS
from outroute.node.electing import Electing
from outroute.packet import PacketArray, identities, slots
from outroute.schema import OutcomeKind

KINDS = tuple(OutcomeKind)
BUDGET = 12


def known(node: Node) -> PacketArray:
    return node._asker.known()


@pytest.mark.parametrize("budget", [0, -3])
def test_a_budget_of_nothing_is_refused(budget: int) -> None:
    with pytest.raises(DataError, match="budget >= 1"):
        Electing(budget=budget)


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_fetched_than_may_be(kind: OutcomeKind) -> None:
    with network_of(schema_of(kind), electing=Electing(budget=BUDGET)) as nodes:
        filled(nodes, kind)
        for node in nodes.values():
            insight = node.ask(QUESTION)
            assert insight.support > 0
            held = known(node)
            assert 0 < len(held) <= BUDGET
            assert len(set(identities(held))) == len(held)
            assert not (held["author"] == np.frombuffer(node._identity.public_key, dtype=np.uint8)).all(axis=1).any()
            assert insight.reach.left_out > 0


def test_with_room_for_all_everything_is_fetched_and_the_answer_is_the_same() -> None:
    kind = OutcomeKind.BINARY
    said = []
    for electing in (Electing(), Electing(budget=10_000)):
        with network_of(schema_of(kind), electing=electing) as nodes:
            filled(nodes, kind)
            insight = nodes["north"].ask(QUESTION)
            said.append((insight, set(slots(known(nodes["north"])))))
    (one, all_), (two, some) = said
    assert all_ == some
    assert one.estimate == two.estimate
    assert one.reach.left_out == two.reach.left_out == 0


def test_the_same_is_drawn_after_a_restart(tmp_path: Path) -> None:
    kind = OutcomeKind.BINARY
    clock, found = Clock(), []
    for again in range(2):
        with network_of(schema_of(kind), root=tmp_path, clock=clock, electing=Electing(budget=BUDGET)) as nodes:
            if not again:
                filled(nodes, kind)
            found.append((nodes["west"].ask(QUESTION).estimate, set(identities(known(nodes["west"])))))
            for node in nodes.values():  # all stop at once, without handing anything over
                node.transport._network.kill(node.id)  # type: ignore[union-attr]
    assert found[0][1]
    assert found[0] == found[1]


def test_what_was_fetched_is_not_fetched_again_until_it_is_old() -> None:
    kind = OutcomeKind.BINARY
    clock = Clock()
    network = TappedNetwork(clock=clock)
    with network_of(schema_of(kind), clock=clock, network=network, electing=Electing(budget=BUDGET)) as nodes:
        filled(nodes, kind)
        node = nodes["east"]
        node.ask(QUESTION)
        asked = sum(entry.kind == "asked" for entry in node.log.entries())
        assert 1 <= asked <= ROUNDS * len(node._asker._cells)
        node.ask(QUESTION)
        assert sum(entry.kind == "asked" for entry in node.log.entries()) == asked
        clock.now += CELL_SECONDS
        node.ask(QUESTION)
        assert sum(entry.kind == "asked" for entry in node.log.entries(limit=10_000)) > asked


def test_what_is_withdrawn_is_not_kept() -> None:
    kind = OutcomeKind.BINARY
    clock = Clock()
    with network_of(schema_of(kind), clock=clock, electing=Electing(budget=BUDGET)) as nodes:
        filled(nodes, kind)
        asker = nodes["north"]
        asker.ask(QUESTION)
        south = np.frombuffer(nodes["south"]._identity.public_key, dtype=np.uint8)
        assert (known(asker)["author"] == south).all(axis=1).any()
        for case in table_of(kind, "south")["case"]:
            nodes["south"].withdraw(case=case, by="a test")
        nodes["south"].publish()
        clock.now += CELL_SECONDS
        asker.ask(QUESTION)
        assert not (known(asker)["author"] == south).all(axis=1).any()
        assert len(known(asker)) > 0
