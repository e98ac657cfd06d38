"""Hire as a choice of what to fetch: the same score with a part of the packets?

    OUTROUTE_DATA=... python -m benchmarks.hire [heart azpro opt flights] [--attacks none label-flip sybils] [--json]

Every site asks about its test cases in turn; packets of its peers lie in cells, and holders answer as they do in a
network (turns of organisations and authors, 256 packets of a cell at most). Ways of asking:

    everybody       all packets of the four nearest cells of each case and of the cells of own records
    nearest         all packets of the nearest cell of each case
    random 1/4      a quarter of what everybody would give, drawn at random
    hire 1/4, 1/8   so many, chosen by `outroute.elections.drawing` in rounds

and then the same elections and the same synthesis for all of them. With an attack half of all peers lie (Sybils: as
many identities as the attack makes, each an organisation of its own, or all of them certified by one). Differences are
paired by site and split, averaged over sites, with Nadeau-Bengio intervals over splits; the margin of 0.01 was written
down before any run. Bytes count questions, answers, and what two more owners of each cell are asked and answer for
comparison, each cell by itself.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._byzantine_tables import Case, case_of, tables
from benchmarks.common import options, show
from outroute import trial
from outroute.elections import elect
from outroute.elections.drawing import Ask, Known, demand_of, fetch
from outroute.fingerprint import cells
from outroute.node.asking import PROBES
from outroute.node.electing import elect_packets, table_of, table_of_own
from outroute.packet import PACKET_BYTES
from outroute.placement import Wanted, answered
from outroute.schema import encode
from outroute.simulation import together
from outroute.store import ANSWER_CAP
from outroute.synthesis import Evidence, Settings, fit
from outroute.trial.metrics import MIN_FOR_R2
from outroute.trial.parallel import single_threaded
from outroute.walls.hostile_scores import attacked, attackers

Ints = NDArray[np.int64]

TABLES = ("heart", "azpro", "opt", "flights")
ATTACKS = ("none", "label-flip", "sybils", "certified-sybils")
VICTIMS = {"azpro": 8, "flights": 4}
"""Sites that ask in each split, taking turns, of sixteen; elsewhere all."""
WAYS = ("everybody", "nearest", "random 1/4", "hire 1/4", "hire 1/8")
MARGIN = 0.01
"""What counts as the same score; written down before any run."""
PLAIN = ("kernel", "regression", "adjusted", "local")
"""Calculations that fit in a tenth of a second."""
OWNERS = 3
"""Owners of a cell: one sends packets, the others a digest."""
FRAME, ADDRESS, AUTHOR, RUN, PAIR = 72, 32, 10, 70, 64
"""Bytes of a frame's header, an address, an author in a question, a cell in an answer, a digest."""


@dataclass
class Holder:
    """Who holds the cells: answers as a member does, and counts.

    Attributes:
        packets: all of them.
        cell: int64[n], index of the cell that each lies in.
        cells: how many there are.
    """

    packets: Evidence
    cell: Ints
    cells: int
    rank: NDArray[np.uint64]
    author: NDArray[np.uint64]
    organisation: Ints
    bytes: int = 0

    def __post_init__(self) -> None:
        self.fetched = np.zeros(self.packets.n, dtype=bool)
        self.spent = np.zeros((len(self.packets.nodes), self.cells), dtype=bool)
        self.named: Ints = np.zeros(0, dtype=np.int64)
        self.total = np.bincount(self.cell[self.cell >= 0], minlength=self.cells)

    def ask(self, asks: Sequence[Ask]) -> Known:
        """Fetch, and say what is known by now."""
        for one in asks:
            rows = np.flatnonzero(self.cell == one.cell)
            theirs = self.named[list(one.nodes)]
            has = np.bincount(self.packets.node[rows], self.fetched[rows], len(self.packets.nodes)).astype(np.int64)
            wanted = [Wanted(int(self.author[node]), int(has[node])) for node in theirs.tolist()]
            author = self.author[self.packets.node[rows]]
            of = self.organisation[self.packets.node[rows]].astype(np.uint64)
            shown, left = answered(self.rank[rows], author, of, min(one.count, ANSWER_CAP), wanted)
            self.fetched[rows[shown]] = True
            if not left:
                self.spent[theirs if one.nodes else slice(None), one.cell] = True
            question = FRAME + ADDRESS + AUTHOR * len(one.nodes)
            digests = (OWNERS - 1) * (FRAME + PAIR)
            self.bytes += OWNERS * question + digests + FRAME + RUN + PACKET_BYTES * len(shown)
        rows = np.flatnonzero(self.fetched)
        here = self.packets.take(rows)
        self.named, index = np.unique(here.node, return_inverse=True)
        table = table_of(here)
        table = type(table)(
            x=table.x, target=table.target, size=table.size, node=index, nodes=len(self.named), numeric=table.numeric
        )
        return Known(
            packets=table,
            cell=self.cell[rows],
            fetched=len(rows),
            left=self.total - np.bincount(self.cell[rows], minlength=self.cells),
            spent=self.spent[self.named],
            organisation=self.organisation[self.named],
        )


