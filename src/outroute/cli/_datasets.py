"""A user's table for the commands that compare or attack: ``evaluate`` and ``audit``."""

from __future__ import annotations

import dataclasses
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outroute.datasets import Dataset
    from outroute.tables.mapping import TableMapping

__all__ = ["DEFAULT_K", "LEAST_K", "read_dataset"]

DEFAULT_K, LEAST_K = 5, 2
"""Subjects in a packet where no schema says it, and the least that a drafted schema may say."""


def read_dataset(
    paths: list[str],
    outcome: str,
    site: str | None,
    names: dict[str, tuple[str, ...]],
    positive: str | None,
    drop: tuple[str, ...],
    schema: Path | None,
    mapping: Path | None,
    k: int | None,
    columns: tuple[str, ...],
    delimiter: str | None,
) -> Dataset:
    """A user's table as a data set: with the schema given, or one drafted from the table.

    Args:
        paths: one file, or one for each site.
        outcome: column.
        site: column that tells sites apart; None: one site (or one for each file).
        names: columns by purpose: "time", "subject", "case".
        positive: makes the outcome yes or no.
        drop: columns to leave out.
        schema: file; None: drafted.
        mapping: file.
        k: floor of a drafted schema.
        columns: names, for files without a header.
        delimiter: between fields.
    """
    from outroute import schema as schemas
    from outroute.tables.infer import infer
    from outroute.tables.mapping import default_mapping, load_mapping
    from outroute.tables.reading import SITE_COLUMN, read_sites, read_table
    from outroute.trial.table import dataset_of

    if len(paths) == 1:
        read = read_table(paths[0], columns=columns or None, delimiter=delimiter)
    else:
        site = site or SITE_COLUMN
        read = read_sites(paths, site_column=site, columns=columns or None, delimiter=delimiter)
    notes: list[str] = []
    if schema is not None:
        agreed = schemas.load(schema)
        own = load_mapping(mapping, agreed) if mapping else default_mapping(agreed, outcome=outcome, case=names["case"])
        own = _completed(own, names, positive if mapping is None else None)
    else:
        draft = infer(
            read,
            outcome=outcome,
            site=site,
            drop=drop,
            positive=positive,
            k=max(k or DEFAULT_K, LEAST_K),
            now=int(clock.time()),
            time=names["time"],
            subject=names["subject"],
            case=names["case"],
        )
        agreed, own = draft.schema, draft.mapping
        notes.append(
            f"no schema was given: one was drafted from the whole table ({len(agreed.fields)} fields; ranges rounded "
            "outward, outcomes not looked at). See it with outroute schema infer"
        )
        notes += [str(note) for note in draft.notes if note.kind == "look"]
    name = Path(paths[0]).name if len(paths) == 1 else f"{len(paths)} files"
    return dataset_of(name, read, agreed, own, site=site, notes=notes)


def _completed(own: TableMapping, names: dict[str, tuple[str, ...]], positive: str | None) -> TableMapping:
    """A mapping with what the options say besides."""
    from outroute.tables.mapping import Rule, TimeMapping

    if names["subject"]:
        own = dataclasses.replace(own, subject=names["subject"])
    if names["time"] and own.time is None:
        own = dataclasses.replace(own, time=TimeMapping(columns=names["time"]))
    if positive is not None:
        rule = Rule.parse(positive)
        own = dataclasses.replace(own, outcome=dataclasses.replace(own.outcome, positive_when=rule))
    return own
