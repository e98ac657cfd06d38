"""``outroute org members``: the signed list of who takes part in a closed network."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outroute.cli._common import emit_json, handled, out, say, write_files
from outroute.cli._options import Force, Json
from outroute.cli._org_dir import Organisation
from outroute.cli.org import Org, PassphraseFile, org_app, passphrase_from
from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.node.members import Listed

__all__ = ["members"]

LINE_BYTES = 1000
"""Characters of a line, at most."""


@org_app.command("members")
@handled
def members(
    file: Annotated[Path, typer.Argument(help="One member a line: KEY [PLACE] [name]. Lines with # are left out.")],
    org: Org,
    output: Annotated[Path, typer.Option("-o", "--output", help="Write the signed list here.", show_default=False)],
    number: Annotated[
        int | None,
        typer.Option(
            min=0, help="Number of the list; nodes take higher ones only. Default the time.", show_default=False
        ),
    ] = None,
    force: Force = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Sign the list of members of a closed network (outroute node --members).

    A running node reads the list again when the file changes: who is not on it
    any more is refused at once.

    Example:

    outroute org members members.txt --org clinic -o members.json
    """
    from outroute.node.members import sign_members

    organisation = Organisation.open(org, passphrase_from(passphrase_file))
    listed = _read(file)
    chosen = int(time.time()) if number is None else number
    write_files({output: sign_members(listed, chosen, organisation.identity)}, force=force)
    if as_json:
        emit_json(
            {
                "members": len(listed),
                "number": chosen,
                "signer": organisation.identity.public_key.hex(),
                "file": str(output),
            }
        )
        return
    out.print(f"{len(listed):,} members, list number {chosen}, in {output}", markup=False, highlight=False)
    say(f"Give it to every member: outroute node --members {output.name}")


def _read(file: Path) -> list[Listed]:
    from outroute.node.joining import member_place
    from outroute.node.members import MEMBERS_BYTES, Listed

    with open(file, encoding="utf-8", errors="replace") as opened:
        lines = opened.read(MEMBERS_BYTES).splitlines()
    listed = []
    for row, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if not re.fullmatch(r"[0-9a-fA-F]{64}", words[0]) or len(line) > LINE_BYTES:
            raise DataError(f"{file}, line {row}: begin with a key of 64 hexadecimal digits", code="members.line")
        rest = words[1:]
        place = member_place(rest.pop(0)) if rest and ":" in rest[0] else None
        listed.append(Listed(key=bytes.fromhex(words[0]), place=place, name=" ".join(rest)))
    if not listed:
        raise DataError(f"{file} names no member", code="members.line")
    return listed
