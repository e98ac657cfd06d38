"""Releases with noise through real nodes and stores: what leaves, what is charged, and what undoes neither."""

from __future__ import annotations

import shutil
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distill.auditing import SeededNoise
from outroute.distill import Reason, plan_of
from outroute.errors import PrivacyError, StoreError
from outroute.node import Node
from outroute.node.approval import Rules
from outroute.node.local import guard_for, join_local
from outroute.node.migrating import NotAgain, migrate
from outroute.packet import noisy_sums, regions_of
from outroute.schema import Distiller, OutcomeKind, Privacy, Schema, encode, grid_landmarks
from outroute.store import Doubt, Event, State
from outroute.transports import LocalNetwork

from .making import ALL_LEAVE, DAY, KINDS, Clock, identity, network_of, schema_of, table_of

BINARY = OutcomeKind.BINARY


def private_schema(kind: OutcomeKind = BINARY, *, facet: bool = False, given: Any = None, **privacy: Any) -> Schema:
    wanted: dict[str, Any] = {"k": 1, "epsilon": Decimal(1), "m": 1, "releases": 3} | privacy
    made = schema_of(kind, facet=facet)
    return schema_of(
        kind,
        facet=facet,
        privacy=Privacy(distiller=Distiller.PRIVATE, subject="patient", **wanted),
        landmarks=grid_landmarks(made.fields, {"age": 3, "ward": 3}),
        **(given or {}),
    )


class NoNoise:
    """Nothing is added, so that sums can be compared."""

    def laplace(
        self, values: NDArray[np.int64], scale: float, *, sensitivity: int, epsilon: Fraction
    ) -> NDArray[np.int64]:
        return values.copy()


def node_of(schema: Schema, directory: Path | None = None, clock: Clock | None = None, **given: Any) -> Node:
    return Node(schema, data_dir=directory, clock=clock or Clock(), **({"noise": NoNoise()} | given))


def see(node: Node, n: int, *, start: int = 0, subjects: list[str] | None = None, seed: int = 1) -> None:
    """Observe n cases with outcomes."""
    schema, rng = node.schema, np.random.default_rng([seed, start])
    columns: dict[str, Any] = {
        "age": rng.uniform(0, 100, n),
        "dose": rng.uniform(0, 10, n),
        "ward": rng.choice(["red", "green", "blue"], n),
    }
    if schema.facets:
        columns["sex"] = rng.choice(["f", "m"], n)
    kinds = len(schema.outcome.classes)
    outcome = rng.integers(0, kinds, n).astype(float) if kinds else rng.uniform(0, 60, n)
    node.observe_encoded(
        encode(schema, columns).codes,
        outcome,
        cases=[f"case {i}" for i in range(start, start + n)],
        subjects=subjects or [f"person {i}" for i in range(start, start + n)],
    )


def released(node: Node) -> NDArray[np.int64]:
    """Sums of all packets in the outbox."""
    return noisy_sums(node.schema, node.outbox())


