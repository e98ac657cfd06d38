"""Sites of one to four subjects: what shares for two synthesizers cost them, and what they buy everybody.

    OUTROUTE_DATA=... python -m benchmarks.tiny --json

Tables are cut into sites of one to four subjects each, inside their real sites. Held-out cases are asked by somebody
who has no outcomes of their own, from what the sites let out: shares that two synthesizers add up over several sites
(real seals and signatures); the same cohorts with nobody to hide from ("one trusted party": MDAV over all records);
reports under local differential privacy (optimised unary encoding of cell and outcome: T. Wang et al., "Locally
Differentially Private Protocols for Frequency Estimation", USENIX Security 2017, section 4; corrected for by who
asks); and all records in one place. "Alone" is each site's own one to four outcomes, and nothing let out. The noise of
local differential privacy is drawn by NumPy here: it shows what it would buy and protects nobody.

The airline OO SkyWest has 29 flights: its days are asked about too, in a sample of all airlines' flights cut up in the
same way (extra `demo`).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import key, options, show
from outroute import datasets
from outroute.datasets import Dataset
from outroute.distill import Grouping, Observations, distil
from outroute.distill.combining import combine
from outroute.distill.contribution import Contribution, contribute, pair_of, read
from outroute.distill.opening import add_up
from outroute.elections import elect
from outroute.fingerprint import cells
from outroute.identity import Identity
from outroute.node.evidence import evidence_of
from outroute.packet import PACKET_BYTES
from outroute.schema import Schema, drawn_landmarks, encode, encode_outcome, facet_index, unit_scale
from outroute.synthesis import Evidence, Records, fit
from outroute.trial.intervals import MARGINS, difference, relative_margin
from outroute.trial.metrics import score

TABLES = ("heart", "opt", "azpro", "flights")
K = 5
MOST_SUBJECTS = 4
TEST_SHARE = 0.3
SHARE_CELLS = (64, 256, 1024)
"""Landmarks, drawn from the declared ranges: nobody has packets yet to learn others from."""
PRIVATE_CELLS = 16
"""Landmarks for local differential privacy: 32 answers to choose from with two classes."""
EPSILONS = (1.0, 3.0)
SAMPLE = 1_500
"""Flights of all other airlines that are cut into sites of one to four, beside all of OO's."""
OO_TEST = 0.3


@dataclass(frozen=True, kw_only=True)
class Split:
    """One repeat: sites of one to four subjects, and cases to ask about.

    Attributes:
        train, test: rows.
        site: tiny site of each training row.
        asked_at: tiny site that each test case belongs to.
        special: which test cases are of the airline OO.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    site: NDArray[np.int64]
    asked_at: NDArray[np.int64]
    special: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, encoded."""

    data: Dataset
    codes: NDArray[np.uint16]
    y: NDArray[np.float64]
    bucket: NDArray[np.int64]


def load(name: str) -> Table:
    data = datasets.load(name, k=K)
    y = encode_outcome(data.schema.outcome, data.outcome)
    data, y = data.rows(~np.isnan(y)), y[~np.isnan(y)]
    # Time windows play no part here: one bucket for all.
    return Table(data=data, codes=encode(data.schema, data.columns).codes, y=y, bucket=np.zeros(len(y), np.int64))


def split(table: Table, repeat: int) -> Split:
    rng = np.random.default_rng([17, repeat])
    data, special = table.data, np.zeros(len(table.data), dtype=bool)
    if data.group is None:
        held = rng.random(len(data)) < TEST_SHARE
        train = np.flatnonzero(~held)
    else:
        special = data.site == "OO"
        days = np.unique(data.group)
        # OO flew on few days: days are held out among its own and among all others apart.
        own = np.unique(data.group[special])
        out = np.concatenate([rng.permutation(own)[: round(OO_TEST * len(own))], rng.permutation(days)[:60]])
        held = np.isin(data.group, out)
        others = rng.permutation(np.flatnonzero(~held & ~special))[:SAMPLE]
        train = np.sort(np.concatenate([others, np.flatnonzero(~held & special)]))
        asked = rng.permutation(np.flatnonzero(held & ~special))[:SAMPLE]
        held = np.zeros(len(data), dtype=bool)
        held[asked] = True
        held[np.isin(data.group, out) & special] = True
    test = np.flatnonzero(held)
    site = np.full(len(train), -1, dtype=np.int64)
    asked_at = np.full(len(test), -1, dtype=np.int64)
    count = 0
    for name in data.sites:
        rows = rng.permutation(np.flatnonzero(data.site[train] == name))
        first, at = count, 0
        while at < len(rows):
            size = int(rng.integers(1, MOST_SUBJECTS + 1))
            site[rows[at : at + size]] = count
            at, count = at + size, count + 1
        here = np.flatnonzero(data.site[test] == name)
        if count > first:
            asked_at[here] = rng.integers(first, count, len(here))
    return Split(train=train, test=test, site=site, asked_at=asked_at, special=special[test])


