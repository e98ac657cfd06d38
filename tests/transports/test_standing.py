"""What members know about keys, how they tell each other, and what a revocation does to a network."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.identity import Identity, Learned, Membership, Refused, Revocation, Statement, StatementReason, Succession
from outroute.packet import PacketArray, Rejection, sign, withdraw
from outroute.placement import Member, Members
from outroute.store import PacketStore
from outroute.store.statements import StatementFile, load_standing
from outroute.transports import (
    AUTHOR_COMPROMISED,
    AUTHOR_REVOKED,
    EXCHANGE_SECONDS,
    Announcement,
    Frame,
    FrameReason,
    Guard,
    Kind,
    LocalNetwork,
    LocalTransport,
    Receipt,
    Role,
    Standing,
    decode,
    encode,
    standing,
)
from outroute.transports.frames import Flag
from store.making import DAY, NOW, SCHEMA, identity, make_packets
from transports.rigs import addresses_of, asynchronous, cell_address

ORG = identity(900)
HOME = cell_address(1)


def membership(node: Identity, org: Identity = ORG) -> bytes:
    certificate = org.certify(node.public_key, not_before=NOW - DAY, not_after=NOW + 300 * DAY)
    return Membership.accept(node, certificate).to_bytes()


def revocation(node: Identity, *, compromised: bool = False, at: int = NOW) -> bytes:
    return Revocation.make(ORG, node.public_key, at=at, compromised=compromised).to_bytes()


class World:
    """Members of one organisation each, all enrolled by ``ORG`` in the eyes of the first."""

    def __init__(self, members: int) -> None:
        self.now = NOW
        self.network = LocalNetwork(clock=lambda: self.now)
        self.guard = Guard([SCHEMA])
        self.members: list[LocalTransport] = []
        for _ in range(members):
            self.join()

    def join(self, known: Standing | None = None) -> LocalTransport:
        key = identity(len(self.members))
        member = Member(id=key.id, organisation=key.public_key)
        self.members.append(self.network.join(member, PacketStore(), self.guard, standing=known))
        return self.members[-1]

    def revoked(self, node: Identity) -> list[bool]:
        return [one.standing.register.revoked(node.public_key, self.now) for one in self.members]

    def owners(self, address: bytes = HOME) -> list[LocalTransport]:
        ids = {one.member.id: one for one in self.members}
        return [ids[id] for id in self.members[0].replicas.owners([address])[0]]


async def bring(sender: LocalTransport, packets: PacketArray) -> tuple[set[int], set[int]]:
    """The receipts and reasons that a deposit gets."""
    done = await sender.deposit(SCHEMA.id, addresses_of(packets), packets)
    return set(done.receipts.flatten().tolist()), set(done.reasons.flatten().tolist())


async def answered(asker: LocalTransport) -> PacketArray:
    return (await asker.fetch(SCHEMA.id, [HOME], cap=256))[0].packets


# telling each other ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "rounds"), [(1, 1), (2, 1), (17, 1), (18, 2), (289, 2), (300, 3), (4913, 3)])
def test_every_member_is_reached_after_so_many_rounds(count: int, rounds: int) -> None:
    everybody = Members([Member(id=identity(n).id, organisation=bytes(32)) for n in range(count)])
    ids = [one.id for one in everybody.members]
    place = {one: number for number, one in enumerate(ids)}
    for start in (0, 5):
        knows = {ids[0]}
        # All members do the same, so it is enough to know whom one gives to: the others are shifted.
        for turn in range(start, start + rounds):
            ahead = [place[one] for one in standing.partners(everybody, ids[0], turn)]
            assert len(ahead) <= standing.EXCHANGE_MEMBERS
            knows |= {ids[(place[one] + step) % count] for one in knows for step in ahead}
        assert len(knows) == count
        if count > 1:
            last = [place[one] for one in standing.partners(everybody, ids[-1], start)]
            first = [place[one] for one in standing.partners(everybody, ids[0], start)]
            assert sorted((one + 1) % count for one in last) == sorted(first)


def exchange(one: Standing, other: Standing, *, lost: bool = False) -> int:
    """One exchange between two members that know each other by their lists' names; how many frames it took."""
    for number in itertools.count():
        given = one.give(other.name, number)
        sent = decode(encode(given))
        assert isinstance(sent, Frame)
        reply = decode(encode(other.answer(sent, one.name, NOW)))
        assert isinstance(reply, Frame)
        if lost or not one.take(other.name, given, reply, NOW):
            return number + 1
    raise AssertionError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=12), st.data())
