"""Believing: what was said of a question is remembered, and scored when its outcome becomes known.

Calculations are scored on what they said *before* the outcome was known here, never on what they would say now. The
state of the election is kept in the node's own database, written in the same commit as the outcome.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.elections import (
    BANDS,
    CRPS_RATE,
    LOG_RATE,
    Trust,
    band_of_class,
    band_of_number,
    class_losses,
    crps,
)
from outroute.schema import Schema
from outroute.store import Journal
from outroute.synthesis import Answers, Fitted

__all__ = ["Beliefs", "Said", "said_of"]

Floats = NDArray[np.float64]

DIGITS = 6
"""Significant digits kept of what was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What was said of one question.

    Attributes:
        names: J calculations.
        each: float64[J, C], probability of each class by each calculation; numbers: float64[J, 1], means.
        answered: float64[C] or [1], the same of the answer, which mixed them with the weights of that time.
        variance: of one outcome around a mean (numbers; else 0), outcome units squared.
        spread: standard deviation of all outcomes seen by then, the unit of the CRPS (numbers; else 1).
        band: of the answer.
    """

    names: tuple[str, ...]
    each: Floats
    answered: Floats
    variance: float
    spread: float
    band: int

    def losses(self, outcome: float) -> tuple[Floats, float]:
        """Loss of each calculation, float64[J], and of the answer: nats, or CRPS in spreads."""
        rows = np.concatenate([self.each, self.answered[None]])
        if rows.shape[1] > 1:
            paid = class_losses(rows, int(outcome))
        else:
            paid = crps(rows[:, 0], float(np.sqrt(self.variance)), outcome) / self.spread
        return paid[:-1], float(paid[-1])

    def to_bytes(self) -> bytes:
        """As it is kept, with `DIGITS` digits."""
        return json.dumps(
            {
                "names": self.names,
                "each": _short(self.each),
                "answered": _short(self.answered),
                "variance": float(f"{self.variance:.{DIGITS}g}"),
                "spread": float(f"{self.spread:.{DIGITS}g}"),
                "band": self.band,
            }
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Said:
        """Read what ``to_bytes`` made."""
        found = json.loads(data)
        arrays = {name: np.array(found[name], np.float64) for name in ("each", "answered")}
        return cls(**{**found, **arrays, "names": tuple(found["names"])})


def _short(values: Floats) -> Any:
    return np.array([float(f"{v:.{DIGITS}g}") for v in values.ravel().tolist()]).reshape(values.shape).tolist()


def said_of(schema: Schema, fitted: Fitted, answers: Answers, i: int = 0) -> Said:
    """What was said of question `i`.

    Args:
        schema: the schema.
        fitted: what answered.
        answers: its answers.
        i: which of them.
    """
    each, answered = answers.by_calculation[i], answers.estimate[i]
    if schema.outcome.has_classes:
        if each.ndim == 1:
            each, answered = np.stack([1.0 - each, each], axis=1), np.array([1.0 - answered, answered])
        variance, spread, band = 0.0, 1.0, band_of_class(answered)
    else:
        centre, spread = fitted.scale.centre, fitted.scale.spread
        band = band_of_number(float(answered), centre, spread)
        each, answered, variance = each[:, None], np.array([answered]), fitted.noise * spread**2
    return Said(names=answers.calculations, each=each, answered=answered, variance=variance, spread=spread, band=band)


class Beliefs:
    """The running trust of one node, kept in its journal.

    Args:
        schema: the schema.
        journal: the node's.
    """

    def __init__(self, schema: Schema, journal: Journal) -> None:
        self._schema, self._journal = schema, journal
        self._known: Trust | None = None

    def trust(self) -> Trust:
        """The state by all outcomes that have become known.

        It is read once and remembered until something is asked, settled or erased: a question must not wait for whoever
        writes to the journal.
        """
        if self._known is None:
            self._known = self._state()
        return self._known

    def erased(self) -> None:
        """Something was erased: the state is made again without it, if it had been scored."""
        self._known = None
        self._state()

    def _state(self) -> Trust:
        """The state as it is kept; made again first when an outcome was erased."""
        state, stale = self._journal.elections.state()
        if state is None:
            classes = len(self._schema.outcome.classes)
            bands = classes if classes > 2 else BANDS
            return Trust.start(bands=bands, rate=LOG_RATE if classes else CRPS_RATE)
        found = Trust.from_bytes(state)
        return self._again(found) if stale else found

    def ask(self, case: object, codes: NDArray[np.uint16], said: Said, *, now: int) -> None:
        """Remember a question, and what was said of it when its outcome is not known yet.

        Args:
            case: its id; the same case again replaces what was said.
            codes: uint16[1, D].
            said: by all calculations, and what was answered.
            now: seconds since 1970-01-01 UTC.
        """
        elections = self._journal.elections
        with self._journal.together():
            open_ = not elections.decided(case)
            before = self._journal.question(case)
            self._journal.ask(case, codes.astype("<u2").tobytes(), now=now, said=said.to_bytes() if open_ else None)
            if open_:
                earlier = None if before is None or before.said is None else Said.from_bytes(before.said).band
                elections.keep(self._state().told(said.band, instead_of=earlier).to_bytes())
        self._known = None

    def settle(self, cases: Sequence[object] | NDArray[Any], outcome: NDArray[np.float64]) -> int:
        """Outcomes became known: score what had been said. To be called with the change that makes them known.

        Args:
            cases: n ids.
            outcome: float64[n], class index or number; NaN where it is not known yet.

        Returns:
            How many questions were scored.
        """
        elections = self._journal.elections
        with self._journal.together():
            settled = elections.settle(cases, outcome)
            if settled.fresh:
                elections.keep(_scored(self._state(), settled.fresh).to_bytes())
            if settled.corrected:
                self._again(self._state())
        if settled.fresh or settled.corrected:
            self._known = None
        return len(settled.fresh)

    def _again(self, state: Trust) -> Trust:
        """The state made again from what was said and what came true; how many were asked stays as it was."""
        elections = self._journal.elections
        fresh = Trust.start(bands=len(state.asked), rate=state.rate)
        with self._journal.together():
            made = _scored(fresh, elections.scored()).counting(state.asked)
            elections.keep(made.to_bytes())
        return made


def _scored(state: Trust, outcomes: Iterable[tuple[bytes, float]]) -> Trust:
    """The state after these outcomes, in order."""
    for data, outcome in outcomes:
        said = Said.from_bytes(data)
        losses, paid = said.losses(outcome)
        state = state.update(
            losses[None], names=said.names, paid=np.array([paid]), bands=np.array([said.band], dtype=np.int64)
        )
    return state
