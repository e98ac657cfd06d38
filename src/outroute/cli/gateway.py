"""``outroute gateway``: a node that takes in what thousands of devices publish."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outroute.cli._common import handled, say, warn, working
from outroute.cli._node_dir import RULES_FILE, electing_of, mapping_for, prepare
from outroute.cli._options import Json, MappingFile, Time
from outroute.cli._settings import Settings
from outroute.cli.serve import Stop, served, show
from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.transports.nats_source import NatsSource

__all__ = ["gateway"]

EVERY_MOST = 86_400.0
"""Seconds between distillations at most: a day."""


@handled
def gateway(
    source: Annotated[
        str, typer.Option("--from", help="NATS servers of the devices, nats://HOST:PORT; options as of the transport.")
    ],
    topic: Annotated[str, typer.Option("--topic", help="Subject that devices publish under, with wildcards.")],
    data_dir: Annotated[
        Path, typer.Option("--data-dir", "--node", help="The gateway's directory; made when it is not there.")
    ] = Path("gateway"),
    schema: Annotated[
        Path | None, typer.Option("--schema", help="What the network agrees on; needed once.", show_default=False)
    ] = None,
    transport: Annotated[
        str | None,
        typer.Option(
            "--transport", help="What carries packets, as of outroute node; default: as --from.", show_default=False
        ),
    ] = None,
    mapping: MappingFile = None,
    case: Annotated[
        list[str] | None,
        typer.Option("--case", help="Value(s) that name an observation; default which line of which message it was."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="Value(s) that name the device; default the last word of the subject."),
    ] = None,
    time: Time = None,
    outcome: Annotated[
        str | None, typer.Option(help="Value with the outcome, if not called as in the schema.", show_default=False)
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds between distillations.")] = 60.0,
    dead_letter: Annotated[
        str | None,
        typer.Option(
            "--dead-letter", help="Subject for observations that are refused; default a file.", show_default=False
        ),
    ] = None,
    make_stream: Annotated[
        bool, typer.Option("--make-stream", help="Make a stream for the subject where none keeps it.")
    ] = False,
    join: Annotated[list[str] | None, typer.Option("--join", help="As of outroute node.", show_default=False)] = None,
    secret_file: Annotated[
        Path | None, typer.Option("--secret-file", help="As of outroute node.", show_default=False)
    ] = None,
    http: Annotated[
        str | None, typer.Option("--http", help="HOST:PORT of the HTTP interface, or off.", show_default=False)
    ] = None,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="Leave when standard input ends: for programs that start gateways.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="Least level that is logged: debug, info, warning, error.")] = "info",
    as_json: Json = False,
) -> None:
    """Run a node that takes in what devices publish on NATS, until Ctrl-C.

    Devices publish JSON, one object a line, under a subject that a stream
    keeps. The gateway is the node and signs; a device is a subject, so a packet
    condenses observations of at least k devices, or of one where the schema's
    distiller is single. Every --every seconds it distils, and hands over what
    is approved: by rules (outroute distil --rules), by hand, or at once where
    the schema is single. An observation is confirmed to the servers only when
    it is on this disk; one that cannot be used is counted and put aside with
    its reason. All other commands work on it as on any node.

    Examples:

    outroute gateway --schema pump.toml --data-dir plant --from nats://broker:4222 --topic 'telemetry.*' --make-stream

    outroute gateway --data-dir plant --from nats://broker:4222 --topic 'telemetry.*' --case reading --time at
    """
    levels = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
    if log_level not in levels:
        raise DataError(f"--log-level is one of {', '.join(levels)}", code="log.level")
    if not 0 < every <= EVERY_MOST:
        raise DataError(f"--every is a number of seconds, at most {EVERY_MOST:,.0f}", code="gateway.every")
    from threadpoolctl import threadpool_limits

    from outroute.node.gateway import Gateway
    from outroute.node.intake import DEVICE, MESSAGE, Intake
    from outroute.node.living import LivingNode
    from outroute.schema import Distiller
    from outroute.service.logs import log_to
    from outroute.store import load_identity
    from outroute.transports.nats_options import nats_options
    from outroute.transports.nats_source import NatsSource
    from outroute.transports.nats_subjects import is_subject
    from outroute.transports.registry import entry_of
    from outroute.transports.url import parse_url

    threadpool_limits(limits=1)
    place = parse_url(source)
    if place.scheme != "nats":
        raise DataError(f"--from takes nats://HOST:PORT, not {place.scheme}://", code="gateway.from")
    entry_of(place).load()
    options = nats_options(place, data_dir)
    stop = Stop(until_eof=until_eof)
    loaded = prepare(data_dir, schema)
    if mapping is None:
        case, device = case or [MESSAGE], device or [DEVICE]
    own = mapping_for(data_dir, schema, mapping, outcome, case, device, time)
    intake = Intake(loaded, own)
    given: dict[str, Any] = {
        "transport": transport or source,
        "http": http,
        "join": join,
        "secret_file": "" if secret_file is None else str(secret_file.absolute()),
    }
    settings = Settings.kept(data_dir, given)
    joining = settings.joining(data_dir, loaded)
    log_to(sys.stderr, levels[log_level])
    if dead_letter is not None and not is_subject(dead_letter):
        raise DataError(
            f"--dead-letter: '{dead_letter}' is no subject: words between dots, no spaces, no wildcards",
            code="gateway.dead_letter",
        )
    name = f"gateway-{load_identity(data_dir).id.hex()[:16]}"
    messages = NatsSource(options, topic, name=name, make=make_stream)
    asyncio.run(_looked_for(messages))
    server = None
    with working("Joining"):
        living = LivingNode(
            loaded,
            data_dir,
            joining=joining,
            rules=data_dir / RULES_FILE,
            electing=electing_of(data_dir, settings.electing()),
            secret_file=settings.secret(data_dir) if joining.secrets.known else None,
        )
    made = Gateway(
        living,
        messages,
        intake,
        every=every,
        streaming=loaded.privacy.distiller is not Distiller.SINGLE,
        dead_letters=dead_letter,
    )
    try:
        made.start()
        if settings.http != "off":
            server = served(living, settings.http)
        replace(settings).keep(data_dir)
        for notice in living.node.notices:
            warn(notice)
        show(living, server, data_dir, as_json=as_json)
        stop.wait()
    finally:
        try:
            made.close()
            if server is not None:
                server.close()
        finally:
            living.close()
    if not as_json:
        counts = made.counts
        say(
            f"{counts.messages:,} messages, {sum(counts.observations.values()):,} observations taken, "
            f"{sum(counts.refused.values()):,} refused, {counts.distilled:,} packets made."
        )


async def _looked_for(messages: NatsSource) -> None:
    """See that there is something to take in before the node joins anybody.

    Raises:
        TransportError: there is not.
    """
    try:
        await messages.start()
    finally:
        await messages.close()
