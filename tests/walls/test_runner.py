"""Steps are kept one by one, taken again only for the same table and plan, and stopping loses nothing."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outroute.errors import DataError
from outroute.walls import CannotRunError, Deployment, Plan, Winner
from outroute.walls.report import TITLES, to_json
from outroute.walls.runner import NAMES, Run, Status, load, run
from outroute.walls.state import State, digest_of

from .making import Counting, table


def plan_of(**changes: Any) -> Plan:
    return dataclasses.replace(Plan(dataset=table()), **changes)


def go(
    plan: Plan, root: Path, walls: list[Counting], *, resume: bool = False, clock: Callable[[], float] | None = None
) -> Run:
    by_name = {wall.name: wall for wall in walls}
    more = {} if clock is None else {"clock": clock}
    return run(
        plan, list(by_name), State(root, digest_of(plan)), resume=resume, loader=lambda name: by_name[name], **more
    )


def shown(plan: Plan, done: Run) -> dict[str, Any]:
    """The report without times."""
    found = to_json(plan, done, digest="x", command="y", seconds=1.0)
    for wall in found["walls"].values():
        del wall["seconds"]
    return {name: value for name, value in found.items() if name not in ("steps", "seconds_in_all")}


def test_what_was_stopped_goes_on_and_says_the_same_as_a_run_in_one_go(tmp_path: Path) -> None:
    plan = plan_of()
    whole = go(plan, tmp_path / "whole", [Counting(), Counting("byzantine", winner=Winner.OUTROUTE)])

    def stop(key: str) -> None:
        if key == "step/2":
            raise KeyboardInterrupt

    ran: list[str] = []
    stopped = go(plan, tmp_path / "parts", [Counting(before=stop), Counting("byzantine", before=ran.append)])
    assert stopped.interrupted
    assert ran == []
    assert [outcome.status for outcome in stopped.outcomes] == [Status.PARTIAL, Status.STOPPED]
    assert (stopped.outcomes[0].done, stopped.outcomes[0].of) == (2, 3)
    assert stopped.outcomes[0].found is not None
    resumed = go(
        plan,
        tmp_path / "parts",
        [Counting(before=ran.append), Counting("byzantine", winner=Winner.OUTROUTE, before=ran.append)],
        resume=True,
    )
    assert ran == ["step/2", "step/0", "step/1", "step/2"]
    assert (resumed.taken, resumed.ran) == (2, 4)
    assert shown(plan, resumed) == shown(plan, whole)
    json.dumps(shown(plan, resumed), allow_nan=False)


def test_without_resume_everything_is_measured_anew(tmp_path: Path) -> None:
    ran: list[str] = []
    go(plan_of(), tmp_path, [Counting(before=ran.append)])
    go(plan_of(), tmp_path, [Counting(before=ran.append)])
    assert len(ran) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"k": 6},
        {"epsilon": 2.0},
        {"repeats": 19},
        {"quick": True},
        {"attacks": ("sybils",)},
        {"divisions": ("iid",)},
        {"blows": 3},
        {"deployment": Deployment(nodes=11)},
        {"dataset": table(seed=2)},
        {"dataset": table(n=119)},
        {"dataset": table(sites=4)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_table_or_plan_never_takes_these_steps(tmp_path: Path, changes: dict[str, Any]) -> None:
    ran: list[str] = []
    go(plan_of(), tmp_path, [Counting()])
    again = go(plan_of(**changes), tmp_path, [Counting(before=ran.append)], resume=True)
    assert again.taken == 0
    assert len(ran) == 3


def test_one_value_of_the_table_is_another_digest() -> None:
    data = table()
    sex = data.columns["sex"].copy()
    sex[7] = None
    other = dataclasses.replace(data, columns={**data.columns, "sex": sex})
    age = data.columns["age"].copy()
    age[7] = np.nextafter(age[7], 1e9)
    third = dataclasses.replace(data, columns={**data.columns, "age": age})
    assert len({digest_of(Plan(dataset=one)) for one in (data, other, third)}) == 3


def test_damaged_or_foreign_steps_are_measured_anew_and_said(tmp_path: Path) -> None:
    plan = plan_of()
    go(plan, tmp_path, [Counting(steps=5)])
    files = sorted(tmp_path.rglob("*.json"))
    assert [file.name for file in files] == [f"step+{number}.json" for number in range(5)]
    files[0].write_bytes(files[0].read_bytes()[:40])
    files[1].write_bytes(files[2].read_bytes())
    files[3].write_bytes(b'{"format": 1, "result": [' * 10_000)
    warned: list[str] = []

    class Watch:
        def at(self, wall: str, text: str, done: int, of: int, left: float) -> None: ...

        def tell(self, text: str) -> None: ...

        def warn(self, text: str) -> None:
            warned.append(text)

    ran: list[str] = []
    again = run(
        plan,
        ["noniid"],
        State(tmp_path, digest_of(plan)),
        resume=True,
        watch=Watch(),
        loader=lambda _: Counting(steps=5, before=ran.append),
    )
    assert ran == ["step/0", "step/1", "step/3"]
    assert again.taken == 2
    assert len(warned) == 3
    assert not list(tmp_path.rglob("*.part"))


def test_a_wall_that_fails_is_said_and_the_others_are_measured(tmp_path: Path) -> None:
    def fails(key: str) -> None:
        raise ZeroDivisionError("by nothing")

    def lacks(key: str) -> None:
        raise ModuleNotFoundError("no", name="fluke")

    def refuses(key: str) -> None:
        raise DataError("no such column")

    def cannot(key: str) -> None:
        raise CannotRunError("the outcome is a number")

    walls = [
        Counting("inversion", before=fails),
        Counting("noniid", before=lacks),
        Counting("communication", before=refuses),
        Counting("byzantine", before=cannot),
        Counting("coordinator"),
    ]
    done = go(plan_of(), tmp_path, walls)
    by_name = {outcome.name: outcome for outcome in done.outcomes}
    assert by_name["inversion"].status is Status.FAILED
    assert "ZeroDivisionError" in by_name["inversion"].reason
    assert "pip install 'outroute[walls]'" in by_name["noniid"].reason
    assert "pip install --no-deps fluke-fl==0.8.1" in by_name["noniid"].reason
    assert "no such column" in by_name["communication"].reason
    assert (by_name["byzantine"].status, by_name["byzantine"].reason) == (Status.SKIPPED, "the outcome is a number")
    assert by_name["coordinator"].status is Status.MEASURED


def test_a_wall_that_needs_several_sites_is_skipped_with_its_reason(tmp_path: Path) -> None:
    wall = Counting()
    wall.one_site = False
    done = go(plan_of(dataset=table(sites=1)), tmp_path, [wall, Counting("byzantine")])
    assert [outcome.status for outcome in done.outcomes] == [Status.SKIPPED, Status.MEASURED]
    assert "--site" in done.outcomes[0].reason


def test_the_time_that_is_left_follows_what_was_measured(tmp_path: Path) -> None:
    ticks = iter(range(0, 1_000, 10))  # each step takes ten seconds, not the one that was guessed
    left: list[float] = []

    class Watch:
        def at(self, wall: str, text: str, done: int, of: int, remaining: float) -> None:
            left.append(remaining)

        def tell(self, text: str) -> None: ...

        def warn(self, text: str) -> None: ...

    plan = plan_of()
    walls = {"noniid": Counting(), "byzantine": Counting("byzantine")}
    run(
        plan,
        list(walls),
        State(tmp_path, digest_of(plan)),
        watch=Watch(),
        loader=lambda name: walls[name],
        clock=lambda: float(next(ticks)),
    )
    assert left == [6, 50, 40, 30, 20, 10]


@pytest.mark.parametrize("name", NAMES)
def test_every_wall_is_there_or_says_in_one_line_what_to_install(name: str) -> None:
    wall = importlib.import_module(f"outroute.walls.{name}").WALL
    if all(importlib.util.find_spec(need) for need in wall.needs):
        assert load(name) is wall
    else:
        with pytest.raises(CannotRunError, match="pip install 'outroute") as caught:
            load(name)
        assert str(caught.value).endswith("pip install --no-deps fluke-fl==0.8.1")
        assert "\n" not in str(caught.value)
    assert wall.name == name
    assert wall.question.endswith("?")
    assert wall.rule
    assert set(TITLES) == set(NAMES)


WALL_KEYS = {
    "question", "rule", "status", "reason", "verdict", "winner", "scores", "change", "parts", "settings", "notes",
    "seconds", "steps",
}  # fmt: skip


def test_every_wall_has_the_same_keys_whatever_became_of_it(tmp_path: Path) -> None:
    def stop(key: str) -> None:
        if key == "step/1":
            raise KeyboardInterrupt

    def lacks(name: str) -> Counting:
        if name == "inversion":
            raise CannotRunError("'torch' is not installed", code="extra.walls")
        return walls[name]

    def fails(key: str) -> None:
        raise ZeroDivisionError

    several = Counting("noniid")
    several.one_site = False
    walls = {
        "noniid": several,
        "communication": Counting("communication", before=fails),
        "byzantine": Counting("byzantine", before=stop),
        "coordinator": Counting("coordinator"),
    }
    plan = plan_of(dataset=table(sites=1))
    done = run(plan, NAMES, State(tmp_path, digest_of(plan)), loader=lacks)
    report = to_json(plan, done, digest="x", command="y", seconds=1.0)
    assert report["schema"] == {"name": "small", "id": plan.dataset.schema.id.hex()}
    assert (report["distiller"], report["k"], report["epsilon"]) == ("cohort", 5, 1.0)  # the same for all walls
    found = report["walls"]
    assert [found[name]["status"] for name in NAMES] == ["skipped", "skipped", "failed", "partial", "stopped"]
    for name in NAMES:
        assert set(found[name]) == WALL_KEYS
        assert found[name]["question"].endswith("?")
        assert found[name]["rule"]
        assert isinstance(found[name]["seconds"], float)
        for score in found[name]["scores"]:
            assert {"method", "metric", "value", "low", "high"} <= set(score)
        if found[name]["status"] != "partial":
            assert (found[name]["winner"], found[name]["verdict"], found[name]["scores"]) == (None, None, [])
            assert found[name]["reason"]
    assert found["byzantine"]["winner"] in ("outroute", "federated", "tie")


def test_federated_learning_stands_first(tmp_path: Path) -> None:
    walls = [
        Counting("inversion", winner=Winner.OUTROUTE),
        Counting("noniid", winner=Winner.FEDERATED),
        Counting("byzantine", winner=Winner.TIE),
    ]
    plan = plan_of()
    lines = shown(plan, go(plan, tmp_path, walls))["summary"]
    assert lines == [
        "Federated learning wins on: sites that differ.",
        "Outcome routing wins on: inversion.",
        "Undecided, by the rule: participants that lie.",
    ]
    nobody = shown(plan, go(plan, tmp_path, walls[:1]))["summary"]
    assert nobody[0] == "Federated learning wins on no wall here."
