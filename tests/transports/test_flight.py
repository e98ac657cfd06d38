"""What is the Flight link's own: tables for any Arrow client, sessions, hostile batches."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import TransportError
from outroute.identity import Identity
from outroute.packet import PACKET_BYTES, PacketArray, Rejection, as_packets, verify_signatures
from outroute.testing.rigs import SECRET, LinkRig
from outroute.transports import ADDRESS_REFUSED, FRAME_BYTES, Frame, Kind, UnreachableError, encode
from outroute.transports import flight_link as module
from outroute.transports.answering import AHEAD_FRAMES
from outroute.transports.certificates import Papers, look, own_certificate, place_parts
from outroute.transports.channel import ChannelReason, Secrets
from outroute.transports.flight_answering import Answering
from outroute.transports.flight_client import FRAMES, open_client
from outroute.transports.flight_link import FlightLink
from outroute.transports.flight_offer import State
from outroute.transports.flight_server import SESSIONS_PER_NODE, Sessions
from outroute.transports.flight_tables import batch_of, message_of, packet_bytes, table_schema, told_of
from store.making import SCHEMA, identity, make_packets
from transports.rigs import FACETED, addresses_of, asynchronous

ANNA, BERT, EVE = identity(1), identity(2), identity(3)
OLD, NEW, WRONG = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
TABLE = flight.FlightDescriptor.for_path("packets", SCHEMA.id.hex())


async def aside(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do what blocks in a thread, while the members live on in this one."""
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


# tables ---------------------------------------------------------------------------------------------------------


def read_all(client: flight.FlightClient) -> PacketArray:
    """What any Arrow client does: ask what there is, and read every part as a table."""
    info = client.get_flight_info(TABLE)
    tables = [client.do_get(point.ticket).read_all() for point in info.endpoints]
    (column,) = pa.concat_tables(tables).combine_chunks().columns
    return as_packets(b"".join(packet_bytes(batch) or b"" for batch in pa.table([column], ["packet"]).to_batches()))


def put(client: flight.FlightClient, table: pa.Table, descriptor: flight.FlightDescriptor = TABLE) -> np.ndarray:
    """Deposit a table; state and reason of each packet."""
    writer, reader = client.do_put(descriptor, table.schema)
    writer.write_table(table)
    writer.done_writing()
    found = b""
    while (part := reader.read()) is not None:
        found += part.to_pybytes()
    writer.close()
    return np.frombuffer(found, dtype=np.uint8).reshape(-1, 2)


@asynchronous
async def test_any_arrow_client_deposits_and_reads_packets_as_tables() -> None:
    rig = LinkRig("flight", FlightLink)
    await rig.start(4)
    try:
        packets = make_packets(300)
        place = rig._endpoints[rig.holder(0).member.id]
        table = pa.Table.from_batches([batch_of(packets)])
        client = await aside(lambda: open_client(place, identity(77), secrets=Secrets((SECRET,))))
        with client:
            done = await aside(put, client, table)
            assert done[:, 0].tolist() == [State.REPLICATED] * 300  # these stores are in memory
            assert [one.descriptor.path for one in await aside(lambda: list(client.list_flights()))] == [
                [b"packets", schema.hex().encode()] for schema in sorted((SCHEMA.id, FACETED.id))
            ]
            found = await aside(read_all, client)
        assert verify_signatures(found).all()
        assert sorted(one.tobytes() for one in found) == sorted(one.tobytes() for one in packets)
        # Members see the same.
        answers = await rig.holder(3).fetch(SCHEMA.id, list(dict.fromkeys(addresses_of(packets))), cap=256)
        assert sum(len(one.packets) for one in answers) == 300
    finally:
        await rig.stop()


@asynchronous
async def test_packets_that_are_refused_say_why_and_do_not_leave() -> None:
    rig = LinkRig("flight", FlightLink)
    await rig.start(3)
    try:
        packets = make_packets(4)
        packets["outcome"][1, 0] ^= 1  # changed after it was signed
        packets["bucket"][2] = 2**40
        place = rig._endpoints[rig.holder(0).member.id]
        client = await aside(lambda: open_client(place, identity(77), secrets=Secrets((SECRET,))))
        with client:
            done = await aside(put, client, pa.Table.from_batches([batch_of(packets)]))
            other = flight.FlightDescriptor.for_path("packets", FACETED.id.hex())
            strange = await aside(put, client, pa.Table.from_batches([batch_of(packets[3:])]), other)
        assert done[:, 0].tolist() == [State.REPLICATED, State.REFUSED, State.REFUSED, State.REPLICATED]
        assert 0 < done[1, 1] < ADDRESS_REFUSED
        assert done[2, 1] in (Rejection.FUTURE, Rejection.BUCKET)
        assert strange.tolist() == [[State.REFUSED, Rejection.SCHEMA]]
        assert [sorted(rig.guard(n).refused) for n in (1, 2)] == [[], []]  # what was refused here went no further
        assert rig.store(0).count() == rig.store(1).count() == 2
    finally:
        await rig.stop()


