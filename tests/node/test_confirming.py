"""Questions asked, outcomes that become known, and what that does to the elections."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from node.making import (
    ALL_LEAVE,
    KINDS,
    NOW,
    OUTCOMES,
    QUESTION,
    Clock,
    filled,
    identity,
    network_of,
    schema_of,
    table_of,
)
from outroute.elections import BANDS, Trust, elect
from outroute.node import Node
from outroute.node.believing import Said
from outroute.node.electing import Electing
from outroute.node.evidence import evidence_of, records_of
from outroute.node.insight import Insight
from outroute.packet import PacketArray
from outroute.schema import OutcomeKind, Schema, encode, encode_outcome, unit_scale
from outroute.store import Journal, Noted, Which
from outroute.store.database import Database
from outroute.store.journal import _APPLICATION
from outroute.store.observed import journal_layout
from outroute.store.outgoing import approvals_layout
from outroute.synthesis import fit

TESTS = Path(__file__).parent.parent
KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())


def state_of(node: Node) -> Trust:
    return node.trust


def cases_of(kind: OutcomeKind, n: int, site: str = "asked") -> list[tuple[str, dict[str, object], object]]:
    """Id, conditions and outcome of cases that nobody has observed."""
    table = table_of(kind, site, n)
    outcome = table.pop(OUTCOMES[kind].name)
    ids = table.pop("case")
    return [(ids[i], {name: values[i] for name, values in table.items()}, outcome[i]) for i in range(n)]


def losses_of(schema: Schema, insight: Insight, outcome: object) -> dict[str, float]:
    """Loss of each calculation by what an insight showed (class outcomes, nats)."""
    out = {}
    for name, (_, estimate) in insight.calculations.items():
        if isinstance(estimate, dict):
            share = estimate[str(outcome)]
        else:
            share = estimate if outcome == schema.outcome.classes[1] else 1.0 - estimate
        out[name] = -np.log(share)
    return out


def packets_of_others(schema: Schema, kind: OutcomeKind) -> PacketArray:
    """What everybody but north has published."""
    with network_of(schema) as nodes:
        filled(nodes, kind)
        return np.concatenate([node.outbox() for site, node in nodes.items() if site != "north"])


def scored_rows(node: Node) -> list[tuple[bytes, float]]:
    return list(node.journal.elections.scored())


def check_books(node: Node) -> Trust:
    """The state is what was said and what came true make it, row by row, to the last bit."""
    now = state_of(node)
    state = Trust.start(bands=len(now.asked), rate=now.rate)
    for data, outcome in scored_rows(node):
        said = Said.from_bytes(data)
        losses, paid = said.losses(outcome)
        state = state.update(losses[None], names=said.names, paid=np.array([paid]), bands=np.array([said.band]))
    assert (state.names, state.count) == (now.names, now.count)
    assert state.excess.tobytes() == now.excess.tobytes()
    assert state.confirmed.tobytes() == now.confirmed.tobytes()
    return now


@pytest.mark.parametrize("kind", [OutcomeKind.BINARY, OutcomeKind.CATEGORICAL], ids=["binary", "categorical"])
def test_what_was_said_before_is_what_is_scored(kind: OutcomeKind) -> None:
    schema = schema_of(kind)
    with network_of(schema) as nodes:
        filled(nodes, kind)
        node = nodes["north"]
        (case, conditions, outcome), *others = cases_of(kind, 40)
        insight = node.ask(conditions, case_id=case)
        table = {name: [row[1][name] for row in others] for name in conditions}
        wrong = [schema.outcome.classes[0]] * len(others)
        codes = encode(schema, table).codes
        node.observe_encoded(codes, encode_outcome(schema.outcome, wrong), cases=[row[0] for row in others])
        later = node.ask(conditions)
        assert later.calculations != insight.calculations  # it would say something else by now
        assert node.confirm(case, outcome) is Noted.CONFIRMED
        expected = losses_of(schema, insight, outcome)
        state = state_of(node)
        assert state.count == 1
        ((data, _),) = scored_rows(node)
        losses, paid = Said.from_bytes(data).losses(schema.outcome.classes.index(str(outcome)))
        assert dict(zip(state.names, losses, strict=True)) == pytest.approx(expected, rel=1e-4)
        np.testing.assert_allclose(state.excess.sum(0), losses - paid)


@KIND
def test_confirming_changes_the_elections_at_once_and_the_same_after_a_restart(
    kind: OutcomeKind, tmp_path: Path
) -> None:
    schema, clock = schema_of(kind), Clock()
    asked = cases_of(kind, 12)
    packets = packets_of_others(schema, kind)
    with Node(schema, data_dir=tmp_path, clock=clock) as node:
        node.observe(table_of(kind, "north"), case="case")
        assert node.receive(packets) == {}
        before = node.ask(QUESTION)
        for case, conditions, _ in asked:
            node.ask(conditions, case_id=case)
        assert node.ask(QUESTION).estimate == before.estimate  # asking changes nothing
        assert state_of(node).asked.sum() == len(asked)
        for case, _, outcome in asked[:2]:
            assert node.confirm(case, outcome) is Noted.CONFIRMED
        changed = node.ask(QUESTION)  # too few outcomes to fit anew: the calculations say what they said
        for name, (weight, estimate) in changed.calculations.items():
            assert estimate == before.calculations[name][1]
            assert weight != before.calculations[name][0]
        for case, _, outcome in asked[2:]:
            assert node.confirm(case, outcome) is Noted.CONFIRMED
        assert node.confirm(asked[0][0], asked[0][2]) is Noted.DUPLICATE
        state = check_books(node)
        assert state.count == len(asked)
        assert node.counts()["questions"] == 0
        last = node.ask(QUESTION)
    with Node(schema, data_dir=tmp_path, clock=clock) as node:
        assert state_of(node).to_bytes() == state.to_bytes()
        assert node.ask(QUESTION).calculations == last.calculations


def test_a_restart_keeps_verdicts_and_gives_the_answer_that_a_fit_from_scratch_gives(tmp_path: Path) -> None:
    """Who is believed follows from what is kept; before it, an answer may rest on an earlier fit."""
    schema, kind = schema_of(OutcomeKind.BINARY), OutcomeKind.BINARY
    packets = []
    for site in ("south", "east", "west", "liar"):
        table = table_of(kind, site, 120)
        if site == "liar":
            table["late"] = [{"no": "yes", "yes": "no"}[outcome] for outcome in table["late"]]
        with Node(schema, identity=identity(site), clock=Clock(), approval=ALL_LEAVE) as node:
            node.observe(table, case="case")
            node.distil()
            packets.append(node.journal.outbox.page(limit=1_000).packets)

    def verdicts(insight: Insight) -> dict[str, str]:
        assert insight.explanation is not None
        return {one.node: one.verdict for one in insight.explanation.nodes}

    with Node(schema, data_dir=tmp_path, clock=Clock()) as node:
        node.receive(np.concatenate(packets))
        node.observe(table_of(kind, "north", 120), case="case")
        node.ask(QUESTION)
        for case, conditions, outcome in cases_of(kind, 4):
            node.ask(conditions, case_id=case)
            assert node.confirm(case, outcome) is Noted.CONFIRMED
        between = node.ask(QUESTION, explain=True)  # too few outcomes to fit anew
        trust = state_of(node).to_bytes()
        node._asker.refit()
        anew = node.ask(QUESTION, explain=True)
    with Node(schema, data_dir=tmp_path, clock=Clock()) as node:
        assert state_of(node).to_bytes() == trust
        again = node.ask(QUESTION, explain=True)
    assert again == anew
    assert verdicts(again) == verdicts(between)
    assert verdicts(again)[identity("liar").id.hex()] == "contradicted"


#: Opens a node in a process of its own, asks, and tells everything to the last digit.
ANSWER = """
import json, sys
from node.making import *
from node.test_confirming import QUESTION, state_of

