"""What is the ZeroMQ link's own; what all links have in common is in ``test_links.py``."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import zmq
import zmq.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from outroute.errors import TransportError
from outroute.identity import Identity, exchange_key, signing_keys
from outroute.testing.linking import ANNA, BERT, EVE, Pair
from outroute.transports import FRAME_BYTES, Frame, Kind, UnreachableError, answering, decode
from outroute.transports import zeromq as module
from outroute.transports.calls import pack, unpack
from outroute.transports.channel import ChannelReason, Secrets
from outroute.transports.registry import link_of
from outroute.transports.zeromq import ZeroMqLink
from store.making import identity
from transports.rigs import asynchronous


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=50, deadline=None)
def test_the_key_of_a_node_is_one_of_the_two_that_its_curve_key_follows_from(seed: bytes) -> None:
    who = Identity(seed)
    public, secret = who.exchange_keys()
    assert public == exchange_key(who.public_key)
    assert who.public_key in signing_keys(public)
    assert zmq.curve_public(z85.encode(secret)) == z85.encode(public)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


class Raw:
    """Somebody with a socket of his own, who may say anything."""

    def __init__(self, place: str, key: Identity = EVE, *, name: bytes = b"", curve: bool = True) -> None:
        where, _, called = place.partition("/")
        self.context = zmq.asyncio.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.socket.setsockopt(zmq.RCVHWM, 1)
        self.public, secret = key.exchange_keys()
        self.called = exchange_key(bytes.fromhex(called))
        if curve:
            self.socket.setsockopt(zmq.CURVE_SERVERKEY, self.called)
            self.socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
            self.socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        if name:
            self.socket.setsockopt(zmq.ROUTING_ID, name)
        self.key = key
        self.socket.connect(f"tcp://{where}")

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close(0)
        self.context.term()

    async def greet(self, pair: Pair, **more: Any) -> bytes:
        """Say a proper hello; what comes back."""
        link = pair.caller(self.key, **more)
        assert isinstance(link, ZeroMqLink)
        await self.socket.send(link.hello(BERT.id, link._binding(self.called)))
        reply: bytes = await self.socket.recv()
        return reply


def zeromq(pair: Pair) -> ZeroMqLink:
    assert isinstance(pair.bert, ZeroMqLink)
    return pair.bert


@asynchronous
async def test_who_is_not_on_the_list_gets_no_message_through() -> None:
    """The library's own handshake ends it: nothing of ours reads a byte."""
    async with Pair(ZeroMqLink, admit=lambda key: key == ANNA.public_key) as pair:
        greeted: list[bytes] = []
        bert = zeromq(pair)
        usual = bert.greet
        bert.greet = lambda hello, binding: (greeted.append(hello), usual(hello, binding))[1]  # type: ignore[method-assign]
        with pytest.raises(UnreachableError, match="not on its list"):
            await pair.caller(EVE).request(BERT.id, b"x")
        assert bert.refused == {ChannelReason.NOT_ADMITTED: 1}
        assert not greeted
        assert await pair.caller(ANNA).request(BERT.id, b"x")
        assert len(greeted) == 1


