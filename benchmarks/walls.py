"""All five walls on a real table with its own schema, as ``outroute walls`` runs them.

    OUTROUTE_DATA=... python -m benchmarks.walls heart --keep walls-steps --json    (needs the extra `walls`)

With --keep every finished step is written there, and a run that was stopped goes on; --html DIR writes the page too.
What is printed leaves out curves and pictures, so that it can be kept with the results.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import options, show
from outroute import datasets
from outroute.walls import Plan
from outroute.walls.page import render
from outroute.walls.report import to_json
from outroute.walls.runner import NAMES, run
from outroute.walls.state import State, digest_of


class Said:
    """Progress as lines."""

    def at(self, wall: str, text: str, done: int, of: int, left: float) -> None:
        print(f"{wall}: {text} (step {done + 1} of {of}, about {left / 60:.0f} min left)", file=sys.stderr, flush=True)

    def tell(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)


def figures_of(found: dict[str, Any]) -> dict[str, Any]:
    """A report without curves, pictures and settings of walls."""

    def part(of: dict[str, Any]) -> dict[str, Any]:
        return {"title": of["title"], "scores": of["scores"]}

    def wall(of: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in of.items() if name not in ("parts", "settings", "rule")}
        return kept | {"parts": [part(one) for one in of["parts"] if one["scores"]]}

    return {name: value for name, value in found.items() if name != "walls"} | {
        "walls": {name: wall(of) for name, of in found["walls"].items()}
    }


def measure(plan: Plan, names: tuple[str, ...], root: Path, command: str) -> dict[str, Any]:
    """The report of some walls."""
    began = time.monotonic()
    digest = digest_of(plan)
    done = run(plan, names, State(root, digest), resume=True, watch=Said())
    return to_json(plan, done, digest=digest[:32], command=command, seconds=time.monotonic() - began)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("table", choices=datasets.NAMES)
    parser.add_argument("--walls", default=",".join(NAMES), help="names, with commas between")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="directory for finished steps")
    parser.add_argument("--html", type=Path, help="directory for the page")
    args = parser.parse_args()
    plan = Plan(dataset=datasets.load(args.table, k=5), quick=args.quick, repeats=args.repeats)
    asked = args.walls.split(",")
    names = tuple(name for name in NAMES if name in asked)
    if len(names) != len(asked):
        parser.error(f"walls are {', '.join(NAMES)}")
    told = [args.table, *(["--quick"] if args.quick else [])]
    told += [] if args.repeats == 20 else [f"--repeats {args.repeats}"]
    told += [] if names == NAMES else [f"--walls {args.walls}"]
    command = f"python -m benchmarks.walls {' '.join(told)} --json"
    with tempfile.TemporaryDirectory() as folder:
        found = measure(plan, names, args.keep or Path(folder), command)
    if args.html is not None:
        args.html.mkdir(parents=True, exist_ok=True)
        (args.html / "index.html").write_text(render(found), encoding="utf-8")
    show(figures_of(found), args.json)


if __name__ == "__main__":
    main()
