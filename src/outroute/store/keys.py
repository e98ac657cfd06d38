"""Private keys as files that only their owner can read, in the clear or under a passphrase.

A key file holds 32 bytes, or, under a passphrase, 100: ``ORK`` and version 1, the cost of the passphrase (operations
and KiB, 4 bytes each), a salt of 16, a nonce of 24, and the key in 48. Source: RFC 9106 (Argon2id), section 4, second
recommended option (3 passes over 64 MiB); XSalsa20-Poly1305 as in NaCl's secretbox.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from outroute.errors import StoreError
from outroute.identity import KEY_BYTES, Identity

__all__ = [
    "KEY_FILE",
    "ORGANISATION_KEY_FILE",
    "PASSPHRASE_VARIABLE",
    "Passphrase",
    "create_identity",
    "find_passphrase",
    "former_identities",
    "former_names",
    "is_protected",
    "load_identity",
    "protect_key",
    "replace_identity",
]

KEY_FILE = "node.key"
"""Name of the key file in a node's directory, mode 0600."""
ORGANISATION_KEY_FILE = "organisation.key"
"""Name of the key file in an organisation's directory, mode 0600."""
PASSPHRASE_VARIABLE = "OUTROUTE_PASSPHRASE"
"""Environment variable that may hold the passphrase of key files."""
PASSPHRASE_BYTES = 4096
"""Bytes of a passphrase, at most: more is the wrong file."""
OPERATIONS, KIBIBYTES = 3, 64 * 1024
"""Cost of a passphrase: some 0.2 s and 64 MiB, which a gateway can spare and a guesser pays for every guess."""
_MOST_OPERATIONS, _MOST_KIBIBYTES = 10, 1024 * 1024
"""The highest cost that a file may ask for: a file must not be able to fill the memory."""
_PROTECTED = struct.Struct("<4sII16s24s48s")
_MAGIC = b"ORK\x01"

Passphrase = Callable[[], bytes]
"""Gives the passphrase when a key file needs one."""


def load_identity(
    directory: Path | str,
    *,
    name: str = KEY_FILE,
    passphrase: Passphrase | None = None,
    create: bool = True,
) -> Identity:
    """The identity of a directory; made on first use, synced to disk before it signs anything.

    Args:
        directory: of a node or an organisation.
        name: of the key file.
        passphrase: asked for when the file is protected; default ``find_passphrase``.
        create: whether a key is made where there is none.

    Raises:
        StoreError: the file cannot be read or written, is not a key, others may read it, or the passphrase is wrong.
    """
    path = Path(directory) / name
    try:
        if create:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                _write_new(path, secrets.token_bytes(KEY_BYTES))
        return Identity(_seed(path, _read(path), passphrase or find_passphrase))
    except OSError as error:
        raise StoreError(f"cannot use the key file {path}: {error.strerror}", code="store.key") from None


def create_identity(directory: Path | str, *, name: str, passphrase: Passphrase | None = None) -> Identity:
    """Make a new key in a directory, under a passphrase when one is given.

    Raises:
        StoreError: there is a key already (``store.key_exists``), or the directory cannot be written.
    """
    path = Path(directory) / name
    seed = secrets.token_bytes(KEY_BYTES)
    content = seed if passphrase is None else _protected(seed, passphrase())
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        _write_new(path, content)
    except FileExistsError:
        raise StoreError(
            f"{path} exists already: choose another directory, or replace the key with outroute org rotate",
            code="store.key_exists",
        ) from None
    except OSError as error:
        raise StoreError(f"cannot write the key file {path}: {error.strerror}", code="store.key") from None
    return Identity(seed)


def protect_key(
    directory: Path | str, *, name: str, old: Passphrase | None = None, new: Passphrase | None = None
) -> None:
    """Put a key file under a passphrase, under another one, or (without ``new``) in the clear again.

    Raises:
        StoreError: as ``load_identity``.
    """
    path = Path(directory) / name
    try:
        seed = _seed(path, _read(path), old or find_passphrase)
        _replace(path, seed if new is None else _protected(seed, new()))
    except OSError as error:
        raise StoreError(f"cannot use the key file {path}: {error.strerror}", code="store.key") from None


def replace_identity(directory: Path | str, *, name: str, next_name: str) -> Path:
    """Put the key file ``next_name`` in the place of ``name`` and keep the old one beside it; the old one's new path.

    A crash in between leaves both keys there, one of them under another name; run it again.

    Raises:
        StoreError: the files cannot be moved.
    """
    folder = Path(directory)
    archive = folder / f"{Path(name).stem}-{secrets.token_hex(4)}.old.key"
    try:
        os.link(folder / name, archive)
        os.replace(folder / next_name, folder / name)
        _sync(folder)
    except OSError as error:
        raise StoreError(f"cannot replace the key file {folder / name}: {error.strerror}", code="store.key") from None
    return archive


def former_identities(
    directory: Path | str, *, name: str = KEY_FILE, passphrase: Passphrase | None = None
) -> dict[bytes, Identity]:
    """The keys that a directory had before, by public key: what they signed, only they can withdraw.

    Raises:
        StoreError: as ``load_identity``.
    """
    found: dict[bytes, Identity] = {}
    for former in former_names(directory, name=name):
        one = load_identity(directory, name=former, passphrase=passphrase, create=False)
        found[one.public_key] = one
    return found


