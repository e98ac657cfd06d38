"""Packets as people read them: every byte is accounted for, and what stands beside it is what the packet says."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.making import ALICE, packets_of, schemas
from outroute.cli import _readable
from outroute.packet import Packet, PacketArray, agreeing, build, identities, sign, withdraw
from outroute.schema import (
    Distiller,
    Field,
    FieldKind,
    Outcome,
    OutcomeKind,
    Schema,
    drawn_landmarks,
    encode,
    loads,
)
from outroute.store import Queued

from .conftest import SCHEMA

#: Columns before the conditions.
LEADING = 9

seeds = st.integers(0, 2**32 - 1)


def queued(packets: PacketArray) -> Queued:
    n = len(packets)
    names = tuple(identities(packets))
    return Queued(
        ids=np.arange(1, n + 1, dtype=np.int64),
        packets=packets,
        addresses=(bytes(32),) * n,
        states=np.full(n, 4, dtype=np.uint8),
        kinds=np.zeros(n, dtype=np.uint8),
        withdraws=np.full(n, -1, dtype=np.int64),
        digests=names,
        identities=names,
    )


@settings(max_examples=60, deadline=None)
@given(schemas(), seeds)
def test_side_by_side_shows_every_byte_once_and_in_order(schema: Schema, seed: int) -> None:
    packets = packets_of(schema, np.random.default_rng(seed), 3)
    for shown in (packets, withdraw(packets, ALICE)):
        for i in range(len(shown)):
            parts = _readable.parts_of(schema, shown[i : i + 1])
            assert b"".join(part.data for part in parts) == shown[i].tobytes()
            assert [part.first for part in parts] == np.cumsum([0, *(len(p.data) for p in parts[:-1])]).tolist()
            assert all(part.says for part in parts)


@settings(max_examples=60, deadline=None)
@given(schemas(), seeds)
def test_readable_and_machine_readable_forms_say_the_same(schema: Schema, seed: int) -> None:
    packets = packets_of(schema, np.random.default_rng(seed), 4)
    head, *rows = csv.reader(io.StringIO(_readable.table_csv(schema, queued(packets)), newline=""))
    assert len(rows) == len(packets)
    for i, line in enumerate(rows):
        assert len(line) == len(head)
        row, cells = dict(zip(head[:LEADING], line, strict=False)), line[LEADING:]
        view = _readable.record(schema, queued(packets), i)
        said = Packet(packets[i].tobytes()).describe(schema)
        assert (int(row["observations"]), int(row["subjects"])) == (said["size"], said["subjects"])
        assert (view["observations"], view["subjects"]) == (said["size"], said["subjects"])
        assert row["digest"] == view["digest"]
        assert (row["outcomes_agree"] == "yes") == view["outcomes_agree"]
        assert (row["observed_from"], row["expires"]) == (view["observed_from"], view["expires"])
        for field, cell in zip(schema.fields, cells, strict=False):
            _same(field, cell, said["conditions"][field.name])
        if schema.outcome.has_classes:
            assert [int(cell) for cell in cells[len(schema.fields) :]] == list(said["outcome"].values())


def _same(field: Field, cell: str, value: Any) -> None:
    if value is None:
        assert cell == "missing"
    elif field.kind is FieldKind.NUMERIC:
        assert field.low is not None
        assert field.high is not None
        assert abs(float(cell) - value) <= max(float(field.high - field.low) / 999, 1e-6)
    else:
        shown = dict(part.rsplit(" ", 1) for part in cell.split(", "))
        assert shown == {name: f"{share:.0%}" for name, share in value.items()}


WARD = loads(SCHEMA)
LENGTH = replace(
    WARD,
    outcome=Outcome(name="stay", kind=OutcomeKind.NUMERIC, low=Decimal(0), high=Decimal(30), unit="days"),
)


def cohorts(schema: Schema, **outcome: Any) -> PacketArray:
    """Two packets of five members each at the same place."""
    given = {"age": [40, 50], "sex": ["f", "m"], "crp": [10, 20]}
    packets = build(
        schema,
        author=ALICE.public_key,
        sequence=np.arange(2, dtype=np.uint64),
        codes=encode(schema, given).codes,
        size=np.array([5, 5]),
        subjects=np.array([5, 5]),
        bucket=np.zeros(2, dtype=np.int64),
        distiller=Distiller.COHORT,
        **outcome,
    )
    sign(packets, ALICE)
    return packets


def test_cohorts_whose_outcomes_all_agree_are_found() -> None:
    classes = cohorts(WARD, counts=np.array([[0, 5], [2, 3]]))
    numbers = cohorts(LENGTH, mean=np.array([4.0, 4.0]), variance=np.array([0.0, 2.0]))
    for schema, packets in ((WARD, classes), (LENGTH, numbers)):
        assert agreeing(schema, packets).tolist() == [True, False]
    assert _readable.record(WARD, queued(classes), 0)["readable"]["sick"] == "no 0, yes 5"
    assert _readable.record(LENGTH, queued(numbers), 1)["readable"]["stay"] == (
        "mean 4.00 days, standard deviation 1.41 days"
    )


def test_no_name_of_a_schema_becomes_a_formula_of_a_spreadsheet() -> None:
    evil = Field(name="=1+1", kind=FieldKind.CATEGORICAL, categories=("=cmd", "@x"))
    fields = (*WARD.fields, evil)
    schema = replace(WARD, fields=fields, landmarks=drawn_landmarks(fields, 4))
    packets = packets_of(schema, np.random.default_rng(1), 40)
    cells = [cell for line in csv.reader(io.StringIO(_readable.table_csv(schema, queued(packets)))) for cell in line]
    assert any("=cmd" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_an_erased_packet_says_that_nothing_is_left_of_it() -> None:
    packets = cohorts(WARD, counts=np.array([[0, 5], [2, 3]]))
    for name in ("size", "weight", "fingerprint", "outcome", "conditions", "commitment", "signature"):
        packets[name][0] = 0
    view = _readable.record(WARD, queued(packets), 0)
    assert view["kind"] == "erased"
    assert "conditions" not in view
    assert not [part for part in _readable.parts_of(WARD, packets[:1]) if "years" in part.says]