@asynchronous
async def test_an_allow_list_of_another_domain_allows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both names have to be the same to the letter; the caller is told what it may be."""
    async with Pair(ZeroMqLink) as pair:
        monkeypatch.setattr(module, "DOMAIN", b"outroute.")
        with pytest.raises(UnreachableError, match="not on its list"):
            await pair.caller().request(BERT.id, b"x")


@asynchronous
async def test_another_key_in_the_place_says_what_it_may_be() -> None:
    async with Pair(ZeroMqLink) as pair:
        where = str(pair.where).partition("/")[0]
        pair.where = f"{where}/{EVE.public_key.hex()}"
        with pytest.raises(UnreachableError, match="key in its place may be another node's"):
            await pair.caller().request(BERT.id, b"x")
        pair.where = f"{where}/{'00' * 32}"
        with pytest.raises(UnreachableError, match="no key of a node"):
            await pair.caller(identity(4)).request(BERT.id, b"x")
        pair.where = where
        with pytest.raises(TransportError, match="HOST:PORT/KEY"):
            await pair.caller(identity(5)).request(BERT.id, b"x")
        assert not pair.heard


@asynchronous
async def test_one_side_without_security_is_told_so() -> None:
    bare = link_of("zeromq://?security=off")
    async with Pair(ZeroMqLink) as pair:
        caller = bare(ANNA, handle=lambda *_: [], endpoint_of=lambda _: str(pair.where).partition("/")[0])
        with pytest.raises(UnreachableError, match="security=off"):
            await caller.request(BERT.id, b"x")
        await caller.close()
    async with Pair(bare) as pair:
        where = f"{pair.where}/{BERT.public_key.hex()}"
        sure = ZeroMqLink(ANNA, handle=lambda *_: [], endpoint_of=lambda _: where)
        with pytest.raises(UnreachableError, match="security=off"):
            await sure.request(BERT.id, b"x")
        await sure.close()


@asynchronous
async def test_without_security_it_stays_on_this_machine() -> None:
    bare = link_of("zeromq://?security=off")
    link = bare(ANNA, handle=lambda *_: [], endpoint_of=lambda _: "10.0.0.1:7")
    for host in ("0.0.0.0", "", "192.0.2.1", "a.example"):
        with pytest.raises(TransportError, match="security=off"):
            await link.listen(host)
    with pytest.raises(TransportError, match="security=off"):
        await link.request(BERT.id, b"x")
    assert not link.capabilities.secure
    await link.close()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("zeromq://?security=maybe", "on or off"),
        ("zeromq://?safety=on", "no option 'safety'"),
        ("zeromq://127.0.0.1:1/there", "no path"),
    ],
)
def test_urls_that_cannot_be_used(url: str, text: str) -> None:
    with pytest.raises(TransportError, match=text):
        link_of(url)


@asynchronous
async def test_a_taken_port_and_an_unknown_name() -> None:
    async with Pair(ZeroMqLink) as pair:
        port = int(str(pair.where).partition("/")[0].rpartition(":")[2])
        with pytest.raises(TransportError, match="choose another"):
            await pair.listener(EVE).listen(port=port)
        with pytest.raises(TransportError, match="choose another"):
            await pair.listener(EVE).listen("no-such-host.invalid")
        assert pair.bert.is_place("[::1]:7/" + "ab" * 32)
        assert not pair.bert.is_place("[::1]:7/" + "AB" * 32)


@asynchronous
async def test_noise_instead_of_a_hello_is_refused_and_cut_off() -> None:
    async with Pair(ZeroMqLink) as pair, Raw(str(pair.where)) as raw:
        await raw.socket.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await raw.socket.recv())[-1] == ChannelReason.MALFORMED
        bert = zeromq(pair)
        await until(lambda: not bert._lines)
        assert bert.refused == {ChannelReason.MALFORMED: 1}


@asynchronous
async def test_who_says_no_hello_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 0.2)
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.1)
    async with Pair(ZeroMqLink) as pair, Raw(str(pair.where)):
        bert = zeromq(pair)
        await until(lambda: bool(bert._lines))
        await until(lambda: not bert._lines)
        assert bert.dropped == {"slow": 1}


@asynchronous
async def test_a_proof_of_another_node_is_worth_nothing() -> None:
    """Eve has CURVE keys of her own, and says Anna's hello."""
    async with Pair(ZeroMqLink) as pair, Raw(str(pair.where), EVE) as raw:
        raw.key = ANNA
        reply = await raw.greet(pair)
        assert (len(reply), reply[-1]) == (5, ChannelReason.IDENTITY)
        assert zeromq(pair).refused == {ChannelReason.IDENTITY: 1}


