"""Packets as the synthesis reads them."""

from __future__ import annotations

import numpy as np

from outroute.identity import node_id
from outroute.node.evidence import evidence_of
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
