"""The sections of docs/results.md about a NATS cluster and the gateway."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "experiments" / "results"
MB = 1e6


def cluster() -> list[str]:
    """Leaders that are killed while packets flow; empty while nothing was measured."""
    path = RESULTS / "nats-cluster.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    stalls = ", ".join(f"{one:.1f}" for one in found["stall_seconds"])
    return [
        "## A NATS cluster whose leaders are killed",
        "",
        f"`python -m benchmarks.nats_cluster --json`: {found['servers']} servers on one machine, a stream with "
        f"{found['copies']} copies, synced before it acknowledges; {found['packets_per_second']:.0f} packets a second "
        f"flow while the stream's leader is killed (SIGKILL) and started again, {found['kills']} times. In the end a "
        "node that comes late reads everything.",
        "",
        "| packets acknowledged | of these lost | kept twice | writes stood still for, seconds | median | longest |",
        "|---|---|---|---|---|---|",
        f"| {found['acknowledged']:,} | {found['lost']} | {found['twice']} | {stalls} | "
        f"{found['stall_seconds_median']:.1f} | {found['stall_seconds_longest']:.1f} |",
        "",
    ]


def gateway() -> list[str]:
    """What a device costs a gateway; empty while nothing was measured."""
    path = RESULTS / "gateway.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    devices, memory, seconds = found["devices"], found["memory"], found["seconds"]
    return [
        "## A gateway with thousands of devices",
        "",
        f"`python -m benchmarks.gateway --devices {devices} --json`: {devices:,} devices publish {found['observations']:,} "
        f"observations in turn, one line of JSON each, through a NATS server that syncs before it acknowledges; one packet "
        f"an observation (distiller `{found['distiller']}`). All {found['acknowledged']:,} packets (one went before, to "
        f"warm up) were acknowledged by the stream {seconds['acknowledged']:.1f} s after the first observation was sent; "
        f"the devices needed {seconds['published']:.1f} s of these to publish. The gateway alone, for each device:",
        "",
        "| observations | bytes in | bytes out | bytes out for each packet | processor time, ms | memory, kB |",
        "|---|---|---|---|---|---|",
        f"| {found['observations'] / devices:.0f} | {found['bytes_per_device']['in']:,.0f} | "
        f"{found['bytes_per_device']['out']:,.0f} | {found['bytes_out_per_packet']:.1f} | "
        f"{found['cpu_ms_per_device']:.2f} | {memory['per_device'] / 1000:.0f} |",
        "",
        f"The process holds {memory['before'] / MB:.0f} MB after its first observation and {memory['after'] / MB:.0f} MB at "
        "the end.",
        "",
    ]