def records(table: Table, rows: NDArray[np.int64], schema: Schema) -> Observations:
    return Observations(
        codes=table.codes[rows],
        outcome=table.y[rows],
        subject=np.arange(len(rows), dtype=np.int64),
        bucket=table.bucket[rows],
        facet=facet_index(schema, table.codes[rows]),
    )


def with_cells(schema: Schema, count: int) -> Schema:
    return replace(schema, landmarks=drawn_landmarks(schema.fields, count))


def plain_evidence(schema: Schema, x: NDArray[np.float64], **said: Any) -> Evidence:
    n = len(x)
    zeros = np.zeros(n, dtype=np.int64)
    both = {"counts": None, "mean": None, "variance": None} | said
    return Evidence(x=x, node=zeros, nodes=(b"somebody",), bucket=zeros, cell=zeros, **both)


def asked(table: Table, schema: Schema, evidence: Evidence, parts: Split) -> NDArray[np.float64]:
    """Answers to the held-out cases by somebody with no outcomes of their own."""
    width = schema.width
    nobody = Records(x=np.empty((0, width)), y=np.empty(0), group=np.empty(0, np.int64))
    fitted = fit(
        schema,
        evidence,
        nobody,
        rng=np.random.default_rng(3),
        trust=lambda names, prior, objective: elect(objective, prior),
    )
    return fitted.answer(unit_scale(schema, table.codes[parts.test])).estimate


def alone(table: Table, parts: Split) -> NDArray[np.float64]:
    """Each site's own one to four outcomes, drawn a little towards the middle of the declared range."""
    outcome = table.data.schema.outcome
    low, high = (0.0, 1.0) if outcome.has_classes else (float(outcome.low or 0), float(outcome.high or 0))
    number = np.bincount(parts.site, minlength=parts.site.max() + 1)
    total = np.bincount(parts.site, weights=table.y[parts.train], minlength=len(number))
    at = parts.asked_at
    some = np.where(at >= 0, number[np.maximum(at, 0)], 0)
    here = np.where(at >= 0, total[np.maximum(at, 0)], 0.0)
    return np.asarray((here + (low + high) / 2) / (some + 1))


def by_shares(table: Table, schema: Schema, parts: Split, cost: dict[str, Any]) -> Evidence:
    """The whole protocol: seal, open, add up, combine."""
    first, second = key(1), key(2)
    pair = pair_of(first.public_key, second.public_key)
    if first.public_key != pair[0]:
        first, second = second, first
    rng = np.random.default_rng([5, len(parts.train)])
    held: tuple[list[Contribution], list[Contribution]] = ([], [])
    started, sizes, gave, opened = time.process_time(), [0, 0], 0.0, 0.0
    for name in np.unique(parts.site):
        site = Identity(rng.bytes(32))
        made = contribute(
            schema,
            records(table, parts.train[parts.site == name], schema),
            identity=site,
            pair=pair,
            nonce=rng.bytes,
        )
        for role in (0, 1):
            sizes[role] += len(made.files[role])
        begun = time.process_time()
        for role, who in enumerate((first, second)):
            for one in read(schema, made.files[role], who):
                assert isinstance(one, Contribution)
                held[role].append(one)
        opened += time.process_time() - begun
    gave = time.process_time() - started - opened
    begun = time.process_time()
    ours, used = add_up(schema, held[0], by=first.public_key, other=second.public_key, k=K)
    theirs, _ = add_up(schema, held[1], by=second.public_key, other=first.public_key, k=K)
    combined = combine(schema, ours, theirs, first)
    assert not combined.spoilt
    n = len(parts.train)
    size = combined.packets["size"].astype(np.float64)
    cost.update(
        {
            "cells": len(schema.landmarks),
            "subjects": n,
            "sites": len(np.unique(parts.site)),
            "cohorts": len(size),
            "cohort_median": float(np.median(size)) if len(size) else None,
            "cohort_most": float(size.max()) if len(size) else None,
            "left": ours.left,
            "bytes_per_subject": {"one": sizes[0] / n, "other": sizes[1] / n},
            "bytes_of_packets": len(size) * PACKET_BYTES,
            "cpu_ms_per_subject": {"site": 1e3 * gave / n, "each_synthesizer": 1e3 * opened / n / 2},
            "cpu_ms_add_up_and_combine": 1e3 * (time.process_time() - begun),
        }
    )
    assert len(used) >= int(size.sum())
    return evidence_of(schema, combined.packets)


def by_one_party(table: Table, schema: Schema, parts: Split) -> Evidence:
    rows = records(table, parts.train, schema)
    made = distil(schema, rows, k=K, grouping=Grouping(window_seconds=10**9)).cohorts
    said: dict[str, Any] = {"size": made.size.astype(np.float64)}
    if made.counts is not None:
        said["counts"] = made.counts.astype(np.float64)
    else:
        said |= {"mean": made.mean, "variance": made.variance}
    return plain_evidence(schema, unit_scale(schema, made.codes), **said)


