"""Schemas: what is refused and how it says so, canonical form, TOML, landmarks."""

from __future__ import annotations

import dataclasses
import json
import struct
import unicodedata
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from outroute.errors import OutrouteError, SchemaError
from outroute.schema import (
    MAX_LANDMARKS,
    MISSING,
    SCALE,
    Distiller,
    Field,
    FieldKind,
    Landmarks,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    canonical,
    decimal_text,
    drawn_landmarks,
    dumps,
    duration_text,
    load,
    loads,
    parse_duration,
    unreviewed,
)

from . import second
from .making import agreed, categorical_field, declared_field, numeric_field, schema_of, schemas

D = Decimal
NUMBER, CLASSES, TWO = OutcomeKind.NUMERIC, OutcomeKind.CATEGORICAL, OutcomeKind.BINARY


def outcome(kind: OutcomeKind = TWO, **given_: Any) -> Outcome:
    base: dict[str, Any] = {"low": D(0), "high": D(1)} if kind is NUMBER else {"classes": ("a", "b")}
    base |= {"name": "y", "kind": kind}
    return Outcome(**(base | given_))


WRONG: list[tuple[str, Callable[[], object]]] = [
    ("schema.text", lambda: numeric_field("")),
    ("schema.text", lambda: numeric_field("x" * 121)),
    ("schema.text", lambda: numeric_field("\u0958" * 30)),  # NFC makes it longer than 120 bytes
    ("schema.text", lambda: numeric_field("a\nb")),
    ("schema.text", lambda: numeric_field("a\x85b")),
    ("schema.text", lambda: numeric_field("\ud800")),
    ("schema.text", lambda: numeric_field(unit="\0")),
    ("schema.text", lambda: categorical_field(categories=("a", ""))),
    ("schema.text", lambda: outcome(name="")),
    ("schema.text", lambda: Privacy(subject="")),
    ("schema.text", lambda: schema_of(name="")),
    ("schema.range", lambda: numeric_field(low=None)),
    ("schema.range", lambda: numeric_field(high=D("NaN"))),
    ("schema.range", lambda: numeric_field(high=D("Infinity"))),
    ("schema.range", lambda: numeric_field(high=D(0))),
    ("schema.range", lambda: numeric_field(low=D(2))),
    ("schema.range", lambda: numeric_field(high=D("1e15") + 1)),
    ("schema.range", lambda: numeric_field(high=D("1.00000000000000001234"))),
    ("schema.range", lambda: numeric_field(high=D("1e-31"))),
    ("schema.range", lambda: numeric_field(low=D("1000000000000000"), high=D("1000000000000000.1"))),
    ("schema.range", lambda: numeric_field(low=D("100000000000000"), high=D("100000000000000.001"))),
    ("schema.range", lambda: outcome(NUMBER, low=None)),
    ("schema.range", lambda: outcome(NUMBER, low=D(1))),
    ("schema.weight", lambda: numeric_field(weight=D("-0.01"))),
    ("schema.weight", lambda: numeric_field(weight=D("10.01"))),
    ("schema.weight", lambda: numeric_field(weight=D("0.001"))),
    ("schema.weight", lambda: numeric_field(weight=D("NaN"))),
    ("schema.weight", lambda: numeric_field(weight=D("Infinity"))),
    ("schema.weight", lambda: schema_of(numeric_field(weight=D(0)), categorical_field("f", facet=True))),
    ("schema.field", lambda: numeric_field(categories=("a", "b"))),
    ("schema.field", lambda: numeric_field(facet=True)),
    ("schema.field", lambda: categorical_field(low=D(0))),
    ("schema.field", lambda: categorical_field(unit="m")),
    ("schema.field", lambda: categorical_field(integer=True)),
    ("schema.categories", lambda: categorical_field(categories=("a",))),
    ("schema.categories", lambda: categorical_field(categories=tuple(map(str, range(101))))),
    ("schema.categories", lambda: categorical_field(categories=("é", "e\u0301"))),
    ("schema.categories", lambda: outcome(classes=("a",))),
    ("schema.categories", lambda: outcome(classes=("a", "a"))),
    ("schema.categories", lambda: outcome(classes=("a", "b", "c"))),
    ("schema.categories", lambda: outcome(CLASSES)),
    ("schema.categories", lambda: outcome(CLASSES, classes=tuple("abcdefghijk"))),
    ("schema.outcome", lambda: outcome(NUMBER, classes=("a", "b"))),
    ("schema.outcome", lambda: outcome(low=D(0))),
    ("schema.outcome", lambda: outcome(unit="m")),
    ("schema.privacy", lambda: Privacy(k=1)),
    ("schema.privacy", lambda: Privacy(k=10_001)),
    ("schema.privacy", lambda: Privacy(distiller=Distiller.SINGLE, k=5)),
    ("schema.number", lambda: Privacy(k=5.0)),  # type: ignore[arg-type]
    ("schema.number", lambda: Privacy(k=True)),
    ("schema.number", lambda: Time(bucket_seconds=86_400.0)),  # type: ignore[arg-type]
    ("schema.number", lambda: Time(lifetime_seconds="1")),  # type: ignore[arg-type]
    ("schema.time", lambda: Time(bucket_seconds=0)),
    ("schema.time", lambda: Time(bucket_seconds=3660 * 86_400 + 1)),
    ("schema.time", lambda: Time(lifetime_seconds=0)),
    ("schema.time", lambda: Time(lifetime_seconds=36_500 * 86_400 + 1)),
    ("schema.fields", lambda: dataclasses.replace(schema_of(), fields=())),
    ("schema.fields", lambda: schema_of(*(numeric_field(f"x{i}") for i in range(117)))),
    ("schema.fields", lambda: schema_of(numeric_field("é"), numeric_field("e\u0301"))),
    ("schema.fields", lambda: schema_of(numeric_field("y"))),
    ("schema.slots", lambda: schema_of(*(categorical_field(f"c{i}") for i in range(39)))),
    ("schema.facets", lambda: schema_of(numeric_field(), *(categorical_field(f"f{i}", facet=True) for i in range(27)))),
    ("schema.parent", lambda: schema_of(parent=b"short")),
    ("schema.landmarks", lambda: schema_of(landmarks=Landmarks(np.zeros((1, 3), np.uint16)))),
    ("schema.landmarks", lambda: schema_of(landmarks=Landmarks(np.zeros((1, 7), np.uint16)))),
    ("schema.landmarks", lambda: schema_of(numeric_field(), landmarks=Landmarks(np.array([[MISSING]], np.uint16)))),
    ("schema.landmarks", lambda: Landmarks(np.zeros(3, np.uint16))),
    ("schema.landmarks", lambda: Landmarks(np.zeros((0, 3), np.uint16))),
    ("schema.landmarks", lambda: Landmarks(np.zeros((1, 0), np.uint16))),
    ("schema.landmarks", lambda: Landmarks(np.zeros((2, 3), np.uint16))),
    ("schema.landmarks", lambda: Landmarks(np.arange(MAX_LANDMARKS + 1, dtype=np.uint16)[:, None])),
    ("schema.landmarks", lambda: Landmarks(np.array([[65_536]]))),
    ("schema.landmarks", lambda: Landmarks(np.array([[-1]]))),
    ("schema.landmarks", lambda: Landmarks(np.array([[0.5]]))),
    ("schema.landmarks", lambda: drawn_landmarks((numeric_field(),), 0)),
    ("schema.landmarks", lambda: drawn_landmarks((numeric_field(),), MAX_LANDMARKS + 1)),
    ("schema.no_field", lambda: schema_of().field("nothing")),
]


