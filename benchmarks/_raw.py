"""The bare libraries under the links: 64 KiB messages between two processes, as fast as each library's own idiom goes.

All have the same pattern as ours: as many messages on their way as a member has credit, each acknowledged with four
bytes once its bytes were counted. Security is that of the link: the same keys, the same certificates.

| transport | what raw is |
|---|---|
| direct | blocking TLS 1.3 sockets (module ``ssl``), ``recv_into`` one buffer, a thread each |
| zeromq | blocking DEALER and ROUTER (pyzmq), CURVE with fixed keys and no allow-list |
| grpc | one bidirectional stream of ``grpc.aio``, bytes without serializers, mutual TLS |
| flight | ``do_put`` of batches of 128 rows of 512 bytes, written in one thread, acknowledgements read in another |
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from outroute.transports.certificates import TLS_NAME, Papers, keep_quiet, look, own_certificate, place_parts
from outroute.transports.channel import Secrets
from outroute.transports.contract import CREDIT_FRAMES

keep_quiet()
ACK = b"kept"
SECRETS = Secrets((bytes(range(32)),))


class Raw(Protocol):
    """One library; each side in its own process."""

    async def serve(self, secure: bool) -> str:
        """In the receiving process: take messages until it ends; where."""

    async def connect(self, place: str, secure: bool) -> None:
        """In the sending process."""

    async def send(self, messages: Sequence[bytes], count: int) -> None:
        """So many messages, these in turn, all of one size; returns when all are acknowledged."""

    async def close(self) -> None:
        """End what ``connect`` began."""


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def windowed(count: int, send: Callable[[], None], acknowledged: Callable[[], None]) -> None:
    """Send so many, with at most the credit on their way."""
    for number in range(count):
        if number >= CREDIT_FRAMES:
            acknowledged()
        send()
    for _ in range(min(count, CREDIT_FRAMES)):
        acknowledged()


class RawTls:
    """Blocking sockets."""

    async def serve(self, secure: bool) -> str:
        from outroute.transports.tls_context import server_context

        context = server_context()[0] if secure else None
        listening = socket.create_server(("127.0.0.1", 0))

        def take(line: Any) -> None:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(OSError):
                line = context.wrap_socket(line, server_side=True) if context else line
                buffer = bytearray(int.from_bytes(_exactly(line, bytearray(4)), "little"))
                while True:
                    _exactly(line, buffer)
                    line.sendall(ACK)

        def accept() -> None:
            while True:
                line, _ = listening.accept()
                threading.Thread(target=take, args=(line,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listening.getsockname()[1]}"

    async def connect(self, place: str, secure: bool) -> None:
        self._place, self._secure = place_parts(place), secure
        self._lines: dict[int, Any] = {}

    def _line(self, size: int) -> Any:
        """A connection for messages of a size."""
        from outroute.transports.tls_context import client_context

        if size not in self._lines:
            line: Any = socket.create_connection(self._place)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = client_context().wrap_socket(line) if self._secure else line
            line.sendall(size.to_bytes(4, "little"))
            self._lines[size] = line
        return self._lines[size]

    async def send(self, messages: Sequence[bytes], count: int) -> None:
        def run() -> None:
            line, said, turn = self._line(len(messages[0])), bytearray(len(ACK)), itertools.cycle(messages)
            windowed(count, lambda: line.sendall(next(turn)), lambda: _exactly(line, said) and None)

        await in_thread(run)

    async def close(self) -> None:
        for line in self._lines.values():
            line.close()


def _exactly(line: Any, buffer: bytearray) -> bytearray:
    view = memoryview(buffer)
    while view:
        got = line.recv_into(view)
        if not got:
            raise ConnectionResetError
        view = view[got:]
    return buffer


class RawZeroMq:
    """Blocking sockets of the library."""

    def __init__(self) -> None:
        import zmq

        self._zmq, self._context = zmq, zmq.Context()
        # Fixed keys of this benchmark: both processes have to have them.
        self._public, self._secret = (
            b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
            b"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6",
        )

    def _socket(self, kind: int, secure: bool) -> Any:
        made = self._context.socket(kind)
        made.set_hwm(2 * CREDIT_FRAMES)
        made.linger = 0
        if secure:
            made.curve_publickey, made.curve_secretkey = self._public, self._secret
            if kind == self._zmq.ROUTER:
                made.curve_server = True
            else:
                made.curve_serverkey = self._public
        return made

    async def serve(self, secure: bool) -> str:
        router = self._socket(self._zmq.ROUTER, secure)
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def take() -> None:
            while True:
                sender, message = router.recv_multipart(copy=False)
                if len(message.buffer):
                    router.send_multipart((sender, ACK), copy=False)

        threading.Thread(target=take, daemon=True).start()
        return f"127.0.0.1:{port}"

    async def connect(self, place: str, secure: bool) -> None:
        self._dealer = self._socket(self._zmq.DEALER, secure)
        self._dealer.connect(f"tcp://{place}")

    async def send(self, messages: Sequence[bytes], count: int) -> None:
        dealer, turn = self._dealer, itertools.cycle(messages)
        await in_thread(
            windowed, count, lambda: dealer.send(next(turn), copy=False), lambda: dealer.recv(copy=False) and None
        )

    async def close(self) -> None:
        self._dealer.close()


async def _seen(place: str) -> Any:
    seen = await look(*place_parts(place), Papers("grpc").pairs(SECRETS))
    assert seen is not None
    return seen


class RawGrpc:
    """One stream of the asynchronous interface."""

    _METHOD = ("raw.Raw", "Move")

    async def serve(self, secure: bool) -> str:
        import grpc

        async def move(_: Any, context: Any) -> None:
            while (await context.read()) is not grpc.aio.EOF:
                await context.write(ACK)

        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1 << 20)])
        service, method = self._METHOD
        handler = grpc.stream_stream_rpc_method_handler(move)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        if secure:
            pair, _ = own_certificate("grpc")
            credentials = grpc.ssl_server_credentials(
                [(pair.key, pair.certificate)], Papers("grpc").roots(SECRETS), require_client_auth=True
            )
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def connect(self, place: str, secure: bool) -> None:
        import grpc

        options = [("grpc.ssl_target_name_override", TLS_NAME), ("grpc.max_receive_message_length", 1 << 20)]
        if secure:
            shown, own = await _seen(place)
            credentials = grpc.ssl_channel_credentials(shown.certificate, own.key, own.certificate)
            self._channel = grpc.aio.secure_channel(place, credentials, options=options)
        else:
            self._channel = grpc.aio.insecure_channel(place, options=options)
        self._stream = self._channel.stream_stream("/" + "/".join(self._METHOD))()

    async def send(self, messages: Sequence[bytes], count: int) -> None:
        room = asyncio.Semaphore(CREDIT_FRAMES)

        async def read() -> None:
            for _ in range(count):
                await self._stream.read()
                room.release()

        reading = asyncio.create_task(read())
        for message in itertools.islice(itertools.cycle(messages), count):
            await room.acquire()
            await self._stream.write(message)
        await reading

    async def close(self) -> None:
        await self._stream.done_writing()
        await self._channel.close()


class RawFlight:
    """A table put batch by batch."""

    _ends: Any = None

    async def serve(self, secure: bool) -> str:
        import pyarrow.flight as flight

        class Server(flight.FlightServerBase):  # type: ignore[misc]
            def do_put(self, _: Any, __: Any, reader: Any, writer: Any) -> None:
                for chunk in reader:
                    assert chunk.data.nbytes
                    writer.write(ACK)

        options: dict[str, Any] = {"location": "grpc+tcp://127.0.0.1:0"}
        if secure:
            pair, _ = own_certificate("flight")
            options = {
                "location": "grpc+tls://127.0.0.1:0",
                "tls_certificates": [(pair.certificate, pair.key)],
                "verify_client": True,
                "root_certificates": Papers("flight").roots(SECRETS),
            }
        self._server = Server(**options)
        return f"127.0.0.1:{self._server.port}"

    async def connect(self, place: str, secure: bool) -> None:
        import pyarrow.flight as flight

        if secure:
            shown, own = await _seen(place)
            self._client = flight.FlightClient(
                f"grpc+tls://{place}",
                tls_root_certs=shown.certificate,
                cert_chain=own.certificate,
                private_key=own.key,
                override_hostname=TLS_NAME,
            )
        else:
            self._client = flight.FlightClient(f"grpc+tcp://{place}")

    async def send(self, messages: Sequence[bytes], count: int) -> None:
        import pyarrow.flight as flight

        from outroute.transports.flight_tables import batch_of, table_schema

        def run() -> None:
            batches = [batch_of(message) for message in messages]
            if self._ends is None:
                self._ends = self._client.do_put(flight.FlightDescriptor.for_path("raw"), table_schema())
            writer, reader = self._ends
            room = threading.Semaphore(CREDIT_FRAMES)

            def read() -> None:
                for _ in range(count):
                    reader.read()
                    room.release()

            reading = threading.Thread(target=read)
            reading.start()
            for batch in itertools.islice(itertools.cycle(batches), count):
                room.acquire()
                writer.write_batch(batch)
            reading.join()

        await in_thread(run)

    async def close(self) -> None:
        if self._ends is not None:
            self._ends[0].done_writing()
            self._ends[0].close()
        self._client.close()


async def trips(send: Callable[[], Awaitable[None]], count: int) -> list[float]:
    """Milliseconds of single exchanges, one after the other."""
    found: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        await send()
        found.append(1000 * (time.perf_counter() - began))
    return found
