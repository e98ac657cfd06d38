"""The contract of every transport. Another one is put under it in ``rigs.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from outroute.packet import PacketArray, Rejection, expiry, identities, sign, withdraw
from outroute.placement import Wanted
from outroute.store import GRACE_SECONDS
from outroute.transports import (
    ADDRESS_REFUSED,
    FRAME_BYTES,
    FRAME_PACKETS,
    SCHEMA_REFUSED,
    Answer,
    Frame,
    FrameReason,
    Kind,
    Receipt,
    Topic,
    decode,
    encode,
)
from store.making import DAY, SCHEMA, identity, make_packets, make_schema, place
from transports.rigs import FACETED, RIGS, Rig, addresses_of, asynchronous, cell_address

CELLS = [cell_address(cell) for cell in range(len(SCHEMA.landmarks))]


@pytest.fixture(params=sorted(RIGS))
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = RIGS[request.param]()
    yield made
    asyncio.run(made.stop())


def raw(packets: PacketArray) -> list[bytes]:
    data = np.ascontiguousarray(packets).tobytes()
    return sorted(data[at : at + 512] for at in range(0, len(data), 512))


def united(answers: list[Answer]) -> list[bytes]:
    return sorted(one for answer in answers for one in raw(answer.packets))


async def fetch_all(rig: Rig, number: int) -> list[bytes]:
    return united(await rig.holder(number).fetch(SCHEMA.id, CELLS, cap=256))


async def deposit(rig: Rig, number: int, packets: PacketArray):
    return await rig.holder(number).deposit(SCHEMA.id, addresses_of(packets), packets)


@asynchronous
async def test_same_packets_in_same_packets_out_everywhere(rig: Rig, tmp_path: Path) -> None:
    await rig.start(6, tmp_path)
    packets = make_packets(700)
    done = await deposit(rig, 0, packets)
    assert done.receipts.shape == (700, 3)
    assert (done.receipts == Receipt.DURABLE).all()
    assert done.acknowledged.all()
    assert done.replicated.all()
    assert not done.refused.any()
    for number in rig.alive():
        answers = await rig.holder(number).fetch(SCHEMA.id, CELLS, cap=256)
        assert united(answers) == raw(packets)
        assert [answer.address for answer in answers] == CELLS
        assert all(a.complete and a.agreed and a.left_out == a.refused == 0 for a in answers)


@asynchronous
async def test_answers_are_the_same_bytes_in_the_same_order(rig: Rig) -> None:
    await rig.start(5)
    packets = make_packets(300)
    for part in np.array_split(np.random.default_rng(1).permutation(300), 7):
        await deposit(rig, 2, packets[part])
    seen = {tuple(a.packets.tobytes() for a in await rig.holder(n).fetch(SCHEMA.id, CELLS, cap=256)) for n in range(5)}
    assert len(seen) == 1


@asynchronous
async def test_memory_is_not_called_durable(rig: Rig) -> None:
    await rig.start(4)
    packets = make_packets(10)
    done = await deposit(rig, 0, packets)
    assert (done.receipts == Receipt.HELD).all()
    assert done.replicated.all()
    assert not done.acknowledged.any()
    assert (await deposit(rig, 0, packets)).replicated.all()


@asynchronous
async def test_duplicates_count_once(rig: Rig, tmp_path: Path) -> None:
    await rig.start(4, tmp_path)
    packets = make_packets(200)
    await deposit(rig, 0, packets)
    again = await deposit(rig, 1, packets)
    assert (again.receipts == Receipt.DUPLICATE).all()
    assert again.acknowledged.all()
    twice = await deposit(rig, 2, np.concatenate([packets[:3], packets[:3]]))
    assert twice.acknowledged.all()
    assert await fetch_all(rig, 3) == raw(packets)


@asynchronous
async def test_fewer_members_than_copies(rig: Rig) -> None:
    await rig.start(1)
    packets = make_packets(5)
    done = await deposit(rig, 0, packets)
    assert done.receipts.shape == (5, 1)
    assert not done.replicated.any()  # one copy is not two of three
    answers = await rig.holder(0).fetch(SCHEMA.id, CELLS, cap=256)
    assert united(answers) == raw(packets)
    assert {answer.agreed for answer in answers} == {None}


@asynchronous
async def test_nothing_to_do(rig: Rig) -> None:
    await rig.start(3)
    done = await rig.holder(0).deposit(SCHEMA.id, [], make_packets(0))
    assert len(done.receipts) == 0
    assert await rig.holder(0).fetch(SCHEMA.id, [], cap=256) == []
    answer = (await rig.holder(0).fetch(SCHEMA.id, CELLS[:1], cap=256))[0]
    assert len(answer.packets) == 0
    assert answer.complete


@asynchronous
async def test_hostile_packets_are_refused_and_counted_by_reason(rig: Rig) -> None:
    await rig.start(3)
    good = make_packets(20)
    names = addresses_of(good)
    bad = good.copy()
    bad["signature"][0, 5] ^= 1
    bad["magic"][1] ^= 1
    bad["fingerprint"][2, 0] ^= 1
    bad["reserved"][3, 0] = 1
    bad["weight"][4] = 0
    bad["author"][5] = bad["author"][6][::-1]
    names[6] = place(6)  # genuine, at an address where it does not belong
    done = await rig.holder(0).deposit(SCHEMA.id, names, bad)
    expected = {
        0: Rejection.SIGNATURE,
        1: Rejection.MAGIC,
        2: Rejection.FINGERPRINT,
        3: Rejection.RESERVED,
        4: Rejection.WEIGHT,
        5: Rejection.SIGNATURE,
        6: ADDRESS_REFUSED,
    }
    for row in range(20):
        if row in expected:
            assert set(done.receipts[row].tolist()) == {Receipt.REJECTED}
            assert set(done.reasons[row].tolist()) == {int(expected[row])}
    assert done.refused.tolist() == [row in expected for row in range(20)]
    assert done.replicated[7:].all()
    assert await fetch_all(rig, 1) == raw(good[7:])
    for number in rig.alive():
        refused = rig.guard(number).refused
        assert refused[Rejection.SIGNATURE] == 2
        assert refused[ADDRESS_REFUSED] == 1


@asynchronous
async def test_a_refused_signature_is_not_remembered_as_good(rig: Rig) -> None:
    """Identity leaves the signature out: the same packet with a broken one must not pass as known."""
    await rig.start(3)
    good = make_packets(1)
    await deposit(rig, 0, good)
    bad = good.copy()
    bad["signature"][0, 0] ^= 1
    assert (await deposit(rig, 0, bad)).reasons.tolist() == [[Rejection.SIGNATURE] * 3]
    assert (await deposit(rig, 0, good)).replicated.all()


@asynchronous
async def test_an_unknown_schema_is_refused(rig: Rig) -> None:
    await rig.start(3)
    other = make_schema("other")
    packets = make_packets(4, schema=other)
    done = await rig.holder(0).deposit(other.id, addresses_of(packets, other), packets)
    assert (done.reasons == SCHEMA_REFUSED).all()
    done = await rig.holder(0).deposit(SCHEMA.id, addresses_of(packets, other), packets)
    assert (done.reasons == Rejection.SCHEMA).all()
    assert await fetch_all(rig, 0) == []


@asynchronous
async def test_two_schemas_and_facets_live_side_by_side(rig: Rig) -> None:
    await rig.start(4)
    plain, faceted = make_packets(50), make_packets(1, schema=FACETED, cell=1)
    await deposit(rig, 0, plain)
    names = addresses_of(faceted, FACETED)
    assert (await rig.holder(0).deposit(FACETED.id, names, faceted)).replicated.all()
    note = withdraw(faceted, identity(0))
    assert await fetch_all(rig, 1) == raw(plain)
    assert united(await rig.holder(1).fetch(FACETED.id, names, cap=256)) == raw(faceted)
    assert (await rig.holder(2).deposit(FACETED.id, names, note)).replicated.all()
    assert united(await rig.holder(1).fetch(FACETED.id, names, cap=256)) == []


@asynchronous
async def test_expired_packets_are_neither_taken_nor_answered(rig: Rig) -> None:
    await rig.start(3)
    packets = make_packets(6, lifetime=DAY)
    await deposit(rig, 0, packets)
    rig.now = int(expiry(SCHEMA, packets)[0])
    done = await deposit(rig, 0, packets)
    assert (done.reasons == Rejection.EXPIRED).all()
    assert done.refused.all()
    assert await fetch_all(rig, 1) == []
    await rig.repair()
    assert sum(rig.store(n).sweep(rig.now + GRACE_SECONDS) for n in rig.alive()) == 18


@asynchronous
async def test_a_withdrawal_dominates_whatever_comes_later(rig: Rig) -> None:
    await rig.start(4)
    packets = make_packets(10)
    notes = withdraw(packets, identity(0))
    await deposit(rig, 0, packets[:5])
    assert (await deposit(rig, 0, notes)).replicated.all()
    late = await deposit(rig, 1, packets)
    assert (late.receipts == Receipt.WITHDRAWN).all()
    assert late.refused.all()
    assert await fetch_all(rig, 2) == []


@asynchronous
async def test_somebody_elses_withdrawal_is_worth_nothing(rig: Rig) -> None:
    await rig.start(3)
    packets = make_packets(2)
    await deposit(rig, 0, packets)
    own = packets.copy()
    own["author"] = np.frombuffer(identity(1).public_key, dtype=np.uint8)
    forged = withdraw(own, identity(1))
    forged["author"] = packets["author"]
    assert ((await deposit(rig, 0, forged)).reasons == Rejection.SIGNATURE).all()
    assert (await deposit(rig, 0, withdraw(own, identity(1)))).replicated.all()  # of its own slot: no matter
    assert await fetch_all(rig, 1) == raw(packets)


@asynchronous
async def test_equivocation_is_proof_and_not_an_answer(rig: Rig) -> None:
    await rig.start(4)
    one, two = make_packets(1, seed=1, cell=3), make_packets(1, seed=2, cell=3)
    await deposit(rig, 0, one)
    done = await deposit(rig, 0, two)
    assert (done.receipts == Receipt.EQUIVOCATION).all()
    assert await fetch_all(rig, 1) == []
    for number in rig.owners(cell_address(3)):
        kept = rig.store(number).entries(cell_address(3), now=rig.now).identities
        assert set(kept) == set(identities(one) + identities(two))


@asynchronous
async def test_an_answer_is_capped_and_says_what_it_leaves_out(rig: Rig) -> None:
    await rig.start(4)
    packets = np.concatenate([make_packets(300, author=0, cell=1), make_packets(20, author=1, cell=1)])
    await deposit(rig, 0, packets)
    seen = set()
    for number in rig.alive():
        answer = (await rig.holder(number).fetch(SCHEMA.id, [cell_address(1)], cap=40))[0]
        assert (len(answer.packets), answer.left_out) == (40, 280)
        authors = [bytes(author) for author in answer.packets["author"]]
        assert authors.count(identity(1).public_key) == 20
        seen.add(answer.packets.tobytes())
    assert len(seen) == 1


def wanting(author: int, after: int = 0) -> Wanted:
    return Wanted(int.from_bytes(identity(author).public_key[:8], "little"), after)


@asynchronous
async def test_a_question_names_whose_packets_it_wants(rig: Rig) -> None:
    await rig.start(4)
    parts = [make_packets(30, author=author, cell=1) for author in range(3)]
    await deposit(rig, 0, np.concatenate(parts))
    home = cell_address(1)
    for number in rig.alive():
        holder = rig.holder(number)
        one = (await holder.fetch(SCHEMA.id, [home], cap=256, wanted=[wanting(1)]))[0]
        assert (raw(one.packets), one.left_out, one.agreed) == (raw(parts[1]), 0, True)
        two = (await holder.fetch(SCHEMA.id, [home], cap=10, wanted=[wanting(2), wanting(1)]))[0]
        assert (len(two.packets), two.left_out, two.agreed) == (10, 50, True)
        assert len(set(raw(two.packets)) & set(raw(parts[1]))) == 5
        nobody = (await holder.fetch(SCHEMA.id, [home], cap=256, wanted=[wanting(7)]))[0]
        assert (len(nobody.packets), nobody.left_out) == (0, 0)
        # What comes next begins where the last answer ended.
        found: list[bytes] = []
        while len(found) < 30:
            asked = [wanting(0, after=len(found))]
            more = (await holder.fetch(SCHEMA.id, [home], cap=7, wanted=asked))[0]
            found += raw(more.packets)
            assert more.left_out == 30 - len(found)
        assert sorted(found) == raw(parts[0])
        counted = (await holder.fetch(SCHEMA.id, [home], cap=0))[0]
        assert (len(counted.packets), counted.left_out) == (0, 90)


@asynchronous
async def test_a_holder_that_missed_packets_of_those_named_is_found_out(rig: Rig) -> None:
    await rig.start(5)
    known, missed = make_packets(20, author=0, cell=2), make_packets(20, author=1, cell=2)
    home = cell_address(2)
    await deposit(rig, 0, known)
    nearest = rig.owners(home)[0]
    outsider = next(n for n in rig.alive() if n not in rig.owners(home))
    rig.pause(nearest)
    assert (await deposit(rig, outsider, missed)).replicated.all()
    rig.resume(nearest)
    asker = rig.holder(outsider)
    answer = (await asker.fetch(SCHEMA.id, [home], cap=256, wanted=[wanting(1)]))[0]
    assert (raw(answer.packets), answer.agreed) == (raw(missed), False)
    part = (await asker.fetch(SCHEMA.id, [home], cap=6, wanted=[wanting(1, after=4)]))[0]
    assert (len(part.packets), part.left_out, part.agreed) == (6, 10, False)
    assert set(raw(part.packets)) < set(raw(missed))
    # Of those that it has, it says what the others say.
    assert (await asker.fetch(SCHEMA.id, [home], cap=256, wanted=[wanting(0)]))[0].agreed is True


@asynchronous
async def test_a_question_of_many_addresses(rig: Rig) -> None:
    await rig.start(4)
    packets = make_packets(100)
    await deposit(rig, 0, packets)
    names = [place(i) for i in range(300)] + CELLS + CELLS
    answers = await rig.holder(1).fetch(SCHEMA.id, names, cap=256)
    assert [answer.address for answer in answers] == names
    assert united(answers[:300]) == []
    assert united(answers[300 : 300 + len(CELLS)]) == raw(packets)
    assert united(answers[300 + len(CELLS) :]) == raw(packets)


@pytest.mark.parametrize("noticed", [True, False])
@asynchronous
async def test_acknowledged_packets_survive_a_killed_member(rig: Rig, tmp_path: Path, noticed: bool) -> None:
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
        assert set(done.receipts.ravel().tolist()) == {Receipt.DURABLE, Receipt.UNREACHABLE}


@asynchronous
async def test_all_members_replaced_one_by_one(rig: Rig) -> None:
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
async def test_a_member_that_leaves_hands_over_what_it_had(rig: Rig) -> None:
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
async def test_copies_go_to_different_organisations(rig: Rig) -> None:
    await rig.start(9, organisations=3)
    await deposit(rig, 0, make_packets(100))
    for cell in CELLS:
        assert sorted(number % 3 for number in rig.owners(cell)) == [0, 1, 2]


@asynchronous
async def test_a_holder_that_missed_a_withdrawal_is_found_out(rig: Rig) -> None:
    await rig.start(5)
    packets = make_packets(40, cell=2)
    home = cell_address(2)
    await deposit(rig, 0, packets)
    nearest, second, _ = rig.owners(home)
    outsider = next(n for n in rig.alive() if n not in rig.owners(home))
    for deaf in (nearest, second):
        rig.pause(deaf)
        sender = outsider if outsider != deaf else nearest
        done = await deposit(rig, sender, withdraw(packets[:10] if deaf == nearest else packets[10:20], identity(0)))
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
async def test_frames_that_are_none_are_refused_and_do_no_harm(rig: Rig) -> None:
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
async def test_a_deposit_with_the_wrong_holder_is_not_kept(rig: Rig) -> None:
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
async def test_a_slow_reader_gets_no_more_than_its_credit(rig: Rig) -> None:
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
async def test_a_member_that_hangs_does_not_hold_up_an_answer(rig: Rig) -> None:
    await rig.start(4)
    packets = make_packets(60)
    await deposit(rig, 0, packets)
    rig.pause(2)
    assert await fetch_all(rig, 0) == raw(packets)
    rig.resume(2)


@asynchronous
async def test_nobody_answers(rig: Rig) -> None:
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
async def test_every_byte_is_counted_once_on_each_side(rig: Rig) -> None:
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
async def test_a_question_carries_addresses_only(rig: Rig) -> None:
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
async def test_packets_that_were_checked_are_not_checked_again(rig: Rig) -> None:
    await rig.start(3)
    packets = make_packets(50)
    await deposit(rig, 0, packets)
    await deposit(rig, 1, packets)
    await fetch_all(rig, 2)
    await fetch_all(rig, 2)
    for number in rig.alive():
        assert rig.guard(number).verified == 50


@asynchronous
async def test_a_correction_is_a_withdrawal_and_a_new_packet(rig: Rig) -> None:
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
