"""The direct channel: who may talk, what strangers see, what ends a connection."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import TransportError
from outroute.identity import Identity, node_id
from outroute.transports import FRAME_BYTES, Frame, Kind, UnreachableError, decode
from outroute.transports import tls as tls_module
from outroute.transports.channel import (
    ANYBODY,
    HELLO_BYTES,
    REPLY_BYTES,
    Accepted,
    ChannelReason,
    Secrets,
    answer_hello,
    check_reply,
    make_hello,
)
from outroute.transports.records import Line
from outroute.transports.tls import TlsLink
from outroute.transports.tls_context import client_context
from store.making import identity
from transports.rigs import asynchronous

ANNA, BERT, EVE = identity(1), identity(2), identity(3)
OLD, NEW, WRONG = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
CERTIFICATE = hashlib.sha256(b"a certificate").digest()
NONCE = bytes(range(32))


def shake(
    caller: Secrets, called: Secrets, *, certificate: bytes = CERTIFICATE, seen: bytes = CERTIFICATE
) -> Accepted | ChannelReason:
    """A handshake of Anna with Bert; what stopped it, or what Anna knows of Bert."""
    hello = make_hello(ANNA, called=BERT.id, certificate=seen, nonce=NONCE, secrets=caller)
    found = answer_hello(BERT, hello, certificate=certificate, secrets=called)
    if isinstance(found, ChannelReason):
        return found
    assert found.key == ANNA.public_key
    assert (len(hello), len(found.reply)) == (HELLO_BYTES, REPLY_BYTES)
    return check_reply(found.reply, hello, called=BERT.id, certificate=seen, secrets=caller)


@pytest.mark.parametrize(
    ("caller", "called"),
    [((), ()), ((NEW,), (NEW,)), ((NEW, OLD), (OLD,)), ((OLD,), (NEW, OLD)), ((NEW, OLD), (NEW, OLD))],
)
def test_both_sides_know_each_other_also_while_the_secret_rotates(
    caller: tuple[bytes, ...], called: tuple[bytes, ...]
) -> None:
    found = shake(Secrets(caller), Secrets(called))
    assert isinstance(found, Accepted)
    assert found.key == BERT.public_key


@pytest.mark.parametrize(
    ("caller", "called"), [((), (NEW,)), ((NEW,), ()), ((WRONG,), (NEW, OLD)), ((NEW,), (OLD,)), ((OLD,), (NEW,))]
)
def test_who_does_not_know_the_secret_is_refused(caller: tuple[bytes, ...], called: tuple[bytes, ...]) -> None:
    assert shake(Secrets(caller), Secrets(called)) is ChannelReason.SECRET


def test_a_proof_cannot_be_passed_on() -> None:
    """Eve takes Anna's call under her own certificate and passes it on to Bert."""
    assert shake(Secrets(), Secrets(), seen=hashlib.sha256(b"Eve's").digest()) is ChannelReason.IDENTITY
    assert shake(Secrets((NEW,)), Secrets((NEW,)), seen=hashlib.sha256(b"Eve's").digest()) is ChannelReason.IDENTITY


def test_a_reply_of_another_node_is_refused() -> None:
    hello = make_hello(ANNA, called=BERT.id, certificate=CERTIFICATE, nonce=NONCE, secrets=Secrets())
    meant_for_eve = make_hello(ANNA, called=EVE.id, certificate=CERTIFICATE, nonce=NONCE, secrets=Secrets())
    eves = answer_hello(EVE, meant_for_eve, certificate=CERTIFICATE, secrets=Secrets())
    assert isinstance(eves, Accepted)
    found = check_reply(eves.reply, hello, called=BERT.id, certificate=CERTIFICATE, secrets=Secrets())
    assert found is ChannelReason.IDENTITY
    assert answer_hello(EVE, hello, certificate=CERTIFICATE, secrets=Secrets()) is ChannelReason.IDENTITY