BAD_TABLES = {
    "another width": pa.table({"packet": pa.array([b"x" * 511], pa.binary(511))}),
    "bytes of any length": pa.table({"packet": pa.array([b"x" * 512], pa.binary())}),
    "a null": pa.table({"packet": pa.array([b"x" * 512, None], pa.binary(512))}),
    "two columns": pa.table({"packet": pa.array([b"x" * 512], pa.binary(512)), "more": [1]}),
    "a dictionary": pa.table({"packet": pa.array([b"x" * 512], pa.binary(512)).dictionary_encode()}),
    "nested": pa.table({"packet": pa.array([[b"x" * 512]], pa.list_(pa.binary(512)))}),
}


@asynchronous
async def test_tables_that_are_none_are_refused_and_counted() -> None:
    rig = LinkRig("flight", FlightLink)
    await rig.start(1)
    try:
        link = rig.holder(0).link
        place = rig._endpoints[rig.holder(0).member.id]
        client = await aside(lambda: open_client(place, identity(77), secrets=Secrets((SECRET,))))
        with client:
            for number, (name, table) in enumerate(BAD_TABLES.items(), 1):
                with pytest.raises(pa.ArrowException):
                    await aside(put, client, table)
                assert link.dropped["malformed"] == number, name
            for path in ((), ("packets",), ("packets", "zz"), ("packets", "00" * 32), ("elsewhere", SCHEMA.id.hex())):
                with pytest.raises((pa.ArrowException, ValueError)):
                    await aside(client.get_flight_info, flight.FlightDescriptor.for_path(*path))
            most = (math.prod(f.width + 1 for f in SCHEMA.facets), len(SCHEMA.landmarks))
            for words in (("0", str(most[1])), (str(most[0]), "0"), ("-1", "0"), ("0", "x")):
                descriptor = flight.FlightDescriptor.for_path("packets", SCHEMA.id.hex(), *words)
                with pytest.raises(pa.ArrowException):
                    await aside(client.get_flight_info, descriptor)
            for ticket in (b"", b"ORT\x01", bytes(48), b"ORT\x01" + bytes(44)):
                with pytest.raises(pa.ArrowException):
                    await aside(lambda one=ticket: client.do_get(flight.Ticket(one)).read_all())
            one = flight.FlightDescriptor.for_path("packets", SCHEMA.id.hex(), "0", "1")
            info = await aside(client.get_flight_info, one)
            assert (await aside(lambda: client.do_get(info.endpoints[0].ticket).read_all())).num_rows == 0
        assert rig.store(0).count() == 0
    finally:
        await rig.stop()


# who may ------------------------------------------------------------------------------------------------------


class Pair:
    """Bert listens, Anna calls; Bert answers each frame with it and a second one."""

    def __init__(self, **bert: Any) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.where = ""
        self.bert = FlightLink(BERT, handle=self.echo, endpoint_of=lambda _: None, **bert)
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

    def caller(self, key: Identity = ANNA, **more: Any) -> FlightLink:
        link = FlightLink(key, handle=self.echo, endpoint_of=lambda _: self.where, **more)
        self.links.append(link)
        return link


async def reached(link: FlightLink, frame: bytes, tries: int = 500) -> list[bytes]:
    """A reply, once the other side is there again."""
    for _ in range(tries):
        try:
            return list(await link.request(BERT.id, frame))
        except UnreachableError:
            await asyncio.sleep(0.02)
    raise AssertionError("it does not come back")


