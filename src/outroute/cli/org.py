"""``outroute org``: an organisation's key, and what it says about the keys of its nodes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from outroute.cli._common import emit_json, handled, print_table, say, warn, working, write_files
from outroute.cli._options import Force, Json
from outroute.cli._org_dir import (
    Organisation,
    certificate_line,
    certificates_in,
    day,
    keep_name,
    key_of,
    keys_in,
    statement_line,
    statements_in,
)
from outroute.cli._org_views import node_view, organisation_view
from outroute.errors import DataError, StoreError
from outroute.service.server_file import where_is

if TYPE_CHECKING:
    from outroute.identity import Certificate, Identity
    from outroute.store.keys import Passphrase

__all__ = ["org_app", "passphrase_from"]

org_app = typer.Typer(no_args_is_help=True, help="Organisations: enrol nodes, renew, replace and revoke keys.")

Org = Annotated[Path, typer.Option("--org", help="The organisation's directory.", show_default=False)]
OneOrg = Annotated[Path | None, typer.Option("--org", help="An organisation's directory.", show_default=False)]
OneNode = Annotated[Path | None, typer.Option("--node", help="A node's directory.", show_default=False)]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File with the passphrase of a protected key file.", show_default=False),
]
Days = Annotated[int, typer.Option(min=1, max=3660, help="How long the certificates hold.")]

DAY_SECONDS = 86_400


def passphrase_from(file: Path | None, *, new: bool = False) -> Passphrase:
    """Where the passphrase of key files comes from: a file, the environment, or the terminal; looked up once."""
    from functools import cache

    from outroute.store.keys import find_passphrase

    return cache(lambda: find_passphrase(file, new=new))


@org_app.command("init")
@handled
def init(
    directory: Annotated[Path, typer.Argument(help="Where its key shall lie; keep it offline.", show_default=False)],
    name: Annotated[str, typer.Option(help="A name for people; it never leaves this directory.")] = "",
    protect: Annotated[bool, typer.Option("--protect", help="Put the key file under a passphrase.")] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make an organisation: a key that certifies the keys of nodes."""
    from outroute.store.keys import ORGANISATION_KEY_FILE, create_identity

    protected = protect or passphrase_file is not None
    identity = create_identity(
        directory,
        name=ORGANISATION_KEY_FILE,
        passphrase=passphrase_from(passphrase_file, new=True) if protected else None,
    )
    keep_name(directory, name)
    if as_json:
        emit_json({"organisation": identity.public_key.hex(), "name": name, "protected": protected})
        return
    typer.echo(identity.public_key.hex())
    say(f"This is the organisation's public key; the private one is in {directory}: keep a copy offline.")
    say(f"Next: outroute org enrol --org {directory} --key NODE_KEY -o certificates.ndjson")


