"""A small world for the commands: tables of three hospitals, a schema, two nodes that hold packets.

Commands that should work run in this process (fast); everything about bad input, signals, pipes and full disks runs
the real program.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

PROGRAM = [sys.executable, "-c", "from outroute.cli import main; main()"]
COLUMNS = "visit,patient,hospital,day,age,sex,crp,grade,los,sick"
#: Columns that are not conditions of the outcome ``sick``.
DROP = [f"--drop={name}" for name in ("hospital", "day", "grade", "los")]
IDS = ["--case", "visit", "--subject", "patient"]
TIMEOUT = 120
#: Rows of one hospital.
ROWS = 80


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "long" not in (config.getoption("-m") or ""):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: run it with -m long"))


def rows_of(site: str, n: int, base: float, rng: np.random.Generator) -> list[str]:
    """Rows of one hospital, two visits a patient, all within age 18 to 90 and CRP 0 to 200."""
    out = []
    for i in range(n):
        age, sex, crp = int(rng.integers(18, 91)), "fm"[int(rng.integers(2))], round(float(rng.uniform(0, 200)), 1)
        risk = 1 / (1 + np.exp(-(base + (age - 55) / 15 + (crp - 100) / 50 + (sex == "m") / 2)))
        grade = ("mild", "moderate", "severe")[int(np.clip(rng.normal(3 * risk - 0.5, 0.6), 0, 2))]
        day = np.datetime64("2025-01-01") + int(rng.integers(0, 400))
        los = round(float(np.clip(np.exp(rng.normal(1 + risk, 0.3)), 1, 20)), 2)
        sick = "yes" if rng.random() < risk else "no"
        out.append(f"{site}-{i},{site}-p{i // 2},{site},{day},{age},{sex},{crp},{grade},{los},{sick}")
    return out


def write_table(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join([COLUMNS, *rows]) + "\n", encoding="utf-8")
    return path


SCHEMA = """\
name = "ward"

[outcome]
name = "sick"
kind = "binary"
classes = ["no", "yes"]

[privacy]
distiller = "cohort"
k = 5
subject = "patient"

[time]
bucket = "30 days"
lifetime = "5 years"

[landmarks]
kind = "drawn"
count = 16

[fields.age]
kind = "numeric"
low = 0
high = 110
unit = "years"
integer = true

[fields.sex]
kind = "categorical"
categories = ["f", "m"]

[fields.crp]
kind = "numeric"
low = 0
high = 300
unit = "mg/l"
"""


def invoke(*arguments: str | Path, code: int = 0) -> Any:
    """Run a command in this process."""
    from outroute.cli.app import app

    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (arguments, result.exit_code, result.output, result.exception)
    return result


def in_json(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """Run a command with --json in this process; standard output must be one JSON object and nothing else."""
    found = json.loads(invoke(*arguments, "--json", code=code).stdout)
    assert isinstance(found, dict)
    return found


def program(
    *arguments: str | Path, cwd: Path, variables: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the real program, with further environment variables."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | (variables or {})
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment,
        check=False,
        **options,
    )


def fails(*arguments: str | Path, cwd: Path, says: str, code: int = 2, **options: Any) -> str:
    """The real program fails with a code and one readable line; returns what it said on standard error."""
    done = program(*arguments, cwd=cwd, **options)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert says in " ".join(done.stderr.split()), done.stderr
    return done.stderr


def let_leave(node: str | Path, output: Path, to: str = "everybody") -> None:
    """Condense what is there, approve all of it, and write the file that leaves."""
    invoke("distil", "--node", node)
    digest = in_json("outbox", "show", "--node", node)["digest"]
    invoke("outbox", "approve", digest, "--by", "Dr. Weber", "--node", node)
    invoke("publish", "-o", output, "--to", to, "--node", node)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world, made once; tests that change something work on a copy."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(3)
    for name, base in (("north", 0.0), ("south", 0.6), ("west", -0.4)):
        write_table(folder / f"{name}.csv", rows_of(name, ROWS, base, rng))
    rows = [line for n in ("north", "south", "west") for line in (folder / f"{n}.csv").read_text().splitlines()[1:]]
    write_table(folder / "all.csv", rows)
    (folder / "ward.toml").write_text(SCHEMA, encoding="utf-8")
    for name in ("north", "south"):
        made: list[str | Path] = ["--schema", folder / "ward.toml", *IDS, "--node", folder / name]
        invoke("observe", folder / f"{name}.csv", *made)
        let_leave(folder / name, folder / f"{name}.orp")
    invoke("receive", folder / "south.orp", "--node", folder / "north")
    return folder


@pytest.fixture
def world(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world, and the working directory."""
    folder = tmp_path / "w"
    shutil.copytree(built, folder)
    monkeypatch.chdir(folder)
    return folder
