"""A transport of one's own, as an example: frames as files in a directory that all nodes can write to.

Use it with ``outroute node --transport shared:///srv/meeting``. Each node has a box there, named by its id::

    BOX/alive            a number that grows while the node lives
    BOX/in/CHANNEL-n     the nth message that a caller has put there; the first is its hello
    BOX/out/CHANNEL-n    the nth message back; CHANNEL-end when the node has ended the channel

A message is written under another name and renamed, so nobody reads half of one. Whoever has read one deletes it.
Nothing here is encrypted, and what was said can be said again: who may write in the directory is trusted with
everything on the way. The handshake keeps out who has the wrong secret or is not on the list, not who changes files.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets as random_bytes
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

from outroute.errors import TransportError
from outroute.identity import Identity, node_id
from outroute.transports import CREDIT_FRAMES, Capabilities
from outroute.transports.calls import HEAD_BYTES, Calls, pack, packed, unpack
from outroute.transports.channel import Secrets
from outroute.transports.linking import LinkBase
from outroute.transports.links import (
    CALLERS_MOST,
    CALLERS_PER_NODE,
    FAILURES,
    HANDSHAKE_SECONDS,
    IDLE_SECONDS,
    NO_BINDING,
    SKIPPED_BYTES,
    SLOW_SECONDS,
    Channel,
    Handle,
    LinkMaker,
)
from outroute.transports.url import Url, bad

__all__ = ["SharedDirectoryLink"]

LOOK_SECONDS = (0.002, 0.05)
"""Seconds between looks into a box: while something moves, and the most that it grows to when nothing does."""
ALIVE_SECONDS = 0.5
"""Seconds between signs of life."""
DEAD_SECONDS = 5.0
"""Seconds without a sign of life after which a node counts as dead: ten signs missed."""
FILES_MOST = 4096
"""Files of a box that are looked at in one turn."""
UNREAD_MOST = 64
"""Messages back that a caller may leave unread before its next frame has to wait."""
MESSAGE_BYTES = SKIPPED_BYTES + HEAD_BYTES
"""Bytes of a message that is read at all; a larger one ends its channel."""
_FILE = re.compile(r"([0-9a-f]{32})-([0-9]{12})")


def put(folder: Path, name: str, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    part = folder / f".{name}"
    part.write_bytes(data)
    part.rename(folder / name)


def take(file: Path) -> bytes | None:
    """Read a file and delete it; None for one that is too large.

    Raises:
        FileNotFoundError: it is not there yet.
    """
    with open(file, "rb") as opened:
        data = opened.read(MESSAGE_BYTES + 1)
    file.unlink(missing_ok=True)
    return data if len(data) <= MESSAGE_BYTES else None


def take_all(folder: Path) -> list[tuple[str, int, bytes | None]]:
    """Channel, number and content of the messages in a folder, in their order."""
    with os.scandir(folder) as found:
        names = [one.name for one in islice(found, FILES_MOST) if _FILE.fullmatch(one.name)]
    out = []
    for name in sorted(names):
        channel, _, number = name.partition("-")
        with suppress(FileNotFoundError):
            out.append((channel, int(number), take(folder / name)))
    return out


class _Mail(Channel):
    """A channel that this node opened: a name, and the messages under it in the other's box."""

    def __init__(self, link: SharedDirectoryLink, member: bytes, box: Path) -> None:
        self.member = member
        self._link, self._box, self._name = link, box, random_bytes.token_hex(16)
        self._calls, self._sent, self._read = Calls(), 0, 0
        self._reading: asyncio.Task[None] | None = None

    async def introduce(self) -> None:
        """The handshake; see ``LinkBase.connect``."""
        hello = self._link.hello(self.member, NO_BINDING)
        try:
            async with asyncio.timeout(0.9 * HANDSHAKE_SECONDS):
                await self._send(hello)
                reply = await self._next()
        except TimeoutError:
            raise TimeoutError("nobody empties its box") from None
        self.member = node_id(self._link.introduced(self.member, hello, reply, NO_BINDING))
        self._reading = asyncio.get_running_loop().create_task(self._read_on())

    async def exchange(self, frame: bytes) -> Sequence[bytes]:
        """See ``Channel.exchange``."""
        if self.over:
            raise EOFError("the channel has ended")
        number = self._calls.begin()
        try:
            await self._send(pack(number, frame))
            return await self._calls.reply(number)
        finally:
            self._calls.forget(number)

    async def _send(self, message: bytes) -> None:
        name = f"{self._name}-{self._sent:012d}"
        self._sent += 1
        put(self._box / "in", name, message)

    async def _next(self) -> bytes:
        """The next message back.

        Raises:
            EOFError: the other side has ended the channel, is dead, or breaks a bound.
            FileNotFoundError: its box is gone.
        """
        loop = asyncio.get_running_loop()
        pause, sign, signed = LOOK_SECONDS[0], b"", loop.time()
        while True:
            ended = (self._box / "out" / f"{self._name}-end").exists()  # looked at first: it is written last
            with suppress(FileNotFoundError):
                data = await asyncio.to_thread(take, self._box / "out" / f"{self._name}-{self._read:012d}")
                self._read += 1
                if data is None:
                    raise EOFError("a message over the limit")
                return data
            if ended:
                raise EOFError("the other node has ended the channel")
            now = (self._box / "alive").read_bytes()
            if now != sign:
                sign, signed = now, loop.time()
            elif loop.time() - signed > DEAD_SECONDS:
                raise EOFError("no sign of life")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOK_SECONDS[1])

    async def _read_on(self) -> None:
        why = "closed"
        try:
            while True:
                read = unpack(await self._next())
                if read is None:
                    raise EOFError("a message that is none")
                number, more, frame = read
                self._calls.take(number, more, frame)
        except FAILURES as error:
            why = str(error)
        finally:
            self._link.ended(self)
            self._calls.fail(why)

    def close(self) -> None:
        """See ``Channel.close``."""
        self.over = True
        self._calls.fail("closed")
        if self._reading is not None:
            self._reading.cancel()
        with suppress(OSError):
            put(self._box / "in", f"{self._name}-{self._sent:012d}", b"")  # farewell
        for file in (self._box / "out").glob(f"{self._name}-*"):
            file.unlink(missing_ok=True)


