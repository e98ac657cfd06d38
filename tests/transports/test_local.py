"""What is special to members in one process, announcements, and holders that lie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outroute.errors import TransportError
from outroute.identity import Identity
from outroute.packet import PacketArray
from outroute.placement import Member, Wanted
from outroute.store import Fetched, PacketStore
from outroute.transports import Announcement, Guard, LocalNetwork, Role, Topic, Traffic
from outroute.transports.frames import Frame, Kind, encode
from store.making import NOW, SCHEMA, identity, make_packets
from transports.rigs import LocalRig, addresses_of, asynchronous, cell_address
from transports.test_contract import CELLS, deposit, fetch_all, raw

DAY = 86_400


def announcement(key: Identity, *, certified: bool = True) -> Announcement:
    organisation = identity(77)
    made = Announcement(
        key=key.public_key,
        roles=Role.ASK | Role.HOLD,
        endpoint="tcp://nörd.example:7400",
        expires=NOW + 600,
        certificate=organisation.certify(key.public_key, not_before=NOW - DAY, not_after=NOW + DAY)
        if certified
        else None,
    )
    return made.signed(key)


@pytest.mark.parametrize("certified", [True, False])
def test_announcements_travel(certified: bool) -> None:
    key = identity(5)
    made = announcement(key, certified=certified)
    found = Announcement.from_bytes(made.to_bytes())
    assert found == made
    assert found.holds(NOW)
    assert not found.holds(NOW + 600)
    assert found.member == Member(id=key.id, organisation=identity(77).public_key if certified else key.public_key)


@pytest.mark.parametrize("certified", [True, False])
def test_no_byte_of_an_announcement_can_be_changed(certified: bool) -> None:
    data = announcement(identity(5), certified=certified).to_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        found = Announcement.from_bytes(bytes(changed))
        assert found is None or not found.holds(NOW)


def test_a_certificate_of_another_node_does_not_help() -> None:
    stolen = replace(announcement(identity(5)), key=identity(6).public_key).signed(identity(6))
    assert not stolen.holds(NOW)


@given(st.binary(max_size=700))
def test_any_bytes_as_an_announcement(data: bytes) -> None:
    found = Announcement.from_bytes(data)
    assert found is None or not found.holds(NOW)


def test_an_endpoint_has_a_limit() -> None:
    with pytest.raises(TransportError, match="shorter"):
        replace(announcement(identity(5)), endpoint="x" * 300).to_bytes()


@asynchronous
async def test_members_find_each_other() -> None:
    rig = LocalRig()
    await rig.start(3)
    keys = [identity(n) for n in range(5, 15)]
    for key in keys:
        await rig.holder(0).announce(announcement(key))
    forged = replace(announcement(identity(40)), roles=Role.EMIT)
    await rig.holder(0).announce(forged)
    home = cell_address(0)
    found = await rig.holder(2).find(home, limit=4)
    expected = sorted(keys, key=lambda k: int.from_bytes(k.id, "big") ^ int.from_bytes(home, "big"))[:4]
    assert [a.key for a in found] == [k.public_key for k in expected]
    rig.now += 600
    assert await rig.holder(2).find(home, limit=4) == []
    await rig.stop()


@asynchronous
async def test_sending_to_nobody_fails_loudly() -> None:
    rig = LocalRig()
    await rig.start(1)
    with pytest.raises(TransportError, match="was ever on this network") as raised:
        await rig.holder(0).request(b"\x01" * 32, b"")
    assert raised.value.code == "transport.nobody"
    with pytest.raises(TransportError, match="was ever"):
        rig.network.kill(b"\x01" * 32)
    await rig.stop()


def test_an_id_joins_once() -> None:
    network = LocalNetwork(clock=lambda: NOW)
    member = Member(id=bytes(32), organisation=bytes(32))
    network.join(member, PacketStore(), Guard([SCHEMA]))
    with pytest.raises(TransportError, match="close it first"):
        network.join(member, PacketStore(), Guard([SCHEMA]))


@asynchronous
async def test_the_same_calls_give_the_same_bytes() -> None:
    seen = []
    for _ in range(2):
        rig = LocalRig()
        await rig.start(5)
        packets = make_packets(200)
        await deposit(rig, 0, packets)
        await rig.kill(3)
        await rig.repair()
        answers = await rig.holder(1).fetch(SCHEMA.id, CELLS, cap=20)
        traffic = [(rig.holder(n).traffic.sent, rig.holder(n).traffic.received) for n in rig.alive()]
        seen.append(([a.packets.tobytes() for a in answers], traffic))
        await rig.stop()
    assert seen[0] == seen[1]


@asynchronous
async def test_a_member_comes_back_with_its_store() -> None:
    rig = LocalRig()
    await rig.start(3)
    packets = make_packets(100)
    await deposit(rig, 0, packets)
    away = rig.holder(1)
    rig.network.kill(away.member.id)
    more = make_packets(100, first=500)
    await deposit(rig, 0, more)
    back = rig.network.join(away.member, away.shelf, away.guard)
    rig._transports[1] = back
    await rig.repair()
    assert {rig.store(n).count() for n in range(3)} == {200}
    assert await fetch_all(rig, 1) == raw(np.concatenate([packets, more]))
    await rig.stop()


class LyingShelf:
    """A store that answers with packets of its own making, or with nothing."""

    def __init__(self, real: PacketStore, lie: PacketArray) -> None:
        self._real, self._lie = real, lie

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def fetch(self, addresses: Any, *, now: int, cap: int, wanted: Any = ()) -> list[Fetched]:
        return [Fetched(packets=self._lie, left_out=0) for _ in addresses]


@pytest.mark.parametrize("lie", ["forged", "from elsewhere", "nothing", "one kept back"])
@asynchronous
async def test_a_lying_holder_is_found_out_and_cannot_forge(lie: str) -> None:
    rig = LocalRig()
    await rig.start(4)
    packets = make_packets(30, cell=1)
    home = cell_address(1)
    await deposit(rig, 0, packets)
    nearest = rig.owners(home)[0]
    asker = next(n for n in rig.alive() if n not in rig.owners(home))
    forged = packets.copy()
    forged["outcome"][:, :2] = [5, 0]
    lies = {
        "forged": forged,
        "from elsewhere": make_packets(5, cell=2),
        "nothing": packets[:0],
        "one kept back": packets[1:10],
    }
    rig.holder(nearest).keeper.shelf = LyingShelf(rig.store(nearest), lies[lie])
    for cap in (256, 10):  # whole answers, and samples too
        answer = (await rig.holder(asker).fetch(SCHEMA.id, [home], cap=cap))[0]
        assert answer.agreed is False
        assert len(answer.packets) == min(cap, 30)
        assert set(raw(answer.packets)) <= set(raw(packets))
        assert answer.refused == sum(one not in raw(packets) for one in raw(lies[lie]))
    author = Wanted(int.from_bytes(identity(0).public_key[:8], "little"), 0)
    answer = (await rig.holder(asker).fetch(SCHEMA.id, [home], cap=256, wanted=[author]))[0]
    assert answer.agreed is False
    assert raw(answer.packets) == raw(packets)
    await rig.stop()


@asynchronous
async def test_packets_of_those_who_were_not_named_are_refused() -> None:
    rig = LocalRig()
    await rig.start(4)
    packets, others = make_packets(20, author=0, cell=1), make_packets(20, author=1, cell=1)
    home = cell_address(1)
    await deposit(rig, 0, np.concatenate([packets, others]))
    nearest = rig.owners(home)[0]
    asker = next(n for n in rig.alive() if n not in rig.owners(home))
    rig.holder(nearest).keeper.shelf = LyingShelf(rig.store(nearest), np.concatenate([packets, others[:7]]))
    author = Wanted(int.from_bytes(identity(0).public_key[:8], "little"), 0)
    answer = (await rig.holder(asker).fetch(SCHEMA.id, [home], cap=256, wanted=[author]))[0]
    assert raw(answer.packets) == raw(packets)
    assert answer.refused == 7
    await rig.stop()


@asynchronous
async def test_a_member_that_answers_nonsense_is_passed_over_and_counted() -> None:
    rig = LocalRig()
    await rig.start(4)
    packets = make_packets(30, cell=1)
    home = cell_address(1)
    await deposit(rig, 0, packets)
    nearest = rig.holder(rig.owners(home)[0])
    asker = rig.holder(next(n for n in rig.alive() if n not in rig.owners(home)))
    foreign = Frame(kind=Kind.ANSWER, addresses=(bytes(32),), digests=(bytes(32),), counts=(0,), left_out=(0,))
    for number, nonsense in enumerate(([], [b"nonsense"], [encode(foreign)], [encode(Frame(kind=Kind.DIGESTS))])):
        nearest.receive = lambda frame, sender, nonsense=nonsense: nonsense  # type: ignore[method-assign]
        answer = (await asker.fetch(SCHEMA.id, [home], cap=256))[0]
        assert raw(answer.packets) == raw(packets)
        assert asker.replicas.bad_replies[nearest.member.id] == number + 1
    await rig.stop()


@asynchronous
async def test_a_full_disk_is_busy_and_loses_nothing(tmp_path: Any) -> None:
    network = LocalNetwork(clock=lambda: NOW)
    guard = Guard([SCHEMA])
    members = [Member(id=identity(n).id, organisation=identity(n).public_key) for n in range(3)]
    stores = [PacketStore(tmp_path / str(n), page_limit=40 if n == 0 else None) for n in range(3)]
    transports = [network.join(m, s, guard) for m, s in zip(members, stores, strict=True)]
    packets = make_packets(512)
    done = await transports[1].deposit(SCHEMA.id, addresses_of(packets), packets)
    assert done.acknowledged.all()
    assert "BUSY" in {_receipt(code) for code in done.receipts.ravel().tolist()}
    assert transports[0].keeper.last_store_error is not None
    assert transports[0].keeper.last_store_error.code == "store.full"
    assert stores[0].count() < 512
    for store in stores:
        store.close()


def _receipt(code: int) -> str:
    from outroute.transports import Receipt

    return Receipt(code).name


def test_members_may_share_a_guard() -> None:
    """In one process each packet is then checked once, not once per member."""
    network = LocalNetwork(clock=lambda: NOW)
    guard = Guard([SCHEMA])
    members = [Member(id=identity(n).id, organisation=identity(n).public_key) for n in range(4)]
    transports = [network.join(member, PacketStore(), guard) for member in members]

    @asynchronous
    async def run() -> None:
        packets = make_packets(64)
        assert (await transports[0].deposit(SCHEMA.id, addresses_of(packets), packets)).replicated.all()

    run()
    assert guard.verified == 64


def test_a_guard_forgets_the_oldest_and_stays_right() -> None:
    guard = Guard([SCHEMA], cached=32)
    packets = make_packets(100)
    names = addresses_of(packets)
    for _ in range(2):
        for at in range(0, 100, 10):
            part = packets[at : at + 10]
            assert (guard.check(SCHEMA.id, names[at : at + 10], part, now=NOW) == 0).all()
    assert guard.verified > 100
    assert len(guard._checked) <= 42


def test_addresses_hang_on_the_secret() -> None:
    packets = make_packets(3)
    guard = Guard([SCHEMA], secret=b"ours")
    assert (guard.check(SCHEMA.id, addresses_of(packets), packets, now=NOW) != 0).all()


def test_bytes_of_no_frame_are_counted_too() -> None:
    traffic = Traffic()
    traffic.count(b"x", [b"yy"], outgoing=False)
    traffic.count(bytes(100), [], outgoing=True)
    assert (traffic.bytes_in, traffic.bytes_out) == (1, 102)
    assert traffic.sent[Topic.QUESTION] == 102
