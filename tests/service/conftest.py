"""Tables of two hospitals and a schema in the working directory, and nodes that end with their test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import SCHEMA, rows_of, write_table
from service.processes import Town


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(3)
    for name, base in (("north", 0.0), ("south", 0.6)):
        write_table(tmp_path / f"{name}.csv", rows_of(name, 80, base, rng))
    (tmp_path / "ward.toml").write_text(SCHEMA, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def town(folder: Path) -> Iterator[Town]:
    made = Town(folder)
    try:
        yield made
    finally:
        made.close()
