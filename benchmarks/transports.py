"""How fast each transport takes packets in and answers, beside the bare library under it in the same run.

    python -m benchmarks.transports --json [--only grpc flight ...]

Two processes; 128 packets in a frame (64 KiB and 4 KiB of addresses); as many frames on their way as a member has
credit. ``raw`` is the library alone: see ``benchmarks._raw``. What is ours goes in stages, each with what the one
before had:

* ``link``: frames arrive, are taken apart, every packet gets its receipt; nothing is checked or kept. This is the
  figure *with verification off*.
* ``checked``: every rule of the specification but the signature.
* ``memory``: kept in memory. ``durable``: kept on disk, frames that wait together in one durable commit.
* ``verified``: checked with signatures, not kept. This is the figure *with verification on*.
* ``all``: checked with signatures and kept on disk: what a node does.

Raw and every stage take turns in each round; a ratio is the median over rounds of the ratio in one. ``..._cpu`` is
per second of processor time of both processes together: on a busy machine that is what can be compared. The Ed25519
ceiling (PyNaCl, in the receiving process, right before and after) is that of one thread and of all cores; a node checks
the packets of a frame on all cores. ``question``
is milliseconds of asking one holder about one cell of 16 packets; ``trip`` of the smallest exchange; raw of one 4-byte
message and its acknowledgement.

NATS, which is a store that others run, is measured in the same stages by ``benchmarks._nats``.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks import _nats
from benchmarks._member import CELLS, make, places, schema
from benchmarks._raw import SECRETS, Raw, RawFlight, RawGrpc, RawTls, RawZeroMq, trips
from benchmarks._swarm import load
from benchmarks.common import key, median, options, ratio, show
from outroute.node.evidence import verify_in_threads
from outroute.packet import PACKET_BYTES, PacketArray, verify_signatures
from outroute.placement import Kept, Member
from outroute.store import PacketStore
from outroute.transports import FRAME_PACKETS, Frame, Guard, Kind, LocalNetwork, Receipt, decode, encode
from outroute.transports.contract import CREDIT_FRAMES
from outroute.transports.keeper import Keeper
from outroute.transports.linking import LinkBase
from outroute.transports.registry import link_of

STAGES = ("link", "checked", "memory", "durable", "verified", "all")
RECEIVER, SENDER = key(30_000), key(30_001)
QUESTION_PACKETS = 16
DRAWN = 256
"""Authors' sequence numbers between rounds: every packet is new to the receiver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured: frames in each stage, rounds, questions."""

    moved: int
    checked: int
    verified: int
    rounds: int
    questions: int
    stages: tuple[str, ...] = STAGES


