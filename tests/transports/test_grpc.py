"""What is the gRPC link's own; what all links have in common is in the contract suite."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.identity import Identity
from outroute.transports import FRAME_BYTES, UnreachableError, answering
from outroute.transports import grpc_link as module
from outroute.transports.certificates import Papers, look, own_certificate, place_parts
from outroute.transports.channel import ChannelReason, Secrets
from outroute.transports.grpc_link import GrpcLink
from outroute.transports.links import NO_BINDING
from outroute.transports.messages import MESSAGE_HEAD_BYTES, file_of, pack, unpack
from outroute.transports.proto import SERVICE, described
from store.making import identity
from transports.rigs import asynchronous

ANNA, BERT, EVE = identity(1), identity(2), identity(3)
OLD, NEW, WRONG = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
PROTO = Path(module.__file__).parent / "proto"


class Pair:
    """Bert listens, Anna calls; Bert answers each frame with it and a second one."""

    def __init__(self, **bert: Any) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.where = ""
        self.bert = GrpcLink(BERT, handle=self.echo, endpoint_of=lambda _: None, **bert)
        self.links = [self.bert]

    def echo(self, sender: bytes, frame: bytes) -> list[bytes]:
        self.heard.append((sender, frame))
        return [frame, frame[:1]]

    async def __aenter__(self) -> Pair:
        self.where = await self.bert.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        for link in self.links:
            await link.close()

    def caller(self, key: Identity = ANNA, **more: Any) -> GrpcLink:
        link = GrpcLink(key, handle=self.echo, endpoint_of=lambda _: self.where, **more)
        self.links.append(link)
        return link


def message_class() -> Any:
    pool, name = file_of()
    return message_factory.GetMessageClass(pool.FindFileByName(name).message_types_by_name["Message"])


@given(number=st.integers(1, 2**32 - 1), more=st.booleans(), frame=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_messages_are_those_of_the_description(number: int, more: bool, frame: bytes) -> None:
    made = message_class()(number=number, more=more, frame=frame)
    data = pack(number, frame, more=more)
    assert message_class().FromString(data) == made
    assert unpack(data) == unpack(made.SerializeToString()) == (number, more, frame)
    assert len(data) <= len(frame) + MESSAGE_HEAD_BYTES


def test_messages_of_somebody_elses_writer_are_read() -> None:
    """Fields in another order, twice, or left out: all of that is protobuf."""
    frame = bytes(range(256))
    parts = [message_class()(**one).SerializeToString() for one in ({"frame": frame}, {"more": True}, {"number": 7})]
    assert unpack(b"".join(parts)) == (7, True, frame)
    assert unpack(b"".join(parts[::-1])) == (7, True, frame)
    assert unpack(parts[0] + parts[2] + parts[0]) == (7, False, frame)
    assert unpack(b"") == (0, False, b"")


@given(st.binary(max_size=64))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    found = unpack(data)
    assert found is None or len(found) == 3


def test_the_description_is_what_protoc_makes_of_the_text(tmp_path: Path) -> None:
    made = tmp_path / "frames.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--descriptor_set_out={made}", "frames.proto"]
    subprocess.run(command, check=True)
    assert made.read_bytes() == described()


@asynchronous
async def test_a_real_server_describes_itself() -> None:
    """With the client that tools such as grpcurl are modelled on."""
    import grpc
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    def ask(credentials: Any) -> tuple[list[str], list[str], list[str]]:
        options = [("grpc.ssl_target_name_override", "outroute")]
        with grpc.secure_channel(pair.where, credentials, options=options) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            service = DescriptorPool(database).FindServiceByName(SERVICE)
            method = service.methods_by_name["Exchange"]
            return (
                list(database.get_services()),
                [method.input_type.full_name, method.output_type.full_name],
                [field.name for field in method.input_type.fields],
            )

    async with Pair(secrets=Secrets((NEW,))) as pair:
        seen = await look(*place_parts(pair.where), Papers("grpc").pairs(Secrets((NEW,))))
        assert seen is not None
        shown, own = seen
        credentials = grpc.ssl_channel_credentials(shown.certificate, own.key, own.certificate)
        services, types, fields = await asyncio.get_running_loop().run_in_executor(None, ask, credentials)
    assert SERVICE in services
    assert types == ["outroute.v1.Message", "outroute.v1.Message"]
    (described_file,) = descriptor_pb2.FileDescriptorSet.FromString(described()).file
    assert fields == [field.name for field in described_file.message_type[0].field]


@asynchronous
async def test_strangers_do_not_get_past_tls() -> None:
    import grpc

    async with Pair(secrets=Secrets((NEW,))) as pair:
        with pytest.raises(UnreachableError, match="network secret differs"):
            await pair.caller(secrets=Secrets((WRONG,))).request(BERT.id, b"hello")
        with pytest.raises(UnreachableError, match="network secret differs"):
            await pair.caller().request(BERT.id, b"hello")
        member = await look(*place_parts(pair.where), Papers("grpc").pairs(Secrets((NEW,))))
        assert member is not None
        # Who knows the certificate of the one called and has none of the network:
        credentials = grpc.ssl_channel_credentials(member[0].certificate)
        options = [("grpc.ssl_target_name_override", "outroute")]
        async with grpc.aio.secure_channel(pair.where, credentials, options=options) as channel:
            call = channel.stream_stream(module.METHOD)()
            assert await call.code() == grpc.StatusCode.UNAVAILABLE
        assert not pair.heard
        assert await pair.caller(secrets=Secrets((NEW,))).request(BERT.id, b"hello")


@asynchronous
async def test_a_member_of_the_network_without_a_hello_is_refused() -> None:
    import grpc

    async with Pair(secrets=Secrets((NEW,))) as pair:
        seen = await look(*place_parts(pair.where), Papers("grpc").pairs(Secrets((NEW,))))
        assert seen is not None
        shown, own = seen
        credentials = grpc.ssl_channel_credentials(shown.certificate, own.key, own.certificate)
        options = [("grpc.ssl_target_name_override", "outroute")]
        async with grpc.aio.secure_channel(pair.where, credentials, options=options) as channel:
            call = channel.stream_stream(module.METHOD)(metadata=((module.HELLO, b"let me in"),))
            assert await call.code() == grpc.StatusCode.UNAUTHENTICATED
        assert pair.bert.refused == {ChannelReason.MALFORMED: 1}


@asynchronous
async def test_secrets_rotate_while_the_server_runs() -> None:
    async with Pair(secrets=Secrets((OLD,))) as pair:
        assert await pair.caller(secrets=Secrets((NEW, OLD))).request(BERT.id, b"1")  # ahead of Bert
        pair.bert.secrets = Secrets((NEW, OLD))
        assert await pair.caller(EVE, secrets=Secrets((OLD,))).request(BERT.id, b"2")  # behind him
        pair.bert.secrets = Secrets((NEW,))
        with pytest.raises(UnreachableError, match="network secret differs"):
            await pair.caller(identity(4), secrets=Secrets((OLD,))).request(BERT.id, b"3")
        assert await pair.caller(identity(5), secrets=Secrets((NEW,))).request(BERT.id, b"4")


@asynchronous
async def test_only_the_certificate_that_was_seen_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody shows another certificate when the caller looks than when it connects: none of his own helps."""
    _, forged = own_certificate("grpc")

    async def see_another(host: str, port: int, pairs: Any) -> Any:
        found = await look(host, port, pairs)
        return None if found is None else (forged, found[1])

    async with Pair() as pair:
        monkeypatch.setattr(module, "look", see_another)
        with pytest.raises(UnreachableError, match="does not answer"):
            await pair.caller().request(BERT.id, b"hello")
        assert not pair.heard


