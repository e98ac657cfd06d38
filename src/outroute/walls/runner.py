"""Runs the walls step by step, keeps what each step found, and asks each wall for its verdict."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from outroute.errors import OutrouteError
from outroute.walls.base import CannotRunError, Found, Plan, Step, Wall
from outroute.walls.state import State

__all__ = ["FLUKE", "NAMES", "Outcome", "Run", "Status", "Watch", "load", "missing_text", "named", "run"]

NAMES = ("inversion", "noniid", "communication", "byzantine", "coordinator")
"""The five walls, in the order in which they are run and shown."""

FLUKE = "fluke-fl==0.8.1"
"""The library of the opponents that Flower does not have; its own requirements would pull gigabytes."""


class Status(StrEnum):
    """What became of a wall."""

    MEASURED = "measured"
    PARTIAL = "partial"
    """It was stopped; the verdict rests on the steps that were done."""
    SKIPPED = "skipped"
    """This table or this installation does not allow it; the reason is told."""
    FAILED = "failed"
    STOPPED = "stopped"
    """Stopped before anything was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one wall.

    Attributes:
        name: of the wall.
        question, rule: of the wall; "" where it could not be loaded.
        status: what became of it.
        found: the verdict; None where there is none.
        reason: why it was skipped, stopped or failed.
        seconds: that its steps took, when they were run.
        done, of: finished steps, and all.
    """

    name: str
    status: Status
    question: str = ""
    rule: str = ""
    found: Found | None = None
    reason: str = ""
    seconds: float = 0.0
    done: int = 0
    of: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All walls together.

    Attributes:
        outcomes: in the order asked for.
        interrupted: whether Ctrl-C ended it.
        taken: steps that were taken from an earlier run.
        ran: steps that were run now.
    """

    outcomes: Sequence[Outcome]
    interrupted: bool
    taken: int
    ran: int


class Watch(Protocol):
    """Is told how the run goes on."""

    def at(self, wall: str, text: str, done: int, of: int, left: float) -> None:
        """A step starts: steps that are done, all steps, and seconds that are left, roughly."""

    def tell(self, text: str) -> None:
        """A step says what it is doing."""

    def warn(self, text: str) -> None:
        """Something that a user must see at once."""


