"""Shares: sums are exact, a share alone is noise, cohorts hold enough others, and nonsense is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outroute.distill import Observations
from outroute.distill.aggregate import aggregate
from outroute.distill.combining import combine
from outroute.distill.contribution import Contribution, Refusal, contribute, envelope_bytes, pair_of, read
from outroute.distill.opening import (
    Roll,
    Sum,
    Sums,
    add_up,
    read_roll,
    read_sums,
    write_roll,
    write_sums,
)
from outroute.distill.pooling import pool
from outroute.distill.shares import Spoilt, Total, drawn_share, other_share, total, vector_width, vectors_of
from outroute.errors import DataError
from outroute.identity import Identity, Purpose
from outroute.packet import PacketArray, accept, moments
from outroute.schema import SCALE, OutcomeKind, Schema, facet_index

from .conftest import make_observations, make_schema

A, B = sorted((Identity(b"a" * 32), Identity(b"b" * 32)), key=lambda one: one.public_key)
PAIR = pair_of(A.public_key, B.public_key)
NOW = 400 * 86_400


def some(kind: OutcomeKind = OutcomeKind.BINARY, n: int = 60, seed: int = 1) -> tuple[Schema, Observations]:
    schema = make_schema(k=4, kind=kind, facet=True)
    return schema, make_observations(schema, np.random.default_rng(seed), n, missing=0.15)


def nonces(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def given_by(
    schema: Schema, observations: Observations, site: Identity, seed: int = 0
) -> tuple[list[Contribution], list[Contribution]]:
    made = contribute(schema, observations, identity=site, pair=PAIR, nonce=nonces(seed).bytes)
    out: tuple[list[Contribution], list[Contribution]] = ([], [])
    for role, who in enumerate((A, B)):
        for one in read(schema, made.files[role], who):
            assert isinstance(one, Contribution), one
            out[role].append(one)
    return out


def sites_of(schema: Schema, observations: Observations, size: int = 2) -> Iterator[tuple[Identity, Observations]]:
    for number, at in enumerate(range(0, len(observations), size)):
        site = Identity(b"site" + number.to_bytes(28, "little"))
        yield site, observations.take(np.arange(at, min(at + size, len(observations))))


@pytest.mark.parametrize("kind", list(OutcomeKind))
@given(seed=st.integers(0, 2**32), n=st.integers(1, 40))
def test_the_sum_of_shares_is_the_cohort(kind: OutcomeKind, seed: int, n: int) -> None:
    schema = make_schema(k=4, kind=kind)
    observations = make_observations(schema, np.random.default_rng(seed), n, missing=0.3)
    vectors = vectors_of(schema, observations.codes, observations.outcome)
    seeds = [nonces(seed + i).bytes(32) for i in range(n)]
    one = sum((drawn_share(s, vectors.shape[1]) for s in seeds), np.zeros(vectors.shape[1], np.uint64))
    two = sum((other_share(v, s) for v, s in zip(vectors, seeds, strict=True)), np.zeros_like(one))
    found = total(schema, n, one + two)
    wanted = aggregate(schema, observations, np.zeros(n, dtype=np.int64))[0]
    assert isinstance(found, Total)
    assert np.array_equal(found.codes, wanted.codes)
    if wanted.counts is not None:
        assert found.counts is not None
        assert np.array_equal(found.counts, wanted.counts)
    else:
        assert found.mean == pytest.approx(wanted.mean, abs=200 / SCALE)
        assert found.variance == pytest.approx(wanted.variance, abs=200 * 200 / SCALE)


def test_a_share_alone_is_noise() -> None:
    """Both shares of the same observation, many times: every byte takes every value equally often."""
    schema, observations = some(n=1)
    vector = vectors_of(schema, observations.codes, observations.outcome)[0]
    rng = np.random.default_rng(2)
    drawn = [rng.bytes(32) for _ in range(400)]
    for shares in (
        [drawn_share(seed, len(vector)) for seed in drawn],
        [other_share(vector, seed) for seed in drawn],
    ):
        raw = np.stack(shares).view(np.uint8)
        count = np.bincount(raw.ravel(), minlength=256)
        expected = raw.size / 256
        # Chi-squared with 255 degrees of freedom: 400 is beyond one in ten million.
        assert float(((count - expected) ** 2 / expected).sum()) < 400
    # The test can fail: the vector itself is far from it.
    raw = np.stack([vector] * 400).view(np.uint8)
    count = np.bincount(raw.ravel(), minlength=256)
    assert float(((count - raw.size / 256) ** 2 / (raw.size / 256)).sum()) > 10_000


@given(
    n=st.integers(0, 60),
    sites=st.integers(1, 12),
    cells=st.integers(1, 4),
    k=st.integers(2, 6),
    seed=st.integers(0, 1000),
)
def test_every_cohort_holds_k_subjects_beside_any_site(n: int, sites: int, cells: int, k: int, seed: int) -> None:
    schema, _ = some(n=1)
    rng = np.random.default_rng(seed)
    cell = rng.integers(0, cells, n)
    facet, bucket = rng.integers(0, 2, n), rng.integers(0, 2, n) * 1000
    site = rng.integers(0, sites, n)
    found = pool(schema, cell=cell, facet=facet, bucket=bucket, site=site, k=k, window=1000)
    for number in range(int(found.max(initial=-1)) + 1):
        members = found == number
        assert len(np.unique(facet[members])) == len(np.unique(bucket[members])) == 1
        assert members.sum() - np.bincount(site[members]).max() >= k
    # What is left of a facet and window could not have made a cohort by itself.
    for f in (0, 1):
        for b in (0, 1000):
            here = (facet == f) & (bucket == b)
            if here.any() and (found[here] < 0).all():
                assert here.sum() - np.bincount(site[here]).max() < k
    again = pool(schema, cell=cell, facet=facet, bucket=bucket, site=site + 7, k=k, window=1000)
    assert np.array_equal(found, again)


def test_a_full_cell_is_dealt_out_to_several_cohorts() -> None:
    schema, _ = some(n=1)
    site = np.repeat(np.arange(20), 3)
    zeros = np.zeros(60, dtype=np.int64)
    found = pool(schema, cell=zeros, facet=zeros, bucket=zeros, site=site, k=5, window=1)
    sizes = np.bincount(found)
    assert len(sizes) == 10
    assert (sizes == 6).all()
    assert all(len(np.unique(site[found == number])) == 6 for number in range(10))
    # One site that has nearly everything cannot hide behind itself.
    found = pool(schema, cell=zeros, facet=zeros, bucket=zeros, site=np.minimum(site, 1), k=5, window=1)
    assert found.max() == -1
    found = pool(schema, cell=zeros, facet=zeros, bucket=zeros, site=np.minimum(site, 3), k=3, window=1)
    assert all(len(np.unique(site[found == number])) > 1 for number in range(found.max() + 1))


@pytest.mark.parametrize("kind", list(OutcomeKind))
def test_two_synthesizers_make_packets_that_everybody_accepts(kind: OutcomeKind) -> None:
    schema, observations = some(kind)
    held: tuple[list[Contribution], list[Contribution]] = ([], [])
    for number, (site, rows) in enumerate(sites_of(schema, observations)):
        for mine, new in zip(held, given_by(schema, rows, site, number), strict=True):
            mine += new
    ours, used = add_up(schema, held[0], by=A.public_key, other=B.public_key, k=4)
    theirs, again = add_up(schema, held[1][::-1], by=B.public_key, other=A.public_key, k=4)
    assert used == again
    assert len(used) + ours.left == len(observations)
    files = write_sums(schema, ours, A), write_sums(schema, theirs, B)
    made = combine(schema, read_sums(schema, files[0]), read_sums(schema, files[1]), A)
    assert not made.spoilt
    assert combine(schema, theirs, ours, B).packets.tobytes() == made.packets.tobytes()
    assert accept(made.packets, schema, NOW).ok.all()
    assert made.packets["size"].sum() == len(used)
    assert len({p.tobytes() for p in made.packets["author"]} | {A.public_key, B.public_key}) == 3
    # The packets together hold exactly what the sites contributed.
    kept = [i for i, one in enumerate(held[0]) if one.id in set(used)]
    if kind is OutcomeKind.NUMERIC:
        mean, _ = moments(schema, made.packets)
        assert float(mean @ made.packets["size"]) == pytest.approx(observations.outcome[kept].sum(), abs=0.2)
    else:
        counts = made.packets["outcome"].sum(axis=0)[: len(schema.outcome.classes)]
        assert counts.tolist() == np.bincount(observations.outcome[kept].astype(int), minlength=len(counts)).tolist()


def test_what_one_synthesizer_sees_does_not_depend_on_the_observation() -> None:
    """Two observations of one cell: what each synthesizer holds is the same up to random bytes."""
    schema, observations = some(n=200)
    site = Identity(b"s" * 32)
    made = [given_by(schema, observations.take(np.array([i])), site, i) for i in range(200)]
    cells: dict[tuple[int, int], list[int]] = {}
    for i, (one, _) in enumerate(made):
        cells.setdefault((one[0].facet, one[0].cell), []).append(i)
    pair = next(rows for rows in cells.values() if len(rows) > 1)[:2]
    for role in (0, 1):
        x, y = (made[i][role][0] for i in pair)
        assert (x.site, x.other, x.facet, x.cell, x.bucket) == (y.site, y.other, y.facet, y.cell, y.bucket)
        assert np.count_nonzero(x.share == y.share) == 0
    # Drawn with the same seed, the first share is the same whatever was observed.
    with_one_seed = [given_by(schema, observations.take(np.array([i])), site, 7)[0][0].share for i in pair]
    assert np.array_equal(*with_one_seed)


def test_one_observation_a_subject_and_nothing_that_left_before() -> None:
    schema, observations = some(n=6)
    observations = replace(
        observations,
        subject=np.array([1, 1, 2, 2, 3, 4]),
        stale=np.array([0, 0, 0, 0, 1, 0], dtype=bool),
        outcome=np.where(np.arange(6) == 5, np.nan, observations.outcome),
    )
    made = contribute(schema, observations, identity=Identity(b"s" * 32), pair=PAIR, nonce=nonces(1).bytes)
    assert made.members.tolist() == [0, 2]


def sealed_file(schema: Schema) -> bytes:
    _, observations = some()
    site = Identity(b"s" * 32)
    made = contribute(schema, observations.take(np.arange(3)), identity=site, pair=PAIR, nonce=nonces(1).bytes)
    return made.files[0]


@given(at=st.integers(0, 3 * 400), bit=st.integers(0, 7))
def test_a_changed_envelope_is_refused_and_never_raises(at: int, bit: int) -> None:
    schema, _ = some(n=1)
    content = bytearray(sealed_file(schema))
    content[at % len(content)] ^= 1 << bit
    found = list(read(schema, bytes(content), A))
    assert sum(isinstance(one, Refusal) for one in found) >= 1
    assert sum(isinstance(one, Contribution) for one in found) <= 2


@given(junk=st.binary(max_size=2000))
def test_junk_is_refused_and_never_raises(junk: bytes) -> None:
    schema, _ = some(n=1)
    assert all(isinstance(one, Refusal) for one in read(schema, junk, A))
    for reader in (read_roll, read_sums):
        with pytest.raises(DataError):
            reader(schema, junk)


def test_what_is_not_meant_for_a_synthesizer_is_refused() -> None:
    schema, _ = some(n=1)
    content = sealed_file(schema)
    assert set(read(schema, content, B)) == {Refusal.ADDRESSEE}
    assert set(read(schema, content, Identity(b"x" * 32))) == {Refusal.ADDRESSEE}
    assert set(read(make_schema(k=5, facet=True), content, A)) == {Refusal.SCHEMA}
    assert set(read(schema, content, A, admitted=frozenset([b"t" * 32]))) == {Refusal.STRANGER}
    one = envelope_bytes(schema, 0)
    assert list(read(schema, content[: one - 1], A)) == [Refusal.FORM]
    # Somebody else's sealed share in an envelope of one's own.
    thief = Identity(b"t" * 32)
    stolen = bytearray(content[:one])
    stolen[40:72] = thief.public_key
    stolen[-64:] = thief.sign(Purpose.SHARES, bytes(stolen[:-64]))
    assert list(read(schema, bytes(stolen), A)) == [Refusal.SEAL]


def test_sums_that_no_honest_sites_have_are_refused() -> None:
    schema = make_schema(k=4)
    observations = make_observations(schema, np.random.default_rng(1), 8, missing=0.15)
    right = vectors_of(schema, observations.codes, observations.outcome).sum(axis=0, dtype=np.uint64)
    assert isinstance(total(schema, 8, right), Total)
    width, fields = vector_width(schema), len(schema.fields)
    for place, change, why in (
        (0, 9, Spoilt.PRESENT),
        (fields, 9 * SCALE, Spoilt.CONDITIONS),
        (fields, 2**64 - 10 * SCALE, Spoilt.CONDITIONS),
        (width - 1, 9, Spoilt.OUTCOME),
        (width - 1, 2**63, Spoilt.OUTCOME),
    ):
        wrong = right.copy()
        wrong[place] += np.uint64(change)
        assert total(schema, 8, wrong) is why


def test_a_liar_spoils_its_own_cohort_only() -> None:
    schema, observations = some(n=60)
    held: tuple[list[Contribution], list[Contribution]] = ([], [])
    for number, (site, rows) in enumerate(sites_of(schema, observations)):
        for mine, new in zip(held, given_by(schema, rows, site, number), strict=True):
            mine += new
    held[1][0] = replace(held[1][0], share=held[1][0].share + np.uint64(2**40))
    ours, used = add_up(schema, held[0], by=A.public_key, other=B.public_key, k=4)
    theirs, _ = add_up(schema, held[1], by=B.public_key, other=A.public_key, k=4)
    made = combine(schema, ours, theirs, A)
    assert len(made.spoilt) == (held[0][0].id in used) == 1
    lost = len(used) - int(made.packets["size"].sum())
    assert lost in {s.members for s in ours.sums}


def test_who_says_another_facet_under_the_seal_than_outside_spoils_its_own_cohort_only() -> None:
    """All outcomes of the right cohort agree, so it is to join a neighbour of the facet that both say outside."""
    schema, observations = some(n=60)
    facet = schema.slots[schema.facets[0].name]
    rows = observations.take(np.flatnonzero(observations.codes[:, facet][:, 0] == SCALE)[:12])
    vectors = vectors_of(schema, rows.codes, np.zeros(12))
    at = len(schema.fields) + facet.start
    vectors[11:, at] -= np.uint64(6 * SCALE)
    vectors[11:, at + 1] += np.uint64(6 * SCALE)
    number = int(rows.facet[0])
    assert facet_index(schema, rows.codes[:1])[0] == number
    sums = [
        Sum(facet=number, cell=cell, bucket=0, members=6, sites=6, share=part.sum(axis=0, dtype=np.uint64))
        for cell, part in enumerate((vectors[:6], vectors[6:]))
    ]
    none = [replace(one, share=np.zeros_like(one.share)) for one in sums]
    both = [
        Sums(by=one.public_key, other=two.public_key, k=4, digest=bytes(32), sums=tuple(part), left=0)
        for one, two, part in ((A, B, sums), (B, A, none))
    ]
    made = combine(schema, both[0], both[1], A)
    assert made.spoilt == ((1, Spoilt.CONDITIONS),)
    assert (made.agreeing, len(made.packets)) == (1, 0)


def opened_of(schema: Schema, observations: Observations) -> PacketArray:
    held: tuple[list[Contribution], list[Contribution]] = ([], [])
    for number, (site, rows) in enumerate(sites_of(schema, observations)):
        for mine, new in zip(held, given_by(schema, rows, site, number), strict=True):
            mine += new
    ours, _ = add_up(schema, held[0], by=A.public_key, other=B.public_key, k=4)
    theirs, _ = add_up(schema, held[1], by=B.public_key, other=A.public_key, k=4)
    made = combine(schema, ours, theirs, A)
    assert combine(schema, ours, theirs, B).packets.tobytes() == made.packets.tobytes()
    assert accept(made.packets, schema, NOW).ok.all()
    return made.packets


def test_packets_of_a_pair_keep_what_the_schema_asks_of_cohorts() -> None:
    schema = make_schema(k=4)
    rows = make_observations(schema, np.random.default_rng(8), 90)
    rows = replace(rows, outcome=(np.arange(90) % 12 == 0).astype(np.float64))
    allowed = replace(schema, privacy=replace(schema.privacy, dissent=0))
    counts = {name: opened_of(s, rows)["outcome"][:, :2] for name, s in (("default", schema), ("allowed", allowed))}
    assert (counts["default"].min(axis=1) > 0).all()
    assert (counts["allowed"].min(axis=1) == 0).any()
    assert counts["default"].sum() == counts["allowed"].sum() == 90
    none = replace(rows, outcome=np.zeros(90))
    assert len(opened_of(schema, none)) == 0
    noisy = replace(allowed, privacy=replace(allowed.privacy, noise=Decimal("0.1")))
    plain, blurred = opened_of(allowed, rows)["conditions"], opened_of(noisy, rows)["conditions"]
    assert len(plain) == len(blurred)
    assert not np.array_equal(plain[:, : schema.width], blurred[:, : schema.width])


def test_sums_that_do_not_belong_together_are_refused() -> None:
    schema, observations = some(n=60)
    held: tuple[list[Contribution], list[Contribution]] = ([], [])
    for number, (site, rows) in enumerate(sites_of(schema, observations)):
        for mine, new in zip(held, given_by(schema, rows, site, number), strict=True):
            mine += new
    ours, _ = add_up(schema, held[0], by=A.public_key, other=B.public_key, k=4)
    theirs, _ = add_up(schema, held[1][:-9], by=B.public_key, other=A.public_key, k=4)
    for one, two, who, code in (
        (ours, theirs, A, "shares.differ"),
        (ours, ours, A, "shares.pair"),
        (ours, theirs, Identity(b"x" * 32), "shares.pair"),
    ):
        with pytest.raises(DataError) as caught:
            combine(schema, one, two, who)
        assert caught.value.code == code
    with pytest.raises(DataError) as caught:
        add_up(schema, held[0], by=A.public_key, other=B.public_key, k=3)
    assert caught.value.code == "shares.floor"


def test_files_between_synthesizers_cannot_be_changed() -> None:
    schema, _ = some(n=1)
    roll = Roll(by=A.public_key, other=B.public_key, k=4, ids=(b"1" * 16, b"2" * 16))
    content = write_roll(schema, roll, A)
    assert read_roll(schema, content) == roll
    sums = Sums(by=A.public_key, other=B.public_key, k=4, digest=bytes(32), sums=(), left=0)
    assert read_sums(schema, write_sums(schema, sums, A)) == sums
    with pytest.raises(DataError) as caught:
        read_roll(schema, content.replace(b'"k":4', b'"k":2'))
    assert caught.value.code == "shares.signature"
    with pytest.raises(DataError) as caught:
        read_roll(make_schema(k=5, facet=True), content)
    assert caught.value.code == "shares.schema"
    with pytest.raises(DataError) as caught:
        read_sums(schema, content)
    assert caught.value.code == "shares.form"


def test_a_pair_is_of_two() -> None:
    for wrong in ((A.public_key, A.public_key), (A.public_key, b"")):
        with pytest.raises(DataError):
            pair_of(*wrong)
    assert pair_of(B.public_key, A.public_key) == PAIR
    third = Identity(b"c" * 32)
    keys = {A.paired(B.public_key, bytes(32)).public_key, B.paired(A.public_key, bytes(32)).public_key}
    assert len(keys) == 1
    assert third.paired(A.public_key, bytes(32)).public_key not in keys
    assert A.paired(B.public_key, b"1" * 32).public_key not in keys