def test_a_newcomer_may_call_whoever_is_there() -> None:
    hello = make_hello(ANNA, called=ANYBODY, certificate=CERTIFICATE, nonce=NONCE, secrets=Secrets((NEW,)))
    found = answer_hello(BERT, hello, certificate=CERTIFICATE, secrets=Secrets((NEW,)))
    assert isinstance(found, Accepted)
    known = check_reply(found.reply, hello, called=ANYBODY, certificate=CERTIFICATE, secrets=Secrets((NEW,)))
    assert isinstance(known, Accepted)
    assert known.key == BERT.public_key
    strange = hashlib.sha256(b"Eve's").digest()
    assert answer_hello(BERT, hello, certificate=strange, secrets=Secrets((NEW,))) is ChannelReason.IDENTITY
    assert answer_hello(BERT, hello, certificate=CERTIFICATE, secrets=Secrets((OLD,))) is ChannelReason.SECRET


@pytest.mark.parametrize("secrets", [Secrets(), Secrets((NEW,))])
def test_no_byte_of_the_handshake_can_be_changed(secrets: Secrets) -> None:
    hello = make_hello(ANNA, called=BERT.id, certificate=CERTIFICATE, nonce=NONCE, secrets=secrets)
    for at in range(len(hello)):
        changed = bytearray(hello)
        changed[at] ^= 1
        assert isinstance(
            answer_hello(BERT, bytes(changed), certificate=CERTIFICATE, secrets=secrets), ChannelReason
        ), at
    accepted = answer_hello(BERT, hello, certificate=CERTIFICATE, secrets=secrets)
    assert isinstance(accepted, Accepted)
    for at in range(len(accepted.reply)):
        changed = bytearray(accepted.reply)
        changed[at] ^= 1
        found = check_reply(bytes(changed), hello, called=BERT.id, certificate=CERTIFICATE, secrets=secrets)
        assert isinstance(found, ChannelReason), at


@given(st.binary(max_size=2 * HELLO_BYTES))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_answered_with_a_reason(data: bytes) -> None:
    hello = make_hello(ANNA, called=BERT.id, certificate=CERTIFICATE, nonce=NONCE, secrets=Secrets())
    assert isinstance(answer_hello(BERT, data, certificate=CERTIFICATE, secrets=Secrets()), ChannelReason)
    assert isinstance(
        check_reply(data, hello, called=BERT.id, certificate=CERTIFICATE, secrets=Secrets()), ChannelReason
    )


def test_secrets_are_checked_and_never_shown() -> None:
    with pytest.raises(TransportError, match="32 bytes"):
        Secrets((b"short",))
    with pytest.raises(TransportError, match="while it rotates"):
        Secrets((OLD, NEW, WRONG))
    assert OLD.hex() not in repr(Secrets((OLD,)))
    assert repr(OLD) not in repr(Secrets((OLD,)))


