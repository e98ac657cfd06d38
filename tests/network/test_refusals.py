"""Who sends rubbish waits; who makes a mistake now and then does not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from outroute.transports import Frame, FrameReason, Kind, Receipt, encode
from outroute.transports.refusals import HELD_UP_SECONDS, REFUSALS_FREE, Refusals

REFUSED = [encode(Frame(kind=Kind.REFUSED, detail=FrameReason.BODY))]


def receipts(*given: Receipt) -> list[bytes]:
    return [encode(Frame(kind=Kind.RECEIPTS, receipts=np.array([[one, 0] for one in given], dtype=np.uint8)))]


def test_waits_grow_to_their_bound_and_end_with_good_frames() -> None:
    refusals = Refusals()
    waits = [refusals.wait(b"a", REFUSED) for _ in range(30)]
    assert waits[:REFUSALS_FREE] == [0.0] * REFUSALS_FREE
    assert all(one < other for one, other in pairwise(waits[3:9]))
    assert waits[-1] == HELD_UP_SECONDS
    assert refusals.wait(b"b", REFUSED) == 0.0
    for _ in range(60):
        assert refusals.wait(b"a", receipts(Receipt.DURABLE)) == 0.0
    assert refusals.wait(b"a", REFUSED) == 0.0


def test_a_frame_with_a_few_bad_packets_is_none() -> None:
    refusals = Refusals()
    mixed = receipts(Receipt.DURABLE, Receipt.REJECTED, Receipt.NOT_MINE)
    assert not any(refusals.wait(b"a", mixed) for _ in range(50))
    worse = receipts(Receipt.REJECTED, Receipt.REJECTED, Receipt.DURABLE)
    assert any(refusals.wait(b"a", worse) for _ in range(10))
    assert not any(refusals.wait(b"b", replies) for replies in ([], [b""], [b"nonsense"]) for _ in range(10))
