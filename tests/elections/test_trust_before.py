"""Own records are scored before they enter estimation, recalibration or trust.

`scores_at_own_records` looks at what recalibration and trust are given. Turning the outcomes of one group round must
not move what is said of that group. That the check would notice a leak is checked too, by leaking.

One thing is shared and not cut into folds: the kernel starts everywhere from two observations' worth of the overall
rate (`Settings.kernel_prior`), and has one of four bandwidths, both by packets and own records together. What that may
move is bounded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from outroute.elections import elect
from outroute.synthesis import Evidence, Records, fit, fitting
from synthesis.worlds import BINARY, NUMBER, THREE, MadeSchema, packets, records

SHARED = 0.05
"""Logits (or natural logarithms) that the kernel's overall rate may move a score by when 4 of 96 own outcomes turn."""

SCHEMAS = pytest.mark.parametrize("schema", [BINARY, THREE, NUMBER], ids=["binary", "categorical", "numeric"])


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[np.ndarray]]:
    """Scores as every calculation's recalibration gets them, float64[n, K] each; then those of the mixture."""
    seen: list[np.ndarray] = []
    real = fitting.recalibrate

    def watch(score: np.ndarray, *rest: object, **named: object) -> object:
        seen.append(score.copy())
        return real(score, *rest, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "recalibrate", watch)
        yield seen


def scores_at_own_records(
    monkeypatch: pytest.MonkeyPatch, schema: MadeSchema, evidence: Evidence, own: Records
) -> np.ndarray:
    """What each calculation says of each own record before its outcome is used, float64[J, n, K]."""
    with watched(monkeypatch) as seen:
        fitted = fit(
            schema,
            evidence,
            own,
            rng=np.random.default_rng(5),
            trust=lambda names, prior, objective: elect(objective, prior),
        )
    return np.stack(seen[: len(fitted.calculations)])


def turned(schema: MadeSchema, own: Records, rows: np.ndarray) -> Records:
    """The same records, the outcomes of some turned round; numbers keep mean and variance, which set the scale."""
    y = own.y.copy()
    y[rows] = y[rows[::-1]] if schema is NUMBER else (y[rows] + 1) % len(schema.outcome.classes)
    return Records(x=own.x, y=y, group=own.group, timed=own.timed)


def moved(
    monkeypatch: pytest.MonkeyPatch, schema: MadeSchema, evidence: Evidence, own: Records, group: int
) -> tuple[np.ndarray, np.ndarray]:
    """How far scores move when a group's outcomes are turned round, float64[J]: in this group, and elsewhere."""
    rows = np.flatnonzero(own.group == group)
    before = scores_at_own_records(monkeypatch, schema, evidence, own)
    after = scores_at_own_records(monkeypatch, schema, evidence, turned(schema, own, rows))
    gap = np.abs(before - after).max(axis=2)
    return gap[:, rows].max(axis=1), np.delete(gap, rows, axis=1).max(axis=1)


def grouped(schema: MadeSchema, seed: int, n: int = 96, each: int = 4) -> tuple[Evidence, Records]:
    rng = np.random.default_rng(seed)
    own = records(schema, n, rng)
    own = Records(x=own.x, y=own.y, group=np.arange(n, dtype=np.int64) // each)
    return packets(schema, 3, 30, rng), own


@SCHEMAS
def test_an_outcome_does_not_move_what_is_said_of_it(schema: MadeSchema, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, own = grouped(schema, 1)
    for group in (0, 7, 23):
        here, elsewhere = moved(monkeypatch, schema, evidence, own, group)
        assert here[0] <= SHARED  # the kernel
        assert here[1:].max() <= 1e-9
        assert elsewhere.max() > 0.05  # the outcomes do count, for others


@SCHEMAS
def test_a_leak_into_estimation_is_noticed(schema: MadeSchema, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calculations on own records that have seen the very fold which they are to judge."""
    evidence, own = grouped(schema, 1)
    real = fitting.fit_own
    monkeypatch.setattr(fitting, "fit_own", lambda problem, rows, *rest: real(problem, np.arange(own.n), *rest))
    here, _ = moved(monkeypatch, schema, evidence, own, 7)
    assert here[1:].max() > 0.01


@SCHEMAS
def test_a_split_group_is_noticed(schema: MadeSchema, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of one group in several folds: each is judged by what has seen its fellows."""
    evidence, own = grouped(schema, 1)
    real = fitting._folds

    def split(records: Records, *rest: object) -> tuple[np.ndarray, int]:
        alone = Records(x=records.x, y=records.y, group=np.arange(records.n, dtype=np.int64))
        return real(alone, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "_folds", split)
    here, _ = moved(monkeypatch, schema, evidence, own, 7)
    assert here[1:].max() > 0.01


def test_a_kernel_that_sees_the_record_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, own = grouped(BINARY, 1)
    real = fitting.Kernel.near

    def near(self: object, x: np.ndarray, fold: object = None, candidates: object = None) -> object:
        return real(self, x, candidates=candidates)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting.Kernel, "near", near)
    here, _ = moved(monkeypatch, BINARY, evidence, own, 7)
    assert here[0] > 2 * SHARED


def test_large_sites_are_judged_by_what_has_not_seen_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from outroute.synthesis import Settings

    monkeypatch.setattr(fitting, "Settings", lambda: Settings(large_site=50))
    evidence, own = grouped(BINARY, 2)
    judged = scores_at_own_records(monkeypatch, BINARY, evidence, own).shape[1]
    assert judged < own.n
    rows = np.arange(own.n)  # all outcomes turned: whoever judges any part has seen none of it
    fold = _judged_rows(monkeypatch, evidence, own)
    before = scores_at_own_records(monkeypatch, BINARY, evidence, own)
    after = scores_at_own_records(monkeypatch, BINARY, evidence, turned(BINARY, own, rows[fold]))
    gap = np.abs(before - after).max(axis=(1, 2))
    assert gap[0] <= 5 * SHARED  # a fifth of all outcomes turned: the kernel's overall rate
    assert gap[1:].max() <= 1e-9


def _judged_rows(monkeypatch: pytest.MonkeyPatch, evidence: Evidence, own: Records) -> np.ndarray:
    """Which own records a large site is judged on."""
    folds: list[np.ndarray] = []
    real = fitting._folds

    def watch(*given: object) -> tuple[np.ndarray, int]:
        found = real(*given)  # type: ignore[arg-type]
        folds.append(found[0])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_folds", watch)
        scores_at_own_records(monkeypatch, BINARY, evidence, own)
    return folds[0] == 0
