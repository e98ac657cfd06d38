"""The same observations make the same cohorts: nothing rests on secrets that differ from directory to directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.node.making import ALL_LEAVE, NOW, schema_of

from outroute.node import Node
from outroute.schema import OutcomeKind


def test_ties_between_cases_are_not_broken_by_a_secret(tmp_path: Path) -> None:
    """Many cases with equal conditions: which of them share a cohort shows in the outcomes of the packets."""
    rng = np.random.default_rng(1)
    count = 120
    columns = {
        "case": [f"c{i}" for i in range(count)],
        "person": [f"p{i % 90}" for i in range(count)],
        "age": rng.choice([30.0, 60.0], count).tolist(),
        "dose": [5.0] * count,
        "ward": rng.choice(["red", "blue"], count).tolist(),
        "stay": rng.uniform(0, 60, count).round(2).tolist(),
    }
    made = []
    for name in ("one", "other"):
        with Node(
            schema_of(OutcomeKind.NUMERIC), data_dir=tmp_path / name, clock=lambda: NOW, approval=ALL_LEAVE
        ) as node:
            node.observe(columns, case="case", subject="person")
            node.distil()
            packets = node.outbox()
            made.append((packets["conditions"].copy(), packets["outcome"].copy(), packets["size"].copy()))
    for left, right in zip(*made, strict=True):
        assert np.array_equal(left, right)
