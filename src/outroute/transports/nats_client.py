"""nats-py's client, which does not speak in the clear where TLS is wanted.

Without this a server, or somebody on the line, that does not offer TLS would be sent credentials all the same.
"""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client
from nats.errors import SecureConnWantedError

__all__ = ["VerifyingClient"]


class VerifyingClient(Client):
    """A client that insists on TLS.

    Args:
        tls_needed: whether it does.
    """

    def __init__(self, *, tls_needed: bool) -> None:
        super().__init__()
        self._tls_needed = tls_needed

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """What a server says of itself, before anything is sent to it."""
        if initial_connection and self._tls_needed and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise SecureConnWantedError
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)
