"""How cohorts are best made: what they keep for others, and what the strongest attacks here get out of them.

    OUTROUTE_DATA=... python -m benchmarks.cohorts --json

Utility: every site answers its held-out cases from its own records and the others' packets, calculations elected, as in
`outroute evaluate`, and once more from the others' packets alone. Attacks are those of `outroute audit`: membership by
likelihood ratios (64 shadow emissions), and reconstruction in decibel above the best guess that knows public
statistics only: by the packet's conditions as they are and weighed as well as can be ("denoised"), by guessing all
members, and for the tenth given away most. Differences are to the first way, paired by split. With --whole, real nodes
with elections answer, in the advised setting and with cohorts of five (the trial of `outroute evaluate`).
"""

from __future__ import annotations

import dataclasses
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import options, show
from outroute import datasets
from outroute.audit import Emission, Emitter, judge, membership_pairs, of_cohorts, reconstruct, summarise
from outroute.audit.reconstruction import baselines
from outroute.audit.scores import FieldScale, decibel
from outroute.datasets.observations import observations_of
from outroute.distill import Cohorts, Grouping, Observations, blurred, distil
from outroute.distill.measure import grouping_loss
from outroute.elections import elect
from outroute.schema import MISSING, SCALE, FieldKind, Privacy, Schema, unit_scale
from outroute.synthesis import Evidence, Records, fit
from outroute.trial import run
from outroute.trial.fold import Answer, Fold
from outroute.trial.intervals import MARGINS, difference
from outroute.trial.metrics import score
from outroute.trial.routing import OutcomeRouting

TEST_SHARE = 0.3
ADVISED = "k=10, noise 0.1, dissent 2"
Blur = Callable[[Schema, Cohorts, np.random.Generator], Cohorts]


def with_floor(schema: Schema, k: int, privacy: Mapping[str, Any]) -> Schema:
    """The same schema with what it asks of cohorts."""
    return dataclasses.replace(schema, privacy=Privacy(k=k, subject=schema.privacy.subject, **privacy))


def standardised(schema: Schema, rows: Observations) -> NDArray[np.float64]:
    """Every field has the same variance, as textbook MDAV does."""
    return weights_of(schema, rows, lambda part, y: 1.0)


