"""Several nodes: what leaves, what comes back, and that order and restarts change nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.making import (
    ALL_LEAVE,
    DAY,
    KINDS,
    NOW,
    QUESTION,
    SITES,
    Clock,
    filled,
    identity,
    network_of,
    schema_of,
    table_of,
)
from outroute.distill import Reason
from outroute.errors import PrivacyError, StoreError, TransportError
from outroute.node import Insight, Node
from outroute.node.local import guard_for, join_local
from outroute.packet import Rejection, identities, withdraw
from outroute.schema import MISSING, OutcomeKind
from outroute.store import State
from outroute.transports import Answer, LocalNetwork

BINARY = OutcomeKind.BINARY


def said(insight: Insight) -> dict[str, Any]:
    """The insight as JSON says it; raises on what JSON cannot say."""
    out: dict[str, Any] = json.loads(json.dumps(insight.to_dict(), allow_nan=False))
    return out


def values(estimate: float | dict[str, float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(list(estimate.values()) if isinstance(estimate, dict) else [estimate])


@pytest.mark.parametrize("facet", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_nodes_learn_from_each_other(kind: OutcomeKind, facet: bool) -> None:
    schema = schema_of(kind, facet=facet)
    with network_of(schema) as nodes:
        for site, node in nodes.items():
            table = table_of(kind, site)
            node.observe(table | ({"sex": ["f", "m"] * 30} if facet else {}), case="case")
            node.distil()
            node.publish()
        insight = nodes["north"].ask(QUESTION)
        answer = said(insight)
        assert insight.abstained is None
        assert np.all(values(insight.low) <= values(insight.estimate))
        assert np.all(values(insight.estimate) <= values(insight.high))
        names = {nodes[site].id.hex() for site in SITES if site != "north"}
        assert {s.node for s in insight.contributors} - {"own"} <= names
        assert len(insight.contributors) >= 3
        assert insight.heterogeneity_known
        assert answer["interval"].keys() == {"low", "high", "level"}
        assert answer["anchor"].startswith("own outcomes")
        # Nobody's packets count for their author, who has the records.
        assert insight.reach.packets == sum(len(nodes[s].outbox()) for s in SITES if s != "north")
        many = nodes["north"].ask_many([QUESTION, {"age": 30}])
        # Questions asked together are computed together, in single precision near the question.
        assert values(many[0].estimate) == pytest.approx(values(insight.estimate), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_the_order_of_publishing_changes_no_insight(kind: OutcomeKind) -> None:
    found = []
    for order in list(permutations(SITES))[:: 9 if kind is BINARY else 20]:
        with network_of(schema_of(kind), SITES) as nodes:
            for site in order:
                filled({site: nodes[site]}, kind)
            found.append(said(nodes["north"].ask(QUESTION)))
    assert len(found) >= 2
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_a_reopened_network_answers_the_same(kind: OutcomeKind, tmp_path: Path) -> None:
    schema = schema_of(kind)
    with network_of(schema, root=tmp_path) as nodes:
        filled(nodes, kind)
        before = {site: said(node.ask(QUESTION)) for site, node in nodes.items()}
        counts = {site: node.counts() for site, node in nodes.items()}
        keys = {site: node.id for site, node in nodes.items()}
        # All stop at once, without handing anything over.
        for node in nodes.values():
            node.transport._network.kill(node.id)  # type: ignore[union-attr]
    with network_of(schema, root=tmp_path) as nodes:
        assert {site: node.id for site, node in nodes.items()} == keys
        assert {site: node.counts() for site, node in nodes.items()} == counts
        assert {site: said(node.ask(QUESTION)) for site, node in nodes.items()} == before
        assert all(node.publish().sent == 0 for node in nodes.values())
        assert all(node.distil().packets == 0 for node in nodes.values())


def test_equal_records_give_equal_insights_whatever_the_directory(tmp_path: Path) -> None:
    """Also where several cases share a subject: what is kept of its id is a hash that differs by directory."""
    found = []
    for place in ("a", "b"):
        with Node(schema_of(BINARY), data_dir=tmp_path / place, clock=Clock()) as node:
            node.observe(table_of(BINARY, "north") | {"who": [i // 3 for i in range(60)]}, case="case", subject="who")
            found.append(said(node.ask(QUESTION)))
    assert found[0] == found[1]


def test_a_node_alone_keeps_its_own_packets_and_has_no_peers(tmp_path: Path) -> None:
    for _ in range(2):
        with Node(schema_of(BINARY), data_dir=tmp_path, clock=Clock(), approval=ALL_LEAVE) as node:
            node.observe(table_of(BINARY, "north"), case="case")
            made, done = node.distil(), node.publish()
            assert done.acknowledged == done.sent == made.packets
            insight = node.ask(QUESTION)
            assert (insight.reach.packets, insight.heterogeneity_known) == (0, False)
            assert [s.node for s in insight.contributors] == ["own"]


def test_a_newcomer_without_outcomes_goes_by_consensus_and_nobody_without_evidence_answers() -> None:
    with network_of(schema_of(BINARY)) as nodes:
        empty = nodes["west"].ask(QUESTION)
        assert empty.abstained == "no packet and no own record is near this case"
        filled({s: nodes[s] for s in SITES[:3]}, BINARY)
    # A cell that was looked at stays known for a while, so the newcomer is a fresh one.
    with network_of(schema_of(BINARY)) as nodes:
        filled({s: nodes[s] for s in SITES[:3]}, BINARY)
        insight = nodes["west"].ask(QUESTION)
        assert insight.anchor.startswith("consensus")
        assert insight.basis == "consensus"
        assert insight.abstained is None
        said(insight)


def test_what_is_withheld_is_said_and_the_floor_holds() -> None:
    schema = schema_of(BINARY)
    with Node(schema, clock=Clock()) as node:
        table = table_of(BINARY, "north", 4)
        node.observe(table, case="case")
        node.observe({"case": ["open"], "age": [50], "dose": [1], "ward": ["red"], "late": [""]}, case="case")
        made = node.distil()
        assert (made.packets, made.observations) == (0, 0)
        assert made.withheld == {Reason.TOO_FEW_SUBJECTS: 4, Reason.NO_OUTCOME: 1}
        for k in (1, 4, 0, -1):
            with pytest.raises(PrivacyError):
                node.distil(k=k)
        assert len(node.outbox()) == 0
    with Node(schema, clock=Clock()) as node:  # forty visits of four patients are four subjects
        visits = {k: [v[i % 4] for i in range(40)] for k, v in table.items()} | {"visit": list(range(100, 140))}
        node.observe(visits, case="visit", subject="case")
        assert node.distil().packets == 0
        node.observe(table_of(BINARY, "more", 40), case="case")
        assert node.distil(k=7).packets > 0
        assert (node.outbox()["size"] >= 7).all()
        assert (node.outbox()["weight"] >= 7 * 256).all()


def test_single_packets_leave_only_where_the_schema_allows() -> None:
    with Node(schema_of(BINARY, k=1), clock=Clock()) as node:
        node.observe(table_of(BINARY, "north", 10), case="case")
        assert node.distil().packets == 10
        assert (node.outbox()["size"] == 1).all()


def test_streaming_never_regroups_and_loses_nothing() -> None:
    with Node(schema_of(BINARY), clock=Clock()) as node:
        table = table_of(BINARY, "north", 120)
        out: set[bytes] = set()
        for at in range(0, 120, 15):
            node.observe({k: v[at : at + 15] for k, v in table.items()}, case="case")
            node.distil(streaming=True)
            now = set(identities(node.outbox()))
            assert out <= now
            out = now
        node.distil()
        assert int(node.outbox()["size"].sum()) + node.counts()["ready"] == 120


def test_what_is_not_acknowledged_is_sent_again(tmp_path: Path) -> None:
    schema, clock = schema_of(BINARY), Clock()
    with network_of(schema, root=tmp_path, clock=clock) as nodes:
        north = nodes["north"]
        north.observe(table_of(BINARY, "north"), case="case")
        made = north.distil().packets
        network = north.transport._network  # type: ignore[union-attr]
        for site in SITES[1:]:
            network.kill(nodes[site].id, noticed=False)
        done = north.publish()
        assert (done.acknowledged, done.pending) == (0, made)
        assert len(north.outbox(State.SENT)) == made
        network.kill(north.id)
    with network_of(schema, root=tmp_path, clock=clock) as nodes:
        done = nodes["north"].publish()
        assert (done.sent, done.acknowledged, done.pending) == (made, made, 0)
        assert nodes["north"].publish().sent == 0
        assert nodes["south"].ask(QUESTION, probes=6).reach.packets == made


def test_a_network_in_memory_forgets_and_gets_the_packets_again(tmp_path: Path) -> None:
    schema, clock = schema_of(BINARY), Clock()
    made = 0
    for attempt in range(2):
        network = LocalNetwork(clock=clock)
        with (
            Node(
                schema,
                transport=join_local(network, identity("north"), schema),
                identity=identity("north"),
                data_dir=tmp_path,
                clock=clock,
                approval=ALL_LEAVE,
            ) as north,
            Node(schema, transport=join_local(network, identity("south"), schema), clock=clock) as south,
        ):
            north.observe(table_of(BINARY, "north"), case="case")
            made += north.distil().packets
            done = north.publish()
            assert (done.sent, done.acknowledged) == (made, made), attempt
            assert south.ask(QUESTION, probes=6).reach.packets == made


@pytest.mark.parametrize("facet", [False, True])
def test_packets_from_a_file_count_and_stay(facet: bool, tmp_path: Path) -> None:
    schema, clock = schema_of(BINARY, facet=facet), Clock()
    extra = {"sex": ["f", "m"] * 30} if facet else {}
    with Node(schema, identity=identity("south"), clock=clock) as south:
        south.observe(table_of(BINARY, "south") | extra, case="case")
        south.distil()
        packets = south.outbox()
    file = packets.tobytes()
    bad = bytearray(file[:512])
    bad[100] ^= 1
    with Node(schema, data_dir=tmp_path, clock=clock) as node:
        node.observe(table_of(BINARY, "north") | extra, case="case")
        node.distil()
        refused = node.receive(file + bytes(bad) + b"torn")
        assert sum(refused.values()) == 2
        assert refused[Rejection.LENGTH] == 1
        assert node.receive(file) == {}  # again: nothing new
        assert node.receive(b"") == {}
        assert sorted(identities(node.received())) == sorted(identities(packets))
        assert node.receive(node.outbox()) == {}  # own packets are accepted, and never count as evidence
        before = said(node.ask(QUESTION))
        assert {s["node"] for s in before["contributors"]} == {"own", south.id.hex()}
    with Node(schema, data_dir=tmp_path, clock=clock) as node:
        assert said(node.ask(QUESTION)) == before
        # A withdrawal in a file takes back what a file brought, and stays in force.
        assert node.receive(withdraw(packets, identity("south"))) == {}
        gone = said(node.ask(QUESTION))
        assert [s["node"] for s in gone["contributors"]] == ["own"]
        assert node.receive(file) == {}
        assert said(node.ask(QUESTION)) == gone
    clock.now += 40 * DAY
    with Node(schema, data_dir=tmp_path, clock=clock) as node:
        assert len(node.received()) == 0
        assert node.receive(file) == {Rejection.EXPIRED: len(packets)}


def test_a_packet_that_comes_both_ways_counts_once() -> None:
    with network_of(schema_of(BINARY)) as nodes:
        filled(nodes, BINARY)
        before = said(nodes["north"].ask(QUESTION))
        nodes["north"].receive(nodes["south"].outbox())
        after = said(nodes["north"].ask(QUESTION))
        before.pop("reach")
        after.pop("reach")
        assert after == before


def test_a_withdrawal_leaves_nothing_that_rests_on_it() -> None:
    clock = Clock()
    with network_of(schema_of(BINARY), clock=clock) as nodes:
        filled(nodes, BINARY)
        north, south = nodes["north"], nodes["south"]
        first = north.ask(QUESTION)
        assert south.id.hex() in {s.node for s in first.contributors}
        gone = south.outbox()
        assert len(south.withdraw(since=NOW - DAY, until=NOW + DAY, by="a test").ids) == len(gone)
        assert said(north.ask(QUESTION)) == said(first)  # nobody knows of it yet
        done = south.publish()
        assert done.acknowledged == done.withdrawals == len(gone)
        held = north.transport.shelf.addresses()  # type: ignore[union-attr]
        at_once = north.ask(QUESTION)  # cells are remembered for some minutes, but those that it keeps itself it knows
        still = [a for a, cell in north._asker._cells.items() if _by(south, cell.packets)]
        assert not set(still) & set(held)
        assert at_once.reach.packets < first.reach.packets
        clock.now += 301
        second = north.ask(QUESTION)
        assert south.id.hex() not in {s.node for s in second.contributors}
        assert second.reach.packets == first.reach.packets - len(gone)


def _by(node: Node, packets: Any) -> bool:
    assert node.identity is not None
    return node.identity.public_key in {author.tobytes() for author in packets["author"]}


def test_expired_packets_do_not_answer() -> None:
    clock = Clock()
    with network_of(schema_of(BINARY), clock=clock) as nodes:
        filled(nodes, BINARY)
        assert len(nodes["north"].ask(QUESTION).contributors) > 1
        clock.now += 40 * DAY
        assert [s.node for s in nodes["north"].ask(QUESTION).contributors] == ["own"]


def test_new_packets_near_a_question_count_in_the_next_answer() -> None:
    clock = Clock()
    with network_of(schema_of(BINARY), clock=clock) as nodes:
        filled({s: nodes[s] for s in ("south", "east")}, BINARY)
        first = nodes["north"].ask(QUESTION, probes=6)
        filled({"west": nodes["west"]}, BINARY)
        clock.now += 301
        second = nodes["north"].ask(QUESTION, probes=6)
        assert second.reach.packets == first.reach.packets + len(nodes["west"].outbox())
        assert nodes["west"].id.hex() in {s.node for s in second.contributors}


def test_own_outcomes_count_in_the_next_answer() -> None:
    with network_of(schema_of(BINARY)) as nodes:
        filled({"south": nodes["south"]}, BINARY)
        north = nodes["north"]
        assert north.ask(QUESTION, case_id="q").anchor.startswith("none")
        north.confirm("q", "yes")
        assert north.ask(QUESTION).anchor.startswith("own outcomes")


def test_cells_that_nobody_answers_for_are_said_and_asked_again() -> None:
    clock = Clock()
    with network_of(schema_of(BINARY), SITES[:2], clock=clock) as nodes:
        filled(nodes, BINARY)
        north, south = nodes["north"], nodes["south"]
        network = north.transport._network  # type: ignore[union-attr]
        network.kill(south.id, noticed=False)
        network._members.pop(north.id)  # nobody holds anything any more
        north.transport.keeper.handle = lambda *given: []  # type: ignore[union-attr,method-assign]
        lonely = north.ask(QUESTION)
        assert lonely.reach.unanswered == lonely.reach.cells > 0
        del north.transport.keeper.handle  # type: ignore[union-attr]
        network._members[north.id] = north.transport
        assert north.ask(QUESTION).reach.unanswered == lonely.reach.cells  # not at once
        clock.now += 31
        assert north.ask(QUESTION).reach.unanswered == 0
        assert south.id.hex() in {s.node for s in north.ask(QUESTION).contributors}


def test_cells_whose_holders_fell_silent_are_said_and_asked_again_soon() -> None:
    clock = Clock()
    with network_of(schema_of(BINARY), SITES[:2], clock=clock) as nodes:
        filled(nodes, BINARY)
        north = nodes["north"]
        fetch = north.transport.fetch

        async def cut_off(*given: Any, **more: Any) -> list[Answer]:
            return [replace(one, silent=2) for one in await fetch(*given, **more)]

        north.transport.fetch = cut_off  # type: ignore[method-assign]
        insight = north.ask(QUESTION)
        assert insight.reach.short == insight.reach.cells > 0
        assert said(insight)["reach"]["short"] == insight.reach.short
        north.transport.fetch = fetch  # type: ignore[method-assign]
        clock.now += 31
        assert north.ask(QUESTION).reach.short == 0


def test_another_schema_or_secret_is_a_clear_error_and_loses_nothing() -> None:
    clock = Clock()
    a, b = schema_of(BINARY), schema_of(OutcomeKind.NUMERIC)
    network = LocalNetwork(clock=clock)
    with pytest.raises(TransportError, match="does not serve schema") as caught:
        Node(a, transport=join_local(network, identity("x"), b), clock=clock)
    assert caught.value.code == "transport.schema"
    # The others of the network serve another schema, or have another secret.
    for at, (other, secret) in enumerate([(b, b""), (a, b"other")]):
        network = LocalNetwork(clock=clock)
        for i in range(4):
            join_local(network, identity(f"{at}{i}"), other, secret=secret)
        transport = join_local(network, identity("north"), a)
        with Node(a, transport=transport, identity=identity("north"), approval=ALL_LEAVE) as node:
            node.clock = clock
            node.observe(table_of(BINARY, "north"), case="case")
            made = node.distil().packets
            with pytest.raises(TransportError, match="another schema or network secret"):
                node.publish()
            assert len(node.outbox(State.REFUSED)) == 0
            assert len(node.outbox()) == made


def test_one_process_per_directory(tmp_path: Path) -> None:
    schema = schema_of(BINARY)
    other = (
        "import sys\n"
        "from node.making import *\n"
        "from outroute.errors import StoreError\n"
        "try:\n"
        f"    Node(schema_of(OutcomeKind.BINARY), data_dir={str(tmp_path)!r})\n"
        "except StoreError as error:\n"
        "    sys.exit(f'{error.code} {error}')\n"
    )
    with Node(schema, data_dir=tmp_path) as node:
        with pytest.raises(StoreError, match="in use by another outroute process"):
            Node(schema, data_dir=tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", other], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith("store.locked")
        node.observe(table_of(BINARY, "north"), case="case")  # the first is not disturbed
    with pytest.raises(StoreError, match="another schema"):
        Node(schema_of(OutcomeKind.NUMERIC), data_dir=tmp_path)
    with Node(schema, data_dir=tmp_path) as node:  # an error has left no lock behind
        assert node.counts()["known"] == 60


def test_closing_twice_is_harmless_and_a_closed_node_says_so(tmp_path: Path) -> None:
    node = Node(schema_of(BINARY), data_dir=tmp_path)
    node.close()
    node.close()
    for call in (
        lambda: node.ask(QUESTION),
        lambda: node.observe(table_of(BINARY, "north"), case="case"),
        lambda: node.confirm("a", "yes"),
        lambda: node.distil(),
        lambda: node.publish(),
        lambda: node.receive(b""),
        lambda: node.received(),
    ):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_an_error_in_the_middle_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema, clock = schema_of(BINARY), Clock()

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with Node(schema, data_dir=tmp_path, clock=clock, approval=ALL_LEAVE) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        with monkeypatch.context() as patch:
            patch.setattr(node._journal.outbox, "add", interrupted)
            with pytest.raises(KeyboardInterrupt):
                node.distil()
        assert len(node.outbox()) == 0
        made = node.distil()
        assert made.observations + node.counts()["ready"] == 60
        with monkeypatch.context() as patch:
            patch.setattr(node.transport, "deposit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                node.publish()
        assert len(node.outbox(State.QUEUED)) == made.packets
        assert node.publish().acknowledged == made.packets
        node.ask(QUESTION, case_id="q")
        with monkeypatch.context() as patch:
            patch.setattr(node, "observe_encoded", interrupted)
            with pytest.raises(KeyboardInterrupt):
                node.confirm("q", "no")
        assert node.counts()["questions"] == 1
        assert node.confirm("q", "no").name == "CONFIRMED"


def test_what_is_secret_is_not_printed() -> None:
    with Node(schema_of(BINARY), secret=b"the secret of the network") as node:
        assert "secret" not in repr(node)


def test_importing_a_node_is_light() -> None:
    code = (
        "import sys, outroute.node, outroute\n"
        "heavy = {'pandas', 'sklearn', 'pyarrow', 'scipy', 'matplotlib', 'typer', 'rich'}\n"
        "sys.exit(str(sorted(heavy & {m.partition('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def test_codes_may_be_asked_directly() -> None:
    with network_of(schema_of(BINARY)) as nodes:
        filled(nodes, BINARY)
        codes = np.full((2, nodes["north"].schema.width), MISSING, dtype=np.uint16)
        assert nodes["north"].ask_many(codes).estimate.tolist() == nodes["north"].ask_many([{}, {}]).estimate.tolist()


def test_guards_may_be_shared_and_check_once() -> None:
    schema = schema_of(BINARY)
    guard = guard_for(schema)
    network = LocalNetwork(clock=Clock())
    with (
        Node(schema, transport=join_local(network, identity("a"), schema, guard=guard), clock=Clock()) as a,
        Node(schema, transport=join_local(network, identity("b"), schema, guard=guard), clock=Clock()) as b,
    ):
        a.observe(table_of(BINARY, "a"), case="case")
        made = a.distil().packets
        a.approve(a.review().digest.hex(), by="a test")
        a.publish()
        b.ask(QUESTION)
        assert guard.verified == made