class _Quiet:
    def at(self, wall: str, text: str, done: int, of: int, left: float) -> None: ...

    def tell(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


def missing_text(module: str) -> str:
    """One line that says what to install."""
    return (
        f"'{module}' is not installed; it belongs to the extra 'walls': pip install 'outroute[walls]' && "
        f"pip install --no-deps {FLUKE}"
    )


def named(name: str) -> Wall:
    """A wall by its name, imported now, whether or not it can be run here.

    Raises:
        CannotRunError: not even its question can be told without a library that is not installed.
    """
    try:
        wall: Wall = importlib.import_module(f"outroute.walls.{name}").WALL
    except ModuleNotFoundError as error:
        raise CannotRunError(missing_text(str(error.name)), code="extra.walls") from error
    return wall


def load(name: str) -> Wall:
    """The same, ready to run.

    Raises:
        CannotRunError: a library that it needs is not installed.
    """
    wall = named(name)
    for need in wall.needs:
        if importlib.util.find_spec(need.partition(".")[0]) is None:
            raise CannotRunError(missing_text(need), code="extra.walls")
    return wall


@dataclass(slots=True, kw_only=True)
class _Work:
    """One wall on its way."""

    name: str
    wall: Wall | None = None
    steps: Sequence[Step] = ()
    status: Status | None = None
    reason: str = ""
    done: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    cost: float = 0.0
    """Of the steps whose time is in `seconds`."""


def run(
    plan: Plan,
    names: Sequence[str],
    state: State,
    *,
    resume: bool = False,
    watch: Watch | None = None,
    loader: Callable[[str], Wall] = load,
    clock: Callable[[], float] = time.monotonic,
) -> Run:
    """Run walls.

    Args:
        plan: what is measured.
        names: of the walls.
        state: where steps are kept.
        resume: take the steps that are kept already; otherwise they are measured anew, and replaced one by one.
        watch: is told how it goes on.
        loader: finds a wall.
        clock: seconds, for progress and for the time that steps took.
    """
    watch = watch or _Quiet()
    works = [_prepare(plan, name, loader) for name in names]
    for work in works:
        if work.status is not None:
            watch.warn(f"{work.name} is left out: {work.reason}")
    taken = _take(works, state) if resume else 0
    for path in state.damaged:
        watch.warn(f"'{path}' cannot be read as a kept step; it is measured anew")
    ran, interrupted = 0, False
    for work in works:
        try:
            if work.status is None and not interrupted:
                ran += _do(work, works, state, watch, clock)
        except KeyboardInterrupt:
            interrupted = True
    return Run(outcomes=[_conclude(plan, work, watch) for work in works], interrupted=interrupted, taken=taken, ran=ran)


def _prepare(plan: Plan, name: str, loader: Callable[[str], Wall]) -> _Work:
    work = _Work(name=name)
    try:
        work.wall = loader(name)
        if len(plan.dataset.sites) < 2 and not work.wall.one_site:
            raise CannotRunError(
                "the table is one site's; this wall compares several: name the site column with --site, or give one "
                "file for each site"
            )
        work.steps = work.wall.steps(plan)
        keys = [step.key for step in work.steps]
        if not keys or len(set(keys)) != len(keys):
            raise RuntimeError(f"the wall {name!r} must have steps, and each a key of its own")
    except CannotRunError as error:
        work.status, work.reason = Status.SKIPPED, str(error)
    except OutrouteError as error:
        work.status, work.reason = Status.FAILED, str(error)
    if work.wall is None:  # what it asks, and by which rule, is told all the same
        with contextlib.suppress(CannotRunError):
            work.wall = named(name)
    return work


def _take(works: Sequence[_Work], state: State) -> int:
    """Steps that an earlier run kept."""
    taken = 0
    for work in works:
        for step in work.steps:
            kept = state.load(work.name, step.key)
            if kept is not None:
                work.done[step.key] = kept.result
                work.seconds += kept.seconds
                work.cost += step.cost
                taken += 1
    return taken


def _do(work: _Work, works: Sequence[_Work], state: State, watch: Watch, clock: Callable[[], float]) -> int:
    """Run the steps of a wall that are not done; returns how many were."""
    ran = 0
    everything = sum(len(one.steps) for one in works)
    for step in work.steps:
        if step.key in work.done:
            continue
        watch.at(work.name, step.text, sum(len(one.done) for one in works), everything, _left(works))
        began = clock()
        try:
            result = step.run(watch.tell)
            kept = state.keep(work.name, step.key, result, clock() - began)
        except CannotRunError as error:
            work.status, work.reason = Status.SKIPPED, str(error)
        except ModuleNotFoundError as error:
            work.status, work.reason = Status.FAILED, missing_text(str(error.name))
        except OutrouteError as error:
            work.status, work.reason = Status.FAILED, f"{step.text}: {error}"
        except OSError:
            raise  # the disk or the system: no other wall would fare better
        except Exception as error:  # noqa: BLE001 - one wall's mistake must not lose the others; it is shown in full
            work.status, work.reason = Status.FAILED, f"{step.text}: {type(error).__name__}: {error}"
            watch.warn(traceback.format_exc())
        if work.status is not None:
            watch.warn(f"{work.name} could not be measured: {work.reason}")
            break
        work.done[step.key] = kept.result
        work.seconds += kept.seconds
        work.cost += step.cost
        ran += 1
    return ran


def _left(works: Sequence[_Work]) -> float:
    """Seconds that are left: a wall's own estimate, scaled by how its (or else everybody's) steps really went."""
    cost, seconds = sum(one.cost for one in works), sum(one.seconds for one in works)
    common = seconds / cost if cost > 0 else 1.0
    left = 0.0
    for one in works:
        if one.status is None:
            scale = one.seconds / one.cost if one.cost > 0 else common
            left += scale * sum(step.cost for step in one.steps if step.key not in one.done)
    return left


def _conclude(plan: Plan, work: _Work, watch: Watch) -> Outcome:
    status, reason, found = work.status, work.reason, None
    complete = len(work.done) == len(work.steps)
    if status is None and not work.done:
        status, reason = Status.STOPPED, "stopped before it began; --resume goes on"
    elif status is None and work.wall is not None:
        try:
            found = work.wall.conclude(plan, work.done)
            status = Status.MEASURED if complete else Status.PARTIAL
            reason = "" if complete else f"{len(work.done)} of {len(work.steps)} steps are done; --resume goes on"
        except OutrouteError as error:
            status, reason = (Status.FAILED if complete else Status.STOPPED), str(error)
        except Exception as error:  # noqa: BLE001 - as above: shown in full, and the others are reported
            status, reason = Status.FAILED, f"{type(error).__name__}: {error}"
            watch.warn(traceback.format_exc())
    assert status is not None
    return Outcome(
        name=work.name,
        status=status,
        question=work.wall.question if work.wall else "",
        rule=work.wall.rule if work.wall else "",
        found=found,
        reason=reason,
        seconds=round(work.seconds, 3),
        done=len(work.done),
        of=len(work.steps),
    )
