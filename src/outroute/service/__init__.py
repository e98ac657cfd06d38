"""A running node as a service: its HTTP interface, the client for it, its logs and its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outroute.service.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    """The client needs the extra ``service``; what needs it is loaded when it is used."""
    if name == "Client":
        from outroute.service.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
