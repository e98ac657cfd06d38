"""Packets: made, signed, accepted, spoilt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import DataError, OutrouteError
from outroute.packet import (
    MAX_SIZE,
    PACKET_BYTES,
    PACKET_DTYPE,
    Packet,
    PacketArray,
    Rejection,
    accept,
    as_packets,
    build,
    class_counts,
    commit,
    expiry,
    identities,
    moments,
    sign,
    slots,
    withdraw,
)
from outroute.packet.make import CODE_ONE, largest_variance, moments_codes
from outroute.schema import MISSING, SCALE, Distiller, OutcomeKind, Privacy, Schema

from . import second
from .making import ALICE, BOB, NOW, agreed, codes_of, numeric_field, packets_of, schema_of, schemas

seeds = st.integers(0, 2**32)


def one(schema: Schema, seed: int = 0, **more: Any) -> PacketArray:
    return packets_of(schema, np.random.default_rng(seed), 1, **more)


def reason(packets: PacketArray | bytes, schema: Schema, now: int = NOW) -> Rejection:
    (got,) = accept(packets if isinstance(packets, bytes) else packets.tobytes(), schema, now).reason.tolist()
    return Rejection(got)


def test_layout_is_that_of_the_specification() -> None:
    assert PACKET_DTYPE.itemsize == PACKET_BYTES == second.LAYOUT.size + 64 == 512
    names = PACKET_DTYPE.names
    assert names is not None
    ends = {name: PACKET_DTYPE.fields[name][1] + PACKET_DTYPE.fields[name][0].itemsize for name in names}  # type: ignore[index]
    starts = {name: PACKET_DTYPE.fields[name][1] for name in names}  # type: ignore[index]
    assert list(starts.values()) == [0, *list(ends.values())[:-1]], "no gap and no overlap"
    assert ends["signature"] == 512
    assert starts["signature"] == 448


@pytest.mark.parametrize("kind", OutcomeKind)
@pytest.mark.parametrize("gone", [False, True])
def test_flipping_any_single_bit_is_refused(kind: OutcomeKind, gone: bool) -> None:
    schema = schema_of(kind=kind)
    good = withdraw(one(schema), ALICE) if gone else one(schema)
    assert reason(good, schema) is Rejection.NONE
    flipped = np.tile(np.frombuffer(good.tobytes(), dtype=np.uint8), (4096, 1))
    for bit in range(4096):
        flipped[bit, bit // 8] ^= 1 << bit % 8
    verdicts = accept(flipped.tobytes(), schema, NOW)
    assert len(verdicts.reason) == 4096
    assert not verdicts.ok.any()
    assert sum(verdicts.counted().values()) == 4096


@settings(max_examples=60, deadline=None)
@given(schemas(), seeds)
def test_round_trip_over_random_schemas(schema: Schema, seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = packets_of(schema, rng, 3)
    other = agreed(schema)
    assert other.id == schema.id
    back = as_packets(made.tobytes())
    assert accept(made.tobytes(), schema, NOW).reason.tolist() == [0, 0, 0]
    assert (back == made).all()
    for row, identity, slot, end in zip(
        back, identities(back), slots(back), expiry(schema, back).tolist(), strict=True
    ):
        data = row.tobytes()
        assert second.accept(other, data, NOW) == "NONE"
        assert second.identity(data) == identity == Packet(data).identity
        assert second.slot(data) == slot
        assert second.expiry(other, data) == end
        said = Packet(data).describe(schema)
        assert set(said["conditions"]) == {f.name for f in schema.fields}
    gone = withdraw(back, ALICE)
    assert accept(gone, schema, NOW).ok.all()
    assert slots(gone) == slots(back)
    assert (expiry(schema, gone) == expiry(schema, back)).all()
    assert all(second.accept(other, row.tobytes(), NOW) == "NONE" for row in gone)


@settings(max_examples=60, deadline=None)
@given(schemas(), seeds)
def test_both_implementations_refuse_alike(schema: Schema, seed: int) -> None:
    """Random fields overwritten, then signed again by the author: same reason, and batch equals one by one."""
    rng = np.random.default_rng(seed)
    made = packets_of(schema, rng, 12)
    made = np.concatenate([made, withdraw(made[:4], ALICE)])
    flat = made.view(np.uint8).reshape(len(made), PACKET_BYTES)
    for row in flat:
        at = int(rng.integers(448))
        row[at : at + int(rng.integers(1, 3))] = rng.choice([0, 1, 2, 255, int(rng.integers(256))])
    keep = made["author"].copy()
    made["author"] = np.frombuffer(ALICE.public_key, dtype=np.uint8)
    sign(made, ALICE)
    made["author"][::5] = keep[::5]
    got = accept(made, schema, NOW).reason.tolist()
    other = agreed(schema)
    assert [Rejection(r).name for r in got] == [second.accept(other, row.tobytes(), NOW) for row in made]
    assert got == [int(reason(row.tobytes(), schema)) for row in made]


# Tampering with signing again, so that the named rule is the only one broken.


def spoil(name: str, value: Any, at: Any = None) -> Callable[[PacketArray], None]:
    def change(p: PacketArray) -> None:
        if at is None:
            p[name] = value(p[name]) if callable(value) else value
        else:
            p[name][0, at] = value

    return change


CASES: list[tuple[Rejection, Callable[[PacketArray], None], bool]] = [
    (Rejection.MAGIC, spoil("magic", lambda m: m ^ (1 << 24)), False),
    (Rejection.FLAGS, spoil("flags", 2), False),
    (Rejection.SCHEMA, spoil("schema", 0, 31), False),
    (Rejection.KIND, spoil("kind", 9), False),
    (Rejection.DISTILLER, spoil("distiller", 9), False),
    (Rejection.BUCKET, spoil("bucket", lambda b: b + 1), False),
    (Rejection.BUCKET, spoil("bucket", 2**63 - 1), False),
    (Rejection.BUCKET, spoil("bucket", -(2**63)), False),
    (Rejection.FUTURE, spoil("bucket", lambda b: b + 2 * 86_400), False),
    (Rejection.LIFETIME, spoil("lifetime", 0), False),
    (Rejection.LIFETIME, spoil("lifetime", 2**32 - 1), False),
    (Rejection.EXPIRED, spoil("bucket", lambda b: b - 86_400 * 1000), False),
    (Rejection.SIZE, spoil("size", 4), False),
    (Rejection.SIZE, spoil("size", 2**32 - 1), False),
    (Rejection.WEIGHT, spoil("weight", 0), False),
    (Rejection.WEIGHT, spoil("weight", 2**32 - 1), False),
    (Rejection.OUTCOME, spoil("outcome", 1, 9), False),
    (Rejection.CONDITIONS, spoil("conditions", 1, 115), False),
    (Rejection.CONDITIONS, spoil("conditions", 1, 1), False),
    (Rejection.CELL, spoil("cell", 12), False),
    (Rejection.CELL, spoil("cell", lambda c: (c + 1) % 12), False),
    (Rejection.FINGERPRINT, spoil("fingerprint", lambda f: ~f), False),
    (Rejection.WITHDRAWAL, spoil("flags", 1), False),
    (Rejection.WITHDRAWAL, spoil("size", 5), True),
    (Rejection.WITHDRAWAL, spoil("conditions", MISSING, 115), True),
    (Rejection.WITHDRAWAL, spoil("commitment", 1, 0), True),
    (Rejection.RESERVED, spoil("reserved", 1, 0), False),
    (Rejection.RESERVED, spoil("reserved", 1, 0), True),
    (Rejection.KIND, spoil("kind", 9), True),
    (Rejection.BUCKET, spoil("bucket", lambda b: b + 1), True),
    (Rejection.LIFETIME, spoil("lifetime", 0), True),
    (Rejection.CELL, spoil("cell", 12), True),
]


@pytest.mark.parametrize("kind", OutcomeKind)
@pytest.mark.parametrize(("why", "change", "gone"), CASES)
def test_tampering_by_the_author_hits_its_rule(
    kind: OutcomeKind, why: Rejection, change: Callable[[PacketArray], None], gone: bool
) -> None:
    schema = schema_of(kind=kind)
    packet = withdraw(one(schema), ALICE) if gone else one(schema)
    change(packet)
    sign(packet, ALICE)
    assert reason(packet, schema) is why
    assert second.accept(agreed(schema), packet.tobytes(), NOW) == why.name
    assert Packet(packet.tobytes()).verify(schema, NOW) is why


def test_every_reason_has_a_case_and_a_text() -> None:
    elsewhere = {Rejection.NONE, Rejection.LENGTH, Rejection.SIGNATURE}
    assert {why for why, _, _ in CASES} | elsewhere == set(Rejection)
    assert len({r.text for r in Rejection}) == len(Rejection)


def test_signatures() -> None:
    schema = schema_of()
    packet = one(schema)
    for name in ("sequence", "commitment"):
        changed = packet.copy()
        changed[name] += 1
        assert reason(changed, schema) is Rejection.SIGNATURE
    stolen = packet.copy()
    stolen["author"] = np.frombuffer(BOB.public_key, dtype=np.uint8)
    assert reason(stolen, schema) is Rejection.SIGNATURE
    bare = packet.copy()
    bare["signature"] = 0
    assert reason(bare, schema) is Rejection.SIGNATURE


def test_a_facet_in_parts_is_refused() -> None:
    schema = schema_of()
    packet = one(schema)
    packet["conditions"][0, schema.slots["f"]] = [SCALE - 1, 1, 0]
    sign(packet, ALICE)
    assert reason(packet, schema) is Rejection.CONDITIONS


def test_other_schemas_are_counted_as_such_whatever_their_kind() -> None:
    numbers, classes = schema_of(kind=OutcomeKind.NUMERIC), schema_of()
    assert reason(one(numbers), classes) is Rejection.SCHEMA
    assert reason(one(classes), numbers) is Rejection.SCHEMA


def test_single_and_cohort() -> None:
    single = schema_of(privacy=Privacy(distiller=Distiller.SINGLE, k=1))
    codes, seven = codes_of(single, np.random.default_rng(0), 1), np.array([7])
    same: dict[str, Any] = {"size": seven, "subjects": seven, "counts": np.array([[3, 4]]), "codes": codes}
    assert reason(one(single), single) is Rejection.NONE
    assert reason(one(single, distiller=Distiller.COHORT, **same), single) is Rejection.NONE
    assert reason(one(single, distiller=Distiller.SINGLE, **same), single) is Rejection.SIZE
    cohort = schema_of()
    assert reason(one(cohort, distiller=Distiller.SINGLE), cohort) is Rejection.DISTILLER


# Hostile bytes


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=1600), st.integers(-(2**40), 2**40))
def test_random_bytes_never_raise_and_never_pass(data: bytes, now: int) -> None:
    verdicts = accept(data, schema_of(), now)
    assert len(verdicts.reason) == -(-len(data) // PACKET_BYTES)
    assert not verdicts.ok.any()


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_random_bodies_behind_a_right_head_never_raise_and_never_pass(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for kind in OutcomeKind:
        schema = schema_of(kind=kind)
        noise = rng.integers(0, 256, (20, PACKET_BYTES), dtype=np.uint8)
        noise[:, :40] = np.frombuffer(one(schema).tobytes()[:40], dtype=np.uint8)
        noise[::2, 4] = 1
        noise[::3, 80:92] = np.frombuffer(one(schema).tobytes()[80:92], dtype=np.uint8)
        verdicts = accept(noise.tobytes(), schema, NOW)
        assert not verdicts.ok.any()
        for row in noise:
            said = Packet(row.tobytes()).describe(schema)
            assert said["identity"] == second.identity(row.tobytes()).hex()


def test_truncated_buffers() -> None:
    schema = schema_of()
    whole = packets_of(schema, np.random.default_rng(0), 3).tobytes()
    for length in range(0, len(whole) + 1, 7):
        verdicts = accept(whole[:length], schema, NOW)
        assert verdicts.ok.sum() == length // PACKET_BYTES
        assert verdicts.counted() == ({Rejection.LENGTH: 1} if length % PACKET_BYTES else {})
    assert accept(memoryview(whole), schema, NOW).ok.all()
    assert accept(bytearray(whole), schema, NOW).ok.all()
    assert len(accept(b"", schema, NOW).reason) == 0
    for length in (0, 1, 511, 513):
        with pytest.raises(DataError, match="512 bytes") as caught:
            Packet(bytes(length))
        assert caught.value.code == "packet.length"
    with pytest.raises(DataError) as caught:
        Packet(bytes(512)).describe()
    assert caught.value.code == "packet.magic"


def test_many_at_once_equal_one_by_one() -> None:
    """More than one chunk, a few bad ones among them."""
    schema = schema_of()
    packet = packets_of(schema, np.random.default_rng(1), 50)
    many = np.tile(packet, 90)
    bad = {7: Rejection.SIZE, 2047: Rejection.MAGIC, 2048: Rejection.FINGERPRINT, 4099: Rejection.RESERVED}
    many["size"][7], many["magic"][2047], many["reserved"][4099, 3] = 1, 0, 1
    many["fingerprint"][2048] ^= 1
    verdicts = accept(many, schema, NOW, verify=lambda p: np.ones(len(p), dtype=bool))
    assert {i: Rejection(int(verdicts.reason[i])) for i in np.flatnonzero(verdicts.reason)} == bad
    assert verdicts.counted() == dict.fromkeys(bad.values(), 1)


# Time


def test_a_bucket_may_start_ten_minutes_ahead() -> None:
    schema = schema_of()
    for packet in (one(schema), withdraw(one(schema), ALICE)):
        bucket = int(packet["bucket"][0])
        assert reason(packet, schema, bucket - 600) is Rejection.NONE
        assert reason(packet, schema, bucket - 601) is Rejection.FUTURE


def test_expiry_is_the_end_of_the_bucket_plus_lifetime() -> None:
    schema = schema_of()
    for lifetime in (1, 30 * 86_400):
        packet = one(schema, lifetime=lifetime)
        for p in (packet, withdraw(packet, ALICE)):
            end = int(p["bucket"][0]) + 86_400 + lifetime
            assert expiry(schema, p).tolist() == [end]
            assert reason(p, schema, end - 1) is Rejection.NONE
            assert reason(p, schema, end) is Rejection.EXPIRED


def test_buckets_before_1970() -> None:
    schema = schema_of()
    bucket = schema.time.bucket(-1)
    assert bucket == -86_400
    packet = one(schema, bucket=np.array([bucket]))
    assert reason(packet, schema, -1) is Rejection.NONE
    packet["bucket"] = -1
    sign(packet, ALICE)
    assert reason(packet, schema, -1) is Rejection.BUCKET


# Slots


def test_two_identities_in_one_slot_prove_equivocation() -> None:
    schema = schema_of()
    first = packets_of(schema, np.random.default_rng(0), 4)
    again = first.copy()
    again["commitment"] ^= 1
    sign(again, ALICE)
    assert accept(again, schema, NOW).ok.all()
    assert slots(first) == slots(again)
    assert not set(identities(first)) & set(identities(again))
    resigned = first.copy()
    sign(resigned, ALICE)
    assert identities(resigned) == identities(first)
    for name in ("author", "schema", "cell", "sequence"):
        other = first.copy()
        other[name] ^= 1
        assert not set(slots(other)) & set(slots(first)), name
    assert {len(s) for s in slots(first)} == {76}


def test_incarnations_are_other_slots() -> None:
    schema = schema_of()
    packet = one(schema, sequence=np.array([(3 << 32) + 9], dtype=np.uint64))
    said = Packet(packet.tobytes()).describe()
    assert (said["incarnation"], said["sequence"]) == (3, 9)


def test_a_withdrawal_says_nothing_but_what_it_takes_back() -> None:
    schema = schema_of(kind=OutcomeKind.NUMERIC)
    packet = one(schema)
    gone = withdraw(packet, ALICE)
    assert Packet(gone.tobytes()).is_withdrawal
    assert not Packet(packet.tobytes()).is_withdrawal
    assert "outcome" not in Packet(gone.tobytes()).describe(schema)
    for name in ("size", "weight", "fingerprint", "outcome", "conditions", "commitment", "reserved"):
        assert not gone[name].any()
    for name in ("kind", "distiller", "schema", "author", "sequence", "bucket", "lifetime", "cell"):
        assert (gone[name] == packet[name]).all()
    assert identities(gone) != identities(packet)
    assert withdraw(gone, ALICE).tobytes() == gone.tobytes()
    with pytest.raises(OutrouteError) as caught:
        withdraw(packet, BOB)
    assert caught.value.code == "packet.author"


# Misuse


def test_misuse_is_an_error() -> None:
    schema, numbers = schema_of(), schema_of(kind=OutcomeKind.NUMERIC)
    big = np.array([MAX_SIZE + 1])
    for code, target, wrong in (
        ("packet.size", schema, {"size": big, "subjects": big}),
        ("packet.size", schema, {"size": np.array([5]), "subjects": np.array([6])}),
        ("packet.size", schema, {"size": np.array([5]), "subjects": np.array([0])}),
        ("packet.author", schema, {"author": b"short"}),
        ("packet.outcome", schema, {"counts": np.array([[-1, 10**6]])}),
        ("packet.outcome", schema, {"counts": None}),
        ("packet.outcome", numbers, {"mean": None}),
        ("packet.outcome", numbers, {"mean": np.array([np.nan])}),
        ("packet.outcome", numbers, {"variance": np.array([np.inf])}),
    ):
        with pytest.raises(OutrouteError) as caught:
            one(target, **wrong)
        assert caught.value.code == code, wrong
    with pytest.raises(OutrouteError) as caught:
        sign(one(schema), BOB)
    assert caught.value.code == "packet.author"
    with pytest.raises(OutrouteError) as caught:
        commit(b"short", b"")
    assert caught.value.code == "packet.secret"
    none = np.zeros(0, dtype=np.int64)
    empty = build(
        schema, author=ALICE.public_key, sequence=none.astype(np.uint64), codes=np.zeros((0, schema.width), np.uint16),
        size=none, subjects=none, bucket=none, distiller=Distiller.COHORT, counts=np.zeros((0, 2), np.int64),
    )  # fmt: skip
    sign(empty, ALICE)
    assert identities(withdraw(empty, ALICE)) == slots(empty) == []
    assert len(accept(empty, schema, NOW).reason) == 0


def test_commitments_depend_on_secret_and_observations() -> None:
    assert len({commit(bytes(32), b"a"), commit(bytes(32), b"b"), commit(b"s" * 32, b"a")}) == 3


# Outcomes


@settings(max_examples=200, deadline=None)
@given(st.integers(2, MAX_SIZE), st.data())
def test_the_largest_variance_is_never_refused(size: int, data: st.DataObject) -> None:
    """Some at one end, the rest at the other: rounding must not make an honest packet impossible."""
    schema = schema_of(kind=OutcomeKind.NUMERIC)
    high = data.draw(st.integers(0, size)) / size
    mean, variance = moments_codes(schema, np.array([-1 + 10 * high]), np.array([100 * high * (1 - high)]))
    assert int(variance[0]) * CODE_ONE <= 4 * int(mean[0]) * (CODE_ONE - int(mean[0]))
    assert second.moments(agreed(schema), -1 + 10 * high, 100 * high * (1 - high)) == (mean[0], variance[0])


@given(st.integers(0, CODE_ONE))
def test_largest_variance_is_exact(mean: int) -> None:
    assert int(largest_variance(np.array([mean], dtype=np.uint64))[0]) == 4 * mean * (CODE_ONE - mean) // CODE_ONE


def test_outcomes_come_back() -> None:
    schema = schema_of(kind=OutcomeKind.NUMERIC)
    packet = one(schema, mean=np.array([2.5]), variance=np.array([6.25]))
    mean, variance = moments(schema, packet)
    assert mean[0] == pytest.approx(2.5, abs=1e-8)
    assert variance[0] == pytest.approx(6.25, abs=1e-6)
    clipped = one(schema, mean=np.array([1e9]), variance=np.array([1e9]))
    assert clipped["outcome"][0, :2].tolist() == [CODE_ONE, 0]
    classes = schema_of(numeric_field())
    counts = class_counts(classes, one(classes, size=np.array([7]), subjects=np.array([6]), counts=np.array([[3, 4]])))
    assert counts.tolist() == [[3.0, 4.0]]
