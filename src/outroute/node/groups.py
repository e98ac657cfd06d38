"""Groups that the operator of a fleet declares, such as each device's model: a CSV file of nodes and names.

Where nodes are of one or two organisations, there is no majority among organisations; the consensus is then one over
these groups (``outroute.node.electing``).
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

from outroute.errors import DataError

__all__ = ["GROUPS_BYTES", "GROUP_BYTES", "HEADER", "load_groups", "sizes"]

HEADER = ("node", "group")
"""First line of the file."""
GROUPS_BYTES = 128 * 2**20
"""Most bytes of the file: a million devices."""
GROUP_BYTES = 64
"""Most bytes of a group's name, in UTF-8."""
_NODE_BYTES = 32


def load_groups(path: Path | str) -> dict[bytes, str]:
    """Groups by node id, from CSV.

    Example::

        node,group
        3f9a0c51d2b7...(64 hexadecimal digits),model a

    Raises:
        DataError: ``groups.file``, it cannot be read, is too large, or is no such table; ``groups.row``, a row of it
            cannot be used, or two rows put one node into two groups.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(GROUPS_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read the groups '{path}': {error.strerror}", code="groups.file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not UTF-8 text: {error}", code="groups.file") from None
    if len(data) > GROUPS_BYTES:
        raise DataError(f"'{path}' is larger than {GROUPS_BYTES:,} bytes", code="groups.file")
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""))]
    except csv.Error as error:
        raise DataError(f"'{path}' is no CSV: {error}", code="groups.file") from None
    if not rows or tuple(rows[0]) != HEADER:
        raise DataError(f"'{path}' must begin with the line '{','.join(HEADER)}'", code="groups.file")
    out: dict[bytes, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if any(row):
            node, group = _row(row, f"'{path}', line {number}")
            if out.setdefault(node, group) != group:
                raise DataError(
                    f"'{path}', line {number}: node {node.hex()[:16]} is in group '{out[node]}' already",
                    code="groups.row",
                )
    if not out:
        raise DataError(f"'{path}' names no node", code="groups.file")
    return out


def _row(row: list[str], where: str) -> tuple[bytes, str]:
    if len(row) != len(HEADER):
        raise DataError(f"{where}: a node's id and its group, not {len(row)} cells", code="groups.row")
    try:
        node = bytes.fromhex(row[0])
    except ValueError:
        node = b""
    if len(node) != _NODE_BYTES:
        raise DataError(
            f"{where}: '{row[0][:70]}' is no node's id: 64 hexadecimal digits, as outroute status --json shows them",
            code="groups.row",
        )
    if not row[1] or len(row[1].encode()) > GROUP_BYTES:
        raise DataError(f"{where}: a group's name has 1 to {GROUP_BYTES} bytes", code="groups.row")
    return node, row[1]


def sizes(groups: dict[bytes, str]) -> dict[str, int]:
    """Nodes in each group, the largest first."""
    return dict(sorted(Counter(groups.values()).items(), key=lambda one: (-one[1], one[0])))