@dataclass(frozen=True, kw_only=True)
class Question:
    """What one site asks in one split, and who there is to be asked."""

    case: Case
    packets: Evidence
    organisation: Ints
    near: Ints
    home: Ints

    @property
    def whole(self) -> Ints:
        """Cells of the questions and of own records."""
        return np.unique(np.concatenate([self.near.reshape(-1), self.home]))

    def holder(self, wanted: Ints) -> Holder:
        """The holders of some cells, which are numbered in order."""
        place = np.full(len(self.case.schema.landmarks.codes), -1, dtype=np.int64)
        place[wanted] = np.arange(len(wanted))
        rng = self.case.rng("holders")
        return Holder(
            packets=self.packets,
            cell=place[self.packets.cell],
            cells=len(wanted),
            rank=rng.integers(0, 2**63, self.packets.n).astype(np.uint64),
            author=rng.permutation(len(self.packets.nodes)).astype(np.uint64),
            organisation=rng.permutation(len(self.packets.nodes))[self.organisation],
        )

    def ask_all(self, wanted: Ints) -> Holder:
        holder = self.holder(wanted)
        holder.ask([Ask(cell=c, nodes=(), count=ANSWER_CAP) for c in range(len(wanted))])
        return holder

    def hired(self, budget: int) -> Holder:
        """What a node fetches that may fetch so many packets."""
        wanted, case = self.whole, self.case
        holder = self.holder(wanted)
        region = np.searchsorted(wanted, self.home)
        demand = demand_of(np.searchsorted(wanted, self.near), region, len(wanted))
        own = table_of_own(case.schema, case.own)
        fetch(holder.ask, own, case.own.group, region, demand, budget=budget, rng=case.rng("drawing"))
        return holder


def question(case: Case, attack: str) -> Question:
    fold, site = case.split.fold, case.victim
    packets = case.evidence
    if attack != "none":
        name = attack.removeprefix("certified-")
        packets = together(packets, attacked(case, name, attackers(case.peers, 0.5)))
    organisation = np.arange(len(packets.nodes))
    if attack.startswith("certified"):
        organisation = np.minimum(organisation, len(case.evidence.nodes))

    def near(columns: Any, probes: int) -> Ints:
        return cells(case.schema, encode(case.schema, columns).codes, probes).astype(np.int64)

    return Question(
        case=case,
        packets=packets,
        organisation=organisation,
        near=near(fold.test[site].columns, PROBES),
        home=near(fold.train[site].columns, 1)[:, 0],
    )


def score(asked: Question, rows: Ints, settings: Settings) -> float:
    """Log-loss, or R2, of one site's answers from some of the packets."""
    case, evidence = asked.case, asked.packets.take(rows)
    if evidence.n:
        certified = {n: b"%d" % o for n, o in zip(asked.packets.nodes, asked.organisation.tolist(), strict=True)}
        rng = case.rng("elections")
        evidence = elect_packets(case.schema, evidence, case.own, rng=rng, certified=certified).evidence
    with single_threaded():
        fitted = fit(
            case.schema,
            evidence,
            case.own,
            settings=settings,
            rng=case.rng("fit"),
            trust=lambda names, prior, objective: elect(objective, prior),
        )
        estimate = fitted.answer(case.x).estimate
    predicted = np.column_stack([1 - estimate, estimate]) if case.classes == 2 else estimate
    return float(trial.score(case.y, predicted, case.classes)["log_loss" if case.classes else "r2"])