def former_names(directory: Path | str, *, name: str = KEY_FILE) -> list[str]:
    """Names of the key files that a directory used before, sorted."""
    return sorted(path.name for path in Path(directory).glob(f"{Path(name).stem}-*.old.key"))


def is_protected(directory: Path | str, *, name: str = KEY_FILE) -> bool:
    """Whether a key file is under a passphrase; false where there is none."""
    try:
        return (Path(directory) / name).stat().st_size != KEY_BYTES
    except OSError:
        return False


def find_passphrase(file: Path | None = None, *, new: bool = False) -> bytes:
    """The passphrase: from a file (its first line), from the environment, or asked for on a terminal.

    Args:
        file: where it stands.
        new: it is a new one: on a terminal it is asked for twice, as a slip would lose the key.

    Raises:
        StoreError: there is none (``store.passphrase``), the two differ, or others may read the file.
    """
    if file is not None:
        try:
            found = _read(file, PASSPHRASE_BYTES + 1).split(b"\n", 1)[0].rstrip(b"\r")
        except OSError as error:
            raise StoreError(f"cannot read the passphrase file {file}: {error.strerror}", code="store.key") from None
    elif PASSPHRASE_VARIABLE in os.environ:
        found = os.environb[PASSPHRASE_VARIABLE.encode()] if os.supports_bytes_environ else _environment()
    elif sys.stdin is not None and sys.stdin.isatty():
        found = getpass.getpass("New passphrase of the key file: " if new else "Passphrase of the key file: ").encode()
        if new and getpass.getpass("The same again: ").encode() != found:
            raise StoreError("the two passphrases differ: nothing was changed, try again", code="store.passphrase")
    else:
        raise StoreError(
            f"the key file is protected: give its passphrase with --passphrase-file FILE, in the environment variable "
            f"{PASSPHRASE_VARIABLE}, or run the command in a terminal",
            code="store.passphrase",
        )
    if not 1 <= len(found) <= PASSPHRASE_BYTES:
        raise StoreError(f"a passphrase has 1 to {PASSPHRASE_BYTES} bytes", code="store.passphrase")
    return found


def _environment() -> bytes:
    return os.environ[PASSPHRASE_VARIABLE].encode()


def _read(path: Path, limit: int = _PROTECTED.size + 1) -> bytes:
    """A file that nobody else may read.

    Raises:
        StoreError: others may.
    """
    with open(path, "rb") as file:
        if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise StoreError(
                f"{path} can be read by others: run chmod 600 on it, and make a new one if they may have",
                code="store.key_mode",
            )
        return file.read(limit)


def _seed(path: Path, data: bytes, passphrase: Passphrase) -> bytes:
    if len(data) == KEY_BYTES:
        return data
    if len(data) != _PROTECTED.size or not data.startswith(_MAGIC):
        raise StoreError(
            f"{path} is not a key: {KEY_BYTES} bytes expected, or {_PROTECTED.size} under a passphrase; restore it "
            "from a backup",
            code="store.key",
        )
    from nacl import bindings, exceptions

    _, operations, kibibytes, salt, nonce, sealed = _PROTECTED.unpack(data)
    if not (1 <= operations <= _MOST_OPERATIONS and 8 <= kibibytes <= _MOST_KIBIBYTES):
        raise StoreError(f"{path} is damaged: restore it from a backup", code="store.key")
    try:
        found: bytes = bindings.crypto_secretbox_open(
            sealed, nonce, _stretched(passphrase(), salt, operations, kibibytes)
        )
    except exceptions.CryptoError:
        raise StoreError(
            f"the passphrase of {path} is wrong, or the file is damaged", code="store.passphrase"
        ) from None
    return found


def _protected(seed: bytes, passphrase: bytes) -> bytes:
    from nacl import bindings

    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(24)
    sealed = bindings.crypto_secretbox(seed, nonce, _stretched(passphrase, salt, OPERATIONS, KIBIBYTES))
    return _PROTECTED.pack(_MAGIC, OPERATIONS, KIBIBYTES, salt, nonce, sealed)


def _stretched(passphrase: bytes, salt: bytes, operations: int, kibibytes: int) -> bytes:
    from nacl import bindings

    key: bytes = bindings.crypto_pwhash_alg(
        32, passphrase, salt, operations, kibibytes * 1024, bindings.crypto_pwhash_ALG_ARGON2ID13
    )
    return key


def _write_new(path: Path, content: bytes) -> None:
    """Write a new file beside its place and link it there, so that a half-written key never has the name.

    Raises:
        FileExistsError: there is one already.
    """
    if path.exists():
        raise FileExistsError
    new = _written(path, content)
    try:
        os.link(new, path)
        _sync(path.parent)
    finally:
        os.unlink(new)


def _replace(path: Path, content: bytes) -> None:
    os.replace(_written(path, content), path)
    _sync(path.parent)


def _written(path: Path, content: bytes) -> Path:
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return new


def _sync(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
