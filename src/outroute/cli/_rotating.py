"""Replacing keys, step by step, so that a crash at any point leaves a directory that works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from outroute.cli._org_dir import NEXT_KEY_FILE, Organisation
from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.identity import Certificate, Identity, Succession
    from outroute.store.keys import Passphrase

__all__ = ["Rotated", "membership_needed", "next_identity", "rotate_node", "rotate_organisation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """An organisation's next key, not in use before ``finish``.

    Attributes:
        directory: of the organisation.
        succession: the statement that the new key follows the old one.
        certificates: of all nodes whose certificates are in force, by the new key, with their old ends; none of
            those that were revoked.
    """

    directory: Path
    succession: Succession
    certificates: tuple[Certificate, ...]

    def finish(self) -> None:
        """Put the new key into use; the old one stays beside it."""
        from outroute.store.keys import ORGANISATION_KEY_FILE, replace_identity

        replace_identity(self.directory, name=ORGANISATION_KEY_FILE, next_name=NEXT_KEY_FILE)


def next_identity(directory: Path, own: Identity, passphrase: Passphrase, *, name: str | None = None) -> Identity:
    """The key that is to follow; made on first use, under a passphrase where the present one is."""
    from outroute.store.keys import KEY_FILE, create_identity, is_protected, load_identity

    if (directory / NEXT_KEY_FILE).exists():
        found = load_identity(directory, name=NEXT_KEY_FILE, passphrase=passphrase, create=False)
        if found.public_key != own.public_key:
            return found
        (directory / NEXT_KEY_FILE).unlink()
    protected = is_protected(directory, name=name or KEY_FILE)
    return create_identity(directory, name=NEXT_KEY_FILE, passphrase=passphrase if protected else None)


def rotate_organisation(organisation: Organisation, now: int, passphrase: Passphrase) -> Rotated:
    """Prepare an organisation's next key and what it says."""
    from outroute.identity import Succession
    from outroute.store.keys import ORGANISATION_KEY_FILE

    own = organisation.identity
    following = next_identity(organisation.directory, own, passphrase, name=ORGANISATION_KEY_FILE)
    revoked = organisation.revoked()
    held = [one for one in organisation.issued().values() if one.not_after > now and one.node not in revoked]
    return Rotated(
        directory=organisation.directory,
        succession=Succession.make(own, following, at=now),
        certificates=tuple(
            following.certify(one.node, not_before=min(one.not_before, now), not_after=one.not_after) for one in held
        ),
    )


def membership_needed(node: Path) -> bool:
    """Whether a node belongs to an organisation, which must then vouch for its next key."""
    from outroute.store.statements import load_certificate

    return load_certificate(node) is not None


def rotate_node(
    node: Path, own: Identity, following: Identity, certificate: Certificate | None, now: int
) -> Succession:
    """Put a node's next key into use.

    Raises:
        DataError: the certificate is not by the node's organisation.
    """
    from outroute.identity import Membership, Succession
    from outroute.store.keys import KEY_FILE, replace_identity
    from outroute.store.statements import StatementFile, load_certificate, load_standing, save_membership

    held = load_certificate(node)
    if held is not None and certificate is not None and certificate.organisation != held.organisation:
        lineage = load_standing(node, now=now).lineage(held.organisation)
        if certificate.organisation not in lineage:
            raise DataError(
                "The certificate is by another organisation than the node's: only its own can vouch for the next key",
                code="org.other_organisation",
            )
    succession = Succession.make(own, following, at=now, certificate=certificate)
    StatementFile(node).append([succession.to_bytes()])
    if certificate is not None:
        save_membership(node, Membership.accept(following, certificate), now=now)
    replace_identity(node, name=KEY_FILE, next_name=NEXT_KEY_FILE)
    return succession
