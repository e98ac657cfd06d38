"""Gossip learning: federated averaging without any server, between real processes over TCP.

Each peer trains on its own records; every ``CYCLE_SECONDS`` it sends its weights and their age to a peer drawn at
random, and whoever receives weights takes the mean of both by age, then trains again. A peer that does not confirm in
time is left out for a while and another is drawn, so that a dead one costs nothing and one that hangs little.

Source: Ormandi, Hegedus and Jelasity (2013), Gossip learning with linear models on fully distributed data, algorithms
1 and 2; the mean by age is that of Hegedus, Danner and Jelasity (2021), Decentralized learning works, section 3.
Written here because fluke's gossip runs all clients in one process, in which nothing can be killed.
Departure: who is there is told once at the start; finding peers is not what is measured.

As a program, ``python -m outroute.walls.coordinator_gossip FILE CLASSES SEED`` is one peer: it says its port, reads
the ports of all on one line, and then writes a line ``[seconds since 1970, merged so far]`` per merge; it ends with
its input.
"""

from __future__ import annotations

import json
import os
import queue
import random
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outroute.walls.coordinator_model import Records, load, steps
from outroute.walls.coordinator_processes import Late, Running, Workplace, until

__all__ = ["Gossip", "Peer", "main"]

CYCLE_SECONDS = 0.1
"""Between two models that a peer sends."""
ANSWER_SECONDS = 1.0
"""Within which a peer must confirm."""
LEFT_OUT_SECONDS = 10.0
"""For which a peer that did not is not drawn."""
MESSAGE_BYTES = 1 << 24
"""Longest message that a peer reads."""
WAITING = 64
"""Models that wait to be merged; further ones are refused, as from a peer that is too fast."""
START_SECONDS = 60.0
_HEAD = struct.Struct("<IQHI")
"""Bytes of the weights, their age, outputs, features."""


class Peer:
    """One peer.

    Args:
        records: its own.
        classes: 0 for numbers.
        seed: of the draws.
    """

    def __init__(self, records: Records, classes: int, seed: int) -> None:
        self._records, self._classes, self._random = records, classes, random.Random(seed)
        self.weights: NDArray[np.float32] = np.zeros((records[0].shape[1], records[1].shape[1]), dtype=np.float32)
        self.age = 0
        self._arrived: queue.Queue[tuple[NDArray[np.float32], int]] = queue.Queue(WAITING)
        self._left_out: dict[int, float] = {}
        peer = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = ANSWER_SECONDS

            def handle(self) -> None:
                if peer.take(self.rfile.read):
                    self.wfile.write(b"k")

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def take(self, read: object) -> bool:
        """Read one message; False if it is no model of this shape, or too many wait."""
        assert callable(read)
        try:
            size, age, outputs, features = _HEAD.unpack(read(_HEAD.size))
            if size > MESSAGE_BYTES or (features, outputs) != self.weights.shape or size != 4 * features * outputs:
                return False
            data = np.frombuffer(read(size), dtype=np.float32).reshape(self.weights.shape)
            self._arrived.put_nowait((data, age))
        except (OSError, ValueError, struct.error, queue.Full):
            return False
        return True

    def merge(self, other: NDArray[np.float32], age: int) -> None:
        """The mean of both by age, then a few steps on own records."""
        part = np.float32(age / max(age + self.age, 1))
        self.weights = (1 - part) * self.weights + part * other
        self.age = max(self.age, age) + len(self._records[0])
        self.weights = steps(self._records, self.weights, self._classes)

    def send(self, ports: list[int]) -> bool:
        """Send the weights to one that confirms; False if nobody does."""
        now = time.monotonic()
        order = [port for port in ports if port != self.port and self._left_out.get(port, 0.0) <= now]
        self._random.shuffle(order)
        head = _HEAD.pack(4 * self.weights.size, self.age, self.weights.shape[1], self.weights.shape[0])
        for port in order:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as one:
                    one.sendall(head + self.weights.tobytes())
                    if one.recv(1) == b"k":
                        return True
            except OSError:
                pass
            self._left_out[port] = time.monotonic() + LEFT_OUT_SECONDS
        return False

    def live(self, ports: list[int], stop: threading.Event) -> None:
        """Until it is told to stop."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        threading.Thread(target=self._sending, args=(ports, stop), daemon=True).start()
        self.weights, merged = steps(self._records, self.weights, self._classes), 0
        self.age = len(self._records[0])
        while not stop.is_set():
            try:
                other, age = self._arrived.get(timeout=CYCLE_SECONDS)
            except queue.Empty:
                continue
            self.merge(other, age)
            merged += 1
            print(json.dumps([time.time(), merged]), flush=True)  # noqa: T201
        self._server.shutdown()

    def _sending(self, ports: list[int], stop: threading.Event) -> None:
        due = time.monotonic()
        while not stop.is_set():
            self.send(ports)
            due = max(due + CYCLE_SECONDS, time.monotonic())
            stop.wait(max(0.0, due - time.monotonic()))


def main() -> None:
    """One peer, as a process."""
    path, classes, seed, saved = sys.argv[1:]
    peer = Peer(load(path), int(classes), int(seed))
    print(json.dumps({"port": peer.port}), flush=True)  # noqa: T201
    ports = json.loads(sys.stdin.readline())
    stop = threading.Event()

    def wait() -> None:
        while os.read(0, 4096):
            pass
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    peer.live(ports, stop)
    np.save(saved, peer.weights)


class Gossip:
    """A federation of peers, one for each file of records."""

    def __init__(self, place: Workplace, sites: Mapping[str, Path], classes: int, seed: int) -> None:
        self._place, self._sites, self._classes, self._seed = place, dict(sites), classes, seed
        self.peers: dict[str, Running] = {}
        self._merged: dict[str, list[float]] = {}

    def start(self) -> None:
        """Start all, and tell each of the others."""
        for number, (site, path) in enumerate(self._sites.items()):
            command = [sys.executable, "-m", "outroute.walls.coordinator_gossip", str(path), str(self._classes)]
            command += [str(self._seed + number), str(self.saved(site))]
            self.peers[site] = self._place.start(f"peer-{number}", command, talks=True)
        ports = []
        for one in self.peers.values():
            assert one.process.stdout is not None
            line = one.process.stdout.readline()
            if not line:
                raise Late(f"a peer did not start: {one.said()}")
            ports.append(json.loads(line)["port"])
        for site, one in self.peers.items():
            assert one.process.stdin is not None
            one.process.stdin.write(json.dumps(ports) + "\n")
            one.process.stdin.flush()
            self._merged[site] = []
            threading.Thread(target=self._read, args=(site, one), daemon=True).start()
        until(lambda: all(self._merged.values()), START_SECONDS, "every peer has merged a model")

    def saved(self, site: str) -> Path:
        """Where a peer leaves its weights when it ends."""
        return self._place.folder / f"peer-{list(self._sites).index(site)}.npy"

    def _read(self, site: str, one: Running) -> None:
        assert one.process.stdout is not None
        for line in one.process.stdout:
            if line.endswith("\n"):
                self._merged[site].append(float(json.loads(line)[0]))

    def merged(self, site: str) -> list[float]:
        """Seconds since 1970 of all merges of a peer."""
        return list(self._merged[site])

    def end(self, site: str) -> NDArray[np.float32] | None:
        """End a peer properly; its weights."""
        one = self.peers[site]
        assert one.process.stdin is not None
        one.process.stdin.close()
        one.process.wait(START_SECONDS)
        return np.load(self.saved(site)) if self.saved(site).exists() else None


if __name__ == "__main__":
    main()
