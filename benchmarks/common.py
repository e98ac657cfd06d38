"""What the benchmarks share: clocks, rounds, example schemas, real observations."""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from outroute.datasets.declare import category, number, schema, two_classes
from outroute.datasets.heart import HEART_FIELDS
from outroute.identity import Identity
from outroute.packet import PacketArray, build, sign
from outroute.schema import Distiller, Schema, drawn_landmarks

NOW = 1_700_000_000
"""A moment for packets that no real clock is asked for."""


def options(text: str | None) -> argparse.ArgumentParser:
    """A parser with the two options that every benchmark has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs, not how fast")
    return parser


def rounds(works: Mapping[str, tuple[int, Callable[[], Any]]], count: int) -> dict[str, list[float]]:
    """Things done per second of this thread's CPU time, for each work in each round; works take turns.

    Taking turns makes ratios hold when the machine's speed moves; CPU time leaves out what others take of the core.

    Args:
        works: by name, how many things a call does and the call.
        count: rounds; one more goes before them and is not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(count + 1):
        for name, (things, work) in works.items():
            started = time.thread_time()
            work()
            spent = time.thread_time() - started
            if turn:
                found[name].append(things / max(spent, 1e-9))
    return found


def median(values: list[float]) -> float:
    return statistics.median(values)


def ratio(ours: list[float], raw: list[float]) -> float:
    """Median over rounds of the ratio in the same round."""
    return statistics.median(a / b for a, b in zip(ours, raw, strict=True))


def rounded(value: Any) -> Any:
    """The same with floats of four digits, for reading."""
    if isinstance(value, dict):
        return {str(k): rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(f"{value:.4g}")
    return value


def by_table(names: Iterable[str], one: Callable[[str], Any], save: Path | None) -> dict[str, Any]:
    """What a benchmark finds on each table, rounded.

    Args:
        names: of tables.
        one: runs one of them.
        save: a JSON file that keeps each finished table beside what it has of others; None: nothing is kept.
    """
    out: dict[str, Any] = {}
    for name in names:
        out[name] = rounded(one(name))
        if save is not None:
            save.parent.mkdir(parents=True, exist_ok=True)
            kept = json.loads(save.read_text()) if save.exists() else {}
            save.write_text(json.dumps(kept | {name: out[name]}, indent=1) + "\n")
    return out


def show(found: dict[str, Any], as_json: bool) -> None:
    """One JSON object, indented for people unless a program asked."""
    print(json.dumps(rounded(found), indent=None if as_json else 1))


def key(number: int) -> Identity:
    return Identity(hashlib.sha256(b"benchmark key %d" % number).digest())


def heart_like(landmarks: int = 256) -> Schema:
    """Thirteen fields, 25 slots, binary outcome."""
    made = schema("heart-like", HEART_FIELDS, two_classes("diagnosis", "no", "yes"), k=5, subject="patient")
    return _with(made, landmarks)


def wide(landmarks: int = 256) -> Schema:
    """All 116 slots: 36 numbers and ten categorical fields of eight."""
    numbers = [number(f"n{i}", "0", "1") for i in range(36)]
    categories = [category(f"c{i}", [f"v{j}" for j in range(8)]) for i in range(10)]
    made = schema("wide", (*numbers, *categories), two_classes("y", "no", "yes"), k=5, subject="case")
    return _with(made, landmarks)


def _with(made: Schema, landmarks: int) -> Schema:
    from dataclasses import replace

    return replace(made, landmarks=drawn_landmarks(made.fields, landmarks))


def some_packets(
    made: Schema, count: int, *, signed: bool = True, author: int = 0, first: int = 0, seed: int = 0
) -> PacketArray:
    """Packets of cohorts of five, of conditions near two landmarks each."""
    rng = np.random.default_rng([seed, author, first])
    marks = made.landmarks.codes
    codes = marks[rng.integers(0, len(marks), count)].copy()
    numeric = [made.slots[f.name].start for f in made.fields if f.width == 1]
    codes[:, numeric] = rng.integers(0, 65_535, (count, len(numeric)))
    yes = rng.integers(0, 6, count)
    who = key(author)
    packets = build(
        made,
        author=who.public_key,
        sequence=np.arange(first, first + count, dtype=np.uint64),
        codes=codes,
        size=np.full(count, 5),
        subjects=np.full(count, 5),
        bucket=np.full(count, made.time.bucket(NOW)),
        distiller=Distiller.COHORT,
        counts=np.stack([5 - yes, yes], axis=1),
        commitment=rng.integers(0, 256, (count, 32)).astype(np.uint8),
    )
    if signed:
        sign(packets, who)
    return packets
