"""Packets and own observations -> the arrays that the synthesis works on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray

from outroute.distill import plan_of
from outroute.identity import node_id
from outroute.node.emitting import in_order
from outroute.packet import (
    SQUARE_HALF,
    STEPS,
    Flag,
    PacketArray,
    class_counts,
    moments,
    noisy_sums,
    region_of,
    verify_signatures,
)
from outroute.schema import Distiller, Schema, unit_scale
from outroute.synthesis import Evidence, Records, steady_counts, steady_moments

__all__ = ["evidence_of", "fresh_rows", "groups_of", "keys_of", "records_of", "verify_in_threads"]

_PART = 16
"""Packets that a thread takes at a time: almost a millisecond of checking, and at the end nobody waits for longer."""
_GROUPS_LEAST = 8
"""Distinct time buckets from which own records are cross-fitted by bucket instead of by subject."""


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads beside the one that asks, one for each other core."""
    return ThreadPoolExecutor(max(_cores() - 1, 1), thread_name_prefix="outroute-signatures")


@cache
def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def verify_in_threads(packets: PacketArray) -> NDArray[np.bool_]:
    """Signatures checked on all cores (the check releases the interpreter), bool ``[n]``.

    Threads take part after part, so that one that gets less of its core does less. The calling thread is one of them:
    helpers that are busy, or died with the process that this one was forked from, hold nobody up.
    """
    threads = min(_cores(), len(packets) // _PART)
    if threads < 2:
        return verify_signatures(packets)
    raw = np.ascontiguousarray(packets)
    found = np.zeros(len(raw), dtype=np.bool_)
    left = deque(range(0, len(raw), _PART))

    def work() -> None:
        while True:
            try:
                at = left.popleft()
            except IndexError:
                return
            found[at : at + _PART] = verify_signatures(raw[at : at + _PART])

    helping = [_helpers().submit(work) for _ in range(threads - 1)]
    work()
    for helper in helping:
        if not helper.cancel():
            helper.result()
    return found


def keys_of(packets: PacketArray) -> list[bytes]:
    """Authors' keys, each once."""
    return [bytes(key) for key in np.unique(np.ascontiguousarray(packets["author"]).view("V32")[:, 0])]


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
    size = packets["size"].astype(np.float64)
    if schema.privacy.distiller is Distiller.PRIVATE:
        size, counts, mean, variance = _without_noise(schema, packets, index.astype(np.int64))
    elif schema.outcome.has_classes:
        counts = _unflipped(schema, class_counts(schema, packets))
    else:
        mean, variance = moments(schema, packets)
    return Evidence(
        x=unit_scale(schema, packets["conditions"][:, : schema.width]),
        node=index.astype(np.int64),
        nodes=tuple(node_id(bytes(k)) for k in unique),
        size=size,
        counts=counts,
        mean=mean,
        variance=variance,
        bucket=packets["bucket"].astype(np.int64),
        cell=packets["cell"].astype(np.int64),
    )


def _unflipped(schema: Schema, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Class counts as they were, as far as they can be told, where the schema has outcomes drawn by lot.

    Of n members, a share p was drawn evenly among C classes: n[c] p / C is expected of each class. What is left after
    taking that away, but no less than nothing, in proportion to n: exact for large cohorts, while small ones keep some
    of the rare class too much. Source: Warner 1965, "Randomized response".
    """
    flip = float(schema.privacy.flip)
    if not flip or not len(counts):
        return counts
    size = counts.sum(axis=1, keepdims=True)
    left = np.maximum(counts - size * flip / counts.shape[1], 0.0)
    total = left.sum(axis=1, keepdims=True)
    return np.where(total > 0, left / np.where(total > 0, total, 1.0) * size, counts)


def _without_noise(
    schema: Schema, packets: PacketArray, node: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Size, class counts, mean and variance of packets with noise, as far as they say something."""
    sums = noisy_sums(schema, packets).astype(np.float64)
    place = region_of(schema, packets["conditions"][:, : schema.width])
    variances = plan_of(schema).variances
    told = (sums != 0).any(axis=1).astype(np.float64) if schema.privacy.k > 1 else None
    if schema.outcome.has_classes:
        made = steady_counts(sums, node, place, variances[0], told)
        return made.size, made.size[:, None] * made.outcome, None, None
    assert schema.outcome.low is not None
    assert schema.outcome.high is not None
    low, high = float(schema.outcome.low), float(schema.outcome.high)
    unit = np.stack([sums[:, 0], sums[:, 1] / STEPS, (sums[:, 2] + SQUARE_HALF * sums[:, 0]) / STEPS], axis=1)
    # The square is told less half its range, so that the noise on the count stands in it too.
    half = SQUARE_HALF / STEPS
    noise = (variances[0], variances[1] / STEPS**2, variances[2] / STEPS**2 + half**2 * variances[0])
    made = steady_moments(unit, node, place, noise, told)
    return made.size, None, low + made.outcome[:, 0] * (high - low), made.within * (high - low) ** 2


def groups_of(subject: NDArray[np.int64], bucket: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """What must not be split in cross-fitting, int64 ``[n]``, and whether it is the time bucket.

    Subjects where some have several observations; else time buckets where there are enough of them; else each
    observation for itself.
    """
    if len(np.unique(subject)) < len(subject):
        # Numbered as they came: the journal's own numbers are hashes under a secret, and would draw other folds.
        return in_order(subject), False
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


def fresh_rows(before: Records, now: Records) -> NDArray[np.int64] | None:
    """Own records that have become known since, int64 ``[f]``, rows of ``now``; None when one of before is gone."""
    from collections import Counter

    def keys(own: Records) -> list[bytes]:
        rows = np.ascontiguousarray(np.column_stack([own.x, own.y]))
        return [row.tobytes() for row in rows]

    left = Counter(keys(before))
    fresh = []
    for row, key in enumerate(keys(now)):
        if left[key] > 0:
            left[key] -= 1
        else:
            fresh.append(row)
    if len(fresh) != now.n - before.n:
        return None
    return np.array(fresh, dtype=np.int64)
