"""Strangers cost nothing to make: what they announce takes nobody's place, and stops nobody."""

from __future__ import annotations

import asyncio

import pytest

from outroute.identity import Certificate
from outroute.transports import Announcement, Role
from outroute.transports.dht import in_turn
from outroute.transports.mesh import ALIVE_SECONDS
from outroute.transports.places import is_place
from outroute.transports.standing import Standing
from store.making import NOW, SCHEMA, identity, make_packets
from transports.rigs import addresses_of, asynchronous
from transports.test_contract import CELLS
from transports.test_mesh import Village, held, raw, until

ORG, OTHER = identity(9000), identity(9001)
ALL = Role.EMIT | Role.ASK | Role.HOLD


def word(
    number: int, endpoint: str = "127.0.0.1:7000", *, roles: Role = ALL, certificate: Certificate | None = None
) -> Announcement:
    made = Announcement(
        key=identity(number).public_key,
        roles=roles,
        endpoint=endpoint,
        expires=NOW + ALIVE_SECONDS,
        certificate=certificate,
    )
    return made.signed(identity(number))


def certificate(number: int, organisation: int = 9000) -> Certificate:
    return identity(organisation).certify(identity(number).public_key, not_before=NOW - 100, not_after=NOW + 10_000)


@pytest.mark.parametrize("text", ["host:1", "a.b-c.example:65535", "127.0.0.1:0", "[::1]:7000", "[fe80::1%eth0]:80"])
def test_places(text: str) -> None:
    assert is_place(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":7000",
        "h:",
        "h:99999",
        "h:1e3",
        "h:\u0663",
        "a b:80",
        "a\0b:80",
        "a..b:80",
        "x" * 64 + ":80",
        "[h]:1",
    ],
)
def test_what_is_no_place_is_never_called(text: str) -> None:
    assert not is_place(text)


@asynchronous
async def test_members_at_impossible_places_stop_nobody() -> None:
    async with Village() as village:
        await village.fill(2)
        one = village.members[0]
        bad = [word(50 + n, place) for n, place in enumerate(["h:99999", "a..b:80", "a\0b:80", "nowhere", ""])]
        assert one.hear([announcement.to_bytes() for announcement in bad]) == 0
        assert one.announcements["refused"] == len(bad)
        assert one.hear([word(60, "", roles=Role.ASK).to_bytes()]) == 1  # it only calls others, and keeps nothing
        packets = make_packets(50)
        assert (await one.deposit(SCHEMA.id, addresses_of(packets), packets)).replicated.all()
        await village.add(2)  # news still travels
        await until(lambda: all(len(member.members()) == 3 for member in village.members.values()))
        assert await held(village.members[2]) == raw(packets)


@asynchronous
async def test_what_nobody_certifies_owns_nothing_where_organisations_are_named() -> None:
    def standing() -> Standing:
        return Standing(now=NOW, organisations=[ORG.public_key, OTHER.public_key])

    async with Village() as village:
        for number in range(4):
            vouched = certificate(number, 9000 + number % 2)
            await village.add(number, standing=standing(), certificate=vouched)
        one = village.members[0]
        await until(lambda: len(one.members()) == 4)
        owners = one.replicas.owners(CELLS)
        strangers = [word(100 + number) for number in range(40)]
        strangers += [word(200 + number, certificate=certificate(200 + number, 9002)) for number in range(40)]
        assert one.hear([stranger.to_bytes() for stranger in strangers]) == 80
        assert len(one.peers()) == 84
        assert one.replicas.owners(CELLS) == owners
        # Nothing but its certificate says whose member one is: two of an organisation count as two of one.
        assert {member.organisation for member in one.members().members} == {ORG.public_key, OTHER.public_key}
        for row in owners:
            assert {identity(n).id for n in (0, 2)} & set(row)
            assert {identity(n).id for n in (1, 3)} & set(row)


@asynchronous
async def test_too_few_certified_members_are_filled_up_by_others() -> None:
    async with Village() as village:
        for number in range(4):
            vouched = certificate(number) if number < 2 else None
            await village.add(number, standing=Standing(now=NOW, organisations=[ORG.public_key]), certificate=vouched)
        await until(lambda: all(len(member.members()) == 4 for member in village.members.values()))


def test_who_fills_one_list_fills_one_turn_of_each_round() -> None:
    honest = [word(number) for number in range(8)]
    flood = [word(1000 + number) for number in range(200)]
    found = in_turn([flood, honest, honest[:4]], bytes(32), limit=12, holds=lambda _: True)
    assert {one.key for one in honest} <= {one.key for one in found}
    assert len(found) == 12
    assert len({one.key for one in found}) == 12


def test_of_several_words_of_a_member_the_newest_that_holds_counts() -> None:
    made = [word(1, f"127.0.0.1:{port}") for port in (1, 2, 3)]
    later = [
        Announcement(key=one.key, roles=one.roles, endpoint=one.endpoint, expires=one.expires + at)
        for at, one in enumerate(made)
    ]
    found = in_turn([later], bytes(32), limit=5, holds=lambda one: one.endpoint != "127.0.0.1:3")
    assert [one.endpoint for one in found] == ["127.0.0.1:2"]
    assert in_turn([later], bytes(32), limit=5, holds=lambda _: False) == []


@asynchronous
async def test_dead_places_hold_nobody_up_who_joins() -> None:
    """Those that take a call and say nothing are waited for beside the others."""

    taken: list[asyncio.StreamWriter] = []

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        await reader.read()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with Village() as village:
        await village.fill(2)
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await village.add(2, join=[place, village.members[0].endpoint])
        await until(lambda: len(village.members[2].members()) == 3)
    server.close()
    for writer in taken:
        writer.transport.abort()
