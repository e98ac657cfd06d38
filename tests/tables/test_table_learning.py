from __future__ import annotations

import numpy as np
import pytest

from outroute.errors import DataError, PrivacyError
from outroute.fingerprint import cells
from outroute.identity import Identity
from outroute.packet import PacketArray, build, sign
from outroute.schema import (
    MISSING,
    SCALE,
    Distiller,
    Schema,
    codes_problem,
    drawn_landmarks,
    encode,
    loads,
)
from outroute.tables.learning import learn_from_codes, learn_from_packets, learn_from_table, with_landmarks
from outroute.tables.reading import read_table

SCHEMA = """
name = "ward"
[outcome]
name = "ill"
kind = "binary"
classes = ["no", "yes"]
[fields.age]
kind = "numeric"
low = 0
high = 100
[fields.dose]
kind = "numeric"
low = 0
high = 1
weight = 0
[fields.sex]
kind = "categorical"
categories = ["f", "m"]
[fields.unit]
kind = "categorical"
categories = ["a", "b", "c"]
facet = true
"""
NOW = 1_700_000_000


@pytest.fixture
def schema() -> Schema:
    return loads(SCHEMA)


def columns(n: int = 600) -> dict[str, object]:
    rng = np.random.default_rng(7)
    age = np.where(rng.random(n) < 0.5, rng.normal(25, 2, n), rng.normal(75, 2, n))
    return {
        "age": np.where(rng.random(n) < 0.1, np.nan, age),
        "dose": rng.random(n),
        "sex": rng.choice(["f", "m", None], n),
        "unit": rng.choice(["a", "b", "c"], n),
    }


def packets(schema: Schema, n: int = 40, now: int = NOW) -> PacketArray:
    rng = np.random.default_rng(8)
    author = Identity(bytes(32))
    bucket = np.full(n, schema.time.bucket(now - schema.time.bucket_seconds), dtype=np.int64)
    rows = {"age": rng.uniform(0, 100, n), "dose": rng.random(n), "sex": rng.choice(["f", "m"], n), "unit": ["a"] * n}
    made = build(
        schema,
        author=author.public_key,
        sequence=np.arange(n, dtype=np.uint64),
        codes=encode(schema, rows).codes,
        size=np.full(n, 5),
        subjects=np.full(n, 5),
        bucket=bucket,
        distiller=Distiller.COHORT,
        counts=np.tile([2, 3], (n, 1)),
    )
    sign(made, author)
    return made


def test_landmarks_of_a_public_table_are_valid_and_reproducible(schema: Schema) -> None:
    table = read_table(columns())
    learnt = learn_from_table(schema, table, public=True, count=24)
    assert len(learnt.landmarks) == 24
    assert (learnt.rows, learnt.refused) == (600, 0)
    codes = learnt.landmarks.codes
    assert not codes_problem(schema, codes).any()
    assert not (codes == MISSING).any()
    facet = codes[:, schema.slots["unit"]]
    assert (facet.max(axis=1) == SCALE).all()
    assert learn_from_table(schema, table, public=True, count=24).landmarks == learnt.landmarks
    assert learn_from_table(schema, table, public=True, count=24, seed=1).landmarks != learnt.landmarks


def test_learnt_landmarks_lie_nearer_than_drawn_ones(schema: Schema) -> None:
    encoded = encode(schema, columns()).codes
    present = encoded[(encoded != MISSING).all(axis=1)]
    learnt = learn_from_codes(schema, encoded, count=32)
    made = with_landmarks(schema, learnt.landmarks, successor=False)
    plain = with_landmarks(schema, drawn_landmarks(schema.fields, 32), successor=False)

    def distance(which: Schema) -> float:
        near = which.landmarks.codes[cells(which, present)[:, 0]].astype(np.float64)
        return float((((near - present) / SCALE) ** 2 * which.slot_weights).sum(axis=1).mean())

    assert distance(made) < 0.7 * distance(plain)
    assert 0 <= learnt.error < 0.5


def test_a_private_table_is_refused_with_the_ways_out(schema: Schema) -> None:
    with pytest.raises(PrivacyError, match=r"--public.*--packets FILE.*drawn") as caught:
        learn_from_table(schema, read_table(columns()), public=False)
    assert caught.value.code == "privacy.landmarks"


def test_rows_that_do_not_fit_the_schema_are_counted(schema: Schema) -> None:
    bad = columns()
    np.asarray(bad["age"])[:20] = 500.0
    assert learn_from_table(schema, read_table(bad), public=True, count=8).refused == 20


def test_more_landmarks_than_conditions(schema: Schema) -> None:
    small = {name: list(np.asarray(value)[:10]) for name, value in columns().items()}
    with pytest.raises(DataError, match="only 10 different") as caught:
        learn_from_table(schema, read_table(small), public=True, count=64)
    assert caught.value.code == "data.landmarks"
    with pytest.raises(DataError, match="between 1 and"):
        learn_from_table(schema, read_table(columns()), public=True, count=0)


def test_packets_teach_landmarks(schema: Schema) -> None:
    made = packets(schema)
    learnt = learn_from_packets(schema, made.tobytes(), now=NOW, count=8)
    assert (learnt.rows, learnt.refused) == (40, 0)
    assert not codes_problem(schema, learnt.landmarks.codes).any()
    successor = with_landmarks(schema, learnt.landmarks, successor=True)
    assert successor.parent == schema.id
    assert successor.id != schema.id


def test_packets_that_are_not_accepted_teach_nothing(schema: Schema) -> None:
    made = packets(schema)
    made["signature"][:5] ^= 1
    data = made.tobytes() + b"torn"
    learnt = learn_from_packets(schema, data, now=NOW, count=8)
    assert (learnt.rows, learnt.refused) == (35, 6)
    with pytest.raises(DataError, match="40 of another schema") as caught:
        learn_from_packets(loads(SCHEMA.replace("ward", "other")), made.tobytes(), now=NOW)
    assert caught.value.code == "data.packets"
    with pytest.raises(DataError, match="file is empty"):
        learn_from_packets(schema, b"", now=NOW)
    with pytest.raises(DataError, match="No packet"):
        learn_from_packets(schema, b"\xff" * 512 * 3, now=NOW)
