"""The section of docs/results.md about transports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "experiments" / "results"
STAGES = ("link", "checked", "memory", "durable", "verified", "all")
SIDES = ("load_before", "load_after", "credit", "cores")


def rate(value: float | None) -> str:
    """Thousands a second."""
    return "" if value is None else f"{value / 1000:,.1f} k"


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def section() -> list[str]:
    """Empty while nothing was measured."""
    path = RESULTS / "transports.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    ways: dict[str, Any] = {name: one for name, one in found.items() if name not in SIDES}
    stages = [stage for stage in STAGES if any(stage in one for one in ways.values())]
    out = [
        "## Transports",
        "",
        f"`python -m benchmarks.transports --json --stages {' '.join(stages)}`, one transport after the other (`--only`).",
        "",
        f"Two processes on {found['cores']} cores, 128 packets of 512 bytes in a frame, {found['credit']} frames on their way, "
        f"each acknowledged. *Raw* is the bare library moving 64 KiB messages in the same pattern, with the same "
        "security (`benchmarks/_raw.py` says how). *Link* takes frames apart and gives a receipt for every packet, with "
        "verification off; *checked* adds every rule but the signature; *memory* and *durable* keep the packets too; "
        "*verified* is checked with signatures; *all* is what a node does: checked, verified, on disk. Packets per second:",
        "",
        "| transport | raw | " + " | ".join(stages) + " |",
        "|---|---|" + "---|" * len(stages),
    ]
    for name, one in ways.items():
        rates = [rate(one.get(stage, {}).get("per_second")) for stage in ("raw", *stages)]
        out.append(f"| {name} | " + " | ".join(rates) + " |")
    out += [
        "",
        "Targets: the link at least half of raw; verified within a tenth of Ed25519 on the same machine. Ratios are "
        "medians over rounds in which raw and ours take turns; by processor time both processes count together.",
        "",
        "| transport | link / raw | by processor time | verified / Ed25519 of one thread | of all cores | by processor time "
        "| question p50 / p99, ms | smallest exchange p50, ms | raw p50, ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in ways.items():
        link, verified, asked = one.get("link", {}), one.get("verified", {}), one.get("question", {})
        cells = [
            name,
            share(link.get("ratio_to_raw")),
            share(link.get("ratio_to_raw_cpu")),
            share(verified.get("ratio_to_one_thread")),
            share(verified.get("ratio_to_all_cores")),
            share(verified.get("ratio_to_ed25519_cpu")),
            f"{share(asked.get('ms_p50'))} / {share(asked.get('ms_p99'))}",
            share(one.get("trip", {}).get("ms_p50")),
            share(one.get("raw", {}).get("ms_p50")),
        ]
        out.append("| " + " | ".join(cells) + " |")
    home = ways.get("nats", {}).get("question_at_home")
    if home:
        out += [
            "",
            "NATS is a store between the two: a frame counts when the node that keeps it has taken it from the stream, and "
            "the server, which syncs before it acknowledges, works on the same cores; its processor time counts on neither "
            f"side. Its question goes to another node; one that is answered at home takes {share(home['ms_p50'])} / "
            f"{share(home['ms_p99'])} ms, a round trip to the server among it.",
        ]
    return [*out, ""]
