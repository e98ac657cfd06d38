"""``outroute schema learn``: landmarks from public or cohort data."""

from __future__ import annotations

import re
import time as clock
from pathlib import Path
from typing import Annotated, Any

import typer

from outroute import schema as schemas
from outroute.cli._common import emit_json, handled, out, say, split_names, working, write_files
from outroute.cli._options import Columns, Delimiter, Force, Json, MappingFile, SchemaFile
from outroute.cli._schema_views import summary
from outroute.errors import DataError, PrivacyError
from outroute.schema import Schema

__all__ = ["learn"]


@handled
def learn(
    schema: SchemaFile,
    table: Annotated[
        str | None, typer.Argument(help="A public reference table ('-' reads a pipe).", show_default=False)
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="My word that everybody may see this table.")] = False,
    packets: Annotated[
        Path | None, typer.Option(help="Packets of this schema instead of a table.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Landmarks to learn.")] = 256,
    successor: Annotated[
        bool, typer.Option(help="The schema is in use: the result replaces it (always so with --packets).")
    ] = False,
    reviewed: Annotated[bool, typer.Option("--reviewed", help="I have looked at every inferred field.")] = False,
    mapping: MappingFile = None,
    seed: Annotated[int, typer.Option(help="Another seed gives other landmarks.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The new schema; the landmark file goes beside it.", show_default=False),
    ] = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Learn landmarks, from public or cohort data only.

    Landmarks are part of the schema and everybody reads them, so they are
    never learnt from records that are not public. Without any such data keep
    those drawn from the declared ranges: they work, they only route less well.

    Examples:

    outroute schema learn heart.toml reference.csv --public --count 128 -o heart2.toml

    outroute schema learn heart.toml --packets founders.packets -o heart2.toml
    """
    loaded = schemas.load(schema)
    waiting = schemas.unreviewed(schema)
    if waiting and not reviewed:
        names = ", ".join(waiting[:5]) + (", ..." if len(waiting) > 5 else "")
        raise PrivacyError(
            f"{len(waiting)} inferred fields have not been reviewed ({names}): look at "
            "their ranges and categories, then remove their lines 'reviewed = false', or say --reviewed",
            code="privacy.unreviewed",
        )
    if (table is None) == (packets is None):
        raise DataError("Give either a public reference table (with --public) or --packets FILE", code="data.landmarks")
    from outroute.tables import learning

    if packets is not None and loaded.privacy.epsilon is not None:
        raise PrivacyError(
            "under the distiller 'private' the conditions of packets are the landmarks that there are: learn from a "
            "public reference table, with --public",
            code="privacy.learning",
        )
    if packets is not None:
        with working("Checking packets and learning landmarks"):
            learnt = learning.learn_from_packets(
                loaded, _read_packets(packets), now=int(clock.time()), count=count, seed=seed
            )
    else:
        learnt = _learn_from_table(loaded, table or "-", public, mapping, count, seed, split_names(columns), delimiter)
    target = output if output is not None else schema
    file = target.with_suffix(".landmarks")
    successor = successor or packets is not None
    text = _relinked(schema.read_text(encoding="utf-8"), loaded, learnt.landmarks, file.name, successor, reviewed)
    made = schemas.loads(text, lambda _: learnt.landmarks.to_bytes())
    write_files({file: learnt.landmarks.to_bytes(), target: text}, force=force)
    if as_json:
        emit_json(
            {
                "schema": summary(made),
                "file": str(target),
                "landmarks_file": str(file),
                "rows": learnt.rows,
                "refused": learnt.refused,
                "error": learnt.error,
            }
        )
        return
    say(
        f"{len(made.landmarks):,} landmarks from {learnt.rows:,} conditions ({learnt.refused:,} refused); "
        f"mean squared distance {learnt.error:.0%} of that to one point."
    )
    out.print(f"{target}: id {made.id.hex()}", markup=False, highlight=False)


def _learn_from_table(
    schema: Schema,
    table: str,
    public: bool,
    mapping: Path | None,
    count: int,
    seed: int,
    columns: tuple[str, ...],
    delimiter: str | None,
) -> Any:
    from outroute.tables import learning
    from outroute.tables.mapping import load_mapping
    from outroute.tables.reading import read_table

    used = load_mapping(mapping, schema) if mapping is not None else None
    if not public:
        return learning.refuse_private()
    with working("Reading the table"):
        read = read_table(table, columns=columns or None, delimiter=delimiter)
    with working(f"Learning {count:,} landmarks from {read.rows:,} rows"):
        return learning.learn_from_table(schema, read, public=public, count=count, mapping=used, seed=seed)


def _read_packets(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror}", code="data.file") from error


def _relinked(
    text: str, schema: Schema, landmarks: schemas.Landmarks, file: str, successor: bool, reviewed: bool
) -> str:
    """The schema's own text (with its comments) that names the new landmarks."""
    import tomlkit

    lines = ['kind = "learnt"', f"file = {tomlkit.item(file).as_string()}", f'id = "{landmarks.id.hex()}"']
    if schema.privacy.epsilon is not None:
        lines.append("public = true")
    section = re.search(r"(?m)^\[landmarks\][^\n]*\n(?:(?!\[).*\n?)*", text)
    if section is None:
        text = text.rstrip() + "\n\n[landmarks]\n" + "\n".join(lines) + "\n"
    else:
        # Line by line, because a comment above the next section would go with this one.
        first, *rest = section[0].splitlines()
        kept = [line for line in rest if not re.match(r"\s*(kind|count|levels|public|file|id)\s*=", line)]
        text = text[: section.start()] + "\n".join([first, *lines, *kept]) + "\n" + text[section.end() :]
    doc: Any = tomlkit.parse(text)
    if successor:
        doc["parent"] = schema.id.hex()
    if reviewed:
        for item in (doc["outcome"], *doc["fields"].values()):
            item.pop("reviewed", None)
    return tomlkit.dumps(doc)
