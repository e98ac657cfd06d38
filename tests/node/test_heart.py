"""Four real hospitals: one question answered in full."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from node.making import ALL_LEAVE, NOW, Clock, identity
from outroute.node import Node
from outroute.node.local import guard_for, join_local
from outroute.transports import LocalNetwork


@pytest.mark.skipif(not os.environ.get("OUTROUTE_DATA"), reason="set OUTROUTE_DATA")
def test_one_question_at_four_hospitals() -> None:
    from outroute.datasets import load

    data = load("heart", k=5)
    clock, nodes = Clock(), {}
    network, guard = LocalNetwork(clock=clock), guard_for(data.schema)
    names = sorted(set(data.site))
    for name in names:
        who = identity(name)
        transport = join_local(network, who, data.schema, guard=guard)
        nodes[name] = Node(data.schema, transport=transport, identity=who, clock=clock, approval=ALL_LEAVE)
    try:
        for name, node in nodes.items():
            rows = np.flatnonzero(data.site == name)
            table = {field: values[rows] for field, values in data.columns.items()}
            table |= {"patient": data.case[rows], data.schema.outcome.name: data.outcome[rows]}
            report = node.observe(table, case="patient")
            assert (report.added, report.refused) == (len(rows), 0)
            assert node.distil().packets > 0
            done = node.publish()
            assert done.acknowledged == done.sent
        question = {"age": 63, "sex": "male", "chest_pain": "asymptomatic", "st_depression": 2.3, "vessels": 2}
        insight = nodes["hungarian"].ask(question, case_id="new")
        answer = json.loads(json.dumps(insight.to_dict(), allow_nan=False))
        assert answer["estimate"] > 0.5
        assert 0 <= answer["interval"]["low"] <= answer["estimate"] <= answer["interval"]["high"] <= 1
        assert answer["support"] > 5
        assert answer["abstained"] is None
        others = {nodes[name].id.hex() for name in names if name != "hungarian"}
        listed = {source["node"] for source in answer["contributors"]}
        assert len(listed & others) >= 2
        assert listed <= others | {"own"}
        assert {source["node"] for source in answer["disagreeing"]} <= others
        assert all("estimate" in source for source in answer["disagreeing"])
        assert answer["anchor"].startswith("own outcomes")
        assert sum(c["weight"] for c in answer["calculations"].values()) == pytest.approx(1.0)
        assert answer["reach"]["packets"] > 0
        assert answer["reach"]["refused"] == 0
        assert nodes["hungarian"].confirm("new", "disease").name == "CONFIRMED"
        assert clock.now == NOW
    finally:
        for node in nodes.values():
            node.close()
