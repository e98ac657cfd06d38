"""Organisations named in a schema, their signatures, and the quorum without which a schema does not count."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import SchemaError
from outroute.identity import Identity, Purpose
from outroute.schema import (
    MAX_ORGANISATIONS,
    Schema,
    SchemaSignature,
    canonical,
    dumps,
    load,
    load_signatures,
    loads,
    read_signatures,
    require_signed,
    sign_schema,
    signatures_file,
    unit_scale,
    verify_signatures,
    write_signatures,
)

from .making import schema_of, schemas

ORGANISATIONS = tuple(Identity(bytes([40 + n]) * 32) for n in range(4))
KEYS = tuple(sorted(one.public_key for one in ORGANISATIONS[:3]))


def agreed_schema(quorum: int = 2, **given_: Any) -> Schema:
    return schema_of(organisations=KEYS, quorum=quorum, **given_)


def test_without_organisations_nothing_changes() -> None:
    plain = schema_of()
    assert "organisations" not in json.loads(canonical(plain))
    assert plain.id.hex() == "6d8e38a90b62a668c89c62759a5f4ecb5876c15a2fbe39baa169859b96a15c81"
    assert "[agreement]" not in dumps(plain)
    assert verify_signatures(plain, ()).quorum_reached


def test_they_are_part_of_the_id_in_any_order() -> None:
    schema = agreed_schema()
    found = json.loads(canonical(schema))
    assert found["organisations"] == [key.hex() for key in KEYS]
    assert found["quorum"] == 2
    assert schema.id == schema_of(organisations=KEYS[::-1], quorum=2).id
    assert len({schema.id, agreed_schema(3).id, schema_of(organisations=KEYS[:2], quorum=2).id, schema_of().id}) == 4


@settings(deadline=None)
@given(schemas(), st.integers(1, 4), st.data())
def test_toml_round_trip(base: Schema, count: int, data: st.DataObject) -> None:
    keys = tuple(one.public_key for one in ORGANISATIONS[:count])
    quorum = data.draw(st.integers(1, count))
    values = {name: getattr(base, name) for name in ("name", "fields", "outcome", "privacy", "time", "landmarks")}
    schema = Schema(**values, parent=base.parent, organisations=keys, quorum=quorum)
    again = loads(dumps(schema))
    assert again == schema
    assert again.id == schema.id != base.id


@pytest.mark.parametrize(
    ("keys", "quorum", "code"),
    [
        ((b"short",), 1, "schema.organisations"),
        ((KEYS[0], KEYS[0]), 1, "schema.organisations"),
        (tuple(bytes([n]) * 32 for n in range(MAX_ORGANISATIONS + 1)), 1, "schema.organisations"),
        (KEYS, 0, "schema.quorum"),
        (KEYS, 4, "schema.quorum"),
        ((), 1, "schema.quorum"),
        (KEYS, True, "schema.number"),
    ],
)
def test_wrong_agreements(keys: tuple[bytes, ...], quorum: int, code: str) -> None:
    with pytest.raises(SchemaError) as caught:
        schema_of(organisations=keys, quorum=quorum)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("quorum = 1", "needs 'organisations'"),
        (f'organisations = ["{KEYS[0].hex()}"]', "needs 'quorum'"),
        ('organisations = ["abc"]\nquorum = 1', "not a public key of 64 hex digits"),
        ("organisations = [1]\nquorum = 1", "list of texts"),
        (f'organisations = ["{KEYS[0].hex()}"]\nquorum = "1"', "right type"),
        (f'organisations = ["{KEYS[0].hex()}"]\nquorum = 1\nquorums = 1', "does not know 'quorums'"),
    ],
)
def test_wrong_agreements_in_toml(lines: str, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        loads(f"{dumps(schema_of())}\n[agreement]\n{lines}\n")


def test_a_quorum_counts_different_named_signers_of_this_schema() -> None:
    schema = agreed_schema()
    a, b = (sign_schema(schema, one) for one in ORGANISATIONS[:2])
    stranger = SchemaSignature(
        schema=schema.id,
        organisation=ORGANISATIONS[3].public_key,
        signature=ORGANISATIONS[3].sign(Purpose.SCHEMA, schema.id),
    )
    forged = SchemaSignature(schema=schema.id, organisation=ORGANISATIONS[2].public_key, signature=a.signature)
    elsewhere = sign_schema(agreed_schema(3), ORGANISATIONS[2])
    one = verify_signatures(schema, [a, a, a, stranger, forged, elsewhere])
    assert one.valid == (a.organisation,)
    assert one.foreign == (stranger.organisation,)
    assert one.bad == (forged.organisation,)
    assert one.others == 1
    assert set(one.missing) == {x.public_key for x in ORGANISATIONS[1:3]}
    assert not one.quorum_reached
    both = verify_signatures(schema, [forged, b, stranger, a])
    assert both.valid == tuple(sorted((a.organisation, b.organisation)))
    assert both.quorum_reached
    assert verify_signatures(schema, [a, b]) == verify_signatures(schema, [b, a, b])


def test_a_signature_for_another_purpose_or_moved_to_another_schema_is_none() -> None:
    schema, other = agreed_schema(1), agreed_schema(1, name="other")
    who = ORGANISATIONS[0]
    as_packet = SchemaSignature(
        schema=schema.id, organisation=who.public_key, signature=who.sign(Purpose.PACKET, schema.id)
    )
    good = sign_schema(other, who)
    moved = SchemaSignature(schema=schema.id, organisation=who.public_key, signature=good.signature)
    for wrong in (as_packet, moved):
        assert verify_signatures(schema, [wrong]).bad == (who.public_key,)
        with pytest.raises(SchemaError) as caught:
            require_signed(schema, [wrong])
        assert caught.value.code == "schema.unsigned"
    assert require_signed(other, [good]).quorum_reached


def test_too_few_signatures_say_who_is_missing() -> None:
    schema = agreed_schema(3)
    with pytest.raises(SchemaError) as caught:
        require_signed(schema, [sign_schema(schema, ORGANISATIONS[0])])
    assert caught.value.code == "schema.unsigned"
    assert "1 of the 3" in str(caught.value)
    assert ORGANISATIONS[1].public_key.hex()[:12] in str(caught.value)
    assert require_signed(schema_of(), ()).quorum == 0


def test_only_those_named_sign() -> None:
    for schema, says in ((agreed_schema(), "names others"), (schema_of(), "names nobody")):
        with pytest.raises(SchemaError, match=says) as caught:
            sign_schema(schema, ORGANISATIONS[3])
        assert caught.value.code == "schema.organisation"


def test_files_of_signatures_merge_in_any_order(tmp_path: Path) -> None:
    schema = agreed_schema()
    path = tmp_path / "s.toml"
    path.write_text(dumps(schema), encoding="utf-8")
    assert signatures_file(path) == tmp_path / "s.signatures"
    assert load_signatures(path) == ()
    a, b = (sign_schema(schema, one) for one in ORGANISATIONS[:2])
    text = write_signatures([b, a, b])
    assert text == write_signatures([a, b])
    (tmp_path / "s.signatures").write_text(write_signatures([b]) + "\n" + write_signatures([a, b]), encoding="utf-8")
    assert set(load_signatures(path)) == {a, b}
    assert require_signed(load(path), load_signatures(path)).quorum_reached


WRONG_LINES = [
    "not json",
    "[]",
    "{}",
    "[" * 10_000,
    '{"organisation": 1, "schema": "00", "signature": "00"}',
    json.dumps({"organisation": "0" * 62, "schema": "0" * 64, "signature": "0" * 128}),
    json.dumps({"organisation": "0" * 64, "schema": "0" * 64, "signature": "z" * 128}),
    json.dumps({"organisation": "0" * 64, "schema": "0" * 64, "signature": "0" * 128, "more": ""}),
]


@pytest.mark.parametrize("line", WRONG_LINES)
def test_wrong_lines_are_named(line: str, tmp_path: Path) -> None:
    good = write_signatures([sign_schema(agreed_schema(), ORGANISATIONS[0])])
    with pytest.raises(SchemaError, match="line 2 of the signatures") as caught:
        read_signatures(good + line)
    assert caught.value.code == "schema.signatures"
    (tmp_path / "s.signatures").write_text(good + line, encoding="utf-8")
    with pytest.raises(SchemaError, match=r"s\.signatures: line 2"):
        load_signatures(tmp_path / "s.toml")


def test_files_of_signatures_are_bounded(tmp_path: Path) -> None:
    good = write_signatures([sign_schema(agreed_schema(), ORGANISATIONS[0])])
    with pytest.raises(SchemaError, match="at most"):
        read_signatures(good * 10_001)
    (tmp_path / "s.signatures").write_bytes(b"\xff")
    with pytest.raises(SchemaError, match="UTF-8"):
        load_signatures(tmp_path / "s.toml")


def test_a_schema_that_was_used_can_be_pickled_and_copied() -> None:
    schema = agreed_schema()
    unit_scale(schema, schema.landmarks.codes)
    assert len(schema.slots) == 3
    assert schema.id
    for again in (pickle.loads(pickle.dumps(schema)), copy.deepcopy(schema)):
        assert again == schema
        assert again.id == schema.id
        assert dict(again.slots) == dict(schema.slots)


def test_a_missing_file_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(SchemaError) as caught:
        load(tmp_path / "none.toml")
    assert str(caught.value).count("none.toml") == 1
    assert caught.value.code == "schema.file"
