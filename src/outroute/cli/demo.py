"""``outroute demo``: sixteen airlines learn from each other on real flights, in this process or over a network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from outroute.cli._common import emit_json, err, handled, out, print_table, say
from outroute.cli._options import Json
from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.cli._demo_network import Network
    from outroute.node import Insight, Node
    from outroute.trial import Cases, Fold, Progress, Result

__all__ = ["Steps", "demo", "steps"]

AIRLINES = {
    "9E": "Endeavor",
    "AA": "American",
    "AS": "Alaska",
    "B6": "JetBlue",
    "DL": "Delta",
    "EV": "ExpressJet",
    "F9": "Frontier",
    "FL": "AirTran",
    "HA": "Hawaiian",
    "MQ": "Envoy",
    "OO": "SkyWest",
    "UA": "United",
    "US": "US Airways",
    "VX": "Virgin America",
    "WN": "Southwest",
    "YV": "Mesa",
}
ASKER = "AS"
"""The airline whose question is shown in full: one of the small ones."""
COHORT = 5
"""Flights in a packet. Flights are no persons, so single ones would be allowed; five cost a fifth of the bytes."""
SMALL, LARGE = 1_000, 10_000
SHARE = 0.2
"""Share of its flights that an airline uses over a real network: minutes on two cores."""


class Transport(StrEnum):
    """How the airlines' packets travel."""

    LOCAL = "local"
    DHT = "dht"


class Steps(Protocol):
    """Takes progress of a trial."""

    def method(self, progress: Progress) -> None:
        """A method starts."""

    def inner(self, text: str, done: int, total: int) -> None:
        """Our own method goes on."""


@contextmanager
def steps(title: str) -> Iterator[Steps]:
    """A progress bar on standard error; where it is no terminal, a line for each step (or repeat, if several)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    task = bar.add_task(title, total=None)

    class _Steps:
        said = ""

        def method(self, progress: Any) -> None:
            what = _METHODS.get(progress.method, progress.method)
            where = f"repeat {progress.repeat + 1} of {progress.repeats}" if progress.repeats > 1 else ""
            text = f"{what} ({where})" if where else what
            bar.update(task, description=text, completed=progress.step, total=progress.steps)
            if not err.is_terminal and (where or text) != self.said:
                self.said = where or text
                say(self.said)

        def inner(self, text: str, done: int, total: int) -> None:
            bar.update(task, description=text)

    with bar:
        yield _Steps()


_METHODS = {
    "outroute": "outcome routing",
    "majority": "base rate of each site",
    "local": "each on its own",
    "fedavg": "federated averaging",
    "fedavg_recal": "federated averaging, recalibrated",
    "pooled": "all records pooled",
    "pooled_recal": "all records pooled, recalibrated",
    "pooled_boosting": "all records pooled, boosting",
    "pooled_boosting_recal": "all records pooled, boosting, recalibrated",
    "pooled_same_estimator": "all records pooled, our estimator",
}


@handled
def demo(
    k: Annotated[int, typer.Option("--k", min=1, help="Flights in a packet, at least.")] = COHORT,
    seed: Annotated[int, typer.Option(help="Which days are held out.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the table as a picture (PNG, SVG or PDF).", show_default=False)
    ] = None,
    transport: Annotated[
        Transport, typer.Option(help="local: in this process. dht: a process for each airline, over a real network.")
    ] = Transport.LOCAL,
    share: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1.0,
            help=f"dht: share of its flights that an airline uses, 1,000 at least; {SHARE:g} when not given.",
            show_default=False,
        ),
    ] = None,
    airline: Annotated[
        list[str] | None, typer.Option(help="dht: only this airline; may be repeated.", show_default=False)
    ] = None,
    kill: Annotated[
        bool, typer.Option("--kill/--no-kill", help="dht: kill an airline's process, and ask again.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Sixteen airlines learn from each other, each keeping its own flights.

    336,776 real flights out of New York in 2013. Each airline is a node
    that holds only its own. It condenses them into signed packets of 512
    bytes, hands these to the nodes that keep their cells, and asks: will
    this flight be more than 15 minutes late? Three days in ten are held
    out, the same at every airline. Everything runs in this process; no
    server is started and nothing is fetched.

    The small airlines (AS, F9, YV, HA, OO) are the point: most of them gain.
    Who does worse than alone stays in the table.

    With --transport dht every airline is a process of its own (outroute
    node): TLS, a network secret, members found in a DHT. So that it takes
    minutes on two cores, airlines with more than 1,000 flights use --share of
    theirs. Then one process is killed, and the others go on answering. Takes
    the extras service and dht, and some 4 GB of memory.

    Examples:

    outroute demo

    outroute demo --plot airlines.png

    outroute demo --transport dht
    """
    from outroute import datasets, trial
    from outroute.trial.routing import OutcomeRouting

    if transport is Transport.DHT:
        share = SHARE if share is None else share
        _over_network(k=k, seed=seed, share=share, airlines=airline or [], kill=kill, plot=plot, as_json=as_json)
        return
    if share is not None or airline:
        raise DataError("--share and --airline belong to --transport dht", code="demo.transport")

    started = time.monotonic()
    with steps("reading 336,776 flights") as shown:
        flights = datasets.load("flights", k=1)  # flights are no persons: any cohort may leave
        question = _Question()
        ours = OutcomeRouting(k=k, progress=shown.inner, on_node=question)
        result = trial.run(
            flights,
            [ours, *trial.demo_opponents()],
            repeats=1,
            seed=seed,
            progress=shown.method,
        )
    seconds = time.monotonic() - started
    if plot is not None:
        from outroute.trial.plots import forest

        forest(result, plot)
    if as_json:
        found = result.to_json()
        asked = None if question.insight is None else question.insight.to_dict() | {"asker": ASKER}
        emit_json(found | {"insight": asked, "seconds_in_all": seconds, "k": k})
        return
    _table(result)
    _sentence(result)
    if question.insight is not None:
        _show(question)
    say(f"\n{seconds:.0f} seconds. Next, on your own table: outroute evaluate TABLE --outcome COLUMN --site COLUMN")
    if plot is not None:
        say(f"Picture: {plot}")


