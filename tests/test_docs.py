"""What the documentation shows is run.

A fenced block of ``bash`` or ``python`` that stands right under a line ``<!-- runs -->`` is run here, in the order of
its page. All blocks of one page share one temporary folder, and its Python blocks share their names. The folder holds
the tables of :func:`tables`, which pages may use without saying where they come from:

========================================  ==============================================================
``north.csv``, ``south.csv``              80 visits each of 40 patients: visit, patient, age, sex, crp, sick
``visits.csv``                            120 visits with the columns hospital (three of them) and day besides
``reference.csv``                         40 rows that everybody may see, same columns as ``north.csv``
========================================  ==============================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^<!-- runs -->[ \t]*\n+```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECONDS = 240


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """(language, text) of the blocks that are run."""
    return [(m[1], m[2]) for m in BLOCK.finditer(page.read_text(encoding="utf-8"))]


RUNNING = [page for page in PAGES if page.exists() and blocks_of(page)]


def tables(folder: Path) -> None:
    """Write the example tables."""
    rng = np.random.default_rng(11)

    def rows(site: str, n: int, base: float) -> list[str]:
        out = []
        for i in range(n):
            age, sex, crp = int(rng.integers(18, 91)), "fm"[int(rng.integers(2))], int(rng.integers(1, 200))
            risk = 1 / (1 + np.exp(-(base + (age - 55) / 15 + (crp - 100) / 50)))
            sick = "yes" if rng.random() < risk else "no"
            day = np.datetime64("2025-01-01") + int(rng.integers(0, 360))
            out.append(f"{site}-{i},{site}-p{i // 2},{age},{sex},{crp},{sick},{site},{day}")
        return out

    def write(name: str, lines: list[str], *, whole: bool) -> None:
        header = "visit,patient,age,sex,crp,sick,hospital,day"
        kept = [line if whole else ",".join(line.split(",")[:6]) for line in [header, *lines]]
        (folder / name).write_text("\n".join(kept) + "\n", encoding="utf-8")

    write("north.csv", rows("north", 80, 0.0), whole=False)
    write("south.csv", rows("south", 80, 0.5), whole=False)
    write("reference.csv", rows("reference", 40, 0.2), whole=False)
    write("visits.csv", rows("basel", 40, 0.0) + rows("bern", 40, 0.3) + rows("zug", 40, -0.3), whole=True)


@pytest.mark.skipif(os.name != "posix" or shutil.which("bash") is None, reason="the examples are for bash")
@pytest.mark.timeout(4 * SECONDS)
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """Each page is one script of bash, and one Python process wherever Python blocks stand."""
    tables(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "outroute"
    command.write_text(f"#!{sys.executable}\nfrom outroute.cli import main\nmain()\n", encoding="utf-8")
    command.chmod(0o755)
    python = programs / "python"  # no link: one would not find the packages of an environment
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    before = ""
    for language, text in blocks_of(page):
        if language == "bash":
            arguments = ["bash", "-euo", "pipefail", "-c", text]
        else:
            arguments = [sys.executable, "-W", "error", "-c", before + text]
            before += text  # names live on; what a block did to files, it must be able to do again
        with subprocess.Popen(
            arguments,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, problem = process.communicate(timeout=SECONDS)
            finally:
                with contextlib.suppress(ProcessLookupError):  # a block that fails half-way leaves its nodes behind
                    os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, f"{page.name}:\n{text}\n{said}\n{problem}"


def test_the_pages_have_examples_that_run() -> None:
    """So that a change of the marker cannot silence the test above."""
    roles = [ROOT / "docs" / f"{role}.md" for role in ("privacy-officer", "administrator", "founders")]
    assert {ROOT / "README.md", *roles} <= set(RUNNING)


@pytest.mark.parametrize("page", ["cli", "packet", "walls", "results"])
def test_what_is_written_by_programs_is_up_to_date(page: str) -> None:
    program = [sys.executable, str(ROOT / "docs" / f"generate_{page}.py"), "--check"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_packet_is_the_bytes_that_it_says() -> None:
    """The hex column is read as a reader would, without the program that wrote it: 512 bytes of the digest named."""
    text = (ROOT / "docs" / "privacy-officer.md").read_text(encoding="utf-8")
    data = b""
    for first, column in re.findall(r"^\| (\d+)(?:-\d+)? \| (`[0-9a-f].*?) \|", text, re.MULTILINE):
        assert int(first) == len(data)
        zeros = re.fullmatch(r"`00` \((\d+) times\)", column)
        data += bytes(int(zeros[1])) if zeros else bytes.fromhex("".join(re.findall(r"`([0-9a-f ]+)`", column)))
    assert len(data) == 512
    named = re.search(r"digest `([0-9a-f]{64})`", text)
    assert named is not None
    assert hashlib.sha256(data).hexdigest() == named[1]


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
