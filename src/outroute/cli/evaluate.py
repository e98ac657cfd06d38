"""``outroute evaluate``: the fair trial on anybody's table."""

from __future__ import annotations

import dataclasses
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outroute.cli._common import EXIT_INTERRUPTED, emit_json, handled, out, say, split_names, warn, working
from outroute.cli._datasets import read_dataset
from outroute.cli._node_dir import SCHEMA_FILE, reach_node, several
from outroute.cli._options import (
    Case,
    Columns,
    Delimiter,
    Drop,
    Json,
    MappingFile,
    OutcomeColumn,
    Positive,
    SchemaOrDraft,
    Site,
    Subject,
    Tables,
    Time,
)
from outroute.cli._running import RunningNode
from outroute.cli._views import show_trial
from outroute.cli.demo import steps
from outroute.errors import DataError, PrivacyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outroute.packet import PacketArray
    from outroute.schema import Schema

__all__ = ["evaluate", "floor_of"]


@handled
def evaluate(
    table: Tables,
    outcome: OutcomeColumn,
    site: Site = None,
    time: Time = None,
    subject: Subject = None,
    case: Case = None,
    positive: Positive = None,
    drop: Drop = None,
    schema: SchemaOrDraft = None,
    mapping: MappingFile = None,
    packets: Annotated[
        list[Path] | None,
        typer.Option("--packets", help="Peers' packets, when the table is yours alone.", show_default=False),
    ] = None,
    node: Annotated[
        Path | None,
        typer.Option("--node", help="Take peers' packets and the schema from this node.", show_default=False),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k", min=1, help="Subjects in a packet, at least; default the schema's floor, or 5.", show_default=False
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Splits; intervals need 20.")] = 20,
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

    With a --schema that promises differential privacy, sites let out counts
    with noise, in one release; nobody else in the table does.

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
    if not alone and (packets or node is not None):
        raise DataError(
            "Peers' packets (--packets, --node) are for a table that is yours alone: leave them out to run the trial "
            "between the sites of this table, or give one table without --site",
            code="data.sites",
        )
    if alone and schema is None and node is None:
        raise DataError(
            "Without --site this table is one site. Name the site column with --site or give one file per site; or "
            "give your network's schema with --schema and peers' packets with --packets (or --node)",
            code="data.sites",
        )
    peers = _peers(packets, node) if alone else None
    if schema is None and node is not None:
        schema = node / SCHEMA_FILE
    with working("Reading the table"):
        data = read_dataset(
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
    k = floor_of(k, data.schema)
    if peers is not None:
        peers = _accepted(peers, data.schema)
    elif len(data.sites) < 2:
        raise DataError(
            f"The column '{site}' names one site only, '{data.sites[0]}': nothing can be learnt from others. Without "
            "--site you can compare your own cases alone and with peers' packets",
            code="data.sites",
        )
    if data.group is None:
        warn(NO_GROUP)
    from outroute import trial
    from outroute.trial.routing import OutcomeRouting, pooled_same
    from outroute.trial.single import PeerPackets

    started = clock.monotonic()
    with steps("splitting") as shown:
        methods: list[trial.Method]
        if peers is not None:
            methods = [PeerPackets(packets=peers, now=int(clock.time())), trial.majority(), trial.local()]
        else:
            ours = OutcomeRouting(k=k, progress=shown.inner)
            methods = [ours, *trial.standard_opponents(), trial.pooled_same_estimator(pooled_same)]
        result = trial.run(data, methods, repeats=repeats, seed=seed, progress=shown.method)
    if peers is not None:  # one site is what was asked for
        kept = tuple(text for text in result.warnings if "one site only" not in text)
        result = dataclasses.replace(result, warnings=kept)
    promise = _promise(data.schema)
    if promise is not None:
        result = dataclasses.replace(result, notes=(_words(promise, others=peers is None), *result.notes))
    if plot is not None:
        from outroute.trial.plots import forest

        forest(result, plot)
    if as_json:
        extra = [] if data.group is not None else [NO_GROUP]
        found = result.to_json()
        found["warnings"] = [*extra, *found["warnings"]]
        found["peers"] = None if peers is None else {"packets": len(peers), "nodes": len(_authors(peers))}
        found["promise"] = promise
        emit_json(found | {"k": k, "seconds_in_all": round(clock.monotonic() - started, 3)})
    else:
        show_trial(result)
        if peers is not None:
            out.print(f"with {several(len(peers), 'packet')} of {several(len(_authors(peers)), 'other node')}")
    if plot is not None:
        say(f"Picture: {plot}")
    if result.repeats < repeats:
        say(f"Stopped after {result.repeats} of {repeats} repeats; those are reported.")
        raise typer.Exit(EXIT_INTERRUPTED)


def _promise(schema: Schema) -> dict[str, Any] | None:
    """What a schema with differential privacy promises, or None."""
    from outroute.packet import regions_of

    privacy = schema.privacy
    if privacy.epsilon is None:
        return None
    return {
        "epsilon": str(privacy.epsilon),
        "delta": str(privacy.delta),
        "m": privacy.m,
        "subject": privacy.subject,
        "regions": len(regions_of(schema)),
        "releases": 1,
    }


def _words(promise: Mapping[str, Any], *, others: bool) -> str:
    """The same for people, and what it means for the comparison."""
    regions = several(promise["regions"], "cell")
    text = (
        f"packets are counts with noise, one for each of {regions}: epsilon {promise['epsilon']} for each "
        f"{promise['subject'] or 'case'}"
    )
    if others:
        text += (
            ", all of it in one release here. The other methods add no noise and promise nothing: outroute audit sets "
            "federated averaging with noise beside it"
        )
    return text


def floor_of(k: int | None, schema: Schema) -> int:
    """Subjects in a packet: what was asked for, if the schema allows it."""
    least = schema.privacy.k
    if k is not None and schema.privacy.epsilon is not None:
        raise PrivacyError(
            "the schema promises differential privacy: there are no cohorts to choose --k for", code="privacy.fixed"
        )
    if k is not None and k < least:
        raise PrivacyError(
            f"--k {k} lies below the floor of schema '{schema.name}': at least {least} subjects must share a packet. "
            'Single records may leave only where they concern no person: give a schema with distiller = "single" '
            "and k = 1 in its [privacy] section",
            code="privacy.floor",
        )
    return least if k is None else k


def _peers(packets: list[Path] | None, node: Path | None) -> PacketArray:
    """Packets of others, unchecked."""
    import numpy as np

    from outroute.cli.packet import read_packets
    from outroute.packet import PACKET_BYTES, PACKET_DTYPE, as_packets

    parts = []
    for path in packets or []:
        data = read_packets(path)
        rest = len(data) % PACKET_BYTES
        if rest:
            warn(f"'{path}' does not end with a whole packet: it was cut off, {rest} bytes are left out")
        parts.append(as_packets(data[: len(data) - rest]))
    own = b""
    if node is not None:
        with reach_node(node) as opened:
            if isinstance(opened, RunningNode):
                parts.append(as_packets(opened.client.received()))
                own = opened.key
            else:
                assert opened.identity is not None
                parts.append(opened.received())
                own = opened.identity.public_key
    found = np.concatenate([np.empty(0, dtype=PACKET_DTYPE), *parts])
    if own:
        found = found[(found["author"] != np.frombuffer(own, dtype=np.uint8)).any(axis=1)]
    if not len(found):
        raise DataError(
            "There are no peers' packets: give --packets FILE, or --node DIR of a node that has received some "
            "(outroute receive FILE --node DIR). Or name the column that tells sites apart with --site",
            code="packet.none",
        )
    return found


def _accepted(packets: PacketArray, schema: Schema) -> PacketArray:
    """Those that a receiver accepts, each once, without what was withdrawn."""
    from outroute.node.evidence import verify_in_threads
    from outroute.packet import accept
    from outroute.transports.replicas import in_force

    verdicts = accept(packets, schema, int(clock.time()), verify=verify_in_threads)
    for reason, count in verdicts.counted().items():
        warn(f"{count:,} of {len(packets):,} packets refused: {reason.text}")
    kept = in_force(packets[verdicts.ok])
    if not len(kept):
        raise DataError(
            f"No packet belongs to schema '{schema.name}' ({schema.id.hex()[:16]}) and is in force: ask your peers for "
            "packets of this schema, or give theirs with --schema",
            code="packet.none",
        )
    return kept


def _authors(packets: PacketArray) -> set[bytes]:
    return {author.tobytes() for author in packets["author"]}
