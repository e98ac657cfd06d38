"""Elections put together: attackers beside honest nodes, in real networks of real nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from outroute.elections.copies import said_once
from outroute.elections.hire import Anchored
from outroute.errors import DataError
from outroute.node import Node
from outroute.node.electing import Elected, Electing, dropped, elect_packets
from outroute.node.evidence import evidence_of, fresh_rows, records_of
from outroute.node.local import guard_for, join_local
from outroute.schema import OutcomeKind, Schema, drawn_landmarks, encode, encode_outcome
from outroute.synthesis import Evidence, Records
from outroute.transports import LocalNetwork

from .making import ALL_LEAVE, FIELDS, KINDS, QUESTION, Clock, identity, schema_of, table_of

BINARY = OutcomeKind.BINARY
CASES = [
    {"age": age, "dose": dose, "ward": ward} for age in (30, 62, 90) for dose in (2, 8) for ward in ("red", "blue")
]


def turned(table: dict[str, list[Any]], schema: Schema) -> dict[str, list[Any]]:
    """The same cases with the opposite outcome."""
    outcome = schema.outcome
    if not outcome.has_classes:
        return table | {outcome.name: [60 - value for value in table[outcome.name]]}
    other = dict(zip(outcome.classes, reversed(outcome.classes), strict=True))
    return table | {outcome.name: [other[value] for value in table[outcome.name]]}


@contextmanager
def asker(
    kind: OutcomeKind, honest: int, hostile: int, own: int, *, electing: Electing | None = None, size: int = 150
) -> Iterator[tuple[Node, set[str]]]:
    """A node beside honest and hostile ones, with so many own outcomes; and the ids of the hostile ones."""
    schema = schema_of(kind, landmarks=drawn_landmarks(FIELDS, 12))
    clock = Clock()
    network, guard = LocalNetwork(clock=clock), guard_for(schema)
    nodes: list[Node] = []
    bad = set()
    try:
        for i in range(honest + hostile):
            who = identity(f"peer {i}")
            node = Node(
                schema,
                transport=join_local(network, who, schema, guard=guard),
                identity=who,
                clock=clock,
                approval=ALL_LEAVE,
            )
            nodes.append(node)
            table = table_of(kind, f"peer {i}", size)
            if i >= honest:
                table = turned(table, schema)
                bad.add(node.id.hex())
            node.observe(table, case="case")
            node.distil()
            node.publish()
        who = identity("asker")
        node = Node(
            schema,
            transport=join_local(network, who, schema, guard=guard),
            identity=who,
            clock=clock,
            electing=Electing() if electing is None else electing,
        )
        nodes.append(node)
        if own:
            node.observe(table_of(kind, "asker", own), case="case")
        yield node, bad
    finally:
        for node in nodes:
            node.close()


def estimates(node: Node) -> np.ndarray[Any, np.dtype[np.float64]]:
    return node.ask_many(CASES, probes=12).estimate


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_a_lying_majority_weighs_nothing_for_whoever_has_outcomes(kind: OutcomeKind) -> None:
    with asker(kind, 3, 9, 120, size=240) as (node, bad):
        node.ask_many(CASES, probes=12)
        fitted = node._asker.fitted
        found = node.ask(QUESTION, explain=True).explanation
    assert fitted is not None
    assert not {one.hex() for one in fitted.nodes} & bad
    assert len(fitted.nodes) == 3
    assert found is not None
    assert found.basis == "own outcomes"
    named = {one.node: one for one in found.nodes}
    assert bad & set(named)
    for one in named.values():
        assert one.verdict == ("contradicted" if one.node in bad else "proven")
        assert (one.weight == 0) is (one.node in bad)
        assert not (one.counted and one.node in bad)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_among_honest_nodes_elections_change_little(kind: OutcomeKind) -> None:
    with asker(kind, 4, 0, 200) as (node, _):
        ours = estimates(node)
    with asker(kind, 4, 0, 200, electing=Electing(packets=False)) as (node, _):
        all_alike = estimates(node)
    scale = 1.0 if kind is not OutcomeKind.NUMERIC else 60.0
    assert np.abs(ours - all_alike).max() < 0.04 * scale


def test_without_outcomes_most_organisations_decide_and_the_insight_says_so() -> None:
    with asker(BINARY, 5, 2, 0) as (node, bad):
        insight = node.ask(QUESTION, explain=True)
    assert insight.basis == "consensus"
    assert insight.anchor.startswith("consensus")
    assert insight.explanation is not None
    weights = {one.node: one.weight for one in insight.explanation.nodes}
    assert min(w for n, w in weights.items() if n not in bad) > 0.5
    assert max(w for n, w in weights.items() if n in bad) < 0.1


def test_in_one_organisation_most_declared_groups_decide() -> None:
    """A fleet: nine devices of three models, six of them of one model that lies."""
    with asker(BINARY, 3, 6, 0, size=240) as (node, bad):
        elected = node._asker._fit.elected if node.ask(QUESTION) is not None else None  # type: ignore[union-attr]
        assert elected is not None
        nodes = elected.evidence.nodes
        liars = np.array([one.hex() in bad for one in nodes])
        models = {one: "c" if liar else f"model {i}" for i, (one, liar) in enumerate(zip(nodes, liars, strict=True))}
        schema, plain = node.schema, replace(elected.evidence, weight=None)
    own = Records(x=plain.x[:0], y=np.zeros(0), group=np.zeros(0, dtype=np.int64))

    def weighed(groups: dict[bytes, str] | None, by: dict[bytes, bytes]) -> Elected:
        rng = np.random.default_rng(0)
        return elect_packets(schema, plain, own, rng=rng, certified=by, groups=groups)

    fleet = dict.fromkeys(nodes, b"one")
    alone = weighed(None, fleet)
    assert alone.hired.anchor is Anchored.NOTHING
    assert (alone.hired.weight == 1.0).all()
    grouped = weighed(models, fleet)
    assert grouped.hired.anchor is Anchored.GROUPS
    assert grouped.hired.weight[~liars].min() > grouped.hired.weight[liars].max()
    # Nor do nodes that nobody certifies take the operator's word away by being many.
    assert weighed(models, {}).hired.anchor is Anchored.GROUPS
    assert weighed(None, {}).hired.anchor is Anchored.CONSENSUS
    # Where organisations certify them, these are asked.
    several = {node: b"one two three".split()[i % 3] for i, node in enumerate(nodes)}
    assert weighed(models, several).hired.anchor is Anchored.CONSENSUS


def test_two_strangers_without_outcomes_have_no_anchor() -> None:
    with asker(BINARY, 1, 1, 0) as (node, _):
        insight = node.ask(QUESTION)
    assert insight.basis == "nothing"
    assert insight.anchor.startswith("none")


def test_pinned_nodes_anchor_a_minority_and_are_believed_until_they_are_unpinned() -> None:
    with asker(BINARY, 2, 6, 0) as (node, bad):
        fooled = node.ask(QUESTION)
        assert fooled.basis == "consensus"
        honest = identity("peer 0").id.hex()
        with pytest.raises(DataError, match="names no node"):
            node.pin("north", by="a test")
        made = node.pin(honest[:12], by="a test", why="audited")
        assert made.node == honest
        assert node.pins() == (made,)
        insight = node.ask(QUESTION, explain=True)
        assert insight.basis == "pinned nodes"
        assert insight.explanation is not None
        verdicts = {one.node: (one.verdict, one.weight) for one in insight.explanation.nodes}
        assert verdicts[honest] == ("pinned", 1.0)
        assert verdicts[identity("peer 1").id.hex()][1] > 0.5
        assert max(weight for one, (_, weight) in verdicts.items() if one in bad) < 0.5
        kinds = [entry.kind for entry in node.log.entries(0, 100)]
        node.unpin(honest, by="a test")
        assert node.ask(QUESTION).to_dict() == fooled.to_dict()
        assert "pinned" in kinds
        assert [e.fields["by"] for e in node.log.entries(0, 100) if "pinned" in e.kind] == ["a test"] * 2


def arrays(own: int = 150) -> tuple[Schema, Evidence, Records, Records]:
    """Packets of six nodes (two lie), and own records before and after one more is known."""
    schema = schema_of(BINARY)
    with asker(BINARY, 4, 2, own + 1) as (node, _):
        node.ask(QUESTION, probes=12)
        packets = node._asker.packets(Clock().now)
    evidence = evidence_of(schema_of(BINARY, landmarks=drawn_landmarks(FIELDS, 12)), packets)
    table = table_of(BINARY, "asker", own + 1)
    codes = encode(schema, {name: table[name] for name in ("age", "dose", "ward")}).codes
    outcome = encode_outcome(schema.outcome, table["late"])
    every, day = np.arange(own + 1), np.zeros(own + 1, np.int64)
    now = records_of(schema, codes, outcome, every, day)
    return schema, evidence, records_of(schema, codes[:-1], outcome[:-1], every[:-1], day[:-1]), now


def elected(schema: Schema, evidence: Evidence, own: Records) -> Elected:
    return elect_packets(schema, evidence, own, rng=np.random.default_rng(0))


def test_one_more_outcome_gives_nearly_what_an_election_from_scratch_gives() -> None:
    schema, evidence, before, now = arrays()
    fresh = fresh_rows(before, now)
    assert fresh is not None
    assert fresh.tolist() == [150]
    first = elected(schema, evidence, before)
    step, anew = first.confirmed(schema, now, fresh), elected(schema, evidence, now)
    assert step.moved(anew) < 0.02
    assert np.abs(step.hired.weight - anew.hired.weight).max() < 0.05
    # With nothing new, nothing moves, to the last bit but rounding.
    same = first.confirmed(schema, before, np.zeros(0, np.int64))
    assert same.moved(first) < 1e-12
    assert fresh_rows(now, before) is None
    assert fresh_rows(now, now) is not None


def test_the_liars_fade_when_outcomes_come_one_by_one() -> None:
    schema, evidence, _, now = arrays(60)
    start = Records(x=now.x[:20], y=now.y[:20], group=now.group[:20])
    found = elected(schema, evidence, start)
    for count in range(21, 62):
        known = Records(x=now.x[:count], y=now.y[:count], group=now.group[:count])
        found = found.confirmed(schema, known, np.array([count - 1]))
    assert found.hired.anchor is Anchored.OWN_OUTCOMES
    assert found.moved(elected(schema, evidence, now)) < 0.1


def test_what_two_nodes_claim_word_for_word_counts_once() -> None:
    schema, evidence, before, _ = arrays()
    theirs = np.flatnonzero(evidence.node == 1)
    copycat = len(evidence.nodes)
    twice = replace(
        evidence.take(np.concatenate([np.arange(evidence.n), theirs])),
        node=np.concatenate([evidence.node, np.full(len(theirs), copycat)]),
        nodes=(*evidence.nodes, b"copycat"),
    )
    found = elected(schema, twice, before)
    assert found.copied[theirs].all()
    assert found.copied[evidence.n :].all()
    once = found.weight[theirs] + found.weight[evidence.n :]
    assert (once <= 1.0 + 1e-9).all()


def test_copies_are_found_where_they_hide_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((300, 12))
    x[rng.random(x.shape) < 0.1] = np.nan
    said = np.column_stack([np.full(300, 5.0), rng.integers(0, 2, 300)])
    node = np.arange(300) % 10
    share, copied = said_once(x, node, np.ones(10), said)
    assert not copied.any()
    assert (share == 1).all()
    # Nearly the same, exactly the same, the same with another outcome, by the same author, and with a slot left out.
    near = np.clip(x[:5] + rng.normal(0, 0.004, (5, 12)), 0, 1)
    less = x[4:5].copy()
    less[0, int(np.flatnonzero(~np.isnan(less[0]))[0])] = np.nan
    rows = np.concatenate([x, near[:1], x[1:2], x[2:3], x[3:4], less])
    author = np.concatenate([node, [9, 9, 9, node[3], 9]])
    told = np.concatenate([said, said[:2], 1 - said[2:3], said[3:4], said[4:5]])
    share, copied = said_once(rows, author, np.ones(10), told)
    assert np.flatnonzero(copied).tolist() == [0, 1, 300, 301]
    assert share[copied].tolist() == [0.5] * 4


def test_the_share_of_nodes_that_is_dropped() -> None:
    """Nodes count, not packets: who sends much is one."""
    with asker(BINARY, 2, 2, 100) as (node, _):
        elected = node._asker._fit.elected if node.ask(QUESTION) is not None else None  # type: ignore[union-attr]
    assert elected is not None
    evidence = elected.evidence
    first = np.where(evidence.node == 0, 0.0, 1.0)
    assert dropped(replace(evidence, weight=first)) == pytest.approx(1 / len(evidence.nodes))
    assert dropped(replace(evidence, weight=None)) == 0.0
    assert elected.dropped == dropped(evidence)
    assert 0.4 < elected.dropped < 0.6  # two of four lie
    assert dropped(evidence.take(np.zeros(0, dtype=np.int64))) == 0.0


def test_who_repeats_one_packet_thousands_of_times_fills_no_memory() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.full((4_000, 6), 0.5) + rng.normal(0, 0.001, (4_000, 6)), rng.random((50, 6))])
    node = np.concatenate([np.arange(4_000) % 40, np.full(50, 40)])
    share, copied = said_once(x, node, np.ones(41), np.ones((4_050, 1)))
    assert copied[:4_000].all()
    assert share[:4_000].max() <= 0.5
    assert not copied[4_000:].any()


def test_one_more_outcome_speaks_at_a_node_without_a_new_fit_and_many_bring_one() -> None:
    with asker(BINARY, 3, 2, 100) as (node, _):
        first = node.ask(QUESTION, case_id="late", explain=True).explanation
        fitted, before = node._asker.fitted, node._asker._fit
        assert before is not None
        assert node.confirm("late", "yes").name == "CONFIRMED"
        second = node.ask(QUESTION, explain=True).explanation
        assert node._asker._fit is before
        assert fitted is not None
        assert node._asker.fitted is not None
        assert node._asker.fitted.spread is fitted.spread  # weights may move, calculations stay
        assert first is not None
        assert second is not None
        assert (first.own_outcomes, second.own_outcomes) == (100, 101)
        assert [one.predicts for one in first.nodes] != [one.predicts for one in second.nodes]
        node.observe(turned(table_of(BINARY, "another", 120), node.schema), case="case")
        third = node.ask(QUESTION, explain=True).explanation
        assert third is not None
        assert third.own_outcomes == 221
        assert node._asker._fit is not before


def test_calculations_are_fitted_anew_when_elections_move_much(monkeypatch: pytest.MonkeyPatch) -> None:
    from outroute.node import asking

    with asker(BINARY, 3, 2, 100) as (node, _):
        node.ask(QUESTION, case_id="late")
        before = node._asker._fit
        node.confirm("late", "yes")
        monkeypatch.setattr(asking, "REFIT_SHARE", 0.02)  # one of a hundred own records is less than that
        node._asker._fit.weighed = replace(before.weighed, evidence=replace(before.evidence, weight=None))  # type: ignore[union-attr]
        node.ask(QUESTION)
        assert node._asker._fit is not before


def test_copying_takes_no_weight_from_whom_nobody_believes_less() -> None:
    """Liars who weigh nothing, or little, cannot dilute an honest packet by saying it too."""
    x, said = np.full((30, 4), 0.5), np.ones((30, 1))
    node = np.arange(30, dtype=np.int64)
    weight = np.zeros(30)
    weight[0] = 1.0
    factor, copied = said_once(x, node, weight, said)
    assert factor[0] == 1.0
    assert not copied.any()
    weight[1:] = 0.1
    factor, copied = said_once(x, node, weight, said)
    assert copied.all()
    assert np.isclose((factor * weight).sum(), 1.0)  # the claim counts once, as much as its best believed claimant
    assert np.allclose(factor, 1.0 / 3.9)