@org_app.command("enrol")
@handled
def enrol(
    org: Org,
    node: OneNode = None,
    key: Annotated[
        list[str] | None, typer.Option(help="Public key of a node, in hex; may be repeated.", show_default=False)
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="File of public keys, one a line.", show_default=False)] = None,
    days: Days = 365,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File for the certificates.", show_default=False)
    ] = None,
    force: Force = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Certify keys of nodes. With --node and without -o the certificate is installed there at once."""
    if sum((node is not None, bool(key), keys is not None)) != 1:
        raise DataError("Say whom to enrol: --node DIR, --key HEX (several times), or --keys FILE", code="org.whom")
    if output is None and node is None:
        raise DataError("Say where the certificates shall go: -o certificates.ndjson", code="org.output")
    organisation = Organisation.open(org, passphrase_from(passphrase_file))
    own = None if node is None else _node_identity(node, passphrase_file)
    if own is not None:
        wanted = [own.public_key]
    else:
        wanted = keys_in(keys) if keys is not None else [key_of(one) for one in key or ()]
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        raise DataError("There is no key to enrol: the file is empty", code="org.whom")
    if organisation.identity.public_key in wanted:
        raise DataError("That is the organisation's own key: enrol the keys of nodes", code="org.key")
    revoked = organisation.revoked().intersection(wanted)
    if revoked:
        raise DataError(
            f"{min(revoked).hex()} was revoked, which cannot be taken back: have that node make a new key",
            code="org.revoked",
        )
    began, now = time.perf_counter(), int(time.time())
    with working(f"certifying {len(wanted):,} keys"):
        made = [
            organisation.identity.certify(one, not_before=now, not_after=now + days * DAY_SECONDS) for one in wanted
        ]
        if output is not None:
            _can_write(output, force)
        organisation.note(made)
        if output is not None:
            write_files({output: "".join(map(certificate_line, made))}, force=force)
    if output is None and node is not None and own is not None:
        _install(node, own, made[0], now)
    rate = len(made) / max(time.perf_counter() - began, 1e-9)
    if as_json:
        emit_json({"enrolled": len(made), "per_second": round(rate), "until": now + days * DAY_SECONDS})
        return
    say(f"{organisation.label} enrolled {len(made):,} ({rate:,.0f} a second), until {day(made[0].not_after)}.")
    if output is not None:
        say(f"Next, on each node: outroute org install {output} --node DIR")


@org_app.command("install")
@handled
def install(
    certificate: Annotated[Path, typer.Argument(help="File that enrol wrote.", show_default=False)],
    node: Annotated[Path, typer.Option("--node", help="The node's directory.", show_default=False)],
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give a node its certificate; the node finds its own in a file of many."""
    own = _node_identity(node, passphrase_file)
    one = _install(node, own, _certificate_for(certificate, own.public_key), int(time.time()))
    if as_json:
        emit_json({"node": own.public_key.hex(), "organisation": one.organisation.hex(), "until": one.not_after})
        return
    say(f"The node belongs to organisation {one.organisation.hex()[:16]} until {day(one.not_after)}.")
    if where_is(node) is not None:
        say("It runs: it shows the certificate from its next start on.")