class Pair:
    """Bert listens, Anna calls; Bert answers each frame with it, three times."""

    def __init__(self, **bert: object) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.where: str | None = None
        self.bert = TlsLink(BERT, handle=self._echo, endpoint_of=lambda _: None, **bert)  # type: ignore[arg-type]
        self.links = [self.bert]

    def _echo(self, sender: bytes, frame: bytes) -> list[bytes]:
        self.heard.append((sender, frame))
        return [frame, frame[:1], b""]

    async def __aenter__(self) -> Pair:
        self.where = await self.bert.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        for link in self.links:
            await link.close()

    def caller(self, key: Identity = ANNA, **more: object) -> TlsLink:
        link = TlsLink(key, handle=self._echo, endpoint_of=lambda _: self.where, **more)  # type: ignore[arg-type]
        self.links.append(link)
        return link

    async def stranger(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Somebody who speaks TLS and nothing else."""
        host, port = str(self.where).split(":")
        return await asyncio.open_connection(host, int(port), ssl=client_context(), server_hostname="")


@asynchronous
async def test_frames_of_any_size_come_back_whole_and_to_whom_they_belong() -> None:
    async with Pair() as pair:
        anna = pair.caller()
        frames = [bytes([i]) * size for i, size in enumerate((0, 1, 70, 4096, FRAME_BYTES))]
        replies = await asyncio.gather(*(anna.request(BERT.id, frame) for frame in frames))
        assert [list(r) for r in replies] == [[f, f[:1], b""] for f in frames]
        assert {sender for sender, _ in pair.heard} == {ANNA.id}


@asynchronous
async def test_only_admitted_nodes_and_no_longer_once_revoked() -> None:
    admitted = {ANNA.public_key}
    async with Pair(admit=lambda key: key in admitted) as pair:
        anna, eve = pair.caller(), pair.caller(EVE)
        with pytest.raises(UnreachableError, match="revoked or not on its list"):
            await eve.request(BERT.id, b"hello")
        assert await anna.request(BERT.id, b"hello")
        admitted.clear()
        with pytest.raises(UnreachableError):  # in the middle of an open connection
            await anna.request(BERT.id, b"again")
        assert [frame for _, frame in pair.heard] == [b"hello"]
        assert pair.bert.refused == {ChannelReason.NOT_ADMITTED: 1}


@asynchronous
async def test_a_caller_admits_too() -> None:
    async with Pair() as pair:
        with pytest.raises(UnreachableError, match="not on its list"):
            await pair.caller(admit=lambda key: key != BERT.public_key).request(BERT.id, b"hello")
        assert not pair.heard


@asynchronous
async def test_another_node_at_the_same_place_is_found_out() -> None:
    async with Pair() as pair:
        with pytest.raises(UnreachableError, match="another node"):
            await pair.caller().request(EVE.id, b"for Eve")
        assert not pair.heard


@asynchronous
async def test_outsiders_of_a_closed_network_learn_nothing() -> None:
    async with Pair(secrets=Secrets((NEW,))) as pair:
        with pytest.raises(UnreachableError, match="network secret differs"):
            await pair.caller(secrets=Secrets((WRONG,))).request(BERT.id, b"hello")
        reader, writer = await pair.stranger()
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(make_hello(EVE, called=BERT.id, certificate=bytes(32), nonce=NONCE, secrets=Secrets()))
        told = await reader.read(1000)
        writer.transport.abort()
        assert BERT.public_key not in shown + told
        assert len(told) == 5  # refused, and why
        assert not pair.heard


@asynchronous
async def test_older_versions_of_tls_are_refused() -> None:
    async with Pair() as pair:
        context = client_context()
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        host, port = str(pair.where).split(":")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(host, int(port), ssl=context, server_hostname="")


@asynchronous
async def test_noise_and_oversized_frames_end_a_connection_and_nothing_else() -> None:
    async with Pair() as pair:
        reader, writer = await pair.stranger()
        writer.write(b"GET / HTTP/1.1\r\n\r\n" + bytes(HELLO_BYTES))
        assert (await reader.read(100))[-1] == ChannelReason.MALFORMED
        writer.transport.abort()
        anna = pair.caller()
        (reply,) = await anna.request(BERT.id, bytes(FRAME_BYTES + 1))
        frame = decode(reply)
        assert isinstance(frame, Frame)
        assert frame.kind is Kind.REFUSED
        with pytest.raises(UnreachableError):
            await anna.request(BERT.id, bytes(3 * FRAME_BYTES))
        assert pair.bert.dropped == {"oversized": 2}
        assert (await pair.caller(EVE).request(BERT.id, b"still there"))[0] == b"still there"


@asynchronous
async def test_who_does_not_read_or_write_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_module, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(tls_module, "HANDSHAKE_SECONDS", 0.3)
    async with Pair() as pair:
        silent, ending = await pair.stranger()
        assert await silent.read(10) == b""  # no hello
        ending.transport.abort()
        reader, writer = await pair.stranger()
        certificate = hashlib.sha256(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)).digest()
        writer.write(make_hello(ANNA, called=BERT.id, certificate=certificate, nonce=NONCE, secrets=Secrets()))
        await reader.readexactly(REPLY_BYTES)
        writer.write(b"\0")  # a header that never goes on
        assert await reader.read(10) == b""
        writer.transport.abort()
        assert pair.bert.dropped == {"slow": 1}


@asynchronous
async def test_one_node_cannot_take_all_connections() -> None:
    async with Pair() as pair:
        links = [pair.caller() for _ in range(4)]
        done = await asyncio.gather(*(link.request(BERT.id, b"x") for link in links), return_exceptions=True)
        assert sum(isinstance(one, UnreachableError) for one in done) == 4 - tls_module.CALLERS_PER_NODE
        assert pair.bert.dropped["full"] == 4 - tls_module.CALLERS_PER_NODE
        assert await pair.caller(EVE).request(BERT.id, b"x")


@asynchronous
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_connection_that_begins_while_the_link_closes_is_shut(
    monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Closed in the very moment between a connection and the first step of who serves it, or during its handshake."""
    closing: list[asyncio.Task[None]] = []
    async with Pair() as pair:
        accept = pair.bert._accept

        def close() -> None:
            step = pair.bert.close().__await__()
            with contextlib.suppress(StopIteration):
                next(step)  # as far as its first wait: what stood in its way is told to end
            closing.append(asyncio.get_running_loop().create_task(pair.bert.close()))

        def meanwhile(line: Line) -> None:
            if moment == "before":
                close()
            accept(line)
            if moment == "after":
                close()

        pair.bert._server.close()  # type: ignore[union-attr]
        monkeypatch.setattr(pair.bert, "_accept", meanwhile)
        pair.where = await pair.bert.listen()
        async with asyncio.timeout(20):
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await pair.stranger()
        await asyncio.gather(*closing)


@asynchronous
async def test_who_never_finishes_the_handshake_of_tls_is_counted_and_shut_with_the_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_module, "CALLERS_MOST", 2)
    async with Pair() as pair, asyncio.timeout(60):
        host, port = str(pair.where).split(":")
        lines = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        for _, writer in lines:
            writer.write(b"\x16\x03\x01\x02\x00\x01")  # of a ClientHello no more than this
        while len(pair.bert._tasks) < 2:
            await asyncio.sleep(0.01)
        one_more, ending = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionResetError):
            assert await one_more.read(10) == b""
        ending.transport.abort()
        assert pair.bert.dropped["full"] == 1
        assert len(pair.bert._tasks) == 2
        await pair.bert.close()
        for reader, writer in lines:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(10) == b""
            writer.transport.abort()


