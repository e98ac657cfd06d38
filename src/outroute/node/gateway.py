"""A gateway: observations of thousands of devices come in from a NATS subject, packets of one node go out.

The gateway is the node, a device is a subject. Devices have no keys: whoever holds the gateway would hold them all, so
they would prove nothing, and elections count organisations anyway. What the schema asks of a packet (k subjects) is
asked of devices. A device that signs for itself is a node of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from outroute.errors import OutrouteError, StoreError
from outroute.node.intake import LINE_BYTES, LINES_MOST, Intake, Line, RefusedLine
from outroute.node.living import LivingNode
from outroute.node.portal import run
from outroute.store import Noted
from outroute.transports.nats_source import Message, NatsSource
from outroute.transports.serving import Counted

__all__ = ["REFUSED_FILE", "Gateway", "GatewayCounts"]

BATCH_MESSAGES = 256
"""Messages that are kept in one commit."""
OUTBOX_MOST = 65_536
"""Packets waiting to leave above which nothing more is taken in: 32 MB. The network is slower than the devices then."""
WAIT_SECONDS = (0.2, 10.0)
"""Seconds before trouble is tried again: the first, and the most it grows to."""
LOOK_SECONDS = 1.0
"""Seconds between looks at whether to stop while nothing comes."""
REFUSED_FILE = "refused.ndjson"
"""Observations that could not be used, in the gateway's directory."""
REFUSED_BYTES = 64 << 20
"""Bytes of that file; then it becomes ``refused.ndjson.1``, in place of the one before."""
_NEW = (Noted.ADDED, Noted.CONFIRMED, Noted.UPDATED)
REASONS_MOST = 64
"""Reasons that are counted apart; what devices write does not make more."""


@dataclass(slots=True, kw_only=True)
class GatewayCounts:
    """What came in so far.

    Attributes:
        messages, bytes: of the devices, repetitions among them.
        observations: by what they were to the node.
        refused: observations by why.
        distilled: packets made.
    """

    messages: int = 0
    bytes: int = 0
    observations: Counter[Noted] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    distilled: int = 0

    def counted(self) -> Iterable[Counted]:
        """For Prometheus."""
        came = {"messages": self.messages, "bytes": self.bytes}
        yield Counted(name="gateway_total", text="What devices sent", label="what", values=came)
        noted = {one.name.lower(): number for one, number in dict(self.observations).items()}
        yield Counted(name="gateway_observations_total", text="Observations", label="result", values=noted)
        reasons = dict(self.refused)
        yield Counted(name="gateway_refused_total", text="Observations refused", label="reason", values=reasons)


