"""The user's own network in bytes: a year of it, where the two sides cost the same, and networks far larger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from outroute.packet import PACKET_BYTES
from outroute.transports.frames import HEADER_BYTES
from outroute.walls.base import Curve, Figure, Part, Plan, Score, Winner
from outroute.walls.communication_model import (
    DAY_SECONDS,
    RECEIPT_BYTES,
    RUN_BYTES,
    SECURE,
    YEAR_DAYS,
    Costs,
    Ours,
    crossing,
    federated_bytes,
    ours_bytes,
    secure_bytes,
)
from outroute.walls.communication_train import METHODS
from outroute.walls.deployment import Deployment
from outroute.walls.units import amount

__all__ = ["MODELS", "ROUNDS", "Deployed", "Needed", "deployed", "deployment_parts"]

FRESH_SECONDS = 300.0
"""Questions within this time are answered from cells fetched once (``node.asking.CELL_SECONDS``)."""
BYTES_MARGIN = 0.10
"""As in the wall's rule."""
MODELS = (1e1, 1e10)
ROUNDS = (1.0, 1e4)
OBSERVATIONS = (1e1, 1e8)
NODES = (2.0, 1e5)
"""Bounds within which crossovers are looked for and drawn."""
POINTS = 25
LARGE_PARAMETERS, LARGE_ROUNDS, LARGE_ROWS = 100_000_000, 100, 10_000
HOSPITALS = (10, 100, 1_000)
DEVICES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What a federated method needed to reach the target here: rounds, and bytes at a site's line (lean, and in
    Flower's messages)."""

    rounds: int
    bytes: float
    flower: float
    weights: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A year of the deployment at one node's line.

    Attributes:
        ours, theirs: bytes; `theirs` by method.
        best: the federated method with the fewest.
        winner, verdict, change, scores: as a wall reports them.
        year: bytes of outcome routing with some figures of the deployment changed.
        apart: the same without staying connected.
        federated: bytes of a federated method, likewise.
    """

    ours: Ours
    theirs: Mapping[str, float]
    best: str
    winner: Winner
    verdict: str
    change: str
    scores: Sequence[Score]
    year: Callable[..., float]
    apart: Callable[..., float]
    federated: Callable[..., float]


def deployed(plan: Plan, costs: Costs, needed: Mapping[str, Needed], *, per_packet: float, slots: int) -> Deployed:
    """A year of the user's deployment.

    Args:
        plan: with the deployment.
        costs: measured.
        needed: the federated methods that reached the target.
        per_packet: observations that one packet condenses, as measured.
        slots: of the schema.
    """
    d = plan.deployment

    def ours(nodes: float = d.nodes, rows: float = d.observations) -> Ours:
        seconds = d.hours_connected_per_day * 3600.0 * YEAR_DAYS
        asked = min(d.questions_per_day, DAY_SECONDS / FRESH_SECONDS) * YEAR_DAYS
        return ours_bytes(
            costs,
            nodes=max(2, round(nodes)),
            observations=rows + d.observations_per_day * YEAR_DAYS,
            k=per_packet,
            replicas=d.replication,
            questions=asked,
            seconds=seconds,
        )

    def federated(
        key: str, weights: float | None = None, rounds: float | None = None, *, flower: bool = False
    ) -> float:
        one_shot = METHODS[key].rounds == 1
        count = 1 if one_shot else rounds or d.rounds or needed[key].rounds
        return federated_bytes(
            costs,
            key=key,
            weights=weights or d.parameters or needed[key].weights,
            slots=slots,
            rounds=count,
            flower=flower,
            each=d.bytes_per_parameter,
            trainings=d.trainings_per_year,
            seconds=d.hours_connected_per_day * 3600.0 * YEAR_DAYS if flower else 0.0,
        )

    secure = None
    if "fedavg" in needed:
        secure = secure_bytes(
            costs,
            weights=d.parameters or needed["fedavg"].weights,
            slots=slots,
            rounds=d.rounds or needed["fedavg"].rounds,
            nodes=d.nodes,
            trainings=d.trainings_per_year,
        )
    theirs = {key: federated(key) for key in needed}
    best = min(theirs, key=lambda key: theirs[key])
    spent = ours()
    ratio = spent.total / theirs[best]
    winner = Winner.TIE
    if not 1 / (1 + BYTES_MARGIN) <= ratio <= 1 + BYTES_MARGIN:
        winner = Winner.FEDERATED if ratio > 1 else Winner.OUTROUTE
    whose = "your deployment" if d.given else "a deployment by default figures"
    verdict = (
        f"In {whose} of {d.nodes:,} nodes, a year costs each node {amount(spent.total)} with outcome routing "
        f"({amount(spent.packets)} packets, {amount(spent.questions)} questions, {amount(spent.connected)} staying "
        f"connected) and {amount(theirs[best])} with {METHODS[best].name}."
    )
    return Deployed(
        ours=spent,
        theirs=theirs,
        best=best,
        winner=winner,
        verdict=verdict,
        change=_change(d, best, federated, lambda **changed: ours(**changed).total),
        scores=_scores(d, spent, theirs, federated, secure),
        year=lambda **changed: ours(**changed).total,
        apart=lambda **changed: ours(**changed).total - ours(**changed).connected,
        federated=federated,
    )


def _crossings(
    d: Deployment, best: str, federated: Callable[..., float], year: Callable[..., float]
) -> dict[str, float | None]:
    """Where both sides cost the same, with everything else as it is."""
    mine, theirs = year(), federated(best)
    return {
        "parameters": crossing(lambda p: federated(best, weights=p), lambda _: mine, *MODELS),
        "rounds": None
        if METHODS[best].rounds == 1
        else crossing(lambda r: federated(best, rounds=r), lambda _: mine, *ROUNDS),
        "observations": crossing(lambda n: year(rows=n), lambda _: theirs, *OBSERVATIONS),
        "nodes": crossing(lambda n: year(nodes=n), lambda _: theirs, *NODES),
    }


def _change(d: Deployment, best: str, federated: Callable[..., float], year: Callable[..., float]) -> str:
    found = _crossings(d, best, federated, year)
    texts = []
    for name, what in (
        ("parameters", "a model of {:,.0f} parameters"),
        ("rounds", "{:,.0f} rounds"),
        ("observations", "{:,.0f} observations at each node"),
        ("nodes", "{:,.0f} nodes"),
    ):
        at = found[name]
        if at is not None:
            texts.append(what.format(float(f"{at:.3g}")))
    never = [name for name, at in found.items() if at is None]
    head = f"In a year of the deployment, outcome routing and {METHODS[best].name} would cost the same with "
    text = head + "; ".join(texts) + "." if texts else ""
    if never:
        text += f" No number of {', or of '.join(never)} within reach makes them equal."
    return text.strip()


def _scores(
    d: Deployment,
    spent: Ours,
    theirs: Mapping[str, float],
    federated: Callable[..., float],
    secure: float | None,
) -> list[Score]:
    def both(method: str, value: float, note: str, *, ours: bool = False, baseline: bool = False) -> list[Score]:
        hours = value / 2 * 8 / 1e6 * (1 / d.upload_mbit + 1 / d.download_mbit) / 3600
        shared = {"method": method, "higher_is_better": False, "ours": ours, "baseline": baseline}
        return [
            Score(metric="bytes at a node, a year", value=value, note=note, **shared),  # type: ignore[arg-type]
            Score(metric="hours of its line", value=hours, **shared),  # type: ignore[arg-type]
        ]

    scores = both("outcome routing", spent.total, "", ours=True)
    for name, value in (("packets", spent.packets), ("questions", spent.questions), ("connected", spent.connected)):
        scores += both(f"of it: {name}", value, "", ours=True)
    for key, value in theirs.items():
        scores += both(METHODS[key].name, value, "lean: arrays in single frames")
        scores += both(f"{METHODS[key].name}, in Flower", federated(key, flower=True), "with its asking for work")
    if secure is not None:
        scores += both(SECURE, secure, "the server sees sums of updates only", baseline=True)
    return scores


def deployment_parts(
    plan: Plan, costs: Costs, needed: Mapping[str, Needed], found: Deployed, *, raw_row: float
) -> list[Part]:
    """A year of the deployment with its crossovers, and large networks."""
    d = plan.deployment
    rows = d.observations + d.observations_per_day * YEAR_DAYS
    raw = Score(
        method="uploading the rows (compressed)",
        metric="bytes at a node, a year",
        value=raw_row * rows,
        higher_is_better=False,
        baseline=True,
        note="if they may leave",
    )
    text = (
        "Figures that were not given are defaults; the table of the deployment says which. Questions are counted as "
        "if each came alone and fetched its cells anew. Staying connected is measured on small networks and projected "
        "in a straight line; nodes that meet at agreed hours only spend it in those hours (hours_connected_per_day)."
    )
    return [
        Part(
            title="The deployment, in bytes",
            text=text,
            scores=[*found.scores, raw],
            figures=_figures(needed, found),
        ),
        _large(plan, costs, raw_row=raw_row),
    ]


def _figures(needed: Mapping[str, Needed], found: Deployed) -> list[Figure]:
    fed = found.federated

    def figure(
        x: str,
        bounds: tuple[float, float],
        changed: Callable[[float], Mapping[str, float]],
        theirs: Callable[[str, float], float],
    ) -> Figure:
        at = np.geomspace(*bounds, POINTS).tolist()
        best = METHODS[found.best].name

        def curve(label: str, value: Callable[[float], float], *, ours: bool = False) -> Curve:
            return Curve(label=label, x=at, y=[value(one) for one in at], ours=ours)

        def crossed(mine: Callable[[float], float]) -> str:
            where = crossing(mine, lambda value: theirs(found.best, value), *bounds)
            return f"cost the same at {float(f'{where:.3g}'):,.0f}" if where else "never cost the same"

        def whole(value: float) -> float:
            return found.year(**changed(value))

        def apart(value: float) -> float:
            return found.apart(**changed(value))

        return Figure(
            title=f"Bytes of a year at one node against {x}",
            caption=f"Outcome routing and {best} {crossed(whole)}; without the bytes of staying connected they "
            f"{crossed(apart)}. Everything else as in the deployment.",
            curves=[
                curve("outcome routing", whole, ours=True),
                curve("outcome routing, without staying connected", apart, ours=True),
                *(curve(METHODS[key].name, partial(theirs, key)) for key in needed),
            ],
            x=x,
            y="bytes of a year at one node",
            log_x=True,
            log_y=True,
        )

    return [
        figure("parameters of the model", MODELS, lambda _: {}, lambda key, p: fed(key, weights=p)),
        figure("rounds of one training", ROUNDS, lambda _: {}, lambda key, r: fed(key, rounds=r)),
        figure("observations at each node", OBSERVATIONS, lambda n: {"rows": n}, lambda key, _: fed(key)),
        figure("nodes", NODES, lambda n: {"nodes": n}, lambda key, _: fed(key)),
    ]


def _large(plan: Plan, costs: Costs, *, raw_row: float) -> Part:
    """Hospitals with a large model, and very many devices with a packet each: until the first answer or model."""
    scores: list[Score] = []

    def add(method: str, metric: str, value: float, *, note: str = "") -> None:
        ours, rows = method.startswith(("outcome", "of it")), method.startswith("uploading")
        scores.append(
            Score(
                method=method,
                metric=metric,
                value=value,
                higher_is_better=False,
                ours=ours,
                baseline=rows,
                note="if they may leave" if rows else note,
            )
        )

    k = float(plan.k)
    copies = plan.deployment.replication
    mine, rows = "outcome routing, 100 questions, a day connected", "uploading the rows (compressed)"
    for hospitals in HOSPITALS:
        metric = f"{hospitals:,} hospitals, MB each"
        spent = ours_bytes(
            costs,
            nodes=hospitals,
            observations=LARGE_ROWS,
            k=k,
            replicas=copies,
            questions=100,
            seconds=DAY_SECONDS,
        )
        add(mine, metric, spent.total / 1e6)
        add("of it: a day connected", metric, costs.idle(hospitals, DAY_SECONDS) / 1e6)
        for key, method in METHODS.items():
            rounds = 1 if method.rounds == 1 else LARGE_ROUNDS
            sent = federated_bytes(costs, key=key, weights=LARGE_PARAMETERS, slots=0, rounds=rounds, flower=False)
            add(method.name, metric, sent / 1e6)
        secure = secure_bytes(costs, weights=LARGE_PARAMETERS, slots=0, rounds=LARGE_ROUNDS, nodes=hospitals)
        if secure is not None:
            add(SECURE, metric, secure / 1e6)
        add(rows, metric, raw_row * LARGE_ROWS / 1e6)
    metric = f"{DEVICES:,} devices, kB each"
    packet = PACKET_BYTES + RUN_BYTES + 2 * HEADER_BYTES + RECEIPT_BYTES
    add(
        mine,
        metric,
        copies * (costs.connect + costs.framed(2, packet)) / 1e3,
        note="devices hand over one packet each and leave: no questions, not connected",
    )
    for key, method in METHODS.items():
        sent = federated_bytes(costs, key=key, weights=LARGE_PARAMETERS, slots=0, rounds=1, flower=False)
        add(method.name, metric, sent / 1e3, note="devices: one round each")
    secure = secure_bytes(costs, weights=LARGE_PARAMETERS, slots=0, rounds=1, nodes=DEVICES)
    if secure is not None:
        add(SECURE, metric, secure / 1e3, note="devices: one round each")
    add(rows, metric, raw_row * k / 1e3)
    return Part(
        title="Large networks, large models",
        text=f"Hospitals of {LARGE_ROWS:,} observations and a model of {LARGE_PARAMETERS:,} parameters trained for "
        f"{LARGE_ROUNDS} rounds (one-shot averaging: one); devices with one packet each. Bytes only: whether such a "
        "model answers better than packets is not measured here. Beyond the networks that were run, staying connected "
        "is a projection.",
        scores=scores,
    )
