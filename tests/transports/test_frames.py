"""Frames: one encoding, total reading, bounded size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.identity import STATEMENT_BYTES
from outroute.packet import PACKET_DTYPE
from outroute.placement import Wanted
from outroute.transports import FRAME_BYTES, FRAME_PACKETS, Frame, FrameReason, Kind, Rejected, decode, encode
from outroute.transports.frames import (
    ADDRESSES_PER_FRAME,
    ANNOUNCEMENT_BYTES,
    AUTHORS_PER_FRAME,
    IDENTITIES_PER_FRAME,
    Flag,
)

HEADER = 72

keys = st.binary(min_size=32, max_size=32)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(Kind))
    common = {
        "kind": kind,
        "sequence": draw(st.integers(0, 2**64 - 1)),
        "cause": draw(st.binary(min_size=16, max_size=16)),
        "schema": draw(keys),
    }
    cells = draw(st.integers(0, 5))
    if kind in (Kind.LIST, Kind.LISTING):
        cells = 1
    names = tuple(draw(st.lists(keys, min_size=cells, max_size=cells)))
    counts = tuple(draw(st.lists(st.integers(1, 9), min_size=cells, max_size=cells)))
    packets = np.frombuffer(np.random.default_rng(cells).bytes(512 * sum(counts)), dtype=PACKET_DTYPE)
    digests = tuple(draw(st.lists(keys, min_size=cells, max_size=cells)))
    match kind:
        case Kind.DEPOSIT:
            flags = draw(st.sampled_from([Flag.NONE, Flag.REPAIR]))
            return Frame(**common, flags=flags, addresses=names, counts=counts, packets=packets)
        case Kind.RECEIPTS:
            return Frame(**common, receipts=np.arange(2 * cells, dtype=np.uint8).reshape(-1, 2))
        case Kind.ASK | Kind.COMPARE:
            authors = sorted(draw(st.sets(st.integers(0, 2**64 - 1), max_size=4)))
            wanted = tuple(Wanted(author, draw(st.integers(0, 65535))) for author in authors)
            return Frame(**common, addresses=names, cap=draw(st.integers(0, 65535)), wanted=wanted)
        case Kind.ANSWER:
            left = tuple(draw(st.lists(st.integers(0, 2**32 - 1), min_size=cells, max_size=cells)))
            flags = draw(st.sampled_from([Flag.NONE, Flag.MORE]))
            return Frame(
                **common,
                flags=flags,
                addresses=names,
                counts=counts,
                left_out=left,
                digests=digests,
                packets=packets,
            )
        case Kind.DIGESTS:
            return Frame(**common, addresses=names, digests=digests)
        case Kind.LISTING:
            return Frame(**common, addresses=names, listed=tuple((i % 3, key) for i, key in enumerate(digests)))
        case Kind.ANNOUNCE:
            return Frame(**common, announcements=tuple(draw(st.lists(st.binary(max_size=300), max_size=4))))
        case Kind.STATEMENTS:
            return Frame(
                **common,
                flags=draw(st.sampled_from([Flag.NONE, Flag.MORE])),
                statements=tuple(draw(st.lists(st.binary(max_size=STATEMENT_BYTES), max_size=4))),
                journal=draw(st.binary(min_size=16, max_size=16)),
                place=draw(st.integers(0, 2**64 - 1)),
            )
        case Kind.BUSY | Kind.REFUSED:
            return Frame(**common, detail=draw(st.integers(0, 255)))
        case _:
            return Frame(**common, addresses=names)


FIELDS = (
    *("kind", "flags", "sequence", "cause", "schema", "cap", "wanted", "addresses", "counts"),
    *("left_out", "digests", "listed", "announcements", "statements", "journal", "place", "detail"),
)


@settings(max_examples=400)
@given(frames())
def test_what_is_written_is_what_is_read(frame: Frame) -> None:
    data = encode(frame)
    found = decode(data)
    assert isinstance(found, Frame)
    for name in FIELDS:
        assert getattr(found, name) == getattr(frame, name)
    assert found.packets.tobytes() == frame.packets.tobytes()
    assert found.receipts.tolist() == frame.receipts.tolist()
    assert encode(found) == data


@settings(max_examples=400)
@given(frames(), st.data())
def test_a_damaged_frame_is_refused_or_is_another_frame(frame: Frame, data: st.DataObject) -> None:
    good = encode(frame)
    how = data.draw(st.sampled_from(["cut", "grow", "flip", "header"]))
    if how == "cut":
        assert isinstance(decode(good[: data.draw(st.integers(0, len(good) - 1))]), Rejected)
    elif how == "grow":
        assert isinstance(decode(good + data.draw(st.binary(min_size=1, max_size=600))), Rejected)
    else:
        bad = bytearray(good)
        at = data.draw(st.integers(0, len(bad) - 1 if how == "flip" else HEADER - 1))
        bad[at] ^= data.draw(st.integers(1, 255))
        found = decode(bytes(bad))
        if isinstance(found, Frame):  # then the changed byte says something else, and nothing is lost
            assert encode(found) == bytes(bad)


#: Bytes of a body by kind: fixed, per cell, per item; the others have 32 per cell.
SIZES = {1: (0, 34, 512), 2: (0, 0, 2), 4: (0, 70, 512), 6: (0, 64, 0), 8: (32, 0, 33), 10: (4, 0, 0), 11: (1, 0, 0)}


@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_hostile_frames(seed: int) -> None:
    """Random bytes behind a plausible header: never an exception, and one encoding only."""
    rng = np.random.default_rng(seed)
    whole = refused = 0
    for _ in range(10_000):
        kind, flags = int(rng.integers(0, 13)), int(rng.choice([0, 0, 0, 1, 2, 4, 255]))
        count, cells = int(rng.choice([0, 1, 2, 128, 65535])), int(rng.choice([0, 1, 1, 2, 128, 65535]))
        fixed, per_cell, per_item = SIZES.get(kind, (0, 32, 0))
        size = fixed + per_cell * cells + per_item * count
        if size > 5000 or rng.random() < 0.3:
            size = int(rng.integers(0, 2000))
        body = rng.bytes(size)
        if rng.random() < 0.5 and 0 < cells * 34 + 2 <= len(body):  # runs that may well add up
            body = bytes(32) + count.to_bytes(2, "little") + body[34:]
        wanted = 0
        if kind in (Kind.ASK, Kind.COMPARE) and rng.random() < 0.5:
            wanted = int(rng.choice([1, 2, AUTHORS_PER_FRAME, AUTHORS_PER_FRAME + 1, 65535]))
            names = rng.integers(0, 2**62, min(wanted, 100))
            names = np.sort(names) if rng.random() < 0.8 else names
            body += b"".join(int(name).to_bytes(8, "little") + rng.bytes(2) for name in names)
        length = len(body) if rng.random() < 0.9 else int(rng.integers(0, 2**32))
        header = b"ORF\x01" + bytes([kind, flags]) + count.to_bytes(2, "little") + cells.to_bytes(2, "little")
        data = header + wanted.to_bytes(2, "little") + length.to_bytes(4, "little") + rng.bytes(56) + body
        found = decode(data)
        if isinstance(found, Frame):
            whole += 1
            assert encode(found) == data
        else:
            refused += 1
    assert whole > 100
    assert refused > 1000
    for size in range(400):
        assert isinstance(decode(rng.bytes(size)), Rejected)


def test_each_reason() -> None:
    good = encode(Frame(kind=Kind.ASK, addresses=(bytes(32),), cap=5))

    def reason(data: bytes) -> FrameReason:
        found = decode(data)
        assert isinstance(found, Rejected)
        return found.reason

    def changed(at: int, value: bytes) -> bytes:
        return good[:at] + value + good[at + len(value) :]

    assert reason(good[:50]) is FrameReason.LENGTH
    assert reason(changed(3, b"\x02")) is FrameReason.MAGIC
    assert reason(changed(4, b"\x00")) is FrameReason.KIND
    assert reason(changed(5, b"\x01")) is FrameReason.FLAGS
    assert reason(changed(8, b"\xff\xff")) is FrameReason.COUNT
    other = encode(Frame(kind=Kind.LIST, addresses=(bytes(32),)))
    assert reason(other[:10] + b"\x01" + other[11:]) is FrameReason.ZERO
    assert reason(changed(10, b"\x01")) is FrameReason.LENGTH
    assert reason(changed(10, b"\x09")) is FrameReason.LENGTH
    assert reason(changed(10, b"\x41")) is FrameReason.COUNT
    for authors in ((1, 1), (2, 1)):  # one encoding only
        wanted = tuple(Wanted(author, 0) for author in authors)
        assert reason(encode(Frame(kind=Kind.ASK, wanted=wanted))) is FrameReason.BODY
    assert reason(changed(12, b"\x21")) is FrameReason.LENGTH
    assert reason(changed(8, b"\x02")) is FrameReason.LENGTH
    packets = np.zeros(2, dtype=PACKET_DTYPE)
    for counts in ((1,), (3,), (2, 0)):
        names = (bytes(32),) * len(counts)
        assert reason(encode(Frame(kind=Kind.DEPOSIT, addresses=names, counts=counts, packets=packets))) is (
            FrameReason.RUNS
        )
    cut = encode(Frame(kind=Kind.ANNOUNCE, announcements=(b"abc",)))
    assert reason(cut[:HEADER] + b"\xff\x00" + cut[HEADER + 2 :]) is FrameReason.BODY


def test_the_largest_frames_fit() -> None:
    packets = np.zeros(FRAME_PACKETS, dtype=PACKET_DTYPE)
    names = tuple(number.to_bytes(32, "big") for number in range(ADDRESSES_PER_FRAME))
    ones = (1,) * ADDRESSES_PER_FRAME
    largest = [
        Frame(kind=Kind.DEPOSIT, addresses=names, counts=ones, packets=packets),
        Frame(kind=Kind.ANSWER, addresses=names, digests=names, counts=ones, left_out=ones, packets=packets),
        Frame(kind=Kind.LISTING, addresses=names[:1], listed=((0, bytes(32)),) * IDENTITIES_PER_FRAME),
        Frame(kind=Kind.ANNOUNCE, announcements=(bytes(ANNOUNCEMENT_BYTES),) * FRAME_PACKETS),
    ]
    for frame in largest:
        assert isinstance(decode(encode(frame)), Frame)
    assert max(len(encode(frame)) for frame in largest) == FRAME_BYTES
    with pytest.raises(ValueError, match="split it"):
        encode(Frame(kind=Kind.DEPOSIT, packets=np.zeros(2000, dtype=PACKET_DTYPE)))
