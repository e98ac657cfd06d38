"""A data set as its sites observed it: what is distilled, audited and attacked."""

from __future__ import annotations

import numpy as np

from outroute.datasets.base import Dataset, GroupKind
from outroute.distill import Observations
from outroute.schema import encode, encode_outcome, facet_index

__all__ = ["observations_of"]


def observations_of(data: Dataset) -> dict[str, Observations]:
    """A data set's observations with a known outcome, by site; without subjects each row is one of its own."""
    schema = data.schema
    codes, outcome = encode(schema, data.columns).codes, encode_outcome(schema.outcome, data.outcome)
    seconds = schema.time.bucket_seconds
    when = np.zeros(len(data), dtype=np.int64) if data.time is None else data.time
    by_subject = data.group is not None and data.group_kind is GroupKind.SUBJECT
    subject = data.group if by_subject and data.group is not None else np.arange(len(data), dtype=np.int64)
    facet = facet_index(schema, codes)
    out = {}
    for site in data.sites:
        rows = np.flatnonzero((data.site == site) & ~np.isnan(outcome))
        out[site] = Observations(
            codes=codes[rows],
            outcome=outcome[rows],
            subject=subject[rows].astype(np.int64),
            bucket=when[rows] - when[rows] % seconds,
            facet=facet[rows],
        )
    return out
