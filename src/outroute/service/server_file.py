"""Where the interface of a running node is: a file in the node's directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["API_FILE", "Where", "where_is"]

API_FILE = "api.json"
"""In a node's directory while its interface runs: where."""
_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where the interface of a directory's node runs.

    Attributes:
        url: of the interface.
        node: id of the node, in hex.
        pid: its process.
    """

    url: str
    node: str
    pid: int


def where_is(directory: Path) -> Where | None:
    """Where the interface of a directory's node runs, as its file says; the process may be gone."""
    try:
        with open(directory / API_FILE, encoding="utf-8") as file:
            content = json.loads(file.read(_FILE_BYTES))
        return Where(url=str(content["url"]), node=str(content["node"]), pid=int(content["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
