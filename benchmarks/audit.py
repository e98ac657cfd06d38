"""Every attack of `outroute audit` on the real tables, at several sizes of cohorts, beside federated averaging.

    OUTROUTE_DATA=... python -m benchmarks.audit heart flights opt digits --json
    python -m benchmarks.audit heart --ks 1 5 --shadows 64

For every attack the advantage over guesses that know only public statistics, membership with its true-positive rates at
0.1 % and 1 % and the most exposed tenth, and what the same setting is worth. The worth is a light stand-in (one linear
model on packets, or federated averaging of the same model, tested on held-out subjects of all sites; nobody keeps own
records, nothing is recalibrated); `benchmarks.figures` has the full trial. Searches in gradients need the extra
`audit`, flights the extra `demo`. With --save DIR each finished table is kept in DIR/audit.json.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._byzantine_tables import load
from benchmarks.common import by_table, options, show
from outroute.audit import FieldScale, cohorts, reconstruct, summarise
from outroute.audit.run import audit
from outroute.audit.scores import psnr
from outroute.audit.searching import Plan
from outroute.audit.settings import QUICK, Effort, settings_of
from outroute.audit.sketches import from_signs, from_sketches, prior_of
from outroute.datasets.observations import observations_of
from outroute.distill import Agreement, Grouping, Observations
from outroute.schema import Schema, unit_scale

TABLES = ("heart", "flights", "opt", "digits")
KS = (1, 5, 10, 20)
EPSILON = 1.0
"""Of the federation with clipping and noise, for one subject over all rounds."""
LONG_SKETCH = 4096
"""Signs that fill 512 bytes: what a packet would be if it were one sketch."""


GRIDS: dict[str, dict[str, int]] = {
    "heart": {"chest_pain": 4, "exercise_angina": 2},
    "flights": {"departure": 6, "season_cos": 4, "season_sin": 4},
}
"""Regions of `private`, as in `benchmarks.private` (its middle grid for heart, its small one for flights); the others
take landmarks drawn from the declared ranges."""


def effort_of(shadows: int, subjects: int) -> Effort:
    """Five minutes of one core for a table."""
    plan = Plan(targets=2, batches=1, iterations=300, restarts=1, realistic=40)
    return Effort(
        shadows=shadows, subjects=subjects, sites=4, packets=2, plan=plan, repeats=20, worth=500, watched=shadows
    )


def sketches(schema: Schema, sites: dict[str, Observations], rng: np.random.Generator) -> dict[str, float]:
    """Single images from signs alone: the packet's own fingerprint, and signs that fill a whole packet. PSNR in dB."""
    codes = np.vstack([rows.codes for rows in sites.values()])
    x = unit_scale(schema, codes)
    chosen = rng.permutation(len(x))[:100]
    prior = prior_of(np.delete(x, chosen, axis=0))
    planes = rng.choice([-1.0, 1.0], (schema.width, LONG_SKETCH))
    far = np.clip(from_signs((x[chosen] - prior[0]) @ planes > 0, planes, prior[0], prior), 0.0, 1.0)
    return {
        "mean of all images": float(psnr(x[chosen], np.tile(prior[0], (len(chosen), 1))).mean()),
        "fingerprint of 256 signs": float(psnr(x[chosen], from_sketches(schema, codes[chosen], prior)).mean()),
        f"{LONG_SKETCH} signs (512 bytes)": float(psnr(x[chosen], far).mean()),
    }


def above_the_site_mean(schema: Schema, sites: dict[str, Observations]) -> dict[str, dict[str, float]]:
    """Cohorts of 5 by agreement rule: decibel of the packet's own conditions above each public guess."""
    scale = FieldScale.of(schema, np.vstack([unit_scale(schema, rows.codes) for rows in sites.values()]))
    out = {}
    for rule in Agreement:
        emit = cohorts(5, Grouping(agreement=rule))
        rng = np.random.default_rng(0)
        found = summarise(
            [g for rows in sites.values() if (g := reconstruct(schema, rows, emit, rng, scale=scale)) is not None]
        )
        assert found is not None
        out[rule.value] = {
            name: 20 * float(np.log10(found.error[name] / found.error["packet"]))
            for name in ("site mean", "class mean", "cell mean")
        }
    return out


def one(name: str, ks: tuple[int, ...], effort: Effort, seed: int) -> dict[str, Any]:
    """Everything about one table."""
    data = load(name)
    sites = observations_of(data)
    started = time.monotonic()
    last = [0.0]

    def tell(text: str) -> None:
        if time.monotonic() - last[0] > 20:
            last[0] = time.monotonic()
            print(f"{last[0] - started:6.0f} s  {name}: {text}", file=sys.stderr, flush=True)

    found = audit(
        data.schema,
        sites,
        settings_of(ks, epsilon=EPSILON, grid=GRIDS.get(name), watch=(5,)),
        epsilon=EPSILON,
        effort=effort,
        seed=seed,
        side=8 if name == "digits" else 0,
        progress=tell,
    ).to_json()
    found["cohorts_of_5_above_db"] = above_the_site_mean(data.schema, sites)
    if name == "digits":
        found["sketches_psnr"] = sketches(data.schema, sites, np.random.default_rng(seed))
    return found | {"seconds": time.monotonic() - started}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("names", nargs="*", choices=[*TABLES, []], default=list(TABLES))
    parser.add_argument("--ks", type=int, nargs="+", default=list(KS))
    parser.add_argument("--shadows", type=int, default=16)
    parser.add_argument("--subjects", type=int, default=120, help="of a site at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    effort = QUICK if args.quick else effort_of(args.shadows, args.subjects)
    ks = (1, 5) if args.quick else tuple(args.ks)
    save = args.save / "audit.json" if args.save else None
    show(by_table(args.names or TABLES, lambda name: one(name, ks, effort, args.seed), save), args.json)


if __name__ == "__main__":
    main()