@pytest.mark.parametrize("facet", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_region_has_a_packet_whoever_was_observed(kind: OutcomeKind, facet: bool) -> None:
    schema = private_schema(kind, facet=facet)
    regions = regions_of(schema)
    assert len(regions) == 9 * (3 if facet else 1)
    with node_of(schema, noise=None) as empty, node_of(schema, noise=None) as full:
        see(full, 200)
        for node in (empty, full):
            made = node.distil()
            packets = node.outbox()
            assert made.packets == len(packets) == len(regions)
            assert np.array_equal(packets["conditions"][:, : schema.width], regions.codes)
            assert not packets["commitment"].any()
            assert not packets["weight"].any()
            assert len(np.unique(packets["bucket"])) == len(np.unique(packets["lifetime"])) == 1
            assert np.array_equal(np.diff(packets["sequence"].astype(np.int64)), np.ones(len(packets) - 1))
        # What differs is what the sums say, nothing else.
        a, b = empty.outbox(), full.outbox()
        for name in ("magic", "kind", "distiller", "bucket", "lifetime", "fingerprint", "cell", "conditions", "weight"):
            assert np.array_equal(a[name], b[name]), name


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 3),
    st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=3),
    st.integers(0, 2**32 - 1),
)
def test_a_subject_moves_all_releases_together_by_no_more_than_m_records(
    kind: OutcomeKind, m: int, rounds: list[list[int]], seed: int
) -> None:
    """The sensitivity that the noise is made for, over whole histories with and without one subject."""
    schema = private_schema(kind, m=m, releases=10)

    def history(without: int | None) -> NDArray[np.int64]:
        clock = Clock()
        with node_of(schema, clock=clock) as node:
            at = 0
            for people in rounds:
                for person in people:
                    if person != without:
                        see(node, 1, start=at, subjects=[f"p{person}"], seed=seed)
                    at += 1
                assert node.distil().packets == len(regions_of(schema))
                clock.now += DAY
            return released(node)

    everybody, one_less = history(None), history(0)
    assert everybody.shape == one_less.shape
    plan = plan_of(schema)
    moved = np.abs(everybody - one_less).sum(axis=0)
    if kind is OutcomeKind.NUMERIC:
        assert (moved <= plan.sensitivities).all()
    else:
        assert moved.sum() <= plan.sensitivities[0] == m
    costs = [Fraction(int(s)) / e for s, e in zip(plan.sensitivities, plan.epsilons, strict=True)]
    assert all(Fraction(scale) >= cost for scale, cost in zip(plan.scales, costs, strict=True))
    assert (plan.epsilons[0] if kind is not OutcomeKind.NUMERIC else sum(plan.epsilons)) == 1


def test_one_release_a_bucket_and_the_node_stops_when_all_are_made(tmp_path: Path) -> None:
    schema, clock = private_schema(releases=2), Clock()
    with node_of(schema, tmp_path, clock) as node:
        see(node, 40)
        assert node.distil().observations == 40
        see(node, 10, start=40)
        again = node.distil()
        assert (again.packets, dict(again.withheld)) == (0, {Reason.NEXT_RELEASE: 10})
        report = node.budget()
        assert (report.releases_left, report.waiting) == (1, 10)
        clock.now = report.next_release or 0
        assert node.distil().observations == 10
        clock.now += DAY
        assert node.budget().to_dict()["spent"]
        with pytest.raises(PrivacyError) as error:
            node.distil()
        assert error.value.code == "privacy.spent"
    with node_of(schema, tmp_path, clock) as node:  # a restart resets nothing
        with pytest.raises(PrivacyError):
            node.distil()
        assert node.ask({"age": 50}).estimate is not None


def test_a_clock_that_is_set_back_gives_no_further_release() -> None:
    schema, clock = private_schema(), Clock()
    with node_of(schema, clock=clock) as node:
        node.distil()
        clock.now -= 5 * DAY
        assert node.distil().packets == 0


def test_records_beyond_m_stay_at_home_for_good() -> None:
    schema, clock = private_schema(m=2, releases=5), Clock()
    with node_of(schema, clock=clock) as node:
        see(node, 3, subjects=["p"] * 3)
        assert dict(node.distil().withheld) == {Reason.SPENT: 1}
        clock.now += DAY
        see(node, 2, start=3, subjects=["p", "q"])
        made = node.distil()
        assert (made.observations, dict(made.withheld)) == (1, {Reason.SPENT: 2})
        assert node.budget().to_dict()["subjects"]["by_records_given"] == {"1": 1, "2": 1}


def test_nothing_may_be_chosen_at_a_release() -> None:
    with node_of(private_schema()) as node:
        for given in ({"k": 7}, {"streaming": True}):
            with pytest.raises(PrivacyError) as error:
                node.distil(**given)  # type: ignore[arg-type]
            assert error.value.code == "privacy.fixed"


def test_a_release_is_approved_and_rejected_whole() -> None:
    with node_of(private_schema()) as node:
        see(node, 30)
        node.distil()
        pending = node.pending(limit=100)
        for act in (node.approve, node.reject):
            with pytest.raises(PrivacyError) as error:
                act(pending.digests[0].hex(), by="W")
            assert error.value.code == "privacy.whole"
        assert len(node.pending(limit=100)) == len(pending)
        digest = node.review().digest.hex()
        with pytest.raises(PrivacyError) as error:
            node.reject(digest, by="W", again=True)
        assert error.value.code == "privacy.again"
        node.reject(digest, by="W")
        # Whoever saw the noise may not have it drawn anew: the release stays spent.
        assert node.budget().releases_left == 2
        assert node.budget().to_dict()["subjects"]["by_records_given"] == {"1": 30}


