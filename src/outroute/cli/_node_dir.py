"""A node's directory: opening or making the node in it, and what the commands ask of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from outroute.cli._common import split_names, warn, write_files
from outroute.cli._running import RunningNode, find_running
from outroute.errors import DataError, StoreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from outroute.node import Node
    from outroute.node.approval import Rules
    from outroute.node.electing import Electing
    from outroute.packet import PacketArray
    from outroute.schema import Schema, SchemaSignature
    from outroute.tables.mapping import TableMapping

__all__ = [
    "GROUPS_FILE",
    "RULES_FILE",
    "SCHEMA_FILE",
    "electing_of",
    "keep_rules",
    "keep_schema",
    "kept_groups",
    "kept_rules",
    "loaded_schema",
    "mapping_for",
    "open_node",
    "others",
    "prepare",
    "reach_node",
    "refuse_successor",
    "several",
    "try_first_rows",
]

SCHEMA_FILE, MARKS_FILE, SIGNATURES_FILE = "schema.toml", "schema.landmarks", "schema.signatures"
RULES_FILE = "approve.toml"
"""The rules by which a node approves by itself."""
GROUPS_FILE = "groups.csv"
"""Groups of nodes that the operator has declared."""


def open_node(directory: Path, schema: Path | None = None, *, restored: bool = False) -> Node:
    """Open the node in a directory, or make it when a schema is given.

    Args:
        directory: of the node.
        schema: what it serves; needed once.
        restored: whether the directory came from a backup, which it cannot always tell by itself.

    Raises:
        StoreError: there is no node and no schema, or the directory belongs to another schema.
    """
    from outroute.node import Node

    loaded = prepare(directory, schema)
    try:
        node = Node(
            loaded,
            data_dir=directory,
            approval=kept_rules(directory),
            restored=restored,
            electing=electing_of(directory),
        )
    except StoreError as error:
        if error.code == "store.locked":
            raise StoreError(
                f"another process uses '{directory}': wait for the command that does. If it is a node that runs "
                "(outroute node), its HTTP interface is off or does not answer: start it again with --http "
                "127.0.0.1:0, or stop it first",
                code="node.running",
            ) from error
        raise
    for notice in node.notices:
        warn(notice)
    return node


def reach_node(directory: Path, schema: Path | None = None, *, restored: bool = False) -> Node | RunningNode:
    """The node that runs in a directory (``outroute node``), through its interface; else the node in it, opened.

    Arguments and errors are those of ``open_node``; ``restored`` belongs to the start of a node.
    """
    running = find_running(directory)
    if running is None:
        return open_node(directory, schema, restored=restored)
    if schema is not None:
        prepare(directory, schema)  # says so when it is another schema
    if restored:
        running.close()
        raise StoreError(
            "this node runs: stop it, and start it again with outroute node --restored", code="node.running"
        )
    for notice in running.notices:
        warn(notice)
    return running


def kept_rules(directory: Path) -> Rules | None:
    """The rules of approval kept with a node."""
    from outroute.node.approval import load_rules

    rules = directory / RULES_FILE
    return load_rules(rules) if rules.exists() else None


def kept_groups(directory: Path) -> dict[bytes, str]:
    """The groups declared for a node, by node id."""
    from outroute.node.groups import load_groups

    kept = directory / GROUPS_FILE
    return load_groups(kept) if kept.exists() else {}


def electing_of(directory: Path, base: Electing | None = None) -> Electing:
    """How a node elects, with the groups declared in its directory.

    Args:
        directory: of the node.
        base: what was said when it was started; None: what its directory keeps of that and matters without a network.
    """
    from outroute.cli._settings import Settings
    from outroute.node.electing import Electing

    if base is None:
        base = Electing(ageing=Settings.kept(directory, {}).ageing == "on")
    return replace(base, groups=kept_groups(directory))


def prepare(directory: Path, schema: Path | None) -> Schema:
    """Make a node's directory when a schema is given, and load its schema.

    Raises:
        StoreError: as ``open_node``.
    """
    from outroute import schema as schemas

    if directory.exists() and not directory.is_dir():
        raise StoreError(f"'{directory}' is a file: give the node's directory with --node", code="node.missing")
    kept = directory / SCHEMA_FILE
    if not kept.exists():
        if schema is None:
            raise StoreError(
                f"There is no node in '{directory}': make one with outroute observe TABLE --schema SCHEMA --node "
                f"{directory}",
                code="node.missing",
            )
        keep_schema(directory, schemas.load(schema), schemas.load_signatures(schema))
        waiting = schemas.unreviewed(schema)
        if waiting:
            warn(
                f"nobody has reviewed {', '.join(waiting[:5])}{', ...' if len(waiting) > 5 else ''} of the new node's "
                "schema, and it cannot change any more once packets have left: see outroute schema check"
            )
    loaded = schemas.load(kept)
    if schema is not None:
        given = schemas.load(schema)
        if given.id != loaded.id:
            raise StoreError(
                f"'{directory}' belongs to schema '{loaded.name}' ({loaded.id.hex()[:16]}), {schema} is another one "
                f"({given.id.hex()[:16]}): leave --schema out, or give another directory with --node",
                code="node.schema",
            )
    return loaded


def keep_rules(directory: Path, rules: Path | None) -> None:
    """Keep rules of approval with a node, or forget those that it has.

    Raises:
        StoreError: there is no node.
        OutrouteError: the rules cannot be used; those kept before stay.
    """
    from outroute.node.approval import load_rules

    schema = loaded_schema(directory, None)
    if rules is None:
        (directory / RULES_FILE).unlink(missing_ok=True)
        return
    load_rules(rules).check(schema)
    write_files({directory / RULES_FILE: rules.read_bytes()}, force=True)


def keep_schema(directory: Path, schema: Schema, signatures: tuple[SchemaSignature, ...] = ()) -> None:
    """Write a schema into a directory, with its landmarks and signatures.

    Raises:
        SchemaError: it names organisations, and too few of them signed it.
    """
    from outroute.schema import dumps, recipe_of, require_signed, write_signatures

    require_signed(schema, signatures)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    drawn = recipe_of(schema.fields, schema.landmarks) is not None
    files: dict[Path, str | bytes] = {}
    if not drawn:
        files[directory / MARKS_FILE] = schema.landmarks.to_bytes()
    if signatures:
        files[directory / SIGNATURES_FILE] = write_signatures(signatures)
    files[directory / SCHEMA_FILE] = dumps(schema, landmarks_file=None if drawn else MARKS_FILE)
    write_files(files, force=True)


def refuse_successor(directory: Path) -> None:
    """New observations belong to the successor of a node's schema, once there is one.

    Raises:
        StoreError: there is one; the message names its directory.
    """
    from outroute.node.migrating import successor_dir

    following = successor_dir(directory)
    if following is not None:
        raise StoreError(
            f"'{directory}' went over to a new schema: new observations belong to --node {following}",
            code="node.successor",
        )


def loaded_schema(node: Path, schema: Path | None) -> Schema:
    """The schema that a node has or will have."""
    from outroute import schema as schemas

    if schema is not None:
        return schemas.load(schema)
    if not (node / SCHEMA_FILE).exists():
        raise StoreError(
            f"There is no node in '{node}' yet: say which schema it serves with --schema", code="node.missing"
        )
    return schemas.load(node / SCHEMA_FILE)


def others(node: Node) -> PacketArray:
    """What a node has received from others; its own packets would count its own records twice."""
    import numpy as np

    assert node.identity is not None
    received = node.received()
    own = np.frombuffer(node.identity.public_key, dtype=np.uint8)
    foreign: NDArray[np.bool_] = (received["author"] != own).any(axis=1)
    return received[foreign]


def several(count: int, what: str) -> str:
    """A count and its noun."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def mapping_for(
    node: Path,
    schema: Path | None,
    mapping: Path | None,
    outcome: str | None,
    case: list[str] | None,
    subject: list[str] | None,
    time: list[str] | None,
) -> TableMapping:
    """How the columns of a node's table become fields: by a mapping file, or by options."""
    from outroute.tables.mapping import default_mapping, load_mapping

    loaded = loaded_schema(node, schema)
    if mapping is None:
        if not case:
            raise DataError(
                "Name the column that names a case with --case: without it, the same row read twice would count twice",
                code="data.case",
            )
        return default_mapping(
            loaded, outcome=outcome, case=split_names(case), subject=split_names(subject), time=split_names(time)
        )
    if outcome or case or subject or time:
        raise DataError(
            "A mapping says itself what --case, --subject, --time and --outcome say: give one or the other",
            code="data.mapping",
        )
    own = load_mapping(mapping, loaded)
    if not own.case:
        raise DataError(f'{mapping} names no case column: add case = "..." at its top', code="data.case")
    return own


def try_first_rows(table: str, own: TableMapping, schema: Schema) -> None:
    """Refuse a table that cannot be used before a node is made for it; a pipe can be read once only."""
    from outroute.tables.applying import apply_batches
    from outroute.tables.reading import iter_batches

    if table != "-":
        for _ in apply_batches(own, schema, islice(iter_batches(table), 1), outcomes="optional"):
            pass
