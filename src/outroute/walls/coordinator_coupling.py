"""Architectural coupling: members whose models differ, on both sides.

On one side two sites of a federation with Flower have networks of different width; on the other two nodes answer by
different calculations, and, where the environment variable ``OUTROUTE_OTHER_PYTHON`` names the interpreter of another
installation of outroute, with other versions of the libraries.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

import numpy as np

from outroute.trial.routing import OutcomeRouting
from outroute.walls.base import Plan, Tell
from outroute.walls.coordinator_network import Network, cases_of, client_of
from outroute.walls.coordinator_processes import Workplace
from outroute.walls.coordinator_stage import stage_of
from outroute.walls.coordinator_star import Star

__all__ = ["CALCULATIONS", "OTHER", "nodes", "star"]

OTHER = "OUTROUTE_OTHER_PYTHON"
"""Variable with the interpreter of another installation."""
CALCULATIONS: tuple[str, ...] = ("kernel", "regression,local", "boosting,adjusted")
"""By which nodes answer, in turn; the kernel always takes part."""
WIDTHS = (4, 8)
"""Of the hidden layer of two federated clients."""
ENDED_SECONDS = 90.0
"""Seconds until the first round ends, well or not."""
ASKED = 50
"""Questions to each node."""
_VERSIONS = """import json, platform
from importlib.metadata import PackageNotFoundError, version
found = {"python": platform.python_version()}
for name in ("outroute", "numpy", "scipy", "scikit-learn", "fastapi", "pyarrow", "packaging", "rich", "typer"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))"""


def star(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Two clients of Flower with hidden layers of different width: what their first round comes to."""
    stage = stage_of(plan)
    sites = stage.sites[:2]
    with Workplace() as place:
        files = {site: path for site, path in stage.files(place.folder).items() if site in sites}
        made = Star(place, files, stage.shape, widths=dict(zip(sites, WIDTHS, strict=True)))
        tell("Flower averages two clients whose networks differ in width")
        made.start()
        said = made.ended(made.submit(), ENDED_SECONDS)
        return {"run": said, "rounds": len(made.rounds()), "widths": list(WIDTHS)}


def nodes(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Nodes that answer by different calculations: whether each finds the packets of the others and answers."""
    stage = stage_of(plan)
    other = os.environ.get(OTHER, "")
    with Workplace() as place:
        schema, _ = OutcomeRouting(k=plan.k).founders(stage.fold)
        ours = Network(place, schema, stage.fold, holders=0, k=plan.k)
        sites = stage.sites
        options = {
            site: ("--calculations", CALCULATIONS[number % len(CALCULATIONS)]) for number, site in enumerate(sites)
        }
        pythons = dict.fromkeys(sites[1::2], other) if other else {}
        try:
            tell("nodes start that answer by different calculations")
            ours.start(options, pythons)
            ours.teach()
            found = [_of(ours, stage.fold.test, site, options[site][1]) for site in sites]
        finally:
            ours.end()
    return {"nodes": found, "versions": [versions(python) for python in ([None, other] if other else [None])]}


def _of(ours: Network, test: Mapping[str, Any], site: str, calculations: str) -> dict[str, Any]:
    with client_of(ours.nodes[site]) as client:
        said = client.ask_many(cases_of(test[site], ASKED))
        one = client.ask(cases_of(test[site], 1)[0])
    abstained = int(np.sum([bool(value) for value in said["abstained"]]))
    return {
        "calculations": calculations,
        "used": sorted(one["calculations"]),
        "asked": len(said["abstained"]),
        "answered": len(said["abstained"]) - abstained,
        "packets_of_others": int(said["reach"]["packets"]),
        "contributors": len(one["contributors"]),
    }


def versions(python: str | None) -> dict[str, str]:
    """Versions of the libraries of an interpreter; None: this one."""
    import json
    import sys

    done = subprocess.run(
        [python or sys.executable, "-c", _VERSIONS], capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found
