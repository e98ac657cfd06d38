"""Statements about keys, and what follows from sets of them."""

from __future__ import annotations

from declared import Json
from parts import ALICE, BOB, CLINIC, NOW

from outroute.identity import Identity, Membership, Register, Revocation, Statement, Succession

__all__ = ["statements"]

THIEF, NEXT, HEIR = (bytes([n]) * 32 for n in (10, 11, 12))
"""Seeds of a stranger, of a node's next key and of an organisation's next key."""
YEAR = 365 * 86_400


def _membership(org: bytes, node: bytes) -> Membership:
    certificate = Identity(org).certify(Identity(node).public_key, not_before=NOW, not_after=NOW + YEAR)
    return Membership.accept(Identity(node), certificate)


def _revocation(org: bytes, subject: bytes, *, compromised: bool = False) -> Revocation:
    return Revocation.make(Identity(org), Identity(subject).public_key, at=NOW, compromised=compromised)


def _succession(old: bytes, new: bytes, org: bytes | None = None) -> Succession:
    vouched = None
    if org is not None:
        vouched = Identity(org).certify(Identity(new).public_key, not_before=NOW, not_after=NOW + YEAR)
    return Succession.make(Identity(old), Identity(new), at=NOW, certificate=vouched)


def _sets() -> dict[str, list[Statement]]:
    alice = _membership(CLINIC, ALICE)
    return {
        "a node of an organisation": [alice],
        "a node's key certifies nobody": [alice, _membership(ALICE, THIEF)],
        "revoked by its organisation": [alice, _revocation(CLINIC, ALICE)],
        "revoked by a stranger": [alice, _revocation(THIEF, ALICE, compromised=True)],
        "compromised": [alice, _revocation(CLINIC, ALICE, compromised=True)],
        "an organisation revoked by itself": [alice, _membership(CLINIC, BOB), _revocation(CLINIC, CLINIC)],
        "a node followed by another": [alice, _succession(ALICE, NEXT, CLINIC), _membership(CLINIC, NEXT)],
        "a thief follows a node": [alice, _succession(ALICE, THIEF), _succession(ALICE, NEXT, THIEF)],
        "an organisation followed by another": [alice, _succession(CLINIC, HEIR), _revocation(HEIR, ALICE)],
        "two successors": [alice, _succession(CLINIC, HEIR), _succession(CLINIC, THIEF)],
        "a circle": [_succession(ALICE, BOB), _succession(BOB, ALICE)],
        "a stolen organisation": [
            alice,
            _succession(CLINIC, THIEF),
            _revocation(CLINIC, CLINIC, compromised=True),
        ],
    }


def statements() -> list[Json]:
    """Sets of statements, and what they say about keys at a time."""
    out: list[Json] = []
    keys = [Identity(seed).public_key for seed in (ALICE, BOB, CLINIC, THIEF, NEXT, HEIR)]
    for note, said in _sets().items():
        register = Register()
        for one in said:
            register.learn(one.to_bytes(), NOW)
        out.append(
            {
                "note": note,
                "statements": [one.to_bytes().hex() for one in said],
                "now": NOW,
                "keys": [
                    {
                        "key": key.hex(),
                        "organisation": register.organisation_of(key, NOW).hex(),
                        "revoked": register.revoked(key, NOW),
                        "compromised": register.compromised(key, NOW),
                        "chain": [one.hex() for one in register.lineage(key)],
                    }
                    for key in keys
                ],
            }
        )
    return out
