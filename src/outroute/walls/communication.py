"""The communication wall: what both sides send until they answer equally well, and what a network would."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from outroute.errors import DataError
from outroute.trial import MARGINS, MIN_REPEATS, difference
from outroute.walls.base import Found, Part, Plan, Score, Step, Tell, Winner
from outroute.walls.communication_model import (
    SESSION_SECONDS,
    Costs,
    crossing,
    federated_bytes,
)
from outroute.walls.communication_plan import MODELS, ROUNDS, Needed, deployed, deployment_parts
from outroute.walls.communication_train import METHODS
from outroute.walls.communication_views import curve_figure, needed_text, scores_part, secure_scores, wire_part
from outroute.walls.units import amount

__all__ = ["WALL", "Communication"]

QUICK_REPEATS = 4
"""Splits with ``--quick``."""
IDLE_SIZES, QUICK_IDLE_SIZES = (4, 8, 12), (4, 8)
"""Members of the quiet networks that are measured."""
BYTES_MARGIN = 0.10
"""Two amounts of bytes that differ by less are equal."""
INTERVALS = (
    "bytes of a federated method: from the rounds in which it may have reached the target to those in which it surely "
    "had (Nadeau-Bengio, over the splits); without an interval that is not sure at all"
)
MARGIN = MARGINS["log_loss"]
"""Of the score: the same for log-loss and R2."""


class Communication:
    """See the module."""

    name = "communication"
    question = "What does it cost to send: how many bytes does each side need to reach the same score?"
    rule = (
        "The target is the worse one of two scores, outcome routing's and that of the best federated method after its "
        f"last round, plus a margin of {MARGIN:g} (log-loss, or R2 for numbers; means over the sites). Every method "
        "needs the bytes at one site's line, both ways, up to the first round that is scored at the target or better; "
        "federated models are recalibrated at each site, which sends nothing, and their rounds are counted on the test "
        "score, which favours them. Their bytes are those of arrays in single frames of a TLS connection, the leanest "
        "way; Flower's own messages are shown beside. Outcome routing's bytes are everything: packets and copies, "
        "announcements while it is connected, questions and answers, landmarks, handshakes. Against the federated "
        "method with the fewest bytes the difference of the logarithms of bytes is paired by split; fewer bytes win "
        f"when its Nadeau-Bengio interval excludes zero and they differ by more than {BYTES_MARGIN:.0%}, else it is a "
        "tie. Where a deployment is given, its bytes of a year decide instead (the cheapest federated method that "
        "reached the target here, with the rounds it needed or those given); a table of one site has the bytes of a "
        "deployment only, without scores."
    )
    one_site = True
    needs: Sequence[str] = ("flwr", "uvicorn")

    def steps(self, plan: Plan) -> Sequence[Step]:
        """Four of the wire, then one for each split; one site: what its own rows would be."""
        idle_sizes = QUICK_IDLE_SIZES if plan.quick else IDLE_SIZES

        def link(tell: Tell) -> Mapping[str, Any]:
            from outroute.walls.communication_wire import link

            return link(tell)

        def idle(tell: Tell) -> Mapping[str, Any]:
            from outroute.walls.communication_wire import idle

            return idle(tell, idle_sizes)

        def flower(tell: Tell) -> Mapping[str, Any]:
            from outroute.walls.communication_flower import messages

            return messages(tell)

        def secagg(tell: Tell) -> Mapping[str, Any]:
            from outroute.walls.communication_secagg import measured

            return measured(tell)

        steps = [
            Step(key="wire/link", text="frames of our link", cost=1.0, run=link),
            Step(key="wire/idle", text="members that stay connected", cost=10.0 * len(idle_sizes), run=idle),
            Step(key="wire/flower", text="messages of Flower", cost=6.0, run=flower),
            Step(key="wire/secagg", text="messages of Flower's secure aggregation", cost=3.0, run=secagg),
        ]
        if len(plan.dataset.sites) < 2:

            def own(tell: Tell) -> Mapping[str, Any]:
                from outroute.walls.communication_split import one_site

                return one_site(plan.dataset, k=plan.k, seed=plan.seed, tell=tell)

            return [*steps, Step(key="own", text="packets of your own rows", cost=2.0, run=own)]
        count = min(plan.repeats, QUICK_REPEATS) if plan.quick else plan.repeats
        rows = len(plan.dataset) / 1_000

        def one(repeat: int) -> Step:
            def run(tell: Tell) -> Mapping[str, Any]:
                from outroute.walls.communication_split import measure

                return measure(
                    plan.dataset,
                    repeat=repeat,
                    seed=plan.seed,
                    k=plan.k,
                    replicas=plan.deployment.replication,
                    tell=tell,
                )

            text = f"split {repeat + 1} of {count}"
            return Step(key=f"split/{repeat}", text=text, cost=3.0 + 3.0 * rows, run=run)

        return [*steps, *(one(repeat) for repeat in range(count))]

    def conclude(self, plan: Plan, done: Mapping[str, Mapping[str, Any]]) -> Found:
        """The verdict; without the steps of the wire there is none."""
        splits = [done[key] for key in sorted(done, key=_number) if key.startswith("split/")]
        lacking = [key for key in ("wire/link", "wire/idle", "wire/flower") if key not in done]
        if lacking or not (splits or "own" in done):
            raise DataError("stopped before anything could be compared; --resume goes on", code="walls.early")
        costs = Costs.of(done["wire/link"], done["wire/idle"], done["wire/flower"], done.get("wire/secagg"))
        if not splits:
            return _of_one_site(plan, costs, done["own"])
        return _of_splits(plan, costs, splits)


def _number(key: str) -> tuple[str, int]:
    head, _, tail = key.partition("/")
    return head, int(tail) if tail.isdigit() else -1


def _trial_bytes(costs: Costs, one: Mapping[str, Any]) -> float:
    """Outcome routing's bytes at one site's line in a split."""
    from outroute.packet import PACKET_BYTES

    ours, nodes = one["ours"], one["sites"]
    founders = costs.framed(1, ours["founders_packets"] * PACKET_BYTES) + costs.framed(1, ours["landmark_bytes"])
    frames = costs.framed(ours["frames"], sum(ours["bytes"].values()))
    connected = 2 * (nodes - 1) * costs.connect + costs.idle(nodes, SESSION_SECONDS)
    return float(frames + founders + connected)


def _loss(scores: Mapping[str, Any]) -> float:
    """What is to be small: log-loss, or minus R2; infinite where there is none."""
    value = scores["log_loss"] if "log_loss" in scores else scores["r2"]
    if value is None:
        return math.inf
    return float(value) if "log_loss" in scores else -float(value)


def _of_splits(plan: Plan, costs: Costs, splits: Sequence[Mapping[str, Any]]) -> Found:
    losses = {key: np.array([[_loss(s) for s in one["federated"][key]["recal"]] for one in splits]) for key in METHODS}
    rounds = {key: splits[0]["federated"][key]["rounds"] for key in METHODS}
    ours = np.array([_loss(one["ours"]["scores"]) for one in splits])
    bytes_ours = np.array([_trial_bytes(costs, one) for one in splits])

    def spent(key: str, count: float, *, flower: bool = False) -> float:
        one = splits[0]
        weights = one["federated"][key]["weights"]
        return federated_bytes(costs, key=key, weights=weights, slots=one["slots"], rounds=count, flower=flower)

    last = min((of[:, -1] for of in losses.values()), key=lambda of: float(of.mean()))
    aims = (ours if ours.mean() >= last.mean() else last) + MARGIN
    target = max(float(ours.mean()), float(last.mean())) + MARGIN
    if not math.isfinite(target):
        raise DataError("no site has enough held-out cases for a score (R2 needs 10)", code="walls.score")
    needed: dict[str, Needed] = {}
    for key, of in losses.items():
        at = _first(of.mean(axis=0), target, rounds[key])
        if at is not None:
            needed[key] = Needed(
                rounds=at,
                bytes=spent(key, at),
                flower=spent(key, at, flower=True),
                weights=splits[0]["federated"][key]["weights"],
            )
    best = min(needed, key=lambda key: needed[key].bytes)
    ratios = []
    for number in range(len(splits)):
        aim = max(ours[number], min(float(of[number, -1]) for of in losses.values())) + MARGIN
        at = _first(losses[best][number], aim, rounds[best])
        ratios.append(math.log(bytes_ours[number]) - math.log(spent(best, at or rounds[best][-1])))
    train, test = (float(np.mean([one[name] for one in splits])) for name in ("train", "test"))
    share = test / max(train, 1.0)
    found = difference(ratios, metric="log_loss", margin=0.0, test_to_train=share)
    around = difference(bytes_ours.tolist(), metric="mae", margin=0.0, test_to_train=share)
    between = {key: _between(losses[key] - aims[:, None], rounds[key], share) for key in needed}
    winner = _winner(found.mean, found.low, found.high)
    ratio = math.exp(found.mean)
    name = METHODS[best].name
    times = f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"
    interval = (
        f" (95 % interval {math.exp(found.low):,.3g} to {math.exp(found.high):,.3g})"
        if math.isfinite(found.low)
        else ""
    )
    metric = "log-loss" if "log_loss" in splits[0]["ours"]["scores"] else "R2"
    shown = target if metric == "log-loss" else -target
    article, kind = "an" if metric == "R2" else "a", "leaner" if ratio > 1 else "heavier"
    verdict = (
        f"To reach {article} {metric} of {shown:.3f}, outcome routing sends and receives {amount(bytes_ours.mean())} "
        f"at each site, {name} {amount(needed[best].bytes)} in {needed[best].rounds} round"
        f"{'s' if needed[best].rounds != 1 else ''}: {times} its bytes{interval}, federated learning is {kind}."
    )
    alone = float(np.mean([_loss(one["baselines"]["local"]) for one in splits]))
    notes = [INTERVALS]
    if alone <= target:
        notes.append("each site alone reaches the target too, and sends nothing")
    raw = float(np.mean([min(one["raw"].values()) for one in splits]))
    if raw < bytes_ours.mean():
        notes.append(
            f"uploading the rows themselves, compressed, is {amount(raw)} a site: packets are not sent to save bytes"
        )
    if len(splits) < MIN_REPEATS:
        notes.append(f"{len(splits)} splits: at least {MIN_REPEATS} are needed before an interval says much")
    per_packet = train / max(float(np.mean([one["ours"]["packets"] for one in splits])), 1e-9)
    plan_found = deployed(plan, costs, needed, per_packet=per_packet, slots=splits[0]["slots"])
    if set(plan.deployment.given) - {"hostile_share"}:
        winner, said = plan_found.winner, plan_found.verdict
        verdict = f"{said} On this table itself: {verdict}"
    scores = [
        Score(
            method="outcome routing",
            metric="bytes at a site, both ways",
            value=float(bytes_ours.mean()),
            low=around.low if math.isfinite(around.low) else None,
            high=around.high if math.isfinite(around.high) else None,
            ours=True,
            higher_is_better=False,
            note="a minute connected",
        ),
        *(
            Score(
                method=METHODS[key].name,
                metric="bytes at a site, both ways",
                value=needed[key].bytes if key in needed else None,
                low=spent(key, ends[0]) if (ends := between.get(key)) else None,
                high=spent(key, ends[1]) if ends else None,
                higher_is_better=False,
                note=needed_text(needed.get(key), known=between.get(key) is not None),
            )
            for key in METHODS
        ),
        *secure_scores(costs, splits[0], needed.get("fedavg"), between.get("fedavg")),
    ]
    return Found(
        verdict=verdict,
        winner=winner,
        scores=scores,
        change=f"{_equal(costs, splits[0], float(bytes_ours.mean()), needed)} {plan_found.change}",
        parts=[
            scores_part(splits, metric=metric, target=shown),
            Part(
                title="Score reached per bytes",
                text="Federated learning buys its score round by round; outcome routing pays once, and then for each "
                "question. Bytes are those at one site's line, both ways.",
                figures=[curve_figure(splits, rounds, spent, bytes_ours, metric=metric, target=shown)],
            ),
            *deployment_parts(plan, costs, needed, plan_found, raw_row=raw / max(train, 1.0)),
            wire_part(costs, splits),
        ],
        settings=_settings(plan, len(splits)),
        notes=notes,
    )


def _equal(costs: Costs, one: Mapping[str, Any], ours: float, needed: Mapping[str, Needed]) -> str:
    """Where plain federated averaging would cost as much on this table."""
    rounds = needed["fedavg"].rounds if "fedavg" in needed else METHODS["fedavg"].rounds
    weights, slots = one["federated"]["fedavg"]["weights"], one["slots"]

    def spent(count: float, size: float) -> float:
        return federated_bytes(costs, key="fedavg", weights=size, slots=slots, rounds=count, flower=False)

    at_size = crossing(lambda size: spent(rounds, size), lambda _: ours, *MODELS)
    at_rounds = crossing(lambda count: spent(count, weights), lambda _: ours, *ROUNDS)
    texts = []
    if at_size is not None:
        plural = "s" if rounds != 1 else ""
        texts.append(f"a model of {float(f'{at_size:.3g}'):,.0f} parameters in {rounds} round{plural}")
    if at_rounds is not None:
        texts.append(f"{float(f'{at_rounds:.3g}'):,.0f} rounds of this model of {weights} parameters")
    if not texts:
        return ""
    return f"On this table, federated averaging would cost as much with {', or '.join(texts)}."


def _first(losses: Any, target: float, rounds: Sequence[int]) -> int | None:
    """The first scored round at the target or better."""
    return next((count for count, loss in zip(rounds, losses, strict=True) if loss <= target), None)


def _between(gaps: Any, rounds: Sequence[int], share: float) -> tuple[int, int] | None:
    """Rounds from which on the target may be reached, and is surely: by the interval of how far the loss is above it.

    Args:
        gaps: float64[splits, rounds], loss above the target.
        rounds: that were scored.
        share: test rows over training rows.

    Returns:
        None where there is no interval, or it is not sure that the target is reached at all.
    """
    bounds = [difference(of.tolist(), metric="log_loss", margin=0.0, test_to_train=share) for of in gaps.T]
    first = next((count for count, of in zip(rounds, bounds, strict=True) if of.low <= 0), None)
    surely = next((count for count, of in zip(rounds, bounds, strict=True) if of.high <= 0), None)
    return None if first is None or surely is None else (first, surely)


def _winner(mean: float, low: float, high: float) -> Winner:
    """Of the logarithm of our bytes over theirs."""
    if abs(mean) <= math.log1p(BYTES_MARGIN) or low <= 0 <= high:
        return Winner.TIE
    return Winner.FEDERATED if mean > 0 else Winner.OUTROUTE


def _settings(plan: Plan, splits: int) -> dict[str, Any]:
    return {
        "splits": splits,
        "k": plan.k,
        "replication": plan.deployment.replication,
        "seed": plan.seed,
        "session_seconds": SESSION_SECONDS,
        "margin": MARGIN,
        "bytes_margin": BYTES_MARGIN,
        "methods": {key: method.name for key, method in METHODS.items()},
    }


def _of_one_site(plan: Plan, costs: Costs, own: Mapping[str, Any]) -> Found:
    """Bytes of a deployment with nodes like this one; there is nobody to compare scores with."""
    needed = {
        key: Needed(
            rounds=method.rounds,
            weights=own["weights"],
            bytes=federated_bytes(
                costs, key=key, weights=own["weights"], slots=own["slots"], rounds=method.rounds, flower=False
            ),
            flower=federated_bytes(
                costs, key=key, weights=own["weights"], slots=own["slots"], rounds=method.rounds, flower=True
            ),
        )
        for key, method in METHODS.items()
    }
    per_packet = own["rows"] / max(own["packets"], 1)
    found = deployed(plan, costs, needed, per_packet=per_packet, slots=own["slots"])
    return Found(
        verdict=f"{found.verdict} These are bytes only: with one site there are no scores to reach.",
        winner=found.winner,
        scores=found.scores,
        change=found.change,
        parts=[
            *deployment_parts(plan, costs, needed, found, raw_row=own["raw"] / max(own["rows"], 1)),
            wire_part(costs, []),
        ],
        settings=_settings(plan, 0),
        notes=[
            "one site only: bytes of a deployment of nodes like this one, no scores",
            "bytes of a year follow from the deployment and from what was measured once on the wire: no intervals",
        ],
    )


WALL = Communication()
