"""Blows to each side, and what is still done after them: the steps of the coordinator's wall.

A blow's share of work is the work done in the seconds of the window after it, over that of equally long a time at the
pace before, and at most 1. Work is a round that changed the model (Flower), a model merged at a peer that is not hit
(gossip), or a question answered at a site that is not hit (ours).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from outroute.errors import MissingExtraError
from outroute.trial.routing import OutcomeRouting
from outroute.walls.base import Plan, Tell
from outroute.walls.coordinator_gossip import Gossip
from outroute.walls.coordinator_network import Asking, Network
from outroute.walls.coordinator_processes import Late, Workplace, until
from outroute.walls.coordinator_stage import Stage, stage_of
from outroute.walls.coordinator_star import Star

__all__ = [
    "FIRST",
    "HANG",
    "MEMBER",
    "ROUNDS_LEAST",
    "WINDOW",
    "WINDOW_QUICK",
    "Blow",
    "gossip",
    "network",
    "star_clients",
    "star_server",
]

WINDOW = 24.0
"""Seconds after a blow in which work counts: some four rounds of Flower on two cores."""
WINDOW_QUICK = 6.0
ROUNDS_LEAST = 4.0
"""Rounds of Flower that its window is long enough for, on a machine where 24 s are not: fewer could not tell a pause
from a slow round."""
ROUNDS_LEAST_QUICK = 1.0
PACE_SECONDS = 6.0
"""Seconds before the first blow in which the pace of gossip and of questions is taken."""
PACE_SECONDS_QUICK = 3.0
PACE_ROUNDS = 4
"""Rounds of Flower before the first blow; the pace is that between the first, which also hands out the app, and the
last."""
PACE_ROUNDS_QUICK = 2
HOLDERS = 2
"""Nodes of ours that keep packets of others and know nothing else."""
AGAIN_SECONDS = 60.0
"""Seconds that somebody waits for work to begin again after putting things right, and no longer."""
TIMES_MOST = 100
"""Points of a curve that are kept."""
FIRST, MEMBER, HANG = "first", "member", "hang"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """What one blow did.

    Attributes:
        name: "first" (what was started first, and all others need or were told of), "member" (another one is killed) or
            "hang" (another one is stopped, and answers nobody, but is not dead).
        what: for people.
        share: of work, 0 to 1.
        done, expected: pieces of work in the window, and at the pace before.
        pause: longest time without any work in the window, seconds.
        failed: pieces of work that were tried and failed.
        times: seconds after the blow at which work was done, at most `TIMES_MOST` of them, evenly chosen.
    """

    name: str
    what: str
    share: float
    done: int
    expected: float
    pause: float
    failed: int = 0
    times: Sequence[float] = ()

    def to_json(self) -> dict[str, Any]:
        """For keeping."""
        return {name: getattr(self, name) for name in self.__slots__}


def measured(
    name: str, what: str, work: Sequence[float], pace: float, at: float, window: float, failed: int = 0
) -> Blow:
    """What a blow did.

    Args:
        name, what: of the blow.
        work: seconds since 1970 of all pieces of work.
        pace: pieces a second before.
        at: of the blow, seconds since 1970.
        window: seconds after it.
        failed: see `Blow`.
    """
    after = sorted(one for one in work if at < one <= at + window)
    edges = [at, *after, at + window]
    expected = pace * window
    return Blow(
        name=name,
        what=what,
        share=min(1.0, len(after) / expected) if expected > 0 else 0.0,
        done=len(after),
        expected=expected,
        pause=float(np.diff(edges).max()),
        failed=failed,
        times=[round(one - at, 2) for one in after[:: -(-len(after) // TIMES_MOST) or 1]],
    )


def _window(plan: Plan) -> float:
    return WINDOW_QUICK if plan.quick else WINDOW


def _window_of_star(plan: Plan, pace: float) -> float:
    """Seconds; `pace` in rounds a second."""
    return max(_window(plan), (ROUNDS_LEAST_QUICK if plan.quick else ROUNDS_LEAST) / pace)


@contextmanager
def _star(plan: Plan, tell: Tell) -> Any:
    """A federation with Flower that has done some rounds: (star, stage, run, pace)."""
    stage = stage_of(plan)
    with Workplace() as place:
        star = Star(place, stage.files(place.folder), stage.shape)
        tell("Flower's SuperLink and SuperNodes start")
        star.start()
        run = star.submit()
        rounds = PACE_ROUNDS_QUICK if plan.quick else PACE_ROUNDS
        tell(f"{rounds} rounds without any blow")
        star.wait_for(rounds)
        times = star.rounds()[:rounds]
        yield star, stage, run, (len(times) - 1) / max(times[-1] - times[0], 1e-9)


def star_server(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Flower's server is killed; then it is started again from its database, and then a run as well."""
    with _star(plan, tell) as (star, stage, run, pace):
        window = _window_of_star(plan, pace)
        tell("the server is killed (SIGKILL)")
        at = time.time()
        star.link.kill()
        time.sleep(max(0.0, at + window - time.time()))
        blow = measured(FIRST, "Flower's SuperLink is killed", star.rounds(), pace, at, window)
        found: dict[str, Any] = {"blows": [blow.to_json()], "round_seconds": 1 / pace}
        found["nodes_alive"] = sum(node.alive for node in star.nodes.values())
        found["loss"] = None if star.weights() is None else stage.loss_of(star.weights(), stage.sites[-2:])
        if plan.quick:
            return found
        tell("the server is started again from its database")
        begin = time.monotonic()
        done = len(star.rounds())
        star.start_link()
        found["restart"] = {"seconds": time.monotonic() - begin, "run": star.ended(run, _window(plan))}
        found["restart"]["rounds_by_itself"] = len(star.rounds()) - done
        tell("the run is started again by hand, from the weights that its app has saved")
        begin = time.monotonic()
        try:
            star.submit()
            star.wait_for(len(star.rounds()) + 1, AGAIN_SECONDS)
            found["restart"]["seconds_by_hand"] = time.monotonic() - begin
        except Late as error:
            found["restart"]["seconds_by_hand"], found["restart"]["why"] = None, str(error)
        return found


