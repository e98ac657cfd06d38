"""Random histories of several nodes on one network: what must hold after every step, also after a restart at any."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from node.making import QUESTION, Clock, TappedNetwork, identity, schema_of
from outroute.errors import StoreError
from outroute.node import Node
from outroute.node.local import guard_for, join_local
from outroute.node.migrating import migrate
from outroute.node.portal import run
from outroute.packet import slots
from outroute.schema import OutcomeKind, encode
from outroute.store import Kind, Noted, State, Which

K = 3
SCHEMA = schema_of(OutcomeKind.BINARY, k=K)
NEXT = replace(SCHEMA, name="the next", parent=SCHEMA.id)
GUARDS = {schema.id: guard_for(schema) for schema in (SCHEMA, NEXT)}
AUTHORS = ("north", "south")
SITES = (*AUTHORS, "east", "west", "east/next", "west/next")
BY = "somebody"
LATER = tuple(f"{site}/next" for site in AUTHORS)
authors = st.sampled_from(AUTHORS)
either = st.sampled_from(AUTHORS + LATER)
picks = st.integers(0, 2**16)


class Histories(RuleBasedStateMachine):
    """Two authors, each perhaps also under the schema's successor, and two nodes that only hold, under both.

    A model beside them remembers the cases by name (the nodes do not), which packets were approved with which cases in
    them, and what was withdrawn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.root = Path(tempfile.mkdtemp())
        self.networks = {schema.id: TappedNetwork(clock=self.clock) for schema in (SCHEMA, NEXT)}
        self.nodes: dict[str, Node] = {}
        self.cases: dict[str, dict[int, str]] = {site: {} for site in AUTHORS + LATER}
        self.subject_of: dict[str, str] = {}
        self.counter = 0
        self.approved: set[bytes] = set()
        self.emitted: dict[str, list[frozenset[str]]] = {site: [] for site in AUTHORS + LATER}
        self.heads: dict[str, str] = {}
        for site in SITES:
            self.open(site)

    def open(self, site: str) -> None:
        place, schema = self.root / site, NEXT if site.endswith("/next") else SCHEMA
        who = identity(site.split("/")[0])
        transport = join_local(self.networks[schema.id], who, schema, data_dir=place, guard=GUARDS[schema.id])
        self.nodes[site] = Node(schema, transport=transport, identity=who, data_dir=place, clock=self.clock)
        for parent, later in zip(AUTHORS, LATER, strict=True):
            if later in self.nodes:
                self.nodes[parent].successor = self.nodes[later]

    def live(self, site: str) -> str:
        """The author itself where there is no successor yet."""
        return site if site in self.nodes else site.split("/")[0]

    def newest(self, site: str) -> str:
        """Where new observations belong."""
        return self.live(f"{site.split('/')[0]}/next")

    @property
    def everybody(self) -> list[str]:
        return [site for site in AUTHORS + LATER if site in self.nodes]

    def teardown(self) -> None:
        for node in self.nodes.values():
            node.close()
        shutil.rmtree(self.root)

    # what is done -------------------------------------------------------------------------------------------

    @initialize(seed=picks)
    def begin(self, seed: int) -> None:
        """Something has left before anything is taken back."""
        for site in AUTHORS:
            self.whole_loop(site, 20, 4, seed)

    @rule(site=authors, count=st.integers(K, 12), old=st.integers(0, 3), seed=picks)
    def whole_loop(self, site: str, count: int, old: int, seed: int) -> None:
        self.observe(site, count, old, seed)
        self.distil(site)
        self.approve(self.newest(site), 0, everything=True)
        self.publish(self.newest(site))

    @rule(site=authors, pick=picks)
    def take_back(self, site: str, pick: int) -> None:
        self.withdraw(site, pick, by_case=True)
        self.publish(site)
        self.publish(self.newest(site))

    def note(self, site: str, names: list[str], seed: int) -> dict[Noted, int]:
        rng = np.random.default_rng(seed)
        n = len(names)
        columns: dict[str, Any] = {
            "age": rng.uniform(20, 95, n).round(2),
            "dose": rng.uniform(0, 10, n).round(2),
            "ward": rng.choice(["red", "green"], n),
        }
        outcome = (rng.random(n) < 0.5).astype(np.float64)
        outcome[rng.random(n) < 0.1] = np.nan
        subjects = [self.subject_of[name] for name in names]
        return self.nodes[site].observe_encoded(encode(SCHEMA, columns).codes, outcome, cases=names, subjects=subjects)

    @rule(site=authors, count=st.integers(1, 10), old=st.integers(0, 4), seed=picks)
    def observe(self, site: str, count: int, old: int, seed: int) -> None:
        site = self.newest(site)
        known = sorted({self.subject_of[case] for case in self.cases[site].values()})
        names = []
        for i in range(count):
            self.counter += 1
            names.append(f"{site}-{self.counter}")
            new = i >= old or not known
            self.subject_of[names[-1]] = f"{site}-p{self.counter}" if new else known[(seed + i) % len(known)]
        before = self.rows(site)
        assert self.note(site, names, seed) == {Noted.ADDED: count}
        for row, name in zip(sorted(self.rows(site) - before), names, strict=True):
            self.cases[site][row] = name

    @rule(site=authors, pick=picks, seed=picks)
    def change(self, site: str, pick: int, seed: int) -> None:
        site = self.newest(site)
        names = sorted(self.cases[site].values())
        if names:
            self.note(site, [names[pick % len(names)]], seed)

    @rule(site=authors)
    def distil(self, site: str) -> None:
        node = self.nodes[self.newest(site)]
        made = node.distil()
        assert made.approved == 0
        queued = node.pending(limit=1000)
        assert (queued.packets["weight"] >= K << 16).all()

    @rule(site=either, pick=picks, everything=st.booleans())
    def approve(self, site: str, pick: int, everything: bool) -> None:
        site = self.live(site)
        node = self.nodes[site]
        queued = node.pending(limit=1000)
        if not len(queued):
            return
        chosen = queued.ids if everything else queued.ids[pick % len(queued) :][:1]
        done = node.approve(node.review(chosen).digest.hex(), by=BY)
        assert done.ids.tolist() == chosen.tolist()
        for number in chosen.tolist():
            rows = node.journal.outbox.members(number).tolist()
            self.emitted[site].append(frozenset(self.cases[site][row] for row in rows))
        self.approved |= set(node.journal.outbox.get(chosen).digests)

    @rule(site=either, pick=picks, again=st.booleans())
    def reject(self, site: str, pick: int, again: bool) -> None:
        site = self.live(site)
        queued = self.nodes[site].pending(limit=1000)
        if len(queued):
            self.nodes[site].reject(queued.digests[pick % len(queued)].hex(), by=BY, again=again)

    @rule(site=either, pick=picks, by_case=st.booleans())
    def withdraw(self, site: str, pick: int, by_case: bool) -> None:
        site = site.split("/")[0] if by_case else self.live(site)
        node = self.nodes[site]
        names = sorted(self.cases[site].values())
        packets = node.journal.outbox.page(limit=1000, kind=Kind.PACKET)
        if by_case and names:
            node.withdraw(case=names[pick % len(names)], by=BY)
        elif not by_case and len(packets):
            node.withdraw(packet=packets.digests[pick % len(packets)].hex(), by=BY)
        self.note_withdrawals()

    @rule(site=either)
    def correct(self, site: str) -> None:
        site = self.live(site)
        self.nodes[site].correct(by=BY)
        self.note_withdrawals()
        assert self.nodes[site].counts()["conflicts"] == 0

    @rule(site=authors, pick=picks)
    def erase(self, site: str, pick: int) -> None:
        both = {site, self.newest(site)}
        subjects = sorted({self.subject_of[case] for one in both for case in self.cases[one].values()})
        if not subjects:
            return
        subject = subjects[pick % len(subjects)]
        done = self.nodes[site].erase(subject, by=BY)
        gone = 0
        for one in both:
            kept = {row: case for row, case in self.cases[one].items() if self.subject_of[case] != subject}
            gone += len(self.cases[one]) - len(kept)
            self.cases[one] = kept
            assert set(kept) == self.rows(one)
            assert len(self.nodes[one].journal.subject_packets(subject)) == 0
        assert done.observations == gone
        self.note_withdrawals()

    def note_withdrawals(self) -> None:
        """A withdrawal is approved by whoever withdraws."""
        for site in self.everybody:
            self.approved |= set(self.nodes[site].journal.outbox.page(limit=1000, kind=Kind.WITHDRAWAL).digests)

    @rule(site=either)
    def publish(self, site: str) -> None:
        done = self.nodes[self.live(site)].publish()
        assert done.pending == 0

    @rule(site=authors)
    def go_over(self, site: str) -> None:
        """To the successor of the schema; the parent is served on, new observations go to the successor."""
        later = f"{site}/next"
        if later in self.nodes:
            return
        node = self.nodes[site]
        if len(node.pending()):
            node.reject(node.review().digest.hex(), by=BY)
        node.close()
        moved = migrate(self.root / site, SCHEMA, NEXT, now=self.clock.now, identity=identity(site))
        assert moved.observations == len(self.cases[site])
        self.open(site)
        self.open(later)
        self.cases[later] = dict(self.cases[site])
        assert self.rows(later) == set(self.cases[site])
        assert self.nodes[later].counts()["packets_pending"] == moved.packets
        with pytest.raises(StoreError, match="carried over"):
            self.nodes[site].distil()

    @rule(site=either, again=st.booleans())
    def hand_over(self, site: str, again: bool) -> None:
        content = self.nodes[self.live(site)].hand_over(to="a friend", again=again).content
        left = {hashlib.sha256(content[at : at + 512]).digest() for at in range(0, len(content), 512)}
        assert left <= self.approved

    @rule(site=st.sampled_from(SITES))
    def ask(self, site: str) -> None:
        self.clock.now += 301
        self.nodes[site].ask(QUESTION)

    @rule()
    def repair(self) -> None:
        for _ in range(2):
            for node in self.nodes.values():
                run(node.transport.repair())  # type: ignore[union-attr]
        told: set[bytes] = set()
        for site in self.everybody:
            outbox = self.nodes[site].journal.outbox
            done = outbox.page(State.ACKNOWLEDGED, limit=1000, kind=Kind.WITHDRAWAL)
            told |= set(slots(done.packets))
        for node in self.nodes.values():
            shelf = node.transport.shelf  # type: ignore[union-attr]
            for cell in shelf.fetch(shelf.addresses(), now=self.clock.now, cap=10_000):
                assert not told & set(slots(cell.packets))

    @rule(site=st.sampled_from(SITES + LATER), leaves=st.booleans())
    def restart(self, site: str, leaves: bool) -> None:
        site = self.live(site)
        before = state(self.nodes[site])
        if not leaves:  # gone without a word
            self.networks[self.nodes[site].schema.id].kill(self.nodes[site].id)
        self.nodes[site].close()
        self.open(site)
        assert state(self.nodes[site]) == before
        assert self.nodes[site].notices == ()

    # what must hold -----------------------------------------------------------------------------------------

    def rows(self, site: str) -> set[int]:
        journal = self.nodes[site].journal
        return {int(r) for which in (Which.KNOWN, Which.WAITING) for r in journal.observations(which).rows}

    @invariant()
    def nothing_leaves_unapproved(self) -> None:
        for network in self.networks.values():
            assert set(network.seen) <= self.approved

    @invariant()
    def no_two_emissions_differ_by_few(self) -> None:
        """Any two that share a case differ in cases of at least k subjects, or are one set under both schemas."""
        for site, later in zip(AUTHORS, LATER, strict=True):
            for one, other in combinations(self.emitted[site] + self.emitted[later], 2):
                again = one == other and one in self.emitted[site] and other in self.emitted[later]
                if one & other and not again:
                    assert len({self.subject_of[case] for case in one ^ other}) >= K

    @invariant()
    def every_observation_is_in_one_packet_at_most(self) -> None:
        for site in self.everybody:
            outbox = self.nodes[site].journal.outbox
            held = outbox.page(
                State.PENDING, State.QUEUED, State.SENT, State.ACKNOWLEDGED, limit=1000, kind=Kind.PACKET
            )
            assert [len(outbox.members(number)) for number in held.ids.tolist()] == held.packets["size"].tolist()

    @invariant()
    def the_log_verifies(self) -> None:
        for site, node in self.nodes.items():
            assert node.log.verify(self.heads.get(site)) == []
            self.heads[site] = node.log.head()[1]


