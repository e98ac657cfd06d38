from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from outroute.cli import _common
from outroute.cli._common import handled, write_files
from outroute.cli.schema import schema_app
from outroute.errors import DataError
from outroute.schema import load, unreviewed

RUN = CliRunner()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table of two sites and a schema drafted from it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(9)
    lines = ["id,age,chol,sex,site,ill"]
    for i in range(200):
        site = "zug" if i % 4 == 0 else "basel"
        chol = 0 if site == "zug" else rng.integers(180, 300)
        lines.append(f"c{i},{rng.integers(40, 80)},{chol},{rng.choice(['m', 'f'])},{site},{rng.integers(0, 3)}")
    Path("t.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(*arguments: str, code: int = 0, **options: Any) -> Result:
    result = RUN.invoke(schema_app, list(arguments), **options)
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def drafted(*more: str) -> Path:
    run("infer", "t.csv", "--outcome", "ill", "--positive", "> 0", "--site", "site", "-o", "s.toml", *more)
    return Path("s.toml")


def test_infer_writes_a_schema_that_loads() -> None:
    path = drafted()
    schema = load(path)
    assert schema.name == "s"
    assert {item.name for item in schema.fields} == {"age", "chol", "sex"}
    assert set(unreviewed(path)) == {"age", "chol", "sex", "ill"}


def test_infer_tells_what_it_did() -> None:
    result = run("infer", "t.csv", "--outcome", "ill", "--positive", "> 0", "--site", "site")
    assert "every value at zug" in result.stderr
    assert "id: nearly every case" in result.stderr
    assert 'positive_when = "> 0"' in result.stderr
    Path("printed.toml").write_text(result.stdout)
    assert load("printed.toml").outcome.classes == ("no", "yes")


def test_infer_as_json_is_one_object() -> None:
    result = run("infer", "t.csv", "--outcome", "ill", "--drop", "id,site", "--json")
    seen = json.loads(result.stdout)
    assert seen["schema"]["outcome"]["classes"] == ["0", "1", "2"]
    assert seen["schema"]["slots"]["of"] == 116
    assert {note["kind"] for note in seen["notes"]} >= {"outcome", "time"}


def test_infer_reads_one_file_per_site_and_a_pipe() -> None:
    rows = Path("t.csv").read_text().splitlines()
    for name, part in (("basel", rows[1:100]), ("zug", rows[100:])):
        Path(f"{name}.csv").write_text("\n".join([rows[0].replace("site", "ward"), *part]) + "\n")
    run("infer", "basel.csv", "zug.csv", "--outcome", "ill", "-o", "two.toml")
    assert "site" not in {item.name for item in load("two.toml").fields}
    piped = run("infer", "-", "--outcome", "ill", "--json", input=Path("t.csv").read_text())
    assert json.loads(piped.stdout)["file"] is None


def test_nothing_is_overwritten_without_force() -> None:
    path = drafted()
    path.write_text("mine")
    result = run("infer", "t.csv", "--outcome", "ill", "-o", "s.toml", code=2)
    assert "--force" in result.stderr
    assert path.read_text() == "mine"
    run("infer", "t.csv", "--outcome", "ill", "-o", "s.toml", "--force")
    assert load(path)


@pytest.mark.parametrize(
    ("arguments", "word", "code"),
    [
        (["infer", "none.csv", "--outcome", "ill"], "no file 'none.csv'", "data.file"),
        (["infer", "t.csv", "--outcome", "il"], "Did you mean 'ill'", "data.column"),
        (["infer", "t.csv", "--outcome", "id"], "200 different values", "data.outcome"),
        (["infer", "t.csv", "--outcome", "ill", "--positive", "> x"], "is no rule", "mapping.rule"),
        (["infer", "t.csv", "--outcome", "ill", "-o", "no/s.toml"], "no folder", "file.folder"),
        (["infer", "t.csv", "t.csv", "--outcome", "ill"], "Two files would be the site 't'", "data.sites"),
        (["show", "none.toml"], "none.toml", "schema.file"),
    ],
)
def test_misuse_is_one_sentence_and_exit_code_2(arguments: list[str], word: str, code: str) -> None:
    result = run(*arguments, code=2)
    assert word in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    again = run(*arguments, "--json", code=2)
    assert json.loads(again.stdout)["error"]["code"] == code


def test_check_warns_and_is_strict_when_asked() -> None:
    path = drafted()
    result = run("check", "s.toml")
    assert "4 inferred and not reviewed" in result.stderr
    assert "no unit (age, chol)" in result.stderr
    assert load(path).id.hex() in result.stdout
    assert "no noise on conditions" in result.stderr
    run("check", "s.toml", "--strict", code=1)
    drafted("--k", "10", "--noise", "0.1", "--dissent", "2", "--force")
    path.write_text(path.read_text().replace('unit = ""', 'unit = "x"').replace("reviewed = false", ""))
    run("check", "s.toml", "--strict")
    assert "noise of 0.1 of the range, at least 2 with another outcome" in run("show", "s.toml").stdout
    run("infer", "t.csv", "--outcome", "ill", "--noise", "much", code=2)


def test_check_finds_what_is_wrong_in_a_schema() -> None:
    path = drafted()
    path.write_text(path.read_text().replace('kind = "numeric"', 'kind = "number"'))
    result = run("check", "s.toml", code=1)
    assert "'number' is not one of numeric, categorical" in result.stderr
    seen = json.loads(run("check", "s.toml", "--json", code=1).stdout)
    assert seen["ok"] is False
    assert len(seen["problems"]) == 1


def test_check_tries_a_table_with_and_without_its_mapping() -> None:
    drafted()
    first = json.loads(run("check", "s.toml", "t.csv", "--json", code=1).stdout)
    assert any("missing = [0]" in text for text in first["problems"])
    run("mapping", "s.toml", "t.csv", "--positive", "> 0", "--case", "id", "-o", "m.toml")
    second = json.loads(run("check", "s.toml", "t.csv", "--mapping", "m.toml", "--json").stdout)
    assert second["ok"] is True
    assert second["rows"] == {"seen": 200, "kept": 200, "waiting": 0, "refused": 0}
    Path("bad.csv").write_text(Path("t.csv").read_text() + "x1,5000,200,m,zug,1\n")
    third = run("check", "s.toml", "bad.csv", "--mapping", "m.toml", code=1)
    assert "age: 1 value outside the range; first in row 201 (case x1): 5000." in third.stderr
    assert "200 usable" in third.stderr


def test_a_mapping_is_private() -> None:
    drafted()
    run("mapping", "s.toml", "t.csv", "-o", "m.toml")
    assert stat.S_IMODE(os.stat("m.toml").st_mode) == 0o600
    assert "case = " in run("mapping", "s.toml", "t.csv", "--case", "id").stdout
    assert "no column 'idd'" in run("mapping", "s.toml", "t.csv", "--case", "idd", code=2).stderr


def test_show_names_everything() -> None:
    path = drafted()
    result = run("show", "s.toml")
    schema = load(path)
    for word in (schema.id.hex(), "age", "f | m", "not reviewed", "of 116", "64, drawn", "cohorts of at least 5"):
        assert word in result.stdout
    seen = json.loads(run("show", "s.toml", "--json").stdout)
    assert seen["id"] == schema.id.hex()
    assert [item["name"] for item in seen["fields"]] == [item.name for item in schema.fields]


def test_words_in_brackets_are_shown_as_they_are() -> None:
    path = drafted()
    path.write_text(path.read_text().replace('unit = ""', 'unit = "[red]mg[/red]"'))
    assert "[red]mg[/red]" in run("show", "s.toml").stdout


def test_learn_needs_reviewed_fields_and_public_data() -> None:
    path = drafted()
    result = run("learn", "s.toml", "t.csv", "--public", "--count", "8", "-o", "l.toml", code=2)
    assert "have not been reviewed" in result.stderr
    result = run("learn", "s.toml", "t.csv", "--reviewed", "--count", "8", "-o", "l.toml", code=2)
    assert "--public" in result.stderr
    result = run("learn", "s.toml", "--reviewed", code=2)
    assert "--packets FILE" in result.stderr
    assert not Path("l.toml").exists()
    path.write_text(path.read_text().replace("[fields.age]", "# ask the ward\n[fields.age]"))
    run("mapping", "s.toml", "t.csv", "-o", "m.toml")
    result = run(
        "learn", "s.toml", "t.csv", "--reviewed", "--public", "--mapping", "m.toml", "--count", "8", "-o", "l.toml"
    )
    made = load("l.toml")
    assert len(made.landmarks) == 8
    assert made.fields == load(path).fields
    assert made.id.hex() in result.stdout
    assert made.parent == b""
    assert unreviewed("l.toml") == ()
    assert "# ask the ward" in Path("l.toml").read_text()
    assert Path("l.landmarks").read_bytes() == made.landmarks.to_bytes()
    again = run("learn", "l.toml", "t.csv", "--public", "--mapping", "m.toml", "--count", "8", "--successor", "--force")
    assert "8 landmarks" in again.stderr
    assert load("l.toml").parent == made.id


def test_learn_refuses_a_file_that_holds_no_packets() -> None:
    drafted()
    Path("p.packets").write_bytes(os.urandom(5000))
    result = run("learn", "s.toml", "--reviewed", "--packets", "p.packets", "-o", "l.toml", code=2)
    assert "not a packet of version 1" in result.stderr
    assert not Path("l.toml").exists()
    assert "Cannot read" in run("learn", "s.toml", "--reviewed", "--packets", "q", "-o", "l.toml", code=2).stderr


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("old")
    with pytest.raises(DataError, match="exists already"):
        write_files({second: "x", first: "y"}, force=False)
    assert not second.exists()
    real = os.fsync
    calls: list[int] = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(second))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_files({first: "new", second: "x"}, force=True)
    assert first.read_text() == "old"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "t.csv"]