def star_clients(plan: Plan, tell: Tell) -> dict[str, Any]:
    """One of Flower's clients is killed, another one hangs."""
    with _star(plan, tell) as (star, stage, run, pace):
        window = _window_of_star(plan, pace)
        blows = []
        for name, site, how in ((MEMBER, stage.sites[0], signal.SIGKILL), (HANG, stage.sites[1], signal.SIGSTOP)):
            what = f"a client is {'killed' if name == MEMBER else 'stopped'}"
            tell(what)
            at = time.time()
            star.nodes[site].signal(how)
            time.sleep(max(0.0, at + window - time.time()))
            blows.append(measured(name, what, star.rounds(), pace, at, window).to_json())
        return {"blows": blows, "round_seconds": 1 / pace, "run": star.status(run)}


def gossip(plan: Plan, tell: Tell) -> dict[str, Any]:
    """The first peer is killed, another one hangs; all are alike, so the first is also just any member."""
    window, before = _window(plan), PACE_SECONDS_QUICK if plan.quick else PACE_SECONDS
    stage = stage_of(plan)
    with Workplace() as place:
        peers = Gossip(place, stage.files(place.folder), stage.shape.classes, plan.seed)
        tell("peers start")
        peers.start()
        left = stage.sites[2:]

        def work() -> list[float]:
            return [one for site in left for one in peers.merged(site)]

        time.sleep(before)
        pace = sum(one > time.time() - before for one in work()) / before
        blows = []
        for name, site, how in ((FIRST, stage.sites[0], signal.SIGKILL), (HANG, stage.sites[1], signal.SIGSTOP)):
            if name == HANG and len(left) < 2:
                break
            what = f"a peer is {'killed' if name == FIRST else 'stopped'}"
            tell(what)
            at = time.time()
            peers.peers[site].signal(how)
            time.sleep(max(0.0, at + window - time.time()))
            blows.append(measured(name, what, work(), pace, at, window).to_json())
        weights = [peers.end(site) for site in left]
        losses = [stage.loss_of(one, [site]) for one, site in zip(weights, left, strict=True) if one is not None]
        return {"blows": blows, "merges_per_second": pace, "loss": float(np.mean(losses)) if losses else None}