@org_app.command("rotate")
@handled
def rotate(
    org: OneOrg = None,
    node: OneNode = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Certificate of the node's next key.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File for the statement.", show_default=False)
    ] = None,
    renewed: Annotated[
        Path | None, typer.Option(help="File for the certificates that the new key renews.", show_default=False)
    ] = None,
    force: Force = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Replace a key by a new one that others know to follow it.

    A node of an organisation is rotated in two steps: the first makes the next key and prints it; once that is
    enrolled, the second, with --certificate, puts it into use.
    """
    from outroute.cli import _rotating

    if (org is None) == (node is None):
        raise DataError("Say whose key to replace: --org DIR or --node DIR", code="org.whom")
    passphrase = passphrase_from(passphrase_file)
    if org is not None:
        if output is None or renewed is None:
            raise DataError(
                "Say where the statement and the renewed certificates shall go: -o succession.ndjson --renewed "
                "certificates.ndjson",
                code="org.output",
            )
        _can_write(output, force)
        _can_write(renewed, force)
        organisation = Organisation.open(org, passphrase)
        with working("renewing certificates"):
            done = _rotating.rotate_organisation(organisation, int(time.time()), passphrase)
        write_files(
            {renewed: "".join(map(certificate_line, done.certificates)), output: statement_line(done.succession)},
            force=force,
        )
        organisation.note(done.certificates)
        done.finish()
        if as_json:
            emit_json({"old": done.succession.old.hex(), "new": done.succession.new.hex()})
            return
        typer.echo(done.succession.new.hex())
        say(
            f"{len(done.certificates):,} certificates renewed. Next: outroute org learn {output} --node DIR on one node"
        )
        say(f"that is running, outroute org install {renewed} --node DIR on each; then, if it is to count no more,")
        say(f"outroute org revoke {done.succession.old.hex()} --org {org} -o revocation.ndjson")
        return
    assert node is not None
    own = _node_identity(node, passphrase_file)
    following = _rotating.next_identity(node, own, passphrase)
    held = _rotating.membership_needed(node)
    if held and certificate is None:
        if as_json:
            emit_json({"old": own.public_key.hex(), "next": following.public_key.hex(), "done": False})
            return
        typer.echo(following.public_key.hex())
        say("This is the node's next public key, not in use yet. Next, at the organisation:")
        say(f"outroute org enrol --org DIR --key {following.public_key.hex()} -o certificate.ndjson, then here:")
        say(f"outroute org rotate --node {node} --certificate certificate.ndjson")
        return
    new = None if certificate is None else _valid(_certificate_for(certificate, following.public_key), int(time.time()))
    succession = _rotating.rotate_node(node, own, following, new, int(time.time()))
    if output is not None:
        write_files({output: statement_line(succession)}, force=force)
    if as_json:
        emit_json({"old": succession.old.hex(), "new": succession.new.hex(), "done": True})
        return
    typer.echo(succession.new.hex())
    say("The new key is in use from the node's next start. The old one stays beside it: only it can withdraw what it")
    say("signed. The node itself tells the others that the new key follows the old one.")


@org_app.command("revoke")
@handled
def revoke(
    org: Org,
    key: Annotated[str | None, typer.Argument(help="Public key of a node, in hex.", show_default=False)] = None,
    itself: Annotated[bool, typer.Option("--self", help="The organisation itself, with all its nodes.")] = False,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Others may have the key: believe nothing that it ever signed.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File for the statement.", show_default=False)
    ] = None,
    force: Force = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Say that a key counts no more. It cannot be taken back."""
    from outroute.identity import Revocation
    from outroute.store.keys import ORGANISATION_KEY_FILE, former_identities

    if (key is None) == (not itself):
        raise DataError("Say what to revoke: the KEY of a node, or --self", code="org.whom")
    if output is None:
        raise DataError("Say where the statement shall go: -o revocation.ndjson", code="org.output")
    passphrase = passphrase_from(passphrase_file)
    organisation = Organisation.open(org, passphrase)
    signer = organisation.identity
    subject = signer.public_key if key is None else key_of(key, "KEY")
    if subject == signer.public_key and not itself:
        raise DataError("That is the organisation's own key: say --self to revoke it and all its nodes", code="org.key")
    if subject != signer.public_key:
        former = former_identities(org, name=ORGANISATION_KEY_FILE, passphrase=passphrase)
        if subject in former:
            signer = former[subject]
        elif subject not in organisation.issued():
            warn("this organisation has not enrolled that key as far as is written down here; members will only heed")
            warn("the revocation if they know a certificate of this organisation for it")
    _can_write(output, force)
    made = Revocation.make(signer, subject, at=int(time.time()), compromised=compromised)
    organisation.note_revoked(made)
    write_files({output: statement_line(made)}, force=force)
    if as_json:
        emit_json({"revoked": subject.hex(), "organisation": signer.public_key.hex(), "compromised": compromised})
        return
    say(f"{subject.hex()[:16]} is revoked as soon as members know. Next, on one node that is running:")
    say(f"outroute org learn {output} --node DIR")


