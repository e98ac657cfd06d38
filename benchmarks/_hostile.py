"""Peers that flood, stall and send rubbish; see ``benchmarks.network``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._member import BATCH, CELLS, SECRET, addresses, make, places, schema
from benchmarks._swarm import Process, Swarm, load
from benchmarks.common import key, median
from outroute.packet import sign, withdraw
from outroute.transports import FRAME_BYTES, Frame, Kind, Rejected, UnreachableError, decode, encode
from outroute.transports.records import Line, pack_record
from outroute.transports.tls import TlsLink

HOSTILE_KEYS = 30_000
FLOODERS = 4
FLOOD_SECONDS = 6.0


def fuzz(count: int, seed: int = 5) -> dict[str, Any]:
    """Random bytes and damaged frames through the parser: how many, how many were frames all the same."""
    rng = np.random.default_rng(seed)
    packets = make(4, 0, 3, int(time.time()))
    whole = [
        encode(Frame(kind=Kind.DEPOSIT, addresses=(bytes(32),), counts=(3,), packets=packets)),
        encode(Frame(kind=Kind.ASK, addresses=tuple(addresses()[:5]), cap=16)),
        encode(Frame(kind=Kind.COMPARE, addresses=tuple(addresses()[:5]), cap=16)),
        encode(Frame(kind=Kind.ANNOUNCE, announcements=(bytes(200), bytes(300)))),
        encode(Frame(kind=Kind.STATEMENTS, statements=(bytes(100),))),
        encode(Frame(kind=Kind.LISTING, addresses=(bytes(32),), listed=((0, bytes(32)),) * 5)),
        encode(Frame(kind=Kind.RECEIPTS, receipts=np.zeros((7, 2), dtype=np.uint8))),
    ]
    taken = 0
    for number in range(count):
        data = bytearray(whole[number % len(whole)])
        if number % 4 == 0:
            data = bytearray(rng.bytes(int(rng.integers(0, 400))))
            if number % 8 == 0:
                data[:4] = b"ORF\x01"
        else:
            for _ in range(1 + number % 3):
                data[int(rng.integers(4, min(len(data), 110)))] = int(rng.integers(256))
            if number % 5 == 0:
                del data[int(rng.integers(len(data))) :]
        taken += not isinstance(decode(bytes(data)), Rejected)
    return {"inputs": count, "frames": taken}


def rubbish(at: int) -> dict[str, bytes]:
    """Frames that no honest member sends, by what is wrong with them."""
    good = make(5, 0, BATCH, at)
    forged = good.copy()
    forged["signature"][:, 0] ^= 1
    first = make(6, 0, 1, at)
    other = first.copy()
    other["commitment"][:, 0] ^= 1
    sign(other, key(6))
    old = make(7, 0, 4, at)
    old["lifetime"] = 1
    taken_back = withdraw(good[:4], key(5))
    taken_back["author"] = np.frombuffer(key(9).public_key, dtype=np.uint8)
    names = places(good)

    def deposit(packets: Any, schema_id: bytes = schema().id) -> bytes:
        runs = dict.fromkeys(names[: len(packets)], 1)
        return encode(
            Frame(
                kind=Kind.DEPOSIT,
                schema=schema_id,
                addresses=tuple(runs),
                counts=tuple(runs.values()),
                packets=packets,
            )
        )

    whole = deposit(good)
    return {
        "noise": np.random.default_rng(1).bytes(1000),
        "malformed": whole[:80] + bytes([255]) * 40 + whole[120:],
        "cut off": whole[:-7],
        "oversized": bytes(FRAME_BYTES + 1),
        "a reply without a question": encode(Frame(kind=Kind.RECEIPTS, receipts=np.zeros((3, 2), dtype=np.uint8))),
        "forged": deposit(forged),
        "wrong schema": deposit(good, bytes(32)),
        "expired": deposit(old),
        "good": deposit(first),
        "replayed": deposit(first),
        "equivocating": deposit(other),
        "withdrawals of others": deposit(taken_back),
    }


def stranger(number: int, place: str) -> TlsLink:
    """A member of the network that keeps to no rule."""
    return TlsLink(key(HOSTILE_KEYS + number), handle=lambda *_: [], endpoint_of=lambda _: place, secrets=SECRET)


async def flood(victim: Process, number: int, at: int, until: Callable[[], bool]) -> int:
    """Send rubbish as fast as it is taken; how many frames."""
    link = stranger(number, victim.endpoint)
    frames = list(rubbish(at).values())
    sent = 0

    async def one(first: int) -> None:
        nonlocal sent
        turn = first
        while not until():
            turn += 1
            try:
                async with asyncio.timeout(5.0):
                    await link.request(victim.identity.id, frames[turn % len(frames)])
                sent += 1
            except (UnreachableError, TimeoutError):
                await asyncio.sleep(0.05)

    await asyncio.gather(*(one(first) for first in range(8)))
    await link.close()
    return sent


async def stall(victim: Process, number: int, until: Callable[[], bool]) -> None:
    """Ask for much and read nothing of it."""
    link = stranger(number, victim.endpoint)
    frame = encode(Frame(kind=Kind.ASK, schema=schema().id, addresses=tuple(addresses()[:128]), cap=256))
    try:
        connection = await link._channel(victim.identity.id)
        line: Line = connection.line  # type: ignore[attr-defined]
        assert line.transport is not None
        line.transport.pause_reading()
        for count in range(50):
            line.transport.write(pack_record(count, frame))
        while not until():
            await asyncio.sleep(0.1)
    except (OSError, UnreachableError):
        return
    finally:
        await link.close()


async def harass(swarm: Swarm, questions: int, seconds: float = FLOOD_SECONDS) -> dict[str, Any]:
    """Honest questions to one member, alone and while others do their worst to it."""
    victim, asker = swarm.members[0], swarm.members[-1]
    owners = swarm.owners()
    cells = [cell for cell in range(CELLS) if owners[cell][0] == victim.identity.id][:16] or [0]

    async def rate(until: float) -> tuple[float, list[float], int]:
        began, taken, complete = time.monotonic(), [], 0
        while time.monotonic() < until or len(taken) < 5:
            found = await asker.tell("ask", cells=cells, cap=16)
            taken.append(found["ms"])
            complete += found["complete"] == len(cells)
        return len(taken) / (time.monotonic() - began), taken, complete

    alone, before_ms, _ = await rate(time.monotonic() + seconds / 2)
    before = await victim.tell("stats")
    over = False
    jobs = [asyncio.create_task(flood(victim, n, swarm.at, lambda: over)) for n in range(FLOODERS)]
    jobs += [asyncio.create_task(stall(victim, 100 + n, lambda: over)) for n in range(FLOODERS)]  # type: ignore[list-item]
    await asyncio.sleep(1.0)
    during, ms, complete = await rate(time.monotonic() + seconds)
    over = True
    sent = [one for one in await asyncio.gather(*jobs) if one]
    after = await victim.tell("stats")
    return {
        "flooders": FLOODERS,
        "stalling": FLOODERS,
        "frames_taken": sum(sent),
        "questions": len(ms),
        "answered": complete,
        "per_second_alone": alone,
        "per_second": during,
        "ratio": during / alone,
        "ask_ms_p50_alone": median(before_ms),
        "ask_ms_p50": median(ms),
        "memory_mb_before": before["memory_mb"],
        "memory_mb": after["memory_mb"],
        "refused": after["refused"],
        "refused_frames": after["refused_frames"],
        "dropped": after["dropped"],
        "load": load(),
    }
