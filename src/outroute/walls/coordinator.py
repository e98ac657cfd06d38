"""The wall "coordinator": what is left of the work when a process that others rely on is killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from outroute.trial import counted
from outroute.walls import coordinator_blows as blows
from outroute.walls import coordinator_coupling as coupling
from outroute.walls.base import Curve, Figure, Found, Part, Plan, Score, Step, Winner
from outroute.walls.coordinator_again import again
from outroute.walls.coordinator_again import part_of as again_part
from outroute.walls.coordinator_words import coupled, coupling_scores, restart_text

__all__ = ["MARGIN", "WALL", "Coordinator"]

MARGIN = 0.05
"""Share of the work; a smaller difference counts as none."""
OURS, FLOWER, GOSSIP = "outcome routing", "Flower (server and clients)", "gossip averaging"
COUNTED = (
    "intervals count pieces of work (exact, Clopper-Pearson): of those expected at the pace before the blow, each was "
    "done or not. How blows differ from each other is not in them, and a pause that was seen once has none: --blows 5 "
    "strikes again and shows both"
)
STEPS = {
    OURS: ("network",),
    GOSSIP: ("gossip",),
    FLOWER: ("flower/server", "flower/clients"),
}
"""Keys of the steps in which each is struck."""


class Coordinator:
    """See `outroute.walls.base.Wall`."""

    name = "coordinator"
    question = "Do I need a coordinator, and what stops when it does?"
    rule = (
        "Real processes on this machine are struck the same way on every side: what was started first and all others "
        "need or were told of is killed (SIGKILL), another member is killed, and another one hangs (SIGSTOP). A blow's "
        f"share of work is the work done in the {blows.WINDOW:.0f} s after it ({blows.WINDOW_QUICK:.0f} s with "
        f"--quick; for Flower {blows.ROUNDS_LEAST:.0f} rounds, or one, where these take longer) over that of equally "
        "long a time at the pace before, at most 1, while nobody repairs anything; work is a round that changed the "
        "model (Flower's FedAvg), a model merged at a peer that was not struck (gossip), a question answered at a site "
        "that was not struck (outcome routing). Outcome routing has one figure more: of "
        "the packets that a node without records found before all blows, the share that another finds that joins "
        "after them. A method's figure is its worst. Federated learning counts with its better method; gossip, which "
        f"has no coordinator, was named as the stronger one before any run. A side wins that is ahead by more than "
        f"{MARGIN} and by more than one piece of work; else it is a tie. Restarting, and members whose models differ, "
        "are shown and decide nothing."
    )
    one_site = True
    needs: Sequence[str] = ("flwr",)

    def steps(self, plan: Plan) -> Sequence[Step]:
        """Each strikes one side; all start and end their own processes."""
        window = blows.WINDOW_QUICK if plan.quick else blows.WINDOW
        made = [
            Step(
                key="network",
                text="our nodes are killed while sites ask",
                cost=16 + window if plan.quick else 25 + 3 * window,
                run=partial(blows.network, plan),
            ),
            Step(
                key="gossip",
                text="peers of a gossip federation are killed",
                cost=5 + window if plan.quick else 10 + 2 * window,
                run=partial(blows.gossip, plan),
            ),
            Step(
                key="flower/server",
                text="Flower's server is killed while it trains",
                cost=22 + window if plan.quick else 80 + 2 * window,
                run=partial(blows.star_server, plan),
            ),
        ]
        if plan.quick:
            return [*made, *again(made, plan.blows)]
        made.append(
            Step(
                key="flower/clients",
                text="Flower's clients are killed and stopped",
                cost=45 + 2 * window,
                run=partial(blows.star_clients, plan),
            )
        )
        return [
            *made,
            Step(
                key="models/outroute",
                text="nodes answer each other that calculate differently",
                cost=20,
                run=partial(coupling.nodes, plan),
            ),
            Step(
                key="models/flower",
                text="Flower averages clients whose models differ",
                cost=35,
                run=partial(coupling.star, plan),
            ),
            *again(made, plan.blows),
        ]

    def conclude(self, plan: Plan, done: Mapping[str, Mapping[str, Any]]) -> Found:
        """The verdict."""
        struck = {method: _blows(done, keys) for method, keys in STEPS.items()}
        struck = {method: found for method, found in struck.items() if found}
        worst = {method: min(one["share"] for one in found) for method, found in struck.items()}
        winner, verdict = _decided(struck, worst)
        notes = [COUNTED]
        if plan.quick:
            notes.append(
                "with --quick only what was started first is killed, nothing is restarted, and models all agree"
            )
        if "network" in done:
            notes += [note] if (note := done["network"]["note"]) else []
            notes.append(
                "nodes keep the cells that they fetched for five minutes, so sites answer from what they have; that "
                "is why a node that knows nothing joins at the end and must find everything"
            )
        parts = [Part(title="What was struck, and what went on", scores=_scores(struck), figures=[_figure(struck)])]
        parts += again_part(done, STEPS, _blows, ours=OURS)
        if (text := restart_text(done)) != "":
            parts.append(Part(title="Putting it right", text=text))
        if any(key.startswith("models/") for key in done):
            parts.append(Part(title="Members whose models differ", text=coupled(done), scores=coupling_scores(done)))
        return Found(
            verdict=verdict,
            winner=winner,
            scores=[
                Score(
                    method=method,
                    metric="share of work after the worst blow",
                    value=share,
                    low=_interval(_worst(struck[method]))[0],
                    high=_interval(_worst(struck[method]))[1],
                    ours=method == OURS,
                    higher_is_better=True,
                    note=_worst(struck[method])["what"],
                )
                for method, share in worst.items()
            ],
            change=_change(winner),
            parts=parts,
            settings={
                "window": blows.WINDOW_QUICK if plan.quick else blows.WINDOW,
                "margin": MARGIN,
                "seed": plan.seed,
                "k": plan.k,
                "holders": blows.HOLDERS,
            },
            notes=notes,
        )


def _blows(done: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> list[Mapping[str, Any]]:
    """All blows of a method, that of a newcomer among them."""
    found: list[Mapping[str, Any]] = [one for key in keys if key in done for one in done[key]["blows"]]
    for key in keys:
        new = done.get(key, {}).get("newcomer")
        if new is not None:
            what = "a node that knows nothing joins after all blows"
            counts = "packets" if new["answered"] >= new["answered_before"] else "answered"
            found.append(
                {
                    "name": "newcomer",
                    "what": what,
                    "share": new["share"],
                    "done": new[counts],
                    "of": new[f"{counts}_before"],
                    "expected": new["packets_before"],
                }
            )
    return found


def _interval(one: Mapping[str, Any]) -> tuple[float, float]:
    """Of a blow's share: exact, of pieces of work each of which was done or not."""
    of = max(round(float(one.get("of", one["expected"]))), 1)
    return counted(min(int(one["done"]), of), of)


