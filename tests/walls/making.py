"""A small real table, and walls whose steps are quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from outroute.datasets import Dataset, GroupKind
from outroute.datasets.declare import category, number, schema, two_classes
from outroute.walls import Curve, Figure, Found, Part, Plan, Score, Step, Tell, Winner


def table(n: int = 120, sites: int = 3, seed: int = 1) -> Dataset:
    """Rows of several sites with an outcome that follows from two columns."""
    rng = np.random.default_rng(seed)
    age, crp = rng.integers(20, 90, n).astype(float), rng.integers(1, 200, n).astype(float)
    sick = rng.random(n) < 1 / (1 + np.exp(-((age - 55) / 12 + (crp - 100) / 60)))
    return Dataset(
        name="small",
        columns={"age": age, "crp": crp, "sex": rng.choice(np.array(["f", "m"], object), n)},
        outcome=np.where(sick, "sick", "well").astype(object),
        site=np.array([f"site {i % sites}" for i in range(n)], object),
        case=np.array([f"c{i}" for i in range(n)], object),
        group=None,
        group_kind=GroupKind.NONE,
        time=None,
        schema=schema(
            "small",
            (number("age", "0", "120", "years"), number("crp", "0", "300", "mg/l"), category("sex", ("f", "m"))),
            two_classes("diagnosis", "well", "sick"),
            k=5,
            subject="person",
        ),
        provenance="drawn",
        licence="none",
    )


class Counting:
    """A wall whose steps add up numbers of the plan; `before` is called with the key of each step that is run."""

    question = "What is one and one?"
    rule = "Two."
    one_site = True
    needs: Sequence[str] = ()

    def __init__(
        self,
        name: str = "noniid",
        *,
        steps: int = 3,
        winner: Winner = Winner.TIE,
        before: Callable[[str], None] = print,
    ) -> None:
        self.name, self.count, self.winner, self.before = name, steps, winner, before

    def steps(self, plan: Plan) -> Sequence[Step]:
        def one(number: int) -> Step:
            key = f"step/{number}"

            def run(tell: Tell) -> Mapping[str, Any]:
                self.before(key)
                tell("adding")
                rng = np.random.default_rng([plan.seed, number])
                return {"value": np.float64(rng.random()), "missing": float("nan"), "list": np.arange(number)}

            return Step(key=key, text=f"number {number} of {self.count}", cost=1.0, run=run)

        return [one(number) for number in range(self.count)]

    def conclude(self, plan: Plan, done: Mapping[str, Mapping[str, Any]]) -> Found:
        total = sum(of["value"] for of in done.values())
        score = Score(method="ours <b>", metric="sum", value=total, low=0.0, high=9.0, ours=True, note='"x" & y')
        figure = Figure(
            title="Sums",
            caption="What was added <up>.",
            curves=[
                Curve(label="ours", x=[1, 10, 100], y=[1, 2, 3], low=[0, 1, 2], high=[2, 3, 4], ours=True),
                Curve(label="theirs", x=[1, 10], y=[2, 3], points=True),
                Curve(label="base", x=[1, 10], y=[1, 1], baseline=True),
            ],
            x="bytes",
            y="score",
            log_x=True,
        )
        images = Figure(
            title="Digits",
            caption="Original and found.",
            images=[("original", [[[0.0, 1.0], [0.5, 0.25]]]), ("found", [[[0.1, 0.9], [0.5, 0.3]]])],
        )
        return Found(
            verdict=f"The sum is {total:.3f} <script>alert(1)</script>.",
            winner=self.winner,
            scores=[score],
            change="Another seed.",
            parts=[Part(title="How", text="By adding.", scores=[score], figures=[figure, images])],
            settings={"steps": self.count},
            notes=["nothing was skipped"],
        )
