"""Places where members are reached, as strangers write them: nothing else is ever called."""

from __future__ import annotations

import re

__all__ = ["PORT_MOST", "is_place"]

PORT_MOST = 65_535
"""Ports are numbers of 16 bits."""
_PLACE = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):([0-9]{1,5})", re.ASCII)


def is_place(text: str) -> bool:
    """Whether a text is ``HOST:PORT`` (also ``[::1]:7000``) of which the system can be asked to call it."""
    found = _PLACE.fullmatch(text)
    if found is None or int(found[2]) > PORT_MOST:
        return False
    try:
        found[1].encode("idna")  # a label may be empty or too long: looking such a name up is no ordinary failure
    except UnicodeError:
        return found[1].startswith("[")
    return True
