"""Tables for trials with attackers, by name: real ones, and digits spread over nodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from outroute import datasets, trial
from outroute.datasets import Dataset, GroupKind
from outroute.datasets.declare import number, schema
from outroute.schema import Outcome, OutcomeKind
from outroute.walls.hostile_cases import Case, Table, case_of, cases_of, tables_of

__all__ = ["CLASSES_EACH", "CLIENTS", "TABLES", "Case", "Table", "case_of", "cases", "digits", "load", "tables"]

TABLES = ("heart", "flights", "digits", "digits-iid")
K = 5
"""Cohorts as everywhere."""
FLIGHTS_EACH = 560
"""Flights drawn from each airline, fewer where it has fewer: 8,195 in all."""
CLIENTS = 10
"""Nodes that the digits are spread over."""
CLASSES_EACH = 3
"""Digits that one of them sees when they differ."""


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
    """The splits of a table, packets distilled; see `tables_of`."""
    yield from tables_of(trial.prepare(load(name)), name, repeats, k=K, seed=seed, first=first)


def cases(name: str, repeats: int, *, seed: int = 0, first: int = 0, victims: int | None = None) -> Iterator[Case]:
    """Every site as the victim, in every split.

    Args:
        name: of the table.
        repeats: number of splits, from `first` on.
        seed: of the splits and of everything else.
        victims: this many sites in each split, taking turns; None: all.
    """
    for table in tables(name, repeats, seed=seed, first=first):
        yield from cases_of(table, victims)
