"""The node's private key as a file that only its owner can read."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from outroute.errors import StoreError
from outroute.identity import KEY_BYTES, Identity

__all__ = ["KEY_FILE", "load_identity"]

KEY_FILE = "node.key"
"""Name of the key file in a data directory: 32 bytes, mode 0600."""


def load_identity(directory: Path | str) -> Identity:
    """The identity of a data directory; made on first use, synced to disk before it signs anything.

    Raises:
        StoreError: the file cannot be read or written, is not a key, or others may read it.
    """
    path = Path(directory) / KEY_FILE
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            _create(path)
        with open(path, "rb") as file:
            if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise StoreError(
                    f"{path} can be read by others: run chmod 600 on it, and make a new key if they may have",
                    code="store.key_mode",
                )
            seed = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise StoreError(f"cannot use the key file {path}: {error.strerror}", code="store.key") from None
    if len(seed) != KEY_BYTES:
        raise StoreError(f"{path} is not a key: {KEY_BYTES} bytes expected", code="store.key")
    return Identity(seed)


def _create(path: Path) -> None:
    """Write a new key beside its place and link it there, so that a half-written key never has the name.

    Raises:
        FileExistsError: there is a key already.
    """
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    if path.exists():
        raise FileExistsError
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(new, path)
        if os.name == "posix":
            parent = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
    finally:
        os.unlink(new)