def by_local_privacy(table: Table, schema: Schema, parts: Split, epsilon: float, repeat: int) -> Evidence:
    rng = np.random.default_rng([29, repeat, round(epsilon * 10)])
    cell = cells(schema, table.codes[parts.train])[:, 0]
    y, outcome = table.y[parts.train], schema.outcome
    low, high = (0.0, 1.0) if outcome.has_classes else (float(outcome.low or 0), float(outcome.high or 0))
    # Of a number, one bit whose mean is the number's place in the declared range.
    bit = rng.random(len(y)) < np.clip((y - low) / (high - low), 0, 1)
    true = np.zeros((len(y), 2 * len(schema.landmarks)), dtype=bool)
    true[np.arange(len(y)), 2 * cell + bit] = True
    keep, lie = 0.5, 1.0 / (np.exp(epsilon) + 1.0)
    seen = rng.random(true.shape) < np.where(true, keep, lie)
    counts = np.maximum((seen.sum(axis=0) - len(y) * lie) / (keep - lie), 0.0).reshape(-1, 2)
    some = counts.sum(axis=1) > 0
    size, x = counts.sum(axis=1)[some], unit_scale(schema, schema.landmarks.codes[some])
    if outcome.has_classes:
        return plain_evidence(schema, x, size=size, counts=counts[some])
    share = counts[some, 1] / size
    spread = np.full(len(size), float(y.var()))
    return plain_evidence(schema, x, size=size, mean=low + share * (high - low), variance=spread)


def pooled(table: Table, schema: Schema, parts: Split) -> Evidence:
    x, y = unit_scale(schema, table.codes[parts.train]), table.y[parts.train]
    ones = np.ones(len(y))
    if schema.outcome.has_classes:
        return plain_evidence(schema, x, size=ones, counts=np.eye(2)[y.astype(np.int64)])
    return plain_evidence(schema, x, size=ones, mean=y, variance=np.zeros(len(y)))


def one_table(name: str, repeats: int, cells_tried: tuple[int, ...] = SHARE_CELLS) -> dict[str, Any]:
    table = load(name)
    schema = table.data.schema
    costs: dict[str, dict[str, Any]] = {}
    ways: dict[str, Callable[[Split, int], NDArray[np.float64]]] = {
        "alone": lambda parts, _: alone(table, parts),
    }
    for epsilon in EPSILONS:
        ways[f"local privacy, epsilon {epsilon:g}"] = lambda parts, repeat, epsilon=epsilon: asked(
            table,
            with_cells(schema, PRIVATE_CELLS),
            by_local_privacy(table, with_cells(schema, PRIVATE_CELLS), parts, epsilon, repeat),
            parts,
        )
    for count in cells_tried:
        mine = with_cells(schema, count)
        cost = costs.setdefault(f"shares, {count} cells", {})
        ways[f"shares, {count} cells"] = lambda parts, _, mine=mine, cost=cost: asked(
            table, mine, by_shares(table, mine, parts, cost), parts
        )
    ways["cohorts by one trusted party"] = lambda parts, _: asked(
        table, schema, by_one_party(table, schema, parts), parts
    )
    ways["all records pooled"] = lambda parts, _: asked(table, schema, pooled(table, schema, parts), parts)
    classes = 2 if schema.outcome.has_classes else 0
    metrics = ("auc", "log_loss") if classes else ("r2", "mae")
    values: dict[str, dict[str, list[float]]] = {way: {m: [] for m in metrics} for way in ways}
    oo: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    sizes = []
    for repeat in range(repeats):
        parts = split(table, repeat)
        sizes.append((len(parts.train), len(parts.test)))
        truth = table.y[parts.test]
        for way, work in ways.items():
            said = np.clip(work(parts, repeat), 1e-6, 1 - 1e-6) if classes else work(parts, repeat)
            answer = np.column_stack([1 - said, said]) if classes else said
            found = score(truth, answer, classes)
            for metric in metrics:
                values[way][metric].append(found[metric])
            oo[way] += list(zip(truth[parts.special].tolist(), said[parts.special].tolist(), strict=True))
    out: dict[str, Any] = {"repeats": repeats, "train": sizes[0][0], "test": sizes[0][1], "scores": {}, "costs": costs}
    ratio = sizes[0][1] / sizes[0][0]
    best = "all records pooled"
    for way in ways:
        row: dict[str, Any] = {m: float(np.mean(v)) for m, v in values[way].items()}
        if way != best:
            row["against_pooled"] = {
                m: difference(
                    (np.array(values[way][m]) - np.array(values[best][m])).tolist(),
                    metric=m,
                    margin=relative_margin(m, MARGINS, float(np.mean(values[best][m]))),
                    test_to_train=ratio,
                ).to_json()
                for m in metrics
            }
        if oo[way]:
            truth_, said_ = np.array(oo[way]).T
            row["oo"] = {m: float(score(truth_, np.column_stack([1 - said_, said_]), 2)[m]) for m in metrics}
            row["oo"]["cases"] = len(truth_)
        out["scores"][way] = row
    return out


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    args = parser.parse_args(arguments)
    warnings.simplefilter("error")
    names = args.tables if not args.quick else args.tables[:1]
    found: dict[str, Any] = {"k": K}
    for name in names:
        found[name] = one_table(name, 1 if args.quick else args.repeats, SHARE_CELLS[:1] if args.quick else SHARE_CELLS)
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