class _Question:
    """Remembers one answer in full, and who is who."""

    def __init__(self) -> None:
        self.insight: Insight | None = None
        self.case: dict[str, Any] = {}
        self.names: dict[str, str] = {}

    def __call__(self, fold: Fold, site: str, node: Node) -> None:
        self.names[node.id.hex()] = site
        if site != ASKER or not len(fold.test[site]):
            return
        self.case = _typical(fold.test[site])
        self.insight = node.ask(self.case)


def _typical(cases: Cases) -> dict[str, Any]:
    """The flight in the middle of the day."""
    late = cases.columns["departure"]
    row = int(sorted(range(len(late)), key=lambda i: float(late[i]))[len(late) // 2])
    return {name: values[row] for name, values in cases.columns.items()}


def _table(result: Result) -> None:
    from rich.table import Table

    table = Table(
        title="Log-loss of 'more than 15 minutes late' on days held out (smaller is better)",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("airline")
    for name in ("flights", "on its own", "outcome routing", "gain", "all pooled*", "packets out", "bytes out"):
        table.add_column(name, justify="right")
    ordered = sorted(result.sites, key=lambda s: result.sizes[s].rows)
    for site in ordered:
        alone, ours, pooled = (result.site_score(m, "log_loss", site) for m in ("local", "outroute", "pooled_boosting"))
        left = result.left("outroute", site)
        style = "green" if ours < alone - 0.005 else "red" if ours > alone + 0.005 else None
        table.add_row(
            f"{site} {AIRLINES.get(site, '')}",
            f"{result.sizes[site].rows:,}",
            f"{alone:.3f}",
            f"{ours:.3f}",
            f"{alone - ours:+.3f}",
            f"{pooled:.3f}",
            f"{left.packets:,}",
            f"{left.bytes_out:,}",
            style=style,
        )
    table.add_section()
    means = [result.score(m, "log_loss") for m in ("local", "outroute", "pooled_boosting")]
    total = result.left("outroute")
    table.add_row(
        "mean of airlines",
        f"{sum(result.sizes[s].rows for s in result.sites):,}",
        f"{means[0]:.3f}",
        f"{means[1]:.3f}",
        f"{means[0] - means[1]:+.3f}",
        f"{means[2]:.3f}",
        f"{total.packets:,}",
        f"{total.bytes_out:,}",
        style="bold",
    )
    print_table(table)
    say("* all records of all airlines in one place, boosting: what nobody is allowed to do")


def _sentence(result: Result) -> None:
    small = [s for s in result.sites if result.sizes[s].rows < SMALL]
    large = [s for s in result.sites if result.sizes[s].rows >= LARGE]
    parts = []
    for what, sites in ((f"under {SMALL:,} flights", small), (f"over {LARGE:,}", large)):
        alone, ours = (result.score(m, "log_loss", sites) for m in ("local", "outroute"))
        word = "better" if ours < alone else "WORSE"
        parts.append(f"airlines {what}: {abs(alone - ours):.3f} {word} than on their own")
    sent = result.left("outroute")
    out.print(
        f"\n{'; '.join(parts)}. One split: outroute evaluate and the benchmarks give intervals.\n"
        f"{sent.records_out:,} records left an airline, {sent.packets:,} packets did; bytes count every copy, "
        "question, reply and repair.",
        highlight=False,
    )


def _show(question: _Question) -> None:
    from outroute.cli._views import show_insight

    assert question.insight is not None
    c = question.case
    say(
        f"\nOne question in full. {ASKER} {AIRLINES[ASKER]} asks about a flight from {c['origin']}, "
        f"{float(c['distance']):,.0f} miles, {c['weekday']}, due out at {float(c['departure']):.1f} h:"
    )
    show_insight(question.insight, names=question.names, positive="yes")


def _over_network(
    *, k: int, seed: int, share: float, airlines: list[str], kill: bool, plot: Path | None, as_json: bool
) -> None:
    """The demo between processes."""
    from outroute.cli import _demo_network as network

    network.need_extras()
    import numpy as np

    from outroute import datasets, trial
    from outroute.cli._running import insight_of
    from outroute.schema import encode_outcome

    started = time.monotonic()
    with network.ended_in_order(), steps("reading 336,776 flights") as shown:
        flights = datasets.load("flights", k=1)
        known = flights.rows(np.array([text is not None for text in flights.outcome]))
        known = network.thinned(known, share, seed, airlines)
        outcome = encode_outcome(flights.schema.outcome, known.outcome)
        place = {pair: i for i, pair in enumerate(zip(known.site.tolist(), known.case.tolist(), strict=True))}
        ours = network.OverNetwork(
            k=k,
            asker=ASKER,
            kill=kill,
            tell=_told(shown),
            question=_typical,
            truth=lambda site, cases: outcome[[place[site, case] for case in cases.tolist()]],
        )
        opponents = [one for one in trial.demo_opponents() if one.name in ("local", "pooled_boosting")]
        result = trial.run(known, [ours, *opponents], repeats=1, seed=seed, progress=shown.method)
    seconds = time.monotonic() - started
    if plot is not None:
        from outroute.trial.plots import forest

        forest(result, plot)
    if as_json:
        extra = {"transport": "dht", "share": share, "network": ours.network.to_dict(), "insight": ours.insight}
        emit_json(result.to_json() | extra | {"seconds_in_all": seconds, "k": k})
        return
    _table(result)
    _network_sentence(result, ours.network, share)
    if ours.insight is not None:
        question = _Question()
        question.insight, question.case, question.names = insight_of(ours.insight), ours.case, ours.names
        _show(question)
    say(f"\n{seconds:.0f} seconds. Next, a network of your own: outroute swarm 5 --schema SCHEMA")
    if plot is not None:
        say(f"Picture: {plot}")


def _told(shown: Steps) -> Callable[[str, int, int], None]:
    """Progress of the network: on the bar, and where that is none, a line for each step."""
    said = ""

    def tell(text: str, done: int, total: int) -> None:
        nonlocal said
        shown.inner(f"{text} ({done:,} of {total:,})" if total > 1 else text, done, total)
        stage = text.lstrip("0123456789, ")
        if not err.is_terminal and stage != said:
            said = stage
            say(text)

    return tell


def _network_sentence(result: Result, network: Network, share: float) -> None:
    """What the processes counted, and what the kill did."""
    flights = sum(result.sizes[site].rows for site in result.sites)
    small = [site for site in result.sites if result.sizes[site].rows < SMALL]
    lines = [
        f"{network.processes} airlines, {network.processes} processes, {flights:,} flights ({share:g} of an airline's, "
        f"at least 1,000). {network.asked:,} questions about days held out, all of those flights.",
        f"{network.acknowledged:,} of {network.packets:,} packets acknowledged by most of the nodes that keep them, "
        f"{network.publish_seconds:.0f} seconds after the first flight was observed. {network.records_out:,} records "
        f"left an airline; {network.bytes_sent:,} bytes on the wire (frames before TLS, by the nodes' own counters).",
    ]
    if small:
        alone, ours = (result.score(m, "log_loss", small) for m in ("local", "outroute"))
        word = "better" if ours < alone else "WORSE"
        lines.insert(0, f"airlines under {SMALL:,} flights: {abs(alone - ours):.3f} {word} than on their own")
    if network.unanswered_cells:
        lines.append(f"Nobody answered for {network.unanswered_cells:,} cells.")
    after = network.afterwards
    if after is not None:
        thin, among = after.asked - after.answered, "its packets" if after.contributed else "none of its packets"
        lines.append(
            f"{after.killed}'s process was killed (SIGKILL; {after.packets:,} packets). A new node without flights "
            f"joined the others and asked about {after.asked:,} flights of {after.asker}: {after.answered:,} answered "
            f"from {after.found:,} packets, {among} among those that counted most; {thin:,} too unlike all of them; "
            f"{after.unanswered_cells:,} cells unanswered; log-loss {after.log_loss:.3f}."
        )
    out.print("\n" + "\n".join(lines), markup=False, highlight=False)