class _Guest:
    """A channel that somebody else opened and that is proved."""

    def __init__(self, key: bytes) -> None:
        self.key, self.sender = key, node_id(key)
        self.waiting: dict[int, bytes | None] = {}
        self.wake = asyncio.Event()
        self.next, self.sent = 1, 1
        self.task: asyncio.Task[None] | None = None


class SharedDirectoryLink(LinkBase):
    """Frames to and from other nodes through a directory; see ``LinkBase`` for the other arguments.

    Args:
        directory: that all nodes can write to.
    """

    about = "files in a directory that all nodes can write to (an example of a plug-in)"
    url = "shared:///DIRECTORY"
    capabilities = Capabilities(durable=True, ordered=True, back_pressure=True, secure=False)
    place_hint = "write the node's id, 64 hexadecimal digits, as it prints it when it starts"

    def __init__(
        self,
        identity: Identity,
        *,
        directory: Path,
        handle: Handle,
        endpoint_of: Callable[[bytes], str | None],
        secrets: Secrets | None = None,
        admit: Callable[[bytes], bool] = lambda _: True,
        credit: int = CREDIT_FRAMES,
    ) -> None:
        super().__init__(identity, handle=handle, endpoint_of=endpoint_of, secrets=secrets, admit=admit, credit=credit)
        self._directory, self._box = directory, directory / identity.id.hex()
        self._guests: dict[str, _Guest] = {}
        self._living: list[asyncio.Task[None]] = []

    @classmethod
    def from_url(cls, url: Url) -> LinkMaker:
        """What makes the links of a URL.

        Raises:
            TransportError: it names no directory.
        """
        url.only(cls.options)
        if url.place or not url.path or not Path(url.path).is_dir():  # an empty path would be the current directory
            raise bad(str(url), f"'{url.path}' is no directory: write shared:///DIRECTORY with one that is there")
        return partial(cls, directory=Path(url.path))

    @classmethod
    def is_place(cls, text: str) -> bool:
        """The id of a node: nothing else becomes part of a path."""
        return re.fullmatch(r"[0-9a-f]{64}", text) is not None

    # called -------------------------------------------------------------------------------------------------

    async def listen(self, host: str = "", port: int = 0) -> str:
        """Make this node's box; host and port say nothing here."""
        try:
            shutil.rmtree(self._box, ignore_errors=True)  # of an earlier life
            for name in ("in", "out"):
                (self._box / name).mkdir(parents=True)
            put(self._box, "alive", b"0")
        except OSError as error:
            raise TransportError(
                f"cannot make a box in '{self._directory}' ({error.strerror}): let this node write there",
                code="transport.listen",
            ) from error
        self._living = [asyncio.get_running_loop().create_task(one) for one in (self._breathe(), self._receive())]
        return self._box.name

    async def _breathe(self) -> None:
        number = 0
        while True:
            with suppress(OSError):  # a full disk, say: others see that nothing moves here
                put(self._box, "alive", str(number).encode())
            number += 1
            await asyncio.sleep(ALIVE_SECONDS)

    async def _receive(self) -> None:
        pause = LOOK_SECONDS[0]
        while True:
            found: list[tuple[str, int, bytes | None]] = []
            with suppress(OSError):
                found = await asyncio.to_thread(take_all, self._box / "in")
            for channel, number, data in found:
                self._heard(channel, number, data)
            pause = LOOK_SECONDS[0] if found else min(2 * pause, LOOK_SECONDS[1])
            await asyncio.sleep(pause)

    def _heard(self, channel: str, number: int, data: bytes | None) -> None:
        guest = self._guests.get(channel)
        if guest is None:
            if data and number == 0:
                self._greet(channel, data)
            elif data:
                self._say_end(channel)  # of this node's earlier life
        elif not data:  # a farewell, or too large to be read
            self.dropped["oversized"] += data is None
            self._forget(channel)
        elif len(guest.waiting) >= self.credit and (read := unpack(data)) is not None:
            self._write(channel, guest, pack(read[0], self.busy()))
        else:
            guest.waiting[number] = data
            guest.wake.set()

    def _greet(self, channel: str, hello: bytes) -> None:
        reply, key = self.greet(hello, NO_BINDING)
        full = key is not None and len(self._guests) >= CALLERS_MOST
        if key is None or full:
            self.dropped["full"] += full
            with suppress(OSError):
                put(self._box / "out", f"{channel}-{0:012d}", reply if not full else b"full")
            self._say_end(channel)
            return
        guest = _Guest(key)
        same = [name for name, one in self._guests.items() if one.sender == guest.sender]
        for name in same[: len(same) - CALLERS_PER_NODE + 1]:
            self.dropped["full"] += 1
            self._forget(name)
        self._guests[channel] = guest
        with suppress(OSError):
            put(self._box / "out", f"{channel}-{0:012d}", reply)
        guest.task = asyncio.get_running_loop().create_task(self._attend(channel, guest))

    async def _attend(self, channel: str, guest: _Guest) -> None:
        """Answer the frames of one channel, one after the other, in the order of their numbers."""
        try:
            while True:
                while guest.next not in guest.waiting:
                    guest.wake.clear()
                    async with asyncio.timeout(IDLE_SECONDS):
                        await guest.wake.wait()
                read = unpack(guest.waiting[guest.next] or b"")
                replies = None if read is None else await self.answer(guest.sender, guest.key, read[2])
                if read is None or replies is None:
                    return
                try:
                    async with asyncio.timeout(SLOW_SECONDS):
                        for message in packed(read[0], replies):
                            while (self._box / "out" / f"{channel}-{guest.sent - UNREAD_MOST:012d}").exists():
                                await asyncio.sleep(LOOK_SECONDS[1])
                            self._write(channel, guest, message)
                except TimeoutError:
                    self.dropped["slow"] += 1
                    return
                del guest.waiting[guest.next]
                guest.next += 1
                await asyncio.sleep(self.hold_up(guest.sender, replies))
        except FAILURES:
            return  # idle, or nothing can be written any more
        finally:
            guest.task = None
            self._forget(channel)

    def _write(self, channel: str, guest: _Guest, message: bytes) -> None:
        name = f"{channel}-{guest.sent:012d}"
        guest.sent += 1
        put(self._box / "out", name, message)

    def _forget(self, channel: str) -> None:
        guest = self._guests.pop(channel, None)
        if guest is not None and guest.task is not None:
            guest.task.cancel()
        self._say_end(channel)

    def _say_end(self, channel: str) -> None:
        with suppress(OSError):
            put(self._box / "out", f"{channel}-end", b"")

    # calling ------------------------------------------------------------------------------------------------

    async def connect(self, member: bytes, place: str) -> Channel:
        """See ``LinkBase.connect``."""
        made = _Mail(self, member, self._directory / place)
        try:
            await made.introduce()
        except BaseException:
            made.close()
            raise
        return made

    async def close(self) -> None:
        """See ``MemberLink.close``."""
        ending = [*self._living, *(guest.task for guest in self._guests.values() if guest.task is not None)]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await super().close()
        if self._living:
            self._living.clear()
            shutil.rmtree(self._box, ignore_errors=True)
