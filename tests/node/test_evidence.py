"""Packets as the synthesis reads them."""

from __future__ import annotations

import os
import sys
import threading

import numpy as np
import pytest

from outroute.identity import node_id
from outroute.node import evidence as evidence_module
from outroute.node.evidence import evidence_of, verify_in_threads
from store.making import SCHEMA, identity, make_packets


def test_a_node_that_changed_its_key_is_one_node() -> None:
    before, after, other = (identity(number).public_key for number in (1, 2, 3))
    packets = np.concatenate([make_packets(4, author=number) for number in (1, 2, 3)])
    apart = evidence_of(SCHEMA, packets)
    assert set(apart.nodes) == {node_id(key) for key in (before, after, other)}
    joined = evidence_of(SCHEMA, packets, lambda key: before if key == after else key)
    assert set(joined.nodes) == {node_id(before), node_id(other)}
    of = [joined.nodes[i] for i in joined.node]
    assert of == [node_id(before)] * 8 + [node_id(other)] * 4
    assert (joined.size == apart.size).all()


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
def test_threads_find_the_same_signatures_wrong(count: int) -> None:
    packets = make_packets(count)
    wrong = [i for i in range(count) if i % 7 == 3]
    packets["signature"][wrong, 5] ^= 1
    assert np.flatnonzero(~verify_in_threads(packets)).tolist() == wrong


def test_who_asks_for_signatures_does_not_wait_for_busy_helpers() -> None:
    packets = make_packets(300)
    packets["signature"][299, 0] ^= 1
    helpers, free = evidence_module._helpers(), threading.Event()
    busy = [helpers.submit(free.wait, 60.0) for _ in range(helpers._max_workers)]
    try:
        assert np.flatnonzero(~verify_in_threads(packets)).tolist() == [299]
        assert not any(one.done() for one in busy)
    finally:
        free.set()


@pytest.mark.skipif(not hasattr(os, "fork") or sys.version_info >= (3, 12), reason="needs to fork beside threads")
def test_a_process_that_was_forked_has_no_helpers_and_needs_none() -> None:
    packets = make_packets(128)
    assert verify_in_threads(packets).all()
    child = os.fork()
    if not child:
        os._exit(0 if verify_in_threads(packets).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
