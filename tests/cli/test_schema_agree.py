"""``outroute schema diff | sign | signed | migrate``, as a founder and an administrator use them."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from outroute.cli.schema import schema_app
from outroute.schema import (
    Field,
    FieldKind,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
    drawn_landmarks,
    dumps,
    encode,
    load,
    load_signatures,
)
from outroute.store import Journal
from outroute.store.keys import ORGANISATION_KEY_FILE, load_identity

RUN = CliRunner()
AGE = Field(name="age", kind=FieldKind.NUMERIC, low=Decimal(0), high=Decimal(100), unit="years")
WARD = Field(name="ward", kind=FieldKind.CATEGORICAL, categories=("x", "y"))
ORGANISATIONS = ("one", "two", "three")


def schema_of(*fields: Field, **given_: Any) -> Schema:
    made = fields or (AGE, WARD)
    wanted: dict[str, Any] = {
        "name": "first",
        "fields": made,
        "outcome": Outcome(name="ill", kind=OutcomeKind.BINARY, classes=("no", "yes")),
        "privacy": Privacy(),
        "time": Time(),
        "landmarks": drawn_landmarks(made, 6),
    }
    return Schema(**(wanted | given_))


def write(name: str, schema: Schema) -> Path:
    path = Path(name)
    path.write_text(dumps(schema), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A folder with three organisations; their public keys by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTROUTE_PASSPHRASE", raising=False)
    return {name: load_identity(name, name=ORGANISATION_KEY_FILE).public_key for name in ORGANISATIONS}


def run(*arguments: str, code: int = 0) -> Result:
    result = RUN.invoke(schema_app, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def test_a_difference_is_readable_with_the_gravest_first() -> None:
    old = schema_of()
    new = schema_of(replace(AGE, high=Decimal(120)), WARD, privacy=Privacy(k=3), parent=old.id)
    write("old.toml", old)
    write("new.toml", new)
    text = run("diff", "old.toml", "new.toml").output
    assert text.index("weakens") < text.index("only 3 subjects must share a packet; before, 5") < text.index("widens")
    assert "field 'age': 0 to 120 years; before, 0 to 100 years" in text
    assert "names old.toml as its parent" in text
    found = json.loads(run("diff", "old.toml", "new.toml", "--json").stdout)
    assert found["successor"]
    assert found["changes"][0] == {
        "meaning": "weakens", "where": "privacy", "text": "only 3 subjects must share a packet; before, 5",
    }  # fmt: skip
    assert f'parent = "{new.id.hex()}"' in run("diff", "new.toml", "old.toml").output
    assert "no difference" in run("diff", "old.toml", "old.toml").output


def test_signing_until_a_quorum_is_reached(here: dict[str, bytes]) -> None:
    schema = schema_of(organisations=(here["one"], here["two"]), quorum=2)
    path = write("s.toml", schema)
    assert "0 of 2 have signed, 2 are needed: no node serves it yet" in run("signed", "s.toml", code=1).output
    assert "1 of 2 have signed" in run("sign", "s.toml", "--org", "one").output
    assert "had been signed before" in run("sign", "s.toml", "--org", "one").output
    assert len(load_signatures(path)) == 1
    listed = run("signed", "s.toml", code=1).output
    assert f"{here['one'].hex()}  signed" in listed
    assert f"{here['two'].hex()}  not signed yet" in listed
    found = json.loads(run("sign", "s.toml", "--org", "two", "--json").stdout)
    assert found["quorum_reached"]
    assert found["file"] == "s.signatures"
    assert "nodes may serve it" in run("signed", "s.toml").output
    stranger = run("sign", "s.toml", "--org", "three", code=2).output
    assert f"does not name the organisation {here['three'].hex()}" in stranger
    assert "2 of 2 organisations" in run("show", "s.toml").output
    shown = json.loads(run("show", "s.toml", "--json").stdout)["agreement"]
    assert shown == {"organisations": sorted(key.hex() for key in (here["one"], here["two"])), "quorum": 2}


def test_wrong_signatures_are_told(here: dict[str, bytes]) -> None:
    schema = schema_of(organisations=(here["one"],), quorum=1)
    write("s.toml", schema)
    write("other.toml", schema_of(organisations=(here["one"],), quorum=1, name="other"))
    run("sign", "other.toml", "--org", "one")
    elsewhere = Path("other.signatures").read_text(encoding="utf-8")
    moved = json.loads(elsewhere) | {"schema": schema.id.hex()}
    Path("s.signatures").write_text(elsewhere + json.dumps(moved) + "\n", encoding="utf-8")
    text = run("signed", "s.toml", code=1).output
    assert "WRONG signature" in text
    assert "1 signatures in the file are for other schemas" in text
    Path("s.signatures").write_text(elsewhere[:50], encoding="utf-8")
    assert "line 1 of the signatures" in run("signed", "s.toml", code=2).output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sign", "s.toml", "--org", "nobody"), "There is no organisation in 'nobody'"),
        (("sign", "s.toml", "--org", "one"), "names nobody"),
        (("sign", "none.toml", "--org", "one"), "cannot read none.toml"),
        (("diff", "s.toml", "none.toml"), "cannot read none.toml"),
        (("migrate", "s.toml", "--node", "nowhere"), "There is no node in 'nowhere'"),
    ],
)
def test_wrong_use_is_one_clear_line(arguments: tuple[str, ...], says: str) -> None:
    write("s.toml", schema_of())
    text = run(*arguments, code=2).output
    assert says in text
    assert len(text.strip().splitlines()) == 1


def test_nobody_has_to_sign_a_schema_without_organisations() -> None:
    write("s.toml", schema_of())
    assert "nobody has to sign it" in run("signed", "s.toml").output


def node_of(schema: Schema) -> None:
    os.makedirs("node", mode=0o700)
    write("node/schema.toml", schema)
    load_identity("node")
    codes = encode(schema, {"age": list(range(0, 100, 5)), "ward": ["x", "y"] * 10}).codes
    with closing(Journal("node", schema_id=schema.id, width=schema.width, now=0)) as journal:
        journal.observe(list(range(20)), codes, np.zeros(20), bucket=np.zeros(20, dtype=np.int64))


def test_migrating_a_node(here: dict[str, bytes]) -> None:
    old = schema_of()
    node_of(old)
    new = schema_of(
        replace(AGE, low=Decimal(10)), replace(WARD, categories=("x", "z")), parent=old.id,
        organisations=(here["one"],), quorum=1,
    )  # fmt: skip
    write("new.toml", new)
    unsigned = run("migrate", "new.toml", "--node", "node", code=2).output
    assert "is signed by 0 of the 1 organisations that must agree" in unsigned
    run("sign", "new.toml", "--org", "one")
    text = run("migrate", "new.toml", "--node", "node").output
    assert "18 observations carried over" in text
    assert "2 have a value outside" in text
    assert "ward: missing in 10" in text
    assert load("node/next/schema.toml") == new
    again = run("migrate", "new.toml", "--node", "node", "--json", code=2)
    assert json.loads(again.stdout)["error"]["code"] == "migrate.done"
    wrong = run("migrate", "new.toml", "--node", "node/next", code=2).output
    assert "does not replace" in wrong
