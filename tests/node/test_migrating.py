"""A node goes over to the successor of its schema: the same cases, the same members, or nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outroute.distill import Grouping, Observations, distil
from outroute.errors import SchemaError, StoreError
from outroute.identity import Identity
from outroute.node.emitting import make_packets
from outroute.node.migrating import Moved, NotAgain, check_agreed, migrate, successor_dir, successors
from outroute.packet import accept, withdraw
from outroute.schema import (
    Distiller,
    Field,
    FieldKind,
    Landmarks,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    drawn_landmarks,
    encode,
    facet_index,
    load,
    load_signatures,
    sign_schema,
)
from outroute.store import Event, Journal, Kind, Noted, State, Which
from outroute.store.keys import KEY_FILE, is_protected, load_identity, protect_key

NOW = 1_700_000_000
DAY = 86_400
AGE = Field(name="age", kind=FieldKind.NUMERIC, low=Decimal(0), high=Decimal(100), unit="years")
WARD = Field(name="ward", kind=FieldKind.CATEGORICAL, categories=("x", "y", "z"))


def schema_of(*fields: Field, **given_: Any) -> Schema:
    made = fields or (AGE, WARD)
    wanted: dict[str, Any] = {
        "name": "first",
        "fields": made,
        "outcome": Outcome(name="ill", kind=OutcomeKind.BINARY, classes=("no", "yes")),
        "privacy": Privacy(k=3),
        "time": Time(bucket_seconds=DAY, lifetime_seconds=300 * DAY),
        "landmarks": drawn_landmarks(made, 6),
    }
    return Schema(**(wanted | given_))


OLD = schema_of()


def successor(*fields: Field, old: Schema = OLD, **given_: Any) -> Schema:
    return schema_of(*(fields or old.fields), **({"name": "second", "parent": old.id} | given_))


@contextmanager
def opened(folder: Path, schema: Schema) -> Iterator[Journal]:
    with closing(Journal(folder, schema_id=schema.id, width=schema.width, now=NOW)) as journal:
        yield journal


def observe(journal: Journal, schema: Schema, cases: range, *, subjects: int | None = None, old: int = 0) -> np.ndarray:
    rng = np.random.default_rng(cases.start)
    n = len(cases)
    codes = encode(
        schema,
        {"age": rng.integers(0, 101, n).tolist(), "ward": rng.choice(["x", "y", "z"], n).tolist()},
    ).codes
    return journal.observe(
        list(cases),
        codes,
        rng.integers(0, 2, n).astype(np.float64),
        bucket=np.full(n, schema.time.bucket(NOW - old)),
        facet=facet_index(schema, codes),
        subjects=None if subjects is None else [f"s{i % subjects}" for i in cases],
    )


def emit(journal: Journal, schema: Schema, folder: Path, *, approve: bool = True, k: int | None = None) -> np.ndarray:
    ready = journal.observations(Which.READY)
    given_ = Observations(
        codes=ready.codes, outcome=ready.outcome, subject=ready.subject, bucket=ready.bucket, facet=ready.facet,
        stale=ready.emitted,
    )  # fmt: skip
    done = distil(schema, given_, k=k, grouping=Grouping())
    if not len(done.cohorts):
        return np.zeros(0, dtype=np.int64)
    made = make_packets(
        schema,
        given_,
        done,
        identity=load_identity(folder),
        first_sequence=journal.outbox.reserve(len(done.cohorts)),
        nonce=lambda: b"n" * 32,
        secret=b"",
    )
    members = [ready.rows[rows] for rows in made.members]
    ids = journal.outbox.add(made.packets, made.addresses, members, secrets=made.secrets, now=NOW)
    if approve:
        journal.outbox.approve_ids(ids, by="a test", now=NOW)
    return ids


def filled(folder: Path, schema: Schema = OLD, n: int = 60, *, k: int | None = None, **how: Any) -> Path:
    with opened(folder, schema) as journal:
        observe(journal, schema, range(n), **how)
        emit(journal, schema, folder, k=k)
    return folder


def memberships(folder: Path, schema: Schema, *states: State) -> set[frozenset[int]]:
    with opened(folder, schema) as journal:
        page = journal.outbox.page(*states, limit=10_000, kind=Kind.PACKET)
        return {frozenset(journal.outbox.members(number).tolist()) for number in page.ids.tolist()} - {frozenset()}


def test_the_same_members_leave_again_and_wait_for_approval(tmp_path: Path) -> None:
    folder = filled(tmp_path / "node")
    before = memberships(folder, OLD)
    new = successor(replace(AGE, high=Decimal(120)), replace(WARD, categories=("w", "z", "y", "x")))
    moved = migrate(folder, OLD, new, now=NOW)
    assert moved == Moved(
        directory=folder / "next", observations=60, lost=0, missing={}, dropped=(), added=(),
        packets=len(before), not_again={},
    )  # fmt: skip
    assert successor_dir(folder) == folder / "next"
    assert memberships(folder / "next", new, State.PENDING) == before == memberships(folder, OLD, State.QUEUED)
    assert load(folder / "next" / "schema.toml") == new
    with opened(folder / "next", new) as journal, opened(folder, OLD) as parent:
        page = journal.outbox.page(State.PENDING)
        assert accept(page.packets.tobytes(), new, NOW).ok.all()
        assert page.packets["author"][0].tobytes() == load_identity(folder).public_key
        seen = journal.observations()
        assert np.array_equal(seen.emitted, parent.observations().emitted)
        assert np.array_equal(seen.rows, parent.observations().rows)
        ages = seen.codes[:, 0] / 65534 * 120
        assert np.abs(ages - parent.observations().codes[:, 0] / 65534 * 100).max() < 0.002
        assert journal.case_packets(7) == parent.case_packets(7)


def test_the_same_cases_are_known_under_the_same_names(tmp_path: Path) -> None:
    folder = filled(tmp_path / "node", subjects=20)
    new = successor(AGE, WARD, Field(name="more", kind=FieldKind.NUMERIC, low=Decimal(0), high=Decimal(1)))
    moved = migrate(folder, OLD, new, now=NOW)
    assert moved.added == ("more",)
    with opened(folder / "next", new) as journal:
        known = journal.observations()
        again = journal.observe(
            list(range(60)),
            known.codes,
            known.outcome,
            bucket=known.bucket,
            facet=known.facet,
            subjects=[f"s{i % 20}" for i in range(60)],
        )
        assert (again == Noted.DUPLICATE).all()
        assert len(journal.subject_packets("s3")) == 3


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("bucket", [DAY, 7 * DAY, DAY // 4])
def test_a_table_read_again_under_wider_ranges_changes_nothing(tmp_path: Path, integer: bool, bucket: int) -> None:
    """Twice over: a successor of the successor rounds again."""
    old = schema_of(replace(AGE, integer=integer), WARD)
    rng = np.random.default_rng(5)
    n = 400
    age = rng.integers(0, 101, n).astype(float) if integer else rng.uniform(0, 100, n)
    age[::9] = np.nan
    table = {"age": age, "ward": rng.choice(["x", "y", "z"], n).tolist()}
    ill, when = rng.integers(0, 2, n).astype(np.float64), NOW - rng.integers(0, 20 * DAY, n)

    def read(journal: Journal, schema: Schema, change: float = 0.0) -> np.ndarray:
        codes = encode(schema, table | {"age": age + change}).codes
        return journal.observe(
            list(range(n)),
            codes,
            ill,
            bucket=when - when % schema.time.bucket_seconds,
            facet=facet_index(schema, codes),
        )

    with opened(tmp_path, old) as journal:
        read(journal, old)
        emit(journal, old, tmp_path)
    folder, schema = tmp_path, old
    for high in ("120", "133.7"):
        wider = replace(schema.fields[0], high=Decimal(high))
        time = Time(bucket_seconds=bucket, lifetime_seconds=300 * DAY)
        new = successor(wider, WARD, old=schema, name=f"to {high}", time=time)
        with opened(folder, schema) as journal:
            journal.outbox.approve_ids(journal.outbox.page(State.PENDING, limit=10_000).ids, by="a test", now=NOW)
        migrate(folder, schema, new, now=NOW)
        folder, schema = folder / "next", new
        with opened(folder, schema) as journal:
            assert (read(journal, schema) == Noted.DUPLICATE).all()
            assert len(journal.conflicts().rows) == 0
    with opened(folder, schema) as journal:
        changed = read(journal, schema, change=-1.0)
        present = ~np.isnan(age) & (age >= 1)
        assert np.isin(changed[present], (Noted.CONFLICT, Noted.UPDATED)).all()


def test_key_and_logs(tmp_path: Path) -> None:
    folder = filled(tmp_path / "node")
    with opened(folder, OLD) as parent:
        head = parent.log.head()
    new = successor(replace(AGE, high=Decimal(120)), WARD)
    migrate(folder, OLD, new, now=NOW)
    for name in (KEY_FILE, "schema.toml", "journal.db"):
        assert stat.S_IMODE((folder / "next" / name).stat().st_mode) == 0o600
    assert (folder / "next" / KEY_FILE).read_bytes() == (folder / KEY_FILE).read_bytes()
    with opened(folder, OLD) as parent, opened(folder / "next", new) as journal:
        assert not journal.outbox.copied
        assert parent.log.verify() == journal.log.verify() == []
        assert parent.log.verify(head[1]) == []
        (first,) = [e for e in journal.log.entries() if e.kind == Event.MIGRATED]
        assert first.fields["parent_head"] == head[1]
        assert first.fields["parent"] == OLD.id.hex()
        (left,) = [e for e in parent.log.entries() if e.kind == Event.MIGRATED]
        assert left.fields["schema"] == new.id.hex()


def test_who_has_no_place_stays_behind_and_its_cohort_waits_for_new_ones(tmp_path: Path) -> None:
    folder = filled(tmp_path / "node")
    before = memberships(folder, OLD)
    new = successor(replace(AGE, low=Decimal(20)), WARD)
    with opened(folder, OLD) as parent:
        all_ = parent.observations()
        young = set(all_.rows[all_.codes[:, 0] / 65534 * 100 < 19.9].tolist())
    moved = migrate(folder, OLD, new, now=NOW)
    assert moved.lost == len(young) > 3
    whole = {cohort for cohort in before if not cohort & young}
    assert 0 < len(whole) < len(before)
    assert memberships(folder / "next", new) == whole
    assert moved.not_again == {NotAgain.LOST: len(before) - len(whole)}
    with opened(folder / "next", new) as journal:
        seen = journal.observations()
        assert not set(seen.rows.tolist()) & young
        stale = seen.emitted & (seen.packet < 0)
        assert set(seen.rows[stale].tolist()) == set().union(*(before - whole)) - young
        assert len(emit(journal, new, folder)) == 0, "too few are new"
        observe(journal, new, range(100, 140))
        assert len(emit(journal, new, folder)) >= 3


@pytest.mark.parametrize(
    ("fields", "given_", "reason"),
    [
        ((AGE, replace(WARD, facet=True)), {}, NotAgain.FACETS),
        ((AGE, WARD), {"privacy": Privacy(k=7)}, NotAgain.FLOOR),
        ((AGE, WARD), {"time": Time(bucket_seconds=DAY, lifetime_seconds=DAY)}, NotAgain.EXPIRED),
    ],
)
def test_packets_that_the_successor_cannot_hold(
    fields: tuple[Field, ...], given_: dict[str, Any], reason: NotAgain, tmp_path: Path
) -> None:
    folder = filled(tmp_path / "node", old=20 * DAY)
    new = successor(*fields, **given_)
    moved = migrate(folder, OLD, new, now=NOW)
    assert moved.observations == 60
    assert set(moved.not_again) == {reason}
    assert moved.packets + moved.not_again[reason] == len(memberships(folder, OLD))
    with opened(folder / "next", new) as journal:
        page = journal.outbox.page(State.PENDING)
        assert accept(page.packets.tobytes(), new, NOW).ok.all()


def test_a_case_that_changed_after_it_left_takes_its_new_values(tmp_path: Path) -> None:
    folder = filled(tmp_path / "node")
    with opened(folder, OLD) as parent:
        before = parent.observations()
        codes = before.codes[:1].copy()
        codes[0, 0] = 12_345
        parent.observe([0], codes, 1 - before.outcome[:1], bucket=before.bucket[:1], facet=before.facet[:1])
        assert parent.counts()["conflicts"] == 1
    new = successor(AGE, WARD)
    moved = migrate(folder, OLD, new, now=NOW)
    assert moved.not_again == {NotAgain.CHANGED: 1}
    with opened(folder / "next", new) as journal:
        after = journal.observations()
        assert after.codes[0, 0] == 12_345
        assert after.outcome[0] == 1 - before.outcome[0]
        assert after.packet[0] == -1
        assert after.emitted[0]


def test_rejected_withdrawn_and_waiting_observations_stay_what_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    with opened(folder, OLD) as parent:
        observe(parent, OLD, range(30))
        one = emit(parent, OLD, folder)[0]
        packet = parent.outbox.get([one])
        gone = parent.outbox.members(one).tolist()
        parent.outbox.withdraw(
            packet.ids, withdraw(packet.packets, load_identity(folder)), by="a test", reason="a test", now=NOW
        )
        observe(parent, OLD, range(100, 109))
        codes = encode(OLD, {"age": [3], "ward": ["x"]}).codes
        parent.observe([200], codes, np.array([np.nan]), bucket=np.array([0]))
        ids = emit(parent, OLD, folder, approve=False)
        parent.outbox.reject(parent.outbox.review(ids, now=NOW).digest.hex(), by="a test", now=NOW)
        counts = parent.counts()
        assert counts["excluded"] > 0
    new = successor(AGE, WARD)
    migrate(folder, OLD, new, now=NOW)
    with opened(folder / "next", new) as journal:
        after = journal.counts()
        assert {name: after[name] for name in ("known", "waiting", "excluded", "ready")} == {
            name: counts[name] for name in ("known", "waiting", "excluded", "ready")
        }
        seen = journal.observations()
        assert set(gone) <= set(seen.rows[seen.emitted & (seen.packet < 0)].tolist())


def test_single_and_cohort_packets_of_a_schema_about_no_person(tmp_path: Path) -> None:
    old = schema_of(privacy=Privacy(distiller=Distiller.SINGLE, k=1))
    folder = tmp_path / "node"
    with opened(folder, old) as parent:
        observe(parent, old, range(10))
        emit(parent, old, folder)
        observe(parent, old, range(50, 62))
        emit(parent, old, folder, k=3)
    before = memberships(folder, old)
    new = successor(replace(AGE, high=Decimal(110)), WARD, old=old, privacy=old.privacy)
    moved = migrate(folder, old, new, now=NOW)
    assert moved.packets == len(before)
    assert memberships(folder / "next", new) == before
    with opened(folder / "next", new) as journal:
        page = journal.outbox.page(State.PENDING)
        assert accept(page.packets.tobytes(), new, NOW).ok.all()
        assert sorted(set(page.packets["distiller"].tolist())) == [Distiller.COHORT, Distiller.SINGLE]
    strict = successor(AGE, WARD, old=old)
    second = filled(tmp_path / "other", old, 10)
    assert migrate(second, old, strict, now=NOW).not_again == {NotAgain.FLOOR: 10}


def test_numeric_outcomes_and_learnt_landmarks(tmp_path: Path) -> None:
    days = Outcome(name="ill", kind=OutcomeKind.NUMERIC, low=Decimal(0), high=Decimal(1), unit="d")
    old = schema_of(outcome=days)
    folder = filled(tmp_path / "node", old)
    marks = Landmarks(np.array([[1, 65534, 0, 0], [60_000, 0, 0, 65534]], dtype=np.uint16))
    new = successor(old=old, outcome=replace(days, high=Decimal(10)), landmarks=marks)
    moved = migrate(folder, old, new, now=NOW)
    assert moved.packets == len(memberships(folder, old))
    assert load(folder / "next" / "schema.toml") == new


def test_a_successor_of_a_successor_under_a_protected_key(tmp_path: Path) -> None:
    folder = filled(tmp_path / "node")
    protect_key(folder, name=KEY_FILE, new=lambda: b"open")
    second, before = successor(AGE, WARD), memberships(folder, OLD)
    identity = load_identity(folder, passphrase=lambda: b"open")
    migrate(folder, OLD, second, now=NOW, identity=identity)
    assert (folder / "next" / KEY_FILE).read_bytes() == (folder / KEY_FILE).read_bytes()
    assert is_protected(folder / "next")
    with opened(folder / "next", second) as journal:
        journal.outbox.approve_ids(journal.outbox.page(State.PENDING, limit=100).ids, by="a test", now=NOW)
    third = successor(AGE, WARD, old=second, name="third")
    migrate(folder / "next", second, third, now=NOW, identity=identity)
    assert memberships(folder / "next" / "next", third) == before
    assert successors(folder) == (folder / "next", folder / "next" / "next")
    assert successors(folder / "next" / "next") == ()


def untouched(folder: Path) -> bool:
    return successor_dir(folder) is None and not (folder / "next.part").exists()


def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    folder = filled(tmp_path / "node")
    new = successor(AGE, WARD)
    with pytest.raises(SchemaError) as parent:
        migrate(folder, OLD, schema_of(name="other"), now=NOW)
    assert parent.value.code == "schema.parent"
    with opened(folder, OLD) as journal:
        observe(journal, OLD, range(80, 90))
        ids = emit(journal, OLD, folder, approve=False)
        with pytest.raises(StoreError) as used:
            migrate(folder, OLD, new, now=NOW)
        assert used.value.code == "store.locked"
    with pytest.raises(StoreError, match="wait for approval") as waiting:
        migrate(folder, OLD, new, now=NOW)
    assert waiting.value.code == "migrate.pending"
    assert untouched(folder)
    with opened(folder, OLD) as journal:
        journal.outbox.approve_ids(ids, by="a test", now=NOW)
    migrate(folder, OLD, new, now=NOW)
    with pytest.raises(StoreError) as again:
        migrate(folder, OLD, new, now=NOW)
    assert again.value.code == "migrate.done"


def test_a_migration_that_breaks_off_can_be_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = filled(tmp_path / "node")
    new = successor(AGE, WARD)

    def broken() -> bytes:
        raise KeyboardInterrupt

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(KeyboardInterrupt):
        migrate(folder, OLD, new, now=NOW, nonce=broken)
    assert untouched(folder)
    with monkeypatch.context() as patched:
        patched.setattr("os.rename", full)
        with pytest.raises(StoreError, match="No space left") as caught:
            migrate(folder, OLD, new, now=NOW)
    assert caught.value.code == "migrate.write"
    assert untouched(folder)
    (folder / "next.part").mkdir()
    (folder / "next.part" / "journal.db").write_bytes(b"cut off")
    assert migrate(folder, OLD, new, now=NOW).observations == 60


def test_a_schema_that_too_few_have_signed_is_not_served(tmp_path: Path) -> None:
    folder = filled(tmp_path / "node")
    who = [Identity(bytes([n]) * 32) for n in (1, 2, 3)]
    new = successor(AGE, WARD, organisations=tuple(one.public_key for one in who), quorum=2)
    signatures = [sign_schema(new, one) for one in who]
    for few in ([], signatures[:1], signatures[:1] * 3):
        with pytest.raises(SchemaError) as caught:
            migrate(folder, OLD, new, now=NOW, signatures=few)
        assert caught.value.code == "schema.unsigned"
        assert untouched(folder)
    migrate(folder, OLD, new, now=NOW, signatures=signatures[1:])
    assert set(load_signatures(folder / "next" / "schema.toml")) == set(signatures[1:])
    check_agreed(new, folder / "next")
    check_agreed(new, None, signatures[:2])
    check_agreed(OLD, None)
    for where in (None, tmp_path / "nowhere"):
        with pytest.raises(SchemaError) as caught:
            check_agreed(new, where, signatures[:1])
        assert caught.value.code == "schema.unsigned"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 40),
    st.lists(st.sampled_from(["observe", "withdraw", "migrate", "distil"]), min_size=2, max_size=7),
    st.integers(0, 2**32 - 1),
)
def test_no_two_packets_of_node_and_successors_tell_about_few(low: int, steps: list[str], seed: int) -> None:
    """Two packets with a case in common have the same members, or differ by k subjects at least."""
    rng = np.random.default_rng(seed)
    with TemporaryDirectory() as directory:
        folder, schema = Path(directory) / "node", OLD
        load_identity(folder)
        emissions: set[frozenset[int]] = set()
        cases = 0
        for step in ["observe", "distil", *steps, "observe", "distil"]:
            if step == "migrate":
                high = int(rng.integers(60, 130))
                new = schema_of(
                    replace(AGE, low=Decimal(int(rng.integers(0, low + 1))), high=Decimal(high)),
                    replace(WARD, facet=bool(rng.random() < 0.3)),
                    name=f"{high}",
                    parent=schema.id,
                    privacy=Privacy(k=int(rng.integers(2, 5))),
                )
                migrate(folder, schema, new, now=NOW)
                folder, schema = folder / "next", new
            with opened(folder, schema) as journal:
                if step == "observe":
                    n = int(rng.integers(1, 15))
                    codes = encode(schema, {"age": rng.integers(50, 60, n), "ward": rng.choice(["x", "y"], n)}).codes
                    journal.observe(
                        list(range(cases, cases + n)),
                        codes,
                        rng.integers(0, 2, n).astype(np.float64),
                        bucket=np.full(n, schema.time.bucket(NOW)),
                        facet=facet_index(schema, codes),
                    )
                    cases += n
                elif step == "withdraw":
                    held = journal.outbox.page(State.QUEUED, limit=1000, kind=Kind.PACKET)
                    some = held.ids[rng.random(len(held)) < 0.5]
                    chosen = journal.outbox.get(some)
                    signed = withdraw(chosen.packets, load_identity(folder))
                    journal.outbox.withdraw(chosen.ids, signed, by="a test", reason="a test", now=NOW)
                pending = journal.outbox.page(State.PENDING, limit=1000).ids
                ids = np.concatenate([pending, emit(journal, schema, folder, approve=False)])
                journal.outbox.approve_ids(ids, by="a test", now=NOW)
                everyone = journal.observations()
                subject = dict(zip(everyone.rows.tolist(), everyone.subject.tolist(), strict=True))
                new_ones = {frozenset(subject[r] for r in journal.outbox.members(i).tolist()) for i in ids.tolist()}
                for a, b in combinations(new_ones | emissions, 2):
                    if a & b and (a in new_ones or b in new_ones):
                        assert len(a ^ b) >= schema.privacy.k
                emissions |= new_ones
