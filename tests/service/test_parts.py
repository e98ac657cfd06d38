"""Parts of a running node that need no process: settings, secrets, lists of members, causes, logs."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest

from outroute.cli._settings import Settings
from outroute.errors import DataError, StoreError, TransportError
from outroute.identity import Identity
from outroute.node import Node
from outroute.node.causes import Causes
from outroute.node.electing import Electing
from outroute.node.joining import (
    SECRET_FILE,
    Joining,
    Place,
    keep_peers,
    kept_peers,
    load_secrets,
    make_secret,
    place_of,
    roles_of,
)
from outroute.node.members import Listed, Pinned, read_members, sign_members
from outroute.schema import load
from outroute.service.access import is_loopback, load_token
from outroute.service.logs import JsonLines
from outroute.service.server_file import where_is
from outroute.transports import Role

ORG, OTHER = Identity(b"o" * 32), Identity(b"x" * 32)
NODES = [Identity(bytes([i]) * 32) for i in range(3)]


def test_places() -> None:
    assert place_of("10.0.0.5:7411") == Place(host="10.0.0.5", port=7411)
    assert place_of("[::1]:7") == Place(host="[::1]", port=7)
    assert place_of("7411", default_host="127.0.0.1") == Place(host="127.0.0.1", port=7411)
    for text in ("", ":", "x", "x:", ":7", "x:y", "x:70000", "::1:7", "x:-1", "[a b]:7", "7411", "y" * 300 + ":1"):
        with pytest.raises(TransportError, match="is no place"):
            place_of(text)


def test_roles() -> None:
    assert roles_of("emit, HOLD") == Role.EMIT | Role.HOLD
    for text in ("", "emit,", "all"):
        with pytest.raises(TransportError, match="is no role"):
            roles_of(text)


def test_secrets_are_kept_and_read(tmp_path: Path) -> None:
    made = make_secret(tmp_path / "n")
    assert make_secret(tmp_path / "n").known == made.known
    path = tmp_path / "n" / SECRET_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("ab" * 32 + "\n" + made.known[0].hex())
    assert load_secrets(path).known == (b"\xab" * 32, made.known[0])
    for text in ("", "ab", "zz" * 32, "\n".join(["ab" * 32] * 3)):
        path.write_text(text)
        with pytest.raises(TransportError, match="is no network secret"):
            load_secrets(path)
    path.chmod(0o644)
    with pytest.raises(StoreError, match="chmod 600"):
        load_secrets(path)
    with pytest.raises(StoreError, match="cannot read"):
        load_secrets(tmp_path / "nowhere")


def test_places_of_members_are_kept(tmp_path: Path) -> None:
    assert kept_peers(tmp_path) == []
    keep_peers(tmp_path, [f"10.0.0.{i}:7" for i in range(100)])
    assert len(kept_peers(tmp_path)) == 64
    (tmp_path / "peers").write_bytes(b"10.0.0.1:7\n\x01nonsense\n\xff\xfe\n")
    assert kept_peers(tmp_path) == [Place(host="10.0.0.1", port=7)]


def test_a_list_of_members_holds_or_is_refused(tmp_path: Path) -> None:
    file, home = tmp_path / "members.json", tmp_path / "node"
    home.mkdir()
    listed = [Listed(key=NODES[0].public_key, place=place_of("a.example:7"), name="ä"), Listed(key=NODES[1].public_key)]
    file.write_text(sign_members(listed, 5, ORG))
    assert read_members(file).members == tuple(listed)
    pinned = Pinned(file, home)
    assert pinned.admits(NODES[1].public_key)
    assert not pinned.admits(NODES[2].public_key)
    assert pinned.has(NODES[0].id)
    assert pinned.places(NODES[1].public_key) == [place_of("a.example:7")]
    assert pinned.places(NODES[0].public_key) == []
    assert not pinned.refresh()

    def refused(text: str, says: str) -> None:
        file.write_text(text)
        with pytest.raises(TransportError, match=says):
            Pinned(file, home)
        assert not pinned.refresh()  # a running node keeps what it has
        assert pinned.problem
        assert pinned.admits(NODES[1].public_key)

    refused(sign_members(listed[:1], 4, ORG), "has seen 5 already")
    refused(sign_members(listed, 6, OTHER), "the ones before by")
    good = json.loads(sign_members(listed, 6, ORG))
    refused(json.dumps(good | {"number": 7}), "does not hold")
    for broken in ([], {}, good | {"signer": "x"}, good | {"number": "6"}, good | {"members": {}}):
        refused(json.dumps(broken), "is no list of members")
    refused("{", "is not JSON")
    refused("[" * 100_000, "is not JSON")
    with pytest.raises(TransportError, match="twice"):
        sign_members([listed[0], listed[0]], 1, ORG)
    file.write_text(sign_members(listed[:1], 6, ORG))
    assert pinned.refresh()
    assert not pinned.problem
    assert not pinned.admits(NODES[1].public_key)
    with pytest.raises(TransportError, match="no organisation of the schema"):
        Pinned(file, home, organisations=[OTHER.public_key])


def test_settings_are_kept_under_what_is_given(folder: Path) -> None:
    schema = load("ward.toml")
    home = folder / "north"
    home.mkdir()
    first = Settings.kept(
        home, {"listen": "127.0.0.1:7411", "join": ["127.0.0.1:1"], "secret_file": "s", "open": False}
    )
    first.keep(home)
    assert Settings.kept(home, {}) == first
    assert Settings.kept(home, {"listen": "127.0.0.1:9"}).join == ["127.0.0.1:1"]
    opened = Settings.kept(home, {"open": True})
    assert opened.open
    assert not opened.secret_file
    assert not opened.joining(home, schema).closed
    with pytest.raises(StoreError, match="cannot read the network secret"):
        first.joining(home, schema)
    with pytest.raises(TransportError, match="give --secret-file"):
        Settings(join=["127.0.0.1:1"]).joining(home, schema)
    made = Settings().joining(home, schema)  # the first node of a closed network makes its secret
    assert made.closed
    assert made.dht is None
    assert Settings(join=["127.0.0.1:1"]).joining(home, schema).secrets == made.secrets
    single = load_single(folder)
    assert not Settings(dht="7000").joining(folder / "other", single).closed
    assert Settings(dht="7000").joining(folder / "other", single).dht == 7000
    (home / "node.json").write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        Settings.kept(home, {})
    with pytest.raises(TransportError, match="--advertise"):
        Joining(listen=place_of("0.0.0.0:7"))


def test_a_budget_of_packets_is_kept_until_all_are_wanted_again(folder: Path) -> None:
    home = folder / "thrifty"
    home.mkdir()
    assert Settings.kept(home, {"budget": None}).electing() == Electing()
    Settings.kept(home, {"budget": "40"}).keep(home)
    assert Settings.kept(home, {}).electing() == Electing(budget=40)
    assert Settings.kept(home, {"budget": "all"}).electing() == Electing()
    for wrong in ("0", "-3", "many", "4.5"):
        with pytest.raises(DataError, match="budget"):
            Settings(budget=wrong).electing()


def load_single(folder: Path) -> object:
    text = (folder / "ward.toml").read_text().replace('distiller = "cohort"', 'distiller = "single"')
    text = text.replace("k = 5\n", "k = 1\n").replace('subject = "patient"\n', "")
    (folder / "single.toml").write_text(text)
    return load(folder / "single.toml")


def test_a_cause_goes_with_what_it_led_to(folder: Path) -> None:
    with Node(load("ward.toml"), data_dir=folder / "n") as node:
        causes = Causes(folder / "n", node.journal.outbox)
        assert causes.observed(b"a" * 16) == b"a" * 16
        assert causes.observed(b"b" * 16) == b"a" * 16  # condensed together
        node.observe("north.csv", case="visit", subject="patient")
        made = node.distil().packets
        assert causes.distilled() == b"a" * 16
        assert causes.observed(b"c" * 16) == b"c" * 16
        again = Causes(folder / "n", node.journal.outbox)  # after a restart
        assert again.observed(b"d" * 16) == b"c" * 16
        numbers = node.pending(limit=1000).ids.tolist()
        assert len(numbers) == made
        assert again.of(numbers) == [b"a" * 16] * made
        assert again.of([10**6]) == [bytes(16)]
        assert again.distilled() == b"c" * 16  # nothing was made: it stays open
        node.observe("south.csv", case="visit", subject="patient")
        more = node.distil().packets
        assert again.distilled() == b"c" * 16
        assert again.of(node.pending(limit=1000).ids.tolist()) == [b"a" * 16] * made + [b"c" * 16] * more
    (folder / "n" / "causes.json").write_text("[1")
    with Node(load("ward.toml"), data_dir=folder / "n") as node:
        assert Causes(folder / "n", node.journal.outbox).of([1]) == [bytes(16)]


def test_logs_are_one_object_a_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log = logging.Logger("outroute.test")
    log.addHandler(handler)
    log.info("taken", extra={"cause": "00ff", "packets": 3})
    log.warning("two\nlines %s", "here", extra={"odd": object})
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["cause"], first["packets"], first["level"]) == ("taken", "00ff", 3, "info")
    assert second["event"] == "two\nlines here"
    assert first["time"].endswith("Z")


def test_the_token_and_where_it_is_for(tmp_path: Path) -> None:
    token = load_token(tmp_path)
    assert load_token(tmp_path) == token
    assert len(token) > 40
    (tmp_path / "api.token").chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        load_token(tmp_path)
    (tmp_path / "api.token").chmod(0o600)
    (tmp_path / "api.token").write_text("")
    with pytest.raises(StoreError, match="is empty"):
        load_token(tmp_path)
    assert [is_loopback(one) for one in ("127.0.0.1", "127.9.9.9", "[::1]", "LocalHost")] == [True] * 4
    assert not any(
        is_loopback(one) for one in ("0.0.0.0", "10.0.0.1", "localhost.evil.example", "", "127.0.0.1.nip.io")
    )
    (tmp_path / "api.json").write_text('{"url": 1}')
    assert where_is(tmp_path) is None
