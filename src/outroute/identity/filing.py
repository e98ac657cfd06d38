"""Where a statement is filed in a register, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique

from outroute.identity.statements import Membership, Revocation, Statement, Succession

__all__ = ["Learned", "Refused", "StatementReason", "filed", "issuer_of"]


@unique
class StatementReason(IntEnum):
    """Why a statement is not taken in; the numbers are stable."""

    FORM = 1
    SIGNATURE = 2
    FUTURE = 3
    #: Of an organisation that the network does not name.
    FOREIGN = 4
    #: There is no room for more, of this organisation or at all.
    FULL = 5
    #: So many other successors of this key are known that none of them counts.
    FORKED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A statement that counts; ``new`` is false when it, or one that says more, was known."""

    statement: Statement
    new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A statement that is not taken in."""

    reason: StatementReason


def issuer_of(statement: Succession) -> bytes:
    """The organisation that vouches for a new key; empty where none does."""
    return b"" if statement.certificate is None else statement.certificate.organisation


def filed(statement: Statement, data: bytes) -> tuple[tuple[bytes, ...], bytes, tuple[int, int, bytes]]:
    """Where a statement is filed, whose room it takes, and its rank: of one place the highest stays."""
    if isinstance(statement, Membership):
        one = statement.certificate
        return (b"m", one.organisation, one.node), one.organisation, (one.not_after, one.not_before, data)
    if isinstance(statement, Revocation):
        place = (b"r", statement.organisation, statement.subject)
        return place, statement.organisation, (int(statement.compromised), -statement.at, data)
    issuer = issuer_of(statement)
    return (b"s", statement.old, issuer, statement.new), issuer or statement.old, (0, -statement.at, data)
