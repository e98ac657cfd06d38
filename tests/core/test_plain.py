"""The fast look at packets agrees with the rules, whatever is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.packet import PACKET_BYTES, SIGNED_BYTES, PacketArray, Rejection, as_packets, check_structure, withdraw
from outroute.packet.accept import _check_rules
from outroute.packet.plain import CHUNK, plain, shape_of
from outroute.schema import MISSING, SCALE, Schema

from .making import ALICE, NOW, packets_of, schema_of, schemas


def _one(data: Any) -> tuple[Schema, PacketArray]:
    schema = data.draw(schemas())
    return schema, packets_of(schema, np.random.default_rng(data.draw(st.integers(0, 2**32))), 1)


def _agree(packets: PacketArray, schema: Schema, now: int) -> None:
    """Plain means allowed by every rule; what is allowed is plain, but for withdrawals and the rarer distiller."""
    shape = shape_of(schema)
    fast = np.concatenate([plain(packets[at : at + CHUNK], shape, now) for at in range(0, len(packets), CHUNK)])
    allowed = _check_rules(packets, schema, now) == Rejection.NONE
    usual = (packets["flags"] == 0) & (packets["distiller"] == int(schema.privacy.distiller))
    assert np.array_equal(fast, allowed & usual)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bit_is_judged_differently(data: Any) -> None:
    """Every one of the signed bits flipped in turn, at a random moment: the two judge alike."""
    schema, one = _one(data)
    bits = np.unpackbits(np.frombuffer(one.tobytes(), dtype=np.uint8))
    rows = np.repeat(bits[None, :], SIGNED_BYTES * 8, axis=0)
    rows[np.arange(len(rows)), np.arange(len(rows))] ^= 1
    flipped = as_packets(np.packbits(rows, axis=1).tobytes())
    late = int(one["bucket"][0]) + schema.time.bucket_seconds + int(one["lifetime"][0])
    for now in (NOW, late - 1, late, int(one["bucket"][0]) - 600, int(one["bucket"][0]) - 601):
        _agree(flipped, schema, now)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_number_is_judged_differently(data: Any) -> None:
    schema, one = _one(data)
    rows = np.repeat(one, 64)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    edges = [0, 1, 2, 5, 65_535, 65_536, 2**31, 2**32 - 1]
    for name in ("lifetime", "size", "weight", "cell"):
        rows[name][rng.random(64) < 0.2] = rng.choice(edges)
    rows["bucket"][rng.random(64) < 0.2] = rng.choice([-(2**63), -(2**40), 2**40, 2**63 - 1, 0])
    hit = rng.random(64) < 0.2
    rows["outcome"][hit, rng.integers(0, 10)] = rng.choice(edges)
    hit = rng.random(64) < 0.3
    rows["conditions"][hit, rng.integers(0, 116)] = rng.choice([0, 1, SCALE - 1, SCALE, MISSING])
    rows["distiller"][rng.random(64) < 0.2] = rng.integers(0, 4)
    _agree(rows, schema, NOW)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_withdrawals_among_packets(data: Any) -> None:
    """A withdrawal is no plain packet, and is accepted by the rules; so are packets around it, across chunks."""
    schema, one = _one(data)
    many = np.repeat(one, CHUNK + 3)
    gone = [0, CHUNK - 1, CHUNK, CHUNK + 2]
    many[gone] = withdraw(one, ALICE)
    many["magic"][1] ^= 1
    reason = check_structure(many, schema, NOW)
    assert reason[1] == Rejection.MAGIC
    assert not np.delete(reason, 1).any()
    assert not plain(many[:CHUNK], shape_of(schema), NOW)[[0, 1, CHUNK - 1]].any()


@pytest.mark.parametrize("step", [2, 3])
def test_packets_that_lie_apart_and_askew(step: int) -> None:
    """Neither gaps between packets nor an odd start in memory make a difference."""
    schema = schema_of()
    apart = packets_of(schema, np.random.default_rng(step), 20)[::step]
    assert not check_structure(apart, schema, NOW).any()
    askew = np.frombuffer(b"x" + apart.tobytes(), dtype=apart.dtype, offset=1)
    assert not check_structure(askew, schema, NOW).any()
    assert len(askew.tobytes()) == len(askew) * PACKET_BYTES
