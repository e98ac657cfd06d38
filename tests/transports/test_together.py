"""Frames answered together: the same answers as one after the other, in order, and bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import StoreError
from outroute.identity import node_id
from outroute.packet import withdraw
from outroute.store import PacketStore
from outroute.testing.making import addresses_of
from outroute.transports import Frame, Guard, Kind, Receipt, decode, encode
from outroute.transports.answering import AHEAD_FRAMES, HELD_FRAMES, TOGETHER_BYTES, answer_in_turn
from outroute.transports.frames import Flag
from outroute.transports.keeper import Keeper
from outroute.transports.tls import TlsLink
from outroute.transports.working import GROUP_FRAMES, Waiting, Worker
from store.making import NOW, SCHEMA, identity, make_packets
from transports.rigs import asynchronous, cell_address

PACKETS = make_packets(60)


def deposit(rows: Sequence[int], *, flags: Flag = Flag.NONE, spoilt: bool = False) -> bytes:
    packets = PACKETS[list(rows)].copy()
    if spoilt and len(packets):
        packets["outcome"][0, 0] ^= 1
    names = addresses_of(packets)
    return encode(
        Frame(
            kind=Kind.DEPOSIT,
            flags=flags,
            sequence=len(rows) + 1,
            schema=SCHEMA.id,
            addresses=tuple(names),
            counts=(1,) * len(names),
            packets=packets,
        )
    )


OTHERS = [
    encode(Frame(kind=Kind.ASK, sequence=9, schema=SCHEMA.id, addresses=(cell_address(0),), cap=16)),
    encode(Frame(kind=Kind.COMPARE, sequence=8, schema=SCHEMA.id, addresses=(cell_address(1),), cap=16)),
    encode(Frame(kind=Kind.BUSY)),
    deposit([1])[:-1],
    encode(
        Frame(kind=Kind.DEPOSIT, sequence=5, schema=bytes(32), addresses=(bytes(32),), counts=(1,), packets=PACKETS[:1])
    ),
    encode(Frame(kind=Kind.DEPOSIT, sequence=5, schema=SCHEMA.id)),
    b"",
]

DEPOSITS = st.builds(
    deposit,
    st.lists(st.integers(0, 59), min_size=1, max_size=6, unique=True),
    flags=st.sampled_from((Flag.NONE, Flag.REPAIR)),
    spoilt=st.booleans(),
)


def keeper() -> Keeper:
    """Owns every address but one in four."""
    return Keeper(
        PacketStore(), Guard([SCHEMA]), owns=lambda names: [name[0] % 4 != 0 for name in names], clock=lambda: NOW
    )


@given(st.lists(st.one_of(DEPOSITS, st.sampled_from(OTHERS)), max_size=10))
@settings(max_examples=60, deadline=None)
def test_frames_together_are_answered_as_one_after_the_other(frames: list[bytes]) -> None:
    alone, together = keeper(), keeper()
    wanted = [alone.handle(frame, b"sender") for frame in frames]
    assert together.handle_all([(b"sender", frame) for frame in frames]) == wanted
    assert +together.receipts == +alone.receipts
    assert together.refused_frames == alone.refused_frames
    assert together.guard.refused == alone.guard.refused
    assert together.shelf.addresses() == alone.shelf.addresses()


def test_a_withdrawal_and_what_it_takes_back_in_one_group() -> None:
    notes = withdraw(PACKETS[:2], identity(0))
    names = addresses_of(PACKETS[:2])
    note = encode(Frame(kind=Kind.DEPOSIT, schema=SCHEMA.id, addresses=tuple(names), counts=(1, 1), packets=notes))
    store = PacketStore()
    one = Keeper(store, Guard([SCHEMA]), owns=lambda names: [True] * len(names), clock=lambda: NOW)
    found = one.handle_all([(None, deposit([0, 1])), (None, note), (None, deposit([0, 1, 2]))])
    codes = [decode(reply).receipts[:, 0].tolist() for (reply,) in found]  # type: ignore[union-attr]
    assert codes[0] == [Receipt.HELD] * 2
    assert codes[2] == [Receipt.WITHDRAWN, Receipt.WITHDRAWN, Receipt.HELD]
    assert store.count() == 1


def test_a_full_disk_refuses_the_whole_group_and_keeps_nothing() -> None:
    class Full(PacketStore):
        def put(self, *_: object, **__: object) -> np.ndarray:  # type: ignore[override]
            raise StoreError("no room", code="store.full")

    one = Keeper(Full(), Guard([SCHEMA]), owns=lambda names: [True] * len(names), clock=lambda: NOW)
    found = one.handle_all([(None, deposit([0, 1])), (None, deposit([2]))])
    assert [set(decode(reply).receipts[:, 0].tolist()) for (reply,) in found] == [{Receipt.BUSY}] * 2  # type: ignore[union-attr]
    assert one.last_store_error is not None


def test_what_waits_is_answered_in_groups_and_in_order() -> None:
    running, gate = threading.Event(), threading.Event()
    groups: list[list[bytes]] = []

    def handle(_: bytes, frame: bytes) -> list[bytes]:
        running.set()
        gate.wait()
        if frame == b"bad":
            raise ValueError("bad")
        return [frame]

    def handle_all(jobs: Sequence[tuple[bytes, bytes]]) -> list[list[bytes]]:
        groups.append([frame for _, frame in jobs])
        return [[frame] for _, frame in jobs]

    worker = Worker(handle, handle_all)
    first = worker.submit(b"", b"first")
    running.wait()
    rest = [worker.submit(b"", b"%d" % number) for number in range(2 * GROUP_FRAMES + 1)]
    gate.set()
    assert [done.result(60) for done in [first, *rest]] == [[[b"first"]], *([[b"%d" % n]] for n in range(len(rest)))]
    assert [len(group) for group in groups] == [GROUP_FRAMES, GROUP_FRAMES]  # and the last one alone
    with pytest.raises(ValueError, match="bad"):
        worker.submit(b"", b"bad").result(60)
    assert worker.submit(b"", b"good").result(60) == [[b"good"]]
    worker.close()


def test_a_closed_worker_cancels_those_who_wait() -> None:
    running, gate = threading.Event(), threading.Event()

    def handle(_: bytes, frame: bytes) -> list[bytes]:
        running.set()
        gate.wait()
        return [frame]

    worker = Worker(handle)
    first = worker.submit(b"", b"first")
    running.wait()
    waiting = worker.submit(b"", b"second")
    worker.close()
    gate.set()
    assert first.result(60) == [[b"first"]]
    with pytest.raises(CancelledError):
        waiting.result(60)
    with pytest.raises((RuntimeError, CancelledError)):
        worker.submit(b"", b"third").result(60)


def frame_of(number: int, kind: Kind = Kind.DEPOSIT) -> bytes:
    """As much of a frame as says what it is, and a number."""
    return b"ORF\x01" + bytes([kind]) + b"%d" % number


@asynchronous
async def test_a_channel_has_some_frames_under_way_and_no_more() -> None:
    gate = threading.Event()
    anna = identity(1)

    def handle(_: bytes, frame: bytes) -> list[bytes]:
        gate.wait()
        return [frame]

    link = TlsLink(identity(2), handle=handle, endpoint_of=lambda _: None)
    read: list[int] = []
    said: list[tuple[int, Sequence[bytes]]] = []
    full = asyncio.Event()

    async def reading(most: int) -> list[tuple[int, bytes]]:
        if len(read) == 3 * AHEAD_FRAMES:
            return []
        come = range(len(read), len(read) + min(most, AHEAD_FRAMES // 2))  # some come together
        read.extend(come)
        if len(read) == AHEAD_FRAMES:
            full.set()
        return [(number, frame_of(number)) for number in come]

    async def saying(answers: Sequence[tuple[int, Sequence[bytes]]]) -> None:
        said.extend(answers)

    answering = asyncio.ensure_future(answer_in_turn(link, anna.id, anna.public_key, reading, saying))
    await full.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(read) == AHEAD_FRAMES
    gate.set()
    assert await answering is True
    assert said == [(number, [frame_of(number)]) for number in range(3 * AHEAD_FRAMES)]
    link.admit = lambda key: node_id(key) != anna.id
    read.clear()
    assert await answer_in_turn(link, anna.id, anna.public_key, reading, saying) is False
    await link.close()


@asynchronous
async def test_a_crowded_node_has_one_frame_of_each_channel_under_way() -> None:
    gate = threading.Event()
    anna = identity(1)

    def handle(_: bytes, frame: bytes) -> list[bytes]:
        gate.wait()
        return [frame]

    link = TlsLink(identity(2), handle=handle, endpoint_of=lambda _: None)
    link.held = HELD_FRAMES  # of other channels
    asked: list[int] = []

    async def reading(most: int) -> list[tuple[int, bytes]]:
        asked.append(most)
        return [(len(asked), frame_of(1))] if len(asked) <= 3 else []

    async def saying(answers: Sequence[tuple[int, Sequence[bytes]]]) -> None:
        assert len(answers) == 1
        assert link.held == HELD_FRAMES + 1

    answering = asyncio.ensure_future(answer_in_turn(link, anna.id, anna.public_key, reading, saying))
    for _ in range(20):
        await asyncio.sleep(0)
    assert asked == [1]
    gate.set()
    assert await answering is True
    assert asked == [1] * 4
    assert link.held == HELD_FRAMES
    await link.close()


@asynchronous
async def test_small_replies_are_said_together_and_large_ones_alone() -> None:
    anna = identity(1)
    sizes = [10, 20, TOGETHER_BYTES, 1, 1, TOGETHER_BYTES // 2]
    link = TlsLink(identity(2), handle=lambda _, frame: [bytes(int(frame[5:]))], endpoint_of=lambda _: None)
    come = [[(number, frame_of(size)) for number, size in enumerate(sizes)], []]
    said: list[list[int]] = []

    async def reading(most: int) -> list[tuple[int, bytes]]:
        return come.pop(0)

    async def saying(answers: Sequence[tuple[int, Sequence[bytes]]]) -> None:
        said.append([number for number, _ in answers])
        assert [len(frames[0]) for _, frames in answers] == [sizes[number] for number, _ in answers]

    assert await answer_in_turn(link, anna.id, anna.public_key, reading, saying) is True
    assert said == [[0, 1], [2], [3, 4, 5]]
    await link.close()


@asynchronous
async def test_a_question_is_under_way_alone() -> None:
    """Its answer may have megabytes: not several of them at a time for one that does not read."""
    anna = identity(1)
    kinds = [*[Kind.DEPOSIT] * (GROUP_FRAMES + 2), Kind.ASK, Kind.ASK, Kind.DEPOSIT]
    began: list[list[int]] = []

    class Noting(TlsLink):
        def begin(self, sender: bytes, key: bytes, frames: Sequence[bytes]) -> Waiting:
            began.append([int(frame[5:]) for frame in frames])
            return super().begin(sender, key, frames)

    link = Noting(identity(2), handle=lambda _, frame: [frame], endpoint_of=lambda _: None)
    come = [[(number, frame_of(number, kind)) for number, kind in enumerate(kinds)], []]
    said: list[int] = []

    async def reading(_: int) -> list[tuple[int, bytes]]:
        return come.pop(0)

    async def saying(answers: Sequence[tuple[int, Sequence[bytes]]]) -> None:
        said.extend(number for number, _ in answers)
        assert link.held == 1 or began[-1][-1] < GROUP_FRAMES + 2

    assert await answer_in_turn(link, anna.id, anna.public_key, reading, saying) is True
    groups = [0, GROUP_FRAMES, GROUP_FRAMES + 2, GROUP_FRAMES + 3, GROUP_FRAMES + 4, GROUP_FRAMES + 5]
    assert began == [list(range(*ends)) for ends in pairwise(groups)]
    assert said == list(range(len(kinds)))
    await link.close()
