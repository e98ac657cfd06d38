"""What a question tells holders about the case, and what it costs to tell them less.

    OUTROUTE_DATA=... python -m benchmarks.questions --json

The observer keeps every cell (in a small network somebody does), has the schema with its landmarks, and half of the
table as reference. From the cells that are asked for it guesses the case: the mean of those reference cases that would
have asked for the same, or for the most similar set; behind dummies, of those in any cell that may be the real one. Its
error is in field variances, beside that of the reference mean, which needs no question. "Cell named" is how often its
best guess of the case's cell is right.

Dummies are tried three ways more: drawn anew for every question, asked three times (why ours are always the same); and
about a case that changed a little in between (a tenth of the range in one field), where that moves it to another cell.
Costs are those of real nodes in one process: packets and bytes fetched, and processor time of a question, as ratios to
plain ones in the same run.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import key, options, show
from outroute import datasets
from outroute.fingerprint import cells
from outroute.node import Node
from outroute.node.approval import Automatic
from outroute.node.discretion import Discretion, cover
from outroute.node.local import guard_for, join_local
from outroute.schema import FieldKind, Schema, encode, encode_outcome, facet_index
from outroute.tables.learning import learn_from_codes
from outroute.transports import LocalNetwork

WAYS = {
    "plain": Discretion(),
    "coarse=8": Discretion(group=8),
    "coarse=16": Discretion(group=16),
    "coarse=32": Discretion(group=32),
    "dummies=1": Discretion(dummies=1),
    "dummies=3": Discretion(dummies=3),
    "dummies=9": Discretion(dummies=9),
}
TABLES = {"heart": 64, "flights": 256}
"""Landmarks, learnt from the reference half."""
ROWS = 20_000
"""Of a table at most."""
ASKED = 300
"""Cases asked about."""
COSTED = 60
QUICK = ("plain", "coarse=8", "dummies=1")
"""Ways that a quick run takes."""
PROBES = 4
SITES = 4
NOW = 1_700_000_000


def world(name: str, count: int) -> tuple[Schema, NDArray[np.uint16], NDArray[np.uint16], NDArray[np.float64]]:
    """Schema with learnt landmarks; reference codes; the other half's codes and outcomes."""
    data = datasets.load(name, k=5)
    y = encode_outcome(data.schema.outcome, data.outcome)
    rng = np.random.default_rng(41)
    rows = rng.permutation(np.flatnonzero(~np.isnan(y)))[:ROWS]
    codes = encode(data.schema, {n: v[rows] for n, v in data.columns.items()}).codes
    half = len(rows) // 2
    learnt = learn_from_codes(data.schema, codes[:half], count=count, seed=7)
    return replace(data.schema, landmarks=learnt.landmarks), codes[:half], codes[half:], y[rows][half:]


def _ways(quick: bool) -> dict[str, Discretion]:
    return {way: WAYS[way] for way in QUICK} if quick else WAYS


