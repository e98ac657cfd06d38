"""Outcome routing as a side of the trial: real nodes, counted bytes, k of subjects."""

from __future__ import annotations

import dataclasses

import numpy as np
from tests.trial.making import make

from outroute.datasets import Dataset, GroupKind
from outroute.node import Node
from outroute.packet import WEIGHT_ONE
from outroute.trial import Fold, Protocol, fold_of, prepare, split
from outroute.trial.routing import OutcomeRouting, pooled_same


def _fold(data: Dataset) -> Fold:
    prepared = prepare(data)
    protocol = Protocol.ROWS if data.group is None else Protocol.GROUPED
    parts = split(prepared.dataset.site, prepared.dataset.group, protocol=protocol, repeat=0, seed=1)
    return fold_of(prepared, parts, seed=1, protocol=protocol)


def _by_subject(data: Dataset, rows_each: int) -> Dataset:
    """The same rows, so many of each subject."""
    return dataclasses.replace(data, group=np.arange(len(data)) // rows_each, group_kind=GroupKind.SUBJECT, time=None)


def test_packets_leave_and_records_do_not() -> None:
    fold = _fold(make())
    answer = OutcomeRouting(k=5)(fold)
    fold.check("outroute", answer)
    for out in answer.out.values():
        assert out.packets > 0
        assert out.records_out == 0
        assert out.bytes_out > 0
    total = sum(out.bytes_out for out in answer.out.values())
    assert total > 512 * sum(out.packets for out in answer.out.values())


def test_the_same_seed_gives_the_same_answers() -> None:
    fold = _fold(make())
    first, second = OutcomeRouting(k=5)(fold), OutcomeRouting(k=5)(fold)
    for site, values in first.predictions.items():
        np.testing.assert_allclose(values, second.predictions[site], atol=1e-12)


def test_k_counts_subjects_where_rows_are_grouped_by_subject() -> None:
    seen: list[np.ndarray] = []

    def look(fold: Fold, site: str, node: Node) -> None:
        seen.append(node.outbox())

    rows_each = 6
    fold = _fold(_by_subject(make(sizes=(240, 180, 180)), rows_each))
    assert fold.by_subject
    OutcomeRouting(k=5, on_node=look)(fold)
    packets = np.concatenate(seen)
    assert len(packets)
    assert (packets["weight"] >= 5 * WEIGHT_ONE).all()
    # One row of a subject in a packet: a packet of n rows has n subjects.
    assert (packets["weight"] == packets["size"].astype(np.int64) * WEIGHT_ONE).all()


def test_too_few_subjects_send_nothing() -> None:
    fold = _fold(_by_subject(make(sizes=(200, 40, 200)), 20))
    answer = OutcomeRouting(k=5)(fold)
    small = sorted(fold.train)[1]
    assert len(fold.train[small]) > 5
    assert answer.out[small].packets == 0


def test_streaming_sends_packets_of_k_too() -> None:
    seen: list[np.ndarray] = []
    fold = _fold(make(sizes=(200, 200, 200)))
    OutcomeRouting(k=5, streaming=True, on_node=lambda f, s, n: seen.append(n.outbox()))(fold)
    packets = np.concatenate(seen)
    assert len(packets)
    assert (packets["size"] >= 5).all()


def test_pooled_through_our_own_estimator_answers_all_kinds() -> None:
    for kind in ("binary", "categorical", "numeric"):
        fold = _fold(make(outcome=kind))
        out = pooled_same(fold)
        assert {site: len(values) for site, values in out.items()} == {s: len(c) for s, c in fold.test.items()}
        assert all(np.isfinite(values).all() for values in out.values())
