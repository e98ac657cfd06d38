"""Organisations sign a schema that they agree to, and a quorum of those that it names makes it count.

A signature is over the schema's id, which is the hash of everything that a network agrees on. Signatures lie in a
file beside the schema, one a line, so that it can be passed round, appended to and merged in any order. Source:
DESIGN section 4; ``docs/specification.md``, Signatures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outroute.errors import SchemaError
from outroute.schema.model import Schema

if TYPE_CHECKING:
    from outroute.identity import Identity

__all__ = [
    "MAX_SIGNATURES",
    "SchemaSignature",
    "Signed",
    "read_signatures",
    "require_signed",
    "sign_schema",
    "verify_signatures",
    "write_signatures",
]

MAX_SIGNATURES = 10_000
"""Lines of a file of signatures: a hundred organisations over a hundred versions."""

_ID_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaSignature:
    """An organisation's word that it agrees to a schema.

    Attributes:
        schema: id of the schema, 32 bytes.
        organisation: public key, 32 bytes.
        signature: 64 bytes.
    """

    schema: bytes
    organisation: bytes
    signature: bytes

    def holds(self) -> bool:
        """Whether the signature is right."""
        from outroute.identity import Purpose, verify

        return verify(Purpose.SCHEMA, self.organisation, self.schema, self.signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Who signed a schema.

    Attributes:
        valid: organisations named in the schema that signed it, sorted.
        missing: organisations named in the schema that have not, sorted.
        foreign: keys that signed it and are not named in it: they do not count.
        bad: keys under whose name a wrong signature stands.
        others: how many signatures are for other schemas.
        quorum: how many are needed; 0 where the schema names nobody.
    """

    valid: tuple[bytes, ...]
    missing: tuple[bytes, ...]
    foreign: tuple[bytes, ...]
    bad: tuple[bytes, ...]
    others: int
    quorum: int

    @property
    def quorum_reached(self) -> bool:
        """Whether enough of those named signed; always so where nobody is named."""
        return len(self.valid) >= self.quorum


def sign_schema(schema: Schema, identity: Identity) -> SchemaSignature:
    """Sign a schema as an organisation.

    Raises:
        SchemaError: when the schema does not name this organisation: its signature would not count.
    """
    from outroute.identity import Purpose

    if identity.public_key not in schema.organisations:
        named = "it names nobody" if not schema.organisations else "it names others"
        raise SchemaError(
            f"schema '{schema.name}' does not name the organisation {identity.public_key.hex()} ({named}): add its key "
            "under [agreement], which makes another schema, or sign with another key",
            code="schema.organisation",
        )
    return SchemaSignature(
        schema=schema.id,
        organisation=identity.public_key,
        signature=identity.sign(Purpose.SCHEMA, schema.id),
    )


def verify_signatures(schema: Schema, signatures: Iterable[SchemaSignature]) -> Signed:
    """Who signed a schema; the order of signatures, and how often each comes, do not matter."""
    named = set(schema.organisations)
    valid, foreign, bad = set[bytes](), set[bytes](), set[bytes]()
    others = 0
    for one in set(signatures):
        if one.schema != schema.id:
            others += 1
        elif not one.holds():
            bad.add(one.organisation)
        else:
            (valid if one.organisation in named else foreign).add(one.organisation)
    return Signed(
        valid=tuple(sorted(valid)),
        missing=tuple(sorted(named - valid)),
        foreign=tuple(sorted(foreign)),
        bad=tuple(sorted(bad)),
        others=others,
        quorum=schema.quorum,
    )


def require_signed(schema: Schema, signatures: Iterable[SchemaSignature]) -> Signed:
    """Refuse a schema that too few have signed.

    Raises:
        SchemaError: ``schema.unsigned``, with how many are missing and who has not signed yet.
    """
    found = verify_signatures(schema, signatures)
    if not found.quorum_reached:
        waiting = ", ".join(key.hex()[:12] for key in found.missing[:5])
        more = f" and {len(found.missing) - 5} more" if len(found.missing) > 5 else ""
        raise SchemaError(
            f"schema '{schema.name}' ({schema.id.hex()[:16]}) is signed by {len(found.valid)} of the {found.quorum} "
            f"organisations that must agree; not signed by {waiting}{more}. Get the file of signatures that "
            "lies beside the schema, or have them run outroute schema sign",
            code="schema.unsigned",
        )
    return found


def write_signatures(signatures: Iterable[SchemaSignature]) -> str:
    """Signatures as text: a JSON object a line, sorted."""
    lines = {
        json.dumps(
            {"organisation": s.organisation.hex(), "schema": s.schema.hex(), "signature": s.signature.hex()},
            sort_keys=True,
        )
        for s in signatures
    }
    return "".join(line + "\n" for line in sorted(lines))


def read_signatures(text: str) -> tuple[SchemaSignature, ...]:
    """Read what :func:`write_signatures` wrote, lines in any order; blank lines count for nothing.

    Raises:
        SchemaError: ``schema.signatures``, a line that is no signature, or too many of them.
    """
    lines = text.splitlines()
    if len(lines) > MAX_SIGNATURES:
        raise SchemaError(f"a file of signatures has at most {MAX_SIGNATURES} lines", code="schema.signatures")
    return tuple(_read_line(line, number) for number, line in enumerate(lines, 1) if line.strip())


def _read_line(line: str, number: int) -> SchemaSignature:
    from outroute.identity import KEY_BYTES, SIGNATURE_BYTES

    sizes = {"organisation": KEY_BYTES, "schema": _ID_BYTES, "signature": SIGNATURE_BYTES}
    try:
        found = json.loads(line)
        values = {name: bytes.fromhex(found[name]) for name in sizes}
        right = set(found) == set(sizes) and all(len(values[name]) == size for name, size in sizes.items())
    except (ValueError, TypeError, KeyError, RecursionError):
        right = False
    if not right:
        raise SchemaError(
            f"line {number} of the signatures is no signature of a schema: take that line out, or get the file again",
            code="schema.signatures",
        )
    return SchemaSignature(**values)
