"""What differential privacy costs: AUC and log-loss with the distiller `private`, beside single records and cohorts.

    OUTROUTE_DATA=... python -m benchmarks.private flights heart --json
    OUTROUTE_DATA=... python -m benchmarks.private flights --keep FILE --json   (may be stopped and called again)

Sites ask about their test cases with what their peers' training rows became. Ways:

    records          one packet a record: what a schema with distiller `single` allows
    fields           the same, of each record only the fields that make the cells: a grid says which fields matter,
                     and this is what saying so is worth without any noise or cells
    cohorts          of 5 subjects
    e0.5 ... e10     `private` with this epsilon, m = 1, one release, on the table's grid of cells
    cells N          epsilon 1 on other grids
    points N         epsilon 1 on cells written down by hand, level by level, since equal parts of a declared range say
                     little of rain, of which there mostly is none (a schema calls such cells `public`)
    releases 12      epsilon 1, the rows dealt out to 12 releases in order of time: nothing is split, each has its noise
    split over 12    the same with epsilon / 12 in each release, as it would have to be were releases not accounted for
                     by subject
    nothing          no packets

Twice: `alone`, an asker without records of its own, so that all rests on packets; and `beside`, with its own training
rows, as in the other trials. Grids come from what is known of the matter: the hour of departure, the season, the
airport and the weather; the kind of chest pain, pain under exercise, age and sex. Those of heart were written down
before any run; those of the flights after several grids had been looked at on one split, which may be among those that
are reported. Which of the three is the table's was chosen on two splits drawn with `--seed 500`, and the cells written
by hand, one of three such sets, on three of these with one day in eight. Noise is drawn from the distribution that
OpenDP draws from, seeded. Elections weigh packets as a node does. The margin of 0.03 AUC was written down before any
run. Differences are paired by site and split, averaged over sites that have 10 of each
class in their test sets, with Nadeau-Bengio intervals over splits.

Flights: whole days, one in `--every` of them (default 4), `--victims` airlines a split in turn, own rows at most
`--own`: fewer people make noise weigh more, not less. What is asked is a sample of at most `--asked` test cases of each
site. To save time, flights leave out some ways that heart has (releases, and epsilons beside own records).
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import options, show
from outroute import datasets, trial
from outroute.distill import Observations, distil, distil_private, plan_of
from outroute.elections import elect
from outroute.identity import Identity
from outroute.node.electing import elect_packets
from outroute.node.evidence import evidence_of
from outroute.packet import PacketArray, build, build_noisy, regions_of
from outroute.schema import SCALE, Distiller, Field, Landmarks, Privacy, Schema, encode, grid_landmarks
from outroute.synthesis import Evidence, Records, fit
from outroute.trial.parallel import single_threaded

MARGIN = 0.03
"""AUC that `private` may lose against single records; written down before any run."""
EPSILONS = ("0.5", "1", "3", "10")
RELEASES = 12
ORIGINS = ("EWR", "JFK", "LGA")
GRIDS: dict[str, tuple[dict[str, int], ...]] = {
    "flights": (
        {"departure": 6, "season_cos": 4, "season_sin": 4},
        {"departure": 6, "season_cos": 4, "season_sin": 4, "origin": 3, "humidity": 3},
        {"departure": 6, "season_cos": 4, "season_sin": 4, "origin": 3, "humidity": 3, "visibility": 3},
    ),
    "heart": (
        {"chest_pain": 4},
        {"chest_pain": 4, "exercise_angina": 2},
        {"chest_pain": 4, "exercise_angina": 2, "age": 3, "sex": 2},
    ),
}
"""Small, middle and large."""
POINTS: dict[str, dict[str, Sequence[float]]] = {
    "flights": {
        "season_cos": (-0.7, 0, 0.7),
        "season_sin": (-0.7, 0, 0.7),
        "departure": (6, 9, 12, 16, 20),
        "origin": (),
        "temperature": (30, 75),
        "humidity": (40, 75),
        "precipitation": (0, 0.1),
        "visibility": (2, 10),
    }
}
"""Levels of cells written by hand, in the units of the schema; of a category all."""
CHOSEN = {"flights": 2, "heart": 1}
"""Which of them is the table's, on which all epsilons are tried."""
BESIDE = {
    "flights": ("records", "cohorts", "e1", "nothing"),
    "heart": ("records", "cohorts", *(f"e{e}" for e in EPSILONS), "nothing"),
}
"""Ways that are also asked beside own records."""
LEFT_OUT: dict[str, tuple[str, ...]] = {"flights": ("e3", "releases", "split over"), "heart": ()}
"""Beginnings of ways that a table does without."""


