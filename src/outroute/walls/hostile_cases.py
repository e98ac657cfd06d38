"""Cases with attackers: each split's honest packets, distilled once, and what each victim keeps itself."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outroute import trial
from outroute.datasets import Dataset
from outroute.datasets.observations import observations_of
from outroute.distill import Observations, distil
from outroute.fingerprint import cells
from outroute.schema import Schema, unit_scale
from outroute.simulation import Region, standardised, together
from outroute.synthesis import Evidence, Records
from outroute.trial.routing import founders_landmarks
from outroute.walls.base import CannotRunError

__all__ = ["Case", "Table", "case_of", "cases_of", "region_around", "tables_of", "victims_of"]

REGION_SHARE = 0.2
"""Part of a victim's test cases that lie in the region that a backdoor aims at."""


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
        """Names of the sites."""
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
        """Of the outcome."""
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


def tables_of(
    prepared: trial.Prepared, name: str, repeats: int, *, k: int, seed: int = 0, first: int = 0
) -> Iterator[Table]:
    """The splits of a table, packets distilled; sites with fewer than two cohorts publish what they can.

    Args:
        prepared: the table.
        name: of the table, for results.
        repeats: number of splits, from `first` on.
        k: subjects in a packet.
        seed: of the splits and of everything else.

    Raises:
        CannotRunError: fewer than two sites can publish anything.
    """
    data = prepared.dataset
    protocol = trial.Protocol.ROWS if data.group is None else trial.Protocol.GROUPED
    for repeat in range(first, first + repeats):
        parts = trial.split(data.site, data.group, protocol=protocol, repeat=repeat, seed=seed)
        fold = trial.fold_of(prepared, parts, seed=seed, protocol=protocol)
        observed = {site: observations_of(data.rows(rows))[site] for site, rows in parts.train.items() if len(rows)}
        yield _table(name, fold, {s: prepared.y[rows] for s, rows in parts.test.items()}, observed, data, k)


def _table(
    name: str,
    fold: trial.Fold,
    truth: Mapping[str, NDArray[np.float64]],
    observed: Mapping[str, Observations],
    data: Dataset,
    k: int,
) -> Table:
    made = {site: distil(fold.schema, rows, k=k).cohorts for site, rows in observed.items()}
    made = {site: cohorts for site, cohorts in made.items() if len(cohorts)}
    if len(made) < 2:
        raise CannotRunError(
            f"fewer than two sites have the {k} subjects that a packet needs, so nobody has packets of others: a "
            "smaller --k, or leave the wall out with --walls"
        )
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


def cases_of(table: Table, victims: int | None = None) -> Iterator[Case]:
    """The victims of a split: this many of its sites, taking turns from split to split; None: all."""
    for site in victims_of(table, victims):
        yield case_of(table, site)


def victims_of(table: Table, victims: int | None = None) -> list[str]:
    """Their names."""
    sites = [site for site in table.sites if len(table.truth[site])]
    if victims is not None and victims < len(sites):
        start = table.fold.repeat * victims
        sites = [sites[(start + i) % len(sites)] for i in range(victims)]
    return sites


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
