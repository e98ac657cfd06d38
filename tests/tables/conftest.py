from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

HEART_COLUMNS = [
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
    *("thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"),
]


@pytest.fixture
def data() -> Callable[[str], Path]:
    """A folder of real data; the test is skipped where it is not installed."""

    def find(name: str) -> Path:
        path = Path(os.environ.get("OUTROUTE_DATA", "data")) / name
        if not path.is_dir():
            pytest.skip(f"no real data at {path}: set OUTROUTE_DATA")
        return path

    return find