def test_whatever_is_lost_all_know_the_same_in_the_end(steps: list[tuple[int, int, bool]], data: st.DataObject) -> None:
    members = [Standing(name=bytes([n]) * 32) for n in range(4)]
    everything = [membership(identity(100 + n)) for n in range(6)]
    for one, other, lost in steps:
        news = data.draw(st.lists(st.sampled_from(everything), max_size=2))
        members[one].learn(news, NOW)
        if one != other:
            exchange(members[one], members[other], lost=lost)
    for _ in range(2):
        for one, other in itertools.permutations(members, 2):
            exchange(one, other)
    known = [set(one.register.statements()[0]) for one in members]
    assert all(one == known[0] for one in known)
    for one, other in itertools.permutations(members, 2):
        assert not one.owes(other.name)
        assert exchange(one, other) == 1


def test_an_exchange_goes_on_over_many_frames() -> None:
    one, other = Standing(name=b"1" * 32), Standing(name=b"2" * 32)
    one.learn([membership(identity(1000 + n)) for n in range(300)], NOW)
    other.learn([membership(identity(2000 + n)) for n in range(200)], NOW)
    assert 3 <= exchange(one, other) <= 5
    assert len(one.register) == len(other.register) == 500


def test_after_a_statement_that_was_not_checked_the_rest_is_not_looked_at() -> None:
    forged = bytearray(membership(identity(1)))
    forged[-1] ^= 1
    known = Standing()
    found = known.learn([bytes(forged), membership(identity(2))], NOW)
    assert found == [Refused(reason=StatementReason.SIGNATURE)]
    assert len(known.register) == 0
    assert known.refused[StatementReason.SIGNATURE] == 1


def test_it_is_kept_on_disk_and_read_on_while_the_node_runs(tmp_path: Path) -> None:
    known = Standing(StatementFile(tmp_path), now=NOW)
    known.learn([membership(identity(1))], NOW)
    StatementFile(tmp_path).append([revocation(identity(1))])
    assert not known.register.revoked(identity(1).public_key, NOW)
    assert known.refresh(NOW) == 1
    assert known.register.revoked(identity(1).public_key, NOW)
    assert known.refresh(NOW) == 0
    assert load_standing(tmp_path, now=NOW).revoked(identity(1).public_key, NOW)
    again = Standing(StatementFile(tmp_path), now=NOW)
    assert again.register.statements() == known.register.statements()


@asynchronous
async def test_newcomers_are_told_what_the_others_know() -> None:
    world = World(4)
    await world.members[0].tell([membership(identity(50)), revocation(identity(50))])
    assert world.revoked(identity(50)) == [True] * 4
    world.join()
    assert world.revoked(identity(50)) == [True] * 5


@asynchronous
async def test_nothing_travels_where_nothing_is_said() -> None:
    world = World(5)
    for one in world.members:
        await one.exchange()
        await answered(one)
    assert all(one.traffic.sent["statement"] == 0 for one in world.members)


@asynchronous
async def test_a_member_that_reads_nothing_is_told_later() -> None:
    world = World(3)
    for one in world.members:
        one._request_seconds = 0.05
    world.network.pause(world.members[1].member.id)
    await world.members[0].tell([membership(identity(50)), revocation(identity(50))])
    assert world.revoked(identity(50)) == [True, False, True]
    world.network.resume(world.members[1].member.id)
    world.now += EXCHANGE_SECONDS
    await answered(world.members[2])
    assert world.revoked(identity(50)) == [True, True, True]


# what a revocation does -----------------------------------------------------------------------------------------


@asynchronous
async def test_a_revoked_author_brings_nothing_new_takes_back_and_what_is_kept_stays() -> None:
    world = World(4)
    author = identity(0)
    kept = make_packets(5, cell=1)
    await bring(world.members[0], kept)
    await world.members[1].tell([membership(author), revocation(author)])
    new = make_packets(3, first=100, cell=1)
    for sender in world.members:
        receipts, reasons = await bring(sender, new)
        assert receipts == {Receipt.REJECTED}
        assert reasons == {AUTHOR_REVOKED}
    assert len(await answered(world.members[2])) == 5
    back = withdraw(kept[:2], author)
    done = await world.members[0].deposit(SCHEMA.id, [HOME, HOME], back)
    assert done.acknowledged.all() or done.replicated.all()
    assert len(await answered(world.members[2])) == 3
    other = make_packets(2, author=1, cell=1)
    receipts, reasons = await bring(world.members[1], other)
    assert receipts == {Receipt.HELD}
    assert len(await answered(world.members[2])) == 5


