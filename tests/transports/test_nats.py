"""NATS as a holder: what is true over it instead of, or besides, the contract of every transport."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outroute.errors import StoreError
from outroute.identity import Revocation
from outroute.packet import PacketArray, Rejection, sign, withdraw
from outroute.testing.making import CELLS, FACETED, NOW, SCHEMA, addresses_of, cell_address, identity, make_packets
from outroute.testing.nats_server import NatsServer, running
from outroute.testing.rigs import raw, united
from outroute.transports import ADDRESS_REFUSED, AUTHOR_REVOKED, Frame, FrameReason, Kind, Receipt, Role
from outroute.transports.frames import encode
from outroute.transports.nats_keeping import POSITION_FILE, TAKE_FRAMES
from outroute.transports.nats_pulling import Progress
from outroute.transports.nats_sending import RETRY_SECONDS
from outroute.transports.nats_subjects import shard_of
from outroute.transports.standing import Standing
from transports.nats_nodes import ALL, PATIENCE, got, nodes, put, until
from transports.rigs import asynchronous

ORG = identity(900)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for all tests that do not disturb it; each has a prefix of its own."""
    with running(tmp_path_factory.mktemp("nats")) as started:
        yield started


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
        progress = await reader._keeping._puller.progress()
        assert (progress.unconfirmed > 0, progress.confirmed) == (True, 0)  # what is not kept is not confirmed
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
async def test_a_node_has_one_durable_pull_consumer_and_the_window_outlasts_all_attempts(
    server: NatsServer, tmp_path: Path
) -> None:
    async with nodes(server, tmp_path) as net:
        holder = await net.node(0)
        await net.node(1, roles=Role.EMIT | Role.ASK)  # keeps nothing, and reads nothing
        name = net.subjects().stream
        stream = await holder._connection.api(f"STREAM.INFO.{name}")
        assert stream["config"]["duplicate_window"] > 2 * RETRY_SECONDS * 1e9
        assert stream["config"]["subjects"] == list(net.subjects().stored)
        found = (await holder._connection.api(f"CONSUMER.LIST.{name}"))["consumers"]
        (durable,) = (one["config"] for one in found if "durable_name" in one["config"])
        assert "deliver_subject" not in durable  # pulled, not pushed: it takes no more than it asks for
        assert (durable["ack_policy"], durable["filter_subject"]) == ("explicit", *net.subjects().kept(()))
        await holder.close()
        await net.node(0)  # again: the same one
        again = (await net.made[1]._connection.api(f"CONSUMER.LIST.{name}"))["consumers"]
        assert [one["name"] for one in again if "durable_name" in one["config"]] == [durable["durable_name"]]


@asynchronous
async def test_who_comes_and_who_comes_back_sees_the_others_at_once(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outroute.transports.nats_presence.SAY_SECONDS", 100 * PATIENCE)  # nobody speaks unasked
    async with nodes(server, tmp_path) as net:
        made = [await net.node(number) for number in range(3)]
        await until(lambda: all(len(one.peers()) == 3 for one in made))
        net.made.remove(made[0])
        await made[0]._connection.close()  # without a farewell
        await made[0].close()
        again = await net.node(0)
        await until(lambda: len(again.peers()) == 3)


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