@asynchronous
async def test_a_hello_is_worth_nothing_under_another_certificate() -> None:
    """Eve has Bert's place and her own certificate; what Anna says to her, Bert does not take."""
    import grpc

    heard: list[bytes] = []

    class Eavesdropper(GrpcLink):
        def greet(self, hello: bytes, binding: bytes) -> tuple[bytes, bytes | None]:
            heard.append(hello)
            return super().greet(hello, binding)

    async with Pair() as pair:
        eve = Eavesdropper(EVE, handle=pair.echo, endpoint_of=lambda _: None)
        pair.links.append(eve)
        theirs, pair.where = pair.where, await eve.listen()
        with pytest.raises(UnreachableError, match="another node"):
            await pair.caller().request(BERT.id, b"hello")
        (hello,) = heard
        seen = await look(*place_parts(theirs), Papers("grpc").pairs(Secrets()))
        assert seen is not None
        shown, own = seen
        credentials = grpc.ssl_channel_credentials(shown.certificate, own.key, own.certificate)
        options = [("grpc.ssl_target_name_override", "outroute")]
        async with grpc.aio.secure_channel(theirs, credentials, options=options) as channel:
            call = channel.stream_stream(module.METHOD)(metadata=((module.HELLO, hello),))
            assert await call.code() == grpc.StatusCode.UNAUTHENTICATED
        assert pair.bert.refused == {ChannelReason.IDENTITY: 1}


