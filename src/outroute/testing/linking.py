"""The contract of a link between two nodes: who may talk, what strangers and noise do, what ends a channel."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from outroute.errors import TransportError
from outroute.identity import Identity, node_id
from outroute.testing.making import identity
from outroute.testing.rigs import asynchronous
from outroute.transports import CREDIT_FRAMES, FRAME_BYTES, Frame, FrameReason, Kind, UnreachableError, decode, encode
from outroute.transports.channel import ChannelReason, Secrets
from outroute.transports.links import LinkMaker, MemberLink
from outroute.transports.refusals import REFUSALS_FREE
from outroute.transports.registry import link_of

__all__ = ["ANNA", "BERT", "EVE", "LinkContract", "Pair", "Stranger", "until"]

ANNA, BERT, EVE = identity(1), identity(2), identity(3)
OLD, NEW, WRONG = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
TRIES = 1200
"""Attempts to reach somebody who has come back, 50 ms apart: a minute on a machine that does much else."""


class Pair:
    """Bert listens, others call; Bert answers each frame with it, its first byte, and nothing."""

    def __init__(self, link: LinkMaker, **bert: Any) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.where: str | None = None
        self._link = link
        self.links: list[MemberLink] = []
        self.bert = self.listener(**bert)

    def _echo(self, sender: bytes, frame: bytes) -> list[bytes]:
        self.heard.append((sender, frame))
        return [frame, frame[:1], b""]

    def listener(self, key: Identity = BERT, **more: Any) -> MemberLink:
        """A link that calls nobody."""
        made = self._link(key, endpoint_of=lambda _: None, **({"handle": self._echo} | more))
        self.links.append(made)
        return made

    def caller(self, key: Identity = ANNA, **more: Any) -> MemberLink:
        """A link that knows where Bert is, and takes everybody to be there."""
        made = self._link(key, handle=self._echo, endpoint_of=lambda _: self.where, **more)
        self.links.append(made)
        return made

    async def __aenter__(self) -> Pair:
        self.where = await self.bert.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        for link in self.links:
            await link.close()


class Stranger:
    """Bert in a process of his own, which can be killed.

    Args:
        url: of the transport.
        port: to listen on; 0 for any.
        secret: of the network.
    """

    def __init__(self, url: str, *, port: int = 0, secret: bytes = b"") -> None:
        arguments = [sys.executable, "-m", "outroute.testing.echo", url, str(port), secret.hex()]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.place = self.line()
        assert self.place, "the process of the other node did not start"

    def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


async def until(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """What an attempt gives, repeated while nobody is reached."""
    for _ in range(TRIES):
        try:
            return await attempt()
        except UnreachableError:
            await asyncio.sleep(0.05)
    return await attempt()


class LinkContract:
    """What holds for every link; a subclass says how its URL is written (``url``)."""

    def url(self, directory: Path) -> str:
        """The URL of the transport, registered, so that another process finds it too.

        Args:
            directory: an empty one, for transports that need one.
        """
        raise NotImplementedError("say in url how your transport is written")

    @pytest.fixture
    def written(self, tmp_path: Path) -> str:
        """The URL."""
        return self.url(tmp_path)

    @pytest.fixture
    def link(self, written: str) -> LinkMaker:
        """What makes links."""
        return link_of(written)

    @asynchronous
    async def test_frames_of_any_size_come_back_whole_and_to_whom_they_belong(self, link: LinkMaker) -> None:
        async with Pair(link) as pair:
            anna = pair.caller()
            frames = [bytes([i]) * size for i, size in enumerate((0, 1, 70, 4096, FRAME_BYTES))]
            replies = await asyncio.gather(*(anna.request(BERT.id, frame) for frame in frames))
            assert [list(r) for r in replies] == [[f, f[:1], b""] for f in frames]
            assert {sender for sender, _ in pair.heard} == {ANNA.id}

    @asynchronous
    async def test_frames_of_one_channel_are_handled_in_their_order(self, link: LinkMaker) -> None:
        async with Pair(link) as pair:
            anna = pair.caller()
            frames = [bytes([i]) for i in range(CREDIT_FRAMES)]
            await asyncio.gather(*(anna.request(BERT.id, frame) for frame in frames))
            assert [frame for _, frame in pair.heard] == frames

    @asynchronous
    async def test_own_frames_are_handled_too(self, link: LinkMaker) -> None:
        async with Pair(link) as pair:
            assert list(await pair.bert.own(b"mine")) == [b"mine", b"m", b""]
            assert pair.heard == [(BERT.id, b"mine")]

    @asynchronous
    async def test_only_admitted_nodes_and_no_longer_once_revoked(self, link: LinkMaker) -> None:
        admitted = {ANNA.public_key}
        async with Pair(link, admit=lambda key: key in admitted) as pair:
            anna, eve = pair.caller(), pair.caller(EVE)
            with pytest.raises(UnreachableError, match="revoked or not on its list"):
                await eve.request(BERT.id, b"hello")
            assert await anna.request(BERT.id, b"hello")
            admitted.clear()
            with pytest.raises(UnreachableError):  # in the middle of an open channel
                await anna.request(BERT.id, b"again")
            assert [frame for _, frame in pair.heard] == [b"hello"]
            assert pair.bert.refused == {ChannelReason.NOT_ADMITTED: 1}

    @asynchronous
    async def test_a_caller_admits_too(self, link: LinkMaker) -> None:
        async with Pair(link) as pair:
            with pytest.raises(UnreachableError, match="not on its list"):
                await pair.caller(admit=lambda key: key != BERT.public_key).request(BERT.id, b"hello")
            assert not pair.heard

    @asynchronous
    async def test_another_node_at_the_same_place_is_found_out(self, link: LinkMaker) -> None:
        async with Pair(link) as pair:
            with pytest.raises(UnreachableError, match="another node"):
                await pair.caller().request(EVE.id, b"for Eve")
            assert not pair.heard

    @pytest.mark.parametrize(
        ("caller", "called"), [((), (NEW,)), ((NEW,), ()), ((WRONG,), (NEW, OLD)), ((NEW,), (OLD,)), ((OLD,), (NEW,))]
    )
    @asynchronous
    async def test_who_does_not_know_the_secret_is_refused(
        self, link: LinkMaker, caller: tuple[bytes, ...], called: tuple[bytes, ...]
    ) -> None:
        async with Pair(link, secrets=Secrets(called)) as pair:
            with pytest.raises(UnreachableError, match="secret") as said:
                await pair.caller(secrets=Secrets(caller)).request(BERT.id, b"hello")
            assert NEW.hex() not in str(said.value)
            assert not pair.heard

    @asynchronous
    async def test_the_secret_may_rotate(self, link: LinkMaker) -> None:
        async with Pair(link, secrets=Secrets((OLD,))) as pair:
            assert await pair.caller(secrets=Secrets((OLD,))).request(BERT.id, b"one")
            pair.bert.secrets = Secrets((NEW, OLD))
            # A link whose library trusts the same callers for its whole life is away while it begins anew.
            eve, fourth = (
                pair.caller(EVE, secrets=Secrets((OLD,))),
                pair.caller(identity(4), secrets=Secrets((NEW, OLD))),
            )
            assert await until(lambda: eve.request(BERT.id, b"two"))
            assert await until(lambda: fourth.request(BERT.id, b"three"))
            pair.bert.secrets = Secrets((NEW,))
            sixth = pair.caller(identity(6), secrets=Secrets((NEW,)))
            assert await until(lambda: sixth.request(BERT.id, b"back"))
            with pytest.raises(UnreachableError):
                await pair.caller(identity(5), secrets=Secrets((OLD,))).request(BERT.id, b"four")

    @asynchronous
    async def test_a_frame_over_the_limit_is_refused_and_a_flood_ends_the_channel(self, link: LinkMaker) -> None:
        async with Pair(link) as pair:
            anna = pair.caller()
            (reply,) = await anna.request(BERT.id, bytes(FRAME_BYTES + 1))
            frame = decode(reply)
            assert isinstance(frame, Frame)
            assert (frame.kind, frame.detail) == (Kind.REFUSED, FrameReason.LENGTH)
            assert pair.bert.dropped["oversized"] == 1
            with pytest.raises(UnreachableError):
                await anna.request(BERT.id, bytes(3 * FRAME_BYTES))
            assert not pair.heard
            assert (await pair.caller(EVE).request(BERT.id, b"still there"))[0] == b"still there"
            assert (await until(lambda: anna.request(BERT.id, b"again")))[0] == b"again"

    @asynchronous
    async def test_more_than_the_credit_is_told_to_wait(self, link: LinkMaker) -> None:
        async with Pair(link) as pair:
            anna = pair.caller(credit=3)
            done = await asyncio.gather(*(anna.request(BERT.id, bytes([i])) for i in range(10)))
            kinds = [decode(replies[0]) for replies in done]
            busy = [one for one in kinds if isinstance(one, Frame) and one.kind is Kind.BUSY]
            assert (len(busy), len(pair.heard)) == (7, 3)
            assert (await anna.request(BERT.id, b"later"))[0] == b"later"

    @asynchronous
    async def test_who_sends_what_is_refused_has_to_wait(self, link: LinkMaker) -> None:
        rubbish = encode(Frame(kind=Kind.REFUSED))  # comes back as the reply, which is what is looked at
        async with Pair(link) as pair:
            anna = pair.caller()
            for _ in range(REFUSALS_FREE):
                await anna.request(BERT.id, rubbish)
            assert pair.bert.dropped["held up"] == 0
            for _ in range(2):
                await anna.request(BERT.id, rubbish)
            assert pair.bert.dropped["held up"] > 0
            assert (await anna.request(BERT.id, b"good"))[0] == b"good"

    @asynchronous
    async def test_a_node_that_comes_back_at_its_place_is_reached_again(self, link: LinkMaker) -> None:
        async with Pair(link) as pair:
            anna = pair.caller()
            assert await anna.request(BERT.id, b"one")
            await pair.bert.close()
            for frame in (b"two", b"three"):
                with pytest.raises(UnreachableError):
                    await anna.request(BERT.id, frame)
            again = pair.listener()
            assert pair.where is not None
            place = await again.listen(port=_port(pair.where))
            assert place == pair.where
            assert (await until(lambda: anna.request(BERT.id, b"four")))[0] == b"four"
            assert [frame for _, frame in pair.heard] == [b"one", b"four"]

    @asynchronous
    async def test_a_place_can_be_called_without_knowing_who_is_there(self, link: LinkMaker) -> None:
        async with Pair(link, secrets=Secrets((NEW,))) as pair:
            anna = pair.caller(secrets=Secrets((NEW, OLD)))
            assert pair.where is not None
            assert anna.is_place(pair.where)
            found, replies = await anna.request_at(pair.where, b"who is there")
            assert (found, list(replies)) == (BERT.id, [b"who is there", b"w", b""])
            with pytest.raises(UnreachableError, match="secret"):
                await pair.caller().request_at(pair.where, b"who is there")
            for text in ("", "no where", "a\nb", "x" * 300):
                assert not anna.is_place(text)
                with pytest.raises(TransportError, match="no place"):
                    await anna.request_at(text, b"x")
        stranger = pair.listener(EVE)
        with pytest.raises(UnreachableError, match="nobody answers"):
            await stranger.request_at(pair.where, b"x")
        await stranger.close()

    @asynchronous
    async def test_a_node_that_nobody_knows(self, link: LinkMaker) -> None:
        async with Pair(link) as pair:
            pair.where = None
            with pytest.raises(TransportError, match="announce itself"):
                await pair.caller().request(node_id(bytes(32)), b"x")

    @asynchronous
    async def test_closing_twice_does_no_harm_and_a_closed_link_says_so(self, link: LinkMaker) -> None:
        async with Pair(link) as pair:
            anna = pair.caller()
            assert await anna.request(BERT.id, b"one")
            await anna.close()
            await anna.close()
            with pytest.raises(TransportError, match="closed"):
                await anna.request(BERT.id, b"two")

    def test_a_killed_process_fails_what_waits_and_is_reached_again(self, link: LinkMaker, written: str) -> None:
        other = Stranger(written, secret=NEW)
        place = other.place
        second: list[Stranger] = []

        async def go() -> None:
            anna = link(ANNA, handle=lambda *_: [], endpoint_of=lambda _: place, secrets=Secrets((NEW,)))
            try:
                assert list(await until(lambda: anna.request(BERT.id, b"one"))) == [b"one", b"o"]
                waiting = [asyncio.ensure_future(anna.request(BERT.id, b"hang")) for _ in range(5)]
                assert await asyncio.get_running_loop().run_in_executor(None, other.line) == "hang"
                other.kill()
                done = await asyncio.gather(*waiting, return_exceptions=True)
                assert all(isinstance(one, UnreachableError) for one in done)
                second.append(Stranger(written, port=_port(place), secret=NEW))
                assert second[0].place == place
                assert (await until(lambda: anna.request(BERT.id, b"two")))[0] == b"two"
            finally:
                await anna.close()

        try:
            asyncio.run(go())
        finally:
            for one in (other, *second):
                one.kill()


def _port(place: str) -> int:
    """The port in a place; 0 where places have none."""
    port = place.partition("/")[0].rpartition(":")[2]
    return int(port) if port.isdecimal() else 0
