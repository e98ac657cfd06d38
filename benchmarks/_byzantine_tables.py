"""Tables for trials with attackers: each split's honest packets, distilled once, and what each victim keeps itself."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import observations_of
from outroute import datasets, trial
from outroute.datasets import Dataset, GroupKind
from outroute.datasets.declare import number, schema
from outroute.distill import Observations, distil
from outroute.fingerprint import cells
from outroute.schema import Outcome, OutcomeKind, Schema, unit_scale
from outroute.simulation import Region, standardised, together
from outroute.synthesis import Evidence, Records
from outroute.trial.routing import founders_landmarks

TABLES = ("heart", "flights", "digits", "digits-iid")
K = 5
"""Cohorts as everywhere."""
FLIGHTS_EACH = 560
"""Flights drawn from each airline, fewer where it has fewer: 8,195 in all."""
CLIENTS = 10
"""Nodes that the digits are spread over."""
CLASSES_EACH = 3
"""Digits that one of them sees when they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One split: what every site publishes and keeps.

    Attributes:
        name: of the table.
        fold: train and test rows of all sites.
        truth: outcomes of the test cases.
        packets: by site, what it publishes.
        keys: by site, its node id.
    """

    name: str
    fold: trial.Fold
    schema: Schema
    truth: Mapping[str, NDArray[np.float64]]
    packets: Mapping[str, Evidence]
    timed: bool

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.fold.train)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One victim in one split.

    Attributes:
        table: name of the table.
        repeat: number of the split.
        victim: its site.
        schema: with landmarks learnt from the split's packets.
        own: the victim's records.
        x, y: its test cases.
        evidence: packets of all honest peers.
        published: the victim's own packets: not evidence to itself, but attackers read them.
        region: where a backdoor is put.
        split: all sites, for those who need them.
    """

    table: str
    repeat: int
    seed: int
    victim: str
    schema: Schema
    own: Records
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    evidence: Evidence
    published: Evidence
    region: Region
    split: Table

    @property
    def classes(self) -> int:
        return self.split.fold.classes

    @property
    def peers(self) -> int:
        """Honest peers that publish."""
        return len(np.unique(self.evidence.node))

    @property
    def read(self) -> Evidence:
        """What attackers can read: packets of all honest members, the victim's too."""
        return together(self.evidence, self.published)

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator for each purpose, so that adding an attack never changes another's figures."""
        return np.random.default_rng([self.seed, self.repeat, zlib.crc32(f"{self.victim} {purpose}".encode())])

    def rows(self, kept: NDArray[np.bool_]) -> Case:
        """The same victim with only some of its own records; what it has published stays."""
        own = Records(x=self.own.x[kept], y=self.own.y[kept], group=self.own.group[kept], timed=self.own.timed)
        return replace(self, own=own)


