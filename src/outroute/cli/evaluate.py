"""``outroute evaluate``: the fair trial on anybody's table."""

from __future__ import annotations

import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outroute.cli._common import emit_json, handled, out, say, split_names, warn, working
from outroute.cli._options import Case, Columns, Delimiter, Json, MappingFile, Subject, Time
from outroute.cli.demo import steps
from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.datasets import Dataset
    from outroute.packet import PacketArray
    from outroute.schema import Schema

__all__ = ["evaluate"]


@handled
def evaluate(
    table: Annotated[
        list[str],
        typer.Argument(
            help="CSV (also .gz), Parquet or NDJSON; '-' reads a pipe; several files: one per site.", show_default=False
        ),
    ],
    outcome: Annotated[str, typer.Option(help="The column to learn about.", show_default=False)],
    site: Annotated[
        str | None,
        typer.Option(
            help="The column that tells sites apart; without it, the table is one site: yours.", show_default=False
        ),
    ] = None,
    time: Time = None,
    subject: Subject = None,
    case: Case = None,
    positive: Annotated[
        str | None,
        typer.Option(help="Makes the outcome yes or no: '> 15', or the value that is positive.", show_default=False),
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Leave these columns out.", show_default=False)] = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema", help="A schema; without it, one is drafted from the table.", show_default=False),
    ] = None,
    mapping: MappingFile = None,
    packets: Annotated[
        list[Path] | None,
        typer.Option("--packets", help="Peers' packets, when the table is yours alone.", show_default=False),
    ] = None,
    node: Annotated[
        Path | None,
        typer.Option("--node", help="Take peers' packets and the schema from this node.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Subjects in a packet, at least.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Splits; intervals need 20.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the gain of every site (PNG, SVG or PDF).", show_default=False)
    ] = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    as_json: Json = False,
) -> None:
    """Find out on your own table what outcome routing would give each site.

    With --site (or one file per site) it runs the whole loop between the
    sites of the table, against each site alone, federated averaging (plain
    and recalibrated at each site) and all records pooled. Rows of one
    --subject, or of one --time bucket, are held out together, at all sites.
    Differences are paired and carry intervals; those in which we lose stay.

    Without --site the table is yours alone: your held-out cases are
    answered alone and with peers' packets (--packets, or --node).

    Examples:

    outroute evaluate heart.csv --outcome num --positive "> 0" --site hospital

    outroute evaluate basel.csv bern.csv zurich.csv --outcome died --subject patient

    outroute evaluate mine.csv --outcome died --schema ward.toml --packets peers.orp
    """
    from outroute.trial.table import NO_GROUP

    names = {"time": split_names(time), "subject": split_names(subject), "case": split_names(case)}
    alone = site is None and len(table) == 1
    peers = _peers(packets, node) if alone else None
    if alone and schema is None and node is None:
        raise DataError(
            "Without --site this table is one site. Name the site column with --site or give one file per site; or "
            "give your network's schema with --schema and peers' packets with --packets (or --node)",
            code="data.sites",
        )
    if schema is None and node is not None:
        schema = node / "schema.toml"
    with working("Reading the table"):
        data = _dataset(
            table,
            outcome,
            site,
            names,
            positive,
            split_names(drop),
            schema,
            mapping,
            k,
            split_names(columns),
            delimiter,
        )
    if data.group is None:
        warn(NO_GROUP)
    from outroute import trial
    from outroute.trial.routing import OutcomeRouting, pooled_same
    from outroute.trial.single import PeerPackets

    started = clock.monotonic()
    with steps("splitting") as shown:
        if peers is not None:
            _accepted(peers, data.schema)
            methods = [PeerPackets(packets=peers), trial.majority(), trial.local()]
        else:
            if len(data.sites) < 2:
                raise DataError(
                    f"The column '{site}' names one site only: nothing can be learnt from others. Without --site you "
                    "can compare your own cases alone and with peers' packets",
                    code="data.sites",
                )
            ours = OutcomeRouting(k=k if k > 1 or data.schema.privacy.k == 1 else None, progress=shown.inner)
            same = trial.pooled_same_estimator(pooled_same)
            methods = [ours, *trial.standard_opponents(), same]
        result = trial.run(data, methods, repeats=repeats, seed=seed, progress=shown.method)
    if plot is not None:
        from outroute.trial.plots import forest

        forest(result, plot)
    if as_json:
        extra = [] if data.group is not None else [NO_GROUP]
        found = result.to_json()
        emit_json(
            found | {"warnings": [*found.get("warnings", []), *extra], "k": k, "seconds": clock.monotonic() - started}
        )
        return
    from outroute.trial import report

    report.show(result, out)
    if plot is not None:
        say(f"Picture: {plot}")


def _peers(packets: list[Path] | None, node: Path | None) -> PacketArray | None:
    import numpy as np

    from outroute.cli.packet import read_packets
    from outroute.packet import PACKET_DTYPE, as_packets

    parts = [as_packets(read_packets(path)) for path in packets or []]
    if node is not None:
        from outroute.cli.node import open_node

        with open_node(node) as opened:
            parts.append(opened.received())
    found = np.concatenate([np.empty(0, dtype=PACKET_DTYPE), *parts])
    if not len(found):
        raise DataError(
            "There are no peers' packets: give --packets FILE, or --node DIR of a node that has received some "
            "(outroute receive FILE --node DIR). Or name the column that tells sites apart with --site",
            code="packet.none",
        )
    return found


def _accepted(packets: PacketArray, schema: Schema) -> None:
    from outroute.node.evidence import verify_in_threads
    from outroute.packet import accept

    verdicts = accept(packets, schema, int(clock.time()), verify=verify_in_threads)
    for reason, count in verdicts.counted().items():
        warn(f"{count:,} of {len(packets):,} packets refused: {reason.text}")
    if not verdicts.ok.any():
        raise DataError("No packet belongs to this schema and is in force: nothing to compare with", code="packet.none")


def _dataset(
    paths: list[str],
    outcome: str,
    site: str | None,
    names: dict[str, tuple[str, ...]],
    positive: str | None,
    drop: tuple[str, ...],
    schema: Path | None,
    mapping: Path | None,
    k: int,
    columns: tuple[str, ...],
    delimiter: str | None,
) -> Dataset:
    from outroute import schema as schemas
    from outroute.tables.infer import infer
    from outroute.tables.mapping import default_mapping, load_mapping
    from outroute.tables.reading import SITE_COLUMN, read_sites, read_table
    from outroute.trial.table import dataset_of

    if len(paths) == 1:
        read = read_table(paths[0], columns=columns or None, delimiter=delimiter)
    else:
        site = site or SITE_COLUMN
        read = read_sites(paths, site_column=site, columns=columns or None, delimiter=delimiter)
    notes: list[str] = []
    if schema is not None:
        agreed = schemas.load(schema)
        own = load_mapping(mapping, agreed) if mapping else default_mapping(agreed, outcome=outcome, **names)
    else:
        draft = infer(
            read,
            outcome=outcome,
            site=site,
            drop=drop,
            positive=positive,
            k=max(k, 2),
            now=int(clock.time()),
            **names,
        )
        agreed, own = draft.schema, draft.mapping
        notes.append(
            f"no schema was given: one was drafted from the whole table ({len(agreed.fields)} fields; ranges rounded "
            "outward, outcomes not looked at). See it with outroute schema infer"
        )
        notes += [str(note) for note in draft.notes if note.kind == "look"]
    name = Path(paths[0]).name if len(paths) == 1 else f"{len(paths)} files"
    return dataset_of(name, read, agreed, own, site=site, notes=notes)