class SeededNoise:
    """Discrete Laplace noise as the difference of two geometric variables; promises nothing, for it can be repeated."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def laplace(
        self, values: NDArray[np.int64], scale: float, *, sensitivity: int, epsilon: Fraction
    ) -> NDArray[np.int64]:
        del sensitivity, epsilon
        stop = -math.expm1(-1.0 / scale)
        return values + self._rng.geometric(stop, len(values)) - self._rng.geometric(stop, len(values))


class NoNoise:
    """Sums as they are: to be worked out once and given the noise of every epsilon in turn."""

    def laplace(
        self, values: NDArray[np.int64], scale: float, *, sensitivity: int, epsilon: Fraction
    ) -> NDArray[np.int64]:
        del scale, sensitivity, epsilon
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How rows become evidence.

    Attributes:
        grid: levels of the cells; None: packets of records or cohorts.
        epsilon: with a grid, of each release; else ignored.
        releases: how many.
        k: without a grid, subjects of a packet; 0 for no packets at all.
        fields: names of the fields that single records show; None: all.
        points: levels of cells written by hand, instead of those of a grid; ``grid`` counts them then.
    """

    grid: Mapping[str, int] | None = None
    epsilon: str = "1"
    releases: int = 1
    k: int = 1
    fields: tuple[str, ...] | None = None
    points: Mapping[str, Sequence[float]] | None = None


def ways(name: str) -> dict[str, Way]:
    grids = GRIDS[name]
    chosen = grids[CHOSEN[name]]
    out = {"records": Way(), "fields": Way(fields=tuple(chosen)), "cohorts": Way(k=5)}
    out |= {f"e{epsilon}": Way(grid=chosen, epsilon=epsilon) for epsilon in EPSILONS}
    out |= {f"cells {math.prod(grid.values())}": Way(grid=grid) for grid in grids if grid is not chosen}
    if name in POINTS:
        points = POINTS[name]
        counts = {field: len(levels) or len(ORIGINS) for field, levels in points.items()}
        out[f"points {math.prod(counts.values())}"] = Way(grid=counts, points=points)
    out[f"releases {RELEASES}"] = Way(grid=chosen, releases=RELEASES)
    # A sixth decimal: a twelfth of 1 has no end.
    out[f"split over {RELEASES}"] = Way(grid=chosen, releases=RELEASES, epsilon=f"{1 / RELEASES:.6f}")
    out["nothing"] = Way(k=0)
    return {way: how for way, how in out.items() if not way.startswith(LEFT_OUT[name])}


def schema_of(schema: Schema, way: Way) -> Schema:
    if way.grid is None:
        k = max(way.k, 1)
        kind = Distiller.SINGLE if k == 1 else Distiller.COHORT
        return replace(schema, privacy=Privacy(distiller=kind, k=k, subject=schema.privacy.subject))
    promise = Privacy(
        distiller=Distiller.PRIVATE,
        k=1,
        subject=schema.privacy.subject,
        epsilon=Decimal(way.epsilon),
        m=1,
        releases=way.releases,
    )
    if way.points is None:
        return replace(schema, privacy=promise, landmarks=grid_landmarks(schema.fields, way.grid))
    promise = replace(promise, public_landmarks=True)
    return replace(schema, privacy=promise, landmarks=by_hand(schema.fields, way.points))