@asynchronous
async def test_nobody_inherits_a_connection_by_its_name() -> None:
    """Anna gives her connection a name and leaves; Eve takes the name and goes on."""
    async with Pair(ZeroMqLink) as pair:
        bert = zeromq(pair)
        async with Raw(str(pair.where), ANNA, name=b"anna") as raw:
            assert len(await raw.greet(pair)) > 5
            await raw.socket.send(pack(1, b"mine"))
            assert unpack(await raw.socket.recv()) == (1, True, b"mine")
            assert list(bert._known) == [b"anna"]
            async with Raw(str(pair.where), EVE, name=b"anna") as second:  # while Anna is there: the library refuses
                await second.socket.send(pack(1, b"stolen"))
                await raw.socket.send(pack(2, b"still mine"))
                while unpack(await raw.socket.recv()) != (2, False, b""):
                    pass
        await until(lambda: not bert._known)
        async with Raw(str(pair.where), EVE, name=b"anna") as raw:
            await raw.socket.send(pack(1, b"stolen"))
            assert (await raw.socket.recv())[-1] == ChannelReason.MALFORMED
        assert pair.heard == [(ANNA.id, b"mine"), (ANNA.id, b"still mine")]


@asynchronous
async def test_more_than_the_credit_is_told_busy_and_not_kept() -> None:
    async with Pair(ZeroMqLink, credit=4) as pair, Raw(str(pair.where)) as raw:
        assert len(await raw.greet(pair)) > 5
        for number in range(200):
            await raw.socket.send(pack(number, b"x"))
        told: Counter[bool] = Counter()
        while told[True] == 0 or told[False] < 4:  # what nobody reads may be lost, as much as he likes
            _, more, frame = unpack(await raw.socket.recv()) or (0, True, b"")
            read = decode(frame)
            busy = isinstance(read, Frame) and read.kind is Kind.BUSY
            told[busy] += busy or not more
        assert 4 <= len(pair.heard) < 200


@asynchronous
async def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "SLOW_SECONDS", 0.5)
    size = [500]  # frames: more than all buffers on the way have room for
    async with Pair(ZeroMqLink, handle=lambda *_: [bytes(FRAME_BYTES)] * size[0]) as pair:
        bert = zeromq(pair)
        async with Raw(str(pair.where)) as raw:
            assert len(await raw.greet(pair)) > 5
            await raw.socket.send(pack(1, b"x"))
            await until(lambda: bert.dropped["slow"] == 1)
            await until(lambda: not bert._known)
        size[0] = 1
        assert list(await pair.caller(ANNA).request(BERT.id, b"x")) == [bytes(FRAME_BYTES)]


@asynchronous
async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALLERS_MOST", 3)
    async with Pair(ZeroMqLink, secrets=Secrets((bytes(32),))) as pair:
        secrets = Secrets((bytes(32),))
        done = [pair.caller(identity(10 + i), secrets=secrets).request(BERT.id, b"x") for i in range(5)]
        found = await asyncio.gather(*done, return_exceptions=True)
        assert sum(not isinstance(one, Exception) for one in found) == 3
        assert zeromq(pair).dropped["full"] == 2
        await until(lambda: len(zeromq(pair)._lines) == 3)
        monkeypatch.setattr(module, "LINES_MOST", 3)
        async with Raw(str(pair.where)):  # refused before it can say anything
            await until(lambda: zeromq(pair).dropped["full"] == 3)


@asynchronous
async def test_the_newest_connections_of_a_node_stay() -> None:
    """Its earlier ones may have ended without anybody's noticing."""
    async with Pair(ZeroMqLink) as pair:
        links = [pair.caller() for _ in range(4)]
        for link in links:
            assert await link.request(BERT.id, b"x")
        bert = zeromq(pair)
        assert len(bert._known) == module.CALLERS_PER_NODE
        assert bert.dropped["full"] == 2


@asynchronous
async def test_what_others_are_told_carries_the_key() -> None:
    async with Pair(ZeroMqLink) as pair:
        key = BERT.public_key.hex()
        assert str(pair.where).endswith(f"/{key}")
        assert pair.bert.advertised(str(pair.where), "a.example:7") == f"a.example:7/{key}"
        assert pair.bert.is_place(f"a.example:7/{key}")