def test_rules_approve_a_release_whole_or_let_it_wait_whole() -> None:
    day = Rules(name="few", packets_most_per_day=4)
    with node_of(private_schema(), approval=day) as node:
        see(node, 30)
        assert node.distil().approved == 0
        assert len(node.pending(limit=100)) == 9
    with node_of(private_schema(), approval=Rules(name="ours", subjects_least=10)) as node:
        assert node.distil().approved == 9


def test_taking_back_takes_whole_releases_and_never_tells_of_one_person() -> None:
    schema, clock = private_schema(releases=5), Clock()
    with node_of(schema, clock=clock, approval=ALL_LEAVE) as node:
        see(node, 30)
        node.distil()
        node.publish()
        with pytest.raises(PrivacyError) as error:
            node.withdraw(case="case 3", by="W")
        assert error.value.code == "privacy.withdraw"
        before = node.outbox().tobytes()
        erased = node.erase("person 3", by="W")
        assert (erased.observations, len(erased.withdrawn.withdrawals)) == (1, 0)
        assert node.outbox().tobytes() == before
        # Observed again, nothing of that person leaves any more.
        clock.now += DAY
        see(node, 1, start=1000, subjects=["person 3"])
        assert dict(node.distil().withheld) == {Reason.SPENT: 1}
        first = node.outbox(State.ACKNOWLEDGED)
        identity_of = node.journal.outbox.page(State.ACKNOWLEDGED).identities[0].hex()
        done = node.withdraw(packet=identity_of, by="W", reason="wrong unit")
        assert len(done.ids) == len(first) == 9
        # What was taken back was told all the same.
        clock.now += DAY
        assert node.distil().observations == 0


def test_a_time_takes_back_what_was_released_in_it() -> None:
    schema, clock = private_schema(releases=5), Clock()
    with node_of(schema, clock=clock, approval=ALL_LEAVE) as node:
        see(node, 20)
        node.distil()
        clock.now += 3 * DAY
        node.distil()
        done = node.withdraw(since=clock.now - 100, until=clock.now + 1, by="W")
        assert sorted(done.ids.tolist()) == list(range(10, 19))


def test_a_correction_changes_what_is_known_here_and_nothing_that_left() -> None:
    schema, clock = private_schema(m=2, releases=5), Clock()
    with node_of(schema, clock=clock, approval=ALL_LEAVE) as node:
        see(node, 20)
        node.distil()
        before = node.outbox().tobytes()
        codes = encode(schema, {"age": [50.0], "dose": [1.0], "ward": ["red"]}).codes
        node.observe_encoded(codes, np.array([1.0]), cases=["case 4"], subjects=["somebody else"])
        done = node.correct(by="W")
        assert (done.applied, len(done.withdrawals)) == (1, 0)
        assert node.outbox().tobytes() == before
        assert node.counts()["conflicts"] == 0
        # The record that left counts as given by both.
        assert node.budget().to_dict()["subjects"]["by_records_given"] == {"1": 21}


def test_the_log_tells_no_number_that_has_no_noise() -> None:
    with node_of(private_schema()) as node:
        see(node, 33)
        node.distil()
        entry = node.log.entries(limit=1)[0]
        assert entry.kind == Event.DISTILLED
        assert (entry.fields["release"], entry.fields["packets"]) == (1, 9)
        assert "observations" not in entry.fields


# going back ----------------------------------------------------------------------------------------------------


def doubt_of(node: Node) -> Doubt | None:
    return node.budget().spent.doubt