@asynchronous
async def test_nothing_is_told_without_a_session() -> None:
    async with Pair(secrets=Secrets((NEW,))) as pair:
        seen = await look(*place_parts(pair.where), Papers("flight").pairs(Secrets((NEW,))))
        assert seen is not None
        shown, own = seen

        def try_it(token: bytes | None) -> None:
            options = flight.FlightCallOptions(headers=[] if token is None else [(b"auth-token-bin", token)], timeout=5)
            with flight.FlightClient(
                f"grpc+tls://{pair.where}",
                tls_root_certs=shown.certificate,
                cert_chain=own.certificate,
                private_key=own.key,
                override_hostname="outroute",
            ) as client:
                with pytest.raises(flight.FlightUnauthenticatedError):
                    list(client.list_flights(options=options))
                with pytest.raises(flight.FlightUnauthenticatedError):
                    client.do_get(flight.Ticket(bytes(48)), options).read_all()
                with pytest.raises(flight.FlightUnauthenticatedError):  # then, or when it is read
                    client.do_exchange(flight.FlightDescriptor.for_path(FRAMES), options)[1].read_chunk()

        def try_without_certificate() -> None:
            """Who knows the certificate of the one called and has none of the network."""
            options = flight.FlightCallOptions(timeout=5)
            with (
                flight.FlightClient(
                    f"grpc+tls://{pair.where}", tls_root_certs=shown.certificate, override_hostname="outroute"
                ) as client,
                pytest.raises(flight.FlightUnavailableError),
            ):  # no line at all
                list(client.list_flights(options=options))

        for token in (None, b"", bytes(32)):
            await aside(try_it, token)
        await aside(try_without_certificate)
        with pytest.raises(UnreachableError, match="network secret differs"):
            await aside(lambda: open_client(pair.where, EVE, secrets=Secrets((WRONG,))))
        with pytest.raises(UnreachableError, match="another node"):
            await aside(lambda: open_client(pair.where, EVE, secrets=Secrets((NEW,)), member=ANNA.id))
        assert not pair.heard


@asynchronous
async def test_who_is_revoked_loses_the_session_at_once() -> None:
    admitted = {ANNA.public_key}
    async with Pair(admit=lambda key: key in admitted) as pair:
        with pytest.raises(UnreachableError, match="revoked or not on its list"):
            await aside(lambda: open_client(pair.where, EVE))
        assert pair.bert.refused == {ChannelReason.NOT_ADMITTED: 1}
        client = await aside(lambda: open_client(pair.where, ANNA))
        with client:
            assert await aside(lambda: list(client.list_flights())) == []
            admitted.clear()
            with pytest.raises(flight.FlightUnauthorizedError):
                await aside(lambda: list(client.list_flights()))


@asynchronous
async def test_secrets_rotate_while_the_server_runs() -> None:
    async with Pair(secrets=Secrets((OLD,))) as pair:
        anna = pair.caller(secrets=Secrets((NEW, OLD)))
        assert await anna.request(BERT.id, b"1")  # ahead of Bert
        pair.bert.secrets = Secrets((NEW, OLD))
        assert await reached(pair.caller(EVE, secrets=Secrets((OLD,))), b"2")  # behind him
        assert await reached(anna, b"3")
        pair.bert.secrets = Secrets((NEW,))
        assert await reached(pair.caller(identity(5), secrets=Secrets((NEW,))), b"4")
        for _ in range(500):  # until the server that trusts the old one is gone
            try:
                await pair.caller(identity(4), secrets=Secrets((OLD,))).request(BERT.id, b"5")
            except UnreachableError as error:
                if "secret differs" in str(error):
                    break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("the old secret is still taken")


@asynchronous
async def test_only_the_certificate_that_was_seen_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    _, forged = own_certificate("flight")

    async def see_another(host: str, port: int, pairs: Any) -> Any:
        found = await look(host, port, pairs)
        return None if found is None else (forged, found[1])

    async with Pair() as pair:
        monkeypatch.setattr(module, "look", see_another)
        with pytest.raises(UnreachableError, match="does not answer"):
            await pair.caller().request(BERT.id, b"hello")
        assert not pair.heard


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


@asynchronous
async def test_a_port_that_is_taken_is_said() -> None:
    async with Pair() as pair:
        host, port = place_parts(pair.where)
        with pytest.raises(TransportError, match="choose another"):
            await pair.caller().listen(host, port)


def test_sessions_are_bounded_and_end() -> None:
    sessions = Sessions()
    tokens = [sessions.open(ANNA.id, ANNA.public_key) for _ in range(2 * SESSIONS_PER_NODE)]
    assert [sessions.of(token) is not None for token in tokens] == [False] * SESSIONS_PER_NODE + (
        [True] * SESSIONS_PER_NODE
    )
    other = sessions.open(BERT.id, BERT.public_key)
    found = sessions.of(other)
    assert found is not None
    assert (found.id, found.key) == (BERT.id, BERT.public_key)
    found.seen -= 10_000
    assert sessions.of(other) is None


