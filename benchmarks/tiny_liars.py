"""What lying sites do to sums of shares that nobody can look into, and what bounds them.

    OUTROUTE_DATA=... python -m benchmarks.tiny_liars --json

Tables are cut into sites of one to four subjects as in `benchmarks.tiny`; two synthesizers add up their shares (the
sums are real, sealing and signing are left out). Some of the sites lie, for all of their subjects:

    own       about their own outcomes only: what proofs of range, which are not built, would still allow
    blind     four times as much: each subject takes three outcomes like its own away and puts three others in their
              place; where the others have fewer, the sum is none that honest sites can have, and the cohort is lost
    knowing   one liar in a cohort turns its whole outcome round: what a liar could do who knew the sum beforehand
    spoil     one liar in a cohort makes its sum impossible

How many cohorts have a liar in them, how many are lost, and what is left to who asks held-out cases: without outcomes
of their own (`alone`), and with `--own` of them, by which packets are elected and calculations chosen (`own`); own
outcomes are drawn among the held-out cases and not asked about. Differences are to nobody lying, paired by split, with
Nadeau-Bengio intervals.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import key, options, show
from benchmarks.tiny import K, Split, Table, load, split, with_cells
from outroute.distill.cohort import default_window
from outroute.distill.combining import combine
from outroute.distill.opening import Sum, Sums
from outroute.distill.pooling import pool
from outroute.distill.shares import vectors_of
from outroute.elections import elect
from outroute.fingerprint import cells
from outroute.node.electing import elect_packets
from outroute.node.evidence import evidence_of
from outroute.packet import PacketArray
from outroute.schema import Schema, facet_index, unit_scale
from outroute.synthesis import Records, fit
from outroute.trial.intervals import MARGINS, difference
from outroute.trial.metrics import score

TABLES = ("heart", "opt")
CELLS = 256
SHARES = (1, 5, 10, 20)
"""Lying sites, per cent."""
LIES = ("own", "blind", "knowing", "spoil")
PUSH = 3
"""Outcomes of others that a blind liar takes away for each of its subjects."""


def lied(
    vectors: NDArray[np.uint64], y: NDArray[np.int64], cohort: NDArray[np.int64], liar: NDArray[np.bool_], lie: str
) -> NDArray[np.uint64]:
    """Vectors as the sites split them into shares; the last two numbers are counts of the two classes."""
    out, rows = vectors.copy(), np.flatnonzero(liar)
    last = out.shape[1] - 2
    if lie in ("own", "blind"):
        step = np.uint64(1 if lie == "own" else 1 + PUSH)
        out[rows, last + y[rows]] -= step
        out[rows, last + 1 - y[rows]] += step
        return out
    for name in np.unique(cohort[rows][cohort[rows] >= 0]).tolist():
        first = rows[cohort[rows] == name][0]
        told = out[cohort == name, last:].sum(axis=0, dtype=np.uint64)
        if lie == "knowing":
            out[first, last:] += told[::-1] - told
        else:
            out[first, last] += np.uint64(len(cohort))
    return out


def packets_of(
    schema: Schema, vectors: NDArray[np.uint64], cohort: NDArray[np.int64], where: NDArray[np.int64]
) -> tuple[PacketArray, int]:
    """Packets of the sums, and how many cohorts are lost. One synthesizer has the sums here, the other has zeros."""
    first, second = key(1), key(2)
    sums = []
    for name in range(int(cohort.max(initial=-1)) + 1):
        rows = np.flatnonzero(cohort == name)
        facet, cell, _ = where[rows].min(axis=0)
        share = vectors[rows].sum(axis=0, dtype=np.uint64)
        sums.append(Sum(facet=int(facet), cell=int(cell), bucket=0, members=len(rows), sites=len(rows), share=share))
    none = [
        Sum(facet=s.facet, cell=s.cell, bucket=0, members=s.members, sites=s.sites, share=s.share * 0) for s in sums
    ]
    both = [
        Sums(by=one.public_key, other=two.public_key, k=K, digest=bytes(32), sums=tuple(part), left=0)
        for one, two, part in ((first, second, sums), (second, first, none))
    ]
    made = combine(schema, both[0], both[1], first)
    return made.packets, len(made.spoilt)


def asked(
    table: Table, schema: Schema, packets: PacketArray, own: NDArray[np.int64], test: NDArray[np.int64], *, mode: str
) -> dict[str, float]:
    rng = np.random.default_rng(3)
    rows = own if mode == "own" else own[:0]
    mine = Records(x=unit_scale(schema, table.codes[rows]), y=table.y[rows], group=np.arange(len(rows)))
    evidence = elect_packets(schema, evidence_of(schema, packets), mine, rng=rng).evidence
    fitted = fit(schema, evidence, mine, rng=rng, trust=lambda names, prior, objective: elect(objective, prior))
    said = np.clip(fitted.answer(unit_scale(schema, table.codes[test])).estimate, 1e-6, 1 - 1e-6)
    return score(table.y[test], np.column_stack([1 - said, said]), 2)


def one_split(table: Table, schema: Schema, parts: Split, own: int, repeat: int) -> dict[tuple[str, int, str], Any]:
    rng = np.random.default_rng([41, repeat])
    codes, y = table.codes[parts.train], table.y[parts.train].astype(np.int64)
    where = np.column_stack([facet_index(schema, codes), cells(schema, codes)[:, 0], np.zeros(len(y), np.int64)])
    cohort = pool(
        schema,
        cell=where[:, 1],
        facet=where[:, 0],
        bucket=where[:, 2],
        site=parts.site,
        k=K,
        window=default_window(schema),
    )
    vectors = vectors_of(schema, codes, table.y[parts.train])
    order = rng.permutation(int(parts.site.max()) + 1)
    mixed = rng.permutation(parts.test)
    mine, test = mixed[:own], mixed[own:]
    count = int(cohort.max(initial=-1)) + 1
    found: dict[tuple[str, int, str], Any] = {}
    for lie, share in (("nobody", 0), *((lie, share) for lie in LIES for share in SHARES)):
        liar = np.isin(parts.site, order[: round(len(order) * share / 100)])
        packets, lost = packets_of(schema, lied(vectors, y, cohort, liar, lie), cohort, where)
        touched = len(np.unique(cohort[liar & (cohort >= 0)]))
        found[lie, share, "cohorts"] = {"touched": touched / count, "lost": lost / count}
        for mode in ("alone", "own"):
            found[lie, share, mode] = asked(table, schema, packets, mine, test, mode=mode)
    return found


def one_table(name: str, repeats: int, own: int) -> dict[str, Any]:
    table = load(name)
    schema = with_cells(table.data.schema, CELLS)
    all_of: dict[tuple[str, int, str], list[Any]] = defaultdict(list)
    for repeat in range(repeats):
        parts = split(table, repeat)
        for what, value in one_split(table, schema, parts, own, repeat).items():
            all_of[what].append(value)
    ratio = (len(parts.test) - own) / len(parts.train)
    rows = []
    for lie, share in dict.fromkeys((lie, share) for lie, share, _ in all_of):
        row: dict[str, Any] = {"lie": lie, "share": share}
        row |= {k: float(np.mean([one[k] for one in all_of[lie, share, "cohorts"]])) for k in ("touched", "lost")}
        for mode in ("alone", "own"):
            row[mode] = {}
            for metric in ("auc", "log_loss"):
                values, honest = (
                    np.array([one[metric] for one in all_of[key_]])
                    for key_ in ((lie, share, mode), ("nobody", 0, mode))
                )
                row[mode][metric] = float(values.mean())
                if share:
                    made = difference(
                        (values - honest).tolist(), metric=metric, margin=MARGINS[metric], test_to_train=ratio
                    ).to_json()
                    row[mode][f"{metric}_lost"] = {k: made[k] for k in ("mean", "low", "high", "verdict")}
        rows.append(row)
    return {"repeats": repeats, "subjects": len(parts.train), "own": own, "rows": rows}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--own", type=int, default=30, help="own outcomes of who asks")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=["heart"])
    args = parser.parse_args(arguments)
    warnings.simplefilter("error")
    found: dict[str, Any] = {"k": K, "cells": CELLS}
    for name in args.tables:
        found[name] = one_table(name, 1 if args.quick else args.repeats, args.own)
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
