"""Real processes, really killed at random moments: what was acknowledged is there, and nothing is damaged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from outroute.packet import identities
from outroute.store import Journal, Kind, PacketStore, Queued, State, Which
from store.making import NOW, SCHEMA, make_packets, open_journal, place

TESTS = Path(__file__).parent.parent
KILLS = 10

#: Writes without end, and says after each commit what it was told is safe. Numbers go on from argument 2.
WRITER = """
import sys
import numpy as np
from outroute.store import Journal, PacketStore, Which
from store.making import BUCKET_SECONDS, NOW, SCHEMA, make_packets, place

store = PacketStore(sys.argv[1])
journal = Journal(sys.argv[1], schema_id=SCHEMA.id, width=SCHEMA.width, now=NOW)
number = int(sys.argv[2])
print("ready", flush=True)
while True:
    packets = make_packets(16, first=16 * number)
    store.put([place(i % 3) for i in range(16)], packets, bucket_seconds=BUCKET_SECONDS, now=NOW)
    print("packets", number, flush=True)
    cases = range(16 * number, 16 * number + 16)
    codes = np.full((16, SCHEMA.width), number % 60000, dtype=np.uint16)
    journal.observe(cases, codes, np.ones(16), bucket=np.zeros(16, dtype=np.int64))
    print("observed", number, flush=True)
    rows = journal.observations(Which.READY).rows
    first = journal.outbox.reserve(1)
    print("sequence", first, flush=True)
    journal.outbox.add(make_packets(1, author=1, first=first), [place(0)], [rows], now=NOW)
    print("queued", first, flush=True)
    number += 1
"""


#: Makes, approves, rejects, withdraws and erases without end, and says after each commit what was done.
DECIDER = """
import sys
import numpy as np
from outroute.packet import withdraw
from outroute.store import State
from store.making import NOW, filled, identity, open_journal

journal = open_journal(sys.argv[1])
number = int(sys.argv[2])
print("ready", flush=True)
while True:
    ids = filled(journal, 6, name=f"{number}/")
    print("pending", *ids, flush=True)
    digest = journal.outbox.review(ids[:4], now=NOW).digest.hex()
    journal.outbox.approve(digest, by="Erika", now=NOW)
    print("approved", *ids[:4], flush=True)
    journal.outbox.mark(ids[:2], State.ACKNOWLEDGED, now=NOW, recipients=[bytes(32)])
    print("acknowledged", *ids[:2], flush=True)
    journal.outbox.reject(journal.outbox.get(ids[4:5]).digests[0].hex(), by="Erika", now=NOW)
    print("rejected", ids[4], flush=True)
    packets = journal.outbox.get(ids[1:3]).packets
    journal.outbox.withdraw(ids[1:3], withdraw(packets, identity(0)), by="Erika", reason="wrong", now=NOW)
    print("withdrawn", *ids[1:3], flush=True)
    gone = journal.outbox.get(journal.subject_packets(f"subject {number}/3.1"))
    journal.erase(f"subject {number}/3.1", gone.ids, withdraw(gone.packets, identity(0)), by="Erika", now=NOW)
    print("erased", ids[3], flush=True)
    number += 1
"""


def run_and_kill(script: str, directory: Path, number: int, wait: float) -> Iterator[tuple[str, list[int]]]:
    """What a process said before it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(directory), str(number)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    for line in process.stdout.read().splitlines(keepends=True):
        if line.endswith("\n"):  # a line cut off by the kill was not said
            word, *values = line.split()
            yield word, [int(value) for value in values]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    moments = random.Random(20)
    said: dict[str, list[int]] = {"packets": [], "observed": [], "sequence": [], "queued": []}
    number = 0
    for _ in range(KILLS):
        for word, values in run_and_kill(WRITER, tmp_path, number, moments.uniform(0.0, 0.25)):
            said[word] += values
        number += 1000
    assert len(said["packets"]) > KILLS
    with PacketStore(tmp_path) as store:
        held = {i for f in store.fetch([place(i) for i in range(3)], now=NOW, cap=10**6) for i in identities(f.packets)}
    for written in said["packets"]:
        assert held >= set(identities(make_packets(16, first=16 * written)))
    with Journal(tmp_path, schema_id=SCHEMA.id, width=SCHEMA.width, now=NOW) as journal:
        found = journal.observations(Which.KNOWN)
        codes = set(found.codes[:, 0].tolist())
        assert codes >= {written % 60000 for written in said["observed"]}
        assert len(found.rows) % 16 == 0  # whole batches only
        assert len(set(said["sequence"])) == len(said["sequence"])
        queued = journal.outbox.page(State.PENDING, limit=10**6)
        assert set(queued.packets["sequence"].tolist()) >= set(said["queued"])
        assert journal.outbox.reserve(1) > max(said["sequence"])
        in_packets = np.bincount(found.packet[found.packet >= 0])
        assert in_packets.sum() >= 16 * len(said["queued"])


