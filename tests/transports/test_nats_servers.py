"""NATS: which addresses and options, what its servers promise, and who is let in, against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outroute.errors import TransportError
from outroute.testing.making import make_packets
from outroute.testing.nats_server import NatsServer, free_ports, running
from outroute.testing.rigs import raw
from outroute.transports import Receipt, Role
from outroute.transports.nats_connection import BACK_OFF_SECONDS, NatsConnection
from outroute.transports.nats_options import nats_options
from outroute.transports.url import parse_url
from transports.nats_nodes import got, nodes, put, refused, until
from transports.rigs import asynchronous


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for all tests that do not disturb it; each has a prefix of its own."""
    with running(tmp_path_factory.mktemp("nats")) as started:
        yield started


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


def test_servers_that_are_away_are_tried_later_each_time_and_in_turn() -> None:
    connection = NatsConnection(nats_options(parse_url("nats://127.0.0.1:1,127.0.0.1:2")), "x")
    servers = ["one", "two"]
    tried = [connection._next_server(servers, {}) for _ in range(40)]  # type: ignore[arg-type]
    assert [who for who, _ in tried] == servers * 20
    first, most = BACK_OFF_SECONDS
    for number, (_, wait) in enumerate(tried):
        assert 0.5 <= wait / min(first * 2.0 ** (number // 2), most) <= 1.0  # drawn around


# what the servers promise -----------------------------------------------------------------------------------------


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


# who is let in ----------------------------------------------------------------------------------------------------


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