with Node(schema_of(OutcomeKind[sys.argv[2]]), data_dir=sys.argv[1], clock=Clock()) as node:
    told = node.ask(QUESTION, explain=True).to_dict()
    print(json.dumps({"trust": state_of(node).to_bytes().hex(), "insight": told}))
"""


@KIND
def test_another_process_elects_the_same_to_the_last_digit(kind: OutcomeKind, tmp_path: Path) -> None:
    """Neither the order of hashes nor anything that one process remembers is part of an election."""
    schema = schema_of(kind)
    with Node(schema, data_dir=tmp_path, clock=Clock()) as node:
        node.observe(table_of(kind, "north", 60), case="case")
        assert node.receive(packets_of_others(schema, kind)) == {}
        for case, conditions, outcome in cases_of(kind, 4):
            node.ask(conditions, case_id=case)
            assert node.confirm(case, outcome) is Noted.CONFIRMED
        trust = state_of(node).to_bytes().hex()
        node._asker.refit()
        anew = node.ask(QUESTION, explain=True).to_dict()
    told = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", ANSWER, str(tmp_path), kind.name],
            capture_output=True,
            text=True,
            check=True,
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": _path(), "PYTHONHASHSEED": seed},
        )
        told.append(json.loads(done.stdout))
    assert told[0] == told[1]
    assert told[0]["trust"] == trust
    assert told[0]["insight"] == json.loads(json.dumps(anew))
    assert len(anew["explanation"]["nodes"]) >= 3


def _path() -> str:
    """Where a process of its own finds these tests, and what this one finds."""
    return os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))


@KIND
def test_without_confirmed_questions_nothing_is_different(kind: OutcomeKind) -> None:
    """To the last bit what the batch election alone gives: the figures that are quoted hold."""
    schema = schema_of(kind)
    packets = packets_of_others(schema, kind)
    with Node(schema, clock=Clock(), electing=Electing(packets=False)) as node:
        node.observe(table_of(kind, "north"), case="case")
        assert node.receive(packets) == {}
        for case, conditions, _ in cases_of(kind, 8):
            node.ask(conditions, case_id=case)  # asked, not confirmed
        table = {name: [row[1][name] for row in cases_of(kind, 20, "more")] for name in QUESTION}
        codes = encode(schema, table).codes
        found = node.ask_many(codes).answers
        seen = node.journal.observations(Which.KNOWN)
        fitted = fit(
            schema,
            evidence_of(schema, packets),
            records_of(schema, seen.codes, seen.outcome, seen.subject, seen.bucket),
            settings=node.settings,
            rng=np.random.default_rng([node.seed, int.from_bytes(schema.id[:8], "little")]),
            trust=lambda names, prior, objective: elect(objective, prior),
        )
        plain = fitted.answer(unit_scale(schema, codes))
        for name in ("estimate", "low", "high", "weights", "by_calculation", "support"):
            assert getattr(found, name).tobytes() == getattr(plain, name).tobytes(), name


def test_a_case_whose_outcome_is_known_is_not_scored() -> None:
    """An own record has entered estimation: what is said of it now is no prediction."""
    schema = schema_of(OutcomeKind.BINARY)
    with network_of(schema) as nodes:
        filled(nodes, OutcomeKind.BINARY)
        node, table = nodes["north"], table_of(OutcomeKind.BINARY, "north")
        conditions = {name: table[name][3] for name in QUESTION}
        node.ask(conditions, case_id=table["case"][3])
        assert node.confirm(table["case"][3], table["late"][3]) is Noted.DUPLICATE
        assert (state_of(node).count, state_of(node).asked.sum()) == (0, 0)
        assert scored_rows(node) == []
        assert node.counts()["questions"] == 0


def test_an_outcome_that_observe_brings_is_scored_once() -> None:
    schema = schema_of(OutcomeKind.BINARY)
    asked = cases_of(OutcomeKind.BINARY, 3)
    table = {"case": [case for case, _, _ in asked]}
    table |= {name: [row[1][name] for row in asked] for name in QUESTION}
    with network_of(schema) as nodes:
        filled(nodes, OutcomeKind.BINARY)
        node = nodes["north"]
        for case, conditions, _ in asked:
            node.ask(conditions, case_id=case)
        assert node.observe(table, case="case").waiting == 3  # seen, outcome not known yet
        assert state_of(node).count == 0
        table["late"] = [asked[0][2], asked[1][2], None]
        for _ in range(2):
            node.observe(table, case="case")
            assert state_of(node).count == 2
            assert node.counts()["questions"] == 1
        assert node.confirm(asked[2][0], asked[2][2]) is Noted.CONFIRMED
        assert check_books(node).count == 3


def test_the_last_answer_before_the_outcome_counts() -> None:
    schema = schema_of(OutcomeKind.BINARY)
    with network_of(schema) as nodes:
        filled(nodes, OutcomeKind.BINARY)
        node = nodes["north"]
        case, conditions, outcome = cases_of(OutcomeKind.BINARY, 1)[0]
        node.ask(QUESTION | {"age": 20, "dose": 0.0, "ward": "red"}, case_id=case)
        node.ask(QUESTION | {"age": 95, "dose": 10.0, "ward": "blue"}, case_id=case)
        insight = node.ask(conditions, case_id=case)
        state = state_of(node)
        assert state.asked.sum() == 1  # one case, asked about three times
        node.confirm(case, outcome)
        expected = losses_of(schema, insight, outcome)
        said = Said.from_bytes(scored_rows(node)[0][0])
        losses, _ = said.losses(schema.outcome.classes.index(str(outcome)))
        assert dict(zip(said.names, losses, strict=True)) == pytest.approx(expected, rel=1e-4)
        assert state.asked[said.band] == 1
        assert len(state.asked) == BANDS


def test_a_corrected_outcome_replaces_the_one_that_was_scored(tmp_path: Path) -> None:
    schema = schema_of(OutcomeKind.BINARY)
    asked = cases_of(OutcomeKind.BINARY, 6)
    final = []
    for place, first in ((tmp_path / "a", True), (tmp_path / "b", False)):
        with network_of(schema, root=place) as nodes:
            filled(nodes, OutcomeKind.BINARY)
            node = nodes["north"]
            for case, conditions, _ in asked:
                node.ask(conditions, case_id=case)
            for i, (case, _, outcome) in enumerate(asked):
                wrong = {"no": "yes", "yes": "no"}[str(outcome)]
                node.confirm(case, wrong if first and i == 2 else outcome)
            if first:
                before = state_of(node)
                assert node.confirm(asked[2][0], asked[2][2]) is Noted.UPDATED
                assert not state_of(node).says_as(before)
            final.append(state_of(node))
    np.testing.assert_allclose(final[0].excess, final[1].excess, atol=1e-12)
    assert final[0].count == final[1].count


def test_erasing_a_subject_erases_what_was_scored(tmp_path: Path) -> None:
    schema = schema_of(OutcomeKind.BINARY)
    asked = cases_of(OutcomeKind.BINARY, 5)
    final = []
    for place, without in ((tmp_path / "a", True), (tmp_path / "b", False)):
        with network_of(schema, root=place) as nodes:
            filled(nodes, OutcomeKind.BINARY)
            node = nodes["north"]
            for case, conditions, outcome in asked:
                if without or case != asked[2][0]:
                    node.ask(conditions, case_id=case)
                    node.confirm(case, outcome)
            if without:
                assert node.erase(asked[2][0], by="a test").observations == 1
            assert len(scored_rows(node)) == 4
            assert node.journal.elections.state()[1] is False
            final.append(state_of(node))
    assert final[0].count == final[1].count == 4
    assert sorted(final[0].names) == sorted(final[1].names)


def test_outcome_and_election_are_kept_together_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = schema_of(OutcomeKind.BINARY)
    with network_of(schema) as nodes:
        filled(nodes, OutcomeKind.BINARY)
        node = nodes["north"]
        case, conditions, outcome = cases_of(OutcomeKind.BINARY, 1)[0]
        node.ask(conditions, case_id=case)
        before = (node.counts(), state_of(node).to_bytes())

        def full(state: bytes) -> None:
            raise OSError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(node.journal.elections, "keep", full)
            with pytest.raises(OSError, match="no space"):
                node.confirm(case, outcome)
        assert (node.counts(), state_of(node).to_bytes()) == before
        assert node.confirm(case, outcome) is Noted.CONFIRMED
        assert state_of(node).count == 1


def test_a_file_of_the_layout_before_opens_and_its_questions_can_be_confirmed(tmp_path: Path) -> None:
    schema = schema_of(OutcomeKind.BINARY)
    with Node(schema, data_dir=tmp_path, clock=Clock()) as node:
        node.observe(table_of(OutcomeKind.BINARY, "north"), case="case")
        secret = node.journal._secret
    (tmp_path / "journal.db").rename(tmp_path / "new.db")
    old = Database(
        tmp_path / "journal.db",
        application=_APPLICATION,
        migrations=(journal_layout, lambda connection: approvals_layout(connection, now=NOW)),
    )
    with old.transaction() as connection:
        connection.executemany("INSERT INTO meta VALUES (?, ?)", [("schema", schema.id), ("secret", secret)])
    old.close()
    codes = encode(schema, {name: [value] for name, value in QUESTION.items()}).codes
    with Journal(tmp_path, schema_id=schema.id, width=schema.width, now=NOW) as journal:
        high, low = journal._case("asked before")
    with sqlite3.connect(tmp_path / "journal.db") as plain:
        assert plain.execute("PRAGMA user_version").fetchone() == (4,)
        plain.execute(
            "INSERT INTO questions (case_high, case_low, asked, payload) VALUES (?, ?, ?, ?)",
            (high, low, NOW, codes.astype("<u2").tobytes()),
        )
    plain.close()
    with Node(schema, data_dir=tmp_path, clock=Clock()) as node:
        assert node.counts()["questions"] == 1
        assert node.confirm("asked before", "yes") is Noted.CONFIRMED
        assert state_of(node).count == 0  # nobody knows what was said
        assert (node.counts()["questions"], node.counts()["known"]) == (0, 1)


#: Asks and confirms without end, and says after each step what is safe.
WORKER = """
import sys
from node.making import *
from node.test_confirming import cases_of