@pytest.mark.parametrize(("code", "make"), WRONG)
def test_what_is_wrong_is_refused_by_name(code: str, make: Callable[[], object]) -> None:
    with pytest.raises(SchemaError) as caught:
        make()
    assert caught.value.code == code
    assert isinstance(caught.value, OutrouteError)
    assert len(str(caught.value)) > 10


def test_limits_themselves_are_allowed() -> None:
    assert schema_of(*(numeric_field(f"x{i}") for i in range(116))).width == 116
    assert categorical_field(categories=tuple(map(str, range(100)))).width == 100
    assert numeric_field("x" * 120, low=D("-1e15"), high=D("1e15"), weight=D(10)).width == 1
    assert numeric_field(low=D(0), high=D("1e-30"), weight=D("0.01")).high == D("1e-30")
    assert Time(bucket_seconds=np.int64(5), lifetime_seconds=1).bucket(-1) == -5  # type: ignore[arg-type]


def test_a_wrong_name_gets_a_hint() -> None:
    schema = schema_of(numeric_field("pressure"))
    assert schema.field("pressure") is schema.fields[0]
    with pytest.raises(SchemaError, match="did you mean pressure"):
        schema.field("presure")


# Canonical form


@settings(max_examples=60, deadline=None)
@given(schemas())
def test_canonical_form_against_the_second_implementation(schema: Schema) -> None:
    other = agreed(schema)
    assert canonical(schema) == other.canonical
    assert schema.id == other.id
    assert schema.slot_weights.tolist() == other.weights
    assert schema.landmarks.to_bytes() == other.artefact
    assert unicodedata.is_normalized("NFC", canonical(schema).decode())
    assert json.loads(canonical(schema))["version"] == 1


