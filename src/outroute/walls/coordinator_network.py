"""Our network as its users run it: ``outroute node`` at each site and holders beside them, asked over HTTP."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import OutrouteError
from outroute.node.joining import SECRET_FILE, make_secret
from outroute.schema import Distiller, Schema, dumps, encode, recipe_of
from outroute.service.processes import NodeProcess, Processes
from outroute.trial import Cases, Fold
from outroute.walls.coordinator_processes import Workplace, until

if TYPE_CHECKING:
    from outroute.service import Client

__all__ = ["Asked", "Asking", "Network", "cases_of", "client_of"]

SETTLED_SECONDS = 120.0
"""Seconds until every packet is acknowledged by a majority of its holders, on a busy machine."""
ANSWER_SECONDS = 60.0
"""Seconds for one answer."""
QUESTION_SECONDS = 0.2
"""Between two questions that are due at one asker; one that is late makes the next ones late, and none is made up."""
AT_ONCE = 2
"""Processes that start at a time."""
_RULES = 'name = "a trial on this machine"\nagreeing = true\n'
"""Nothing leaves the machine: there is nobody to ask."""


def cases_of(cases: Cases, most: int | None = None) -> list[dict[str, Any]]:
    """Cases as a user would write them down: names and values."""
    columns = {name: values.tolist() for name, values in cases.columns.items()}
    return [{name: values[i] for name, values in columns.items()} for i in range(len(cases))][:most]


def client_of(node: NodeProcess) -> Client:
    """A client for a node that runs.

    Raises:
        RuntimeError: it does not answer.
    """
    from outroute.service.client import Client

    found = Client.of(node.directory, seconds=ANSWER_SECONDS)
    if found is None:
        raise RuntimeError(f"the node in {node.directory} does not answer")
    return found


class Network:
    """One network.

    Args:
        place: where it runs.
        schema: with landmarks.
        fold: whose sites' records the nodes hold.
        holders: nodes without records of their own.
        k: subjects in a packet.
    """

    def __init__(self, place: Workplace, schema: Schema, fold: Fold, *, holders: int, k: int) -> None:
        self._place, self._schema, self._fold, self._holders, self._k = place, schema, fold, holders, k
        self._processes = Processes(place.environment)
        self.nodes: dict[str, NodeProcess] = {}
        self._folder = place.folder / "network"

    def start(
        self, options: Mapping[str, Sequence[str]] | None = None, pythons: Mapping[str, str] | None = None
    ) -> None:
        """Start all nodes; the first one is the one that the others are told of.

        Args:
            options: further options of ``outroute node``, by site.
            pythons: interpreters that run a site's node instead of this one.
        """
        self._folder.mkdir()
        make_secret(self._folder)
        drawn = recipe_of(self._schema.fields, self._schema.landmarks) is not None
        if not drawn:
            (self._folder / "landmarks.bin").write_bytes(self._schema.landmarks.to_bytes())
        text = dumps(self._schema, landmarks_file=None if drawn else "landmarks.bin")
        (self._folder / "schema.toml").write_text(text, encoding="utf-8")
        names = [*self._fold.train, *(f"holder {i + 1}" for i in range(self._holders))]
        first: NodeProcess | None = None

        def begin(name: str) -> NodeProcess:
            more = list((options or {}).get(name, ()))
            if name not in self._fold.train:
                more += ["--roles", "ask,hold"]
            if first is not None:
                more += ["--join", first.endpoint]
            return self._start(names.index(name), more, (pythons or {}).get(name, sys.executable))

        first = begin(names[0])
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self.nodes = dict(zip(names, [first, *pool.map(begin, names[1:])], strict=True))

    def _start(self, number: int, more: Sequence[str], python: str = sys.executable) -> NodeProcess:
        directory = self._folder / f"node-{number}"
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / "approve.toml").write_text(_RULES, encoding="utf-8")
        given = ["--schema", str(self._folder / "schema.toml"), "--secret-file", str(self._folder / SECRET_FILE)]
        node = self._processes.start(directory, *given, "--dht", "off", "--log-level", "warning", *more, python=python)
        self._place.watch(node.process.pid)
        return node

    def again(self, name: str) -> None:
        """Start a node that was killed, from its directory: it knows by itself whom to join."""
        self.nodes[name] = self._start(list(self.nodes).index(name), [])

    def teach(self) -> int:
        """Every site observes its records and distils them; packets, once all are acknowledged."""

        def one(site: str) -> int:
            rows = self._fold.train[site]
            with client_of(self.nodes[site]) as client:
                codes = encode(self._schema, rows.columns).codes
                subjects = rows.group if self._fold.by_subject else None
                client.observe_encoded(codes, rows.y, cases=rows.case, subjects=subjects, times=rows.time)
                private = self._schema.privacy.distiller is Distiller.PRIVATE
                return int(client.distil(k=None if private else self._k)["packets"])

        with ThreadPoolExecutor(AT_ONCE) as pool:
            made = sum(pool.map(one, self._fold.train))
        clients = [client_of(self.nodes[site]) for site in self._fold.train]
        try:
            until(
                lambda: sum(int(client.status()["packets_acknowledged"]) for client in clients) >= made,
                SETTLED_SECONDS,
                "all packets are acknowledged",
            )
        finally:
            for client in clients:
                client.close()
        return made

    def newcomer(self, near: str) -> None:
        """Start a node that knows nothing, told of one that lives; it is called "newcomer"."""
        more = ["--roles", "ask,hold", "--join", self.nodes[near].endpoint]
        self.nodes["newcomer"] = self._start(len(self.nodes), more)

    def reach(self, name: str, site: str, most: int) -> tuple[int, int]:
        """What a node without records finds for a site's cases: packets, and questions answered."""
        with client_of(self.nodes[name]) as client:
            said = client.ask_many(cases_of(self._fold.test[site], most))
        return int(said["reach"]["packets"]), len(said["abstained"]) - int(sum(map(bool, said["abstained"])))

    def sees(self, name: str) -> int:
        """Members in a node's sight, itself among them."""
        with client_of(self.nodes[name]) as client:
            return len(client.peers()["peers"])

    def answers(self, site: str, most: int) -> NDArray[np.float64]:
        """Estimates for a site's held-out cases, asked all at once: float64[n], or float64[n, C]."""
        with client_of(self.nodes[site]) as client:
            return np.array(client.ask_many(cases_of(self._fold.test[site], most))["estimate"], dtype=np.float64)

    def end(self) -> None:
        """End all at once."""
        self._processes.end(at_once=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question.

    Attributes:
        site: who asked.
        when: seconds since 1970 when the answer came.
        seconds: that it took.
        answered: whether there was an estimate.
        whole: whether a holder of every cell that was looked at answered.
    """

    site: str
    when: float
    seconds: float
    answered: bool
    whole: bool


class Asking:
    """Sites that ask about their held-out cases, one question after the other, until the block ends."""

    def __init__(self, network: Network, fold: Fold, sites: Sequence[str]) -> None:
        self._network, self._fold, self._sites = network, fold, list(sites)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self.failed: list[str] = []
        """Why a question could not even be asked."""

    def __enter__(self) -> Asking:
        for site in self._sites:
            thread = threading.Thread(target=self._ask, args=(site,), name=f"asks at {site}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER_SECONDS)

    @property
    def asked(self) -> list[Asked]:
        """All questions until now, in the order in which they were answered."""
        with self._lock:
            return list(self._asked)

    def _ask(self, site: str) -> None:
        cases = itertools.cycle(cases_of(self._fold.test[site]))
        with client_of(self._network.nodes[site]) as client:
            due = time.monotonic()
            while not self._stop.is_set():
                self._one(client.ask, site, next(cases))
                due = max(due + QUESTION_SECONDS, time.monotonic())
                self._stop.wait(max(0.0, due - time.monotonic()))

    def _one(self, ask: Callable[[dict[str, Any]], dict[str, Any]], site: str, case: dict[str, Any]) -> None:
        begin = time.monotonic()
        try:
            said = ask(case)
        except OutrouteError as error:
            with self._lock:
                self.failed.append(str(error))
            return
        one = Asked(
            site=site,
            when=time.time(),
            seconds=time.monotonic() - begin,
            answered=said["abstained"] is None,
            whole=not said["reach"]["unanswered"],
        )
        with self._lock:
            self._asked.append(one)
