"""Key files: who may read them, what a passphrase does, and that neither is ever shown."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from outroute.errors import OutrouteError, StoreError
from outroute.identity import Identity, Membership, Register, Revocation
from outroute.store import former_identities, load_certificate, load_identity, load_standing
from outroute.store.keys import (
    KEY_FILE,
    PASSPHRASE_VARIABLE,
    create_identity,
    find_passphrase,
    is_protected,
    protect_key,
    replace_identity,
)
from outroute.store.statements import CERTIFICATE_FILE, STATEMENTS_FILE, StatementFile, save_membership

from .making import NOW, identity

SECRET = b"correct horse battery"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)


def passphrase() -> bytes:
    return SECRET


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_keys_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    first = load_identity(tmp_path / "node")
    path = tmp_path / "node" / KEY_FILE
    assert load_identity(tmp_path / "node").public_key == first.public_key
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert sorted(one.name for one in path.parent.iterdir()) == [KEY_FILE], "no part is left behind"
    assert not is_protected(tmp_path / "node")


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o620, 0o601])
@pytest.mark.parametrize("protected", [False, True])
def test_a_key_that_others_may_read_is_not_used(tmp_path: Path, bits: int, protected: bool) -> None:
    create_identity(tmp_path, name=KEY_FILE, passphrase=passphrase if protected else None)
    (tmp_path / KEY_FILE).chmod(bits)
    with pytest.raises(StoreError, match="chmod 600") as caught:
        load_identity(tmp_path, passphrase=passphrase)
    assert caught.value.code == "store.key_mode"


def test_a_protected_key_needs_its_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create_identity(tmp_path, name=KEY_FILE, passphrase=passphrase)
    assert mode(tmp_path / KEY_FILE) == 0o600
    assert is_protected(tmp_path)
    assert load_identity(tmp_path, passphrase=passphrase).public_key == made.public_key
    with pytest.raises(StoreError) as caught:
        load_identity(tmp_path, passphrase=lambda: b"guess")
    assert caught.value.code == "store.passphrase"
    with pytest.raises(StoreError, match=PASSPHRASE_VARIABLE) as caught:
        load_identity(tmp_path)
    assert caught.value.code == "store.passphrase"
    monkeypatch.setenv(PASSPHRASE_VARIABLE, SECRET.decode())
    assert load_identity(tmp_path).public_key == made.public_key
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "")
    with pytest.raises(StoreError, match="1 to"):
        load_identity(tmp_path)


def test_a_passphrase_file_is_read_and_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(SECRET + b"\nnot this line\n")
    path.chmod(0o644)
    with pytest.raises(StoreError, match="chmod 600"):
        find_passphrase(path)
    path.chmod(0o600)
    assert find_passphrase(path) == SECRET
    with pytest.raises(StoreError, match="cannot read"):
        find_passphrase(tmp_path / "nothing")


def test_a_passphrase_comes_and_goes(tmp_path: Path) -> None:
    made = load_identity(tmp_path)
    seed = (tmp_path / KEY_FILE).read_bytes()
    protect_key(tmp_path, name=KEY_FILE, new=passphrase)
    assert seed not in (tmp_path / KEY_FILE).read_bytes()
    assert load_identity(tmp_path, passphrase=passphrase).public_key == made.public_key
    protect_key(tmp_path, name=KEY_FILE, old=passphrase, new=lambda: b"another")
    assert load_identity(tmp_path, passphrase=lambda: b"another").public_key == made.public_key
    protect_key(tmp_path, name=KEY_FILE, old=lambda: b"another")
    assert (tmp_path / KEY_FILE).read_bytes() == seed
    assert mode(tmp_path / KEY_FILE) == 0o600


def test_a_damaged_key_file_is_said_to_be_one(tmp_path: Path) -> None:
    create_identity(tmp_path, name=KEY_FILE, passphrase=passphrase)
    path = tmp_path / KEY_FILE
    good = path.read_bytes()
    for place in range(0, len(good), 7):
        bad = bytearray(good)
        bad[place] ^= 0x40
        if place in range(4, 12):
            bad[4:12] = b"\xff" * 8  # a cost that would fill the memory
        path.write_bytes(bytes(bad))
        with pytest.raises(StoreError) as caught:
            load_identity(tmp_path, passphrase=passphrase)
        assert caught.value.code in ("store.key", "store.passphrase")
    for content in (b"", good[:-1], good + b"\0", b"x" * 31, b"x" * 33):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="not a key"):
            load_identity(tmp_path, passphrase=passphrase)


def test_no_error_and_no_text_shows_a_secret(tmp_path: Path) -> None:
    made = load_identity(tmp_path)
    seed = (tmp_path / KEY_FILE).read_bytes()
    protect_key(tmp_path, name=KEY_FILE, new=passphrase)
    texts = [repr(made), str(made), repr([made])]
    guess = b"a wrong guess"

    def wrong() -> bytes:
        return guess

    for action in (
        lambda: load_identity(tmp_path, passphrase=wrong),
        lambda: load_identity(tmp_path),
        lambda: create_identity(tmp_path, name=KEY_FILE, passphrase=passphrase),
        lambda: protect_key(tmp_path, name=KEY_FILE, old=wrong, new=passphrase),
        lambda: Identity(seed[:31]),
    ):
        with pytest.raises(OutrouteError) as caught:
            action()
        error = caught.value
        texts += [str(error), repr(error), "".join(traceback.format_exception(error))]
    for secret in (seed, SECRET, guess):
        for text in texts:
            for shown in (secret.hex(), repr(secret)[2:-1], secret.decode("latin-1")):
                assert shown not in text


def test_a_replaced_key_stays_beside_the_new_one(tmp_path: Path) -> None:
    first = load_identity(tmp_path)
    second = create_identity(tmp_path, name="next.key")
    archive = replace_identity(tmp_path, name=KEY_FILE, next_name="next.key")
    assert load_identity(tmp_path).public_key == second.public_key
    assert mode(archive) == 0o600
    assert list(former_identities(tmp_path)) == [first.public_key]
    with pytest.raises(StoreError, match="cannot replace"):
        replace_identity(tmp_path, name=KEY_FILE, next_name="next.key")
    assert load_identity(tmp_path).public_key == second.public_key


# statements on disk ---------------------------------------------------------------------------------------------


def some_statements(count: int) -> list[bytes]:
    return [Revocation.make(identity(1), identity(n).public_key, at=NOW).to_bytes() for n in range(2, 2 + count)]


def test_statements_survive_and_are_private(tmp_path: Path) -> None:
    said = some_statements(5)
    StatementFile(tmp_path / "node").append(said[:3])
    StatementFile(tmp_path / "node").append(said[3:])
    assert StatementFile(tmp_path / "node").read_on() == said
    assert mode(tmp_path / "node" / STATEMENTS_FILE) == 0o600
    assert StatementFile(tmp_path / "nowhere").read_on() == []


def test_a_file_that_was_cut_off_or_damaged_loses_what_was_hit_only(tmp_path: Path) -> None:
    said = some_statements(4)
    StatementFile(tmp_path).append(said)
    path = tmp_path / STATEMENTS_FILE
    whole = path.read_bytes()
    size = len(whole) // 4
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert StatementFile(tmp_path).read_on() == said[: cut // size]
        more = some_statements(6)[4:]
        StatementFile(tmp_path).append(more)
        assert StatementFile(tmp_path).read_on() == said[: cut // size] + more
    for place in range(0, len(whole), 5):
        bad = bytearray(whole)
        bad[place] ^= 0x10
        path.write_bytes(bytes(bad))
        hit = place // size
        assert StatementFile(tmp_path).read_on() == said[:hit] + said[hit + 1 :]


def test_a_file_that_was_written_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    said = some_statements(4)
    reader, writer = StatementFile(tmp_path), StatementFile(tmp_path)
    writer.append(said)
    assert reader.read_on() == said
    writer.rewrite(said[2:])
    assert writer.read_on() == []
    writer.append(said[:1])
    assert reader.read_on() == [*said[2:], said[0]]
    assert reader.read_on() == []


def test_a_node_keeps_its_certificate(tmp_path: Path) -> None:
    assert load_certificate(tmp_path) is None
    assert len(load_standing(tmp_path, now=NOW)) == 0
    node, org = load_identity(tmp_path), identity(1)
    one = Membership.accept(node, org.certify(node.public_key, not_before=NOW, not_after=NOW + 9))
    save_membership(tmp_path, one, now=NOW)
    save_membership(tmp_path, one, now=NOW)
    assert load_certificate(tmp_path) == one.certificate
    assert load_standing(tmp_path, now=NOW).organisation_of(node.public_key, NOW) == org.public_key
    assert StatementFile(tmp_path).read_on() == [one.to_bytes()]
    assert isinstance(load_standing(tmp_path, now=NOW, organisations=[identity(2).public_key]), Register)
    (tmp_path / CERTIFICATE_FILE).write_bytes(one.to_bytes()[:-1])
    with pytest.raises(StoreError, match="install"):
        load_certificate(tmp_path)
