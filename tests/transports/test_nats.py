"""NATS as a holder: what is true over it instead of, or besides, the contract of every transport."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import StoreError, TransportError
from outroute.identity import Identity, Revocation
from outroute.packet import PacketArray, Rejection, sign, withdraw
from outroute.store import PacketStore
from outroute.testing.making import CELLS, FACETED, NOW, SCHEMA, addresses_of, cell_address, identity, make_packets
from outroute.testing.nats_server import NatsServer, free_ports, running
from outroute.testing.rigs import raw, united
from outroute.transports import ADDRESS_REFUSED, AUTHOR_REVOKED, Frame, FrameReason, Guard, Kind, Receipt, Role, Topic
from outroute.transports.frames import encode
from outroute.transports.nats import NatsHolder
from outroute.transports.nats_connection import NatsConnection
from outroute.transports.nats_keeping import POSITION_FILE, TAKE_FRAMES
from outroute.transports.nats_options import nats_options
from outroute.transports.nats_pulling import Progress
from outroute.transports.nats_stream import covers
from outroute.transports.nats_subjects import Subjects, group_of, kept_shards, shard_of
from outroute.transports.standing import Standing
from outroute.transports.url import parse_url
from transports.rigs import asynchronous

ALL = Role.EMIT | Role.ASK | Role.HOLD
SUBJECTS = Subjects(prefix="outroute", schema=SCHEMA.id)
ORG = identity(900)
PATIENCE = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for all tests that do not disturb it; each has a prefix of its own."""
    with running(tmp_path_factory.mktemp("nats")) as started:
        yield started


class Nodes:
    """Nodes on one server, closed at the end."""

    def __init__(self, server: NatsServer, directory: Path, prefix: str) -> None:
        self.server, self.directory, self.prefix = server, directory, prefix
        self.now = NOW
        self.made: list[NatsHolder] = []

    async def node(
        self, number: int, options: str = "", *, roles: Role = ALL, schema: Any = SCHEMA, key: Identity | None = None
    ) -> NatsHolder:
        key = key or identity(1000 + number)
        url = f"{self.server.url}?prefix={self.prefix}&monitor={self.server.monitor}&{options}".rstrip("&")
        directory = self.directory / str(number)
        holder = NatsHolder(
            nats_options(parse_url(url)),
            schema=schema,
            identity=key,
            guard=Guard([schema]),
            standing=Standing(name=key.id),
            clock=lambda: self.now,
            shelf=PacketStore(directory) if Role.HOLD in roles else None,
            directory=directory,
            roles=roles,
        )
        self.made.append(holder)
        await holder.start()
        return holder

    def subjects(self) -> Subjects:
        return Subjects(prefix=self.prefix, schema=SCHEMA.id)


@contextlib.asynccontextmanager
async def nodes(server: NatsServer, directory: Path, prefix: str = "") -> AsyncIterator[Nodes]:
    made = Nodes(server, directory, prefix or f"t{directory.name[-40:]}")
    try:
        yield made
    finally:
        for one in made.made:
            await one.close()


async def put(holder: NatsHolder, packets: PacketArray, schema: Any = SCHEMA):
    return await holder.deposit(schema.id, addresses_of(packets, schema), packets)


async def got(holder: NatsHolder, cells: list[bytes] = CELLS) -> list[bytes]:
    return united(await holder.fetch(SCHEMA.id, cells, cap=256))


async def until(what: Any) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE):
        while not what():
            await asyncio.sleep(0.02)