@given(st.decimals(allow_nan=False, allow_infinity=False, places=10, min_value=-(10**6), max_value=10**6))
def test_decimals_have_one_text(value: Decimal) -> None:
    said = decimal_text(value)
    assert D(said) == value
    assert said == second.decimal(str(value)) == decimal_text(D(said + ("000" if "." in said else ".000")))
    assert "E" not in said


def test_the_id_does_not_depend_on_the_decimal_context() -> None:
    schema = schema_of(numeric_field(low=D("0.12345678901234567")))
    with localcontext() as context:
        context.prec = 40
        assert schema_of(numeric_field(low=D("0.12345678901234567"))).id == schema.id


def test_what_the_id_depends_on() -> None:
    x = numeric_field(unit="m", description="one")
    c = categorical_field()
    base = schema_of(x, c)
    marks = base.landmarks
    o = base.outcome

    def with_field(**new: Any) -> Schema:
        return schema_of(dataclasses.replace(x, **new), c, landmarks=marks)

    same = [
        schema_of(x, c),
        with_field(description="another"),
        with_field(weight=D("1.00")),
        with_field(high=D("1.0")),
        schema_of(x, c, outcome=dataclasses.replace(o, description="new")),
    ]
    assert {s.id for s in same} == {base.id}
    assert {hash(s) for s in same} == {hash(base)}
    other = [
        with_field(unit="km"),
        with_field(weight=D("1.01")),
        with_field(high=D(2)),
        with_field(integer=True),
        with_field(action=True),
        with_field(name="z"),
        schema_of(c, x),
        schema_of(x, categorical_field(categories=("b", "a", "c")), landmarks=marks),
        schema_of(x, categorical_field(facet=True), landmarks=marks),
        schema_of(x, c, name="other"),
        schema_of(x, c, parent=b"p" * 32),
        schema_of(x, c, privacy=Privacy(k=6)),
        schema_of(x, c, privacy=Privacy(k=5, subject="flight")),
        schema_of(x, c, time=Time(bucket_seconds=86_401, lifetime_seconds=30 * 86_400)),
        schema_of(x, c, time=Time(bucket_seconds=86_400, lifetime_seconds=30 * 86_400 + 1)),
        schema_of(x, c, outcome=dataclasses.replace(o, classes=("yes", "no"))),
        schema_of(x, c, outcome=dataclasses.replace(o, name="z")),
        schema_of(x, c, landmarks=Landmarks(marks.codes[::-1])),
    ]
    assert len({s.id for s in other} | {base.id}) == len(other) + 1


