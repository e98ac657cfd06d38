"""What happens in one slot: duplicates, withdrawals and equivocation, whatever the order of arrival."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from outroute.packet import SIGNED_BYTES
from outroute.placement import Kept, Part
from outroute.store.rows import identity_of, slot_key_of

__all__ = ["Row", "Slot", "decide", "load_slots"]

#: Pairs of cell and slot looked up by one statement: a whole frame.
_PAIRS = 128

_LOOK_UP = (
    f"WITH wanted (cell, slot) AS (VALUES {', '.join(['(?, ?)'] * _PAIRS)}) "
    "SELECT p.cell, p.id, p.part, p.expires, p.slot, p.author, p.body "
    "FROM wanted CROSS JOIN packets AS p ON p.cell = wanted.cell AND p.slot = wanted.slot ORDER BY p.id"
)


@dataclass(slots=True)
class Row:
    """One packet in a slot; ``id`` is ``None`` until it is written, ``index`` its place in the batch."""

    part: Part
    expires: int
    body: bytes
    slot: int
    author: int
    index: int = -1
    id: int | None = None
    changed: bool = False


@dataclass(slots=True)
class Slot:
    """What a slot holds: nothing, one packet, two (proof of equivocation), or a withdrawal."""

    rows: list[Row] = field(default_factory=list)
    before: dict[int, Part] = field(default_factory=dict)
    changed: bool = False

    def growth(self) -> tuple[int, int]:
        """How many packets, and how many withdrawals and proofs, the slot has gained."""
        packets = marks = 0
        for row in self.rows:
            if row.part == Part.PACKET:
                packets += 1
            else:
                marks += 1
        for part in self.before.values():
            if part == Part.PACKET:
                packets -= 1
            else:
                marks -= 1
        return packets, marks

    def gone(self) -> list[int]:
        """Rows to delete."""
        stay = {row.id for row in self.rows}
        return [number for number in self.before if number not in stay]


def load_slots(connection: sqlite3.Connection, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, bytes], Slot]:
    """What lies in the slots of these (cell, slot hash) pairs, by cell and full slot key."""
    found: dict[tuple[int, bytes], Slot] = {}
    distinct = list(dict.fromkeys(pairs))
    for start in range(0, len(distinct), _PAIRS):
        chunk = distinct[start : start + _PAIRS]
        values = [value for pair in chunk for value in pair] + [-1] * (2 * (_PAIRS - len(chunk)))
        rows = connection.execute(_LOOK_UP, values).fetchall()
        for row, key in zip(rows, slot_key_of([row[6] for row in rows]), strict=True):
            cell, number, part, expires, hashed, author, body = row
            slot = found.setdefault((cell, key), Slot())
            if number not in slot.before:
                slot.rows.append(Row(Part(part), expires, body, hashed, author, id=number))
                slot.before[number] = Part(part)
    return found


def decide(slot: Slot, incoming: Row) -> Kept:
    """Put one packet into its slot.

    What a slot ends with depends on the set of packets only, not on their order: a withdrawal dominates (of
    two, the one with the lower identity stays, for as long as either was to last); of more than two packets, the two
    with the lowest identities stay as proof.
    """
    withdrawal = next((row for row in slot.rows if row.part == Part.WITHDRAWAL), None)
    span = incoming.body[:SIGNED_BYTES]
    if incoming.part == Part.WITHDRAWAL:
        if withdrawal is None:
            incoming.expires = max([incoming.expires, *(row.expires for row in slot.rows)])
            _replace(slot, [incoming])
            return Kept.STORED
        lasts = max(incoming.expires, withdrawal.expires)
        if withdrawal.body[:SIGNED_BYTES] != span and identity_of(incoming.body) < identity_of(withdrawal.body):
            incoming.expires = lasts
            _replace(slot, [incoming])
        elif lasts > withdrawal.expires:
            withdrawal.expires = lasts
            withdrawal.changed = slot.changed = True
        return Kept.DUPLICATE
    if withdrawal is not None:
        if incoming.expires > withdrawal.expires:  # it must outlive what it withdraws
            withdrawal.expires = incoming.expires
            withdrawal.changed = slot.changed = True
        return Kept.WITHDRAWN
    if not slot.rows:
        _replace(slot, [incoming])
        return Kept.STORED
    if any(row.body[:SIGNED_BYTES] == span for row in slot.rows):
        return Kept.DUPLICATE if len(slot.rows) == 1 else Kept.EQUIVOCATION
    proof = sorted([*slot.rows, incoming], key=lambda row: identity_of(row.body))[:2]
    for row in proof:
        if row.part != Part.PROOF:
            row.part, row.changed = Part.PROOF, True
    if proof != slot.rows:
        _replace(slot, proof)
    return Kept.EQUIVOCATION


def _replace(slot: Slot, rows: list[Row]) -> None:
    slot.rows = rows
    slot.changed = True
