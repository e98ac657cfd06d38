"""The contract of every transport, second part: members that die, leave, hang, lie, or read slowly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from outroute.packet import sign, withdraw
from outroute.testing.making import CELLS, SCHEMA, addresses_of, cell_address, identity, make_packets
from outroute.testing.rigs import Rig, asynchronous, deposit, fetch_all, raw
from outroute.transports import FRAME_BYTES, FRAME_PACKETS, Frame, FrameReason, Kind, Receipt, Topic, decode, encode

__all__ = ["Living"]


class Living:
    """Members come and go, and what was acknowledged stays."""

    @pytest.mark.parametrize("noticed", [True, False])
    @asynchronous
    async def test_acknowledged_packets_survive_a_killed_member(self, rig: Rig, tmp_path: Path, noticed: bool) -> None:
        await rig.start(6, tmp_path)
        packets = make_packets(200)
        assert (await deposit(rig, 0, packets)).acknowledged.all()
        for victim in (1, 2):  # fewer than r' holders of any cell at a time
            await rig.kill(victim, noticed=noticed)
            for number in rig.alive():
                assert await fetch_all(rig, number) == raw(packets)
            if noticed:
                await rig.repair()
        if not noticed:
            done = await deposit(rig, 0, make_packets(50, first=1000))
            silent = {Receipt.UNREACHABLE} if rig.copies > 1 else set()
            assert set(done.receipts.ravel().tolist()) == {Receipt.DURABLE} | silent

    @asynchronous
    async def test_all_members_replaced_one_by_one(self, rig: Rig) -> None:
        await rig.start(5)
        packets = make_packets(300)
        notes = withdraw(packets[:30], identity(0))
        await deposit(rig, 0, packets)
        await deposit(rig, 0, notes)
        for old in range(5):
            await rig.join()
            await rig.repair()
            await rig.kill(old)
            await rig.repair()
        assert await fetch_all(rig, rig.alive()[0]) == raw(packets[30:])
        for cell in CELLS:  # placement is whole again, and nobody keeps what is not its own
            owners = set(rig.owners(cell))
            digests = {rig.store(n).digests([cell], now=rig.now)[0] for n in owners}
            assert len(digests) == 1
            assert all(cell not in rig.store(n).addresses() for n in rig.alive() if n not in owners)
        late = await deposit(rig, rig.alive()[1], packets[:30])
        assert (late.receipts == Receipt.WITHDRAWN).all()

    @asynchronous
    async def test_a_member_that_leaves_hands_over_what_it_had(self, rig: Rig) -> None:
        await rig.start(5)
        packets = make_packets(200)
        await deposit(rig, 0, packets)
        for number in (0, 1):
            await rig.leave(number)
            survivors = rig.alive()
            for cell in CELLS:
                assert len({rig.store(n).digests([cell], now=rig.now)[0] for n in rig.owners(cell)}) == 1
            assert await fetch_all(rig, survivors[0]) == raw(packets)

    @asynchronous
    async def test_copies_go_to_different_organisations(self, rig: Rig) -> None:
        await rig.start(9, organisations=3)
        await deposit(rig, 0, make_packets(100))
        for cell in CELLS:
            assert sorted(number % 3 for number in rig.owners(cell)) == [0, 1, 2]

    @asynchronous
    async def test_a_holder_that_missed_a_withdrawal_is_found_out(self, rig: Rig) -> None:
        await rig.start(5)
        packets = make_packets(40, cell=2)
        home = cell_address(2)
        await deposit(rig, 0, packets)
        nearest, second, _ = rig.owners(home)
        outsider = next(n for n in rig.alive() if n not in rig.owners(home))
        for deaf in (nearest, second):
            rig.pause(deaf)
            sender = outsider if outsider != deaf else nearest
            done = await deposit(
                rig, sender, withdraw(packets[:10] if deaf == nearest else packets[10:20], identity(0))
            )
            assert done.replicated.all()  # two of three
            assert (done.receipts == Receipt.UNREACHABLE).sum() == 10
            rig.resume(deaf)
        answer = (await rig.holder(outsider).fetch(SCHEMA.id, [home], cap=256))[0]
        assert answer.agreed is False
        assert raw(answer.packets) == raw(packets[20:])
        capped = (await rig.holder(outsider).fetch(SCHEMA.id, [home], cap=8))[0]
        assert (len(capped.packets), capped.agreed) == (8, False)
        assert set(raw(capped.packets)) <= set(raw(packets[20:]))
        await rig.repair()
        healed = (await rig.holder(outsider).fetch(SCHEMA.id, [home], cap=256))[0]
        assert healed.agreed is True
        assert raw(healed.packets) == raw(packets[20:])

    @asynchronous
    async def test_frames_that_are_none_are_refused_and_do_no_harm(self, rig: Rig) -> None:
        await rig.start(3)
        packets = make_packets(5)
        await deposit(rig, 0, packets)
        fine = encode(Frame(kind=Kind.ASK, sequence=7, schema=SCHEMA.id, addresses=tuple(CELLS), cap=256))
        hostile = {
            b"": FrameReason.LENGTH,
            b"GET / HTTP/1.1\r\n\r\n" * 10: FrameReason.MAGIC,
            fine[:-1]: FrameReason.LENGTH,
            bytes(FRAME_BYTES + 1): FrameReason.LENGTH,
            fine[:4] + b"\xff" + fine[5:]: FrameReason.KIND,
            encode(Frame(kind=Kind.RECEIPTS)): FrameReason.UNEXPECTED,
            encode(Frame(kind=Kind.BUSY)): FrameReason.UNEXPECTED,
        }
        for data, reason in hostile.items():
            (reply,) = await rig.raw(0, 1, data)
            frame = decode(reply)
            assert isinstance(frame, Frame)
            assert (frame.kind, frame.detail) == (Kind.REFUSED, reason)
        (reply,) = await rig.raw(0, 1, fine)
        frame = decode(reply)
        assert isinstance(frame, Frame)
        assert (frame.kind, frame.sequence) == (Kind.ANSWER, 7)

    @asynchronous
    async def test_a_deposit_with_the_wrong_holder_is_not_kept(self, rig: Rig) -> None:
        await rig.start(6)
        packets = make_packets(3, cell=4)
        home = cell_address(4)
        stranger = next(n for n in rig.alive() if n not in rig.owners(home))
        sender = next(n for n in rig.alive() if n != stranger)
        frame = Frame(kind=Kind.DEPOSIT, schema=SCHEMA.id, addresses=(home,), counts=(3,), packets=packets)
        (reply,) = await rig.raw(sender, stranger, encode(frame))
        receipts = decode(reply)
        assert isinstance(receipts, Frame)
        assert receipts.receipts[:, 0].tolist() == [Receipt.NOT_MINE] * 3
        assert rig.store(stranger).count() == 0

    @asynchronous
    async def test_a_slow_reader_gets_no_more_than_its_credit(self, rig: Rig) -> None:
        await rig.start(3)
        packets = make_packets(30)
        question = encode(Frame(kind=Kind.ASK, schema=SCHEMA.id, addresses=(CELLS[0],), cap=1))
        rig.pause(1)
        waiting = [asyncio.ensure_future(rig.raw(0, 1, question)) for _ in range(3 * rig.credit)]
        await asyncio.sleep(0)
        done = await deposit(rig, 0, packets)
        assert (done.receipts == Receipt.BUSY).sum() == 30
        assert done.replicated.all()  # the two others have them
        rig.resume(1)
        kinds = [decode((await future)[-1]).kind for future in waiting]  # type: ignore[union-attr]
        assert kinds.count(Kind.ANSWER) == rig.credit
        assert kinds.count(Kind.BUSY) == 2 * rig.credit
        again = await deposit(rig, 0, packets)
        assert not np.isin(again.receipts, [Receipt.BUSY, Receipt.UNREACHABLE]).any()

    @asynchronous
    async def test_a_member_that_hangs_does_not_hold_up_an_answer(self, rig: Rig) -> None:
        await rig.start(4)
        packets = make_packets(60)
        await deposit(rig, 0, packets)
        rig.pause(2)
        assert await fetch_all(rig, 0) == raw(packets)
        rig.resume(2)

    @asynchronous
    async def test_nobody_answers(self, rig: Rig) -> None:
        await rig.start(4)
        packets = make_packets(5, cell=0)
        await deposit(rig, 0, packets)
        home = cell_address(0)
        owners = rig.owners(home)
        asker = next(n for n in rig.alive() if n not in owners)
        for owner in owners:
            rig.pause(owner)
        answer = (await rig.holder(asker).fetch(SCHEMA.id, [home], cap=256))[0]
        assert (answer.complete, answer.agreed, len(answer.packets)) == (False, None, 0)
        done = await deposit(rig, asker, packets)
        assert (done.receipts == Receipt.UNREACHABLE).all()
        assert not done.replicated.any()
        assert not done.refused.any()

    @asynchronous
    async def test_every_byte_is_counted_once_on_each_side(self, rig: Rig) -> None:
        await rig.start(5)
        packets = make_packets(400)
        await deposit(rig, 0, packets)
        carried = sum(owner != 0 for name in addresses_of(packets) for owner in rig.owners(name))
        spent = rig.holder(0).traffic.sent[Topic.DEPOSIT] - 512 * carried
        frames = 4 * -(-carried // FRAME_PACKETS)
        assert 0 < spent <= frames * (72 + 34 * len(CELLS))  # headers and addresses, nothing else
        await rig.holder(1).fetch(SCHEMA.id, CELLS, cap=256)
        await rig.join()
        await rig.repair()
        traffic = [rig.holder(number).traffic for number in rig.alive()]
        for topic in Topic:
            sent, received = sum(t.sent[topic] for t in traffic), sum(t.received[topic] for t in traffic)
            assert sent == received
            assert (sent > 0) == (topic not in (Topic.ANNOUNCEMENT, Topic.STATEMENT))
        assert traffic[0].bytes_out == sum(traffic[0].sent.values())
        assert traffic[1].bytes_in == sum(traffic[1].received.values())

    @asynchronous
    async def test_a_question_carries_addresses_only(self, rig: Rig) -> None:
        """Counted, not asserted: header and addresses are all that an asker sends."""
        await rig.start(4)
        packets = make_packets(100)
        await deposit(rig, 0, packets)
        asker = rig.holder(3)
        before = asker.traffic.sent[Topic.QUESTION]
        await asker.fetch(SCHEMA.id, CELLS, cap=256)
        sent = asker.traffic.sent[Topic.QUESTION] - before
        most = 2 * (3 * 72 + 32 * len(CELLS))  # a question to three members and a comparison with three
        assert 0 < sent <= most

    @asynchronous
    async def test_packets_that_were_checked_are_not_checked_again(self, rig: Rig) -> None:
        await rig.start(3)
        packets = make_packets(50)
        await deposit(rig, 0, packets)
        await rig.repair()  # where others read later: until they have
        await deposit(rig, 1, packets)
        await fetch_all(rig, 2)
        await fetch_all(rig, 2)
        for number in rig.alive():
            assert rig.guard(number).verified == 50

    @asynchronous
    async def test_a_correction_is_a_withdrawal_and_a_new_packet(self, rig: Rig) -> None:
        await rig.start(3)
        old = make_packets(1, cell=1)
        await deposit(rig, 0, old)
        new = old.copy()
        new["sequence"] += 1
        new["outcome"][0, :2] = [5, 0]
        sign(new, identity(0))
        await deposit(rig, 0, withdraw(old, identity(0)))
        await deposit(rig, 0, new)
        assert await fetch_all(rig, 2) == raw(new)
