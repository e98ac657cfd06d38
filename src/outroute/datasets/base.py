"""What every loader returns: one table of real records from several sites, and where it came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["DATA_VARIABLE", "Dataset", "GroupKind", "data_file"]

DATA_VARIABLE = "OUTROUTE_DATA"
"""Environment variable that names the directory with the data sets ``heart``, ``beijing``, ``azpro``, ``opt``."""


class GroupKind(StrEnum):
    """What rows of one group share, and hence must be held out together."""

    NONE = "none"
    DAY = "day"
    WEEK = "week"
    SUBJECT = "subject"
    BUCKET = "time bucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One table of records from several sites.

    Attributes:
        name: short name, for example ``"heart"``.
        columns: one array of n values per field of the schema; numbers are float64 with NaN for missing, categories
            are object arrays of strings with None for missing.
        outcome: n outcomes: object array of class names with None for "not known", or float64 with NaN for
            "not known" when the outcome is a number (in the schema's outcome unit).
        site: n site names (object array of strings).
        case: n case identifiers, unique within a site (object array of strings).
        group: n int64, rows that are held out together have the same number, at every site; None when rows are
            exchangeable.
        group_kind: what rows of one group share.
        time: n int64, seconds since 1970 at which the case was observed, or None when the records carry no date.
        schema: declared by hand, with ranges from knowledge of the field and never from this table's extremes.
        provenance: where the records come from.
        licence: under which terms they may be used.
        notes: what the loader left out, and other things that a reader of a figure must know.
    """

    name: str
    columns: Mapping[str, NDArray[Any]]
    outcome: NDArray[Any]
    site: NDArray[np.object_]
    case: NDArray[np.object_]
    group: NDArray[np.int64] | None
    group_kind: GroupKind
    time: NDArray[np.int64] | None
    schema: Schema
    provenance: str
    licence: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.site)
        lengths = {"outcome": len(self.outcome), "case": len(self.case)}
        lengths |= {f"column {name!r}": len(values) for name, values in self.columns.items()}
        if self.group is not None:
            lengths["group"] = len(self.group)
        if self.time is not None:
            lengths["time"] = len(self.time)
        wrong = [f"{what} has {length}" for what, length in lengths.items() if length != n]
        if wrong:
            raise DataError(
                f"data set {self.name!r} has {n} rows, but {', '.join(wrong)}: give every array one value per row",
                code="data.length",
            )
        if (self.group is None) != (self.group_kind is GroupKind.NONE):
            raise DataError(f"data set {self.name!r}: give both group and group_kind, or neither", code="data.group")

    def __len__(self) -> int:
        """Number of rows, those without an outcome included."""
        return len(self.site)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, sorted."""
        return tuple(sorted(set(self.site.tolist())))

    def rows(self, which: NDArray[Any]) -> Dataset:
        """The same data set with only some of its rows (a boolean mask or row numbers)."""
        return Dataset(
            name=self.name,
            columns={name: values[which] for name, values in self.columns.items()},
            outcome=self.outcome[which],
            site=self.site[which],
            case=self.case[which],
            group=None if self.group is None else self.group[which],
            group_kind=self.group_kind,
            time=None if self.time is None else self.time[which],
            schema=self.schema,
            provenance=self.provenance,
            licence=self.licence,
            notes=self.notes,
        )


def data_file(*parts: str, root: Path | None = None) -> Path:
    """Path of one file under ``OUTROUTE_DATA``, or under another directory.

    Raises:
        DataError: the variable is not set (``data.root``), or the file is not there (``data.file``).
    """
    named = os.environ.get(DATA_VARIABLE, "") if root is None else str(root)
    if not named:
        raise DataError(
            f"set {DATA_VARIABLE} to the directory that holds {parts[0]!r} "
            f"(expected there: {'/'.join(parts)}); `outroute data list` says how to get it, and `outroute demo` needs "
            "no data directory",
            code="data.root",
        )
    path = Path(named).joinpath(*parts)
    if not path.exists():
        raise DataError(
            f"{path} does not exist: the data directory ({DATA_VARIABLE}) is {named!r}, and it must hold "
            f"{'/'.join(parts)}",
            code="data.file",
        )
    return path
