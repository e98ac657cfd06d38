"""Errors for misuse: each has a stable code and a message that says what to do next.

What other nodes send never raises: it becomes a counted ``Rejected`` value (see ``outroute.packet``).
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "MissingExtraError",
    "OutrouteError",
    "PrivacyError",
    "SchemaError",
    "StoreError",
    "TransportError",
]


class OutrouteError(Exception):
    """Base of every error that outroute raises on purpose.

    Attributes:
        code: stable, machine-readable, for example ``"schema.range"``; does not change between releases.
    """

    code: str

    def __init__(self, message: str, *, code: str = "outroute") -> None:
        super().__init__(message)
        self.code = code


class SchemaError(OutrouteError):
    """A schema, landmark file or mapping that cannot be used as it is."""


class DataError(OutrouteError):
    """A table, value or file of the user's that cannot be used as it is."""


class PrivacyError(OutrouteError):
    """Something that the schema's privacy floor does not allow to leave."""


class StoreError(OutrouteError):
    """The node's data directory cannot be read or written."""


class TransportError(OutrouteError):
    """A transport that cannot be reached, configured or used."""


class MissingExtraError(OutrouteError):
    """An optional part that is not installed; the message names the extra to install."""

    def __init__(self, extra: str, needs: str) -> None:
        super().__init__(f"{needs} needs the extra '{extra}': pip install 'outroute[{extra}]'", code=f"extra.{extra}")