def _decided(struck: Mapping[str, Sequence[Mapping[str, Any]]], worst: Mapping[str, float]) -> tuple[Winner, str]:
    others = [method for method in worst if method != OURS]
    if OURS not in worst or not others:
        measured = ", ".join(worst) or "nothing"
        return Winner.TIE, f"Undecided: only {measured} was measured until it was stopped."
    best = max(others, key=lambda method: (worst[method], method == GOSSIP))
    piece = max(1 / max(float(one["expected"]), 1.0) for method in (OURS, best) for one in struck[method])
    gap = worst[OURS] - worst[best]
    figures = "; ".join(f"{method} {share:.0%} ({_said(struck[method])})" for method, share in worst.items())
    what = f"Share of the work that went on after the worst blow: {figures}."
    if abs(gap) <= max(MARGIN, piece):
        return Winner.TIE, (
            f"{what} Neither needs a coordinator: federated learning as {best} stands it as well as outcome routing."
            if worst[best] > 1 - 2 * MARGIN
            else f"{what} Both lose alike."
        )
    if gap > 0:
        return Winner.OUTROUTE, f"{what} Outcome routing goes on where {best} does not."
    return Winner.FEDERATED, f"{what} Federated learning as {best} stands it better than outcome routing."


def _worst(struck: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The blow that left least; of equal ones the one that is known least well."""
    return min(struck, key=lambda one: (float(one["share"]), _interval(one)[0]))


def _said(struck: Sequence[Mapping[str, Any]]) -> str:
    low, high = _interval(_worst(struck))
    return f"{low:.0%} to {high:.0%}"


def _change(winner: Winner) -> str:
    if winner is Winner.TIE:
        return (
            "If the federation must have a server (secure aggregation, one model for all, control of who takes part), "
            "gossip is no choice, and Flower's figure counts. A server that somebody watches and restarts loses only "
            "the time until then, and the rounds since the last weights that its app saved."
        )
    if winner is Winner.OUTROUTE:
        return "Gossip averaging, or a server that is watched and restarted with its app's saved weights."
    return "More holders of each packet than are struck at once, and time for repair between two blows."


def _scores(struck: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Score]:
    out = []
    for method, found in struck.items():
        for one in found:
            new = one["name"] == "newcomer"
            low, high = _interval(one)
            out.append(
                Score(
                    method=f"{method}, a newcomer" if new else method,
                    metric="share of packets found" if new else "share of work",
                    value=float(one["share"]),
                    low=low,
                    high=high,
                    ours=method == OURS,
                    higher_is_better=True,
                    note=one["what"] if new else f"{one['what']}: {one['done']} of {one['expected']:.1f} expected",
                )
            )
            if not new:
                out.append(
                    Score(
                        method=method,
                        metric="longest pause, s",
                        value=float(one["pause"]),
                        ours=method == OURS,
                        higher_is_better=False,
                    )
                )
    return out


def _figure(struck: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    curves = []
    for method, found in struck.items():
        first = next((one for one in found if one["name"] == blows.FIRST), None)
        if first is None:
            continue
        times = list(first["times"])
        part = first["done"] / max(len(times), 1) / max(float(first["expected"]), 1e-9)
        curves.append(
            Curve(
                label=method,
                x=[0.0, *times],
                y=[0.0, *(part * (i + 1) for i in range(len(times)))],
                ours=method == OURS,
            )
        )
    return Figure(
        title="Work done after what was started first is killed",
        caption="1 is the work of the whole window at the pace before the blow.",
        curves=curves,
        x="seconds after the blow",
        y="work done, share of the window's",
    )


WALL = Coordinator()
