"""A running node's numbers, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outroute.node.living import LivingNode
from outroute.packet import Rejection
from outroute.transports import ADDRESS_REFUSED, AUTHOR_COMPROMISED, AUTHOR_REVOKED, SCHEMA_REFUSED

__all__ = ["Numbers"]

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Bounds of the histogram of request times."""

_REASONS = {
    ADDRESS_REFUSED: "address",
    SCHEMA_REFUSED: "schema_not_served",
    AUTHOR_REVOKED: "author_revoked",
    AUTHOR_COMPROMISED: "author_compromised",
}


class _OfNode(Collector):
    """What is read from the node at each look."""

    def __init__(self, living: LivingNode) -> None:
        self._living = living

    def describe(self) -> Iterable[Metric]:
        """Nothing is registered by name: there is one of these."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Numbers as they are now."""
        living, mesh = self._living, self._living.mesh
        counts = living.node.counts()
        yield _family("observations", "Observations of this node, by what is known", "state", _of(counts, _OBSERVED))
        packets = {name.removeprefix("packets_"): n for name, n in counts.items() if name.startswith("packets_")}
        yield _family("outbox_packets", "Own packets, by how far they have come", "state", packets)
        yield GaugeMetricFamily("outroute_peers", "Live members known, this one among them", len(mesh.peers()))
        yield GaugeMetricFamily("outroute_network_size", "Members of the network, about", mesh.network_size())
        yield GaugeMetricFamily("outroute_start_seconds", "When this process started", living.started_at)
        yield GaugeMetricFamily("outroute_problems", "Things that go wrong at the moment", len(living.all_problems()))
        yield _family("handed_over_total", "Packets handed over since the start", "result", living.published)
        keeper = mesh.keeper
        yield _family("receipts_total", "Packets of deposits taken or not", "receipt", _named(keeper.receipts))
        yield _family("refused_frames_total", "Frames refused", "reason", _named(keeper.refused_frames))
        yield _family(
            "refused_packets_total",
            "Packets of deposits refused",
            "reason",
            {_REASONS.get(code) or Rejection(code).name.lower(): n for code, n in dict(mesh.refused).items()},
        )
        yield _family("refused_handshakes_total", "Callers refused", "reason", _named(mesh.link.refused))
        yield _family("dropped_connections_total", "Connections cut off", "reason", dict(mesh.link.dropped))
        yield _family("announcements_total", "Announcements heard", "result", dict(mesh.announcements))
        for name, traffic in (("sent", mesh.traffic.sent), ("received", mesh.traffic.received)):
            by_topic = {topic.value: n for topic, n in dict(traffic).items()}
            yield _family(f"bytes_{name}_total", f"Bytes of frames {name}", "topic", by_topic)


_OBSERVED = ("known", "ready", "waiting", "conflicts", "questions")


def _of(counts: dict[str, int], names: Iterable[str]) -> dict[str, int]:
    return {name: counts[name] for name in names if name in counts}


def _named(counter: Mapping[Any, int]) -> dict[str, int]:
    """Counts of an enumeration by the names of its members; a copy, because other threads go on counting."""
    return {key.name.lower(): number for key, number in dict(counter).items()}


def _family(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(f"outroute_{name.removesuffix('_total')}", text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


class Numbers:
    """The numbers of one node and of its interface.

    Args:
        living: the node.
    """

    def __init__(self, living: LivingNode) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(_OfNode(living))
        self._requests = Counter(
            "outroute_http_requests", "Requests answered", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "outroute_http_seconds", "Time to answer", ["route"], buckets=SECONDS, registry=self._registry
        )

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one request; ``route`` is the pattern, never the address asked for."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
