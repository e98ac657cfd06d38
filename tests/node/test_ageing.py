"""Nodes told to elect how fast evidence ages: an outcome that turned is followed, one that stays is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.making import ALL_LEAVE, NOW, OUTCOMES, Clock, identity, schema_of, table_of
from outroute.elections.ageing import DAY
from outroute.errors import DataError
from outroute.node import Node
from outroute.node.electing import Electing
from outroute.node.explaining import Explanation
from outroute.packet import PacketArray
from outroute.schema import OutcomeKind, Schema, Time
from outroute.store import Noted

BINARY = OutcomeKind.BINARY
CASES, DAYS, TURN = 900, 300, 200
AGEING = Electing(ageing=True)
SICK, WELL = {"age": 90, "dose": 5, "ward": "green"}, {"age": 25, "dose": 5, "ward": "green"}
"""A case that ends badly before the turn and well after it, and the other way round."""
OTHER = {"no": "yes", "yes": "no"}


def dated(site: str, turn: int | None, lies: bool = False) -> dict[str, list[Any]]:
    """A site's cases over `DAYS` days; what meant yes means no from the day `turn` on."""
    table = table_of(BINARY, site, CASES)
    day = np.sort(np.random.default_rng(len(site)).integers(0, DAYS, CASES))
    name = OUTCOMES[BINARY].name
    turned = (day >= (DAYS if turn is None else turn)) ^ lies
    table[name] = [OTHER[y] if other else y for y, other in zip(table[name], turned, strict=True)]
    start = np.datetime64(NOW - DAYS * DAY, "s")
    return table | {"day": [str(start + np.timedelta64(int(d), "D")) for d in day]}


@pytest.fixture(scope="module")
def schema() -> Schema:
    return schema_of(BINARY, k=1, time=Time(bucket_seconds=DAY, lifetime_seconds=999 * DAY))


def published(schema: Schema, turn: int | None, liar: str = "") -> PacketArray:
    """What south, east and west have published; one of them may lie."""
    packets = []
    for site in ("south", "east", "west"):
        with Node(schema, identity=identity(site), clock=Clock(), approval=ALL_LEAVE) as node:
            node.observe(dated(site, turn, lies=site == liar), case="case", time="day")
            node.distil()
            packets.append(node.journal.outbox.page(limit=1_000).packets)
    return np.concatenate(packets)


@pytest.fixture(scope="module")
def turned(schema: Schema) -> PacketArray:
    return published(schema, TURN, liar="east")


@contextmanager
def asker(
    schema: Schema, turn: int | None, packets: PacketArray, electing: Electing, *, directory: Path | None = None
) -> Iterator[Node]:
    """North, which knows these packets."""
    with Node(schema, identity=identity("north"), data_dir=directory, clock=Clock(), electing=electing) as node:
        if not node.counts()["known"]:
            node.observe(dated("north", turn), case="case", time="day")
            assert node.receive(packets) == {}
        yield node


def test_an_outcome_that_turned_is_followed_and_a_liar_is_found_all_the_same(
    schema: Schema, turned: PacketArray
) -> None:
    with asker(schema, TURN, turned, Electing()) as node:
        before = node.ask_many([SICK, WELL]).estimate
    with asker(schema, TURN, turned, AGEING) as node:
        after = node.ask_many([SICK, WELL]).estimate
        why = node.ask(SICK, explain=True).explanation
    assert before[0] > before[1] - 0.5  # torn between what was and what is
    assert after[0] < 0.25
    assert after[1] > 0.75
    assert why is not None
    assert why.aged is not None
    assert why.aged.half_life is not None
    assert why.aged.since is not None
    assert why.aged.since <= NOW - (DAYS - TURN) * DAY + 60 * DAY
    assert why.aged.left_out + why.own_outcomes == CASES
    verdicts = {one.node: one.verdict for one in why.nodes}
    assert verdicts[identity("south").id.hex()] == "proven"
    assert verdicts[identity("east").id.hex()] == "contradicted"
    assert Explanation.from_dict(why.to_dict()) == why


def test_where_nothing_ages_answers_are_the_same_to_the_last_digit(schema: Schema) -> None:
    packets = published(schema, None)
    with asker(schema, None, packets, Electing()) as node:
        plain = node.ask(SICK, explain=True)
    with asker(schema, None, packets, AGEING) as node:
        aged = node.ask(SICK, explain=True)
    assert plain.explanation is not None
    assert aged.explanation is not None
    assert plain.explanation.aged is None
    assert aged.explanation.aged is not None
    assert aged.explanation.aged.half_life is None
    assert aged.explanation.to_dict() | {"aged": None} == plain.explanation.to_dict()
    assert (aged.estimate, aged.low, aged.high, aged.calculations) == (
        plain.estimate,
        plain.low,
        plain.high,
        plain.calculations,
    )


def test_what_becomes_known_counts_and_a_restart_elects_the_same(
    schema: Schema, turned: PacketArray, tmp_path: Path
) -> None:
    with asker(schema, TURN, turned, AGEING, directory=tmp_path) as node:
        node.ask(SICK)
        for number, (case, outcome) in enumerate(((SICK, "no"), (WELL, "yes"), (SICK, "no"))):
            node.ask(case, case_id=f"asked {number}")
            assert node.confirm(f"asked {number}", outcome) is Noted.CONFIRMED
        between = node.ask(SICK, explain=True)  # too few outcomes to fit anew: they speak about nodes all the same
        assert between.explanation is not None
        node._asker.refit()
        anew = node.ask(SICK, explain=True)
    with asker(schema, TURN, turned, AGEING, directory=tmp_path) as node:
        assert node.ask(SICK, explain=True) == anew
    assert anew.explanation is not None
    assert {one.node: one.verdict for one in anew.explanation.nodes} == {
        one.node: one.verdict for one in between.explanation.nodes
    }


def test_few_outcomes_age_nothing_and_a_budget_does_not_go_with_it(schema: Schema) -> None:
    with Node(schema, clock=Clock(), electing=AGEING) as node:
        table = dated("north", TURN)
        node.observe({name: values[:20] for name, values in table.items()}, case="case", time="day")
        found = node.ask(SICK, explain=True).explanation
        assert found is not None
        assert found.aged is not None
        assert found.aged.half_life is None
    with pytest.raises(DataError, match="choose one"):
        Electing(ageing=True, budget=100)
