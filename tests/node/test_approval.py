"""What leaves a node and who let it: by hand, by rules, by the schema; rules read from a file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.making import ALL_LEAVE, DAY, NOW, QUESTION, Clock, TappedNetwork, filled, network_of, schema_of, table_of
from outroute.errors import DataError, PrivacyError, SchemaError, StoreError
from outroute.identity import Identity
from outroute.node import Node
from outroute.node.approval import HAND, Automatic, Rules, default_approval, load_rules
from outroute.packet import WEIGHT_ONE
from outroute.schema import OutcomeKind, encode, sign_schema
from outroute.store import Event, State, verify_lines

BINARY = OutcomeKind.BINARY
BY = "Dr. Weber"


def digests(packets: Any) -> list[bytes]:
    return [hashlib.sha256(row.tobytes()).digest() for row in packets]


def kinds(node: Node) -> list[str]:
    return [entry.kind for entry in node.log.entries(limit=10_000)]


def test_exactly_the_approved_bytes_leave() -> None:
    clock = Clock()
    network = TappedNetwork(clock=clock)
    with network_of(schema_of(BINARY), clock=clock, approval=None, network=network) as nodes:
        north = nodes["north"]
        north.observe(table_of(BINARY, "north"), case="case")
        made = north.distil()
        assert (made.approved, made.approved_by) == (0, "")
        assert north.publish().sent == 0
        assert network.seen == {}
        queued = north.pending(limit=1000)
        assert len(queued) == made.packets >= 4
        review = north.review(queued.ids[:2])
        assert review.digest == hashlib.sha256(queued.packets[:2].tobytes()).digest()
        north.approve(review.digest.hex()[:12], by=BY)
        north.reject(queued.digests[2].hex(), by=BY)
        done = north.publish()
        assert (done.sent, done.acknowledged) == (2, 2)
        for node in nodes.values():
            node.ask(QUESTION, probes=6)
        assert set(network.seen) == set(digests(queued.packets[:2]))
        north.approve(north.review().digest.hex(), by=BY)
        assert north.publish().acknowledged == made.packets - 3
        assert set(network.seen) == set(digests(queued.packets)) - {digests(queued.packets)[2]}
        assert north.distil().packets == 0  # what was rejected stays out
        north.reject(queued.digests[2].hex(), by=BY, again=True)
        again = north.distil()
        assert again.observations == int(queued.packets["size"][2])
        assert len(north.pending()) == again.packets
        entries = {entry.kind: entry.fields for entry in north.log.entries(limit=100)}
        assert entries["approved"]["by"] == entries["rejected"]["by"] == BY
        others = {nodes[site].id.hex() for site in ("south", "east", "west")}
        assert set(entries["acknowledged"]["recipients"]) <= others
        assert north.log.verify() == []


@pytest.mark.parametrize("wrong", ["ab" * 32, "ab", "", "no digest at all", "g" * 64])
def test_an_unknown_digest_approves_nothing(wrong: str) -> None:
    with Node(schema_of(BINARY), clock=Clock()) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        node.distil()
        before = node.log.head()
        with pytest.raises(StoreError) as caught:
            node.approve(wrong, by=BY)
        assert caught.value.code == "outbox.digest"
        with pytest.raises(StoreError, match="say who approves"):
            node.approve(node.review().digest.hex(), by="  ")
        assert node.counts()["packets_queued"] == 0
        assert node.log.head()[0] == before[0] + 1  # the review


def test_single_data_need_no_approval_unless_the_operator_says_so() -> None:
    schema = schema_of(BINARY, k=1)
    assert default_approval(schema_of(BINARY)) is HAND
    with Node(schema, clock=Clock()) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        made = node.distil()
        assert (made.packets, made.approved) == (60, 60)
        assert "single" in made.approved_by
        assert node.publish().acknowledged == 60
    with Node(schema, clock=Clock(), approval=HAND) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        assert node.distil().approved == 0
        assert node.publish().sent == 0


def test_rules_approve_what_keeps_every_bound() -> None:
    clock = Clock()
    schema = schema_of(BINARY)
    rules = Rules(name="routine", subjects_least=6, class_least=2, absent={"ward": ("blue",)}, packets_most_per_day=2)
    with Node(schema, clock=clock, approval=rules) as node:
        node.observe(table_of(BINARY, "north", 900), case="case")
        made = node.distil()
        everything = node.outbox()
        first = schema.slots["ward"].start
        good = (everything["weight"] >= 6 * WEIGHT_ONE) & (everything["conditions"][:, first + 2] == 0)
        counts = everything["outcome"][:, :2]
        good &= ((counts == 0) | (counts >= 2)).all(axis=1) & (counts.max(axis=1) < everything["size"])
        allowed = everything[good]
        assert len(allowed) > 4
        assert (made.approved, made.approved_by) == (2, "rule: routine")
        assert node.outbox(State.QUEUED).tobytes() == allowed[:2].tobytes()
        assert node.distil().approved == 0  # two a day
        clock.now += DAY
        assert node.distil().approved == 2
        assert node.outbox(State.QUEUED).tobytes() == allowed[:4].tobytes()
        # The others wait for somebody.
        node.approve(node.review().digest.hex(), by=BY)
        assert node.counts()["packets_pending"] == 0
        assert node.distil().approved == 0
        by = [entry.fields["by"] for entry in node.log.entries(limit=100) if entry.kind == Event.APPROVED]
        assert by == ["rule: routine", "rule: routine", BY]


def test_rules_about_age_and_missing_fields() -> None:
    clock, schema = Clock(), schema_of(BINARY)
    table = table_of(BINARY, "north")
    table["dose"] = [None] * 60
    late = np.array([float(x == "yes") for x in table["late"]])
    codes = encode(schema, {name: table[name] for name in ("age", "dose", "ward")}).codes
    with Node(schema, clock=clock, approval=Rules(name="old", days_least=7, missing=("dose",))) as node:
        node.observe_encoded(codes, late, cases=table["case"], times=np.full(60, NOW))
        made = node.distil()
        assert made.packets > 0
        assert made.approved == 0
        clock.now = NOW - NOW % DAY + 8 * DAY - 1
        assert node.distil().approved == 0
        clock.now += 1
        allowed = [row for row in node.outbox() if row["outcome"][:2].max() < row["size"]]
        assert node.distil().approved == len(allowed) > 0
    with Node(schema, clock=clock, approval=Rules(name="young", missing=("age",))) as node:
        node.observe_encoded(codes, late, cases=table["case"])
        node.distil()
        assert node.counts()["packets_queued"] == 0


def test_rules_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        'name = "routine"\npackets_most_per_day = 500\nsubjects_least = 10\nobservations_most = 40\nagreeing = true\n'
        'class_least = 3\ndays_least = 2\nmissing = ["dose"]\n[absent]\nward = ["red", "blue"]\n'
    )
    assert load_rules(file) == Rules(
        name="routine",
        packets_most_per_day=500,
        subjects_least=10,
        observations_most=40,
        agreeing=True,
        class_least=3,
        days_least=2,
        missing=("dose",),
        absent={"ward": ("red", "blue")},
    )
    load_rules(file).check(schema_of(BINARY))
    file.write_text('name = "x"')
    assert load_rules(file) == Rules(name="x")


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ('name = "x"\nsubject_least = 6', "rules.key", "did you mean subjects_least"),
        ('name = "x"\nzzz = 6', "rules.key", "there are name, packets_most_per_day"),
        ("subjects_least = 6", "rules.value", "a name"),
        ('name = ""', "rules.value", "1 to 100 characters"),
        ('name = "two\\nlines"', "rules.value", "on one line"),
        ('name = "x"\nsubjects_least = "six"', "rules.value", "whole number of 1 or more"),
        ('name = "x"\nsubjects_least = true', "rules.value", "whole number"),
        ('name = "x"\npackets_most_per_day = -1', "rules.value", "whole number of 0 or more"),
        ('name = "x"\nagreeing = 1', "rules.value", "true or false"),
        ('name = "x"\nmissing = "dose"', "rules.value", "list of fields"),
        ('name = "x"\nabsent = ["ward"]', "rules.value", "table of lists"),
        ('name = "x\n', "rules.toml", "is not TOML"),
        ("\x00\xff", "rules.toml", "is not TOML"),
        ("#" * 100_001, "rules.file", "no file of rules"),
    ],
)
def test_bad_rules_are_one_clear_line(text: str, code: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=says) as caught:
        load_rules(file)
    assert caught.value.code == code
    assert len(str(caught.value).splitlines()) <= 2
    with pytest.raises(DataError, match="cannot read the rules"):
        load_rules(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (Rules(name="x", missing=("dosis",)), "no field 'dosis'; did you mean dose"),
        (Rules(name="x", absent={"wards": ("red",)}), "did you mean ward"),
        (Rules(name="x", absent={"ward": ("rad",)}), "no category 'rad'; did you mean red"),
        (Rules(name="x", absent={"dose": ("1",)}), "has no categories"),
    ],
)
def test_rules_that_do_not_fit_the_schema_are_refused_at_the_start(rules: Rules, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says) as caught:
        Node(schema_of(BINARY), data_dir=tmp_path, approval=rules)
    assert caught.value.code == "rules.field"
    with pytest.raises(DataError, match="class_least needs an outcome with classes"):
        Node(schema_of(OutcomeKind.NUMERIC), approval=Rules(name="x", class_least=2))
    with Node(schema_of(BINARY), data_dir=tmp_path):  # nothing is left locked
        pass


def test_a_hand_over_is_a_file_of_exactly_what_was_approved(tmp_path: Path) -> None:
    with Node(schema_of(BINARY), data_dir=tmp_path / "node", clock=Clock()) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        node.distil()
        file = tmp_path / "north.orp"
        assert node.hand_over(file, to="south").bytes == 0
        assert not file.exists()
        one = node.pending(limit=1)
        node.approve(one.digests[0].hex(), by=BY)
        with pytest.raises(StoreError, match="who gets the packets"):
            node.hand_over(file, to=" ")
        with pytest.raises(StoreError, match="nothing was handed over") as caught:
            node.hand_over(tmp_path / "no such folder" / "x", to="south")
        assert caught.value.code == "file.write"
        assert "sent" not in kinds(node)
        done = node.hand_over(file, to="south")
        assert (done.packets, done.withdrawals, done.bytes) == (1, 0, 512)
        assert file.read_bytes() == done.content == one.packets.tobytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["node", "north.orp"]
        entry = next(entry for entry in node.log.entries(limit=100) if entry.kind == Event.SENT)
        assert entry.fields["recipients"] == ["file: south"]
        assert entry.fields["identities"] == [one.identities[0].hex()]
        assert node.hand_over(to="south").bytes == 0
        assert node.hand_over(to="east", again=True).content == done.content


def test_withdrawals_follow_the_packets_to_everybody_who_was_handed_them(tmp_path: Path) -> None:
    with Node(schema_of(BINARY), clock=Clock(), approval=ALL_LEAVE) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        node.distil()
        whole = node.hand_over(to="south")
        assert node.hand_over(to="east", again=True).packets == whole.packets
        packet = node.journal.outbox.page(limit=1).digests[0].hex()
        node.withdraw(packet=packet, by=BY)
        first = node.hand_over(to="south")
        assert (first.packets, first.withdrawals) == (0, 1)
        assert node.hand_over(to="east").content == first.content
        assert node.hand_over(to="east").bytes == node.hand_over(to="south").bytes == 0
        assert node.hand_over(to="west").bytes == 0  # never had the packet
    with Node(schema_of(BINARY), clock=Clock()) as other:
        other.receive(whole.content)
        other.receive(first.content)
        assert len(other.received()) == whole.packets - 1


def test_the_log_says_what_was_asked_and_answered_and_never_what_for() -> None:
    clock = Clock()
    with network_of(schema_of(BINARY), clock=clock) as nodes:
        filled(nodes, BINARY)
        north = nodes["north"]
        north.ask(QUESTION, case_id="somebody", probes=6)
        asked = [entry for entry in north.log.entries(limit=1000) if entry.kind == Event.ASKED]
        known = {a.hex() for a in north._asker._cells}
        assert {a for entry in asked for a in entry.fields["addresses"]} == known
        told = {member for entry in asked for member in entry.fields["recipients"]}
        assert told
        assert told <= {node.id.hex() for node in nodes.values()} - {north.id.hex()}
        north.ask(QUESTION, probes=6)  # remembered: nothing is asked
        assert len([e for e in north.log.entries(limit=1000) if e.kind == Event.ASKED]) == len(asked)
        clock.now += 301
        north.ask(QUESTION, probes=6)
        nodes["south"].ask(QUESTION, probes=6)
        clock.now += 61
        for node in nodes.values():
            node._answered.write()
        answered: dict[str, set[str]] = {}
        for site in ("south", "east", "west"):
            found = [e for e in nodes[site].log.entries(limit=1000) if e.kind == Event.ANSWERED]
            minutes = {(e.fields["asker"], e.fields["since"]) for e in found}
            assert len(minutes) == len(found)  # one entry for each asker and minute
            for entry in found:
                assert entry.fields["asker"] != nodes[site].id.hex()
                answered.setdefault(entry.fields["asker"], set()).update(entry.fields["addresses"])
        assert answered[north.id.hex()] <= known
        assert answered[north.id.hex()]
        for node in nodes.values():
            lines: list[str] = []
            node.log.export(_Lines(lines))  # type: ignore[arg-type]
            assert verify_lines(lines) == []
            text = "".join(lines)
            assert not [word for word in ("age", "dose", "ward", "green", "late", "somebody") if f'"{word}' in text]
            assert node.log.verify() == []


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def write(self, text: str) -> None:
        self.lines.append(text)


def test_a_busy_holder_names_at_most_256_addresses_of_a_minute() -> None:
    clock = Clock()
    with Node(schema_of(BINARY), clock=clock) as node:
        note = node._answered
        for start in range(0, 600, 50):
            note(b"a" * 32, [(start + i).to_bytes(32, "big") for i in range(50)])
        note(None, [b"x" * 32])
        note(node.id, [b"x" * 32])
        assert Event.ANSWERED not in kinds(node)
        clock.now += 60
        note.write()
        found = [e.fields for e in node.log.entries(limit=100) if e.kind == Event.ANSWERED]
        assert [(e["asker"], e["questions"], len(e["addresses"]), e["addresses_not_named"]) for e in found] == [
            ((b"a" * 32).hex(), 12, 256, 344),
            (None, 1, 1, 0),
        ]
        note(b"b" * 32, [b"x" * 32])
        note.write(everything=True)
        assert kinds(node).count(Event.ANSWERED) == 3


def test_a_schema_that_too_few_have_signed_is_refused() -> None:
    founders = [Identity(bytes([i]) * 32) for i in range(3)]
    schema = schema_of(BINARY, organisations=tuple(sorted(f.public_key for f in founders)), quorum=2)
    words = [sign_schema(schema, founder) for founder in founders]
    for too_few in ((), words[:1]):
        with pytest.raises(SchemaError, match="of the 2 organisations that must agree") as caught:
            Node(schema, clock=Clock(), signatures=too_few)
        assert caught.value.code == "schema.unsigned"
    with Node(schema, clock=Clock(), signatures=words[1:]) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        assert node.distil().packets > 0


def test_a_pending_packet_survives_a_restart_and_so_does_its_review(tmp_path: Path) -> None:
    schema = schema_of(BINARY)
    with Node(schema, data_dir=tmp_path, clock=Clock()) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        made = node.distil().packets
        review = node.review()
        before = json.dumps(node.counts())
    with Node(schema, data_dir=tmp_path, clock=Clock(), approval=HAND) as node:
        assert json.dumps(node.counts()) == before
        assert node.publish().sent == 0
        assert len(node.approve(review.digest.hex(), by=BY).ids) == made
        assert node.notices == ()
    with Node(schema, data_dir=tmp_path, clock=Clock(), approval=Automatic(by="the operator")) as node:
        assert node.publish().acknowledged == made
        with pytest.raises(PrivacyError):
            node.distil(k=4)
