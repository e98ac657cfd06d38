"""Packets and own observations -> the arrays that the synthesis works on."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from outroute.identity import node_id
from outroute.packet import Flag, PacketArray, class_counts, moments, verify_signatures
from outroute.schema import Schema, unit_scale
from outroute.synthesis import Evidence, Records

__all__ = ["evidence_of", "groups_of", "records_of", "verify_in_threads"]

_PARALLEL_FROM = 512
"""Packets from which a second thread pays for itself: about 20 ms of verification."""
_GROUPS_LEAST = 8
"""Distinct time buckets from which own records are cross-fitted by bucket instead of by subject."""


def verify_in_threads(packets: PacketArray) -> NDArray[np.bool_]:
    """Signatures checked on all cores (the check releases the interpreter), bool ``[n]``."""
    workers = os.cpu_count() or 1
    if len(packets) < _PARALLEL_FROM or workers == 1:
        return verify_signatures(packets)
    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(verify_signatures, np.array_split(packets, workers))))


def evidence_of(schema: Schema, packets: PacketArray, origin: Callable[[bytes], bytes] = lambda key: key) -> Evidence:
    """Accepted packets of others as evidence; withdrawals say nothing and are left out.

    Args:
        schema: the schema.
        packets: accepted ones.
        origin: the first key of the chain that an author's key belongs to: a node that changed its key is one node.
    """
    packets = packets[(packets["flags"] & int(Flag.WITHDRAWAL)) == 0]
    keys = np.ascontiguousarray(packets["author"]).view("V32")[:, 0]
    authors, which = np.unique(keys, return_inverse=True)
    first = np.array([origin(bytes(key)) for key in authors], dtype="V32")
    unique, index = np.unique(first, return_inverse=True)
    index = index.reshape(-1)[which.reshape(-1)]
    counts = mean = variance = None
    if schema.outcome.has_classes:
        counts = class_counts(schema, packets)
    else:
        mean, variance = moments(schema, packets)
    return Evidence(
        x=unit_scale(schema, packets["conditions"][:, : schema.width]),
        node=index.astype(np.int64),
        nodes=tuple(node_id(bytes(k)) for k in unique),
        size=packets["size"].astype(np.float64),
        counts=counts,
        mean=mean,
        variance=variance,
        bucket=packets["bucket"].astype(np.int64),
        cell=packets["cell"].astype(np.int64),
    )


def groups_of(subject: NDArray[np.int64], bucket: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """What must not be split in cross-fitting, int64 ``[n]``, and whether it is the time bucket.

    Subjects where some have several observations; else time buckets where there are enough of them; else each
    observation for itself.
    """
    _, first, index = np.unique(subject, return_index=True, return_inverse=True)
    if len(first) < len(subject):
        # Numbered as they came: the journal's own numbers are hashes under a secret, and would draw other folds.
        place = np.empty(len(first), dtype=np.int64)
        place[np.argsort(first)] = np.arange(len(first))
        return place[index.reshape(-1)], False
    if len(np.unique(bucket)) >= _GROUPS_LEAST:
        return bucket, True
    return np.arange(len(subject), dtype=np.int64), False


def records_of(
    schema: Schema,
    codes: NDArray[np.uint16],
    outcome: NDArray[np.float64],
    subject: NDArray[np.int64],
    bucket: NDArray[np.int64],
) -> Records:
    """Own observations with known outcomes as records."""
    group, timed = groups_of(subject, bucket)
    return Records(x=unit_scale(schema, codes), y=outcome, group=group, timed=timed)