@org_app.command("learn")
@handled
def learn(
    statements: Annotated[Path, typer.Argument(help="File that revoke or rotate wrote.", show_default=False)],
    node: Annotated[Path, typer.Option("--node", help="The node's directory.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Give a node statements of organisations; it passes them on to the others, also while it runs."""
    from outroute.identity import Learned
    from outroute.store.statements import StatementFile, load_standing

    _node_there(node)
    now = int(time.time())
    register = load_standing(node, now=now)
    data = list(statements_in(statements))
    found = [register.learn(one, now) for one in data]
    new = [one for one, said in zip(data, found, strict=True) if isinstance(said, Learned) and said.new]
    StatementFile(node).append(new)
    refused = [said.reason.name.lower() for said in found if not isinstance(said, Learned)]
    known = len(data) - len(new) - len(refused)
    if as_json:
        emit_json({"new": len(new), "known": known, "refused": refused})
    else:
        say(f"{len(new)} new, {known} known already, {len(refused)} refused.")
    if refused:
        raise DataError(f"Not taken in: {', '.join(sorted(set(refused)))}. The others were", code="org.refused")


@org_app.command("show")
@handled
def show(
    org: OneOrg = None,
    node: OneNode = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Show an organisation, or what a node knows about itself and others."""
    if (org is None) == (node is None):
        raise DataError("Say what to show: --org DIR or --node DIR", code="org.whom")
    now = int(time.time())
    if org is not None:
        passphrase = passphrase_from(passphrase_file)
        shown = organisation_view(Organisation.open(org, passphrase), now, passphrase)
    else:
        assert node is not None
        shown = node_view(node, _node_identity(node, passphrase_file), now)
    if as_json:
        emit_json(shown)
        return
    table = Table(show_header=False)
    for name, value in shown.items():
        table.add_row(name.replace("_", " "), str(value) if value not in (None, "") else "-")
    print_table(table)


@org_app.command("protect")
@handled
def protect(
    org: OneOrg = None,
    node: OneNode = None,
    new_passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the passphrase from now on.", show_default=False)
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take the passphrase away.")] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Put a key file under a passphrase, or under another one; former keys beside it too."""
    from outroute.store.keys import KEY_FILE, ORGANISATION_KEY_FILE, former_names, protect_key

    if (org is None) == (node is None):
        raise DataError("Say which key: --org DIR or --node DIR", code="org.whom")
    if clear and new_passphrase_file is not None:
        raise DataError("Give a new passphrase, or --clear, not both", code="org.passphrase")
    directory = org or node or Path()
    name = KEY_FILE if org is None else ORGANISATION_KEY_FILE
    old, new = passphrase_from(passphrase_file), None if clear else passphrase_from(new_passphrase_file, new=True)
    for one in (name, *former_names(directory, name=name)):
        protect_key(directory, name=one, old=old, new=new)
    say("The key file is in the clear." if clear else "The key file is under a passphrase now: without it, it is lost.")


def _node_there(node: Path) -> None:
    if not node.is_dir():
        raise StoreError(f"There is no node in '{node}': make one with outroute observe", code="node.missing")


def _node_identity(node: Path, passphrase_file: Path | None) -> Identity:
    from outroute.store.keys import load_identity

    _node_there(node)
    return load_identity(node, passphrase=passphrase_from(passphrase_file))


def _certificate_for(path: Path, key: bytes) -> Certificate:
    """The certificate of a key in a file; of several the one that holds longest."""
    found = [one for one in certificates_in(path) if one.node == key]
    if not found:
        raise DataError(
            f"{path} has no certificate for this node's key {key.hex()}: have the organisation enrol it",
            code="org.other_key",
        )
    return max(found, key=lambda one: one.not_after)


def _valid(one: Certificate, now: int) -> Certificate:
    if not one.genuine():
        raise DataError("The certificate's signature is wrong: get it from the organisation again", code="org.forged")
    if not one.in_time(now):
        when = f"has expired on {day(one.not_after)}" if now > one.not_after else f"begins on {day(one.not_before)}"
        raise DataError(
            f"The certificate {when}, and it is {day(now)}: ask the organisation for a new one, and check the clock",
            code="org.expired",
        )
    return one


def _install(node: Path, own: Identity, certificate: Certificate, now: int) -> Certificate:
    from outroute.identity import Membership
    from outroute.store.statements import save_membership

    save_membership(node, Membership.accept(own, _valid(certificate, now)), now=now)
    return certificate


def _can_write(path: Path, force: bool) -> None:
    """Before anything is issued that could not be handed over."""
    if path.exists() and not force:
        raise DataError(f"'{path}' exists already; --force replaces it", code="file.exists")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise DataError(f"'{path}' cannot be written: give a file in a folder that exists", code="file.folder")
