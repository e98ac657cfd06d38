"""The demo over a real network: each airline is a process of its own, and they find each other in a DHT.

Everything goes the way of a user: nodes are started by ``outroute node``, and observe, distil and answer through their
HTTP interface. Links are TLS with the network's secret; nothing but packets and addresses leaves a process.
"""

from __future__ import annotations

import math
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from outroute.cli._node_dir import SCHEMA_FILE, keep_schema
from outroute.errors import DataError, MissingExtraError, TransportError
from outroute.service.processes import NodeProcess, Processes
from outroute.trial import Answer, Cases, Fold, SiteOut, score
from outroute.trial.parallel import cores
from outroute.trial.routing import OutcomeRouting

if TYPE_CHECKING:
    from outroute.datasets import Dataset
    from outroute.schema import Schema
    from outroute.service import Client

__all__ = ["FLIGHTS_LEAST", "Afterwards", "Network", "OverNetwork", "ended_in_order", "need_extras", "thinned"]

FLIGHTS_LEAST = 1_000
"""Flights that every airline keeps, whatever the share; the small ones keep all they have."""
QUESTIONS = 10_000
"""Questions of one request."""
ASKED_AFTERWARDS = 500
"""Questions of the node that joins after the kill."""
ANSWER_SECONDS = 600.0
"""Seconds for one answer over HTTP, on a machine where all processes share two cores."""
SETTLED_SECONDS = 240.0
"""Seconds until all packets are acknowledged, or the demo goes on and says how many are."""
LOOK_SECONDS = 0.5

Tell = Callable[[str, int, int], None]
T = TypeVar("T")
R = TypeVar("R")