@pytest.mark.parametrize(
    ("raised", "code", "word"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "s.toml"),
            2,
            "The disk is full 's.toml'. Nothing was changed",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "s.toml"), 2, "No permission 's.toml'"),
        (MemoryError(), 2, "not enough memory"),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_what_the_system_says_is_said_plainly(
    raised: BaseException, code: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @handled
    def command() -> None:
        raise raised

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == code
    assert word in capsys.readouterr().err


def started(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    code = "from outroute.cli.schema import schema_app; schema_app()"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, **options)


def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    drafted()
    reading, writing = os.pipe()
    os.close(reading)
    process = started("show", "s.toml", stdout=writing)
    os.close(writing)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == _common.EXIT_BROKEN_PIPE
    assert errors == b""


def test_an_interrupted_command_leaves_nothing_behind(here: Path) -> None:
    before = sorted(item.name for item in here.iterdir())
    reading, writing = os.pipe()
    process = started("infer", "-", "--outcome", "ill", "-o", "s.toml", stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    # Enough for the head and the first blocks to be taken; then the pipe falls silent and the command waits.
    block = b"a,ill\n" + b"1,0\n" * 500_000
    for start in range(0, len(block), 65_536):
        os.write(writing, block[start : start + 65_536])
    try:
        time.sleep(1)  # let it fall asleep: a signal between two system calls would wait for more input
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        os.close(writing)
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert errors.decode().strip() == "Stopped. No file was left half-written."
    assert sorted(item.name for item in here.iterdir()) == before


@pytest.mark.parametrize("command", ["infer", "check", "show", "learn", "mapping"])
def test_help_teaches_by_example(command: str) -> None:
    result = run(command, "--help")
    assert "Example" in result.stdout
    assert f"outroute schema {command}" in result.stdout