# addresses and names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nats://host:0", "HOST:PORT"),
        ("nats://host:70000", "no URL"),
        ("nats://host/path", "between"),
        ("nats://tom:hunter2@host", "options file"),
        ("nats://hunter2@host", "options file"),
        ("nats://host?colour=red", "no option 'colour'"),
        ("nats://host?creds=nowhere.creds", "no file"),
        ("nats://host?options=nowhere.toml", "cannot read"),
        ("nats://host?replicas=9", "from 1 to 5"),
        ("nats://host?keep=zz", "hexadecimal"),
        ("nats://host?prefix=a..b", "words"),
        ("nats://host?prefix=a.%3E", "words"),
        ("nats://host?sync=sometimes", "always"),
        ("nats://host?storage=tape", "file or memory"),
        ("nats://host?monitor=file:///etc/passwd", "http://"),
        ("nats://host?user=tom", "password_file"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_in_one_line_without_secrets(url: str, says: str) -> None:
    with pytest.raises(TransportError, match=says) as caught:
        nats_options(parse_url(url))
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_options_come_from_a_file_and_the_address_goes_before(tmp_path: Path) -> None:
    (tmp_path / "seed").write_text("x")
    (tmp_path / "nats.toml").write_text('prefix = "clinic"\nreplicas = 3\nnkey = "seed"\nkeep = ["0", "a1"]\n')
    found = nats_options(parse_url(f"nats://a,b:5000?options={tmp_path / 'nats.toml'}&prefix=other"))
    assert found.servers == ("nats://a:4222", "nats://b:5000")
    assert (found.prefix, found.replicas, found.keep) == ("other", 3, ("0", "a1"))
    assert found.nkey == tmp_path / "seed"
    assert "seed" not in repr(found.named)


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


# what lies in the stream --------------------------------------------------------------------------------------


@asynchronous
async def test_whatever_lies_in_the_stream_is_checked_counted_and_not_kept(server: NatsServer, tmp_path: Path) -> None:
    async with nodes(server, tmp_path) as net:
        holder = await net.node(0)
        good = make_packets(3, cell=2)
        home, subjects = cell_address(2), net.subjects()
        bad = good.copy()
        bad["signature"][:, 3] ^= 1
        right, elsewhere = subjects.packets(shard_of(home)), subjects.packets((shard_of(home) + 1) % 256)

        def frame(packets: PacketArray, name: bytes = home) -> bytes:
            return encode(
                Frame(kind=Kind.DEPOSIT, schema=SCHEMA.id, addresses=(name,), counts=(len(packets),), packets=packets)
            )

        client = holder._connection.client
        for subject, data in (
            (right, b""),
            (right, b"GET / HTTP/1.1\r\n\r\n" * 10),
            (right, encode(Frame(kind=Kind.BUSY))),
            (right, frame(bad)),
            (elsewhere, frame(good)),  # genuine, under another shard: those who keep its own would never see it
            (right, frame(good, bytes([home[0], *bytes(31)]))),  # genuine, at an address of the shard that is not its
            (right, frame(good)[:-1]),
        ):
            await client.jetstream().publish(subject, data)
        assert await got(holder) == []
        assert holder.keeper.refused_frames == {
            FrameReason.LENGTH: 2,
            FrameReason.MAGIC: 1,
            FrameReason.UNEXPECTED: 1,
        }
        assert holder.refused == {Rejection.SIGNATURE: 3, ADDRESS_REFUSED: 6}
        await client.jetstream().publish(right, frame(good))
        assert await got(holder) == raw(good)
        assert holder.problems == {}


@asynchronous
async def test_what_a_consumer_does_not_count_yet_is_waited_for(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server acknowledges a message before its consumers count it: "nothing waits" may come a moment too early."""
    async with nodes(server, tmp_path) as net:
        holder = await net.node(0)
        keeping = holder._keeping
        await until(lambda: holder._answering._subscriptions)  # it has looked at the start how far it is
        packets = make_packets(3, cell=2)
        progress, keep = keeping._puller.progress, keeping._keep
        told = asyncio.Event()

        async def early() -> Progress:
            found = await progress()
            if not told.is_set():
                told.set()
                return Progress(pending=0, unconfirmed=0, delivered=keeping._taken, confirmed=found.confirmed)
            return found

        async def later(messages: Any) -> None:
            await told.wait()
            await keep(messages)

        monkeypatch.setattr(keeping._puller, "progress", early)
        monkeypatch.setattr(keeping, "_keep", later)
        frame = Frame(kind=Kind.DEPOSIT, schema=SCHEMA.id, addresses=(cell_address(2),), counts=(3,), packets=packets)
        subject = net.subjects().packets(shard_of(cell_address(2)))
        await holder._connection.client.jetstream().publish(subject, encode(frame))
        assert await got(holder) == raw(packets)


@asynchronous
async def test_a_consumer_that_is_made_anew_is_waited_for(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a break a node binds its consumer anew: whoever asks in that moment is not told that packets may lack."""
    async with nodes(server, tmp_path) as net:
        holder = await net.node(0)
        packets = make_packets(3, cell=2)
        await put(holder, packets)
        info, gone = holder._keeping._puller.info, 2

        async def missing() -> Any:
            nonlocal gone
            gone -= 1
            return None if gone >= 0 else await info()

        monkeypatch.setattr(holder._keeping._puller, "info", missing)
        (answer,) = await holder.fetch(SCHEMA.id, [cell_address(2)], cap=256)
        assert gone < 0
        assert (answer.silent, united([answer])) == (0, raw(packets))


@asynchronous
async def test_who_comes_late_finds_what_was_taken_back_and_who_equivocates(server: NatsServer, tmp_path: Path) -> None:
    async with nodes(server, tmp_path) as net:
        first = await net.node(0)
        packets = make_packets(20, cell=1)
        await put(first, packets)
        await put(first, withdraw(packets[:8], identity(0)))
        other = make_packets(1, seed=7, first=19, cell=1)
        other["sequence"] = packets["sequence"][19]
        sign(other, identity(0))
        assert (await put(first, other)).receipts.tolist() == [[Receipt.EQUIVOCATION]]
        late = await net.node(1)
        assert await got(late) == await got(first) == raw(packets[8:19])
        assert (await put(late, packets[:8])).receipts.ravel().tolist() == [Receipt.WITHDRAWN] * 8


@asynchronous
async def test_statements_about_keys_reach_all_and_those_who_come_late(server: NatsServer, tmp_path: Path) -> None:
    from transports.test_standing import membership

    async with nodes(server, tmp_path) as net:
        first, second = await net.node(0), await net.node(1)
        author = identity(0)
        packets = make_packets(6, cell=1)
        await put(first, packets)
        await first.tell([membership(author, ORG)])
        await until(lambda: second.organisations.get(author.public_key) == ORG.public_key)
        revoked = Revocation.make(ORG, author.public_key, at=NOW, compromised=True).to_bytes()
        await second.tell([revoked])
        await until(lambda: first.standing.register.any_compromised)
        assert await got(first) == []
        late = await net.node(2)
        assert late.standing.register.any_compromised  # before it keeps anything
        assert await got(late) == []
        assert AUTHOR_REVOKED not in late.refused
        # A node that knows something, and says it when it starts: nobody else has to be there at the time.
        third = Standing(name=b"third")
        third.learn([membership(identity(1), ORG)], NOW)
        for one in net.made:
            await one.stop()
        knowing = await net.node(3)
        await knowing.tell([membership(identity(1), ORG)])
        await knowing.stop()
        last = await net.node(4)
        assert last.organisations.get(identity(1).public_key) == ORG.public_key


@asynchronous
async def test_the_facets_of_a_schema_stand_in_its_addresses(server: NatsServer, tmp_path: Path) -> None:
    async with nodes(server, tmp_path) as net:
        holder = await net.node(0, schema=FACETED)
        packets = make_packets(1, schema=FACETED, cell=1)
        assert (await put(holder, packets, FACETED)).acknowledged.all()
        names = addresses_of(packets, FACETED)
        assert united(await holder.fetch(FACETED.id, names, cap=256)) == raw(packets)
        back = await holder.deposit(FACETED.id, names, withdraw(packets, identity(0)))
        assert back.acknowledged.all()
        assert united(await holder.fetch(FACETED.id, names, cap=256)) == []


# who keeps, who asks --------------------------------------------------------------------------------------------


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


# trouble ---------------------------------------------------------------------------------------------------------


@asynchronous
async def test_a_server_that_is_killed_while_packets_flow_loses_nothing(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "server").start()
    try:
        async with nodes(server, tmp_path) as net:
            sender, reader = await net.node(0), await net.node(1)
            packets = make_packets(3000)
            parts = np.array_split(packets, 60)
            done = [False] * len(parts)

            async def send(number: int) -> None:
                while not done[number]:
                    done[number] = bool((await put(sender, parts[number])).acknowledged.all())

            flow = asyncio.gather(*(send(number) for number in range(0, 60, 2)))
            await until(lambda: any(done))
            server.kill()
            await until(lambda: "connection" in sender.problems)
            answers = await reader.fetch(SCHEMA.id, CELLS, cap=256)  # what it has, and that some may lack
            assert all(answer.complete and answer.silent for answer in answers)
            server.start()
            await flow
            await asyncio.gather(*(send(number) for number in range(1, 60, 2)))
            for holder in (sender, reader):
                assert await holder._keeping.fresh(PATIENCE)
                assert holder.shelf.count() == 3000  # all of them, and none twice
            await until(lambda: reader.problems == {})
    finally:
        server.stop()


@asynchronous
async def test_a_node_goes_on_where_it_was_and_a_restored_one_where_its_backup_was(
    server: NatsServer, tmp_path: Path
) -> None:
    async with nodes(server, tmp_path) as net:
        sender = await net.node(0)
        reader = await net.node(1)
        await put(sender, make_packets(100))
        assert len(await got(reader)) == 100
        await reader.close()
        shutil.copytree(tmp_path / "1", tmp_path / "backup")
        await put(sender, make_packets(100, first=1000))
        again = await net.node(1)
        assert len(await got(again)) == 200
        assert again.keeper.receipts == {Receipt.DURABLE: 100}  # nothing was read twice
        await again.close()
        shutil.rmtree(tmp_path / "1")
        shutil.copytree(tmp_path / "backup", tmp_path / "1")
        restored = await net.node(1)
        assert len(await got(restored)) == 200
        await restored.close()
        shutil.rmtree(tmp_path / "1")  # only the note is left: it says nothing without its store
        (tmp_path / "1").mkdir()
        shutil.copy(tmp_path / "backup" / POSITION_FILE, tmp_path / "1")
        assert len(await got(await net.node(1))) == 200


@asynchronous
async def test_a_disk_that_is_full_for_a_while_loses_nothing(server: NatsServer, tmp_path: Path) -> None:
    async with nodes(server, tmp_path) as net:
        sender, reader = await net.node(0), await net.node(1)
        shelf, whole = reader.shelf, reader.shelf.put
        full = True

        def put_or_not(*arguments: Any, **named: Any) -> Any:
            if full:
                raise StoreError("the disk is full", code="store.full")
            return whole(*arguments, **named)

        shelf.put = put_or_not  # type: ignore[method-assign]
        packets = make_packets(50)
        assert (await put(sender, packets)).acknowledged.all()
        await until(lambda: "full" in reader.problems.get("keep", ""))
        full = False
        await until(lambda: reader.shelf.count() == 50)
        await until(lambda: reader.problems == {})


@asynchronous
async def test_a_slow_reader_holds_back_nobody_and_reads_all_later(server: NatsServer, tmp_path: Path) -> None:
    async with nodes(server, tmp_path) as net:
        sender, slow = await net.node(0), await net.node(1)
        keeping = slow._keeping
        taking, take = asyncio.Event(), keeping._keep

        async def later(messages: Any) -> None:
            await taking.wait()
            await take(messages)

        keeping._keep = later
        rows = make_packets(600)
        parts = np.array_split(rows, 200)
        done = await asyncio.gather(*(put(sender, part) for part in parts))
        assert all(one.acknowledged.all() for one in done)
        assert len(keeping._puller._waiting) <= keeping._puller._most
        assert (await slow.fetch(SCHEMA.id, CELLS[:1], cap=256))[0].silent > 0
        taking.set()
        await until(lambda: slow.shelf.count() == 600)
        assert keeping._puller._most > TAKE_FRAMES


@asynchronous
async def test_the_same_deposit_again_is_dropped_by_the_server(server: NatsServer, tmp_path: Path) -> None:
    async with nodes(server, tmp_path) as net:
        for number, roles in ((0, ALL), (1, Role.EMIT | Role.ASK)):
            holder = await net.node(number, roles=roles)
            packets = make_packets(10, author=number)
            first, again = await put(holder, packets), await put(holder, packets)
            assert (first.receipts == Receipt.DURABLE).all()
            assert (again.receipts == Receipt.DUPLICATE).all()
            assert again.acknowledged.all()
        info = await net.made[0]._connection.api(f"STREAM.INFO.{net.subjects().stream}")
        assert info["state"]["messages"] == sum(
            len({shard_of(a) for a in addresses_of(make_packets(10, author=n))}) for n in (0, 1)
        )


# what the servers promise -----------------------------------------------------------------------------------------


async def refused(server: NatsServer, directory: Path, options: str = "", prefix: str = "p") -> TransportError:
    with pytest.raises(TransportError) as caught:
        async with nodes(server, directory, prefix) as net:
            await net.node(0, options)
    assert "\n" not in str(caught.value)
    return caught.value


@asynchronous
async def test_only_what_is_synced_is_acknowledged(tmp_path: Path) -> None:
    with running(tmp_path / "server", synced=False) as server:
        async with nodes(server, tmp_path) as net:
            holder = await net.node(0)
            done = await put(holder, make_packets(5))
            assert (done.receipts == Receipt.HELD).all()
            assert done.replicated.all()
            assert not done.acknowledged.any()
            assert not holder.capabilities.durable
            assert "sync_interval" in holder.problems["durable"]
        wrong = await refused(server, tmp_path, "sync=always")
        assert wrong.code == "nats.sync"
        async with nodes(server, tmp_path, "undeclared") as net:  # nobody says anything, so nothing is promised
            net.server = _Unwatched(server)  # type: ignore[assignment]
            assert not (await net.node(1)).capabilities.durable
            assert (await net.node(2, "sync=always")).capabilities.durable  # as declared


class _Unwatched:
    """A server whose monitoring nobody reads."""

    monitor = ""

    def __init__(self, server: NatsServer) -> None:
        self.url = server.url


@asynchronous
async def test_a_stream_made_beforehand_is_taken_as_it_is(server: NatsServer, tmp_path: Path) -> None:
    from outroute.transports.nats_connection import NatsConnection

    admin = NatsConnection(nats_options(parse_url(server.url)), "admin")
    await admin.open()
    try:

        async def make(name: str, subject: str, **config: Any) -> None:
            stream = {"name": name, "subjects": [subject], "retention": "limits", "storage": "file", **config}
            await admin.api(f"STREAM.CREATE.{name}", stream)

        await make("GOOD", "good.>")
        await make("QUEUE", "queue.>", retention="workqueue")
        await make("OTHER", "elsewhere.>")
        await make("SHORT", "short.>", max_age=60_000_000_000)
        await make("LOSING", "losing.>", max_msgs=10, discard="old")
        await make("SMALL", "small.>", max_msg_size=1024)
        await make("FULL", "full.>", max_bytes=2048, discard="new")
        async with nodes(server, tmp_path, "good") as net:
            assert (await put(await net.node(0, "stream=GOOD"), make_packets(3))).acknowledged.all()
        assert "retention" in str(await refused(server, tmp_path, "stream=QUEUE", "queue"))
        assert "does not keep" in str(await refused(server, tmp_path, "stream=OTHER", "other"))
        for name, why in (("short", "max_age"), ("losing", "discard")):
            async with nodes(server, tmp_path / name, name) as net:
                holder = await net.node(0, f"stream={name.upper()}")
                assert (await put(holder, make_packets(2))).receipts.ravel().tolist() == [Receipt.HELD] * 2
                assert why in holder.problems["durable"]
        async with nodes(server, tmp_path / "small", "small") as net:
            with pytest.raises(TransportError, match="max_msg_size"):
                await put(await net.node(0, "stream=SMALL"), make_packets(20, cell=1))
        async with nodes(server, tmp_path / "full", "full") as net:
            done = await put(await net.node(0, "stream=FULL"), make_packets(100, cell=1))
            assert (done.receipts == Receipt.BUSY).all()
    finally:
        await admin.close()


@asynchronous
async def test_a_server_with_small_messages_a_domain_or_no_jetstream(tmp_path: Path) -> None:
    with running(tmp_path / "small", more="max_payload: 65536") as server:
        assert "max_payload" in str(await refused(server, tmp_path))
    with running(tmp_path / "domain", domain="hub") as server:
        async with nodes(server, tmp_path / "d") as net:
            assert (await put(await net.node(0, "domain=hub"), make_packets(3))).acknowledged.all()
        assert "domain 'spoke'" in str(await refused(server, tmp_path, "domain=spoke"))


# security --------------------------------------------------------------------------------------------------------


@asynchronous
async def test_nobody_there_and_wrong_credentials(tmp_path: Path) -> None:
    from transports.nats_security import nkey_file

    server = NatsServer(tmp_path / "nobody")
    assert (await refused(server, tmp_path)).code == "nats.unreachable"
    (tmp_path / "right").write_text("s3cret\n")
    (tmp_path / "wrong").write_text("hunter2\n")
    key = nkey_file(tmp_path / "good.nk")
    nkey_file(tmp_path / "other.nk")
    users = f'authorization {{ users: [{{ user: "tom", password: "s3cret" }}, {{ nkey: "{key}" }}] }}'
    with running(tmp_path / "server", more=users) as server:
        for options in ("", f"user=tom&password_file={tmp_path / 'wrong'}", f"nkey={tmp_path / 'other.nk'}"):
            error = await refused(server, tmp_path, options)
            assert error.code == "nats.credentials"
            assert "hunter2" not in str(error)
        for number, options in enumerate(
            (f"user=tom&password_file={tmp_path / 'right'}", f"nkey={tmp_path / 'good.nk'}")
        ):
            async with nodes(server, tmp_path / str(number), f"p{number}") as net:
                assert (await put(await net.node(0, options), make_packets(3))).acknowledged.all()
        # A server that does not speak TLS is told nothing where TLS is wanted.
        error = await refused(server, tmp_path, f"tls=on&user=tom&password_file={tmp_path / 'right'}")
        assert (error.code, "TLS" in str(error)) == ("nats.certificate", True)


@asynchronous
async def test_a_credentials_file_of_an_operator_is_taken(tmp_path: Path) -> None:
    from transports.nats_security import operator

    config, creds = operator(tmp_path)
    with running(tmp_path / "server", more=config) as server:
        async with nodes(server, tmp_path) as net:
            assert (await put(await net.node(0, f"creds={creds}"), make_packets(3))).acknowledged.all()
        assert (await refused(server, tmp_path)).code == "nats.credentials"


@asynchronous
async def test_the_example_for_a_server_secures_everything(tmp_path: Path) -> None:
    """``deploy/nats-server.conf``: mutual TLS, NKeys, only the subjects that a node needs."""
    from transports.nats_security import certificates, nkey_file

    certificates(tmp_path, "server", "node")
    names = ("admin", "north", "south")
    keys = {name: nkey_file(tmp_path / f"{name}.nk") for name in names}
    port, monitor = free_ports(2)
    text = (Path(__file__).parents[2] / "deploy" / "nats-server.conf").read_text()
    for name in names:
        placeholder = f"U{name.upper() * 11}"
        assert placeholder in text
        text = text.replace(placeholder, keys[name])
    for old, new in (
        ("0.0.0.0:4222", f"127.0.0.1:{port}"),
        ("127.0.0.1:8222", f"127.0.0.1:{monitor}"),
        ("/etc/nats", str(tmp_path)),
        ("/var/lib/nats", str(tmp_path / "store")),
        ("100G", "1G"),
    ):
        assert old in text
        text = text.replace(old, new)
    server = NatsServer(tmp_path / "server", port=port, config=text)
    server.monitor_port = monitor
    server.start()
    try:
        for name in names:
            (tmp_path / f"{name}.toml").write_text(
                f'nkey = "{name}.nk"\nca = "ca.pem"\ncert = "node.pem"\nkey = "node.key"\n'
            )
        secured = {name: f"options={tmp_path / f'{name}.toml'}" for name in names}
        missing = await refused(server, tmp_path, secured["north"], "outroute")
        assert "no stream" in str(missing)
        assert "administrator" in str(missing)
        async with nodes(server, tmp_path, "outroute") as net:
            await (await net.node(9, secured["admin"])).stop()  # makes the stream
            north, south = await net.node(0, secured["north"]), await net.node(1, secured["south"])
            asker = await net.node(2, secured["south"], roles=Role.EMIT | Role.ASK)
            packets = make_packets(300)
            assert (await put(north, packets)).acknowledged.all()
            assert await got(south) == raw(packets)
            await until(lambda: north._answering._subscriptions and south._answering._subscriptions)
            assert await got(asker) == raw(packets)
            assert north.capabilities.secure
            await until(lambda: len(north.peers()) == 3)
            assert {**north.problems, **south.problems, **asker.problems} == {}
            await north.stop()  # its consumers were its own to delete
        bare = nats_options(parse_url(f"{server.url}?nkey={tmp_path / 'north.nk'}&ca={tmp_path / 'ca.pem'}"))

        with pytest.raises(TransportError, match="certificate"):
            await NatsConnection(bare, "bare").open()
    finally:
        server.stop()


@asynchronous
async def test_who_hangs_up_without_a_word_is_no_connection(tmp_path: Path) -> None:
    """As a server does that was asked for TLS with a certificate and got none: what it said may be lost."""
    from transports.nats_security import certificates

    certificates(tmp_path, "server", "node")

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id": "x", "version": "2.11.0", "max_payload": 1048576}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TransportError, match="hung up") as caught:
            await NatsConnection(nats_options(parse_url(f"nats://127.0.0.1:{port}")), "x").open()
        assert caught.value.code == "nats.credentials"
    encrypted = nats_options(parse_url(f"nats://127.0.0.1:{port}?ca={tmp_path / 'ca.pem'}"))
    assert "wants a certificate" in str(NatsConnection(encrypted, "x")._failed(ConnectionResetError()))


@asynchronous
async def test_a_permission_that_is_missing_is_named(tmp_path: Path) -> None:
    deny = 'deny: ["outroute.*.p.*.*"]'
    users = f'authorization {{ users: [{{ user: "tom", password: "x", permissions: {{ publish: {{ {deny} }} }} }}] }}'
    (tmp_path / "secret").write_text("x")
    with running(tmp_path / "server", more=users) as server:
        async with nodes(server, tmp_path, "outroute") as net:
            holder = await net.node(0, f"user=tom&password_file={tmp_path / 'secret'}")
            with pytest.raises(TransportError, match=r"outroute\.[0-9a-f]{16}\.p\.") as caught:
                await put(holder, make_packets(1))
            assert caught.value.code == "nats.denied"
            assert "permission" in holder.problems