def test_a_role_stands_in_the_canonical_form_of_actions_only() -> None:
    x = numeric_field()
    plain = canonical(schema_of(x))
    acting = canonical(schema_of(dataclasses.replace(x, action=True)))
    assert b"role" not in plain
    assert json.loads(acting)["fields"] == [json.loads(plain)["fields"][0] | {"role": "action"}]


def test_the_role_of_a_field_is_read_and_written() -> None:
    plain = loads(GOOD)
    assert loads(GOOD.replace("low = 0", "low = 0\nrole = 'condition'", 1)).id == plain.id
    acting = loads(GOOD.replace("low = 0", "low = 0\nrole = 'action'", 1))
    assert [f.action for f in acting.fields] == [True] + [False] * (len(acting.fields) - 1)
    assert loads(dumps(acting)) == acting


def test_text_is_nfc_whatever_was_written() -> None:
    composed, apart = numeric_field("é", unit="Å"), numeric_field("e\u0301", unit="\u212b")
    assert composed == apart
    assert schema_of(composed).id == schema_of(apart).id
    assert schema_of(composed, name="é").id == schema_of(apart, name="e\u0301").id


# TOML


@settings(max_examples=80, deadline=None)
@given(schemas())
def test_toml_round_trip(schema: Schema) -> None:
    back = loads(dumps(schema))
    assert back == schema
    assert back.id == schema.id
    assert [f.description for f in back.fields] == [f.description for f in schema.fields]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20))
def test_any_name_survives_toml(name: str) -> None:
    assume(name != "y")  # the outcome's
    field = categorical_field(name, categories=(name, "other"), description=name + "\n\t\x01")
    schema = schema_of(numeric_field("x", unit=name), field) if name != "x" else schema_of(field)
    back = loads(dumps(schema, unreviewed=frozenset({field.name})))
    assert back.id == schema.id
    assert back.field(field.name).description == field.description


def test_a_drawn_schema_with_few_points_can_be_written() -> None:
    """The draw gives up where there are few different points; what it gave must be found again."""
    for cut in range(2, 40):
        own = (categorical_field(categories=tuple(map(str, range(cut)))),)
        schema = schema_of(*own, landmarks=drawn_landmarks(own, 64))
        assert loads(dumps(schema)).id == schema.id
    marks = drawn_landmarks((categorical_field(),), 64).codes
    assert sorted(marks.tolist()) == [[0, 0, SCALE], [0, SCALE, 0], [SCALE, 0, 0]]
    # Fields whose last point comes after exactly 255 and 256 known ones in a row: found, and given up.
    for name, count in (("c18354", 60), ("c4210", 59)):
        field = categorical_field(name, categories=tuple(map(str, range(60))))
        drawn = drawn_landmarks((field,), 64).codes.tolist()
        assert len(drawn) == count
        assert drawn == second.draw([second.tidy_field(declared_field(field))], 64)
    many = drawn_landmarks((numeric_field(),), 64).codes
    assert (drawn_landmarks((numeric_field(),), 10).codes == many[:10]).all()


@given(st.integers(1, 36_500 * 86_400))
def test_durations(seconds: int) -> None:
    assert parse_duration(duration_text(seconds)) == seconds


GOOD = """
name = "t"
[outcome]
name = "y"
kind = "binary"
classes = ["no", "yes"]
[fields.x]
kind = "numeric"
low = 0
high = 1.5
[landmarks]
count = 3
"""


