"""One member of a network of which some lie, in a process of its own; see ``benchmarks.liars``.

    python -m benchmarks._liar --directory DIR --key 7 [--join HOST:PORT ...] [--organisation 3 --named 3 --named 4]
        [--lies --friend 8 --friend 9] [--dht --table HOST:PORT]

It obeys the same lines as ``benchmarks._member``. One that lies acknowledges every deposit and keeps packets of
liars only, so that it answers and compares with these alone; it tells others of liars alone, and repairs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from benchmarks._member import MEMBER_KEYS, Commands, _say, _serve, schema
from benchmarks.common import key
from outroute.identity import Certificate, Identity
from outroute.placement import DEFAULT_REPLICAS
from outroute.store import PacketStore
from outroute.transports import Announcement, Frame, Guard, Kind, Receipt, decode, encode
from outroute.transports.dht import DhtFinder
from outroute.transports.frames import FRAME_PACKETS
from outroute.transports.mesh import MeshTransport, Pace
from outroute.transports.standing import Standing

__all__ = ["HONEST_AUTHOR", "LYING_AUTHOR", "ORGANISATION_KEYS", "certificate", "organisation"]

HONEST_AUTHOR, LYING_AUTHOR = 1, 2
ORGANISATION_KEYS = 20_000
"""Number of the first organisation's key."""
CERTIFIED_SECONDS = 86_400


def organisation(number: int) -> Identity:
    return key(ORGANISATION_KEYS + number)


def certificate(member: Identity, number: int, now: int) -> Certificate:
    """An organisation's word for a member."""
    return organisation(number).certify(
        member.public_key, not_before=now - CERTIFIED_SECONDS, not_after=now + CERTIFIED_SECONDS
    )


class Liar(MeshTransport):
    """A member that knows its friends, and nobody else as far as others can see."""

    friends: frozenset[bytes] = frozenset()

    def _news(self, member: bytes) -> list[Announcement]:
        with self._lock:
            known = self._roster.live(self._now())
        return [one for one in known if one.member.id in self.friends][:FRAME_PACKETS]

    def _receive(self, sender: bytes, frame: bytes) -> list[bytes]:
        read = decode(frame)
        if not isinstance(read, Frame) or read.kind is not Kind.DEPOSIT:
            return super()._receive(sender, frame)
        own = np.frombuffer(key(LYING_AUTHOR).public_key, dtype=np.uint8)
        keep = (read.packets["author"] == own).all(axis=1)
        names = [name for name, count in zip(read.addresses, read.counts, strict=True) for _ in range(count)]
        if keep.any():
            seconds = schema().time.bucket_seconds
            mine = [name for name, good in zip(names, keep.tolist(), strict=True) if good]
            self.shelf.put(mine, read.packets[keep], bucket_seconds=seconds, now=self._now())
        receipts = np.full((len(names), 2), (Receipt.DURABLE, 0), dtype=np.uint8)
        return [encode(Frame(kind=Kind.RECEIPTS, sequence=read.sequence, cause=read.cause, receipts=receipts))]

    def _receive_all(self, jobs: Sequence[tuple[bytes, bytes]]) -> list[list[bytes]]:
        return [self._receive(sender, frame) for sender, frame in jobs]

    async def _repair_if_changed(self) -> None:
        """Hand nothing over."""


class More(Commands):
    """What a member is asked besides."""

    async def whom(self) -> AsyncIterator[dict[str, Any]]:
        """Ids of the members that it believes to keep packets, and of all it has heard of."""
        yield {
            "members": [one.id.hex() for one in self.member.members().members],
            "peers": [one.member.id.hex() for one in self.member.peers()],
        }


def _now() -> int:
    return int(time.time())


async def _live(args: argparse.Namespace) -> None:
    identity = key(MEMBER_KEYS + args.key)
    store = PacketStore(args.directory)
    finder, port = None, 0
    members: list[MeshTransport] = []
    if args.dht:
        finder = DhtFinder(clock=_now, size=lambda: members[0].network_size() if members else 1)
        near = [(host, int(number)) for host, _, number in (place.rpartition(":") for place in args.table)]
        port = finder.start(host=args.host, bootstrap=near)
    made = Liar if args.lies else MeshTransport
    member = made(
        identity,
        store,
        Guard([schema()]),
        clock=_now,
        rng=np.random.default_rng(),
        certificate=None if args.organisation is None else certificate(identity, args.organisation, _now()),
        standing=Standing(now=_now(), organisations=[organisation(number).public_key for number in args.named]),
        finder=finder,
        pace=Pace(find=args.find),
        replicas=DEFAULT_REPLICAS,
    )
    if isinstance(member, Liar):
        member.friends = frozenset(key(MEMBER_KEYS + number).id for number in [args.key, *args.friend])
    members.append(member)
    endpoint = await member.start(args.host, join=args.join)
    _say({"ready": endpoint, "dht": port, "stored": store.count()})
    await _serve(More(member))
    await member.stop()
    if finder is not None:
        await finder.close()
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--key", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--join", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--dht", action="store_true")
    parser.add_argument("--find", type=float, default=60.0)
    parser.add_argument("--table", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--organisation", type=int, help="number of the organisation that certifies it")
    parser.add_argument("--named", type=int, action="append", default=[], help="organisations that the network names")
    parser.add_argument("--lies", action="store_true")
    parser.add_argument("--friend", type=int, action="append", default=[], help="key numbers of the other liars")
    asyncio.run(_live(parser.parse_args()))


if __name__ == "__main__":
    main()
