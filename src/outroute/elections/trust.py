"""Trust: which calculation to believe, scored on own outcomes before they enter any of them.

Two forms of one election. `elect` looks at all scored outcomes at once and minimises the loss of the
mixture; `Trust` is the running form: what each calculation said of a question that was asked is scored when its
outcome becomes known, and weights follow exponentiated loss, so that what is lost against the best calculation in
hindsight stays small. `Trust.prior` hands the one to the other.

The learning rate is fixed beforehand: that at which the loss is *mixable*, so that the loss of the best possible
mixture exceeds that of the best calculation by ln J / rate at most, however many outcomes come. Log-loss: 1 per nat,
the Bayesian mixture. CRPS of outcomes on [a, b]: 2 / (b - a), with b - a = `CRPS_REACH` spreads. Nothing is tuned.

*Delay.* What is scored is what was said when it was asked, so a late outcome says the same as a prompt one. Losses are
summed; the order in which they come matters by the fade only.

*Selection.* Some outcomes become known more often than others. Questions are counted by band of what was answered;
the losses of a band weigh by the inverse of its share of confirmed questions, within bounds. What decides whether an
outcome is looked up, and does not show in the answer, stays uncorrected.

Sources: Freund and Schapire (1997), section 2 (Hedge); Kivinen and Warmuth (1997), section 3 (exponentiated
gradient); Vovk (1998), mixability of log-loss; V'yugin and Trunov (2019), mixability of the CRPS; Freund, Schapire,
Singer and Warmuth (1997), calculations that are not always there; Joulani, Gyorgy and Szepesvari (2013), delay;
Horvitz and Thompson (1952), inverse propensity. Departures: `elect` iterates on the whole batch with a line search,
and stays near the prior weights by a relative-entropy pull, which is what a site with few outcomes needs; calculations
are mixed as scores, not as distributions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from outroute.errors import DataError

__all__ = ["CRPS_RATE", "LOG_RATE", "LOSS_MOST", "Objective", "Trust", "elect", "leaning"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Objective = Callable[[Floats], tuple[float, Floats]]
"""Weights float64[J] on the simplex -> (total loss of the mixture in nats, its gradient float64[J])."""

STEPS = 150
"""Exponentiated-gradient steps; seven calculations settle in well under a hundred."""
PULL = 2.0
"""Nats of own loss that one nat of distance from the prior weights costs."""
LOSS_MOST = 6.0
"""Loss per outcome above this is counted as this (nats; one chance in 400): one mistake is not a verdict."""
FADE = 0.999
"""Factor on past losses per new outcome: half-life about 700 outcomes, so that a drift is noticed."""
LOG_RATE = 1.0
"""Learning rate per nat of log-loss."""
CRPS_REACH = 6.0
"""Spreads (standard deviations of the outcome) that outcomes are taken to lie within: three to each side."""
CRPS_RATE = 2.0 / CRPS_REACH
"""Learning rate per spread of CRPS."""
SELECTION_PRIOR = 20.0
"""Questions that the share confirmed over all bands weighs as much as, in each band."""
SELECTION_MOST = 2.0
"""A band weighs between half and twice what it would without selection: where what decides about confirmation does not
show in the answer, the correction is wrong, and must not decide alone."""
CARRIED = 0.5
"""Part of the prior that follows the running trust; the rest stays what it was before any outcome. Confirmed outcomes
become own records and enter the batch election too: so they cannot count double without end. Against either prior alone
the half of each costs at most `PULL` ln 2 = 1.4 nats over all own outcomes together."""

OWN_ONLY = ("local", "local-boosting")
"""Calculations that read own records alone: no packet of anybody touches them."""
LEAN = 1.0
"""Nats of own loss, over all own outcomes together, that leaning on these may cost at most: so much is chance."""
LEAN_HALF = 100.0
"""Own outcomes at which half of that is allowed: what a handful of records says alone is no refuge."""
LEAN_MOST = 0.5
"""Most that the weights move towards them."""
DROPPED = (0.3, 0.6)
"""Share of nodes that elections had to drop below which nothing moves, and above which all of `LEAN_MOST` may: where
everybody is honest, leaning costs (heart: .001 to .004 of log-loss), and luck drops a fifth of the nodes at times."""
LEAN_STEPS = 8
"""Halvings in the search for how far: to within 0.2 % of the weight."""


def leaning(names: Sequence[str], weights: Floats, objective: Objective, outcomes: int, dropped: float = 0.0) -> Floats:
    """Weights moved towards what own records say alone, as far as own outcomes cannot tell the difference.

    Liars who say what own outcomes cannot refute cost what own outcomes cannot see: with 200 of them a loss of .01 an
    outcome is two nats in all, which is chance. So where many nodes had to be dropped, of all mixtures that own
    outcomes hardly tell apart the one counts that leans most on what nobody else can touch. Where own outcomes show
    that others help, they decide.

    Args:
        names: of J calculations.
        weights: float64[J], as elected.
        objective: loss of a mixture on own outcomes.
        outcomes: own outcomes that it is the loss of.
        dropped: share of nodes, 0 to 1, that the election of packets does not draw on.

    Returns:
        float64[J] >= 0, sums to one.
    """
    refuges = [np.eye(len(names))[j] for j, name in enumerate(names) if name in OWN_ONLY]
    reach = LEAN_MOST * min(1.0, (dropped - DROPPED[0]) / (DROPPED[1] - DROPPED[0]))
    if reach <= 0.0 or not refuges or len(refuges) == len(names):
        return weights
    refuge = min(refuges, key=lambda alone: objective(alone)[0])
    most = objective(weights)[0] + LEAN * outcomes / (outcomes + LEAN_HALF)
    low, high = 0.0, reach
    if objective((1.0 - high) * weights + high * refuge)[0] <= most:
        low = high
    for _ in range(LEAN_STEPS if low < high else 0):
        middle = 0.5 * (low + high)
        if objective((1.0 - middle) * weights + middle * refuge)[0] <= most:
            low = middle
        else:
            high = middle
    out: Floats = (1.0 - low) * weights + low * refuge
    return out


def elect(objective: Objective, prior: Floats, *, pull: float = PULL) -> Floats:
    """Weights of calculations that minimise objective(w) + pull * KL(w || prior).

    Args:
        objective: loss of the mixture on own outcomes, convex in the weights.
        prior: float64[J] > 0, sums to one.
        pull: >= 0.

    Returns:
        float64[J] >= 0, sums to one.
    """
    weights = prior.copy()

    def total(w: Floats) -> tuple[float, Floats]:
        loss, gradient = objective(w)
        ratio = np.log(np.maximum(w, 1e-300) / prior)
        return loss + pull * float(w @ ratio), gradient + pull * (ratio + 1.0)

    value, gradient = total(weights)
    rate = 1.0 / max(float(np.abs(gradient - gradient.mean()).max()), 1e-9)
    for _ in range(STEPS):
        moved = np.log(np.maximum(weights, 1e-300)) - rate * (gradient - gradient.min())
        trial = np.exp(moved - moved.max())
        trial /= trial.sum()
        new, new_gradient = total(trial)
        if new <= value:
            done = value - new < 1e-7 * max(1.0, abs(value)) and np.abs(trial - weights).max() < 1e-4
            weights, value, gradient = trial, new, new_gradient
            rate *= 1.6
            if done:
                break
        else:
            rate *= 0.5
            if rate < 1e-12:
                break
    return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Running trust in named calculations.

    Attributes:
        names: calculations scored so far, in order of appearance.
        excess: float64[B, J], by band of the answer: faded sum of the loss of each calculation beyond that of what was
            answered. A calculation that took no part in an answer counts as the answer did.
        asked, confirmed: float64[B], faded numbers of questions asked, and of those whose outcome became known.
        selection: float64[B], how much the losses of each band count, as of the last outcome: one where outcomes become
            known as often as anywhere, more where they do so more rarely. Asking alone changes nobody's weight.
        count: outcomes scored.
        rate: learning rate per unit of loss.
    """

    names: tuple[str, ...]
    excess: Floats
    asked: Floats
    confirmed: Floats
    selection: Floats
    count: int = 0
    rate: float = LOG_RATE

    @classmethod
    def start(cls, names: Sequence[str] = (), *, bands: int = 1, rate: float = LOG_RATE) -> Trust:
        """Nobody has been scored yet.

        Args:
            names: calculations; others may come later.
            bands: B, bands of answers that selection is told apart by.
            rate: learning rate, fixed for good.
        """
        return cls(
            names=tuple(names),
            excess=np.zeros((bands, len(names))),
            asked=np.zeros(bands),
            confirmed=np.zeros(bands),
            selection=np.ones(bands),
            rate=rate,
        )

    @property
    def weights(self) -> Floats:
        """float64[J], sums to one: trust when all were trusted alike before."""
        return self.running(self.names)

    def running(self, names: Sequence[str], default: Floats | None = None) -> Floats:
        """Weights of `names` by their losses so far, float64[J], sum one.

        Args:
            names: calculations; those never scored count as what was answered did.
            default: float64[J], weights before any outcome was scored, sum one; default alike for all.
        """
        before = np.full(len(names), 1.0 / max(1, len(names))) if default is None else default
        if not self.count:
            return before
        known = dict(zip(self.names, (self.selection @ self.excess).tolist(), strict=True))
        excess = np.array([known.get(name, 0.0) for name in names])
        raw = before * np.exp(-self.rate * (excess - excess.min()))
        out: Floats = raw / raw.sum()
        return out

    def prior(self, names: Sequence[str], default: Floats | None = None) -> Floats:
        """Weights of `names` as a prior of `elect`: half running, half `default`; see `running` and `CARRIED`.

        Returns:
            float64[J], sums to one; `default` itself while nothing has been scored.
        """
        running = self.running(names, default)
        if not self.count:
            return running
        before = np.full(len(names), 1.0 / len(names)) if default is None else default
        out: Floats = (1.0 - CARRIED) * before + CARRIED * running
        return out

    def told(self, band: int, *, instead_of: int | None = None) -> Trust:
        """A question was asked.

        Args:
            band: of what was answered.
            instead_of: band of an earlier answer to the same question, which is forgotten.
        """
        asked = self.asked.copy()
        if instead_of is not None:
            asked[instead_of] = max(0.0, asked[instead_of] - 1.0)
        asked[band] += 1.0
        return replace(self, asked=asked)

    def counting(self, asked: Floats) -> Trust:
        """The same outcomes, with other numbers of questions asked, float64[B]."""
        return replace(self, asked=asked, selection=_selection(asked, self.confirmed))

    def update(
        self,
        losses: Floats,
        *,
        names: Sequence[str] | None = None,
        paid: Floats | None = None,
        bands: Ints | None = None,
    ) -> Trust:
        """Score m outcomes that became known.

        Args:
            losses: float64[m, J], loss of what each calculation had said before the outcome was known.
            names: of the J calculations; default those known already.
            paid: float64[m], loss of what had been answered; default 0, which does when all calculations always take
                part.
            bands: int64[m], band of each answer; default the first.

        Returns:
            The new state.

        Raises:
            DataError: ``trust.losses``, columns and names differ.
        """
        given = self.names if names is None else tuple(names)
        if losses.ndim != 2 or losses.shape[1] != len(given):
            raise DataError(f"losses need one column for each of {len(given)} calculations", code="trust.losses")
        everyone = (*self.names, *(name for name in given if name not in self.names))
        place = [everyone.index(name) for name in given]
        excess = np.zeros((len(self.asked), len(everyone)))
        excess[:, : len(self.names)] = self.excess
        asked, confirmed = self.asked.copy(), self.confirmed.copy()
        paid = np.zeros(len(losses)) if paid is None else np.minimum(paid, LOSS_MOST)
        bands = np.zeros(len(losses), np.int64) if bands is None else bands
        for row, said, band in zip(np.minimum(losses, LOSS_MOST), paid.tolist(), bands.tolist(), strict=True):
            for faded in (excess, asked, confirmed):
                faded *= FADE
            excess[band, place] += row - said
            confirmed[band] += 1.0
        return replace(
            self,
            names=everyone,
            excess=excess,
            asked=asked,
            confirmed=confirmed,
            selection=_selection(asked, confirmed),
            count=self.count + len(losses),
        )

    def says_as(self, other: Trust) -> bool:
        """Whether both believe the same, whatever was asked since."""
        return (
            self.names == other.names
            and np.array_equal(self.excess, other.excess)
            and np.array_equal(self.selection, other.selection)
        )

    def to_bytes(self) -> bytes:
        """As it is kept; ``from_bytes`` gives exactly the same state."""
        return json.dumps(
            {
                "names": self.names,
                "excess": self.excess.tolist(),
                "asked": self.asked.tolist(),
                "confirmed": self.confirmed.tolist(),
                "selection": self.selection.tolist(),
                "count": self.count,
                "rate": self.rate,
            }
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Trust:
        """Read what ``to_bytes`` made."""
        found = json.loads(data)
        asked = np.array(found["asked"], np.float64)
        return cls(
            names=tuple(found["names"]),
            excess=np.array(found["excess"], np.float64).reshape(len(asked), len(found["names"])),
            asked=asked,
            confirmed=np.array(found["confirmed"], np.float64),
            selection=np.array(found["selection"], np.float64),
            count=found["count"],
            rate=found["rate"],
        )


def _selection(asked: Floats, confirmed: Floats) -> Floats:
    """Usual share of confirmed questions by the share in each band, float64[B], within `SELECTION_MOST`."""
    asked = np.maximum(asked, confirmed)
    if not confirmed.sum():
        return np.ones(len(asked))
    usual = confirmed.sum() / asked.sum()
    share = (confirmed + SELECTION_PRIOR * usual) / (asked + SELECTION_PRIOR)
    out: Floats = np.clip(usual / share, 1.0 / SELECTION_MOST, SELECTION_MOST)
    return out
