"""The benchmarks with NATS run, small."""

from __future__ import annotations

from benchmarks.gateway import measure


def test_the_gateway_benchmark_counts_what_it_says() -> None:
    found = measure(10, cohort=False)
    assert found["observations"] == 100
    assert found["acknowledged"] == found["packets"] == 101  # and the one that warmed it up
    assert found["bytes_per_device"]["in"] > 10 * 40
    assert found["bytes_out_per_packet"] > 512
