"""Records divided over sites that differ as much as one likes: pure functions, everything random from a seed.

Each function gives every row a site; :func:`partitioned` makes a data set of that, and :func:`synthetic` draws one
whose sites differ in what follows from what.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.datasets import Dataset, GroupKind
from outroute.datasets.declare import number, schema
from outroute.errors import DataError
from outroute.schema import Outcome, OutcomeKind

__all__ = [
    "BINS",
    "LEAST_ROWS",
    "Partition",
    "by_classes",
    "by_dirichlet",
    "by_quantity",
    "check_divisions",
    "iid",
    "labels_of",
    "partitioned",
    "synthetic",
]

Integers = NDArray[np.int64]

LEAST_ROWS = 20
"""Rows that every site has at least, where a division leaves room for it: fewer cannot be split into train and test."""
DRAWS = 200
"""Divisions that are drawn until every site has its least rows; after that the largest sites give some away."""
BINS = 5
"""Equally large parts that a numeric outcome is cut into, to be skewed like classes."""
SYNTHETIC_FEATURES = 60
"""Of Synthetic(alpha, beta), as in its paper."""
SYNTHETIC_CLASSES = 10
"""Of Synthetic(alpha, beta), as in its paper."""
_RANGE = "12"
"""Declared range of a synthetic condition, both ways; what lies outside is put on its edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """How records are divided.

    Attributes:
        kind: "natural", "iid", "dirichlet", "classes" or "quantity".
        value: alpha of `dirichlet` and `quantity`, or classes at a site.
        sites: how many; 0 for as many as the table has.
    """

    kind: str
    value: float = 0.0
    sites: int = 0

    @staticmethod
    def parse(text: str, sites: int = 0) -> Partition:
        """From "natural", "iid", "dirichlet:0.1", "classes:2" or "quantity:0.5".

        Raises:
            DataError: it is none of these.
        """
        kind, _, value = text.partition(":")
        plain, valued = ("natural", "iid"), ("dirichlet", "classes", "quantity")
        try:
            if kind in plain and not value:
                return Partition(kind=kind, sites=sites)
            if (
                kind in valued
                and 0 < (number := float(value)) < math.inf
                and (kind != "classes" or number.is_integer())
            ):
                return Partition(kind=kind, value=number, sites=sites)
        except ValueError:
            pass
        raise DataError(
            f"'{text}' is no partition: say natural, iid, dirichlet:ALPHA, classes:COUNT or quantity:ALPHA",
            code="walls.partition",
        )

    def __str__(self) -> str:
        return self.kind if self.kind in ("natural", "iid") else f"{self.kind}:{self.value:g}"


def iid(rows: int, sites: int, rng: np.random.Generator) -> Integers:
    """Every site gets a random sample of equal size; int64[rows]."""
    out = np.arange(rows, dtype=np.int64) % sites
    rng.shuffle(out)
    return out


def by_dirichlet(labels: Integers, sites: int, alpha: float, rng: np.random.Generator) -> Integers:
    """Each class is divided over the sites by shares from a symmetric Dirichlet distribution.

    A small alpha gives each class to few sites; a large one gives every site the same shares of classes.

    Args:
        labels: int64[rows], classes.
        sites: how many.
        alpha: concentration, above 0.
        rng: draws.

    Source: Hsu, Qi and Brown, Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification (2019), section 3, in the form of Yurochkin et al. (2019): shares per class.
    """

    def draw() -> Integers:
        out = np.empty(len(labels), dtype=np.int64)
        for label in np.unique(labels):
            mine = rng.permutation(np.flatnonzero(labels == label))
            share = rng.dirichlet(np.full(sites, alpha))
            ends = np.round(np.cumsum(share)[:-1] * len(mine)).astype(np.int64)
            for site, part in enumerate(np.split(mine, ends)):
                out[part] = site
        return out

    return _enough(draw, len(labels), sites, rng)