@asynchronous
async def test_messages_over_the_bound_end_the_stream_and_nothing_else() -> None:
    async with Pair() as pair:
        anna = pair.caller()
        for factor in (3, 5):  # counted; and refused by the library itself
            with pytest.raises(UnreachableError, match=r"limit|larger"):
                await anna.request(BERT.id, bytes(factor * FRAME_BYTES))
        assert pair.bert.dropped == {"oversized": 1}
        assert (await anna.request(BERT.id, b"still there"))[0] == b"still there"


@asynchronous
async def test_without_security_the_hello_still_says_who_it_is() -> None:
    async with Pair(secure=False, secrets=Secrets((NEW,))) as pair:
        assert not pair.bert.capabilities.secure
        caller = pair.caller(secure=False, secrets=Secrets((NEW,)))
        assert await caller.request(BERT.id, b"hello")
        assert pair.heard == [(ANNA.id, b"hello")]
        with pytest.raises(UnreachableError, match="network secret differs"):
            await pair.caller(EVE, secure=False, secrets=Secrets((WRONG,))).request(BERT.id, b"hello")
        assert pair.bert.refused == {ChannelReason.SECRET: 1}
        with pytest.raises(UnreachableError):  # one with TLS, one without
            await pair.caller(identity(4), secrets=Secrets((NEW,))).request(BERT.id, b"hello")


@pytest.mark.parametrize("reads", [False, True])
@asynchronous
async def test_who_does_not_read_or_says_nothing_is_cut_off(reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream has no deadline of its own; each reply has one, and so has saying nothing."""
    import grpc

    monkeypatch.setattr(answering, "SLOW_SECONDS", 0.5)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.5 if reads else 600.0)

    class Talkative(Pair):
        def echo(self, sender: bytes, frame: bytes) -> list[bytes]:
            super().echo(sender, frame)
            return [bytes(FRAME_BYTES)] * 500  # more than all buffers on the way have room for

    async with Talkative(secure=False) as pair:
        async with grpc.aio.insecure_channel(pair.where) as channel:
            hello = pair.caller(secure=False).hello(BERT.id, NO_BINDING)
            call = channel.stream_stream(module.METHOD)(metadata=((module.HELLO, hello),))
            await call.initial_metadata()
            if reads:
                assert await call.read() is grpc.aio.EOF  # nobody asked anything
            else:
                await call.write(pack(1, b"x"))
            async with asyncio.timeout(60.0):
                while not pair.bert.dropped["slow"]:
                    await asyncio.sleep(0.02)
            assert len(pair.heard) == (not reads)
        assert pair.bert.dropped == {"slow": 1}