def digits(*, iid: bool = False, seed: int = 0) -> Dataset:
    """1,797 handwritten digits, 8 by 8 points of 17 greys, at ten nodes that see three digits each (or all ten)."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    x, y = np.asarray(raw.data, dtype=np.float64), np.asarray(raw.target, dtype=np.int64)
    order = np.random.default_rng([seed, CLIENTS]).permutation(len(y))
    rank = np.empty(len(y), dtype=np.int64)
    if iid:
        rank[order] = np.arange(len(y)) % CLIENTS
        site = rank
    else:
        for one in range(CLIENTS):
            mine = order[y[order] == one]
            rank[mine] = np.arange(len(mine)) % CLASSES_EACH
        site = (y - rank) % CLIENTS
    fields = tuple(number(f"p{i // 8}{i % 8}", "0", "16", "grey") for i in range(64))
    outcome = Outcome(name="digit", kind=OutcomeKind.CATEGORICAL, classes=tuple(str(i) for i in range(10)))
    return Dataset(
        name="digits-iid" if iid else "digits",
        columns={field.name: x[:, i] for i, field in enumerate(fields)},
        outcome=np.array([str(value) for value in y], dtype=object),
        site=np.array([f"node {i}" for i in site], dtype=object),
        case=np.array([f"image {i}" for i in range(len(y))], dtype=object),
        group=None,
        group_kind=GroupKind.NONE,
        time=None,
        schema=schema("digits", fields, outcome, k=K, subject="image"),
        provenance="scikit-learn load_digits: UCI Optical Recognition of Handwritten Digits, test part",
        licence="CC BY 4.0",
    )


def load(name: str) -> Dataset:
    """A table by its name; of flights the part that `FLIGHTS_EACH` says."""
    if name.startswith("digits"):
        return digits(iid=name == "digits-iid")
    data = datasets.load(name, k=K)
    if name != "flights":
        return data
    known = np.array([value is not None for value in data.outcome], dtype=bool)
    rng = np.random.default_rng(0)
    kept = [rng.permutation(np.flatnonzero((data.site == site) & known))[:FLIGHTS_EACH] for site in data.sites]
    return data.rows(np.sort(np.concatenate(kept)))


def tables(name: str, repeats: int, *, seed: int = 0, first: int = 0) -> Iterator[Table]:
    """The splits of a table, packets distilled; sites with fewer than two cohorts publish what they can."""
    prepared = trial.prepare(load(name))
    data = prepared.dataset
    protocol = trial.Protocol.ROWS if data.group is None else trial.Protocol.GROUPED
    for repeat in range(first, first + repeats):
        parts = trial.split(data.site, data.group, protocol=protocol, repeat=repeat, seed=seed)
        fold = trial.fold_of(prepared, parts, seed=seed, protocol=protocol)
        observed = {site: observations_of(data.rows(rows))[site] for site, rows in parts.train.items() if len(rows)}
        yield _table(name, fold, {s: prepared.y[rows] for s, rows in parts.test.items()}, observed, data)


def _table(
    name: str,
    fold: trial.Fold,
    truth: Mapping[str, NDArray[np.float64]],
    observed: Mapping[str, Observations],
    data: Dataset,
) -> Table:
    made = {site: distil(fold.schema, rows, k=K).cohorts for site, rows in observed.items()}
    made = {site: cohorts for site, cohorts in made.items() if len(cohorts)}
    codes = np.concatenate([cohorts.codes for cohorts in made.values()])
    found = founders_landmarks(fold.schema, codes, len(codes), fold.rng("landmarks"))
    packets = {}
    for site, cohorts in made.items():
        n = len(cohorts)
        packets[site] = Evidence(
            x=unit_scale(found, cohorts.codes),
            node=np.zeros(n, dtype=np.int64),
            nodes=(site.encode(),),
            size=cohorts.size.astype(np.float64),
            counts=None if cohorts.counts is None else cohorts.counts.astype(np.float64),
            mean=cohorts.mean if cohorts.counts is None else None,
            variance=cohorts.variance if cohorts.counts is None else None,
            bucket=cohorts.bucket,
            cell=cells(found, cohorts.codes)[:, 0],
        )
    return Table(name=name, fold=fold, schema=found, truth=truth, packets=packets, timed=data.time is not None)


REGION_SHARE = 0.2
"""Part of a victim's test cases that lie in the region that a backdoor aims at."""


def cases(name: str, repeats: int, *, seed: int = 0, first: int = 0, victims: int | None = None) -> Iterator[Case]:
    """Every site as the victim, in every split.

    Args:
        name: of the table.
        repeats: number of splits, from `first` on.
        seed: of the splits and of everything else.
        victims: this many sites in each split, taking turns; None: all.
    """
    for table in tables(name, repeats, seed=seed, first=first):
        sites = [site for site in table.sites if len(table.truth[site])]
        if victims is not None and victims < len(sites):
            start = table.fold.repeat * victims
            sites = [sites[(start + i) % len(sites)] for i in range(victims)]
        for site in sites:
            yield case_of(table, site)


def case_of(table: Table, site: str) -> Case:
    """One site as the victim."""
    rows, asked = table.fold.train[site], table.fold.test[site].x
    group = rows.group
    if table.timed and rows.time is not None:
        seconds = table.schema.time.bucket_seconds
        group = rows.time - rows.time % seconds
    evidence = together(*(packets for other, packets in table.packets.items() if other != site))
    nothing = evidence.take(np.zeros(0, dtype=np.int64))
    rng = table.fold.rng(f"region of {site}")
    return Case(
        table=table.name,
        repeat=table.fold.repeat,
        seed=table.fold.seed,
        victim=site,
        schema=table.schema,
        own=Records(x=rows.x, y=rows.y, group=group, timed=table.timed),
        x=asked,
        y=table.truth[site],
        evidence=evidence,
        published=table.packets.get(site, nothing),
        region=region_around(asked, asked[rng.integers(len(asked))], evidence),
        split=table,
    )


def region_around(
    x: NDArray[np.float64], centre: NDArray[np.float64], packets: Evidence, share: float = REGION_SHARE
) -> Region:
    """The ball around `centre` that holds a share of the conditions `x`; slots count in deviations between packets."""
    region = Region(centre=centre, scale=standardised(packets.x)[1], radius=0.0)
    return replace(region, radius=float(np.quantile(region.distance(x), share)))
