"""The contract of every transport, first part: packets go in, and what has to comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from outroute.packet import Rejection, expiry, identities, withdraw
from outroute.placement import Wanted
from outroute.store import GRACE_SECONDS
from outroute.testing.making import (
    CELLS,
    DAY,
    FACETED,
    SCHEMA,
    addresses_of,
    cell_address,
    identity,
    make_packets,
    make_schema,
    place,
)
from outroute.testing.rigs import Rig, asynchronous, compared, deposit, fetch_all, raw, united
from outroute.transports import ADDRESS_REFUSED, SCHEMA_REFUSED, Receipt

__all__ = ["Keeping"]


def _wanting(author: int, after: int = 0) -> Wanted:
    return Wanted(int.from_bytes(identity(author).public_key[:8], "little"), after)


class Keeping:
    """Deposits, questions, refusals, withdrawals."""

    @asynchronous
    async def test_same_packets_in_same_packets_out_everywhere(self, rig: Rig, tmp_path: Path) -> None:
        await rig.start(6, tmp_path)
        packets = make_packets(700)
        done = await deposit(rig, 0, packets)
        assert done.receipts.shape == (700, rig.copies)
        assert (done.receipts == Receipt.DURABLE).all()
        assert done.acknowledged.all()
        assert done.replicated.all()
        assert not done.refused.any()
        for number in rig.alive():
            answers = await rig.holder(number).fetch(SCHEMA.id, CELLS, cap=256)
            assert united(answers) == raw(packets)
            assert [answer.address for answer in answers] == CELLS
            assert all(a.complete and a.left_out == a.refused == 0 for a in answers)
            assert {a.agreed for a in answers} == {compared(rig)}

    @asynchronous
    async def test_answers_are_the_same_bytes_in_the_same_order(self, rig: Rig) -> None:
        await rig.start(5)
        packets = make_packets(300)
        for part in np.array_split(np.random.default_rng(1).permutation(300), 7):
            await deposit(rig, 2, packets[part])
        seen = {
            tuple(a.packets.tobytes() for a in await rig.holder(n).fetch(SCHEMA.id, CELLS, cap=256)) for n in range(5)
        }
        assert len(seen) == 1

    @asynchronous
    async def test_memory_is_not_called_durable(self, rig: Rig) -> None:
        await rig.start(4)
        packets = make_packets(10)
        done = await deposit(rig, 0, packets)
        assert (done.receipts == Receipt.HELD).all()
        assert done.replicated.all()
        assert not done.acknowledged.any()
        assert (await deposit(rig, 0, packets)).replicated.all()

    @asynchronous
    async def test_duplicates_count_once(self, rig: Rig, tmp_path: Path) -> None:
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
    async def test_fewer_members_than_copies(self, rig: Rig) -> None:
        await rig.start(1)
        packets = make_packets(5)
        done = await deposit(rig, 0, packets)
        assert done.receipts.shape == (5, 1)
        assert not done.replicated.any()  # one copy is not two of three
        answers = await rig.holder(0).fetch(SCHEMA.id, CELLS, cap=256)
        assert united(answers) == raw(packets)
        assert {answer.agreed for answer in answers} == {None}

    @asynchronous
    async def test_nothing_to_do(self, rig: Rig) -> None:
        await rig.start(3)
        done = await rig.holder(0).deposit(SCHEMA.id, [], make_packets(0))
        assert len(done.receipts) == 0
        assert await rig.holder(0).fetch(SCHEMA.id, [], cap=256) == []
        answer = (await rig.holder(0).fetch(SCHEMA.id, CELLS[:1], cap=256))[0]
        assert len(answer.packets) == 0
        assert answer.complete

    @asynchronous
    async def test_hostile_packets_are_refused_and_counted_by_reason(self, rig: Rig) -> None:
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
        for number in rig.alive() if rig.copies > 1 else [0]:  # the sender itself, where nobody else is sent any
            refused = rig.guard(number).refused
            assert refused[Rejection.SIGNATURE] == 2
            assert refused[ADDRESS_REFUSED] == 1

    @asynchronous
    async def test_a_refused_signature_is_not_remembered_as_good(self, rig: Rig) -> None:
        """Identity leaves the signature out: the same packet with a broken one must not pass as known."""
        await rig.start(3)
        good = make_packets(1)
        await deposit(rig, 0, good)
        bad = good.copy()
        bad["signature"][0, 0] ^= 1
        assert (await deposit(rig, 0, bad)).reasons.tolist() == [[Rejection.SIGNATURE] * rig.copies]
        assert (await deposit(rig, 0, good)).replicated.all()

    @asynchronous
    async def test_an_unknown_schema_is_refused(self, rig: Rig) -> None:
        await rig.start(3)
        other = make_schema("other")
        packets = make_packets(4, schema=other)
        done = await rig.holder(0).deposit(other.id, addresses_of(packets, other), packets)
        assert (done.reasons == SCHEMA_REFUSED).all()
        done = await rig.holder(0).deposit(SCHEMA.id, addresses_of(packets, other), packets)
        assert (done.reasons == Rejection.SCHEMA).all()
        assert await fetch_all(rig, 0) == []

    @asynchronous
    async def test_two_schemas_and_facets_live_side_by_side(self, rig: Rig) -> None:
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
    async def test_expired_packets_are_neither_taken_nor_answered(self, rig: Rig) -> None:
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
    async def test_a_withdrawal_dominates_whatever_comes_later(self, rig: Rig) -> None:
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
    async def test_somebody_elses_withdrawal_is_worth_nothing(self, rig: Rig) -> None:
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
    async def test_equivocation_is_proof_and_not_an_answer(self, rig: Rig) -> None:
        await rig.start(4)
        one, two = make_packets(1, seed=1, cell=3), make_packets(1, seed=2, cell=3)
        await deposit(rig, 0, one)
        done = await deposit(rig, 0, two)
        assert (done.receipts == Receipt.EQUIVOCATION).all()
        for number in {1, *rig.owners(cell_address(3))}:
            assert await fetch_all(rig, number) == []
        for number in rig.owners(cell_address(3)):
            kept = rig.store(number).entries(cell_address(3), now=rig.now).identities
            assert set(kept) == set(identities(one) + identities(two))

    @asynchronous
    async def test_an_answer_is_capped_and_says_what_it_leaves_out(self, rig: Rig) -> None:
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

    @asynchronous
    async def test_a_question_names_whose_packets_it_wants(self, rig: Rig) -> None:
        await rig.start(4)
        parts = [make_packets(30, author=author, cell=1) for author in range(3)]
        await deposit(rig, 0, np.concatenate(parts))
        home = cell_address(1)
        for number in rig.alive():
            holder = rig.holder(number)
            one = (await holder.fetch(SCHEMA.id, [home], cap=256, wanted=[_wanting(1)]))[0]
            assert (raw(one.packets), one.left_out, one.agreed) == (raw(parts[1]), 0, compared(rig))
            two = (await holder.fetch(SCHEMA.id, [home], cap=10, wanted=[_wanting(2), _wanting(1)]))[0]
            assert (len(two.packets), two.left_out, two.agreed) == (10, 50, compared(rig))
            assert len(set(raw(two.packets)) & set(raw(parts[1]))) == 5
            nobody = (await holder.fetch(SCHEMA.id, [home], cap=256, wanted=[_wanting(7)]))[0]
            assert (len(nobody.packets), nobody.left_out) == (0, 0)
            # What comes next begins where the last answer ended.
            found: list[bytes] = []
            while len(found) < 30:
                asked = [_wanting(0, after=len(found))]
                more = (await holder.fetch(SCHEMA.id, [home], cap=7, wanted=asked))[0]
                found += raw(more.packets)
                assert more.left_out == 30 - len(found)
            assert sorted(found) == raw(parts[0])
            counted = (await holder.fetch(SCHEMA.id, [home], cap=0))[0]
            assert (len(counted.packets), counted.left_out) == (0, 90)

    @asynchronous
    async def test_a_holder_that_missed_packets_of_those_named_is_found_out(self, rig: Rig) -> None:
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
        answer = (await asker.fetch(SCHEMA.id, [home], cap=256, wanted=[_wanting(1)]))[0]
        assert (raw(answer.packets), answer.agreed) == (raw(missed), False)
        part = (await asker.fetch(SCHEMA.id, [home], cap=6, wanted=[_wanting(1, after=4)]))[0]
        assert (len(part.packets), part.left_out, part.agreed) == (6, 10, False)
        assert set(raw(part.packets)) < set(raw(missed))
        # Of those that it has, it says what the others say.
        assert (await asker.fetch(SCHEMA.id, [home], cap=256, wanted=[_wanting(0)]))[0].agreed is True

    @asynchronous
    async def test_a_question_of_many_addresses(self, rig: Rig) -> None:
        await rig.start(4)
        packets = make_packets(100)
        await deposit(rig, 0, packets)
        names = [place(i) for i in range(300)] + CELLS + CELLS
        answers = await rig.holder(1).fetch(SCHEMA.id, names, cap=256)
        assert [answer.address for answer in answers] == names
        assert united(answers[:300]) == []
        assert united(answers[300 : 300 + len(CELLS)]) == raw(packets)
        assert united(answers[300 + len(CELLS) :]) == raw(packets)