def network(plan: Plan, tell: Tell) -> dict[str, Any]:
    """The first node is killed and comes back, a holder is killed, and a node hangs, while sites ask."""
    try:
        import fastapi  # noqa: F401
        import httpx  # noqa: F401
    except ImportError:
        raise MissingExtraError("service", "A network of nodes as processes") from None
    window, before = _window(plan), PACE_SECONDS_QUICK if plan.quick else PACE_SECONDS
    stage = stage_of(plan)
    askers = stage.sites[-2:] if len(stage.sites) > 3 else stage.sites[-1:]
    with Workplace() as place:
        schema, _ = OutcomeRouting(k=plan.k).founders(stage.fold)
        ours = Network(place, schema, stage.fold, holders=HOLDERS, k=plan.k)
        try:
            return _struck(ours, stage, askers, window, before, plan.quick, tell)
        finally:
            ours.end()


def _struck(
    ours: Network, stage: Stage, askers: Sequence[str], window: float, before: float, quick: bool, tell: Tell
) -> dict[str, Any]:
    tell("our nodes start")
    ours.start()
    tell("sites observe, distil and hand over packets")
    packets = ours.teach()
    loss = [stage.loss(site, ours.answers(site, stage.judged(site))) for site in askers]
    found: dict[str, Any] = {"packets": packets, "nodes": len(ours.nodes), "loss_before": float(np.mean(loss))}
    found["note"] = stage.note
    site, most = askers[-1], stage.judged(askers[-1])
    reached, answered = ours.reach(f"holder {HOLDERS}", site, most)
    first, holder, hangs = stage.sites[0], "holder 1", stage.sites[1]
    blows = []
    with Asking(ours, stage.fold, askers) as asking:
        until(lambda: {one.site for one in asking.asked} == set(askers), AGAIN_SECONDS, "every asker has an answer")
        time.sleep(before)
        quiet = [one for one in asking.asked if one.when > time.time() - before]
        pace = sum(one.answered for one in quiet) / before
        found["answer_seconds"] = float(np.median([one.seconds for one in quiet])) if quiet else None
        for name, victim in ((FIRST, first), (MEMBER, holder), (HANG, hangs)):
            if quick and name != FIRST:
                break
            what = f"{'the first node' if name == FIRST else 'a holder' if name == MEMBER else 'a node'} is "
            what += "stopped" if name == HANG else "killed"
            tell(what)
            at, failed = time.time(), len(asking.failed)
            if name == HANG:
                ours.nodes[victim].process.send_signal(signal.SIGSTOP)
            else:
                ours.nodes[victim].kill()
            time.sleep(max(0.0, at + window - time.time()))
            done = [one for one in asking.asked if at < one.when <= at + window]
            work = [one.when for one in done if one.answered]
            blow = measured(name, what, work, pace, at, window, len(asking.failed) - failed).to_json()
            blow["incomplete"] = sum(not one.whole for one in done)
            blow["slowest"] = max((one.seconds for one in done), default=None)
            blows.append(blow)
            if name == FIRST and not quick:
                tell("it is started again from its directory")
                begin = time.monotonic()
                ours.again(first)
                until(lambda: ours.sees(first) >= len(ours.nodes), AGAIN_SECONDS, "the node is back")
                found["back_seconds"] = time.monotonic() - begin
    loss = [stage.loss(site, ours.answers(site, stage.judged(site))) for site in askers]
    tell("a node that knows nothing joins what is left, and asks")
    begin = time.monotonic()
    ours.newcomer(site)
    now = ours.reach("newcomer", site, most)
    found["newcomer"] = {
        "packets": now[0],
        "packets_before": reached,
        "answered": now[1],
        "answered_before": answered,
        "share": min(1.0, now[0] / max(reached, 1)) if now[1] >= answered else min(1.0, now[1] / answered),
        "seconds": time.monotonic() - begin,
    }
    return found | {"blows": blows, "answers_per_second": pace, "loss": float(np.mean(loss))}
