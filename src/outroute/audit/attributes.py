"""Attribute inference: what does a person's packet add to guessing one thing about them from all others?

A site's subjects are drawn into thirds. The first is emitted. The second is the attacker's: it fits its predictor on
these people and on what the same distiller emits of them. The third is in nothing, and shows how much of the gain is
about the population and not about the people in the packets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.emission import outcome_numbers
from outroute.audit.scores import FieldScale, decibel
from outroute.audit.traces import distances
from outroute.schema import unit_scale

if TYPE_CHECKING:
    from outroute.audit.emission import Emission, Emitter
    from outroute.distill import Observations
    from outroute.schema import Schema

__all__ = ["OUTCOME", "Attributes", "Gains", "attribute_gains", "attributes"]

OUTCOME = "(outcome)"
"""Name under which the outcome stands among the fields."""
RIDGE = 10.0
"""Penalty of the predictor, in records: it keeps wide tables of few records in hand."""
NEAREST = 3
"""Packets that the predictor is shown: the nearest, and the mean of the three nearest."""
LEAST_SUBJECTS = 24
"""Below that, a third of them is no data to fit a predictor on."""
REPEATS = 4
"""Draws of thirds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """Squared errors of one site, in variances of the field, by field: without packets and with them, summed.

    Attributes:
        members: by field (without, with, number).
        others: the same for people who are in no packet.
    """

    members: Mapping[str, tuple[float, float, int]]
    others: Mapping[str, tuple[float, float, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Over all sites and fields.

    Attributes:
        gain: decibel by which packets lower the error about people who are in them, over all fields.
        gain_others: the same about people who are not: what the packets tell about the population.
        worst_field, worst_gain, worst_gain_others: the field with the largest difference of the two.
        outcome_gain, outcome_gain_others: for the outcome.
        error: root of the mean squared error with packets, members, in standard deviations.
    """

    gain: float
    gain_others: float
    worst_field: str
    worst_gain: float
    worst_gain_others: float
    outcome_gain: float
    outcome_gain_others: float
    error: float

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "gain_db": self.gain,
            "gain_others_db": self.gain_others,
            "worst_field": self.worst_field,
            "worst_gain_db": self.worst_gain,
            "worst_gain_others_db": self.worst_gain_others,
            "outcome_gain_db": self.outcome_gain,
            "outcome_gain_others_db": self.outcome_gain_others,
            "error": self.error,
        }


def attribute_gains(
    schema: Schema,
    observations: Observations,
    emit: Emitter,
    rng: np.random.Generator,
    *,
    scale: FieldScale | None = None,
    repeats: int = REPEATS,
) -> Gains | None:
    """Attack one site; None where it has too few subjects or emits nothing.

    Args:
        schema: the schema.
        observations: the site's.
        emit: the distiller under attack.
        rng: of the thirds and of the emitter.
        scale: units of errors; None: from these observations.
        repeats: draws of thirds.
    """
    rows = observations.take(np.flatnonzero(~np.isnan(observations.outcome)))
    people, subject = np.unique(rows.subject, return_inverse=True)
    if len(people) < LEAST_SUBJECTS:
        return None
    x = unit_scale(schema, rows.codes)
    y = outcome_numbers(schema, rows.outcome)
    scale = scale or FieldScale.of(schema, x)
    members: dict[str, list[tuple[float, float, int]]] = {}
    others: dict[str, list[tuple[float, float, int]]] = {}
    for _ in range(repeats):
        third = (rng.permutation(len(people)) % 3)[subject.reshape(-1)]
        sets = [np.flatnonzero(third == number) for number in range(3)]
        emitted, own = emit(schema, rows.take(sets[0]), rng), emit(schema, rows.take(sets[1]), rng)
        if not len(emitted) or not len(own):
            continue
        for name, columns, variance in _targets(schema, scale, y):
            truth = np.hstack([x, y])[:, columns]
            show = _shown(scale, x, y, columns)
            for into, part in ((members, sets[0]), (others, sets[2])):
                use = np.flatnonzero(~np.isnan(truth[part, 0]))
                fit = np.flatnonzero(~np.isnan(truth[sets[1], 0]))
                if not len(use) or len(fit) < 2:
                    continue
                a, b = show(sets[1][fit], own), show(part[use], emitted)
                plain = _errors(a[0], truth[sets[1][fit]], b[0], truth[part[use]])[1]
                more = _best(a, truth[sets[1][fit]], b, truth[part[use]])
                into.setdefault(name, []).append((plain / variance, more / variance, len(use)))
    if not members:
        return None
    return Gains(members=_sums(members), others=_sums(others))


def _targets(schema: Schema, scale: FieldScale, y: NDArray[np.float64]) -> list[tuple[str, NDArray[np.int64], float]]:
    """Fields that vary, and the outcome: name, columns of conditions and outcome side by side, variance."""
    out = [
        (field.name, np.arange(schema.slots[field.name].start, schema.slots[field.name].stop), float(variance))
        for field, variance in zip(schema.fields, scale.variance, strict=True)
        if variance > 1e-12
    ]
    spread = float(y.var(axis=0).sum())
    if spread > 1e-12:
        out.append((OUTCOME, np.arange(schema.width, schema.width + y.shape[1]), spread))
    return out


Part = tuple[NDArray[np.float64], NDArray[np.float64]]
"""What is seen of some rows: without packets, and what packets add (the nearest one's value first)."""
Shown = Callable[[NDArray[np.int64], "Emission"], Part]


def _shown(scale: FieldScale, x: NDArray[np.float64], y: NDArray[np.float64], columns: NDArray[np.int64]) -> Shown:
    """What a predictor of some columns sees of rows: everything else about them, and what packets near them say."""
    width = x.shape[1]
    only = np.ones(width, dtype=bool)
    only[columns[columns < width]] = False
    knows_outcome = columns[0] < width
    deviation = np.sqrt(scale.weights())
    plain = np.where(np.isnan(x), 0.0, (x - scale.mean) * deviation)[:, only]
    if knows_outcome:
        plain = np.hstack([plain, y])

    def show(rows: NDArray[np.int64], emission: Emission) -> Part:
        far = distances(scale, x[rows], emission.x, only=only)
        if knows_outcome:
            far = far + ((y[rows][:, None, :] - emission.outcome[None, :, :]) ** 2).sum(axis=2)
        said = np.hstack([emission.x, emission.outcome])[:, columns]
        there = ~np.isnan(said)
        usual = np.where(there, said, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
        said = np.where(there, said, usual)
        order = np.argsort(far, axis=1, kind="stable")[:, :NEAREST]
        nearest = said[order[:, 0]]
        around = said[order].mean(axis=1)
        close = np.exp(-far[np.arange(len(rows)), order[:, 0]])[:, None]
        return plain[rows], np.hstack([nearest, around, close, nearest * close])

    return show


def _best(fit_on: Part, fit_to: NDArray[np.float64], use: Part, truth: NDArray[np.float64]) -> float:
    """Summed squared error of what does best on the attacker's own people: a regression, or reading the packet off."""
    width = truth.shape[1]
    read = [part[1][:, :width] for part in (fit_on, use)]
    own, error = _errors(np.hstack(fit_on), fit_to, np.hstack(use), truth)
    return float(((read[1] - truth) ** 2).sum()) if float(((read[0] - fit_to) ** 2).sum()) < own else error


def _errors(
    fit_on: NDArray[np.float64], fit_to: NDArray[np.float64], use: NDArray[np.float64], truth: NDArray[np.float64]
) -> tuple[float, float]:
    """Summed squared errors of a ridge regression where it was fitted and where it is used."""
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=RIDGE).fit(fit_on, fit_to)
    errors = []
    for seen, wanted in ((fit_on, fit_to), (use, truth)):
        guess = np.clip(np.asarray(model.predict(seen)).reshape(wanted.shape), 0.0, 1.0)
        errors.append(float(((guess - wanted) ** 2).sum()))
    return errors[0], errors[1]


def _sums(found: Mapping[str, list[tuple[float, float, int]]]) -> dict[str, tuple[float, float, int]]:
    return {
        name: (sum(a for a, _, _ in of), sum(b for _, b, _ in of), sum(n for _, _, n in of))
        for name, of in found.items()
    }


def attributes(sites: list[Gains]) -> Attributes | None:
    """One summary over the sites that were attacked; None where there is none."""
    if not sites:
        return None

    def gain(of: str, name: str | None = None) -> float:
        parts = [v for site in sites for n, v in getattr(site, of).items() if name is None or n == name]
        return decibel(sum(v[0] for v in parts), sum(v[1] for v in parts)) if parts else float("nan")

    names = sorted({name for site in sites for name in site.members if name != OUTCOME})
    excess = {name: gain("members", name) - gain("others", name) for name in names}
    worst = max(names, key=lambda name: (excess[name], name), default=OUTCOME)
    number = sum(v[2] for site in sites for v in site.members.values())
    return Attributes(
        gain=gain("members"),
        gain_others=gain("others"),
        worst_field=worst,
        worst_gain=gain("members", worst),
        worst_gain_others=gain("others", worst),
        outcome_gain=gain("members", OUTCOME),
        outcome_gain_others=gain("others", OUTCOME),
        error=float(np.sqrt(sum(v[1] for site in sites for v in site.members.values()) / max(number, 1))),
    )