def by_outcome(schema: Schema, rows: Observations) -> NDArray[np.float64]:
    """Standardised fields weigh as much as they tell about the site's own outcomes: squared correlation."""

    def told(part: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        best = 0.0
        for column in part.T:
            if column.std() > 0 and y.std() > 0:
                best = max(best, float(np.corrcoef(column, y)[0, 1]) ** 2)
        return best + 0.01

    return weights_of(schema, rows, told)


def weights_of(
    schema: Schema, rows: Observations, told: Callable[[NDArray[np.float64], NDArray[np.float64]], float]
) -> NDArray[np.float64]:
    out = np.zeros(schema.width)
    for where in schema.slots.values():
        have = rows.codes[:, where.start] != MISSING
        part = rows.codes[have, where].astype(np.float64)
        spread = float(part.var(axis=0).sum()) if len(part) else 0.0
        out[where] = 1e9 * told(part, rows.outcome[have]) / spread if spread > 0 else 0.0
    return out


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of making cohorts.

    Attributes:
        k: subjects.
        portion: as many more as make a packet a part in so many of its site's subjects; None: k at every site.
        privacy: what the schema asks of cohorts besides.
        grouping: how they are grouped.
        weights: of slots in grouping, from a site's own records; None: the schema's.
        blur: what is tried on cohorts besides, outside of the product.
        share: of the subjects that may leave at all; the others stay for good.
    """

    k: int = 5
    portion: int | None = None
    privacy: Mapping[str, Any] = field(default_factory=dict)
    grouping: Grouping = field(default_factory=Grouping)
    weights: Callable[[Schema, Observations], NDArray[np.float64]] | None = None
    blur: Blur | None = None
    share: float = 1.0

    def floor(self, schema: Schema, subjects: int) -> Schema:
        """The schema as a site of so many subjects keeps to it."""
        k = self.k if self.portion is None else max(self.k, subjects // self.portion)
        return with_floor(schema, k, self.privacy)

    def make(self, schema: Schema, rows: Observations, rng: np.random.Generator) -> Cohorts:
        own = self.floor(schema, len(np.unique(rows.subject)))
        if self.share < 1.0:
            people = np.unique(rows.subject)
            out = people[rng.random(len(people)) > self.share]
            rows = dataclasses.replace(rows, outcome=np.where(np.isin(rows.subject, out), np.nan, rows.outcome))
        how = dataclasses.replace(self.grouping, seed=int(rng.integers(2**31)))
        if self.weights is not None:
            how = dataclasses.replace(how, slot_weights=self.weights(own, rows))
        made = blurred(own, distil(own, rows, grouping=how).cohorts, rng.bytes(32))
        return made if self.blur is None or not len(made) else self.blur(own, made, rng)

    def emitter(self) -> Emitter:
        def emit(schema: Schema, rows: Observations, rng: np.random.Generator) -> Emission:
            # Noise stands in the schema: the attacker knows how much there is.
            own = self.floor(schema, len(np.unique(rows.subject)))
            return of_cohorts(own, self.make(schema, rows, rng), len(rows))

        return emit


def shares_of(total: NDArray[np.float64]) -> NDArray[np.int64]:
    """Shares float64[m, C] as codes that sum to exactly SCALE, by largest remainder."""
    scaled = total / total.sum(axis=1, keepdims=True) * SCALE
    low = np.floor(scaled).astype(np.int64)
    left = SCALE - low.sum(axis=1, keepdims=True)
    rank = np.argsort(np.argsort(-(scaled - low), axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(low + (rank < left))


def by_field(work: Callable[[FieldKind, NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]) -> Blur:
    """A blur that treats one field after the other; facets stay.

    ``work`` gets the field's kind, its values float64[m, width] in unit scale where present, and the landmarks' of the
    packets' cells.
    """

    def blur(schema: Schema, made: Cohorts, rng: np.random.Generator) -> Cohorts:
        from outroute.fingerprint import cells

        codes = made.codes.copy()
        marks = schema.landmarks.codes[cells(schema, codes)[:, 0]] / SCALE
        for item in schema.fields:
            where = schema.slots[item.name]
            have = codes[:, where.start] != MISSING
            if item.facet or not have.any():
                continue
            new = work(item.kind, codes[have, where] / SCALE, marks[have, where])
            if item.kind is FieldKind.NUMERIC:
                codes[have, where] = np.rint(np.clip(new, 0, 1) * SCALE)
            else:
                codes[have, where] = shares_of(np.maximum(new, 0) + 1e-12)
        return dataclasses.replace(made, codes=codes)

    return blur


def grid(levels: int) -> Blur:
    return by_field(
        lambda kind, x, _: np.rint(x * (levels - 1)) / (levels - 1) + (0 if kind is FieldKind.NUMERIC else 1e-9)
    )


def majority(levels: int) -> Blur:
    def work(kind: FieldKind, x: NDArray[np.float64], _: NDArray[np.float64]) -> NDArray[np.float64]:
        if kind is FieldKind.NUMERIC:
            return np.asarray(np.rint(x * (levels - 1)) / (levels - 1))
        return np.asarray(np.eye(x.shape[1])[x.argmax(axis=1)])

    return by_field(work)


def shrunk(share: float) -> Blur:
    return by_field(lambda kind, x, mark: (1 - share) * x + share * mark)


WAYS: dict[str, Way] = {
    "k=5": Way(),
    "k=5, agreeing allowed": Way(privacy={"dissent": 0}),
    "k=5, one block (MDAV)": Way(grouping=Grouping(block_rows=2**31)),
    "k=5, standardised MDAV": Way(grouping=Grouping(block_rows=2**31), weights=standardised),
    "k=5, class-aware": Way(grouping=Grouping(outcome_pull=1.0)),
    "k=5, weighted by outcome": Way(weights=by_outcome),
    "k=8": Way(k=8),
    "k=10": Way(k=10),
    "k=15": Way(k=15),
    "k=20": Way(k=20),
    "k=30": Way(k=30),
    "k=5, a 20th of the site": Way(portion=20),
    "k=5, dissent 2": Way(privacy={"dissent": 2}),
    "k=10, dissent 2": Way(k=10, privacy={"dissent": 2}),
    "k=10, dissent 3": Way(k=10, privacy={"dissent": 3}),
    "k=5, agreeing allowed, flip 0.1": Way(privacy={"dissent": 0, "flip": Decimal("0.1")}),
    "k=5, agreeing allowed, flip 0.2": Way(privacy={"dissent": 0, "flip": Decimal("0.2")}),
    "k=5, grid 9": Way(blur=grid(9)),
    "k=5, majority 9": Way(blur=majority(9)),
    "k=5, shrunk 0.5": Way(blur=shrunk(0.5)),
    "k=5, half stay": Way(share=0.5),
    "k=5, noise 0.05": Way(privacy={"noise": Decimal("0.05")}),
    "k=5, noise 0.1": Way(privacy={"noise": Decimal("0.1")}),
    "k=5, noise 0.15": Way(privacy={"noise": Decimal("0.15")}),
    "k=5, noise 0.2": Way(privacy={"noise": Decimal("0.2")}),
    "k=8, noise 0.05": Way(k=8, privacy={"noise": Decimal("0.05")}),
    "k=8, noise 0.1": Way(k=8, privacy={"noise": Decimal("0.1")}),
    "k=10, noise 0.05": Way(k=10, privacy={"noise": Decimal("0.05")}),
    "k=10, noise 0.07": Way(k=10, privacy={"noise": Decimal("0.07")}),
    "k=10, noise 0.1": Way(k=10, privacy={"noise": Decimal("0.1")}),
    "k=10, noise 0.15": Way(k=10, privacy={"noise": Decimal("0.15")}),
    "k=10, noise 0.1, dissent 2": Way(k=10, privacy={"noise": Decimal("0.1"), "dissent": 2}),
    "k=20, noise 0.05": Way(k=20, privacy={"noise": Decimal("0.05")}),
    "k=20, noise 0.1": Way(k=20, privacy={"noise": Decimal("0.1")}),
}


def attacked(schema: Schema, sites: dict[str, Observations], way: Way, seed: int, shadows: int) -> dict[str, Any]:
    emit = way.emitter()
    pairs, guesses, undone = [], [], []
    for number, rows in enumerate(sites.values()):
        rng = np.random.default_rng([seed, number])
        found = membership_pairs(schema, rows, emit, rng, shadows=shadows)
        if found is not None:
            pairs.append(found)
        guess = reconstruct(schema, rows, emit, np.random.default_rng([seed, number, 1]))
        if guess is not None:
            guesses.append(guess)
            undone.append(denoised(schema, rows, emit, np.random.default_rng([seed, number, 1])))
    member, back = judge(pairs, np.random.default_rng(seed)), summarise(guesses)
    out: dict[str, Any] = {}
    if member is not None:
        told = member.to_json()["likelihood_ratio"]
        out |= {
            "membership_auc": told["auc"],
            "tpr": told["tpr"],
            "worst_decile_auc": member.to_json()["worst_decile_auc"],
        }
    if back is not None:
        out |= {
            "reconstruction_db": back.advantage["packet"],
            "denoised_db": decibel(float(np.nanmean(np.hstack(undone)[1])), float(np.nanmean(np.hstack(undone)[0]))),
            "members_db": back.advantage["members"],
            "worst_decile_db": back.worst_decile,
            "left": back.left,
        }
    return out


def denoised(schema: Schema, rows: Observations, emit: Emitter, rng: np.random.Generator) -> NDArray[np.float64]:
    """Squared errors of a guess that makes the best of noise, and of the best public guess; float64[2, r].

    The guess is the linear one that would have been best for this very site, slot by slot: no attacker can know it
    better. So this bounds what undoing noise (or shrinking, or rounding) by weighing can bring.
    """
    whole = unit_scale(schema, rows.codes)
    emission = emit(schema, rows, rng)
    held = np.flatnonzero(emission.packet_of >= 0)
    scale, x = FieldScale.of(schema, whole), whole[held]
    said = emission.x[emission.packet_of[held]]
    guess = np.empty_like(x)
    for slot in range(x.shape[1]):
        both = ~(np.isnan(x[:, slot]) | np.isnan(said[:, slot]))
        t, p = x[both, slot], said[both, slot]
        slope = float(np.cov(t, p)[0, 1] / p.var(ddof=1)) if len(p) > 2 and p.var() > 0 else 0.0
        mean = (float(t.mean()), float(p.mean())) if len(p) else (0.0, 0.0)
        guess[:, slot] = mean[0] + slope * (np.where(np.isnan(said[:, slot]), mean[1], said[:, slot]) - mean[1])
    public = [scale.errors(x, one) for one in baselines(schema, rows, held, whole).values()]
    best = min(public, key=lambda errors: float(np.nanmean(errors)))
    return np.stack([scale.errors(x, guess), best])


def useful(schema: Schema, sites: dict[str, Observations], way: Way, seed: int, repeats: int) -> dict[str, Any]:
    classes = len(schema.outcome.classes)
    names = ("auc", "log_loss") if classes else ("r2", "mae")
    values: dict[str, list[float]] = {}
    losses, packets = [], []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat, 0x5B])
        held = {s: rng.permutation(len(rows)) < round(TEST_SHARE * len(rows)) for s, rows in sites.items()}
        train = {s: rows.take(~held[s]) for s, rows in sites.items()}
        made = {s: way.make(schema, rows, rng) for s, rows in train.items()}
        packets.append(sum(len(c) for c in made.values()))
        losses += [grouping_loss(schema, train[s], c) for s, c in made.items() if len(c)]
        found: dict[str, list[tuple[float, ...]]] = {"with own": [], "packets alone": []}
        for site, rows in sites.items():
            test = rows.take(held[site])
            if classes and np.bincount(test.outcome.astype(int), minlength=classes).min() < 5:
                continue
            evidence = evidence_of_cohorts(schema, {s: c for s, c in made.items() if s != site})
            own = train[site]
            for name, chosen in (("with own", np.arange(len(own))), ("packets alone", np.arange(0))):
                fitted = fit(
                    schema,
                    evidence,
                    Records(x=unit_scale(schema, own.codes[chosen]), y=own.outcome[chosen], group=chosen),
                    rng=np.random.default_rng(1),
                    trust=lambda names, prior, objective: elect(objective, prior),
                )
                e = fitted.answer(unit_scale(schema, test.codes)).estimate
                told = score(test.outcome, np.column_stack([1 - e, e]) if classes else e, classes)
                found[name].append(tuple(told[m] for m in names))
        for name, rows_ in found.items():
            for m, value in zip(names, np.nanmean(rows_, axis=0).tolist(), strict=True):
                values.setdefault(f"{name}, {m}", []).append(value)
    return {
        "packets": float(np.mean(packets)),
        "grouping_loss": float(np.mean(losses)),
        **{name: float(np.mean(v)) for name, v in values.items()},
        "each": {name: v for name, v in values.items() if name.endswith(names[0])},
    }


def evidence_of_cohorts(schema: Schema, made: dict[str, Cohorts]) -> Evidence:
    some = {s: c for s, c in made.items() if len(c)}
    whole = list(some.values())
    n = sum(len(c) for c in whole)
    counts = None
    if schema.outcome.has_classes:
        counts = np.concatenate([c.counts for c in whole if c.counts is not None]).astype(np.float64)
    return Evidence(
        x=unit_scale(schema, np.concatenate([c.codes for c in whole])),
        node=np.repeat(np.arange(len(whole)), [len(c) for c in whole]),
        nodes=tuple(s.encode() for s in some),
        size=np.concatenate([c.size for c in whole]).astype(np.float64),
        counts=counts,
        mean=None if counts is not None else np.concatenate([c.mean for c in whole]),
        variance=None if counts is not None else np.concatenate([c.variance for c in whole]),
        bucket=np.zeros(n, dtype=np.int64),
        cell=np.zeros(n, dtype=np.int64),
    )


def whole(name: str, repeats: int) -> dict[str, Any]:
    """Advised against cohorts of five, through real nodes: scores and paired differences."""
    data = datasets.load(name, k=5)
    way = WAYS[ADVISED]
    advised = dataclasses.replace(data, schema=with_floor(data.schema, way.k, way.privacy))

    class Advised(OutcomeRouting):
        """The same with the advised schema."""

        def __call__(self, fold: Fold) -> Answer:
            return super().__call__(dataclasses.replace(fold, schema=advised.schema))

    sides = [Advised(name="advised"), OutcomeRouting(k=5, name="cohorts of five")]
    result = run(data, sides, subject="advised", repeats=repeats, seed=0)
    metrics = ("auc", "log_loss") if data.schema.outcome.has_classes else ("r2", "mae")
    scores = result.to_json()["scores"]
    return {
        "repeats": repeats,
        "scores": {side: {m: scores[side][m] for m in metrics} for side in scores},
        "difference": {m: result.difference("cohorts of five", m).to_json() for m in metrics},
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("--tables", nargs="+", choices=("heart", "opt", "azpro"), default=["heart", "opt", "azpro"])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seed", type=int, default=0, help="500 is the one by which the advised setting was chosen")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--shadows", type=int, default=64)
    parser.add_argument(
        "--whole", action="store_true", help="real nodes: advised against cohorts of five, nothing else"
    )
    args = parser.parse_args(arguments)
    found: dict[str, Any] = {"seed": args.seed, "repeats": args.repeats}
    if args.whole:
        for name in args.tables[: 1 if args.quick else None]:
            found[name] = whole(name, 1 if args.quick else args.repeats)
        show(found, args.json)
        return found
    for name in args.tables[: 1 if args.quick else None]:
        data = datasets.load(name, k=5)
        sites = observations_of(data)
        found[name] = {}
        for way in args.ways[: 1 if args.quick else None]:
            started = time.monotonic()
            repeats, shadows = (1, 8) if args.quick else (args.repeats, args.shadows)
            made = WAYS[way]
            found[name][way] = useful(data.schema, sites, made, args.seed, repeats)
            found[name][way] |= attacked(data.schema, sites, made, args.seed, shadows)
            first = found[name][args.ways[0]]
            found[name][way]["against_first"] = {
                metric: difference(
                    (np.array(values) - np.array(first["each"][metric])).tolist(),
                    metric=metric.split(", ")[1],
                    margin=MARGINS[metric.split(", ")[1]],
                    test_to_train=TEST_SHARE / (1 - TEST_SHARE),
                ).to_json()
                for metric, values in found[name][way]["each"].items()
            }
            print(f"{name} {way}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    for name in args.tables[: 1 if args.quick else None]:
        for row in found[name].values():
            del row["each"]
    show(found, args.json)
    return found


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
