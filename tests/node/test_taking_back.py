"""Withdrawing, correcting, erasing; holders that were away; directories with a double."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.making import ALL_LEAVE, DAY, NOW, QUESTION, Clock, filled, identity, network_of, schema_of, table_of
from outroute.errors import DataError, StoreError
from outroute.node import Node
from outroute.node.local import join_local
from outroute.node.migrating import migrate
from outroute.node.portal import run
from outroute.packet import Flag, identities, slots
from outroute.schema import OutcomeKind
from outroute.store import Event, State, Which
from outroute.store.keys import KEY_FILE, load_identity, replace_identity
from outroute.transports import LocalNetwork

BINARY = OutcomeKind.BINARY
BY = "Dr. Weber"


class Alone:
    """A transport that no node uses, seen as a node."""

    def __init__(self, transport: Any, clock: Clock) -> None:
        self.transport, self._now = transport, clock


def answered(nodes: Mapping[str, Node | Alone]) -> set[bytes]:
    """Slots of all packets that any holder answers with."""
    out: set[bytes] = set()
    for node in nodes.values():
        shelf = node.transport.shelf  # type: ignore[union-attr]
        for cell in shelf.fetch(shelf.addresses(), now=node._now(), cap=10_000):
            out |= set(slots(cell.packets))
    return out


def repaired(nodes: Mapping[str, Node | Alone]) -> None:
    for _ in range(2):
        for node in nodes.values():
            run(node.transport.repair())  # type: ignore[union-attr]


def many(site: str, n: int = 60) -> dict[str, list[Any]]:
    """A table in which a subject has two cases."""
    return table_of(BINARY, site, n) | {"patient": [f"{site}-p{i // 2}" for i in range(n)]}


def test_withdraw_by_packet_case_and_time() -> None:
    clock = Clock()
    with network_of(schema_of(BINARY), clock=clock) as nodes:
        filled(nodes, BINARY)
        north = nodes["north"]
        outbox = north.journal.outbox
        first = outbox.page(limit=2)
        everything = answered(nodes)
        for prefix in (first.digests[0].hex()[:12], first.identities[1].hex()):
            assert len(north.withdraw(packet=prefix, by=BY, reason="a mistake").ids) == 1
        assert len(north.withdraw(packet=first.digests[0].hex(), by=BY).ids) == 0  # again: harmless
        held = outbox.members(3)
        assert len(held) > 0
        row = int(held[0])
        seen = north.journal.observations(Which.KNOWN)
        case = f"north-{int(np.flatnonzero(seen.rows == row)[0])}"
        done = north.withdraw(case=case, by=BY)
        assert done.ids.tolist() == [3]
        assert done.freed == len(held)
        assert len(north.withdraw(case=case, by=BY).ids) == 0  # known, and in no packet any more
        gone = set(slots(outbox.get([1, 2, 3]).packets))
        published = north.publish()
        assert (published.sent, published.withdrawals, published.acknowledged) == (3, 3, 3)
        assert answered(nodes) == everything - gone
        assert north.publish().sent == 0
        assert north.distil().packets == 0  # all of them have left before
        entries = [e.fields for e in north.log.entries(limit=1000) if e.kind == Event.WITHDRAWN]
        assert [e["reason"] for e in entries] == ["a mistake", "a mistake", "not given"]
        assert {e["by"] for e in entries} == {BY}
        left = north.counts()["packets_acknowledged"]
        start = NOW - NOW % DAY
        assert len(north.withdraw(since=start + DAY, until=start + 2 * DAY, by=BY).ids) == 0
        assert len(north.withdraw(since=start + DAY - 1, until=start + 1, by=BY).ids) == left
        north.publish()
        assert answered(nodes) & set(slots(outbox.page(limit=1000).packets)) == set()
        assert north.log.verify() == []


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "withdraw.which"),
        ({"packet": "ab" * 32, "case": "x"}, "withdraw.which"),
        ({"since": 1}, "withdraw.which"),
        ({"until": 1}, "withdraw.which"),
        ({"packet": "ab" * 32}, "withdraw.unknown"),
        ({"packet": "ab"}, "outbox.digest"),
        ({"case": "nobody"}, "withdraw.case"),
        ({"case": "north-1", "by": " "}, "outbox.text"),
        ({"case": "north-1", "reason": "two\nlines"}, "outbox.text"),
    ],
)
def test_what_cannot_be_withdrawn_is_a_clear_line_and_changes_nothing(given: dict[str, Any], code: str) -> None:
    with Node(schema_of(BINARY), clock=Clock(), approval=ALL_LEAVE) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        node.distil()
        before = node.counts(), node.log.head()
        with pytest.raises((DataError, StoreError)) as caught:
            node.withdraw(**({"by": BY} | given))
        assert caught.value.code == code
        assert (node.counts(), node.log.head()) == before


def test_only_its_author_withdraws_a_packet() -> None:
    with network_of(schema_of(BINARY)) as nodes:
        filled({"south": nodes["south"]}, BINARY)
        north, south = nodes["north"], nodes["south"]
        theirs = identities(south.outbox())[0].hex()
        north.ask(QUESTION, probes=6)
        with pytest.raises(DataError, match=rf"by node {south.id.hex()[:16]}: only its author") as caught:
            north.withdraw(packet=theirs, by=BY)
        assert caught.value.code == "withdraw.foreign"
        south.withdraw(packet=theirs, by=BY)
        back = south.journal.outbox.page(limit=1000)
        with pytest.raises(DataError, match="is a withdrawal, and stays"):
            south.withdraw(packet=back.digests[-1].hex(), by=BY)
    with Node(schema_of(BINARY), clock=Clock()) as alone:
        alone.receive(south_packets := south_file())
        with pytest.raises(DataError, match="only its author"):
            alone.withdraw(packet=identities(np.frombuffer(south_packets, dtype=back.packets.dtype))[0].hex(), by=BY)


def south_file() -> bytes:
    with Node(schema_of(BINARY), identity=identity("south"), clock=Clock(), approval=ALL_LEAVE) as node:
        node.observe(table_of(BINARY, "south"), case="case")
        node.distil()
        return node.hand_over(to="somebody").content


def test_what_was_not_approved_is_dropped_and_distilled_again() -> None:
    with Node(schema_of(BINARY), clock=Clock()) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        made = node.distil()
        done = node.withdraw(since=0, until=NOW + DAY, by=BY)
        assert (len(done.ids), len(done.dropped), done.freed) == (0, made.packets, made.observations)
        assert node.publish().sent == 0
        assert node.distil().observations == made.observations


def test_what_is_left_of_a_cohort_leaves_only_among_k_that_are_new() -> None:
    with Node(schema_of(BINARY), clock=Clock(), approval=ALL_LEAVE) as node:
        node.observe(table_of(BINARY, "north", 30), case="case")
        node.distil()
        back = node.withdraw(packet=node.journal.outbox.page(limit=1).digests[0].hex(), by=BY)
        stale = set(np.flatnonzero(node.journal.observations(Which.READY).emitted).tolist())
        assert len(stale) == back.freed
        few = table_of(BINARY, "few", 4)
        node.observe(few, case="case")
        assert node.distil().packets == 0
        node.observe(table_of(BINARY, "more", 40), case="case")
        node.distil()
        seen = node.journal.observations(Which.KNOWN)
        returned = seen.packet[:30][seen.packet[:30] >= 0]
        assert len(np.unique(returned)) < len(returned)
        first = node.journal.outbox.page(limit=1000)
        for number in first.ids[first.states == State.QUEUED]:
            rows = node.journal.outbox.members(int(number))
            if (rows <= 30).any() and (rows > 30).any():
                assert (rows > 30).sum() >= 5


def test_values_that_changed_after_leaving_are_corrected() -> None:
    clock = Clock()
    with network_of(schema_of(BINARY), clock=clock) as nodes:
        filled(nodes, BINARY)
        north = nodes["north"]
        before = north.ask(QUESTION)
        table = table_of(BINARY, "north")
        table["late"] = ["no" if late == "yes" else "yes" for late in table["late"][:3]] + table["late"][3:]
        assert north.observe(table, case="case").conflict == 3
        done = north.correct(by=BY)
        assert done.applied == 3
        assert 1 <= len(done.ids) <= 3
        assert north.counts()["conflicts"] == 0
        assert north.observe(table, case="case").duplicate == 60
        assert north.publish().withdrawals == len(done.ids)
        gone = set(slots(north.outbox(State.WITHDRAWN)))
        assert not answered(nodes) & gone
        assert north.ask(QUESTION).estimate != before.estimate  # own records are others now
        assert [e.fields["corrected"] for e in north.log.entries(limit=1000) if e.kind == Event.CORRECTED] == [3]
        assert len(north.correct(by=BY).ids) == 0  # nothing is left to correct


def test_an_erased_subject_is_gone_from_the_answers_and_from_the_disk(tmp_path: Path) -> None:
    clock, schema = Clock(), schema_of(BINARY)
    with network_of(schema, root=tmp_path, clock=clock) as nodes:
        for site, node in nodes.items():
            node.observe(many(site), case="case", subject="patient")
            node.distil()
            node.publish()
        north = nodes["north"]
        north.ask(QUESTION, case_id="north-8")
        journal = north.journal
        seen = journal.observations(Which.KNOWN)
        wanted = journal._subjects("north-p4")
        mine = np.isin(seen.subject, wanted)
        assert mine.sum() == 2
        numbers = journal.subject_packets("north-p4")
        queued = journal.outbox.get(numbers)
        hidden = [seen.codes[row].astype("<u2").tobytes() for row in np.flatnonzero(mine)]
        hidden += [int(wanted[0]).to_bytes(8, "big", signed=True)]
        hidden += [row["conditions"].tobytes() for row in queued.packets]
        hidden += [row["commitment"].tobytes() for row in queued.packets]
        hidden += [secret for number in numbers.tolist() if (secret := journal.outbox.secret(number)) is not None]
        assert len(hidden) == 3 + 3 * len(numbers)
        journal._database.settle()
        assert all(value in on_disk(tmp_path / "north") for value in hidden)
        done = north.erase("north-p4", by=BY)
        assert (done.observations, done.questions, len(done.withdrawn.ids)) == (2, 1, len(numbers))
        files = on_disk(tmp_path / "north")
        assert not [value for value in hidden if value in files]
        assert north.publish().withdrawals == len(numbers)
        assert not answered(nodes) & set(slots(queued.packets))
        assert north.counts()["known"] == 58
        again = north.erase("north-p4", by=BY)
        assert (again.observations, len(again.withdrawn.ids)) == (0, 0)
        text = str([entry.fields for entry in north.log.entries(limit=1000)])
        assert "north-p4" not in text
        assert "north-8" not in text
        assert north.log.verify() == []
    assert not [value for value in hidden if value in on_disk(tmp_path / "north")]


def on_disk(directory: Path) -> bytes:
    """Everything in the files of a journal, its write-ahead log among them."""
    return b"".join(path.read_bytes() for path in sorted(directory.glob("journal.db*")))


def test_a_subject_is_erased_from_what_waits_was_rejected_or_came_back(tmp_path: Path) -> None:
    clock, schema = Clock(), schema_of(BINARY)
    with Node(schema, data_dir=tmp_path, clock=clock) as node:
        node.observe(many("north"), case="case", subject="patient")
        node.distil()
        rejected = node.pending(limit=1)
        member = int(node.journal.outbox.members(int(rejected.ids[0]))[0])
        node.reject(rejected.digests[0].hex(), by=BY)
        node.approve(node.review().digest.hex(), by=BY)
        node.receive(node.hand_over(to="me").content)  # its own file, given back to it
        before = len(node.received())
        seen = node.journal.observations(Which.KNOWN)
        who = f"north-p{(int(np.flatnonzero(seen.rows == member)[0])) // 2}"
        body = rejected.packets[0]["conditions"].tobytes()
        node.journal._database.settle()
        assert body in on_disk(tmp_path)
        done = node.erase(who, by=BY)
        assert done.observations == 2
        assert body not in on_disk(tmp_path)
        assert len(node.received()) == before - len(done.withdrawn.ids)


def test_a_packet_that_an_old_holder_brings_back_is_refused(tmp_path: Path) -> None:
    clock, schema = Clock(), schema_of(BINARY)
    network = LocalNetwork(clock=clock)
    with network_of(schema, root=tmp_path, clock=clock, network=network) as nodes:
        filled({"north": nodes["north"]}, BINARY)
        north, east = nodes["north"], nodes.pop("east")
        old = answered({"east": east})
        assert old
        network.kill(east.id)
        east.close()
        north.withdraw(since=0, until=NOW + DAY, by=BY)
        assert north.publish().acknowledged == len(north.outbox())
        assert not answered(nodes) & old
        clock.now += 25 * DAY  # packets live for thirty days; the withdrawal must be there as long
        for node in nodes.values():
            node.transport.shelf.sweep(clock.now)  # type: ignore[union-attr]
        transport = join_local(network, identity("east"), schema, data_dir=tmp_path / "east")
        assert answered({"east": Alone(transport, clock)}) == old  # it brings back what it had
        repaired({"east": Alone(transport, clock)})
        assert not answered(nodes) & old  # the others refuse it
        repaired(nodes)
        assert not answered(nodes | {"east": Alone(transport, clock)}) & old  # and tell it what was withdrawn
        stored = sum(
            int(
                (
                    transport.shelf.read(a, transport.shelf.entries(a, now=clock.now).identities, now=clock.now)[
                        "flags"
                    ]
                ).sum()
            )
            for a in transport.shelf.addresses()
        )
        assert stored == len(old) * int(Flag.WITHDRAWAL)
        clock.now += 6 * DAY  # now they expire anyway
        run(transport.repair())
        assert not answered(nodes) & old
        run(transport.close())
        transport.shelf.close()  # type: ignore[attr-defined]


def joined(network: LocalNetwork, place: Path, clock: Clock, site: str = "north") -> Node:
    schema = schema_of(BINARY)
    transport = join_local(network, identity(site), schema, data_dir=place)
    return Node(schema, transport=transport, identity=identity(site), data_dir=place, clock=clock, approval=ALL_LEAVE)


def test_a_plain_copy_is_noticed_at_its_start_and_collides_with_nothing(tmp_path: Path) -> None:
    clock, network = Clock(), LocalNetwork(clock=Clock())
    south = joined(network, tmp_path / "south", clock, "south")
    with joined(network, tmp_path / "north", clock) as north:
        north.observe(table_of(BINARY, "north"), case="case")
        assert north.notices == ()
    shutil.copytree(tmp_path / "north", tmp_path / "twin")
    with joined(network, tmp_path / "north", clock) as north:
        assert north.notices == ()
        north.distil()
        north.publish()
        first = set(slots(north.outbox()))
    clock.now += 1
    with joined(network, tmp_path / "twin", clock) as twin:
        assert len(twin.notices) == 1
        assert "copied, moved or restored" in twin.notices[0]
        assert Event.COPIED in {entry.kind for entry in twin.log.entries(limit=100)}
        twin.distil()
        assert twin.publish().refused == 0
        assert not first & set(slots(twin.outbox()))
        assert len(twin.notices) == 1
    with joined(network, tmp_path / "twin", clock) as twin:
        assert twin.notices == ()  # said once
    south.close()


def test_a_double_that_looks_like_the_original_is_found_by_the_holders(tmp_path: Path) -> None:
    """A snapshot of a disk keeps device and inode: nothing shows at the start, the holders see it."""
    clock = Clock()
    network = LocalNetwork(clock=clock)
    holders = [joined(network, tmp_path / site, clock, site) for site in ("south", "east", "west")]
    place = tmp_path / "north"
    with joined(network, place, clock) as north:
        north.observe(table_of(BINARY, "north"), case="case")
    older = (place / "journal.db").read_bytes()
    with joined(network, place, clock) as north:
        made = north.distil().packets
        north.publish()
        first = north.outbox()
        incarnation = north.journal.outbox.incarnation
    with open(place / "journal.db", "r+b") as file:  # the same inode, an older content
        file.write(older)
        file.truncate(len(older))
    with joined(network, place, clock) as north:
        assert north.notices == ()
        assert north.distil().packets == made
        again = north.outbox()
        assert slots(again) == slots(first)
        assert identities(again) != identities(first)
        done = north.publish()
        assert (done.acknowledged, done.refused) == (0, made)
        assert len(north.notices) == 1
        assert "another copy of this directory is running" in north.notices[0]
        assert north.journal.outbox.incarnation > incarnation
        assert [e.fields["why"] for e in north.log.entries(limit=100) if e.kind == Event.COPIED] == ["equivocation"]
        everybody = {str(i): node for i, node in enumerate([*holders, north])}
        repaired(everybody)  # who has one of the two and is no owner any more learns of the other
        assert not answered(everybody) & set(slots(first))
        north.observe(table_of(BINARY, "later"), case="case")  # from now on it sends under other numbers
        later = north.distil().packets
        assert north.publish().acknowledged == later > 0
        assert len(north.notices) == 1
        # What was sent twice can be taken back; then no proof is left, and nothing to answer with.
        assert len(north.withdraw(since=0, until=NOW + DAY, by=BY).ids) == made + later
        assert north.publish().acknowledged == made + later
        assert north.log.verify() == []
    for node in holders:
        node.close()


def test_a_backup_older_than_a_withdrawal_does_not_bring_the_packet_back(tmp_path: Path) -> None:
    clock = Clock()
    network = LocalNetwork(clock=clock)
    holders = [joined(network, tmp_path / site, clock, site) for site in ("south", "east", "west")]
    with joined(network, tmp_path / "north", clock) as north:
        north.observe(table_of(BINARY, "north"), case="case")
        made = north.distil().packets
    shutil.copytree(tmp_path / "north", tmp_path / "backup")
    with joined(network, tmp_path / "north", clock) as north:
        north.publish()
        north.withdraw(since=0, until=NOW + DAY, by=BY)
        north.publish()
        gone = set(slots(north.outbox()))
    with joined(network, tmp_path / "backup", clock) as north:
        done = north.publish()
        assert (done.sent, done.refused) == (made, made)
        assert any("refuse" in notice and "as withdrawn" in notice for notice in north.notices)
    assert not answered({str(i): node for i, node in enumerate(holders)}) & gone
    for node in holders:
        node.close()


@pytest.mark.parametrize("running", [False, True])
def test_what_was_carried_over_to_a_successor_is_taken_back_there_too(running: bool, tmp_path: Path) -> None:
    clock, old = Clock(), schema_of(BINARY)
    new = replace(old, name="the next", parent=old.id)
    with Node(old, data_dir=tmp_path, clock=clock, approval=ALL_LEAVE) as node:
        node.observe(many("north"), case="case", subject="patient")
        node.distil()
        made = node.publish().acknowledged
    moved = migrate(tmp_path, old, new, now=clock.now)
    assert moved.packets == made
    with Node(new, data_dir=moved.directory, clock=clock) as later:
        later.approve(later.review().digest.hex(), by=BY)
        later.publish()
        later.ask(QUESTION, case_id="north-9")
        if not running:
            with (
                Node(old, data_dir=tmp_path, clock=clock) as node,
                pytest.raises(StoreError, match="in use by another outroute process"),
            ):
                node.erase("north-p4", by=BY)
    later = Node(new, data_dir=moved.directory, clock=clock)
    with Node(old, data_dir=tmp_path, clock=clock) as node:
        assert node.counts()["known"] == 60  # nothing was erased while a part could not be
        if running:
            node.successor = later
            estimate = later.ask(QUESTION).estimate
        else:
            later.close()
        case = node.withdraw(case="north-0", by=BY)
        assert [(place, len(done.ids)) for place, done in case.successors] == [(moved.directory, 1)]
        assert len(case.ids) == 1
        done = node.erase("north-p4", by=BY)
        assert (done.observations, done.questions) == (4, 1)  # two cases, in two directories
        assert len(done.withdrawn.ids) == len(done.withdrawn.successors[0][1].ids)
        assert 1 <= len(done.withdrawn.ids) <= 2
        with pytest.raises(DataError, match="knows no case 'nobody'"):
            node.withdraw(case="nobody", by=BY)
        gone = len(done.withdrawn.ids) + 1
        assert node.publish().withdrawals == gone
        if running:
            assert later.publish().withdrawals == gone
            assert later.counts()["known"] == 58
            assert later.ask(QUESTION).estimate != estimate
            later.close()
    with Node(new, data_dir=moved.directory, clock=clock) as again:
        assert again.publish().withdrawals == (0 if running else gone)
        left = again.withdraw(since=0, until=NOW + DAY, by=BY)
        assert len(left.ids) == made - gone


def test_packets_under_a_former_key_are_withdrawn_with_it(tmp_path: Path) -> None:
    schema, clock = schema_of(BINARY), Clock()
    with Node(schema, data_dir=tmp_path, clock=clock, approval=ALL_LEAVE) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        made = node.distil().packets
        node.publish()
        former = node.id
    load_identity(tmp_path, name="next.key")
    old_key = replace_identity(tmp_path, name=KEY_FILE, next_name="next.key")
    with Node(schema, data_dir=tmp_path, clock=clock) as node:
        assert node.id != former
        kept = old_key.read_bytes()
        old_key.unlink()
        with pytest.raises(StoreError, match="put the old key file") as caught:
            node.withdraw(since=0, until=NOW + DAY, by=BY)
        assert caught.value.code == "node.key"
        assert node.counts()["packets_acknowledged"] == made
        old_key.write_bytes(kept)
        old_key.chmod(0o600)
        assert len(node.withdraw(since=0, until=NOW + DAY, by=BY).ids) == made
        assert node.publish().acknowledged == made
        assert answered({"north": node}) == set()
