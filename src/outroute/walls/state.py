"""What was measured is kept step by step: a run that was stopped goes on, and never with figures of another plan.

Below one directory: ``<digest of table and plan>/<wall>/<step>.json``, each file written whole or not at all. A step's
result may show records of the table (an attack's reconstructions do), so files are for their owner alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.walls.base import Plan

__all__ = ["FORMAT", "Kept", "State", "digest_of", "plain"]

FORMAT = 1
"""Of a kept step; another number is another digest."""

DIGEST_CHARACTERS = 32
"""Hexadecimal digits of the digest that name a directory: 128 bits."""

MAX_STEP_BYTES = 64 * 1024 * 1024
"""Of one step's file: pictures and curves are far smaller."""

_LIBRARIES = ("flwr", "fluke-fl", "numpy", "scikit-learn", "scipy", "torch", "xgboost", "xgboost-cpu")
"""Whose versions change figures."""

_SHOWING = {f"walls/{name}.py" for name in ("page", "pictures", "report", "runner")}
"""Modules that only show what was found."""

_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One finished step.

    Attributes:
        result: what it returned, through JSON.
        seconds: that it took when it was run.
    """

    result: Mapping[str, Any]
    seconds: float


class State:
    """The finished steps of one plan.

    Args:
        root: the directory; made when the first step is kept.
        digest: of table and plan, see :func:`digest_of`.
    """

    def __init__(self, root: Path, digest: str) -> None:
        self.root = root
        self.digest = digest
        self.folder = root / digest[:DIGEST_CHARACTERS]
        self.damaged: list[Path] = []
        """Files that could not be read as kept steps; they count as not done."""

    def _path(self, wall: str, key: str) -> Path:
        if not key or not _KEY.issuperset(key):
            raise DataError(f"the step {key!r} of the wall {wall!r} has letters that no key may have", code="walls.key")
        return self.folder / wall / (key.replace("/", "+") + ".json")

    def load(self, wall: str, key: str) -> Kept | None:
        """A step that was kept; None if there is none, or what is there is damaged or of another plan."""
        path = self._path(wall, key)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_STEP_BYTES + 1)
        except FileNotFoundError:
            return None
        try:
            if len(data) > MAX_STEP_BYTES:
                raise ValueError("too large")
            found = json.loads(data)
            if (found["format"], found["digest"], found["wall"], found["key"]) != (FORMAT, self.digest, wall, key):
                raise ValueError("another step")
            result, seconds = found["result"], float(found["seconds"])
            if not isinstance(result, dict) or not math.isfinite(seconds) or seconds < 0:
                raise ValueError("no result")
        except (ValueError, KeyError, TypeError, RecursionError):
            self.damaged.append(path)
            return None
        return Kept(result=result, seconds=seconds)

    def keep(self, wall: str, key: str, result: Mapping[str, Any], seconds: float) -> Kept:
        """Keep a step, whole or not at all; returns it as it will be read."""
        path = self._path(wall, key)
        seconds = round(seconds, 3)
        content = {"format": FORMAT, "digest": self.digest, "wall": wall, "key": key, "seconds": seconds}
        text = json.dumps(content | {"result": plain(result)}, allow_nan=False)
        if len(text) > MAX_STEP_BYTES:
            raise DataError(f"the step {key!r} of the wall {wall!r} found {len(text):,} bytes", code="walls.size")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(prefix=".step.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return Kept(result=json.loads(text)["result"], seconds=seconds)


def plain(value: Any) -> Any:
    """The same as plain JSON: arrays as lists, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(name): plain(of) for name, of in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [plain(item) for item in items]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def digest_of(plan: Plan) -> str:
    """SHA-256 of everything that a figure follows from: the table, the schema, the plan, and versions of libraries."""
    from outroute import __version__

    data = plan.dataset
    digest = hashlib.sha256()

    def add(name: str, value: bytes) -> None:
        digest.update(f"{name}:{len(value)}:".encode())
        digest.update(value)

    add("format", str(FORMAT).encode())
    add("schema", data.schema.id)
    arrays = {f"column {name}": values for name, values in data.columns.items()}
    arrays |= {"outcome": data.outcome, "site": data.site, "case": data.case}
    arrays |= {name: of for name, of in (("group", data.group), ("time", data.time)) if of is not None}
    for name, values in sorted(arrays.items()):
        add(name, _bytes(values))
    settings = {
        name: getattr(plan, name)
        for name in ("k", "epsilon", "repeats", "seed", "quick", "attacks", "divisions", "blows")
    }
    settings["deployment"] = {name: value for name, value in plan.deployment.to_json().items() if name != "given"}
    settings["group_kind"] = data.group_kind.value
    settings["versions"] = {"outroute": f"{__version__} {_sources()}"} | _versions()
    add("settings", json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def _bytes(values: np.ndarray[Any, Any]) -> bytes:
    if values.dtype == object:
        return json.dumps([None if value is None else str(value) for value in values.tolist()]).encode()
    return f"{values.dtype.str} {values.shape} ".encode() + np.ascontiguousarray(values).tobytes()


def _sources() -> str:
    """SHA-256 of the sources that figures come from; pages and commands only show them."""
    import outroute

    root = Path(outroute.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name not in _SHOWING and not name.startswith(("cli/", "service/")):
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
