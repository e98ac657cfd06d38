"""Ctrl-C, full disks and two programs at once: the node directory stays whole."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from .conftest import IDS, PROGRAM, fails, program, rows_of, write_table

MANY = 25_000
"""Rows that take a node seconds to take in."""
HEADER = "visit,patient,hospital,day,age,sex,crp,grade,los,sick\n"


def started(*arguments: str, cwd: Path, stdin: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=stdin,
    )


def status(world: Path, node: str) -> dict[str, int]:
    done = program("status", "--node", node, "--json", cwd=world)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(8)
    few = rows_of("x", 400, 0.0, rng)
    rows = [f"{i}," + few[i % 400].split(",", 1)[1] for i in range(MANY)]
    return write_table(tmp_path_factory.mktemp("many") / "many.csv", rows)


def test_ctrl_c_reports_the_repeats_that_are_finished(world: Path) -> None:
    arguments = ["all.csv", "--outcome=sick", "--site=hospital", "--schema=ward.toml", *IDS, "--repeats=1000", "--json"]
    running = started("evaluate", *arguments, cwd=world)
    assert running.stderr is not None
    for line in running.stderr:
        if "repeat 2 of 1000" in line:
            break
    running.send_signal(signal.SIGINT)
    shown, said = running.communicate(timeout=100)
    assert running.returncode == 130
    found = json.loads(shown)
    assert 1 <= found["repeats"] < 1000 == found["repeats_asked"]
    assert "those are reported" in said
    assert "Traceback" not in said


def test_ctrl_c_before_the_first_repeat_reports_nothing(world: Path) -> None:
    arguments = ["all.csv", "--outcome=sick", "--site=hospital", "--schema=ward.toml", *IDS, "--repeats=20"]
    running = started("evaluate", *arguments, "--plot=gain.png", cwd=world)
    assert running.stderr is not None
    for line in running.stderr:
        if "repeat 1 of 20" in line:
            break
    running.send_signal(signal.SIGINT)
    shown, said = running.communicate(timeout=100)
    assert running.returncode == 130
    assert shown == ""
    assert "Stopped" in said
    assert not (world / "gain.png").exists()


def test_ctrl_c_while_observing_keeps_whole_batches_and_the_rest_can_follow(world: Path, many: Path) -> None:
    """The table comes through a pipe that stays open, so that the program is surely still reading."""
    running = started("observe", "-", "--schema=ward.toml", *IDS, "--node=west", cwd=world, stdin=subprocess.PIPE)
    assert running.stdin is not None
    text = many.read_text()
    running.stdin.write(text[: len(text) // 2])  # returns when the program has read nearly all of it
    running.stdin.flush()
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=100)
    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert "nothing counts twice" in said
    assert status(world, "west")["known"] < MANY
    done = program("observe", many, *IDS, "--node=west", cwd=world)
    assert done.returncode == 0, done.stderr
    assert status(world, "west")["known"] == MANY


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs a kernel that lists its locks")
def test_a_second_program_on_one_node_is_told_so(world: Path) -> None:
    running = started("observe", "-", *IDS, "--node=north", cwd=world, stdin=subprocess.PIPE)
    assert running.stdin is not None
    lines = (world / "west.csv").read_text().splitlines(keepends=True)
    try:
        while not _locked(world / "north"):
            assert running.poll() is None
            time.sleep(0.01)
        fails("status", "--node=north", cwd=world, says="another process uses")
    finally:
        _, said = running.communicate("".join(lines), timeout=100)
    assert running.returncode == 0, said
    assert status(world, "north")["known"] == 2 * (len(lines) - 1)


def _locked(node: Path) -> bool:
    """Whether somebody holds the node's lock; asked of the kernel, because trying it would take it for a moment."""
    own = (node / "journal.db.lock").stat().st_ino
    return any(line.split()[5].endswith(f":{own}") for line in Path("/proc/locks").read_text().splitlines())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk; the limit on file sizes is tested besides")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False)
    if made.returncode:
        pytest.skip("this machine does not let root mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_nothing(world: Path, many: Path, small_disk: Path) -> None:
    node = str(small_disk / "west")
    fails("observe", many, "--schema=ward.toml", *IDS, "--node", node, cwd=world, says="the disk is full")
    (small_disk / "filled").write_bytes(b"")
    room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filled").write_bytes(b"x" * room)
    again = ["publish", "--all", "--to=west", "--node=north"]
    fails(*again, "-o", small_disk / "north.orp", cwd=world, says="nothing was handed over")
    assert sorted(path.name for path in small_disk.iterdir()) == ["filled", "west"]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert program("observe", many, *IDS, "--node", node, cwd=world).returncode == 0
    assert status(world, node)["known"] == MANY


def test_a_limit_on_file_sizes_loses_nothing(world: Path, many: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    arguments: list[str | Path] = ["observe", many, "--schema=ward.toml", *IDS, "--node=west"]
    fails(*arguments, cwd=world, says="free space", preexec_fn=limited)
    assert status(world, "west")["known"] == 0
    assert program(*arguments, cwd=world).returncode == 0
    assert status(world, "west")["known"] == MANY


@pytest.mark.long
def test_ten_million_rows_through_a_pipe(world: Path) -> None:
    """Made on the fly, taken in batch by batch: memory does not grow with the table."""
    rows = 10_000_000
    few = [row.split(",", 1)[1] for row in rows_of("x", 1000, 0.0, np.random.default_rng(8))]
    running = started(
        "observe", "-", "--schema=ward.toml", "--case=visit", "--node=big", cwd=world, stdin=subprocess.PIPE
    )
    assert running.stdin is not None
    running.stdin.write(HEADER)
    for at in range(0, rows, 1000):
        running.stdin.write("".join(f"{at + i},{row}\n" for i, row in enumerate(few)))
    running.stdin.close()
    running.stdin = None
    shown, said = running.communicate()
    assert running.returncode == 0, said
    assert f"{rows:,} new" in shown
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak < 2 * 1024 * 1024, f"{peak} KiB"