def numbers(schema: Schema, codes: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Codes in standard deviations later: floats, NaN where missing."""
    x = codes.astype(np.float64)
    x[codes == 65535] = np.nan
    return x


def asks(schema: Schema, codes: NDArray[np.uint16], how: Discretion, secret: bytes) -> list[frozenset[int]]:
    """The cells asked for about each case."""
    facet = facet_index(schema, codes)
    return [
        frozenset(
            cell
            for _, cell in cover(
                schema, codes[i : i + 1], facet[i : i + 1], probes=PROBES, discretion=how, secret=secret
            )
        )
        for i in range(len(codes))
    ]


class Observer:
    """Knows schema and reference."""

    def __init__(self, schema: Schema, reference: NDArray[np.uint16]) -> None:
        self.schema, self.x = schema, numbers(schema, reference)
        self.reference = reference
        self.home = cells(schema, reference)[:, 0]
        self.spread = np.nanvar(self.x, axis=0)
        self.mean = np.nanmean(self.x, axis=0)
        self.often = np.bincount(self.home, minlength=len(schema.landmarks)).astype(np.float64) + 0.5
        marks = schema.landmarks.codes
        self.around = [frozenset(row) for row in cells(schema, marks, PROBES).tolist()]

    def error(self, guess: NDArray[np.float64], codes: NDArray[np.uint16]) -> float:
        """Squared error in field variances."""
        x = numbers(self.schema, codes[None, :])[0]
        use = ~np.isnan(x) & (self.spread > 0)
        return float((((guess - x) ** 2)[use] / self.spread[use]).mean())

    def of(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Mean of reference rows, of all of them where a field is missing."""
        if not len(rows):
            return self.mean
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            found = np.nanmean(self.x[rows], axis=0)
        return np.where(np.isnan(found), self.mean, found)

    def behind_sets(
        self, seen: list[frozenset[int]], known: list[frozenset[int]]
    ) -> list[tuple[NDArray[np.float64], int]]:
        """Guess and cell, when sets of equal cases are equal."""
        table: dict[frozenset[int], list[int]] = {}
        for row, one in enumerate(known):
            table.setdefault(one, []).append(row)
        names = list(table)
        out = []
        for one in seen:
            best = one
            if one not in table:
                best = names[int(np.argmax([len(one & other) / len(one | other) for other in names]))]
            rows = np.array(table[best])
            inside = np.bincount(self.home[rows], minlength=len(self.often))
            out.append((self.of(rows), int(inside.argmax())))
        return out

    def candidates(self, seen: frozenset[int]) -> list[int]:
        """Cells that may be the real one or a dummy."""
        return [cell for cell, around in enumerate(self.around) if around <= seen]

    def behind_dummies(self, seen: list[frozenset[int]]) -> list[tuple[NDArray[np.float64], int]]:
        out = []
        for one in seen:
            maybe = self.candidates(one)
            rows = np.flatnonzero(np.isin(self.home, maybe))
            out.append((self.of(rows), max(maybe, key=lambda cell: self.often[cell])))
        return out


def changed(schema: Schema, codes: NDArray[np.uint16], rng: np.random.Generator) -> NDArray[np.uint16]:
    """The same cases, a tenth of the range further in one numeric field each."""
    fields = [schema.slots[f.name].start for f in schema.fields if f.kind is FieldKind.NUMERIC]
    out = codes.copy()
    for i in range(len(out)):
        held = [slot for slot in fields if out[i, slot] != 65535]
        if held:
            slot = held[int(rng.integers(len(held)))]
            step = 6553 if out[i, slot] < 32768 else -6553
            out[i, slot] = np.uint16(int(out[i, slot]) + step)
    return out


def told(name: str, count: int, quick: bool) -> dict[str, Any]:
    schema, reference, codes, _ = world(name, count)
    rng = np.random.default_rng(42)
    codes = codes[rng.permutation(len(codes))[: 10 if quick else ASKED]]
    observer, home, secret = Observer(schema, reference), cells(schema, codes)[:, 0], rng.bytes(32)
    blind = float(np.mean([observer.error(observer.mean, one) for one in codes]))
    out: dict[str, Any] = {
        "landmarks": len(schema.landmarks),
        "reference": len(reference),
        "asked": len(codes),
        "without_question": {"error": blind, "cell_named": float((home == observer.often.argmax()).mean())},
        "ways": {},
    }
    for way, how in _ways(quick).items():
        seen = asks(schema, codes, how, secret)
        if how.dummies:
            guesses = observer.behind_dummies(seen)
        else:
            guesses = observer.behind_sets(seen, asks(schema, reference, how, secret))
        error = float(np.mean([observer.error(g, one) for (g, _), one in zip(guesses, codes, strict=True)]))
        row: dict[str, Any] = {
            "cells_asked": float(np.mean([len(one) for one in seen])),
            "error": error,
            "told": 1.0 - error / blind,
            "cell_named": float(np.mean([cell == h for (_, cell), h in zip(guesses, home, strict=True)])),
        }
        if how.dummies:
            row |= repeated(schema, observer, codes, how, rng)
        out["ways"][way] = row
    return out


def repeated(
    schema: Schema, observer: Observer, codes: NDArray[np.uint16], how: Discretion, rng: np.random.Generator
) -> dict[str, float]:
    """How often the cell is named after more than one question."""
    home = cells(schema, codes)[:, 0]
    fresh = [asks(schema, codes, how, rng.bytes(32)) for _ in range(3)]
    anew = 0
    for i, h in enumerate(home):
        maybe = set.intersection(*(set(observer.candidates(one[i])) for one in fresh))
        anew += max(maybe, key=lambda cell: observer.often[cell]) == h
    secret = rng.bytes(32)
    later = changed(schema, codes, rng)
    moved = np.flatnonzero(cells(schema, later)[:, 0] != home)
    first, second = asks(schema, codes[moved], how, secret), asks(schema, later[moved], how, secret)
    marks = schema.landmarks.codes * np.sqrt(schema.slot_weights)
    linked = 0
    for one, two, h in zip(first, second, home[moved], strict=True):
        pairs = [(a, b) for a in observer.candidates(one) for b in observer.candidates(two)]
        best = min(pairs, key=lambda pair: float(((marks[pair[0]] - marks[pair[1]]) ** 2).sum()))
        linked += best[0] == h
    return {
        "cell_named_if_drawn_anew_and_asked_3_times": anew / len(codes),
        "cell_named_if_asked_again_from_another_cell": linked / max(len(moved), 1),
        "moved_to_another_cell": len(moved) / len(codes),
    }


def costs(name: str, count: int, quick: bool) -> dict[str, Any]:
    schema, _, codes, y = world(name, count)
    network, guard = LocalNetwork(clock=lambda: NOW), guard_for(schema)
    approval = Automatic(by="a benchmark in one process")
    nodes = []
    for site in range(SITES):
        who = key(100 + site)
        part = np.arange(site, len(codes) - 2 * COSTED, SITES)
        node = Node(
            schema,
            transport=join_local(network, who, schema, guard=guard, replicas=3),
            identity=who,
            clock=lambda: NOW,
            approval=approval,
        )
        node.observe_encoded(codes[part], y[part], cases=np.array([f"{site}-{i}" for i in part], dtype=object))
        nodes.append(node)
    for node in nodes:
        node.distil()
        node.publish()
    asked = codes[-(3 if quick else COSTED) :]
    out: dict[str, Any] = {}
    for number, (way, how) in enumerate(_ways(quick).items()):
        who = key(200 + number)
        with Node(
            schema,
            transport=join_local(network, who, schema, guard=guard, replicas=3),
            identity=who,
            clock=lambda: NOW,
            approval=approval,
            discretion=how,
        ) as asker:
            packets, spent = [], []
            for one in asked:
                asker._asker._cells.clear()  # each question as if it were the first
                asker._asker.refit()
                started = time.process_time()
                found = asker.ask_many(one[None, :], probes=PROBES)
                spent.append(time.process_time() - started)
                packets.append(found.reach.packets)
            network.kill(asker.id)
        out[way] = {"packets": float(np.mean(packets)), "cpu": float(np.median(spent))}
    plain = dict(out["plain"])
    for row in out.values():
        row["packets_ratio"] = row["packets"] / plain["packets"]
        row["cpu_ratio"] = row.pop("cpu") / plain["cpu"]
    for node in nodes:
        node.close()
    return out


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    args = options(__doc__).parse_args(arguments)
    found = {
        name: told(name, count, args.quick) | {"costs": costs(name, count, args.quick)}
        for name, count in list(TABLES.items())[: 1 if args.quick else None]
    }
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