def by_classes(labels: Integers, sites: int, count: int, rng: np.random.Generator) -> Integers:
    """Every site sees `count` classes only; each class is divided evenly over the sites that see it.

    Classes go round: with fewer places (sites times count) than classes, more sites are needed.

    Source: McMahan et al. (2017), section 3 (pathological non-IID division), with classes dealt in turn in place of
    shards, so that every site sees exactly as many.

    Raises:
        DataError: some class would be seen by nobody, or a site would need more classes than there are.
    """
    names = np.unique(labels)
    if count > len(names) or sites * count < len(names):
        raise DataError(
            f"{sites} sites with {count} classes each cannot share {len(names)} classes out", code="walls.partition"
        )
    order = rng.permutation(len(names))
    seen = {site: {int(order[(site * count + i) % len(names)]) for i in range(count)} for site in range(sites)}
    out = np.empty(len(labels), dtype=np.int64)
    for position, label in enumerate(names):
        who = [site for site, classes in seen.items() if position in classes]
        mine = rng.permutation(np.flatnonzero(labels == label))
        out[mine] = np.array(who)[np.arange(len(mine)) % len(who)]
    return out


def by_quantity(rows: int, sites: int, alpha: float, rng: np.random.Generator) -> Integers:
    """Sites differ in size alone, by shares from a symmetric Dirichlet distribution.

    Source: Li, Diao, Chen and He, Federated Learning on Non-IID Data Silos (ICDE 2022), section 4.3 (quantity skew).
    """

    def draw() -> Integers:
        share = rng.dirichlet(np.full(sites, alpha))
        ends = np.round(np.cumsum(share)[:-1] * rows).astype(np.int64)
        out = np.empty(rows, dtype=np.int64)
        for site, part in enumerate(np.split(rng.permutation(rows), ends)):
            out[part] = site
        return out

    return _enough(draw, rows, sites, rng)