class Gateway:
    """Takes in from a source and distils, until it is closed; the node is the caller's.

    Args:
        living: the node.
        source: where observations come from; not started.
        intake: reads them.
        every: seconds between distillations.
        streaming: leave observations waiting until a tight cohort has come together.
        dead_letters: subject for what is refused; None for a file in the node's directory.
    """

    def __init__(
        self,
        living: LivingNode,
        source: NatsSource,
        intake: Intake,
        *,
        every: float,
        streaming: bool,
        dead_letters: str | None = None,
    ) -> None:
        self._living, self._source, self._intake = living, source, intake
        self._every, self._streaming, self._dead_letters = every, streaming, dead_letters
        self._file = living.directory / REFUSED_FILE
        self.counts = GatewayCounts()
        self._pulling: asyncio.Future[list[Message]] | None = None
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._take_in, name="outroute-gateway", daemon=True),
            threading.Thread(target=self._distil, name="outroute-distil", daemon=True),
        ]

    def start(self) -> None:
        """Connect, and begin.

        Raises:
            TransportError: see ``NatsSource.start``.
        """
        run(self._source.start())
        self._living.counting.append(self.counts.counted)
        for thread in self._threads:
            thread.start()

    def _take_in(self) -> None:
        """In a thread: one batch after the other; what goes wrong is kept as a problem and tried again."""
        first, most = WAIT_SECONDS
        wait = first
        while not self._stop.is_set():
            try:
                if self._full():
                    self._stop.wait(first)
                    continue
                messages = run(self._pull())
                if messages:
                    self._take(messages)
                self._living.problems.pop("gateway", None)
                wait = first
            except (OutrouteError, OSError) as error:
                self._living.problems["gateway"] = str(error)
                self._stop.wait(wait)
                wait = min(2 * wait, most)

    async def _pull(self) -> list[Message]:
        """The next messages; none for now, so that it is seen when to stop."""
        if self._pulling is None:
            self._pulling = asyncio.ensure_future(self._source.pull(BATCH_MESSAGES))
        done, _ = await asyncio.wait([self._pulling], timeout=LOOK_SECONDS)
        if not done:
            return []
        pulling, self._pulling = self._pulling, None
        return pulling.result()

    def _full(self) -> bool:
        counts = self._living.node.counts()
        return counts["packets_queued"] + counts["packets_sent"] > OUTBOX_MOST

    def _take(self, messages: Sequence[Message]) -> None:
        """Keep a batch, then confirm it: not before the journal's commit, nor before what is refused is put away.

        Raises:
            StoreError: a disk does not take it; the batch is taken again, and counts once.
            TransportError: the dead letters do not arrive.
        """
        lines: list[Line] = []
        refused: list[RefusedLine] = []
        for message in messages:
            self.counts.messages += 1
            self.counts.bytes += len(message.data)
            pieces = [piece for piece in message.data.split(b"\n", LINES_MOST) if piece.strip()]
            device = message.subject.rpartition(".")[2]
            for at, piece in enumerate(pieces):
                line = Line(data=piece, device=device, message=f"{self._source.created}/{message.number}/{at}")
                if at < LINES_MOST:
                    lines.append(line)
                else:
                    refused.append(RefusedLine(line=line, reason="more than 1,000 lines in a message"))
        while True:
            try:
                with self._living.using() as node:
                    taken = self._intake.take(lines, node.observe_encoded)
                    self._living.observed(sum(taken.noted[one] for one in _NEW), secrets.token_bytes(16))
                self._put_away([*refused, *taken.refused])
                break
            except OutrouteError as error:
                self._living.problems["gateway"] = str(error)
                if self._stop.wait(WAIT_SECONDS[0]):
                    raise
        self.counts.observations.update(taken.noted)
        for one in (*refused, *taken.refused):
            known = one.reason in self.counts.refused or len(self.counts.refused) < REASONS_MOST
            self.counts.refused[one.reason if known else "other"] += 1
        run(self._source.confirm())

    def _put_away(self, refused: Sequence[RefusedLine]) -> None:
        if not refused:
            return
        if self._dead_letters is not None:
            letters = [
                (
                    one.line.data[:LINE_BYTES],
                    {
                        "Outroute-Reason": one.reason,
                        "Outroute-Device": one.line.device,
                        "Nats-Msg-Id": one.line.message,
                    },
                )
                for one in refused
            ]
            run(self._source.publish(self._dead_letters, letters))
            return
        lines = "".join(
            json.dumps(
                {
                    "device": one.line.device,
                    "message": one.line.message,
                    "reason": one.reason,
                    "line": one.line.data[:LINE_BYTES].decode("utf-8", errors="replace"),
                }
            )
            + "\n"
            for one in refused
        )
        _append(self._file, lines.encode())

    def _distil(self) -> None:
        """In a thread: now and then, make packets of what is there."""
        while not self._stop.wait(self._every):
            self.distil()

    def distil(self) -> int:
        """Make packets of what is there now; how many."""
        if not self._living.node.counts()["ready"]:
            return 0
        try:
            with self._living.using():
                made = self._living.distil(streaming=self._streaming).packets
            self._living.problems.pop("distil", None)
        except OutrouteError as error:
            self._living.problems["distil"] = str(error)
            return 0
        self.counts.distilled += made
        return made

    def close(self) -> None:
        """Take no more in; what is kept is distilled, and the node hands it over when it is closed."""
        if self._stop.is_set():
            return
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        run(self._end())
        self.distil()

    async def _end(self) -> None:
        if self._pulling is not None:
            self._pulling.cancel()
        await self._source.close()


def _append(path: Path, data: bytes) -> None:
    """Append, synced to disk on return; a file that is large enough makes room for a new one.

    Raises:
        StoreError: it could not be written.
    """
    try:
        if path.exists() and path.stat().st_size > REFUSED_BYTES:
            os.replace(path, path.with_name(f"{path.name}.1"))
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"cannot write '{path}': {error.strerror}", code="gateway.refused") from None