schema = schema_of(OutcomeKind.BINARY)
number = int(sys.argv[2])
with Node(schema, data_dir=sys.argv[1], clock=Clock()) as node:
    if not node.counts()["known"]:
        node.observe(table_of(OutcomeKind.BINARY, "north", 40), case="case")
    print("ready", flush=True)
    while True:
        case, conditions, outcome = cases_of(OutcomeKind.BINARY, 1, f"worker {number}")[0]
        node.ask(conditions, case_id=case)
        print("asked", number, flush=True)
        node.confirm(case, outcome)
        print("confirmed", number, flush=True)
        number += 1
"""
KILLS = 3


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_a_killed_node_has_scored_what_it_confirmed(tmp_path: Path) -> None:
    moments = random.Random(8)
    asked: set[int] = set()
    confirmed: set[int] = set()
    for attempt in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(attempt * 10_000)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": _path()},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline().startswith("asked")
        asked.add(attempt * 10_000)
        time.sleep(moments.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):  # a line cut off by the kill was not said
                word, number = line.split()
                (asked if word == "asked" else confirmed).add(int(number))
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    with Node(schema_of(OutcomeKind.BINARY), data_dir=tmp_path, clock=Clock()) as node:
        state = check_books(node)
        assert state.count == node.counts()["known"] - 40
        assert len(confirmed) <= state.count <= len(confirmed) + KILLS  # and those under way when it was killed
        assert state.count + node.counts()["questions"] >= len(asked)
        for number in sorted(asked - confirmed):  # open or done, never half
            case, _, outcome = cases_of(OutcomeKind.BINARY, 1, f"worker {number}")[0]
            assert node.confirm(case, outcome) in (Noted.CONFIRMED, Noted.DUPLICATE)
        assert node.counts()["questions"] <= KILLS  # asked, and killed before it said so
        assert check_books(node).count == node.counts()["known"] - 40
