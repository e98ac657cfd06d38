"""A running node's numbers, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outroute.node.living import LivingNode

__all__ = ["Numbers"]

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Bounds of the histogram of request times."""


class _OfNode(Collector):
    """What is read from the node at each look."""

    def __init__(self, living: LivingNode) -> None:
        self._living = living

    def describe(self) -> Iterable[Metric]:
        """Nothing is registered by name: there is one of these."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Numbers as they are now."""
        living, transport = self._living, self._living.transport
        counts = living.node.counts()
        yield _family("observations", "Observations of this node, by what is known", "state", _of(counts, _OBSERVED))
        packets = {name.removeprefix("packets_"): n for name, n in counts.items() if name.startswith("packets_")}
        yield _family("outbox_packets", "Own packets, by how far they have come", "state", packets)
        yield GaugeMetricFamily("outroute_peers", "Live members known, this one among them", len(transport.peers()))
        yield GaugeMetricFamily("outroute_network_size", "Members of the network, about", transport.network_size())
        yield GaugeMetricFamily("outroute_start_seconds", "When this process started", living.started_at)
        yield GaugeMetricFamily("outroute_problems", "Things that go wrong at the moment", len(living.all_problems()))
        yield _family("handed_over_total", "Packets handed over since the start", "result", living.published)
        for source in (transport.counted, *living.counting):
            for one in source():
                yield _family(one.name, one.text, one.label, dict(one.values))
        yield _family("announcements_total", "Announcements heard", "result", dict(transport.announcements))
        for name, traffic in (("sent", transport.traffic.sent), ("received", transport.traffic.received)):
            by_topic = {topic.value: n for topic, n in dict(traffic).items()}
            yield _family(f"bytes_{name}_total", f"Bytes of frames {name}", "topic", by_topic)


_OBSERVED = ("known", "ready", "waiting", "conflicts", "questions")


def _of(counts: dict[str, int], names: Iterable[str]) -> dict[str, int]:
    return {name: counts[name] for name in names if name in counts}


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