def _enough(draw: Any, rows: int, sites: int, rng: np.random.Generator) -> Integers:
    """A division in which every site has `LEAST_ROWS`, or as many as there is room for."""
    least = min(LEAST_ROWS, rows // sites)
    for _ in range(DRAWS):
        out: Integers = draw()
        count = np.bincount(out, minlength=sites)
        if count.min() >= least:
            return out
    for site in np.flatnonzero(count < least):
        while (missing := least - int((out == site).sum())) > 0:
            count = np.bincount(out, minlength=sites)
            rich = int(count.argmax())
            out[rng.permutation(np.flatnonzero(out == rich))[: min(missing, int(count[rich]) - least)]] = site
    return out


def labels_of(dataset: Dataset) -> Integers:
    """int64[n] classes of the rows; a numeric outcome in `BINS` equally large parts. Rows must have an outcome."""
    classes = dataset.schema.outcome.classes
    if classes:
        number_of = {name: i for i, name in enumerate(classes)}
        return np.array([number_of[str(value)] for value in dataset.outcome], dtype=np.int64)
    values = dataset.outcome.astype(np.float64)
    edges = np.quantile(values, np.arange(1, BINS) / BINS)
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def known(dataset: Dataset) -> Dataset:
    """The rows that have an outcome."""
    if dataset.schema.outcome.classes:
        there = np.array([value is not None for value in dataset.outcome], dtype=bool)
    else:
        there = ~np.isnan(dataset.outcome.astype(np.float64))
    return dataset if there.all() else dataset.rows(there)


def partitioned(dataset: Dataset, partition: Partition, seed: int) -> Dataset:
    """The same records at other sites; `natural` changes nothing.

    Groups stay: rows that are held out together are held out together, wherever they lie now.
    """
    if partition.kind == "natural":
        return dataset
    dataset = known(dataset)
    sites, rng = partition.sites or len(dataset.sites), np.random.default_rng([seed, 0x9A47])
    if partition.kind == "iid":
        place = iid(len(dataset), sites, rng)
    elif partition.kind == "dirichlet":
        place = by_dirichlet(labels_of(dataset), sites, partition.value, rng)
    elif partition.kind == "classes":
        place = by_classes(labels_of(dataset), sites, int(partition.value), rng)
    else:
        place = by_quantity(len(dataset), sites, partition.value, rng)
    case = [f"{site}: {case}" for site, case in zip(dataset.site.tolist(), dataset.case.tolist(), strict=True)]
    width = len(str(sites - 1))
    return replace(
        dataset,
        name=f"{dataset.name}, {partition}",
        site=np.array([f"part {i:0{width}d}" for i in place], dtype=object),
        case=np.array(case, dtype=object),
        notes=(*dataset.notes, f"the records are divided anew: {partition}, {sites} sites"),
    )


def check_divisions(dataset: Dataset, texts: Sequence[str], seed: int) -> None:
    """Whether the records can be divided anew in these ways, before anything is measured.

    Raises:
        DataError: one of them is no division ("natural" is the table as it is), or cannot be made.
    """
    for text in texts:
        partition = Partition.parse(text)
        if partition.kind == "natural":
            raise DataError("'natural' is the table as it is, which is always measured", code="walls.partition")
        partitioned(dataset, partition, seed)


def synthetic(alpha: float, beta: float, *, sites: int = 30, seed: int = 0, most_rows: int = 400) -> Dataset:
    """Synthetic(alpha, beta): alpha moves what follows from conditions, beta moves the conditions themselves.

    At site k, y = argmax softmax(W x + b) with W and b from N(u, 1), u from N(0, alpha); x from N(v, Sigma) with
    Sigma = diag(j^-1.2), v from N(B, 1), B from N(0, beta). Sizes follow a log-normal distribution.

    Args:
        alpha, beta: variances, 0 or more. Synthetic(0, 0) still differs between sites, as in the paper.
        sites: the paper has 30.
        seed: everything follows from it.
        most_rows: of a site; the paper's largest would be half of all.

    Source: Li et al., Federated Optimization in Heterogeneous Networks (MLSys 2020), section 5.1.
    """
    rng = np.random.default_rng([seed, 0x5F17])
    sizes = np.clip(rng.lognormal(4.0, 2.0, sites).astype(np.int64) + 50, None, most_rows)
    deviation = np.arange(1, SYNTHETIC_FEATURES + 1) ** -0.6
    xs, ys = [], []
    for size in sizes:
        u, b = rng.normal(0, np.sqrt(alpha)), rng.normal(0, np.sqrt(beta))
        weights = rng.normal(u, 1, (SYNTHETIC_FEATURES, SYNTHETIC_CLASSES))
        bias, centre = rng.normal(u, 1, SYNTHETIC_CLASSES), rng.normal(b, 1, SYNTHETIC_FEATURES)
        x = rng.normal(centre, deviation, (int(size), SYNTHETIC_FEATURES))
        xs.append(x)
        ys.append(np.argmax(x @ weights + bias, axis=1))
    x = np.clip(np.concatenate(xs), -float(_RANGE), float(_RANGE))
    y = np.concatenate(ys)
    fields = tuple(number(f"x{i:02d}", f"-{_RANGE}", _RANGE) for i in range(SYNTHETIC_FEATURES))
    outcome = Outcome(
        name="class", kind=OutcomeKind.CATEGORICAL, classes=tuple(str(i) for i in range(SYNTHETIC_CLASSES))
    )
    return Dataset(
        name=f"synthetic({alpha:g}, {beta:g})",
        columns={field.name: x[:, i] for i, field in enumerate(fields)},
        outcome=np.array([str(value) for value in y], dtype=object),
        site=np.array([f"site {i:02d}" for i in np.repeat(np.arange(sites), sizes)], dtype=object),
        case=np.array([f"row {i}" for i in range(len(y))], dtype=object),
        group=None,
        group_kind=GroupKind.NONE,
        time=None,
        schema=schema("synthetic", fields, outcome, k=5, subject="row"),
        provenance="drawn by the generator of Synthetic(alpha, beta)",
        licence="none",
    )
