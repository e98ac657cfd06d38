"""What ``outroute org show`` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from outroute.cli._org_dir import Organisation, day

if TYPE_CHECKING:
    from outroute.identity import Identity
    from outroute.store.keys import Passphrase

__all__ = ["node_view", "organisation_view"]

#: Certificates that end within so many seconds (30 days) are counted: time enough to enrol again.
SOON_SECONDS = 30 * 86_400


def organisation_view(organisation: Organisation, now: int, passphrase: Passphrase) -> dict[str, Any]:
    """An organisation: its key, its name, and how many certificates it has out."""
    from outroute.store.keys import ORGANISATION_KEY_FILE, former_identities, is_protected

    issued = organisation.issued().values()
    ends = [one.not_after for one in issued if one.not_after >= now]
    former = former_identities(organisation.directory, name=ORGANISATION_KEY_FILE, passphrase=passphrase)
    return {
        "organisation": organisation.identity.public_key.hex(),
        "name": organisation.name,
        "protected": is_protected(organisation.directory, name=ORGANISATION_KEY_FILE),
        "nodes_enrolled": len(issued),
        "certificates_in_force": len(ends),
        "ending_within_30_days": sum(end < now + SOON_SECONDS for end in ends),
        "revoked": len(organisation.revoked()),
        "former_keys": ", ".join(sorted(one.hex() for one in former)),
    }


def node_view(node: Path, own: Identity, now: int) -> dict[str, Any]:
    """A node: its key, its certificate, and what it knows."""
    from outroute.store.keys import is_protected
    from outroute.store.statements import load_certificate, load_standing

    certificate, register = load_certificate(node), load_standing(node, now=now)
    return {
        "node": own.public_key.hex(),
        "id": own.id.hex(),
        "protected": is_protected(node),
        "organisation": None if certificate is None else certificate.organisation.hex(),
        "certified_until": None if certificate is None else day(certificate.not_after),
        "certificate_holds": certificate is not None and certificate.holds(now),
        "revoked": register.revoked(own.public_key, now),
        "statements_known": len(register),
        "former_keys": ", ".join(one.hex() for one in register.lineage(own.public_key)[:-1]),
    }