@asynchronous
async def test_nothing_of_a_compromised_author_is_answered() -> None:
    world = World(4)
    await bring(world.members[0], make_packets(5, cell=1))
    await bring(world.members[1], make_packets(4, author=1, cell=1))
    before = (await world.members[2].fetch(SCHEMA.id, [HOME], cap=256))[0]
    assert (len(before.packets), before.agreed) == (9, True)
    await world.members[1].tell([membership(identity(0)), revocation(identity(0), compromised=True)])
    assert len(await answered(world.members[0])) == 0, "it is revoked itself"
    for member in world.members:  # who owns the cell in its place has nothing of it yet
        await member.repair()
    for asker in world.members[1:]:
        found = (await asker.fetch(SCHEMA.id, [HOME], cap=256))[0]
        assert len(found.packets) == 4
        assert found.agreed, "holders that know the same say the same"
    assert await bring(world.members[0], make_packets(1, first=70)) == ({Receipt.REJECTED}, {AUTHOR_COMPROMISED})


@asynchronous
async def test_an_asker_that_knows_more_than_the_holders_believes_no_compromised_author() -> None:
    world = World(4)
    await bring(world.members[0], make_packets(5, cell=1))
    asker = world.members[3]
    asker.standing.learn([membership(identity(0)), revocation(identity(0), compromised=True)], NOW)
    found = (await asker.replicas.fetch(SCHEMA.id, [HOME], cap=256))[0]
    assert len(found.packets) == 0
    assert asker.guard.refused[AUTHOR_COMPROMISED] >= 5


@asynchronous
async def test_a_revoked_member_owns_nothing_asks_nothing_and_hands_over() -> None:
    world = World(5)
    await bring(world.members[0], make_packets(20, author=77, cell=1))
    gone = world.owners()[0]
    key = next(identity(n) for n in range(5) if identity(n).id == gone.member.id)
    await world.members[0].tell([membership(key), revocation(key)])
    for one in world.members:
        assert gone.member.id not in {member.id for member in one.members().members}
        assert gone not in world.owners()
    ask = encode(Frame(kind=Kind.ASK, sequence=3, schema=SCHEMA.id, addresses=(HOME,), cap=9))
    other = next(one for one in world.members if one is not gone)
    refused = decode((await gone.request(other.member.id, ask))[0])
    assert isinstance(refused, Frame)
    assert (refused.kind, refused.detail) == (Kind.REFUSED, FrameReason.REVOKED)
    assert gone.shelf.addresses() == [HOME]
    await gone.repair()
    assert gone.shelf.addresses() == [], "the others have it"
    assert len(await answered(other)) == 20
    receipts, _ = await bring(other, make_packets(1, author=78, cell=1))
    assert receipts == {Receipt.HELD}


@asynchronous
async def test_repair_keeps_what_a_revoked_author_said_before() -> None:
    world = World(4)
    author = identity(0)
    world.now += 5 * DAY
    await world.members[1].tell([membership(author), revocation(author, at=NOW + DAY)])
    old = make_packets(2, cell=1)
    assert (old["bucket"] <= NOW + DAY).all()
    new = old.copy()
    new["bucket"] = NOW // DAY * DAY + 3 * DAY
    new["sequence"] += np.uint64(50)
    sign(new, author)
    holder = world.owners()[0]
    for packets, reason in ((old, Rejection.NONE), (new, AUTHOR_REVOKED)):
        frame = Frame(
            kind=Kind.DEPOSIT,
            flags=Flag.REPAIR,
            schema=SCHEMA.id,
            addresses=(HOME,),
            counts=(2,),
            packets=packets,
        )
        reply = decode(holder.keeper.handle(encode(frame))[0])
        assert isinstance(reply, Frame)
        assert reply.receipts[:, 1].tolist() == [reason] * 2


@asynchronous
async def test_an_organisation_must_be_proved_where_the_network_names_them() -> None:
    """Four members claim to be four organisations; two of them are known to be one, the others nobody's."""
    world = World(0)
    for _ in range(4):
        world.join(Standing(now=NOW, organisations=[ORG.public_key]))
    await world.members[0].tell(
        [membership(identity(0)), membership(identity(1)), membership(identity(2), identity(9))]
    )
    for one in world.members:
        known = {member.id: member.organisation for member in one.members().members}
        assert known[identity(0).id] == known[identity(1).id] == ORG.public_key
        assert known[identity(2).id] == identity(2).id
        assert known[identity(3).id] == identity(3).id
    world.now += 400 * DAY
    assert ORG.public_key not in {member.organisation for member in world.members[0].members().members}