def check_books(journal: Journal, found: Queued) -> None:
    """Whatever the moment of the kill: every packet is in the state of which the log tells, or not yet."""
    assert journal.log.verify() == []
    told: defaultdict[str, set[str]] = defaultdict(set)
    for entry in journal.log.entries(limit=10**6):
        assert len(entry.fields.get("identities", [])) == entry.fields["packets"] or entry.kind in (
            "reviewed",
            "erased",
        )
        told[entry.kind].update(entry.fields.get("identities", []))
        told["queued withdrawals"].update(entry.fields.get("withdrawals", []))
    is_packet = found.kinds == Kind.PACKET

    def having(*states: State, packets: bool = True) -> set[str]:
        chosen = np.isin(found.states, states) & (is_packet == packets)
        return {found.identities[i].hex() for i in np.nonzero(chosen)[0]}

    assert told["distilled"] == having(*State)
    assert told["approved"] == having(State.QUEUED, State.ACKNOWLEDGED, State.WITHDRAWN)
    assert told["withdrawn"] == having(State.WITHDRAWN)
    assert told["rejected"] == having(State.REJECTED)
    assert told["acknowledged"] >= having(State.ACKNOWLEDGED)
    assert told["queued withdrawals"] == having(*State, packets=False)
    withdrawn = found.ids[is_packet & (found.states == State.WITHDRAWN)]
    assert sorted(found.withdraws[~is_packet].tolist()) == withdrawn.tolist()
    seen = journal.observations()
    of_packet = dict(zip(found.ids.tolist(), found.states.tolist(), strict=True))
    for packet, emitted in zip(seen.packet.tolist(), seen.emitted.tolist(), strict=True):
        if packet >= 0:
            assert of_packet[packet] in (State.PENDING, State.QUEUED, State.ACKNOWLEDGED)
            assert emitted == (of_packet[packet] != State.PENDING)
    sizes = np.bincount(seen.packet[seen.packet >= 0])
    assert set(sizes.tolist()) <= {0, 5}
    rejected = int((found.states == State.REJECTED).sum())
    erased = sum(entry.fields["observations"] for entry in journal.log.entries(limit=10**6) if entry.kind == "erased")
    assert len(journal.observations(Which.EXCLUDED).rows) == 5 * rejected
    assert int((seen.emitted & (seen.packet < 0)).sum()) == 5 * len(withdrawn) - erased


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_decisions_are_made_wholly_or_not_at_all(tmp_path: Path) -> None:
    moments = random.Random(21)
    wanted = {"approved": State.QUEUED, "acknowledged": State.ACKNOWLEDGED, "rejected": State.REJECTED}
    expected: dict[int, State] = {}
    words: dict[str, int] = {}
    for number in range(KILLS):
        for word, ids in run_and_kill(DECIDER, tmp_path, 1000 * number, moments.uniform(0.0, 0.2)):
            words[word] = words.get(word, 0) + 1
            for packet in ids:
                expected[packet] = wanted.get(
                    word, State.WITHDRAWN if word in ("withdrawn", "erased") else State.PENDING
                )
        with open_journal(tmp_path) as journal:
            found = journal.outbox.page(limit=10**6)
            states = dict(zip(found.ids.tolist(), map(State, found.states.tolist()), strict=True))
            later = {packet for packet, state in expected.items() if states[packet] != state}
            # Only the step under way at the kill may have been done without being said: of the last six packets.
            assert later <= set(sorted(expected)[-6:])
            check_books(journal, found)
            expected |= {packet: states[packet] for packet in later}
    assert words["erased"] >= 1
    assert words["approved"] > KILLS // 2
