"""Organisations from the command line: enrol, install, rotate, revoke, and what is said when it goes wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from outroute.identity import Certificate, Identity, Membership, Revocation, Succession, read_statement
from outroute.store import load_certificate, load_identity, load_standing
from outroute.store.keys import KEY_FILE, ORGANISATION_KEY_FILE, PASSPHRASE_VARIABLE, is_protected

from .conftest import fails, in_json, invoke, program

SECRET = "correct horse battery"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an organisation and a node in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    invoke("org", "init", "ward", "--name", "Ward 7")
    load_identity("node")
    return tmp_path


def node_key(directory: str = "node") -> str:
    return load_identity(directory).public_key.hex()


def lines(path: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write(path: str, text: str) -> str:
    Path(path).write_text(text, encoding="utf-8")
    return path


def test_a_node_is_enrolled_on_one_machine_or_by_files(place: Path) -> None:
    org = in_json("org", "show", "--org", "ward")
    assert org["name"] == "Ward 7"
    assert in_json("org", "enrol", "--org", "ward", "--node", "node")["enrolled"] == 1
    shown = in_json("org", "show", "--node", "node")
    assert shown["organisation"] == org["organisation"]
    assert (shown["certificate_holds"], shown["revoked"]) == (True, False)
    load_identity("other")
    invoke("org", "enrol", "--org", "ward", "--key", node_key("other"), "--days", "10", "-o", "c.ndjson")
    assert in_json("org", "install", "c.ndjson", "--node", "other")["organisation"] == org["organisation"]
    found = load_certificate("other")
    assert found is not None
    assert found.not_after - found.not_before == 10 * 86_400
    assert in_json("org", "show", "--org", "ward")["certificates_in_force"] == 2
    assert in_json("org", "show", "--org", "ward")["ending_within_30_days"] == 1
    standing = load_standing("other", now=found.not_before)
    assert standing.organisation_of(found.node, found.not_before).hex() == org["organisation"]


def test_many_keys_are_enrolled_at_once(place: Path) -> None:
    keys = [os.urandom(32).hex() for _ in range(2000)]
    write("keys.txt", "# devices\n\n" + "\n".join([*keys, keys[0]]) + "\n")
    done = in_json("org", "enrol", "--org", "ward", "--keys", "keys.txt", "-o", "c.ndjson")
    assert done["enrolled"] == 2000
    assert done["per_second"] > 0
    written = lines("c.ndjson")
    assert [one["node"] for one in written] == keys
    assert all(Certificate.from_bytes(bytes.fromhex(str(one["certificate"]))).genuine() for one in written[::100])
    assert in_json("org", "show", "--org", "ward")["nodes_enrolled"] == 2000


def test_a_node_is_rotated_once_its_organisation_vouches(place: Path) -> None:
    invoke("org", "enrol", "--org", "ward", "--node", "node")
    old = node_key()
    first = in_json("org", "rotate", "--node", "node")
    assert in_json("org", "rotate", "--node", "node") == first, "the next key is made once"
    assert (first["done"], first["old"], node_key()) == (False, old, old)
    invoke("org", "enrol", "--org", "ward", "--key", first["next"], "-o", "next.ndjson")
    done = in_json("org", "rotate", "--node", "node", "--certificate", "next.ndjson", "-o", "s.ndjson")
    assert (done["done"], done["old"], done["new"]) == (True, old, first["next"])
    assert node_key() == first["next"]
    shown = in_json("org", "show", "--node", "node")
    assert (shown["former_keys"], shown["certificate_holds"]) == (old, True)
    said = read_statement(bytes.fromhex(str(lines("s.ndjson")[0]["statement"])))
    assert isinstance(said, Succession)
    assert said.genuine()


def test_a_node_of_no_organisation_is_rotated_at_once(place: Path) -> None:
    old = node_key()
    assert in_json("org", "rotate", "--node", "node")["done"]
    assert in_json("org", "show", "--node", "node")["former_keys"] == old


def test_an_organisation_is_rotated_with_all_it_has_enrolled(place: Path) -> None:
    invoke("org", "enrol", "--org", "ward", "--node", "node")
    invoke("org", "enrol", "--org", "ward", "--key", "ab" * 32, "-o", "c.ndjson")
    invoke("org", "revoke", "ab" * 32, "--org", "ward", "-o", "gone.ndjson")
    done = in_json("org", "rotate", "--org", "ward", "-o", "s.ndjson", "--renewed", "r.ndjson")
    assert [one["node"] for one in lines("r.ndjson")] == [node_key()], "who is revoked is not certified again"
    assert in_json("org", "learn", "s.ndjson", "--node", "node")["new"] == 1
    invoke("org", "install", "r.ndjson", "--node", "node")
    shown = in_json("org", "show", "--org", "ward")
    assert (shown["organisation"], shown["former_keys"], shown["revoked"]) == (done["new"], done["old"], 1)
    found = load_certificate("node")
    assert found is not None
    assert found.organisation.hex() == done["new"]
    now = found.not_before
    assert load_standing("node", now=now).organisation_of(found.node, now).hex() == done["old"], "it keeps its name"
    invoke("org", "revoke", done["old"], "--org", "ward", "-o", "old.ndjson")
    assert in_json("org", "learn", "old.ndjson", "--node", "node")["new"] == 1
    assert not in_json("org", "show", "--node", "node")["revoked"]


@pytest.mark.parametrize("compromised", [False, True])
def test_a_revocation_is_learnt(place: Path, compromised: bool) -> None:
    invoke("org", "enrol", "--org", "ward", "--node", "node")
    more = ["--compromised"] if compromised else []
    invoke("org", "revoke", node_key(), "--org", "ward", "-o", "r.ndjson", *more)
    said = read_statement(bytes.fromhex(str(lines("r.ndjson")[0]["statement"])))
    assert isinstance(said, Revocation)
    assert said.compromised is compromised
    assert in_json("org", "learn", "r.ndjson", "--node", "node") == {"new": 1, "known": 0, "refused": []}
    assert in_json("org", "learn", "r.ndjson", "--node", "node") == {"new": 0, "known": 1, "refused": []}
    assert in_json("org", "show", "--node", "node")["revoked"]
    fails("org", "enrol", "--org", "ward", "--node", "node", cwd=place, says="cannot be taken back")


def test_an_organisation_revokes_itself(place: Path) -> None:
    invoke("org", "enrol", "--org", "ward", "--node", "node")
    invoke("org", "revoke", "--self", "--org", "ward", "-o", "r.ndjson")
    invoke("org", "learn", "r.ndjson", "--node", "node")
    assert in_json("org", "show", "--node", "node")["revoked"]


def test_key_files_are_private_and_a_passphrase_is_never_shown(place: Path) -> None:
    passphrase = Path(write("passphrase", SECRET + "\n"))
    passphrase.chmod(0o600)
    invoke("org", "init", "clinic", "--passphrase-file", passphrase)
    assert is_protected("clinic", name=ORGANISATION_KEY_FILE)
    assert (Path("clinic") / ORGANISATION_KEY_FILE).stat().st_mode & 0o777 == 0o600
    node_seed = (Path("node") / KEY_FILE).read_bytes()
    texts = []
    for arguments in (
        ["org", "show", "--org", "clinic", "--passphrase-file", passphrase],
        ["org", "show", "--org", "clinic"],
        ["org", "protect", "--node", "node", "--new-passphrase-file", passphrase],
        ["org", "show", "--node", "node", "--passphrase-file", passphrase, "--json"],
        ["org", "enrol", "--org", "clinic", "--node", "node", "--passphrase-file", passphrase],
        ["org", "rotate", "--node", "node", "--passphrase-file", passphrase],
        ["org", "protect", "--node", "node", "--clear"],
    ):
        done = program(*arguments, cwd=place, stdin=-3)
        texts += [done.stdout, done.stderr]
    wrong = Path(write("wrong", "another guess"))
    wrong.chmod(0o600)
    texts.append(fails("org", "show", "--org", "clinic", "--passphrase-file", wrong, cwd=place, says="is wrong"))
    assert is_protected("node")
    for text in texts:
        assert SECRET not in text
        assert "another guess" not in text
        assert node_seed.hex() not in text
    passphrase.chmod(0o644)
    fails("org", "show", "--org", "clinic", "--passphrase-file", passphrase, cwd=place, says="chmod 600")
    (Path("ward") / ORGANISATION_KEY_FILE).chmod(0o644)
    fails("org", "show", "--org", "ward", cwd=place, says="chmod 600")


def test_former_keys_are_protected_too(place: Path) -> None:
    passphrase = Path(write("passphrase", SECRET))
    passphrase.chmod(0o600)
    invoke("org", "rotate", "--node", "node")
    invoke("org", "protect", "--node", "node", "--new-passphrase-file", passphrase)
    assert [is_protected("node", name=one.name) for one in Path("node").glob("*.key")] == [True, True]


def test_bad_input_is_said_in_a_line_and_changes_nothing(place: Path) -> None:
    invoke("org", "enrol", "--org", "ward", "--key", "ab" * 32, "-o", "c.ndjson")
    org = load_identity("ward", name=ORGANISATION_KEY_FILE)
    node, now = load_identity("node"), 1_700_000_000

    def certificates(name: str, *made: Certificate) -> str:
        return write(name, "".join(json.dumps({"certificate": one.to_bytes().hex()}) + "\n" for one in made))

    expired = certificates("expired.ndjson", org.certify(node.public_key, not_before=now - 9, not_after=now))
    early = certificates("early.ndjson", org.certify(node.public_key, not_before=2**33, not_after=2**33 + 9))
    genuine = bytearray(org.certify(node.public_key, not_before=0, not_after=2**33).to_bytes())
    genuine[70] ^= 1
    forged = certificates("forged.ndjson", Certificate.from_bytes(bytes(genuine)))
    write("short.txt", "ab" * 32 + "\nab\n")
    write("empty.txt", "# nothing\n")
    write("nonsense.ndjson", '{"certificate": 3}\n')
    stranger = Membership.accept(node, Identity(b"s" * 32).certify(node.public_key, not_before=0, not_after=2**33))
    bad = bytearray(stranger.to_bytes())
    bad[-1] ^= 1
    write("forged_statement.ndjson", json.dumps({"statement": bytes(bad).hex()}) + "\n")
    before = sorted((one.name, one.read_bytes()) for one in Path("node").iterdir())
    for arguments, says in (
        (["init", "ward"], "exists already"),
        (["enrol", "--org", "nowhere", "--key", "ab" * 32, "-o", "x"], "no organisation in"),
        (["enrol", "--org", "ward", "-o", "x"], "whom to enrol"),
        (["enrol", "--org", "ward", "--key", "ab" * 32], "-o certificates.ndjson"),
        (["enrol", "--org", "ward", "--key", "ab" * 31, "-o", "x"], "64 hex digits"),
        (["enrol", "--org", "ward", "--key", "ab" * 32, "-o", "c.ndjson"], "exists already"),
        (["enrol", "--org", "ward", "--key", org.public_key.hex(), "-o", "x"], "own key"),
        (["enrol", "--org", "ward", "--keys", "short.txt", "-o", "x"], "line 2"),
        (["enrol", "--org", "ward", "--keys", "empty.txt", "-o", "x"], "empty"),
        (["install", "c.ndjson", "--node", "node"], "no certificate for this node's key"),
        (["install", expired, "--node", "node"], "has expired on 2023-11-14"),
        (["install", early, "--node", "node"], "begins on 2242"),
        (["install", forged, "--node", "node"], "signature is wrong"),
        (["install", "nonsense.ndjson", "--node", "node"], "line 1 is no certificate"),
        (["install", "c.ndjson", "--node", "nowhere"], "no node in"),
        (["learn", "c.ndjson", "--node", "node"], "no statement"),
        (["learn", "forged_statement.ndjson", "--node", "node"], "Not taken in: signature"),
        (["revoke", "--org", "ward", "-o", "x"], "what to revoke"),
        (["revoke", org.public_key.hex(), "--org", "ward", "-o", "x"], "--self"),
        (["revoke", "zz", "--org", "ward", "-o", "x"], "no public key"),
        (["rotate", "-o", "x"], "--org DIR or --node DIR"),
        (["rotate", "--org", "ward"], "--renewed"),
        (["show"], "--org DIR or --node DIR"),
    ):
        invoked = invoke("org", *arguments, code=2)
        assert says in " ".join(invoked.stderr.split()), (arguments, invoked.stderr)
    assert sorted((one.name, one.read_bytes()) for one in Path("node").iterdir()) == before
    assert not Path("x").exists()
    assert in_json("org", "show", "--org", "ward")["nodes_enrolled"] == 1
    fails("org", "install", expired, "--node", "node", cwd=place, says="ask the organisation for a new one")


def test_only_its_own_organisation_vouches_for_a_nodes_next_key(place: Path) -> None:
    invoke("org", "enrol", "--org", "ward", "--node", "node")
    old = node_key()
    following = in_json("org", "rotate", "--node", "node")["next"]
    invoke("org", "init", "clinic")
    invoke("org", "enrol", "--org", "clinic", "--key", following, "-o", "c.ndjson")
    done = invoke("org", "rotate", "--node", "node", "--certificate", "c.ndjson", code=2)
    assert "another organisation" in done.stderr
    assert node_key() == old


def test_a_key_that_was_never_enrolled_is_revoked_with_a_warning(place: Path) -> None:
    done = invoke("org", "revoke", "ab" * 32, "--org", "ward", "-o", "r.ndjson")
    assert "has not enrolled that key" in done.stderr
    assert len(lines("r.ndjson")) == 1
