"""The coordinator's wall: real processes, really killed, and nothing left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outroute.datasets import Dataset
from outroute.walls.base import CannotRunError, Plan, Winner
from outroute.walls.coordinator import FLOWER, GOSSIP, OURS, WALL
from outroute.walls.coordinator_blows import gossip, measured, network, star_server
from outroute.walls.coordinator_coupling import nodes, star
from outroute.walls.coordinator_gossip import Peer
from outroute.walls.coordinator_processes import Workplace
from outroute.walls.coordinator_stage import in_pieces, stage_of

from .making import table

SECONDS = 120.0


def quiet(text: str) -> None:
    """Nobody listens."""


def wait(done: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def data() -> Dataset:
    return table(600, 4)


@pytest.fixture(scope="module")
def plan(data: Dataset) -> Plan:
    return Plan(dataset=data, quick=True)


STARTER = """
import json, signal, sys, time
from outroute.walls.coordinator_processes import Workplace
place = Workplace()
sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
one = place.start("one", sleeps)
hangs = place.start("hangs", sleeps)
hangs.signal(signal.SIGSTOP)
code = ("import subprocess, sys\\n"
    "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\\n"
    "print(one.pid, flush=True)")
apart = place.start("apart", [sys.executable, "-c", code], talks=True)
pid = int(apart.process.stdout.readline())
print(json.dumps([str(place.folder), one.process.pid, hangs.process.pid, pid]), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux tells the environment of a process")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_however_the_starter_goes(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as starter:
        assert starter.stdout is not None
        folder, *pids = json.loads(starter.stdout.readline())
        assert Path(folder).is_dir()
        assert all(map(runs, pids))
        starter.send_signal(how)
        starter.wait(SECONDS)
    wait(lambda: not any(map(runs, pids)) and not Path(folder).exists())


def test_a_workplace_clears_away_when_something_fails() -> None:
    kept: list[Any] = []

    def fails() -> None:
        with Workplace() as place:
            kept.extend([place.start("sleeps", [sys.executable, "-c", "import time; time.sleep(600)"]), place.folder])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    sleeps, folder = kept
    assert not sleeps.alive
    assert not folder.exists()


def test_a_system_without_stopping_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(CannotRunError, match="leave it out with --walls") as error:
        Workplace()
    assert error.value.code == "walls.system"


def test_what_a_blow_did_is_counted() -> None:
    work = [90.0, 99.0, 101.0, 102.0, 107.0, 111.0]
    blow = measured("first", "x", work, pace=0.5, at=100.0, window=10.0)
    assert (blow.done, blow.expected, blow.share, blow.pause) == (3, 5.0, 0.6, 5.0)
    assert list(blow.times) == [1.0, 2.0, 7.0]
    nothing = measured("first", "x", [], pace=2.0, at=100.0, window=10.0)
    assert (nothing.share, nothing.pause) == (0.0, 10.0)
    assert measured("first", "x", work, pace=0.1, at=100.0, window=10.0).share == 1.0


def test_one_site_is_cut_in_pieces_that_share_no_row(data: Dataset) -> None:
    site = data.rows(data.site == "site 0")
    cut, note = in_pieces(site, 4, np.random.default_rng(0))
    assert len(cut.sites) == 4
    assert "one site" in note
    assert min(int((cut.site == one).sum()) for one in cut.sites) >= len(site) // 8
    assert sorted(cut.case) == sorted(site.case)
    untouched, note = in_pieces(data, 4, np.random.default_rng(0))
    assert (untouched.sites, note) == (data.sites, "")
    three, note = in_pieces(data, 3, np.random.default_rng(0))
    assert len(three.sites) == 3
    assert "largest of 4" in note


def test_a_killed_peer_does_not_stop_gossip(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outroute.walls.coordinator_blows.WINDOW_QUICK", 3.0)
    found = gossip(plan, quiet)
    (blow,) = found["blows"]
    assert blow["done"] > 0
    stage = stage_of(plan)
    site = stage.sites[-1]
    rate = float(np.mean(stage.fold.train[site].y))
    assert found["loss"] < stage.loss(site, np.full(stage.judged(site), rate))


def test_a_peer_takes_no_model_of_another_shape() -> None:
    records = (np.ones((4, 3), np.float32), np.ones((4, 1), np.float32))
    peer, other = Peer(records, 2, 0), Peer((np.ones((4, 5), np.float32), records[1]), 2, 1)
    message: list[bytes] = []

    def read(count: int) -> bytes:
        taken, message[:] = message[0][:count], [message[0][count:]]
        return taken

    from outroute.walls.coordinator_gossip import _HEAD

    for source, taken in ((peer, True), (other, False)):
        shape = source.weights.shape
        message[:] = [_HEAD.pack(4 * source.weights.size, 7, shape[1], shape[0]) + source.weights.tobytes()]
        assert peer.take(read) is taken
    message[:] = [b"short"]
    assert peer.take(read) is False
    peer._server.server_close()
    other._server.server_close()


def test_our_network_answers_on_and_a_newcomer_finds_what_is_left(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outroute.walls.coordinator_blows.WINDOW", 3.0)
    found = network(Plan(dataset=data), quiet)
    assert [blow["name"] for blow in found["blows"]] == ["first", "member", "hang"]
    assert found["back_seconds"] > 0
    assert all(blow["done"] > 0 and not blow["failed"] for blow in found["blows"])
    # It asks as soon as it has joined: on a crowded machine it may not have heard of every holder by then.
    assert 0 < found["newcomer"]["packets"] <= found["newcomer"]["packets_before"]
    assert 0 < found["newcomer"]["answered"] <= found["newcomer"]["answered_before"]
    assert 0 < found["newcomer"]["share"] <= 1
    assert found["loss"] == pytest.approx(found["loss_before"], abs=0.02)


def test_nodes_that_calculate_differently_answer_each_other(plan: Plan) -> None:
    found = nodes(plan, quiet)
    assert len({tuple(one["used"]) for one in found["nodes"]}) == len(found["nodes"]) == 3
    assert all(one["answered"] > 0 and one["packets_of_others"] > 0 for one in found["nodes"])


def test_flowers_training_stops_with_its_server(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flwr", reason="the extra walls is not installed; scripts/test runs this where it is")
    monkeypatch.setattr("outroute.walls.coordinator_blows.WINDOW_QUICK", 4.0)
    found = star_server(plan, quiet)
    (blow,) = found["blows"]
    assert blow["done"] <= 1  # a round whose answers had all come may still be put down
    assert found["nodes_alive"] == 3  # they wait for the server to come back
    assert found["loss"] is not None


def test_flower_cannot_average_models_that_differ(plan: Plan) -> None:
    pytest.importorskip("flwr", reason="the extra walls is not installed; scripts/test runs this where it is")
    found = star(plan, quiet)
    assert found["run"].startswith("finished:failed")
    assert "broadcast" in found["run"]
    assert found["rounds"] == 0


def blow(share: float, name: str = "first", expected: float = 100.0) -> dict[str, Any]:
    return measured(
        name, "x", np.linspace(100.01, 109.9, round(share * expected)).tolist(), expected / 10, 100.0, 10.0
    ).to_json()


def results(ours: float, gossip: float, flower: float, new: float = 1.0) -> dict[str, dict[str, Any]]:
    newcomer = {"share": new, "packets": 10, "packets_before": 10, "answered": 9, "answered_before": 9, "seconds": 1.0}
    return {
        "network": {"blows": [blow(1.0), blow(ours, "hang")], "newcomer": newcomer, "note": ""},
        "gossip": {"blows": [blow(gossip)]},
        "flower/server": {"blows": [blow(flower, expected=4.0)]},
    }


@pytest.mark.parametrize(
    ("shares", "winner"),
    [
        ((1.0, 1.0, 0.0), Winner.TIE),  # gossip has no coordinator either
        ((1.0, 0.5, 0.0), Winner.OUTROUTE),
        ((0.5, 1.0, 0.0), Winner.FEDERATED),
        ((0.98, 1.0, 0.0), Winner.TIE),
        ((1.0, 0.5, 1.0), Winner.TIE),
    ],
)
def test_the_verdict_is_that_of_the_rule(plan: Plan, shares: tuple[float, float, float], winner: Winner) -> None:
    found = WALL.conclude(plan, results(*shares))
    assert found.winner is winner
    by_method = {score.method: score.value for score in found.scores}
    assert by_method[OURS] == pytest.approx(shares[0], abs=0.01)
    assert by_method[FLOWER] == pytest.approx(shares[2], abs=0.01)
    assert by_method[GOSSIP] == pytest.approx(shares[1], abs=0.01)


def test_figures_have_the_interval_of_what_was_counted_and_say_what_is_not_in_it(plan: Plan) -> None:
    found = WALL.conclude(plan, results(1.0, 0.5, 0.0))
    bounds = {score.method: (score.low, score.high) for score in found.scores}
    assert bounds[OURS] == pytest.approx((0.025 ** (1 / 10), 1.0))  # all of the ten packets that a newcomer looks for
    assert bounds[GOSSIP] == pytest.approx((0.398, 0.602), abs=5e-4)  # 50 of 100, from Clopper-Pearson tables
    assert bounds[FLOWER] == pytest.approx((0.0, 0.602), abs=5e-4)  # none of 4
    assert "gossip averaging 50% (40% to 60%)" in found.verdict
    assert any("--blows 5" in note for note in found.notes)
    pauses = [one for part in found.parts for one in part.scores if one.metric == "longest pause, s"]
    assert pauses
    assert all(one.low is None for one in pauses)


def test_blows_that_are_struck_again_show_how_they_differ_and_decide_nothing(plan: Plan) -> None:
    three = replace(plan, blows=3)
    keys = [step.key for step in WALL.steps(three)]
    assert keys[:3] == [step.key for step in WALL.steps(plan)]
    assert keys[3:] == [f"again-{n}/{key}" for n in (2, 3) for key in keys[:3]]
    done = results(1.0, 0.9, 0.0)
    for number, (ours, theirs) in enumerate([(0.2, 0.8), (0.3, 0.7)], start=2):
        done |= {f"again-{number}/{key}": of for key, of in results(ours, theirs, 0.0).items()}
    found = WALL.conclude(three, done)
    first = WALL.conclude(plan, results(1.0, 0.9, 0.0))
    assert (found.winner, found.verdict, found.scores) == (first.winner, first.verdict, first.scores)
    part = next(part for part in found.parts if part.title == "The same blows again")
    by_note = {(score.method, score.note): score for score in part.scores}
    mean = by_note[GOSSIP, "x: 90%, 80%, 70%"]
    half = 4.3027 * 0.1 / 3**0.5  # t(2, 0.975), standard deviation 0.1
    assert (mean.low, mean.value, mean.high) == pytest.approx((0.8 - half, 0.8, 1.0), abs=1e-4)
    assert by_note[FLOWER, "x: 0%, 0%, 0%"].high == 0.0
    waited = [score for score in part.scores if score.metric == "longest pause, s, mean"]
    assert waited
    assert all(score.low is not None and score.high is not None for score in waited)
    assert not any(part.title == "The same blows again" for part in first.parts)


def test_a_newcomer_that_finds_less_counts_against_us(plan: Plan) -> None:
    assert WALL.conclude(plan, results(1.0, 1.0, 0.0, new=0.4)).winner is Winner.FEDERATED


def test_fewer_steps_give_no_winner(plan: Plan) -> None:
    done = results(1.0, 1.0, 0.0)
    found = WALL.conclude(plan, {"network": done["network"]})
    assert found.winner is Winner.TIE
    assert "Undecided" in found.verdict


def test_steps_are_the_same_for_the_same_plan(plan: Plan, data: Dataset) -> None:
    assert [step.key for step in WALL.steps(plan)] == ["network", "gossip", "flower/server"]
    full = [step.key for step in WALL.steps(Plan(dataset=data))]
    assert len(full) == len(set(full)) == 6


def test_numbers_and_several_classes_are_laid_out_for_the_models(data: Dataset) -> None:
    from outroute.datasets.declare import numeric_outcome, schema
    from outroute.schema import Outcome, OutcomeKind
    from outroute.walls.coordinator_model import steps

    age = np.asarray(data.columns["age"])
    fields = data.schema.fields
    days = schema("numbers", fields, numeric_outcome("days", "0", "300", "d"), k=5, subject="person")
    grades = ("low", "middle", "high")
    classes = Outcome(name="grade", kind=OutcomeKind.CATEGORICAL, classes=grades)
    graded = schema("grades", fields, classes, k=5, subject="person")
    which = np.digitize(age, [40, 60])
    for made, outcome, outputs in (
        (days, 2 * age, 1),
        (graded, np.array([grades[i] for i in which], dtype=object), 3),
    ):
        stage = stage_of(Plan(dataset=replace(data, schema=made, outcome=outcome)))
        assert stage.shape.outputs == outputs
        start = np.zeros((stage.shape.features, outputs), np.float32)
        weights = start
        for _ in range(60):
            weights = np.mean([steps(one, weights, stage.shape.classes) for one in stage.records.values()], axis=0)
        assert stage.loss_of(weights, stage.sites) < 0.7 * stage.loss_of(start, stage.sites)


def test_flowers_window_holds_rounds_on_a_slow_machine(plan: Plan, data: Dataset) -> None:
    from outroute.walls.coordinator_blows import ROUNDS_LEAST, WINDOW, WINDOW_QUICK, _window_of_star

    full = Plan(dataset=data)
    assert _window_of_star(full, 1.0) == WINDOW
    assert _window_of_star(full, 0.05) == pytest.approx(ROUNDS_LEAST / 0.05)
    assert _window_of_star(plan, 1.0) == WINDOW_QUICK
    assert _window_of_star(plan, 0.05) == pytest.approx(1 / 0.05)