def rows_of(case: Case, attack: str, settings: Settings) -> list[dict[str, Any]]:
    """One site in one split: every way of asking."""
    asked = question(case, attack)
    everybody = asked.ask_all(asked.whole)
    count = int(everybody.fetched.sum())
    draw = case.rng("a random quarter").permutation(np.flatnonzero(everybody.fetched))[: count // 4]
    found = []
    for way in WAYS:
        started = time.thread_time()
        if way == "everybody":
            holder = everybody
        elif way == "nearest":
            holder = asked.ask_all(np.unique(asked.near[:, 0]))
        elif way.startswith("hire"):
            holder = asked.hired(count // int(way[-1]))
        spent = time.thread_time() - started
        rows = draw if way.startswith("random") else np.flatnonzero(holder.fetched)
        # Holders would have to send a random part; its bytes are those of whole cells, shared.
        traffic = everybody.bytes - PACKET_BYTES * (count - len(rows)) if way.startswith("random") else holder.bytes
        honest = np.isin(asked.packets.node[rows], np.arange(len(case.evidence.nodes))) if len(rows) else np.zeros(0)
        found.append(
            {
                "repeat": case.repeat,
                "site": case.victim,
                "way": way,
                "score": score(asked, rows, settings),
                "packets": len(rows),
                "share": len(rows) / max(count, 1),
                "honest": float(honest.mean()) if len(rows) else float("nan"),
                "bytes": traffic,
                "seconds": spent,
            }
        )
    nothing = np.zeros(0, dtype=np.int64)
    found.append({"repeat": case.repeat, "site": case.victim, "way": "local", "score": score(asked, nothing, settings)})
    return found


def summary(rows: Sequence[dict[str, Any]], numeric: bool) -> dict[str, Any]:
    """Means over sites and splits, and every way beside asking everybody."""
    ratio = trial.TEST_SHARE / (1 - trial.TEST_SHARE)
    place = {(row["repeat"], row["site"], row["way"]): row["score"] for row in rows}
    metric = "r2" if numeric else "log_loss"
    out: dict[str, Any] = {}
    for way in (*WAYS, "local"):
        mine = [row for row in rows if row["way"] == way]
        out[way] = {metric: float(np.nanmean([row["score"] for row in mine]))}
        for name in ("packets", "share", "honest", "bytes", "seconds"):
            known = [row[name] for row in mine if name in row and not np.isnan(row[name])]
            if known:
                out[way][name] = float(np.mean(known))
        gaps: dict[int, list[float]] = defaultdict(list)
        for row in mine:
            gaps[row["repeat"]].append(row["score"] - place[row["repeat"], row["site"], "everybody"])
        if way != "everybody":
            values = [float(np.nanmean(gap)) for gap in gaps.values()]
            found = trial.difference(values, metric=metric, margin=MARGIN, test_to_train=ratio).to_json()
            out[way]["minus_everybody"] = {name: found[name] for name in ("mean", "low", "high", "verdict")}
    return out


def measure(
    name: str, attacks: Sequence[str], repeats: int, victims: int | None, settings: Settings, seed: int
) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {attack: [] for attack in attacks}
    numeric = False
    for table in tables(name, repeats, seed=seed):
        least = 1 if table.fold.classes else MIN_FOR_R2
        sites = [site for site in table.sites if len(table.truth[site]) >= least]
        victims = victims or VICTIMS.get(name)
        if victims is not None and victims < len(sites):
            sites = [sites[(table.fold.repeat * victims + i) % len(sites)] for i in range(victims)]
        for site in sites:
            case = case_of(table, site)
            numeric = not case.classes
            for attack in attacks:
                rows[attack] += rows_of(case, attack, settings)
        print(f"{name}: split {table.fold.repeat + 1} of {repeats}", file=sys.stderr)
    return {attack: summary(found, numeric) for attack, found in rows.items()}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("names", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; default all")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--victims", type=int, help="this many sites ask in each split, taking turns; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--boosting", action="store_true", help="all calculations, the boosted ones too")
    args = parser.parse_args(arguments)
    names = args.names or (["heart"] if args.quick else list(TABLES))
    if unknown := set(names) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    if args.quick:
        args.repeats, args.victims = 2, 1
    settings = Settings() if args.boosting else Settings(calculations=PLAIN)
    found: dict[str, Any] = {
        "repeats": args.repeats,
        "victims": args.victims,
        "seed": args.seed,
        "margin": MARGIN,
        "tables": {},
    }
    for name in names:
        found["tables"][name] = measure(name, args.attacks, args.repeats, args.victims, settings, args.seed)
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
