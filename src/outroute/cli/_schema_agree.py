"""``outroute schema diff | sign | signed | migrate``: agree on a schema, and go over to its successor."""

from __future__ import annotations

import time as clock
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from outroute import schema as schemas
from outroute.cli._common import EXIT_PROBLEMS, emit_json, handled, out, say, warn, write_files
from outroute.cli._options import DEFAULT_DIR, Json, NodeDir, SchemaFile
from outroute.errors import StoreError
from outroute.schema import Change, Meaning, Signed

__all__ = ["diff", "migrate", "sign", "signed"]

_TITLES: Final = {
    Meaning.WEAKENS: "weakens what protects people, or who must agree",
    Meaning.BREAKS: "breaks: values of before are lost",
    Meaning.NARROWS: "narrows: less has a place, or less may leave",
    Meaning.WIDENS: "widens: all of before has a place",
    Meaning.SHIFTS: "shifts what is similar, or where packets are kept",
    Meaning.COSMETIC: "cosmetic",
}
_STYLES: Final = {Meaning.WEAKENS: "bold red", Meaning.BREAKS: "red", Meaning.NARROWS: "yellow"}


@handled
def diff(
    old: Annotated[Path, typer.Argument(help="The schema in force.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="The schema proposed.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show what changes from one schema to another, and what each change means.

    What weakens privacy comes first, then what breaks, narrows, widens, shifts,
    and what is for people only.

    Example: outroute schema diff heart.toml heart2.toml
    """
    before, after = schemas.load(old), schemas.load(new)
    changes = schemas.diff(before, after)
    successor = after.parent == before.id
    if as_json:
        emit_json(
            {
                "old": before.id.hex(),
                "new": after.id.hex(),
                "successor": successor,
                "changes": [{"meaning": c.meaning.value, "where": c.where, "text": c.text} for c in changes],
            }
        )
        return
    _print_changes(changes)
    if before.id == after.id:
        say("Both are the same schema for a network: the id does not change.")
    elif successor:
        say(f"{new} names {old} as its parent. Next: outroute schema sign, then outroute schema migrate {new}")
    else:
        say(f'{new} does not replace {old}. If it should, write at its top: parent = "{before.id.hex()}"')


def _print_changes(changes: tuple[Change, ...]) -> None:
    for meaning, title in _TITLES.items():
        group = [change for change in changes if change.meaning is meaning]
        if group:
            out.print(title, style=_STYLES.get(meaning, "bold"), markup=False, highlight=False)
            for change in group:
                out.print(f"  {change}", markup=False, highlight=False)
    if not changes:
        out.print("no difference", markup=False, highlight=False)


@handled
def sign(
    schema: SchemaFile,
    org: Annotated[Path, typer.Option("--org", help="The organisation's directory (its key).", show_default=False)],
    passphrase_file: Annotated[
        Path | None,
        typer.Option("--passphrase-file", help="Its first line opens the organisation's key.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Agree to a schema as one of the organisations that it names.

    The signature is added to a file beside the schema (heart.signatures for
    heart.toml). Pass that file round, or join several end to end: the order of
    lines does not matter.

    Example: outroute schema sign heart.toml --org our-clinic
    """
    from outroute.store.keys import ORGANISATION_KEY_FILE, find_passphrase, load_identity

    loaded = schemas.load(schema)
    waiting = schemas.unreviewed(schema)
    if waiting:
        warn(f"nobody has reviewed {', '.join(waiting[:5])}{', ...' if len(waiting) > 5 else ''}: see schema check")
    if not (org / ORGANISATION_KEY_FILE).exists():
        raise StoreError(
            f"There is no organisation in '{org}': make one with outroute org init {org}", code="org.missing"
        )
    identity = load_identity(
        org, name=ORGANISATION_KEY_FILE, passphrase=lambda: find_passphrase(passphrase_file), create=False
    )
    own = schemas.sign_schema(loaded, identity)
    before = schemas.load_signatures(schema)
    beside = schemas.signatures_file(schema)
    if own not in before:
        write_files({beside: schemas.write_signatures((*before, own))}, force=True)
    found = schemas.verify_signatures(loaded, (*before, own))
    if as_json:
        emit_json(_signed_json(loaded, found) | {"file": str(beside), "organisation": own.organisation.hex()})
        return
    done = "had been signed before" if own in before else "is signed"
    say(f"'{loaded.name}' ({loaded.id.hex()[:16]}) {done} by {own.organisation.hex()[:16]}, in {beside}.")
    say(_standing(found))


@handled
def signed(schema: SchemaFile, as_json: Json = False) -> None:
    """Show who has signed a schema, and whether enough have.

    Exit code 1 where too few have signed: no node serves the schema then.

    Example: outroute schema signed heart.toml
    """
    loaded = schemas.load(schema)
    found = schemas.verify_signatures(loaded, schemas.load_signatures(schema))
    if as_json:
        emit_json(_signed_json(loaded, found))
    else:
        rows = [(key, "signed") for key in found.valid] + [(key, "not signed yet") for key in found.missing]
        rows += [(key, "signed, not named in the schema: does not count") for key in found.foreign]
        rows += [(key, "WRONG signature") for key in found.bad]
        for key, text in rows:
            out.print(f"{key.hex()}  {text}", markup=False, highlight=False)
        if found.others:
            say(f"{found.others} signatures in the file are for other schemas.")
        say(_standing(found))
    if not found.quorum_reached:
        raise typer.Exit(EXIT_PROBLEMS)


def _standing(found: Signed) -> str:
    if not found.quorum:
        return "The schema names no organisations: nobody has to sign it."
    count = f"{len(found.valid)} of {len(found.valid) + len(found.missing)} have signed, {found.quorum} are needed"
    return f"{count}: nodes may serve it." if found.quorum_reached else f"{count}: no node serves it yet."


def _signed_json(loaded: schemas.Schema, found: Signed) -> dict[str, Any]:
    return {
        "id": loaded.id.hex(),
        "quorum": found.quorum,
        "quorum_reached": found.quorum_reached,
        "signed": [key.hex() for key in found.valid],
        "missing": [key.hex() for key in found.missing],
        "foreign": [key.hex() for key in found.foreign],
        "bad": [key.hex() for key in found.bad],
        "others": found.others,
    }


@handled
def migrate(
    new: Annotated[Path, typer.Argument(help="The successor of the node's schema.", show_default=False)],
    node: NodeDir = DEFAULT_DIR,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="Its first line opens the node's key.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Carry a node over to the successor of its schema.

    Its observations are encoded anew into a directory of their own, NODE/next.
    What has left before is put together there with the same members or not at
    all, and waits for approval. Go on with NODE/next; NODE is kept until its
    packets expire, and erasing or withdrawing concerns both.

    Example: outroute schema migrate heart2.toml --node node
    """
    from outroute.node.migrating import SCHEMA_FILE
    from outroute.node.migrating import migrate as carry_over
    from outroute.store.keys import find_passphrase, load_identity

    kept = node / SCHEMA_FILE
    if not kept.exists():
        raise StoreError(f"There is no node in '{node}': give its directory with --node", code="node.missing")
    try:
        moved = carry_over(
            node,
            schemas.load(kept),
            schemas.load(new),
            now=int(clock.time()),
            signatures=schemas.load_signatures(new),
            identity=load_identity(node, passphrase=lambda: find_passphrase(passphrase_file), create=False),
        )
    except StoreError as error:
        if error.code != "store.locked":
            raise
        raise StoreError(
            f"'{node}' is in use: carry it over while it does not run. Stop the node (Ctrl-C, or its service), run "
            "this again, then start it and its successor",
            code="node.running",
        ) from error
    if as_json:
        emit_json(
            {
                "directory": str(moved.directory),
                "observations": moved.observations,
                "lost": moved.lost,
                "missing": dict(moved.missing),
                "dropped": list(moved.dropped),
                "added": list(moved.added),
                "packets": moved.packets,
                "not_again": {reason.name.lower(): count for reason, count in moved.not_again.items()},
            }
        )
        return
    say(f"{moved.observations:,} observations carried over to {moved.directory}.")
    if moved.lost:
        say(f"{moved.lost:,} have a value outside the successor's ranges: they stay in {node} only.", "yellow")
    for name, count in moved.missing.items():
        say(f"{name}: missing in {count:,}, whose category is gone.", "yellow")
    if moved.dropped:
        say(f"Lost fields: {', '.join(moved.dropped)}. New or empty fields: {', '.join(moved.added) or 'none'}.")
    say(f"{moved.packets:,} packets have the same members as before and wait for approval.")
    for reason, count in moved.not_again.items():
        say(f"{count:,} packets do not leave again, their observations wait for new ones: {reason.value}.")
    say(f"Next: outroute outbox show --node {moved.directory}")
