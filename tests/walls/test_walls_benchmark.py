"""What is kept with the results: figures without pictures, in a section of the documentation."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the extra 'plot'")

from benchmarks.walls import figures_of

from outroute.walls import Plan, Winner
from outroute.walls.report import to_json
from outroute.walls.runner import run
from outroute.walls.state import State, digest_of

from .making import Counting, table

DOCS = Path(__file__).parents[2] / "docs"


def kept(root: Path) -> dict[str, Any]:
    plan = Plan(dataset=table())
    walls = {name: Counting(name, winner=winner) for name, winner in zip(("inversion", "noniid"), Winner, strict=False)}
    done = run(plan, list(walls), State(root, digest_of(plan)), loader=lambda name: walls[name])
    return figures_of(to_json(plan, done, digest="x", command="python -m benchmarks.walls small --json", seconds=1.0))


def test_figures_are_kept_without_pictures_and_shown_in_the_documentation(tmp_path: Path) -> None:
    found = kept(tmp_path / "steps")
    assert "pixels" not in json.dumps(found)
    assert found["walls"]["inversion"]["winner"] == "outroute"
    (tmp_path / "walls-small.json").write_text(json.dumps(found))
    spec = importlib.util.spec_from_file_location("walls_results_tested", DOCS / "walls_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        module.RESULTS = tmp_path
        text = "\n".join(module.section())
        module.RESULTS = tmp_path / "steps"
        assert module.section() == []
    finally:
        del sys.modules[spec.name]
    assert "`python -m benchmarks.walls small --json`" in text
    assert "| Inversion | outcome routing | The sum is" in text
    assert "Federated learning wins on: sites that differ." in text
    assert "| **ours <b>** | sum |" in text
