"""Write the example packet into docs/privacy-officer.md: ``python docs/generate_packet.py`` (``--check`` only compares).

Five made-up visits go through the code that makes every packet; key and secret are fixed, so that the bytes are always
the same.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from outroute.cli._readable import Part, parts_of
from outroute.distill import Observations, distil
from outroute.identity import Identity
from outroute.node.emitting import make_packets
from outroute.packet import PacketArray, accept
from outroute.schema import Schema, encode, encode_outcome, loads

PAGE = Path(__file__).parent / "privacy-officer.md"
BEGIN, END = "<!-- example: written by generate_packet.py -->", "<!-- end of example -->"
DAY = 1_741_046_400  # 4 March 2025

SCHEMA = """\
name = "ward"

[outcome]
name = "sick"
kind = "binary"
classes = ["no", "yes"]

[privacy]
distiller = "cohort"
k = 5
subject = "patient"

[time]
bucket = "30 days"
lifetime = "5 years"

[landmarks]
kind = "drawn"
count = 16

[fields.age]
kind = "numeric"
low = 0
high = 110
unit = "years"
integer = true

[fields.sex]
kind = "categorical"
categories = ["f", "m"]

[fields.crp]
kind = "numeric"
low = 0
high = 300
unit = "mg/l"
"""
COLUMNS = {
    "age": [61, 58, 66, 63, 59],
    "sex": ["f", "m", "f", "f", "m"],
    "crp": [88.0, 102.5, 74.0, None, 95.5],
}
OUTCOMES = ["yes", "no", "yes", "yes", "no"]
LINE = 8


def example() -> tuple[Schema, PacketArray]:
    """The schema and the one packet that the five visits become."""
    schema = loads(SCHEMA)
    n = len(OUTCOMES)
    observations = Observations(
        codes=encode(schema, COLUMNS).codes,
        outcome=encode_outcome(schema.outcome, OUTCOMES),
        subject=np.arange(n, dtype=np.int64),
        bucket=np.full(n, schema.time.bucket(DAY), dtype=np.int64),
        facet=np.zeros(n, dtype=np.int64),
    )
    made = make_packets(
        schema,
        observations,
        distil(schema, observations),
        identity=Identity(hashlib.sha256(b"example node").digest()),
        first_sequence=(DAY << 32) + 7,
        nonce=lambda: hashlib.sha256(b"example secret").digest(),
        secret=b"",
    )
    assert len(made.packets) == 1
    assert accept(made.packets, schema, DAY).ok.all()
    return schema, made.packets


def section() -> str:
    """What stands between the marks."""
    schema, packet = example()
    patients = zip("ABCDE", COLUMNS["age"], COLUMNS["sex"], COLUMNS["crp"], OUTCOMES, strict=True)
    lines = [
        BEGIN,
        "",
        "**What stays with the node**: five visits of five patients.",
        "",
        "| patient | age | sex | crp | sick |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join('not measured' if v is None else str(v) for v in row)} |" for row in patients),
        "",
        f"**What would leave**: 512 bytes, digest `{hashlib.sha256(packet.tobytes()).hexdigest()}`.",
        "",
        "| bytes | in hex | what they say |",
        "|---|---|---|",
        *(f"| {part.place} | {_hex(part)} | {part.says} |" for part in parts_of(schema, packet)),
        "",
        END,
    ]
    return "\n".join(lines)


def _hex(part: Part) -> str:
    if len(part.data) > LINE and not any(part.data):
        return f"`00` ({len(part.data)} times)"
    rows = [part.data[at : at + LINE].hex(" ") for at in range(0, len(part.data), LINE)]
    return "<br>".join(f"`{row}`" for row in rows)


def page() -> str:
    """The whole page, with the example as it is now."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + section() + tail


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == made else f"{PAGE} is out of date: run this without --check")
    PAGE.write_text(made, encoding="utf-8")