def test_a_copied_directory_releases_nothing_until_somebody_vouches(tmp_path: Path) -> None:
    schema, clock = private_schema(), Clock()
    with node_of(schema, tmp_path / "a", clock) as node:
        see(node, 20)
        node.distil()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    clock.now += DAY
    for _ in range(2):  # also after another restart
        with node_of(schema, tmp_path / "b", clock) as node:
            with pytest.raises(PrivacyError) as error:
                node.distil()
            assert error.value.code == "privacy.doubt"
            assert node.budget().releases_left == 0
    with node_of(schema, tmp_path / "b", clock) as node:
        report = node.vouch(by="Dr. Weber")
        assert (report.releases_left, report.spent.doubt) == (2, None)
        assert node.log.entries(after=node.log.head()[0] - 1)[0].kind == Event.VOUCHED
        assert node.distil().packets == 9
        with pytest.raises(StoreError) as refused:
            node.vouch(by="Dr. Weber")
        assert refused.value.code == "budget.sure"


def test_an_older_journal_put_back_in_place_is_found_out(tmp_path: Path) -> None:
    """The file keeps its inode, so that only the count beside it tells."""
    schema, clock = private_schema(), Clock()
    with node_of(schema, tmp_path, clock) as node:
        see(node, 20)
    old = (tmp_path / "journal.db").read_bytes()
    with node_of(schema, tmp_path, clock) as node:
        node.distil()
    (tmp_path / "journal.db").write_bytes(old)
    for name in ("journal.db-wal", "journal.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    clock.now += DAY
    with node_of(schema, tmp_path, clock) as node:
        assert doubt_of(node) is Doubt.SET_BACK
        with pytest.raises(PrivacyError):
            node.distil()
        with pytest.raises(StoreError) as error:
            node.vouch(by="W")
        assert error.value.code == "budget.doubt"


def test_a_whole_directory_set_back_in_place_is_found_out_in_the_network(tmp_path: Path) -> None:
    """Nothing in the directory tells, but others hold what was released since."""
    schema, clock = private_schema(), Clock()
    network, guard = LocalNetwork(clock=clock), guard_for(schema)
    who, others = identity("north"), [identity(name) for name in ("south", "east", "west")]
    holders = [join_local(network, one, schema, guard=guard) for one in others]
    place = tmp_path / "north"

    def start() -> Node:
        transport = join_local(network, who, schema, data_dir=place, guard=guard)
        return node_of(schema, place, clock, identity=who, transport=transport, approval=ALL_LEAVE)

    with start() as node:
        see(node, 20)
    old = {path: path.read_bytes() for path in place.iterdir() if path.is_file()}
    with start() as node:
        node.distil()
        assert node.publish().sent == 9
    for path in list(place.iterdir()):
        if path in old:
            path.write_bytes(old[path])
        else:
            path.unlink()
    clock.now += DAY
    with start() as node:
        assert doubt_of(node) is None
        with pytest.raises(PrivacyError) as error:
            node.distil()
        assert error.value.code == "privacy.doubt"
        assert doubt_of(node) is Doubt.SEEN
    del holders


@pytest.mark.parametrize("kind", KINDS)
def test_honest_nodes_with_noise_are_believed_and_contradict_nobody(kind: OutcomeKind) -> None:
    """What noise adds must not pass for a lie: nobody is contradicted, most packets keep their weight."""
    schema, clock = private_schema(kind), Clock()
    sites = [f"site {i}" for i in range(8)]
    with network_of(schema, sites, clock=clock) as nodes:
        for site, node in nodes.items():
            node.noise = SeededNoise(sites.index(site))
            node.observe(table_of(kind, site, 150), case="case")
            node.distil()
            node.publish()
        seen = nodes["site 0"].ask({"age": 62, "dose": 3.5, "ward": "green"}, explain=True)
        assert seen.explanation is not None
        told = seen.explanation.to_dict()
        assert len(told["nodes"]) == 7
        assert not [one for one in told["nodes"] if one["verdict"] == "contradicted"]
        assert sum(one["weight"] for one in told["nodes"]) > 4.0
        assert seen.support > 20


def test_restored_is_doubted_even_where_nothing_was_released(tmp_path: Path) -> None:
    schema = private_schema()
    with node_of(schema, tmp_path):
        pass
    with node_of(schema, tmp_path, restored=True) as node:
        assert doubt_of(node) is Doubt.COPIED


def test_own_packets_that_came_back_in_a_file_are_known_or_stop_everything(tmp_path: Path) -> None:
    schema, clock = private_schema(), Clock()
    who = identity("north")
    with node_of(schema, identity=who, clock=clock, approval=ALL_LEAVE) as node:
        see(node, 20)
        node.distil()
        packets = node.outbox().tobytes()
        assert not node.receive(packets)
        clock.now += DAY
        assert node.distil().packets == 9  # they are its own, and it knows them
    with node_of(schema, identity=who, clock=clock) as twin:
        assert not twin.receive(packets)
        with pytest.raises(PrivacyError) as error:
            twin.distil()
        assert error.value.code == "privacy.doubt"
        assert doubt_of(twin) is Doubt.SEEN


# successors ----------------------------------------------------------------------------------------------------


def successor(schema: Schema, **privacy: Any) -> Schema:
    return private_schema(given={"name": "next", "parent": schema.id}, **privacy)


def test_a_successor_goes_on_where_the_budget_was(tmp_path: Path) -> None:
    schema, clock = private_schema(releases=3), Clock()
    with node_of(schema, tmp_path, clock, approval=ALL_LEAVE) as node:
        see(node, 20)
        node.distil()
        see(node, 5, start=20)
    later = successor(schema, epsilon=Decimal(2), releases=3)
    moved = migrate(tmp_path, schema, later, now=clock.now)
    assert moved.packets == 0
    assert dict(moved.not_again) == {NotAgain.BUDGET: 9}
    with node_of(later, moved.directory, clock, approval=ALL_LEAVE) as node:
        report = node.budget()
        assert (report.spent.all_releases, report.releases_left) == (1, 2)
        assert [(b.name, b.releases, b.epsilon) for b in report.spent.before] == [(schema.name, 1, "1")]
        # Half of epsilon 2 is spent on those who gave a record under epsilon 1: nothing is left of m = 1.
        made = node.distil()
        assert (made.observations, dict(made.withheld)) == (5, {Reason.SPENT: 20})
        assert node.budget().spent.bound == 20
        one, late = node.budget_of("person 3"), node.budget_of("person 23")
        assert (one.epsilon, one.before, one.given, one.left) == (0, 1, 0, 0)  # half of 2 is left, and no whole record
        assert (late.epsilon, late.before, late.given, late.left) == (2, 0, 1, 0)
        assert not node.budget_of("nobody").known
    # With twice the records at twice the epsilon each costs the same, and one is left.
    last = private_schema(given={"name": "last", "parent": later.id}, epsilon=Decimal(4), m=2, releases=9)
    moved = migrate(moved.directory, later, last, now=clock.now)
    with node_of(last, moved.directory, clock) as node:
        assert [b.releases for b in node.budget().spent.before] == [1, 1]
        assert node.distil().observations == 25


def test_who_left_without_a_promise_gives_nothing_under_one(tmp_path: Path) -> None:
    clock = Clock()
    cohorts = schema_of(BINARY)
    with Node(cohorts, data_dir=tmp_path, clock=clock, approval=ALL_LEAVE) as node:
        node.observe(table_of(BINARY, "north", 40), case="case")
        left = node.distil().observations
        assert left > 0
        see(node, 4, start=500)
    later = private_schema(given={"name": "next", "parent": cohorts.id})
    moved = migrate(tmp_path, cohorts, later, now=clock.now)
    assert moved.packets == 0
    with node_of(later, moved.directory, clock) as node:
        made = node.distil()
        assert made.withheld[Reason.SPENT] == left
        assert made.observations == 44 - left
        assert node.budget().to_dict()["subjects"]["left_before_without_a_promise"] == left
        ended = [node.budget_of(case).ended for case in table_of(BINARY, "north", 40)["case"]]
        assert ended.count("left before without a promise") == left
        assert set(ended) <= {None, "left before without a promise"}


def test_a_promise_is_not_taken_back_by_a_successor(tmp_path: Path) -> None:
    schema = private_schema()
    with node_of(schema, tmp_path):
        pass
    weaker = schema_of(BINARY, name="next", parent=schema.id)
    with pytest.raises(PrivacyError) as error:
        migrate(tmp_path, schema, weaker, now=Clock().now)
    assert error.value.code == "migrate.private"


def test_no_budget_where_nothing_is_promised() -> None:
    with Node(schema_of(BINARY), clock=Clock()) as node, pytest.raises(PrivacyError) as error:
        node.budget()
    assert error.value.code == "privacy.distiller"