FULL = Size(moved=400, checked=160, verified=80, rounds=7, questions=200)
QUICK = Size(moved=32, checked=2, verified=2, rounds=1, questions=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A transport under measurement.

    Attributes:
        url: its URL; for links.
        raw: the bare library, or None where there is nothing to compare with.
        secure: whether its security is on.
    """

    url: str
    raw: Callable[[], Raw] | None
    secure: bool


WAYS: dict[str, Way] = {
    "direct": Way(url="direct://", raw=RawTls, secure=True),
    "zeromq": Way(url="zeromq://", raw=RawZeroMq, secure=True),
    "zeromq, security off": Way(url="zeromq://?security=off", raw=RawZeroMq, secure=False),
    "grpc": Way(url="grpc://", raw=RawGrpc, secure=True),
    "grpc, security off": Way(url="grpc://?security=off", raw=RawGrpc, secure=False),
    "flight": Way(url="flight://", raw=RawFlight, secure=True),
    "flight, security off": Way(url="flight://?security=off", raw=RawFlight, secure=False),
}


class _Nothing:
    """In place of a guard: nothing is checked."""

    def __init__(self) -> None:
        self.schemas = {schema().id: schema()}

    def under(self, _: object) -> _Nothing:
        return self

    def check(self, _: bytes, __: Sequence[bytes], packets: PacketArray, **___: object) -> np.ndarray:
        return np.zeros(len(packets), dtype=np.uint8)


class _Nowhere:
    """In place of a store: nothing is kept."""

    durable = False

    def put(self, _: Sequence[bytes], packets: PacketArray, **__: object) -> np.ndarray:
        return np.full(len(packets), Kept.STORED, dtype=np.uint8)


def _trusting(packets: PacketArray) -> np.ndarray:
    return np.ones(len(packets), dtype=np.bool_)


class Receiver:
    """Answers frames as a member does that owns everything, up to a stage."""

    def __init__(self, directory: str) -> None:
        self._directory, self._numbers = directory, itertools.count()
        self._stores: list[PacketStore] = []
        self.keeper: Any = None
        self.turn("link")

    def turn(self, stage: str) -> None:
        """Go on at another stage, with an empty store and nothing checked before."""
        for store in self._stores:
            store.close()
        self._stores = []
        verify = verify_in_threads if stage in ("verified", "all") else _trusting
        guard: Any = _Nothing() if stage == "link" else Guard([schema()], verify=verify)
        shelf: Any = _Nowhere()
        if stage in ("memory", "durable", "all", "question"):
            where = None if stage in ("memory", "question") else f"{self._directory}/{next(self._numbers)}"
            shelf = PacketStore(where)
            self._stores.append(shelf)
        self.keeper = Keeper(shelf, guard, owns=lambda names: [True] * len(names), clock=lambda: int(time.time()))

    def handle(self, sender: bytes, frame: bytes) -> list[bytes]:
        return self.keeper.handle(frame, sender)  # type: ignore[no-any-return]

    def handle_all(self, jobs: Sequence[tuple[bytes, bytes]]) -> list[list[bytes]]:
        return self.keeper.handle_all(jobs)  # type: ignore[no-any-return]


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _ceiling(packets: PacketArray) -> tuple[float, float, float]:
    """Signatures checked per second: of wall time in one thread and on all cores, of processor time in one thread."""
    found = []
    busy = time.thread_time()
    for check in (verify_signatures, verify_in_threads):
        began = time.perf_counter()
        check(packets)
        found.append(len(packets) / (time.perf_counter() - began))
        if check is verify_signatures:
            busy = time.thread_time() - busy
    return found[0], found[1], len(packets) / busy


def _receive(way: Way, directory: str, said: Any, signatures: int) -> None:
    """The receiving process; it obeys what comes through the pipe."""

    async def live() -> None:
        loop = asyncio.get_running_loop()
        receiver = Receiver(directory)
        link = link_of(way.url)(RECEIVER, handle=receiver.handle, endpoint_of=lambda _: None, secrets=SECRETS)
        if isinstance(link, LinkBase):
            link.worker.handle_all = receiver.handle_all  # as a member does
        raw = None if way.raw is None else way.raw()
        said.send((await link.listen(), None if raw is None else await raw.serve(way.secure)))
        packets = make(3, 0, signatures, int(time.time()))
        own = ThreadPoolExecutor(1)
        while (told := await loop.run_in_executor(own, said.recv)) is not None:
            if told == "ceiling":
                said.send(await loop.run_in_executor(own, _ceiling, packets))
            elif told == "spent":
                said.send(_spent())
            else:
                receiver.turn(told)
                said.send(None)
        await link.close()
        receiver.turn("link")
        said.send(None)
        os._exit(0)  # threads of the bare libraries wait for ever

    asyncio.run(live())


def frames_of(first: int, count: int) -> list[bytes]:
    """Deposits of packets that were never seen before, as ``Replicas`` makes them."""
    packets = make(2, first, count * FRAME_PACKETS, int(time.time()))
    found = []
    for at in range(0, len(packets), FRAME_PACKETS):
        part = packets[at : at + FRAME_PACKETS]
        found.append(
            encode(
                Frame(
                    kind=Kind.DEPOSIT,
                    sequence=at + 1,
                    schema=schema().id,
                    addresses=tuple(places(part)),
                    counts=(1,) * len(part),
                    packets=part,
                )
            )
        )
    return found


async def _push(request: Callable[[bytes], Any], frames: list[bytes]) -> float:
    """Packets taken in per second, with the credit's worth of frames on their way.

    Raises:
        RuntimeError: some were not taken.
    """
    waiting = iter(frames)
    kept = 0
    good = np.isin(np.arange(256), (Receipt.DURABLE, Receipt.HELD))

    async def send() -> None:
        nonlocal kept
        for frame in waiting:
            reply = decode((await request(frame))[0])
            if isinstance(reply, Frame):
                kept += int(np.count_nonzero(good[reply.receipts[:, 0]]))

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(CREDIT_FRAMES)))
    took = time.perf_counter() - began
    if kept != len(frames) * FRAME_PACKETS:
        raise RuntimeError(f"{len(frames) * FRAME_PACKETS - kept} packets were not taken")
    return kept / took


async def _questions(request: Callable[[bytes], Any], count: int) -> list[float]:
    """Milliseconds of questions about one cell of 16 packets each."""
    asked = itertools.count()
    names = places(make(2, 0, CELLS, int(time.time())))

    async def ask() -> None:
        name = names[next(asked) % CELLS]
        frame = Frame(kind=Kind.ASK, sequence=1, schema=schema().id, addresses=(name,), cap=256)
        reply = decode((await request(encode(frame)))[0])
        assert isinstance(reply, Frame)
        assert len(reply.packets) == QUESTION_PACKETS

    return await trips(ask, count)


def _spread(taken: list[float]) -> dict[str, float]:
    return {"ms_p50": median(taken), "ms_p99": float(np.quantile(taken, 0.99))}


async def _rounds(request: Callable[[bytes], Any], tell: Callable[[str], Any], raw: Raw | None, size: Size) -> dict:
    rates: dict[str, list[float]] = {stage: [] for stage in ("raw", *size.stages)}
    busy: dict[str, list[float]] = {stage: [] for stage in ("raw", *size.stages)}
    ceilings: list[tuple[float, ...]] = []
    size_of = FRAME_PACKETS * PACKET_BYTES
    messages = [
        bytes([number]) * size_of for number in range(min(size.moved, 64))
    ]  # as ours: not one that stays cached
    counts = dict.fromkeys(STAGES, size.checked) | {
        "link": size.moved,
        "verified": size.verified,
        "all": size.verified,
    }
    first, again = 0, frames_of(0, min(size.moved, 64))

    async def timed(name: str, packets: int, work: Callable[[], Any]) -> None:
        """Packets per second of wall time, and of processor time of both processes together."""
        spent, began = await tell("spent") + _spent(), time.perf_counter()
        await work()
        took, spent = time.perf_counter() - began, await tell("spent") + _spent() - spent
        rates[name].append(packets / took)
        busy[name].append(packets / spent)

    for _ in range(size.rounds + 1):
        for stage in size.stages:
            frames = list(itertools.islice(itertools.cycle(again), counts[stage]))
            if stage != "link":
                frames = frames_of(first, counts[stage])
                first += counts[stage] * FRAME_PACKETS
            elif raw is not None:
                await timed("raw", size.moved * FRAME_PACKETS, partial(raw.send, messages, size.moved))
            await tell(stage)
            before = await tell("ceiling") if stage == "verified" else ()
            await timed(stage, len(frames) * FRAME_PACKETS, partial(_push, request, frames))
            if stage == "verified":
                after = await tell("ceiling")
                ceilings.append(tuple((one + other) / 2 for one, other in zip(before, after, strict=True)))
    for values in (*rates.values(), *busy.values(), ceilings):
        del values[:1]  # the first round warms up
    found: dict[str, Any] = {
        name: {"per_second": median(rates[name]), "per_cpu_second": median(busy[name])} for name in rates if rates[name]
    }
    if ceilings:
        one, all_cores, of_cpu = ([side[at] for side in ceilings] for at in (0, 1, 2))
        found["ed25519"] = {
            "one_thread_per_second": median(one),
            "all_cores_per_second": median(all_cores),
            "per_cpu_second": median(of_cpu),
        }
        for stage in {"verified", "all"} & set(size.stages):
            found[stage] |= {
                "ratio_to_one_thread": ratio(rates[stage], one),
                "ratio_to_all_cores": ratio(rates[stage], all_cores),
                "ratio_to_ed25519_cpu": ratio(busy[stage], of_cpu),
            }
    for stage in size.stages if rates["raw"] else ():
        found[stage]["ratio_to_raw"] = ratio(rates[stage], rates["raw"])
        found[stage]["ratio_to_raw_cpu"] = ratio(busy[stage], busy["raw"])
    return found


async def one(way: Way, size: Size) -> dict[str, Any]:
    """One transport, raw and ours, in two processes."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    os.environ["OMP_NUM_THREADS"] = "1"
    loop = asyncio.get_running_loop()
    piping = ThreadPoolExecutor(1)

    def say(word: str | None) -> Any:
        here.send(word)
        return here.recv()

    tell = partial(loop.run_in_executor, piping, say)
    with tempfile.TemporaryDirectory() as directory:
        process = context.Process(target=_receive, args=(way, directory, there, size.verified * FRAME_PACKETS))
        process.start()
        place, raw_place = await loop.run_in_executor(piping, here.recv)
        raw = None if way.raw is None else way.raw()
        if raw is not None:
            await raw.connect(raw_place, way.secure)
        link = link_of(way.url)(
            SENDER, handle=lambda _, __: [], endpoint_of=lambda _: place, secrets=SECRETS, credit=CREDIT_FRAMES
        )
        request = partial(link.request, RECEIVER.id)
        try:
            found = await _rounds(request, tell, raw, size)
            await tell("question")
            await _push(request, frames_of(0, QUESTION_PACKETS * CELLS // FRAME_PACKETS))
            found["question"] = _spread(await _questions(request, size.questions))
            smallest = encode(Frame(kind=Kind.COMPARE, schema=schema().id))
            found["trip"] = _spread(await trips(lambda: request(smallest), size.questions))
            if raw is not None:
                smallest_raw = await trips(lambda: raw.send([bytes(PACKET_BYTES)], 1), size.questions)
                found["raw"] = found.get("raw", {}) | _spread(smallest_raw)
        finally:
            await link.close()
            if raw is not None:
                await raw.close()
            await tell(None)
            process.join()
    return found | {"load": load()}


async def local(size: Size) -> dict[str, Any]:
    """The transport inside one process: nothing lies under it, so the stages stand alone."""
    with tempfile.TemporaryDirectory() as directory:
        receiver = Receiver(directory)
        network = LocalNetwork(clock=lambda: int(time.time()))
        member = network.join(
            Member(id=RECEIVER.id, organisation=RECEIVER.public_key), PacketStore(), Guard([schema()])
        )
        signatures = make(3, 0, size.verified * FRAME_PACKETS, int(time.time()))

        async def tell(word: str) -> Any:
            if word == "ceiling":
                return _ceiling(signatures)
            if word == "spent":
                return 0.0  # the same process
            receiver.turn(word)
            member.keeper = receiver.keeper
            return None

        request = partial(network.carry, RECEIVER.id)
        found = await _rounds(request, tell, None, size)
        await tell("question")
        await _push(request, frames_of(0, QUESTION_PACKETS * CELLS // FRAME_PACKETS))
        found["question"] = _spread(await _questions(request, size.questions))
        smallest = encode(Frame(kind=Kind.COMPARE, schema=schema().id))
        found["trip"] = _spread(await trips(lambda: request(smallest), size.questions))
        receiver.turn("link")
    return found


OTHERS: dict[str, Callable[[Size], Any]] = {"local": local}
"""Transports that are no links between two processes: each measures itself, with the same stages."""


async def measure(size: Size, only: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"load_before": load(), "credit": CREDIT_FRAMES, "cores": os.cpu_count()}
    for name, measured in OTHERS.items():
        if not only or name in only:
            found[name] = await measured(size)
    for name, way in WAYS.items():
        if not only or name in only or name.partition(",")[0] in only:
            found[name] = await one(way, size)
    if not only or "nats" in only:
        found["nats"] = await _nats.measure(size) | {"load": load()}
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help=f"of {'; '.join((*OTHERS, *WAYS, 'nats'))}"
    )
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES, help="only these; raw goes with link")
    args = parser.parse_args()
    size = replace(QUICK if args.quick else FULL, stages=tuple(args.stages))
    show(asyncio.run(measure(size, args.only)), args.json)


if __name__ == "__main__":
    main()