def test_defaults() -> None:
    schema = loads(GOOD)
    assert schema.privacy == Privacy()
    assert schema.time == Time()
    assert len(schema.landmarks) == 3
    assert schema.fields[0].weight == 1
    assert schema.fields[0].high == D("1.5")


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ("name", "= =", "schema.toml", "not valid TOML"),
        ('name = "t"', "", "schema.toml", "needs 'name'"),
        ('name = "t"', "name = 1", "schema.toml", "right type"),
        ('name = "t"', 'name = "t"\nnmae = "t"', "schema.toml", "does not know 'nmae'"),
        ('name = "t"', 'name = "t"\nparent = "xy"', "schema.parent", "hex"),
        ('name = "t"', 'name = "t"\nparent = "ab"', "schema.parent", "32 bytes"),
        ('name = "t"', 'name = "t"\nfields = 3', "schema.toml", "not valid TOML"),
        ('name = "t"', 'name = "t"\nprivacy = 3', "schema.toml", "right type"),
        ('name = "t"', f"name = {'[' * 3000}", "schema.toml", "not valid TOML"),
        ("[fields.x]", "[fields]\ny = 3\n[fields.x]", "schema.toml", "must be a table"),
        ('kind = "numeric"', 'kind = "number"', "schema.toml", "not one of numeric, categorical"),
        ('kind = "binary"', 'kind = "yesno"', "schema.toml", "not one of binary"),
        ('classes = ["no", "yes"]', 'classes = ["no", 1]', "schema.toml", "list of texts"),
        ('classes = ["no", "yes"]', 'classes = "no"', "schema.toml", "right type"),
        ("low = 0", 'low = "zero"', "schema.number", "not a number"),
        ("low = 0", "low = true", "schema.number", "not a number"),
        ("low = 0", "low = -inf", "schema.range", "finite"),
        ("low = 0", "low = 0\nwieght = 1", "schema.toml", "does not know 'wieght'"),
        ("low = 0", "low = 0\nfacet = 1", "schema.toml", "right type"),
        ("low = 0", "low = 0\nrole = 'outcome'", "schema.toml", "neither 'condition' nor 'action'"),
        ("low = 0", "low = 0\nrole = true", "schema.toml", "right type"),
        ("high = 1.5", "high = 1e9999999999999999999", "schema.toml", "not valid TOML"),
        ("high = 1.5", "high = " + "9" * 5000, "schema.toml", "not valid TOML"),
        ("high = 1.5", "", "schema.range", "both low and high"),
        ("count = 3", "count = true", "schema.toml", "right type"),
        ("count = 3", "count = 0", "schema.landmarks", "between 1 and"),
        ("count = 3", 'kind = "guessed"', "schema.toml", "none of 'drawn', 'grid' and 'learnt'"),
        ("count = 3", 'kind = "learnt"\nfile = "a"', "schema.toml", "needs 'id'"),
        ("count = 3", 'kind = "learnt"\nfile = "a"\nid = "b"', "schema.landmarks", "is needed"),
        ("count = 3", "count = 3\n[time]\nbucket = '1 fortnight'", "schema.time", "not a duration"),
        ("count = 3", "count = 3\n[privacy]\nk = 1", "schema.privacy", "between 2 and"),
        ("count = 3", "count = 3\n[privacy]\ndistiller = 'none'", "schema.toml", "not one of cohort, single"),
    ],
)
def test_toml_says_what_is_wrong(old: str, new: str, code: str, says: str) -> None:
    assert GOOD.count(old) >= 1
    with pytest.raises(SchemaError, match=says) as caught:
        loads(GOOD.replace(old, new, 1))
    assert caught.value.code == code


def test_toml_too_long() -> None:
    with pytest.raises(SchemaError, match="1 MB"):
        loads("#" * 1_000_001)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_toml_is_an_error_of_ours_or_a_schema(data: st.DataObject) -> None:
    text = dumps(schema_of())
    at = data.draw(st.integers(0, len(text) - 1))
    cut = data.draw(st.integers(0, 20))
    put = data.draw(st.text(max_size=5))
    try:
        made = loads(text[:at] + put + text[at + cut :])
    except SchemaError:
        return
    assert loads(dumps(made)).id == made.id


