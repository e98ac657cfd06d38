"""Fingerprints, cells and addresses are exact: floats hold the integers."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outroute.fingerprint import ADDRESS_BYTES, SKETCH_BITS, address, cells, sketch
from outroute.schema import MAX_SLOTS, MISSING, SCALE, Landmarks, Schema, facet_index

from . import second
from .making import agreed, categorical_field, codes_of, declared, numeric_field, schema_of, schemas


def agree(schema: Schema, other: second.Agreed, codes: NDArray[np.uint16]) -> None:
    count = len(schema.landmarks)
    prints, near, facet = sketch(schema, codes), cells(schema, codes, count), facet_index(schema, codes)
    assert prints.shape == (len(codes), SKETCH_BITS // 8)
    assert (cells(schema, codes)[:, 0] == near[:, 0]).all()
    for row, print_, order, number in zip(codes.tolist(), prints, near.tolist(), facet.tolist(), strict=True):
        assert print_.tobytes() == second.fingerprint(other, row)
        assert order == second.nearest(other, row, count)
        assert number == second.facet_number(other, row)
        secret = bytes([row[0] % 256])
        assert address(schema, number, order[0], secret) == second.address(other, number, order[0], secret)


@settings(max_examples=60, deadline=None)
@given(schemas(), st.integers(0, 2**32))
def test_random_schemas(schema: Schema, seed: int) -> None:
    codes = np.vstack([codes_of(schema, np.random.default_rng(seed), 6), schema.landmarks.codes])
    agree(schema, agreed(schema), codes)


def test_extreme_codes_and_weights() -> None:
    """116 slots, the largest weight, codes at both ends: sums come as close to 2^53 as they can."""
    own = tuple(numeric_field(f"x{i}", weight=Decimal(10)) for i in range(MAX_SLOTS))
    marks = np.zeros((6, MAX_SLOTS), dtype=np.uint16)
    marks[1] = SCALE
    marks[2], marks[2, 0] = SCALE, SCALE - 1
    marks[3, 0] = 1
    marks[4], marks[4, 115] = SCALE, SCALE - 1
    marks[5, ::2] = SCALE
    schema = schema_of(*own, landmarks=Landmarks(marks))
    other = second.Agreed(declared(schema) | {"landmarks": {"codes": marks.tolist()}})
    assert other.id == schema.id
    codes = np.vstack(
        [marks, np.full((1, MAX_SLOTS), MISSING, dtype=np.uint16), codes_of(schema, np.random.default_rng(0), 20)]
    )
    agree(schema, other, codes)
    largest = max(second.distance(other, row, mark) for row in codes.tolist() for mark in marks.tolist())
    assert 10**14 < largest < 2**53


def test_ties_go_to_the_lowest_index() -> None:
    marks = np.array([[100], [300], [200], [0]], dtype=np.uint16)
    schema = schema_of(numeric_field(), landmarks=Landmarks(marks))
    codes = np.array([[200], [150], [250], [50], [MISSING]], dtype=np.uint16)
    assert cells(schema, codes, 4).tolist() == [[2, 0, 1, 3], [0, 2, 1, 3], [1, 2, 0, 3], [0, 3, 2, 1], [0, 1, 2, 3]]
    assert cells(schema, codes, 99).shape == (5, 4)


def test_differences_of_one_decide() -> None:
    """Two landmarks whose distances differ by the least that there is."""
    own = tuple(numeric_field(f"x{i}", weight=Decimal("9.99" if i else "0.01")) for i in range(MAX_SLOTS))
    marks = np.full((2, MAX_SLOTS), SCALE, dtype=np.uint16)
    marks[1, 0] = SCALE - 1
    schema = schema_of(*own, landmarks=Landmarks(marks))
    codes = np.zeros((2, MAX_SLOTS), dtype=np.uint16)
    codes[1, 0] = SCALE
    assert cells(schema, codes)[:, 0].tolist() == [1, 0]


def test_missing_says_nothing() -> None:
    schema = schema_of()
    nothing = np.full((1, schema.width), MISSING, dtype=np.uint16)
    assert not sketch(schema, nothing).any()
    assert cells(schema, nothing).tolist() == [[0]]


def test_many_rows_equal_one_by_one() -> None:
    schema = schema_of()
    codes = codes_of(schema, np.random.default_rng(0), 4100)
    prints, near = sketch(schema, codes), cells(schema, codes, 3)
    for at in (0, 1, 4095, 4096, 4099):
        assert (sketch(schema, codes[at : at + 1])[0] == prints[at]).all()
        assert (cells(schema, codes[at : at + 1], 3)[0] == near[at]).all()
    assert sketch(schema, codes[:0]).shape == (0, 32)
    assert cells(schema, codes[:0]).shape == (0, 1)


def test_similar_conditions_have_similar_fingerprints() -> None:
    schema = schema_of(*(numeric_field(f"x{i}") for i in range(20)))
    codes = codes_of(schema, np.random.default_rng(3), 40)
    codes[codes == MISSING] = 30_000
    near = np.clip(codes.astype(np.int64) + np.random.default_rng(4).integers(-500, 500, codes.shape), 0, SCALE)
    prints, close = sketch(schema, codes), sketch(schema, near.astype(np.uint16))
    own = np.unpackbits(prints ^ close, axis=1).sum(axis=1)
    others = np.unpackbits(prints ^ np.roll(close, 1, axis=0), axis=1).sum(axis=1)
    assert own.max() < 20 < 60 < others.min()


def test_addresses_part_what_must_be_apart() -> None:
    own = (
        numeric_field(),
        categorical_field("f", facet=True),
        categorical_field("g", categories=("a", "b"), facet=True),
    )
    schema, other = schema_of(*own), schema_of(*own, name="another")
    made = {
        address(s, facet, cell, secret)
        for s in (schema, other)
        for facet in (0, 1)
        for cell in (0, 1)
        for secret in (b"", b"secret")
    }
    assert len(made) == 16
    assert {len(a) for a in made} == {ADDRESS_BYTES}
    rows = []
    for f in (*np.eye(3, dtype=int) * SCALE, [MISSING] * 3):
        rows += [[5, *f, *g] for g in (*np.eye(2, dtype=int) * SCALE, [MISSING] * 2)]
    assert facet_index(schema, np.array(rows, dtype=np.uint16)).tolist() == list(range(12))
    assert facet_index(schema_of(numeric_field()), np.array([[3]], dtype=np.uint16)).tolist() == [0]


@pytest.mark.parametrize("weight", ["0.01", "10"])
def test_half_way_is_a_tie_for_shares_too(weight: str) -> None:
    marks = np.array([[SCALE, 0, 0], [0, SCALE, 0]], dtype=np.uint16)
    schema = schema_of(categorical_field(weight=Decimal(weight)), landmarks=Landmarks(marks))
    half = SCALE // 2
    codes = np.array([[half, half, 0], [half - 1, half + 1, 0], [0, 0, SCALE]], dtype=np.uint16)
    assert cells(schema, codes)[:, 0].tolist() == [0, 1, 0]