# frames -------------------------------------------------------------------------------------------------------


class Chunk:
    """As the library gives them."""

    def __init__(self, head: bytes | None, batch: Any) -> None:
        self.app_metadata, self.data = head, batch


@given(st.integers(0, 6), st.binary(max_size=200), st.integers(1, 2**32 - 1), st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_frame_comes_out_as_it_went_in(count: int, data: bytes, number: int, more: bool) -> None:
    packets = make_packets(6)[:count]
    name = bytes(32)
    deposit = Frame(kind=Kind.DEPOSIT, addresses=(name,) * bool(count), counts=(count,) * bool(count), packets=packets)
    for frame in (encode(deposit), data, encode(deposit)[:-1], encode(deposit) + data):
        found = told_of(Chunk(*message_of(number, frame, more=more)), 2 * FRAME_BYTES)
        assert found == (number, more, frame)


def test_chunks_that_are_no_message() -> None:
    good = batch_of(make_packets(2))
    assert packet_bytes(good.slice(1)) == make_packets(2)[1:].tobytes()
    assert told_of(Chunk(bytes(5), good), 5 + 2 * PACKET_BYTES) is not None
    assert told_of(Chunk(bytes(5), good), 4 + 2 * PACKET_BYTES) is None  # over the limit
    assert told_of(Chunk(None, good), FRAME_BYTES) is None
    assert told_of(Chunk(bytes(4), None), FRAME_BYTES) is None
    for name, table in BAD_TABLES.items():
        for batch in table.to_batches():
            assert told_of(Chunk(bytes(5), batch), FRAME_BYTES) is None, name


@asynchronous
async def test_messages_over_the_bound_end_the_stream_and_nothing_else() -> None:
    async with Pair() as pair:
        anna = pair.caller()
        (reply, *_) = await anna.request(BERT.id, bytes(FRAME_BYTES + 1))
        assert reply[4] == Kind.REFUSED
        with pytest.raises(UnreachableError, match="limit"):
            await anna.request(BERT.id, bytes(3 * FRAME_BYTES))
        assert pair.bert.dropped == {"oversized": 2}
        assert (await anna.request(BERT.id, b"still there"))[0] == b"still there"


@asynchronous
async def test_a_caller_that_never_ends_its_stream_does_not_hold_up_the_end() -> None:
    async with Pair() as pair:
        client = await aside(lambda: open_client(pair.where, EVE))
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_path(FRAMES))
        await aside(writer.begin, table_schema())
        await aside(writer.write_metadata, bytes([0, 1, 0, 0, 0]) + b"hello")
        assert (await aside(reader.read_chunk)).app_metadata.to_pybytes()[5:] == b"hello"
        await pair.bert.close()  # though Eve does not listen to the farewell
        with pytest.raises(UnreachableError):
            await pair.caller().request(BERT.id, b"hello")
        reader.cancel()
        client.close()


def test_frames_of_a_stream_are_answered_in_order_some_ahead_and_one_at_a_time_when_refused() -> None:
    said: list[int] = []
    waits = {2: 0.001}
    answering = Answering(lambda number, _: said.append(number), lambda replies: waits.get(len(replies), 0.0))
    waiting: list[Future[list[list[bytes]] | None]] = []

    def begin() -> Future[list[list[bytes]] | None]:
        waiting.append(Future())
        return waiting[-1]

    for number in range(AHEAD_FRAMES):
        answering.enter(number, begin)
    one_more = threading.Thread(target=answering.enter, args=(AHEAD_FRAMES, begin))
    one_more.start()
    for done in reversed(waiting[1:]):
        done.set_result([[b"good"]])
    assert said == []  # the first is not answered yet, and there is no room for one more
    assert len(waiting) == AHEAD_FRAMES
    waiting[0].set_result([[b"refused", b"twice"]])
    one_more.join(60)
    assert len(waiting) == AHEAD_FRAMES + 1
    waiting[-1].set_result([[b"good"]])
    answering.finish()
    assert said == list(range(AHEAD_FRAMES + 1))


def test_a_stream_whose_replies_cannot_be_sent_ends() -> None:
    def broken(_: int, __: object) -> None:
        raise pa.ArrowInvalid("broken")

    answering = Answering(broken, lambda _: 0.0)
    done: Future[list[list[bytes]] | None] = Future()
    done.set_result([[b"reply"]])
    answering.enter(1, lambda: done)
    answering.finish()
    with pytest.raises(pa.ArrowInvalid, match="broken"):
        answering.enter(2, Future)
