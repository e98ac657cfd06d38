"""``outroute walls`` as people run it: stopped, killed, resumed, with bad input, and without its libraries."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from outroute.walls.deployment import LIMITS, Deployment, load_deployment

from .making import table

PROGRAM = [sys.executable, "-c", "from outroute.cli import main; main()"]
SECONDS = 240
OPTIONS = ["--outcome", "diagnosis", "--positive", "sick", "--site", "hospital", "--quick", "--repeats", "3"]


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    data = table(n=90)
    with (tmp_path / "visits.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["hospital", *data.columns, "diagnosis"])
        writer.writerows(zip(data.site, *data.columns.values(), data.outcome, strict=True))
    return tmp_path


def start(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, "walls", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(cwd: Path, *arguments: str) -> tuple[int, str, str]:
    with start(cwd, *arguments) as running:
        out, err = running.communicate(timeout=SECONDS)
    return running.returncode, out, err


def wait_for(folder: Path, pattern: str, running: subprocess.Popen[str]) -> None:
    """Until a step is kept."""
    until = time.monotonic() + SECONDS
    while not list(folder.glob(pattern)):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def same(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what depends on when and where it was made."""
    for wall in report["walls"].values():
        del wall["seconds"]
    return {name: of for name, of in report.items() if name not in ("steps", "seconds_in_all", "command")}


@pytest.mark.timeout(4 * SECONDS)
def test_stopped_killed_and_resumed_it_says_what_it_says_in_one_go(visits: Path) -> None:
    pytest.importorskip("flwr", reason="needs the extra 'walls'")
    run = ["visits.csv", *OPTIONS, "--walls", "communication", "--json"]
    with start(visits, *run, "--html", "first") as running:
        wait_for(visits, "first/steps/*/communication/wire+link.json", running)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 130
    found = json.loads(out)
    assert found["interrupted"]
    assert found["walls"]["communication"]["winner"] is None
    assert "--resume" in err
    assert (visits / "first" / "index.html").exists()

    with start(visits, *run, "--html", "first", "--resume") as running:
        wait_for(visits, "first/steps/*/communication/split+0.json", running)
        running.kill()
        running.communicate(timeout=SECONDS)
    shutil.copytree(visits / "first", visits / "second")
    reports = []
    for folder in ("first", "second"):
        code, out, err = finish(visits, *run, "--html", folder, "--resume")
        assert code == 0, err
        reports.append(json.loads(out))
        assert json.loads((visits / folder / "report.json").read_text()) == reports[-1]
        assert "<svg" in (visits / folder / "index.html").read_text()
    assert reports[0]["steps"]["taken"] >= 5
    assert sum(reports[0]["steps"].values()) == 7
    assert same(reports[0]) == same(reports[1])
    wall = reports[0]["walls"]["communication"]
    assert {"question", "verdict", "winner", "scores", "seconds", "rule", "change", "settings"} <= set(
        json.loads(out)["walls"]["communication"]
    )
    assert wall["winner"] in ("outroute", "federated", "tie")
    assert reports[0]["summary"][0].startswith("Federated learning wins")
    assert oct((visits / "first" / "report.json").stat().st_mode & 0o777) == "0o600"

    with start(visits, *run, "--html", "first", "--resume", "--seed", "9") as running:
        assert running.stderr is not None
        said = ""
        while "nothing to resume" not in said:
            line = running.stderr.readline()
            assert line, said
            said += line
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=SECONDS)


@pytest.mark.timeout(2 * SECONDS)
def test_one_file_for_each_site_is_as_good_as_a_column_and_one_file_alone_is_one_site(tmp_path: Path) -> None:
    pytest.importorskip("flwr", reason="needs the extra 'walls'")
    data = table(n=150)
    names = [f"{site.replace(' ', '-')}.csv" for site in data.sites]
    for site, name in zip(data.sites, names, strict=True):
        mine = data.site == site
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*data.columns, "diagnosis"])
            writer.writerows(zip(*(of[mine] for of in data.columns.values()), data.outcome[mine], strict=True))
    run = [
        "--outcome",
        "diagnosis",
        "--positive",
        "sick",
        "--quick",
        "--repeats",
        "2",
        "--json",
        "--walls",
        "byzantine",
    ]
    code, out, err = finish(tmp_path, *names, *run, "--attacks", "slander,free-rider")
    assert code == 0, err
    found = json.loads(out)
    assert list(found["sites"].values()) == [50, 50, 50]
    wall = found["walls"]["byzantine"]
    assert wall["status"] == "measured"
    assert wall["settings"]["attacks"] == ["free-rider", "slander"]
    assert all({"low", "high"} <= set(score) for score in wall["scores"])
    assert "--attacks slander,free-rider" in found["command"]

    code, out, err = finish(tmp_path, names[0], *run)
    assert code == 1, err
    wall = json.loads(out)["walls"]["byzantine"]
    assert (wall["status"], wall["winner"]) == ("skipped", None)
    assert "--site" in wall["reason"]
    assert wall["question"].endswith("?")


