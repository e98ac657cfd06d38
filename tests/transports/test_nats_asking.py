"""NATS: which frames lie where, who keeps them, and who asks whom, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.identity import Identity
from outroute.testing.making import CELLS, SCHEMA, identity, make_packets
from outroute.testing.nats_server import NatsServer, running
from outroute.testing.rigs import raw, united
from outroute.transports import Frame, Kind, Role, Topic
from outroute.transports.frames import encode
from outroute.transports.nats_stream import covers
from outroute.transports.nats_subjects import Subjects, group_of, kept_shards, shard_of
from transports.nats_nodes import PATIENCE, got, nodes, put, until
from transports.rigs import asynchronous

SUBJECTS = Subjects(prefix="outroute", schema=SCHEMA.id)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for all tests that do not disturb it; each has a prefix of its own."""
    with running(tmp_path_factory.mktemp("nats")) as started:
        yield started


@settings(deadline=None)
@given(address=st.binary(min_size=32, max_size=32), part=st.sampled_from(["", "0", "7", "a", "a1", "0f"]))
def test_a_frame_lies_where_those_look_who_keep_its_shard(address: bytes, part: str) -> None:
    shard = shard_of(address)
    keep = (part,) if part else ()
    subject = SUBJECTS.packets(shard)
    assert SUBJECTS.shard_in(subject) == shard
    assert any(covers(one, subject) for one in SUBJECTS.kept(keep)) == (shard in kept_shards(keep))
    assert any(covers(one, SUBJECTS.questions(2, shard)) for one in SUBJECTS.answered(2, keep)) == (
        shard in kept_shards(keep)
    )
    assert any(covers(one, subject) for one in SUBJECTS.stored)


@pytest.mark.parametrize(
    ("pattern", "subject", "covered"),
    [("a.>", "a.*.b", True), ("a.*", "a.>", False), ("a.*.b", "a.x.b", True), ("a.b", "a.*", False), (">", "a", True)],
)
def test_one_pattern_covers_another(pattern: str, subject: str, covered: bool) -> None:
    assert covers(pattern, subject) is covered


def in_groups() -> tuple[Identity, Identity]:
    """Two nodes whose organisations (themselves) are in different groups."""
    found = {group_of(identity(number).public_key): identity(number) for number in range(3000, 3040)}
    return found[0], found[1]


@asynchronous
async def test_who_keeps_nothing_asks_groups_of_those_who_do_with_addresses_only(
    server: NatsServer, tmp_path: Path
) -> None:
    async with nodes(server, tmp_path) as net:
        asker = await net.node(0, roles=Role.EMIT | Role.ASK)
        packets = make_packets(300)
        assert (await put(asker, packets)).acknowledged.all()
        answers = await asker.fetch(SCHEMA.id, CELLS, cap=256)
        assert not any(answer.complete for answer in answers)  # nobody is there to ask
        one, two = in_groups()
        for number, key in enumerate((one, two), 1):
            holder = await net.node(number, key=key)
            assert await holder._keeping.fresh(PATIENCE)
            await until(lambda holder=holder: holder._answering._subscriptions)
        before = asker.traffic.sent[Topic.QUESTION]
        answers = await asker.fetch(SCHEMA.id, CELLS, cap=256)
        assert united(answers) == raw(packets)
        assert {(a.complete, a.agreed, a.refused) for a in answers} == {(True, True, 0)}
        sent = asker.traffic.sent[Topic.QUESTION] - before
        assert 0 < sent <= 3 * 2 * len(CELLS) * (72 + 32)  # header and address, to each group, asked again at most once
        # Packets do not come this way: only by the stream, where all see them.
        forged = encode(
            Frame(kind=Kind.DEPOSIT, schema=SCHEMA.id, addresses=(CELLS[0],), counts=(0,), packets=packets[:0])
        )
        (reply,) = await asker._link.request(bytes([*bytes(30), 0, shard_of(CELLS[0])]), forged)
        assert reply[4] == Kind.REFUSED


@asynchronous
async def test_of_a_group_one_node_answers_each_question(server: NatsServer, tmp_path: Path) -> None:
    groups: dict[int, list[Identity]] = {}
    for number in range(3000, 3040):
        groups.setdefault(group_of(identity(number).public_key), []).append(identity(number))
    async with nodes(server, tmp_path) as net:
        keys = [*groups[0][:3], groups[1][0], groups[2][0]]
        holders = [await net.node(number, key=key) for number, key in enumerate(keys, 1)]
        await until(lambda: all(one._answering._subscriptions for one in holders))
        asker = await net.node(0, roles=Role.EMIT | Role.ASK)
        packets = make_packets(80)
        assert (await put(asker, packets)).acknowledged.all()
        for one in holders:
            assert await one._keeping.fresh(PATIENCE)
        assert await got(asker) == raw(packets)
        heard = [one.traffic.received[Topic.QUESTION] for one in holders]
        assert sum(heard) == asker.traffic.sent[Topic.QUESTION]  # three groups; of the first one node each time
        assert all(heard[3:])


@asynchronous
async def test_nodes_that_keep_a_part_each_answer_each_other(server: NatsServer, tmp_path: Path) -> None:
    async with nodes(server, tmp_path) as net:
        low = await net.node(0, "keep=0,1,2,3,4,5,6,7")
        high = await net.node(1, "keep=8,9,a,b,c,d,e,f")
        packets = make_packets(300)
        assert (await put(low, packets)).acknowledged.all()
        for holder, half in ((low, range(128)), (high, range(128, 256))):
            assert await holder._keeping.fresh(PATIENCE)
            await until(lambda holder=holder: holder._answering._subscriptions)
            assert {shard_of(name) for name in holder.shelf.addresses()} <= set(half)
        assert {shard_of(name) < 128 for name in CELLS} == {True, False}
        for holder in (low, high):
            assert await got(holder) == raw(packets)


@asynchronous
async def test_bytes_are_counted_where_they_pass(server: NatsServer, tmp_path: Path) -> None:
    async with nodes(server, tmp_path) as net:
        one, two = await net.node(0), await net.node(1)
        packets = make_packets(400)
        await put(one, packets)
        await got(two)
        sent = one.traffic.sent[Topic.DEPOSIT]
        frames = len({shard_of(name) for name in CELLS}) + 400 // 128
        assert 400 * 512 < sent <= 400 * 512 + frames * 72 + 34 * len(CELLS) * 2
        assert one.traffic.received[Topic.DEPOSIT] == two.traffic.received[Topic.DEPOSIT] == sent
        assert two.traffic.sent[Topic.DEPOSIT] == two.traffic.sent[Topic.QUESTION] == 0
        await until(lambda: len(one.peers()) == len(two.peers()) == 2)
        await two.stop()
        await until(lambda: len(one.peers()) == 1)