def by_hand(fields: tuple[Field, ...], points: Mapping[str, Sequence[float]]) -> Landmarks:
    """Every combination of some levels; all other fields stand in the middle, as in a grid."""
    parts: list[list[NDArray[np.int64]]] = []
    for one in fields:
        if one.categories:
            shares = np.eye(one.width, dtype=np.int64) * SCALE
            middle = np.full(one.width, SCALE // one.width, dtype=np.int64)
            middle[: SCALE - int(middle.sum())] += 1
            parts.append(list(shares) if one.name in points else [middle])
        else:
            assert one.low is not None
            assert one.high is not None
            low, high = float(one.low), float(one.high)
            levels = points.get(one.name, ((low + high) / 2,))
            parts.append([np.array([round((v - low) / (high - low) * SCALE)], dtype=np.int64) for v in levels])
    return Landmarks(np.array([np.concatenate(row) for row in product(*parts)], dtype=np.uint16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A site's training rows, encoded once for all ways.

    Attributes:
        codes: uint16[n, width].
        outcome: float64[n].
        order: int64[n], rows by time.
        known: sums without noise by cells and number of releases, so that each is worked out once.
    """

    codes: NDArray[np.uint16]
    outcome: NDArray[np.float64]
    order: NDArray[np.int64]
    known: dict[tuple[Any, ...], list[tuple[NDArray[np.int64], NDArray[np.int64]]]]

    def observations(self) -> Observations:
        zero = np.zeros(len(self.codes), dtype=np.int64)
        everybody = np.arange(len(self.codes))
        return Observations(codes=self.codes, outcome=self.outcome, subject=everybody, bucket=zero, facet=zero)

    def releases(self, schema: Schema, way: Way) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Regions and sums of each release, without noise."""
        assert way.grid is not None
        key = (*way.grid.items(), way.releases, way.points is None)
        if key not in self.known:
            seen, made = self.observations(), []
            for part in np.array_split(self.order, way.releases):
                told = distil_private(schema, seen.take(part), np.ones(len(part), dtype=np.int64), NoNoise())
                made.append((told.regions, told.sums))
            self.known[key] = made
        return self.known[key]


def part_of(schema: Schema, rows: trial.Rows) -> Part:
    order = np.arange(len(rows)) if rows.time is None else np.argsort(rows.time, kind="stable")
    return Part(codes=encode(schema, rows.columns).codes, outcome=rows.y, order=order, known={})


def packets_of(schema: Schema, way: Way, part: Part, who: Identity, rng: np.random.Generator) -> PacketArray:
    """What a site's training rows become, not signed: nobody here doubts who wrote them."""
    bucket = schema.time.bucket(1_700_000_000)
    if way.grid is None:
        made = distil(schema, part.observations(), k=way.k).cohorts
        return build(
            schema,
            author=who.public_key,
            sequence=np.arange(len(made), dtype=np.uint64),
            codes=made.codes,
            size=made.size,
            subjects=made.subjects,
            bucket=np.full(len(made), bucket),
            distiller=Distiller.COHORT,
            counts=None if made.counts is None else made.counts.astype(np.int64),
        )
    # Outcomes with classes have one vector of sums: see distil_private, which adds the noise in the same way.
    plan, noise, out = plan_of(schema), SeededNoise(rng), []
    for number, (regions, sums) in enumerate(part.releases(schema, way)):
        told = noise.laplace(
            sums.reshape(-1), plan.scales[0], sensitivity=plan.sensitivities[0], epsilon=plan.epsilons[0]
        )
        out.append(
            build_noisy(
                schema,
                author=who.public_key,
                sequence=np.arange(len(regions), dtype=np.uint64) + np.uint64(number << 20),
                regions=regions,
                sums=told.reshape(sums.shape),
                bucket=bucket,
            )
        )
    return np.concatenate(out)


def records_evidence(fold: trial.Fold, peers: list[str]) -> Evidence:
    """Each peer's training rows, one by one."""
    x, y = (np.concatenate([getattr(fold.train[site], name) for site in peers]) for name in ("x", "y"))
    return Evidence(
        x=x,
        node=np.repeat(np.arange(len(peers)), [len(fold.train[site]) for site in peers]),
        nodes=tuple(site.encode() for site in peers),
        size=np.ones(len(y)),
        counts=np.eye(fold.classes)[y.astype(np.int64)],
        mean=None,
        variance=None,
        bucket=np.zeros(len(y), dtype=np.int64),
        cell=np.zeros(len(y), dtype=np.int64),
    )


def own_records(rows: trial.Rows, most: int, rng: np.random.Generator) -> Records:
    pick = np.sort(rng.permutation(len(rows))[:most])
    return Records(x=rows.x[pick], y=rows.y[pick], group=rows.group[pick])


def shown(schema: Schema, x: NDArray[np.float64], fields: tuple[str, ...] | None) -> NDArray[np.float64]:
    """Conditions with all fields but some in the middle, as they are in a grid's cells."""
    if fields is None:
        return x
    out = np.full_like(x, 0.5)
    for name in fields:
        out[:, schema.slots[name]] = x[:, schema.slots[name]]
    return out


def answered(
    fold: trial.Fold, schema: Schema, evidence: Evidence, own: Records, cases: NDArray[np.float64], site: str
) -> NDArray[np.float64]:
    """Probabilities of the classes for some of a site's test cases."""
    rng = fold.rng(f"private {site}")
    heard = evidence
    if evidence.n:
        heard = elect_packets(schema, evidence, own, rng=rng).evidence
    made = fit(schema, heard, own, rng=rng, trust=lambda names, prior, objective: elect(objective, prior))
    estimate = made.answer(cases).estimate
    return np.column_stack([1 - estimate, estimate]) if estimate.ndim == 1 else estimate


def load(name: str, every: int) -> datasets.Dataset:
    data = datasets.load(name, **({"k": 1} if name == "flights" else {"k": 5}))
    if name == "flights" and every > 1:
        assert data.group is not None
        data = data.rows(data.group % every == 0)
    return data


def measure_split(
    name: str, prepared: trial.Prepared, repeat: int, chosen: Mapping[str, Way], args: Any
) -> dict[str, Any]:
    """Scores of some ways at each site that asks in one split, and how many packets there were."""
    protocol = trial.Protocol.GROUPED if name == "flights" else trial.Protocol.ROWS
    parts = trial.split(
        prepared.dataset.site,
        prepared.dataset.group,
        protocol=protocol,
        repeat=repeat,
        seed=args.seed,
        test_share=trial.TEST_SHARE,
    )
    fold = trial.fold_of(prepared, parts, seed=args.seed, protocol=protocol)
    asking = _asking(fold, parts, prepared, repeat, args.victims if name == "flights" else None)
    encoded = {site: part_of(fold.schema, rows) for site, rows in fold.train.items()}
    rows: list[tuple[str, str, str, Mapping[str, float]]] = []
    sizes: dict[str, int] = {}
    for way, how in chosen.items():
        schema = schema_of(fold.schema, how)
        made: dict[str, PacketArray] = {}
        single = how.grid is None and how.k < 2
        if not single:
            for site, part in encoded.items():
                key = Identity(fold.rng(f"key {site}").bytes(32))
                made[site] = packets_of(schema, how, part, key, fold.rng(f"noise {way} {site}"))
            sizes[way] = sum(len(one) for one in made.values())
        for site in asking:
            peers = [other for other in fold.train if other != site]
            if single:
                evidence = records_evidence(fold, peers)
                evidence = replace(evidence, x=shown(schema, evidence.x, how.fields))
                evidence = evidence if how.k else evidence.take(np.zeros(0, dtype=np.int64))
                sizes[way] = evidence.n
            else:
                evidence = evidence_of(schema, np.concatenate([made[other] for other in peers]))
            asked = np.sort(fold.rng(f"asked {site}").permutation(len(fold.test[site]))[: args.asked])
            for mode in ("alone", "beside"):
                if mode == "beside" and (way not in BESIDE[name] or args.alone):
                    continue
                if mode == "alone" and way == "nothing":
                    continue
                most = 0 if mode == "alone" else args.own
                own = own_records(fold.train[site], most, fold.rng(f"own {site}"))
                cases = shown(schema, fold.test[site].x[asked], how.fields)
                said = answered(fold, schema, evidence, own, cases, site)
                truth = prepared.y[parts.test[site]][asked]
                rows.append((mode, way, site, trial.score(truth, said, fold.classes)))
        print(f"{name}: split {repeat + 1} of {args.repeats}, {way}", file=sys.stderr)
    return {"table": name, "repeat": repeat, "rows": rows, "packets": sizes}


def measure(name: str, args: Any) -> dict[str, Any]:
    done = _kept(args.keep, name)
    data = load(name, args.every)
    prepared = trial.prepare(data)
    for repeat in range(args.repeats):
        known = done.setdefault(repeat, {"table": name, "repeat": repeat, "rows": [], "packets": {}})
        wanted = {way: how for way, how in ways(name).items() if args.ways is None or way in ("records", *args.ways)}
        missing = {way: how for way, how in wanted.items() if way not in {row[1] for row in known["rows"]}}
        if missing:
            made = measure_split(name, prepared, repeat, missing, args)
            if args.keep is not None:
                with args.keep.open("a") as file:
                    file.write(json.dumps(made, default=float) + "\n")
            _join(known, made)
    scores: dict[tuple[str, str], dict[tuple[int, str], Mapping[str, float]]] = defaultdict(dict)
    for repeat in range(args.repeats):
        for mode, way, site, score in done[repeat]["rows"]:
            scores[mode, way][repeat, site] = score
    return {
        "settings": {key: getattr(args, key) for key in ("repeats", "victims", "every", "own", "asked")},
        "rows": len(prepared.y),
        "grids": {str(math.prod(grid.values())): dict(grid) for grid in GRIDS[name]},
        "regions": len(regions_of(schema_of(data.schema, ways(name)["e1"]))),
        "packets": done[args.repeats - 1]["packets"],
    } | {mode: _summary({w: s for (m, w), s in scores.items() if m == mode}) for mode in ("alone", "beside")}


def _kept(path: Path | None, name: str) -> dict[int, dict[str, Any]]:
    """Splits of a table that a run before this one has finished, by number; ways that came later are added."""
    found: dict[int, dict[str, Any]] = {}
    if path is None or not path.exists():
        return found
    for one in map(json.loads, path.read_text().splitlines()):
        if one["table"] == name:
            _join(found.setdefault(int(one["repeat"]), {"rows": [], "packets": {}}), one)
    return found


def _join(known: dict[str, Any], made: Mapping[str, Any]) -> None:
    known["rows"] += made["rows"]
    known["packets"] |= made["packets"]


def _asking(
    fold: trial.Fold, parts: trial.Split, prepared: trial.Prepared, repeat: int, victims: int | None
) -> list[str]:
    """Sites with 10 of each class in their test sets; some of them, taking turns."""
    able = []
    for site, rows in parts.test.items():
        counts = np.bincount(prepared.y[rows].astype(np.int64), minlength=fold.classes)
        if counts.min() >= trial.MIN_PER_CLASS:
            able.append(site)
    if victims is None or victims >= len(able):
        return able
    return [able[(repeat * victims + i) % len(able)] for i in range(victims)]


def _summary(scores: Mapping[str, Mapping[tuple[int, str], Mapping[str, float]]]) -> dict[str, Any]:
    """Means over sites and splits, and each way less single records."""
    ratio = trial.TEST_SHARE / (1 - trial.TEST_SHARE)
    out: dict[str, Any] = {}
    for way, found in scores.items():
        out[way] = {metric: float(np.mean([one[metric] for one in found.values()])) for metric in ("auc", "log_loss")}
        for metric in ("auc", "log_loss"):
            gaps: dict[int, list[float]] = defaultdict(list)
            for (repeat, site), one in found.items():
                gaps[repeat].append(one[metric] - scores["records"][repeat, site][metric])
            if way != "records":
                values = [float(np.mean(gap)) for gap in gaps.values()]
                made = trial.difference(values, metric=metric, margin=MARGIN, test_to_train=ratio).to_json()
                out[way][f"{metric}_minus_records"] = {key: made[key] for key in ("mean", "low", "high", "verdict")}
    return out


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("names", nargs="*", metavar="TABLE", help=f"of {', '.join(GRIDS)}; default all")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--victims", type=int, default=2, help="airlines that ask in each split, taking turns")
    parser.add_argument("--every", type=int, default=4, help="of flights, one in so many days")
    parser.add_argument("--own", type=int, default=2_000, help="own rows at most")
    parser.add_argument("--ways", nargs="+", metavar="WAY", help="these ways only, and single records")
    parser.add_argument("--alone", action="store_true", help="askers without own records only")
    parser.add_argument("--asked", type=int, default=2_000, help="test cases of each site at most")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="keep finished splits here, and go on from those there"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.quick:
        args.names, args.repeats = args.names or ["heart"], 2
    names = args.names or list(GRIDS)
    if unknown := set(names) - set(GRIDS):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    known = {way for name in names for way in ways(name)}
    if args.ways is not None and (strange := set(args.ways) - known):
        parser.error(f"no such way: {', '.join(sorted(strange))}; there are {', '.join(sorted(known))}")
    single_threaded()
    found: dict[str, Any] = {"seed": args.seed, "margin": MARGIN, "tables": {}}
    for name in names:
        found["tables"][name] = measure(name, args)
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
