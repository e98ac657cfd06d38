"""The durable store, the journal, and packets from deposit to answer over the local transport.

    python -m benchmarks.store --json [--directory DIR]

Inserts are in wall time (a commit waits for the disk), in turns with signatures that the raw library verifies, in wall
time too: a store that is faster than that never holds a node up. Uses a temporary directory: give --directory to
measure a certain disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.codec import raw_verify
from benchmarks.common import NOW, key, options, show, some_packets, wide
from outroute.fingerprint import address
from outroute.packet import PACKET_BYTES, PacketArray, verify_signatures
from outroute.placement import Kept, Member
from outroute.schema import Schema
from outroute.store import Journal, PacketStore
from outroute.transports import Guard, LocalNetwork

COMMITS = (128, 256)
TURN = 8
"""Commits between two looks at the raw library."""
NODES = 16
AT_ONCE = 4096
"""Packets handed to the transport at a time, as a node does."""


class Clock:
    """Wall and CPU seconds of what runs inside it."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.things = 0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._began[0]
        self.cpu += time.thread_time() - self._began[1]


def addresses_of(schema: Schema, packets: PacketArray) -> list[bytes]:
    known = {cell: address(schema, 0, cell) for cell in np.unique(packets["cell"]).tolist()}
    return [known[cell] for cell in packets["cell"].tolist()]


def sizes(path: Path) -> dict[str, float]:
    """Bytes of pages by table and index."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            return dict(connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name").fetchall())
        except sqlite3.OperationalError:  # an engine built without dbstat
            return {}


def inserts(schema: Schema, directory: Path, count: int) -> dict[str, Any]:
    """Durable inserts, and in turns with them a tenth as many signatures verified by the raw library."""
    packets = some_packets(schema, count, signed=False)
    names = addresses_of(schema, packets)
    seconds = schema.time.bucket_seconds
    out: dict[str, Any] = {}
    for commit in COMMITS:
        with PacketStore(directory / f"commits of {commit}") as store:
            own, raw = Clock(), Clock()
            for at in range(0, count, commit):
                part = slice(at, at + commit)
                with own:
                    kept = store.put(names[part], packets[part], bucket_seconds=seconds, now=NOW)
                assert (kept == Kept.STORED).all()
                if at // commit % TURN == 0:
                    number, work = raw_verify(some_packets(schema, TURN * commit // 10))
                    with raw:
                        work()
                    raw.things += number
            started = time.perf_counter()
            got = sum(len(one.packets) for one in store.fetch(sorted(set(names)), now=NOW, cap=10**9))
            fetched = time.perf_counter() - started
            assert got == count
        found = sizes(directory / f"commits of {commit}" / "packets.db")
        table = found.get("packets", float("nan"))
        out[str(commit)] = {
            "per_second": count / own.wall,
            "per_cpu_second": count / own.cpu,
            "verify_per_second": raw.things / raw.wall,
            "verify_per_cpu_second": raw.things / raw.cpu,
            "to_verify": count / own.wall / (raw.things / raw.wall),
            "cpu_to_verify": count / own.cpu / (raw.things / raw.cpu),
            "fetched_per_second": got / fetched,
            "bytes_per_packet": table / count,
            "bytes_per_packet_to_512": table / count / PACKET_BYTES,
            "index_bytes_per_packet": sum(v for n, v in found.items() if n != "packets") / count,
        }
    return out


def journal(schema: Schema, directory: Path, count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 65_535, (count, schema.width)).astype(np.uint16)
    outcome = rng.integers(0, 2, count).astype(np.float64)
    cases = np.arange(count)
    out = {}
    with Journal(directory / "journal", schema_id=schema.id, width=schema.width, now=NOW) as own:
        for name in ("new", "again"):
            started = time.perf_counter()
            own.observe(cases, codes, outcome, bucket=np.zeros(count, dtype=np.int64))
            out[f"{name}_per_second"] = count / (time.perf_counter() - started)
        assert own.counts()["known"] == count or sum(own.counts().values()) >= count
    return out


class Timed:
    """A function that remembers how long it ran."""

    def __init__(self, work: Callable[[PacketArray], NDArray[np.bool_]]) -> None:
        self.work, self.seconds = work, 0.0

    def __call__(self, packets: PacketArray) -> NDArray[np.bool_]:
        started = time.thread_time()
        found = self.work(packets)
        self.seconds += time.thread_time() - started
        return found


def end_to_end(schema: Schema, directory: Path, each: int, replicas: int) -> dict[str, Any]:
    """Sixteen members with stores on disk: each deposits its packets, then one asks for all."""
    verify = Timed(verify_signatures)
    batches = [some_packets(schema, each, author=number) for number in range(NODES)]
    stores = [PacketStore(directory / f"member {number}") for number in range(NODES)]
    network = LocalNetwork(clock=lambda: NOW)
    members = []
    for number, store in enumerate(stores):
        who = key(number)
        guard = Guard((schema,), verify=verify)
        member = Member(id=who.id, organisation=who.public_key)
        members.append(network.join(member, store, guard, replicas=replicas))

    async def deposit() -> int:
        kept = 0
        for member, packets in zip(members, batches, strict=True):
            names = addresses_of(schema, packets)
            for at in range(0, each, AT_ONCE):
                part = slice(at, at + AT_ONCE)
                done = await member.deposit(schema.id, names[part], packets[part])
                kept += int(done.acknowledged.sum())
        return kept

    async def fetch() -> int:
        wanted = sorted({name for packets in batches for name in addresses_of(schema, packets)})
        answers = await members[0].fetch(schema.id, wanted, cap=256)
        return sum(len(one.packets) for one in answers)

    out: dict[str, Any] = {"nodes": NODES, "packets": NODES * each, "replicas": replicas}
    for name, work in (("deposit", deposit), ("fetch", fetch)):
        verify.seconds = 0.0
        wall, cpu = time.perf_counter(), time.thread_time()
        number = asyncio.run(work())
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        out[name] = {
            "packets": number,
            "seconds": wall,
            "cpu_seconds": cpu,
            "verification_cpu_seconds": verify.seconds,
            "rest_cpu_seconds": cpu - verify.seconds,
            "rest_cpu_microseconds_per_copy": 1e6 * (cpu - verify.seconds) / max(number, 1) / replicas,
            "packets_per_second": number / wall,
        }
    out["signatures_checked"] = sum(member.guard.verified for member in members)
    for store in stores:
        store.close()
    return out


@contextlib.contextmanager
def workplace(given: Path | None) -> Iterator[Path]:
    """A directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=given) as name:
        yield Path(name)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__)
    parser.add_argument("--directory", type=Path)
    args = parser.parse_args(arguments)
    schema = wide()
    count, each = (1_024, 32) if args.quick else (65_536, 1_000)
    found: dict[str, Any] = {}
    with workplace(args.directory) as place:
        found["inserts"] = inserts(schema, place, count)
        found["journal"] = journal(schema, place, count)
        found["local"] = end_to_end(schema, place, each, 3)
    found["targets"] = {
        "inserts_above_verification": all(one["to_verify"] >= 1 for one in found["inserts"].values()),
        "at_most_1.2_times_512_bytes": all(one["bytes_per_packet_to_512"] <= 1.2 for one in found["inserts"].values()),
    }
    show(found, args.json)
    return found


if __name__ == "__main__":
    main()