# Files


def learnt() -> Schema:
    return schema_of(numeric_field(), landmarks=Landmarks(np.array([[5], [9], [70]], np.uint16)))


def test_files(tmp_path: Path) -> None:
    schema = learnt()
    (tmp_path / "s.marks").write_bytes(schema.landmarks.to_bytes())
    path = tmp_path / "s.toml"
    with pytest.raises(SchemaError, match="name the file"):
        dumps(schema)
    text = dumps(schema, landmarks_file="s.marks", unreviewed=frozenset({"x", "y"}))
    path.write_text(text, encoding="utf-8")
    assert load(path).id == load(str(path)).id == schema.id
    assert unreviewed(path) == ("x", "y")
    (tmp_path / "s.marks").write_bytes(Landmarks(np.array([[5]], np.uint16)).to_bytes())
    with pytest.raises(SchemaError, match=f"s.toml: .*get the file with id {schema.landmarks.id.hex()}"):
        load(path)
    for name in ("../s.marks", "/s.marks", "gone", "", "..", "\0"):
        path.write_text(text.replace('"s.marks"', json.dumps(name)), encoding="utf-8")
        with pytest.raises(SchemaError) as caught:
            load(path)
        assert caught.value.code in ("schema.file", "schema.landmarks")


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    for content in (None, b"\xff\xfe", b"#" * 1_000_001, b"a = = 1"):
        if content is not None:
            path.write_bytes(content)
        for read in (load, unreviewed):
            with pytest.raises(SchemaError):
                read(path)
    with pytest.raises(SchemaError):
        load(tmp_path)
    path.write_text("fields = 3\noutcome = 4", encoding="utf-8")
    assert unreviewed(path) == ()


# Landmark artefacts


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32))
def test_landmarks_round_trip(count: int, width: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, SCALE, (count, width), dtype=np.uint16)
    codes[:, 0] = np.arange(count)
    marks = Landmarks(codes)
    assert Landmarks.from_bytes(marks.to_bytes()) == marks
    assert hash(Landmarks.from_bytes(marks.to_bytes())) == hash(marks)
    assert marks.to_bytes() == struct.pack("<4sHHI", b"ORLM", 1, width, count) + codes.tobytes()
    assert not marks.codes.flags.writeable
    codes[0, 0] = 9
    assert marks.codes[0, 0] == 0, "a copy"


def test_wrong_landmark_files() -> None:
    good = learnt().landmarks.to_bytes()
    bad = [good[:n] for n in range(len(good))]
    bad += [good + b"\0", b"ORLX" + good[4:], good[:4] + b"\2" + good[5:], good[:6] + b"\0\0" + good[8:]]
    bad += [good[:8] + bytes(4), good[:8] + b"\xff" * 4 + good[12:], good[:14] + good[12:14] + good[16:]]
    for data in bad:
        with pytest.raises(SchemaError) as caught:
            Landmarks.from_bytes(data)
        assert caught.value.code == "schema.landmarks"


def test_learnt_landmarks_are_checked_against_the_fields() -> None:
    own = (categorical_field("f", facet=True), numeric_field())
    for row in ([1, SCALE - 1, 0, 5], [SCALE, 1, 0, 5], [MISSING, MISSING, MISSING, 5]):
        with pytest.raises(SchemaError, match="landmark holds a code"):
            schema_of(*own, landmarks=Landmarks(np.array([row], np.uint16)))
    assert schema_of(*own, landmarks=Landmarks(np.array([[0, SCALE, 0, 5]], np.uint16))).width == 4


def test_fields_are_values() -> None:
    made = Field(name="x", kind=FieldKind.NUMERIC, low=D(0), high=D(1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "y"  # type: ignore[misc]
