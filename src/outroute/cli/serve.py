"""``outroute node``: a node that lives in a network until it is stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outroute.cli._common import EXIT_INTERRUPTED, emit_json, handled, out, say, warn, working
from outroute.cli._node_dir import RULES_FILE, electing_of, prepare
from outroute.cli._options import Json
from outroute.cli._settings import Settings
from outroute.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from outroute.node.living import LivingNode
    from outroute.service.server import Server
    from outroute.transports.url import Url

__all__ = ["Stop", "node", "served", "show"]

ORPHAN_SECONDS = 60.0
"""Seconds that a node may take to leave once its standard input has ended; nobody would notice that it hangs."""


@handled
def node(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", "--node", help="The node's directory; made when it is not there.")
    ] = Path("node"),
    schema: Annotated[
        Path | None, typer.Option("--schema", help="What the network agrees on; needed once.", show_default=False)
    ] = None,
    transport: Annotated[
        str | None,
        typer.Option(
            "--transport",
            help="What carries everything, as a URL: dht:// (the default), zeromq://HOST:PORT and others; see outroute "
            "transports.",
            show_default=False,
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="HOST:PORT for other nodes; port 0 takes a free one.", show_default=False),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option("--advertise", help="HOST:PORT that others are told, behind a router, say.", show_default=False),
    ] = None,
    join: Annotated[
        list[str] | None,
        typer.Option(
            "--join", help="Where any other node is reached, as it says itself; may be repeated.", show_default=False
        ),
    ] = None,
    dht: Annotated[
        str | None,
        typer.Option(
            "--dht", help="Find members in a DHT too: on, off, or its UDP port (on: the link's).", show_default=False
        ),
    ] = None,
    http: Annotated[
        str | None, typer.Option("--http", help="HOST:PORT of the HTTP interface, or off.", show_default=False)
    ] = None,
    roles: Annotated[
        str | None, typer.Option("--roles", help="Some of emit,ask,hold; all when not given.", show_default=False)
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option("--secret-file", help="Secret of a closed network.", show_default=False)
    ] = None,
    members: Annotated[
        Path | None, typer.Option("--members", help="Signed list of a closed network's members.", show_default=False)
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", help="Packets fetched for a question at most, those that help most; or all.", show_default=False
        ),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option(
            "--questions",
            help="plain; coarse=N: ask for whole groups of N neighbouring cells; dummies=N: ask about N made-up cases "
            "beside each. Holders learn less about cases, at the cost of bytes.",
            show_default=False,
        ),
    ] = None,
    ageing: Annotated[
        str | None,
        typer.Option(
            "--ageing",
            help="on: where own outcomes say that the past misleads, what is old weighs less; off (default): never.",
            show_default=False,
        ),
    ] = None,
    calculations: Annotated[
        str | None,
        typer.Option(
            "--calculations",
            help="Calculations that this node's answers are made by, a,b,c; all when not given. Others may use others.",
            show_default=False,
        ),
    ] = None,
    open_network: Annotated[bool, typer.Option("--open", help="A network that anybody may join.")] = False,
    restored: Annotated[
        bool, typer.Option("--restored", help="The directory comes from a backup: go on in a new incarnation.")
    ] = False,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="Leave when standard input ends: for programs that start nodes.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="Least level that is logged: debug, info, warning, error.")] = "info",
    as_json: Json = False,
) -> None:
    """Run a node until Ctrl-C: it keeps packets for others, hands over its own, and answers.

    The first node of a network needs no --join, any later one the address of
    any other. The options are kept in the node's directory, so the next start
    needs none of them. A closed network (the default unless the schema's
    distiller is single) has a secret: the first node makes it, give a copy of
    the file to the others. Logs go to standard error, one JSON object a line.

    Examples:

    outroute node --schema heart.toml --data-dir north --listen 10.0.0.5:7411

    outroute node --schema heart.toml --data-dir south --join 10.0.0.5:7411 --secret-file network.secret

    outroute node --data-dir north

    outroute node --schema heart.toml --data-dir east --transport zeromq://10.0.0.5:7411
    """
    levels = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
    if log_level not in levels:
        raise DataError(f"--log-level is one of {', '.join(levels)}", code="log.level")
    from threadpoolctl import threadpool_limits

    from outroute.node.joining import member_place
    from outroute.node.living import LivingNode
    from outroute.service.logs import log_to
    from outroute.transports.registry import link_type
    from outroute.transports.url import parse_url

    # Many small matrices all the time: several threads of a busy machine would wait for each other.
    threadpool_limits(limits=1)
    if transport:
        link_type(parse_url(transport))  # before anything is made: a transport that cannot be used is said first
    stop = Stop(until_eof=until_eof)
    loaded = prepare(data_dir, schema)
    given: dict[str, Any] = {
        "transport": transport,
        "listen": listen,
        "advertise": advertise,
        "join": join,
        "dht": dht,
        "http": http,
        "roles": roles,
        "secret_file": "" if secret_file is None else str(secret_file.absolute()),
        "members": "" if members is None else str(members.absolute()),
        "open": open_network,
        "budget": budget,
        "questions": questions,
        "calculations": calculations,
        "ageing": ageing,
    }
    settings = Settings.kept(data_dir, given)
    electing, joining = electing_of(data_dir, settings.electing()), settings.joining(data_dir, loaded)
    discretion, synthesis = settings.discretion(), settings.synthesis()
    log_to(sys.stderr, levels[log_level])
    with working("Joining"):
        living = LivingNode(
            loaded,
            data_dir,
            joining=joining,
            rules=data_dir / RULES_FILE,
            restored=restored,
            electing=electing,
            discretion=discretion,
            settings=synthesis,
            secret_file=settings.secret(data_dir) if joining.secrets.known else None,
        )
    server: Server | None = None
    try:
        if settings.http != "off":
            server = served(living, settings.http)
        used = 0 if joining.advertise or not living.endpoint else member_place(living.endpoint).port
        replace(settings, port=used).keep(data_dir)
        for notice in living.node.notices:
            warn(notice)
        show(living, server, data_dir, as_json=as_json)
        stop.wait()
    finally:
        try:
            if server is not None:
                server.close()
        finally:
            living.close()
    if not as_json:
        say("Left the network. What this node knows is in its directory; start it again with the same command.")


def served(living: LivingNode, http: str) -> Server | None:
    """The HTTP interface; without its extra the node runs on without one, unless it was asked for."""
    from outroute.node.joining import place_of

    try:
        from outroute.service.server import Server
    except ImportError as error:
        if http:
            raise MissingExtraError("service", "the HTTP interface") from error
        warn("no HTTP interface: the commands cannot talk to this node while it runs; pip install 'outroute[service]'")
        return None
    return Server(living, place_of(http or "127.0.0.1:0", default_host="127.0.0.1"))


def show(living: LivingNode, server: Server | None, directory: Path, *, as_json: bool) -> None:
    """Say where a node is, and what to do next."""
    from outroute.node.joining import SECRET_FILE

    secret, url = directory / SECRET_FILE, living.joining.transport
    own = living.joining.secrets.known and secret.exists()
    if as_json:
        emit_json(
            {
                "node": living.id.hex(),
                "key": living.key.hex(),
                "schema": living.schema.id.hex(),
                "transport": str(living.joining.transport),
                "endpoint": living.endpoint,
                "http": None if server is None else server.url,
                "closed": living.joining.closed,
                "peers": len(living.peers()),
            }
        )
    else:
        lines = {
            "node": living.id.hex(),
            "transport": str(url),
            "listens": f"{living.endpoint}{' (TCP and UDP)' if living.joining.dht is not None else ''}",
            "network": f"{'closed' if living.joining.closed else 'open'}, {len(living.peers()):,} members in sight",
            "HTTP": "off" if server is None else server.url,
        }
        if not living.endpoint:
            del lines["listens"]
        for name, value in lines.items():
            out.print(f"{name:>10}  {value}", markup=False, highlight=False)
        also = "" if url.scheme == "dht" else f" --transport {_for_another(url)}"
        also += f" --join {living.endpoint}" if living.endpoint else ""
        also += f" --secret-file COPY-OF-{secret}" if own else ""
        if url.scheme != "local":  # which ends with this process
            say(f"Another node: outroute node --schema SCHEMA --data-dir DIR{also}")
        say(f"In another terminal: outroute observe TABLE --case COLUMN --node {directory}. Ctrl-C ends this node.")
    sys.stdout.flush()


def _for_another(url: Url) -> str:
    """The transport's URL as another node gives it: where this one listens is this one's own."""
    from outroute.transports.registry import link_type

    options = "".join(f"{'&' if at else '?'}{name}={value}" for at, (name, value) in enumerate(url.options.items()))
    return str(url) if link_type(url) is None else f"{url.scheme}://{url.path}{options}"


class Stop:
    """Waits for Ctrl-C or SIGTERM; the second one ends the process without draining.

    Args:
        until_eof: the end of standard input counts as well.
    """

    def __init__(self, *, until_eof: bool) -> None:
        self._wanted = threading.Event()
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM"):
                signal.signal(getattr(signal, name), self._on)
        if until_eof:
            threading.Thread(target=self._until_eof, name="outroute-input", daemon=True).start()

    def _on(self, *_: object) -> None:
        if self._wanted.is_set():
            raise SystemExit(EXIT_INTERRUPTED)
        self._wanted.set()
        say("Leaving: what is approved is handed over first. Again to end at once.")

    def _until_eof(self) -> None:
        """In a thread: whoever started this node has gone, or wants it to go."""
        with contextlib.suppress(OSError):
            while os.read(0, 4096):  # not sys.stdin, whose lock would be held when the interpreter ends
                pass
        self._wanted.set()
        time.sleep(ORPHAN_SECONDS)
        os._exit(EXIT_INTERRUPTED)

    def wait(self) -> None:
        """Until a signal comes."""
        while not self._wanted.wait(1.0):
            pass