def state(node: Node) -> tuple[Any, ...]:
    """All that a node knows, but for the entries of the log that say that it stopped and started."""
    journal = node.journal
    observations = [journal.observations(which) for which in Which] + [journal.conflicts()]
    arrays = [
        getattr(seen, name).tobytes()
        for seen in observations
        for name in ("rows", "codes", "outcome", "subject", "bucket", "facet", "packet", "emitted")
    ]
    outbox = journal.outbox.page(limit=10_000)
    columns = (outbox.ids, outbox.packets, outbox.states, outbox.kinds, outbox.withdraws)
    entries = [e.hash for e in journal.log.entries(limit=10_000) if e.kind not in ("started", "stopped", "answered")]
    return (
        node.counts(),
        arrays,
        [column.tobytes() for column in columns],
        outbox.addresses,
        [journal.outbox.secret(number) for number in outbox.ids.tolist()],
        journal.outbox.incarnation,
        entries,
    )


def test_whatever_happens_only_what_was_approved_leaves_and_what_was_withdrawn_is_gone() -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_pending_packet_that_is_gone_cannot_be_approved() -> None:
    machine = Histories()
    try:
        machine.observe("north", 10, 0, 1)
        machine.distil("north")
        digest = machine.nodes["north"].review().digest.hex()
        machine.erase("north", 0)
        with pytest.raises(StoreError, match="no longer waiting for approval"):
            machine.nodes["north"].approve(digest, by=BY)
    finally:
        machine.teardown()