@asynchronous
async def test_an_organisation_with_a_new_key_is_still_one_organisation() -> None:
    world = World(0)
    following = identity(902)
    for number, org in enumerate((ORG, following)):
        world.members.append(
            world.network.join(Member(id=identity(number).id, organisation=org.public_key), PacketStore(), world.guard)
        )
    await world.members[0].tell([Succession.make(ORG, following, at=NOW).to_bytes()])
    for one in world.members:
        assert {member.organisation for member in one.members().members} == {ORG.public_key}


@asynchronous
async def test_whoever_answers_can_be_told_who_asked_what() -> None:
    world = World(3)
    heard: list[tuple[int, bytes | None, tuple[bytes, ...]]] = []
    for number, one in enumerate(world.members):
        one.keeper.answered = lambda asker, addresses, number=number: heard.append((number, asker, tuple(addresses)))
    await answered(world.members[1])
    assert heard
    assert {(asker, addresses) for _, asker, addresses in heard} <= {
        (world.members[1].member.id, (HOME,)),
        (None, (HOME,)),
    }


def test_announcements_of_revoked_keys_do_not_hold() -> None:
    node, org = identity(1), ORG
    made = Announcement(
        key=node.public_key,
        roles=Role.HOLD,
        endpoint="tcp://a:1",
        expires=NOW + 60,
        certificate=org.certify(node.public_key, not_before=NOW - DAY, not_after=NOW + DAY),
    ).signed(node)
    known = Standing()
    assert made.holds(NOW, known.register)
    known.learn([membership(org, identity(901))], NOW)
    assert not made.holds(NOW, known.register), "a node of an organisation certifies nobody"
    known = Standing()
    known.learn([membership(node), revocation(node)], NOW)
    assert not made.holds(NOW, known.register)
    assert made.holds(NOW)


# a running network ----------------------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


@pytest.mark.parametrize("said", ["node", "organisation"])
def test_a_revocation_takes_effect_everywhere_within_a_minute(loop: asyncio.AbstractEventLoop, said: str) -> None:
    """Forty members, four threads of traffic: one member hears of it, a minute of the clock later all heed it."""
    world = World(40)
    author = identity(3)
    statements: list[Statement] = [
        Revocation.make(ORG, author.public_key if said == "node" else ORG.public_key, at=NOW)
    ]
    asyncio.run_coroutine_threadsafe(world.members[0].tell([membership(author)]), loop).result()
    packets = iter(range(1000, 10**6))

    def work(number: int) -> None:
        """One round of traffic of a quarter of the members: each asks, and brings a packet of its own."""
        for one in range(number, len(world.members), 4):
            sender = world.members[one]
            own = make_packets(1, author=one, first=next(packets))
            asyncio.run_coroutine_threadsafe(bring(sender, own), loop).result()
            asyncio.run_coroutine_threadsafe(answered(sender), loop).result()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
        assert not any(world.revoked(author))
        found = world.members[7].standing.learn([one.to_bytes() for one in statements], world.now)
        assert all(isinstance(one, Learned) and one.new for one in found)
        until = world.now + 60
        while world.now < until:
            world.now += EXCHANGE_SECONDS
            list(threads.map(work, range(4)))
        assert all(world.revoked(author))
        for one in world.members:
            assert author.id not in {member.id for member in one.members().members}
        outcome = asyncio.run_coroutine_threadsafe(
            bring(world.members[3], make_packets(2, author=3, first=10**7)), loop
        ).result()
        assert outcome == ({Receipt.REJECTED}, {AUTHOR_REVOKED})


@asynchronous
async def test_a_rotation_keeps_the_name_under_which_an_author_counts() -> None:
    world = World(2)
    old, new, org_next = identity(60), identity(61), identity(902)
    certificate = ORG.certify(new.public_key, not_before=NOW, not_after=NOW + DAY)
    await world.members[0].tell(
        [
            membership(old),
            Succession.make(old, new, at=NOW, certificate=certificate).to_bytes(),
            Membership.accept(new, certificate).to_bytes(),
            Succession.make(ORG, org_next, at=NOW).to_bytes(),
            membership(old, org_next),
        ]
    )
    for one in world.members:
        assert one.standing.register.origin(new.public_key) == old.public_key
        for key in (old, new):
            assert one._known[key.public_key] == ORG.public_key