def need_extras() -> None:
    """Refuse where something is missing.

    Raises:
        MissingExtraError: it names the extra to install.
    """
    for extra, modules in {
        "dht": ("opendht", "cryptography"),
        "service": ("fastapi", "uvicorn", "httpx", "prometheus_client"),
    }.items():
        if any(find_spec(module) is None for module in modules):
            raise MissingExtraError(extra, "outroute demo --transport dht")


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM ends the processes and removes their directories too, as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def thinned(dataset: Dataset, share: float, seed: int, sites: Sequence[str] = ()) -> Dataset:
    """Some sites, each with a share of its rows (``FLIGHTS_LEAST`` at least).

    Raises:
        DataError: there is no such site, or one alone is left.
    """
    unknown = [site for site in sites if site not in dataset.sites]
    wanted = [site for site in dataset.sites if not sites or site in sites]
    if unknown or len(wanted) < 2:
        what = f"there is no airline '{unknown[0]}'" if unknown else "one airline alone has nobody to learn from"
        raise DataError(f"{what}: name two or more of {', '.join(dataset.sites)}", code="demo.airline")
    rng = np.random.default_rng([seed, 0x5A4E])
    keep = np.zeros(len(dataset), dtype=np.bool_)
    for site in dataset.sites:
        rows = np.flatnonzero(dataset.site == site)
        chosen = rng.permutation(rows)[: max(FLIGHTS_LEAST, math.ceil(share * len(rows)))]
        keep[chosen] = site in wanted
    return dataset.rows(keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class Afterwards:
    """What happened after one airline was killed.

    Attributes:
        killed: the airline.
        packets: of it, acknowledged before.
        asker: the airline whose flights were asked about, by a new node that joined afterwards and knows nothing.
        asked, answered: questions, and those that were answered.
        unanswered_cells: cells that nobody answered for.
        found: packets that the new node found.
        contributed: whether packets of the one killed were among those that counted most.
        log_loss: of these answers.
        seconds: from the kill to the answers; most of it starts the new node.
    """

    killed: str
    packets: int
    asker: str
    asked: int
    answered: int
    unanswered_cells: int
    found: int
    contributed: bool
    log_loss: float
    seconds: float


@dataclass(slots=True, kw_only=True)
class Network:
    """What the processes counted.

    Attributes:
        processes: nodes that ran, one an airline.
        packets, acknowledged: packets made, and those that a majority of their holders keep durably.
        bytes_sent: of frames, by the nodes' own counters, before TLS.
        records_out: packets that hold a single record.
        asked: held-out flights that were asked about.
        unanswered_cells: cells that nobody answered for.
        start_seconds, publish_seconds, ask_seconds: how long it took to start them, until all packets were
            acknowledged, and until all questions were answered.
    """

    processes: int = 0
    packets: int = 0
    acknowledged: int = 0
    bytes_sent: int = 0
    records_out: int = 0
    asked: int = 0
    unanswered_cells: int = 0
    start_seconds: float = 0.0
    publish_seconds: float = 0.0
    ask_seconds: float = 0.0
    afterwards: Afterwards | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(kw_only=True)
class OverNetwork:
    """Outcome routing as one side of a trial, between processes.

    Attributes:
        k: flights in a packet.
        asker: site whose question is shown, and whose flights are asked about after the kill.
        kill: kill one site at the end, and ask again.
        tell: takes progress.
        question: the case that is asked in full, of the site's held-out cases.
        truth: outcomes of held-out cases of a site, to score the answers of the node that joins after the kill.
        name: under which its scores appear.
    """

    k: int
    asker: str
    kill: bool
    tell: Tell
    question: Callable[[Cases], dict[str, Any]]
    truth: Callable[[str, NDArray[np.object_]], NDArray[np.float64]]
    name: str = "outroute"
    network: Network = field(default_factory=Network)
    names: dict[str, str] = field(default_factory=dict)
    """Sites by the ids of their nodes."""
    case: dict[str, Any] = field(default_factory=dict)
    insight: dict[str, Any] | None = None

    def __call__(self, fold: Fold) -> Answer:
        """Run the whole loop once."""
        from outroute.node.joining import make_secret

        schema, founders = OutcomeRouting(k=self.k, progress=self.tell).founders(fold)
        processes = Processes()
        with tempfile.TemporaryDirectory(prefix="outroute-demo-") as name:
            folder = Path(name)
            try:
                keep_schema(folder / "schema", schema)
                make_secret(folder)
                return self._run(fold, schema, founders, folder, processes)
            finally:
                processes.end(at_once=True)

    def _run(
        self, fold: Fold, schema: Schema, founders: Mapping[str, int], folder: Path, processes: Processes
    ) -> Answer:
        sites = sorted(fold.train, key=lambda site: -len(fold.train[site]))
        first: NodeProcess | None = None

        def start(site: str) -> NodeProcess:
            return _started(processes, folder, site, first)

        begin = time.monotonic()
        self.tell("starting the airlines' processes", 0, len(sites))
        first = start(sites[0])
        with _pool(processes) as each:
            rest = each(start, sites[1:], lambda n: self.tell("starting the airlines' processes", n + 1, len(sites)))
        nodes = dict(zip(sites, [first, *rest], strict=True))
        self.network.processes = processes.running()
        self.network.start_seconds = time.monotonic() - begin
        self.names = {str(node.said["node"]): site for site, node in nodes.items()}
        clients = {site: _client(node) for site, node in nodes.items()}
        try:
            packets = self._published(fold, schema, clients, processes)
            answers = self._asked(fold, clients, processes)
            out = {site: self._out(clients[site], packets[site], founders.get(site, 0)) for site in sites}
            self.network.bytes_sent = sum(_bytes_sent(client) for client in clients.values())
            self.network.records_out = sum(one.records_out for one in out.values())
            if self.kill:
                victim = max(sites, key=lambda site: packets[site] if site != self._asker(fold) else -1)
                self.network.afterwards = self._afterwards(fold, nodes, victim, packets[victim], folder, processes)
        finally:
            for client in clients.values():
                client.close()
        return Answer(predictions={site: answers[site] for site in fold.test}, out=out)

    def _asker(self, fold: Fold) -> str:
        return self.asker if self.asker in fold.test else min(fold.test, key=lambda site: len(fold.test[site]))

    def _published(
        self, fold: Fold, schema: Schema, clients: Mapping[str, Client], processes: Processes
    ) -> dict[str, int]:
        """Observe and distil everywhere, and wait until everything is acknowledged; packets by site."""
        from outroute.schema import encode

        begin = time.monotonic()

        def observe(site: str) -> int:
            rows, client = fold.train[site], clients[site]
            if len(rows):
                codes = encode(schema, rows.columns).codes
                client.observe_encoded(codes, rows.y, cases=rows.case, times=rows.time)
            return int(client.distil(k=self.k)["packets"])

        sites = list(clients)
        text = "airlines observe, and condense their flights"
        self.tell(text, 0, len(sites))
        with _pool(processes) as each:
            made = dict(zip(sites, each(observe, sites, lambda n: self.tell(text, n, len(sites))), strict=True))
        self.network.packets = sum(made.values())
        while True:
            kept = sum(int(client.status()["packets_acknowledged"]) for client in clients.values())
            self.tell(f"{kept:,} of {self.network.packets:,} packets are acknowledged", kept, self.network.packets)
            if kept >= self.network.packets or time.monotonic() - begin > SETTLED_SECONDS:
                break
            time.sleep(LOOK_SECONDS)
        self.network.acknowledged = kept
        self.network.publish_seconds = time.monotonic() - begin
        return made

    def _asked(self, fold: Fold, clients: Mapping[str, Client], processes: Processes) -> dict[str, NDArray[np.float64]]:
        """Ask about all held-out cases of every site, at that site."""
        begin = time.monotonic()

        def ask(site: str) -> tuple[NDArray[np.float64], int]:
            rows = _rows(fold.test[site])
            estimates, unanswered = [np.empty(0)], 0
            for at in range(0, len(rows), QUESTIONS):
                said = clients[site].ask_many(rows[at : at + QUESTIONS])
                estimates.append(np.array(said["estimate"]))
                unanswered = int(said["reach"]["unanswered"])
            if site == self.asker and rows:
                self.case = self.question(fold.test[site])
                self.insight = clients[site].ask(self.case)
            p = np.concatenate(estimates)
            return np.column_stack([1 - p, p]), unanswered

        sites = list(clients)
        text = "airlines ask about the days held out"
        self.tell(text, 0, len(sites))
        with _pool(processes) as each:
            found = each(ask, sites, lambda n: self.tell(text, n, len(sites)))
        self.network.asked = sum(len(answers) for answers, _ in found)
        self.network.unanswered_cells = sum(unanswered for _, unanswered in found)
        self.network.ask_seconds = time.monotonic() - begin
        return {site: answers for site, (answers, _) in zip(sites, found, strict=True)}

    def _out(self, client: Client, packets: int, founders: int) -> SiteOut:
        """What left a site, by what its node counted and by the bytes of its packets."""
        import base64

        from outroute.packet import PACKET_BYTES, as_packets

        data = b"".join(base64.b64decode(one["bytes"]) for one in client.outbox())
        return SiteOut(
            packets=packets,
            bytes_out=_bytes_sent(client) + founders * PACKET_BYTES,
            records_out=int((as_packets(data)["size"] == 1).sum()),
        )

    def _afterwards(
        self,
        fold: Fold,
        nodes: Mapping[str, NodeProcess],
        victim: str,
        packets: int,
        folder: Path,
        processes: Processes,
    ) -> Afterwards:
        """Kill a site, and let a new node that knows nothing ask."""
        self.tell(f"{victim} is killed; a new node joins and asks", 0, 1)
        asker = self._asker(fold)
        nodes[victim].kill()
        begin = time.monotonic()
        living = next(node for site, node in nodes.items() if site != victim)
        newcomer = _started(processes, folder, "newcomer", living)
        rows = _rows(fold.test[asker])[:ASKED_AFTERWARDS]
        with _client(newcomer) as client:
            said = client.ask_many(rows)
        p = np.array(said["estimate"])
        truth = self.truth(asker, fold.test[asker].case[: len(rows)])
        dead = str(nodes[victim].said["node"])
        return Afterwards(
            killed=victim,
            packets=packets,
            asker=asker,
            asked=len(rows),
            answered=len(rows) - sum(said["abstained"]),
            unanswered_cells=int(said["reach"]["unanswered"]),
            found=int(said["reach"]["packets"]),
            contributed=dead in said["contributors"],
            log_loss=score(truth, np.column_stack([1 - p, p]), 2)["log_loss"],
            seconds=time.monotonic() - begin,
        )


def _started(processes: Processes, folder: Path, name: str, join: NodeProcess | None) -> NodeProcess:
    """Start a node of the demo's network."""
    from outroute.node.joining import SECRET_FILE

    options = ["--schema", str(folder / "schema" / SCHEMA_FILE), "--dht", "on", "--log-level", "warning"]
    options += ["--secret-file", str(folder / SECRET_FILE)]
    return processes.start(folder / name, *options, *([] if join is None else ["--join", join.endpoint]))


def _client(node: NodeProcess) -> Client:
    from outroute.service.client import Client

    found = Client.of(node.directory, seconds=ANSWER_SECONDS)
    if found is None:
        raise TransportError(f"the node in {node.directory} does not answer", code="demo.node")
    return found


def _bytes_sent(client: Client) -> int:
    lines = client.metrics().splitlines()
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith("outroute_bytes_sent_total{"))


def _rows(cases: Cases) -> list[dict[str, Any]]:
    """Cases as a user would write them down: names and values."""
    columns = {name: values.tolist() for name, values in cases.columns.items()}
    return [{name: values[i] for name, values in columns.items()} for i in range(len(cases))]


@contextmanager
def _pool(processes: Processes) -> Iterator[Callable[..., list[Any]]]:
    """Work on several nodes at a time, as many as there are cores; an interrupt ends the nodes, and so all calls."""
    pool = ThreadPoolExecutor(cores())

    def each(work: Callable[[T], R], items: Sequence[T], done: Callable[[int], None]) -> list[R]:
        futures = [pool.submit(work, item) for item in items]
        out = []
        for number, future in enumerate(futures, 1):
            out.append(future.result())
            done(number)
        return out

    try:
        yield each
    except BaseException:
        processes.end(at_once=True)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
