"""A gateway with thousands of devices: bytes, processor time and memory for each, and how full its frames are.

    python -m benchmarks.gateway --devices 2000 --json

A real NATS server (synced before it acknowledges) and a real gateway process. Every device publishes its observations
as one line of JSON each, in turn with all others; the schema's distiller is ``single`` (one packet an observation) or,
with ``--cohort``, at least five devices a packet, which wait for approval. The clock runs from the first observation
until the last packet is acknowledged by the stream. Memory is the gateway's own, after one observation of one device
has gone all the way, and after the last; processor time is that of the whole process in between.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import nats

from benchmarks.common import options, show
from outroute.schema import Distiller, Privacy, dumps
from outroute.testing.making import make_schema
from outroute.testing.nats_server import running

OBSERVATIONS = 10
"""Of each device."""
SECONDS = 900.0
"""At most, until all is acknowledged."""
PUBLISHED_AT_ONCE = 64
"""Observations on their way to the server."""


def _resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _spent(pid: int) -> float:
    """Seconds of processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _observation(device: int, number: int) -> bytes:
    age = (device * 7 + number * 13) % 100
    late = "yes" if (device + number) % 3 == 0 else "no"
    return json.dumps(
        {"id": f"{device}-{number}", "age": age, "dose": (device + number) % 10 / 10, "late": late}
    ).encode()


async def _publish(url: str, devices: range, observations: int) -> int:
    """Observations of some devices; bytes of them."""
    client = await nats.connect(url)
    stream, room, sent = client.jetstream(), asyncio.Semaphore(PUBLISHED_AT_ONCE), 0

    async def one(device: int, number: int) -> int:
        async with room:
            data = _observation(device, number)
            await stream.publish(f"telemetry.{device}", data)
            return len(data)

    for number in range(observations):
        sent += sum(await asyncio.gather(*(one(device, number) for device in devices)))
    await client.close()
    return sent


def _until(what: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not what():
        if time.monotonic() > end:
            raise RuntimeError("the gateway does not come to an end")
        time.sleep(0.2)


def measure(devices: int, *, cohort: bool) -> dict[str, Any]:
    privacy = Privacy(distiller=Distiller.COHORT, k=5) if cohort else Privacy(distiller=Distiller.SINGLE, k=1)
    schema = replace(make_schema("pump"), privacy=privacy)
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "server") as server:
        folder = Path(name)
        (folder / "pump.toml").write_text(dumps(schema))
        program = [sys.executable, "-c", "from outroute.cli import main; main()"]
        command = [*program, "gateway", "--schema", "pump.toml", "--data-dir", "plant", "--make-stream", "--json"]
        command += ["--from", f"{server.url}?monitor={server.monitor}", "--topic", "telemetry.*", "--case", "id"]
        command += ["--every", "5", "--log-level", "warning"]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            assert process.stdout is not None
            text = ""
            while not text.rstrip().endswith("}"):
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError((folder / "log").read_text())
                text += line.decode()
            client = httpx.Client(base_url=json.loads(text)["http"], trust_env=False, timeout=60.0)
            total = devices * OBSERVATIONS

            def status() -> dict[str, Any]:
                found: dict[str, Any] = client.get("/status").json()
                return found

            asyncio.run(_publish(server.url, range(devices, devices + 1), 1))
            _until(lambda: status()["known"] == 1 and (cohort or status()["packets_acknowledged"] == 1))
            memory, spent, began = _resident(process.pid), _spent(process.pid), time.monotonic()
            observed = asyncio.run(_publish(server.url, range(devices), OBSERVATIONS))
            published = time.monotonic() - began
            _until(lambda: status()["known"] == total + 1)
            taken_in = time.monotonic() - began

            def handed_over() -> bool:
                now = status()
                if now["packets_refused"]:
                    raise RuntimeError("the store kept a sample only, as its cells are full: fewer devices")
                waiting = now["packets_queued"] + now["packets_sent"]
                return not waiting and (cohort or now["packets_acknowledged"] == total + 1)

            _until(handed_over)
            took = time.monotonic() - began
            used, grown, after = _spent(process.pid) - spent, _resident(process.pid), status()
            numbers = _numbers(client.get("/metrics").text)
            client.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    left = numbers.get('outroute_bytes_sent_total{topic="deposit"}', 0.0)
    packets = after["packets_acknowledged"]
    return {
        "devices": devices,
        "observations": total,
        "distiller": "cohort" if cohort else "single",
        "packets": packets + after["packets_pending"],
        "acknowledged": packets,
        "seconds": {"published": published, "taken_in": taken_in, "acknowledged": took},
        "observations_per_second": total / taken_in,
        "bytes_per_device": {"in": observed / devices, "out": left / devices},
        "bytes_out_per_packet": left / packets if packets else None,
        "cpu_ms_per_device": 1e3 * used / devices,
        "cpu_us_per_observation": 1e6 * used / total,
        "memory": {"before": memory, "after": grown, "per_device": (grown - memory) / devices},
    }


def _numbers(text: str) -> dict[str, float]:
    rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--cohort", action="store_true", help="at least five devices a packet; they wait for approval")
    args = parser.parse_args()
    show(measure(50 if args.quick else args.devices, cohort=args.cohort), args.json)


if __name__ == "__main__":
    main()