def test_without_its_libraries_it_says_what_to_install(visits: Path) -> None:
    if importlib.util.find_spec("flwr") is not None:
        pytest.skip("the extra 'walls' is installed here")
    code, out, err = finish(visits, "visits.csv", *OPTIONS, "--walls", "communication", "--json")
    assert code == 1
    assert "pip install 'outroute[walls]' && pip install --no-deps fluke-fl==0.8.1" in err
    wall = json.loads(out)["walls"]["communication"]
    assert (wall["status"], wall["winner"]) == ("skipped", None)
    assert wall["question"].startswith("What does it cost to send")
    assert not list(visits.rglob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--walls", "moat"], "There is no wall 'moat'"),
        (["--walls", ","], "There is no wall"),
        (["--html", "visits.csv"], "is a file"),
        (["--attacks", "flood"], "There is no attack 'flood'; there are label-flip,"),
        (["--attacks", ","], "There is no attack"),
        (["--attacks", "all", "--walls", "noniid"], "--walls leaves out"),
        (["--divide", "thirds"], "'thirds' is no partition"),
        (["--divide", "classes:3"], "cannot share 2 classes out"),
        (["--divide", "natural"], "always measured"),
        (["--divide", "iid", "--walls", "byzantine"], "--walls leaves out"),
        (["--deployment", "no.toml"], "There is no deployment file"),
        (["--deployment", "."], "is a folder"),
        (["--site", "ward"], "ward"),
        (["--k", "0"], "rror"),
        (["--repeats", "0"], "rror"),
        (["--epsilon", "-1"], "rror"),
    ],
)
def test_bad_input_is_one_sentence_and_a_code(visits: Path, arguments: list[str], said: str) -> None:
    if "--html" in arguments:
        pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    code, out, err = finish(visits, "visits.csv", *OPTIONS, *arguments)
    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("nodes = 1", "deployment.value"),
        ("nodes = 2.5", "deployment.value"),
        ('nodes = "ten"', "deployment.value"),
        ("nodes = true", "deployment.value"),
        ("upload_mbit = nan", "deployment.value"),
        ("hostile_share = 1.5", "deployment.value"),
        ("node = 5", "deployment.name"),
        ("[deployment]\nnodes = 5", "deployment.name"),
        ("nodes = = 5", "deployment.toml"),
        ("\ud800", "deployment.toml"),
        ("#" * 70_000, "deployment.file"),
    ],
)
def test_a_deployment_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, code: str) -> None:
    from outroute.errors import DataError

    path = tmp_path / "ours.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError) as caught:
        load_deployment(path)
    assert caught.value.code == code
    assert "ours.toml" in str(caught.value)


def test_the_deployment_file_of_the_documentation_is_one_with_every_figure(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "walls.md").read_text(encoding="utf-8")
    block = text.split("```toml\n", 1)[1].split("```", 1)[0]
    (tmp_path / "ours.toml").write_text(block, encoding="utf-8")
    assert set(load_deployment(tmp_path / "ours.toml").given) == set(LIMITS)


def test_a_deployment_file_says_which_figures_are_the_users(tmp_path: Path) -> None:
    path = tmp_path / "ours.toml"
    path.write_text("nodes = 40\nupload_mbit = 2\nparameters = 1e6\n")
    found = load_deployment(path)
    assert found.given == ("nodes", "upload_mbit", "parameters")
    assert (found.nodes, found.upload_mbit, found.parameters) == (40, 2.0, 1_000_000)
    assert found.rounds is Deployment().rounds is None
    assert set(LIMITS) | {"given"} == set(Deployment.__slots__)
    for name, (least, most, _) in LIMITS.items():
        value = getattr(Deployment(), name)
        assert value is None or least <= value <= most