@asynchronous
async def test_a_node_that_comes_back_is_reached_again() -> None:
    async with Pair() as pair:
        anna = pair.caller()
        assert await anna.request(BERT.id, b"one")
        await pair.bert.close()
        with pytest.raises(UnreachableError):
            await anna.request(BERT.id, b"two")
        with pytest.raises(UnreachableError):
            await anna.request(BERT.id, b"three")
        again = TlsLink(BERT, handle=pair._echo, endpoint_of=lambda _: None)
        pair.links.append(again)
        pair.where = await again.listen()
        for _ in range(200):
            try:
                replies = await anna.request(BERT.id, b"four")
                break
            except UnreachableError:
                await asyncio.sleep(0.02)
        assert replies[0] == b"four"


@asynchronous
async def test_nothing_is_written_to_a_connection_that_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    """The event loop warns of each write after the fifth, in the log of whoever runs the node."""
    async with Pair() as pair:
        anna = pair.caller()
        assert await anna.request(BERT.id, b"one")
        connection = anna._open[BERT.id].result()
        connection.line.transport.abort()
        done = await asyncio.gather(*(anna.request(BERT.id, b"two") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(one, UnreachableError) for one in done)
        assert [record.message for record in caplog.records if record.name == "asyncio"] == []
        assert pair.heard == [(ANNA.id, b"one")]
        while anna._open.get(BERT.id) is not None:  # until its end was noticed
            await asyncio.sleep(0)
        assert (await anna.request(BERT.id, b"three"))[0] == b"three"


@asynchronous
async def test_a_place_can_be_called_without_knowing_who_is_there() -> None:
    async with Pair(secrets=Secrets((NEW,))) as pair:
        anna = pair.caller(secrets=Secrets((NEW, OLD)))
        found, replies = await anna.request_at(str(pair.where), b"who is there")
        assert found == BERT.id
        assert list(replies) == [b"who is there", b"w", b""]
        with pytest.raises(UnreachableError, match="secret"):
            await pair.caller().request_at(str(pair.where), b"who is there")
        with pytest.raises(TransportError, match="HOST:PORT"):
            await anna.request_at("nowhere", b"x")
    with pytest.raises(UnreachableError):
        await TlsLink(EVE, handle=pair._echo, endpoint_of=lambda _: None).request_at(str(pair.where), b"x")


@asynchronous
async def test_a_node_that_nobody_knows() -> None:
    async with Pair() as pair:
        port = int(str(pair.where).split(":")[1])
        pair.where = None
        with pytest.raises(TransportError, match="announce itself"):
            await pair.caller().request(node_id(bytes(32)), b"x")
        with pytest.raises(TransportError, match="choose another"):
            await pair.caller().listen("127.0.0.1", port)
