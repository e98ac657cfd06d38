"""The plug-in of ``examples/shared_directory``, as its author tests it, and what a broken one does."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from outroute.errors import TransportError
from outroute.transports.registry import link_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "shared_directory"
sys.path.insert(0, str(EXAMPLE))

from test_shared_directory import TestMembersOverASharedDirectory, TestSharedDirectoryLink  # noqa: E402

sys.path.remove(str(EXAMPLE))
__all__ = ["TestMembersOverASharedDirectory", "TestSharedDirectoryLink"]


def install(folder: Path, *, target: str = "") -> None:
    """Lay the example out as an installer does: its module, and what says which entry points it has."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = project["entry-points"]["outroute.transports"]
    information = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = [f"{name} = {target or value}" for name, value in points.items()]
    (information / "entry_points.txt").write_text("\n".join(["[outroute.transports]", *lines, ""]), encoding="utf-8")
    shutil.copy(EXAMPLE / "outroute_shared_directory.py", folder)


@pytest.mark.parametrize("url", ["shared://", "shared:///no/such/directory", "shared://127.0.0.1:1/tmp"])
def test_an_address_without_a_directory_is_said_in_one_line(url: str) -> None:
    with pytest.raises(TransportError, match="write shared:///DIRECTORY") as caught:
        link_of(url)
    assert "\n" not in str(caught.value)


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path.parent / f"{tmp_path.name}-site"
    install(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )
    importlib.invalidate_caches()
    return folder
