"""What a wall is: steps that are run and kept one by one, and a verdict drawn from what they found.

A step's result is JSON, kept as soon as it is there: a run that is stopped goes on from the last finished step, and
the same results give the same verdict, whenever and wherever they are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from outroute.errors import OutrouteError
from outroute.walls.deployment import Deployment

if TYPE_CHECKING:
    from outroute.datasets import Dataset

__all__ = ["CannotRunError", "Curve", "Figure", "Found", "Part", "Plan", "Score", "Step", "Tell", "Wall", "Winner"]

Tell = Callable[[str], None]
"""Told what is being done, for people; never changes a result."""


class CannotRunError(OutrouteError):
    """Raised by ``Wall.steps`` (or a step) when this table does not allow the wall; the message is the reason."""

    def __init__(self, message: str, *, code: str = "walls.cannot") -> None:
        super().__init__(message, code=code)


class Winner(StrEnum):
    """Who does better at a wall, by the rule that was written down before."""

    OUTROUTE = "outroute"
    FEDERATED = "federated"
    TIE = "tie"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured, the same for every wall.

    All five together must stay under 3 minutes with `quick`, and under 40 without, on heart and two cores: each wall
    takes about 30 seconds with `quick` and 7 minutes without. A step of more than a minute is better two steps, so
    that what is done is kept and the time that is left can be told.

    Attributes:
        dataset: the user's table; its schema, with its floor of subjects in a packet, is the one of every wall.
        k: subjects in a packet.
        epsilon: of one subject over its lifetime, for federated learning with noise and for ours where it is compared.
        repeats: of every measurement that is repeated; intervals need 20.
        seed: everything random follows from it.
        quick: minutes, not an hour: fewer repeats, shorter searches, fewer methods.
        deployment: of the user.
        attacks: of the Byzantine wall, names of `outroute.simulation.ADVERSARIES`; none: those that it takes itself.
        divisions: of the same records over the sites anew, for the non-IID wall ("iid", "dirichlet:0.1", "classes:2",
            "quantity:0.5"); none: those that it takes itself.
        blows: times that the coordinator's wall strikes each side; the verdict rests on the first.
    """

    dataset: Dataset
    k: int = 5
    epsilon: float = 1.0
    repeats: int = 20
    seed: int = 0
    quick: bool = False
    deployment: Deployment = field(default_factory=Deployment)
    attacks: tuple[str, ...] = ()
    divisions: tuple[str, ...] = ()
    blows: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One piece of a wall's work, kept when it is done.

    Attributes:
        key: unique within the wall, stable between runs: letters, digits, "-", "." and "/".
        text: what is being done, for people ("split 3 of 20: federated averaging").
        cost: seconds that it takes, roughly; only for the time that is left.
        run: does it; returns JSON (NumPy's scalars and arrays are taken too; a figure that is not finite becomes
            null). Calls `tell` when it takes longer than two seconds. What `conclude` gets has been through JSON.
    """

    key: str
    text: str
    cost: float
    run: Callable[[Tell], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One figure of one method.

    Attributes:
        method: name for people.
        metric: name with its unit where it has one ("AUC", "bytes", "s", "share of work").
        value: the figure.
        low, high: its interval of 95 %; None where it was measured once or is exact.
        ours: whether it is outcome routing's.
        higher_is_better: which way is better; None where neither is.
        baseline: whether it is shown for comparison only and cannot win.
        note: what a reader must know, else "".
    """

    method: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    ours: bool = False
    higher_is_better: bool | None = None
    baseline: bool = False
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            name: getattr(self, name)
            for name in ("method", "metric", "value", "low", "high", "ours", "higher_is_better", "baseline", "note")
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line (or cloud of points) of a picture: `x` and `y` of equal length, with bounds where there are any."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    ours: bool = False
    baseline: bool = False
    points: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture of the report.

    Attributes:
        title, caption: for people.
        curves: lines or points over common axes; may be empty where `images` are shown.
        x, y: names of the axes, with units.
        log_x, log_y: logarithmic axes.
        images: rows of (label, pixels[n, h, w] as nested lists, 0 to 1), one below the other.
    """

    title: str
    caption: str
    curves: Sequence[Curve] = ()
    x: str = ""
    y: str = ""
    log_x: bool = False
    log_y: bool = False
    images: Sequence[tuple[str, Sequence[Sequence[Sequence[float]]]]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section of a wall below its verdict: a heading, sentences, tables of scores, pictures."""

    title: str
    text: str = ""
    scores: Sequence[Score] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a wall found.

    Attributes:
        verdict: one or two sentences for people, for this table, with the figures and their uncertainty.
        winner: by the wall's rule.
        scores: the figures that the verdict rests on, ours and everybody's; those in which we lose are there.
        change: what it would take to change the verdict.
        parts: what is shown below, in this order.
        settings: everything that is needed to repeat it, as JSON.
        notes: what a reader must know (what was skipped, and why).
    """

    verdict: str
    winner: Winner
    scores: Sequence[Score]
    change: str
    parts: Sequence[Part] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Wall(Protocol):
    """One of the five.

    Attributes:
        name: "inversion", "noniid", "communication", "byzantine" or "coordinator".
        question: as an engineer asks it.
        rule: how the verdict is drawn, with its margin: written before any run, never tuned to a result.
        one_site: whether a table of one site is enough.
        needs: modules of the extra `walls` without which it cannot run.
    """

    name: str
    question: str
    rule: str
    one_site: bool
    needs: Sequence[str]

    def steps(self, plan: Plan) -> Sequence[Step]:
        """The work, in the order in which it is done; the same plan gives the same steps.

        Raises:
            CannotRunError: this table does not allow it; it is reported as skipped, with this reason.
        """
        ...

    def conclude(self, plan: Plan, done: Mapping[str, Mapping[str, Any]]) -> Found:
        """The verdict from the steps that are done (by key); fewer after Ctrl-C, never none."""
        ...
