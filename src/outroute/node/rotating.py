"""The network secret rotates while a node runs: its file is read again when it changes."""

from __future__ import annotations

from pathlib import Path

from outroute.errors import StoreError, TransportError
from outroute.node.joining import load_secrets
from outroute.transports.channel import Secrets

__all__ = ["Rotating"]


class Rotating:
    """A file with the network secret, and what it said last.

    Args:
        file: see ``load_secrets``.
        secrets: what was read at the start; a closed network does not become an open one while a node runs.
    """

    def __init__(self, file: Path, secrets: Secrets) -> None:
        self._file, self._known = file, secrets
        self._seen: tuple[int, int, int] | None = None

    def refresh(self) -> Secrets | None:
        """The secrets, if the file holds others than before.

        Raises:
            StoreError, TransportError: it cannot be used (half written, say); what was known before stays good.
        """
        try:
            found = self._file.stat()
        except OSError as error:
            raise StoreError(
                f"cannot read the network secret '{self._file}': {error.strerror}; the one read before is used",
                code="secret.read",
            ) from None
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen == self._seen:
            return None
        try:
            read = load_secrets(self._file)
        except TransportError as error:
            raise TransportError(f"{error}; the one read before is used", code=error.code) from None
        self._seen = seen
        if read == self._known:
            return None
        self._known = read
        return read
