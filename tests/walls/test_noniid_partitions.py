"""Divisions of records: each has the property that it is there for, and everything follows from the seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.datasets.declare import numeric_outcome
from outroute.errors import DataError
from outroute.walls.noniid_partitions import (
    LEAST_ROWS,
    Partition,
    by_classes,
    by_dirichlet,
    by_quantity,
    iid,
    labels_of,
    partitioned,
    synthetic,
)

from .making import table

LABELS = np.random.default_rng(0).choice(4, size=2000, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int64)


def away(place: np.ndarray, labels: np.ndarray, sites: int) -> float:
    """Mean distance (total variation) of a site's class shares from all sites'."""
    everybody = np.bincount(labels, minlength=4) / len(labels)
    shares = [np.bincount(labels[place == i], minlength=4) / max((place == i).sum(), 1) for i in range(sites)]
    return float(np.mean([np.abs(one - everybody).sum() / 2 for one in shares]))


def test_a_large_alpha_is_iid_and_a_small_one_is_not() -> None:
    distances = [
        np.mean([away(by_dirichlet(LABELS, 8, alpha, np.random.default_rng(i)), LABELS, 8) for i in range(5)])
        for alpha in (0.1, 1.0, 10.0, 1e6)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.01 < 0.3 < distances[0]
    sizes = np.bincount(by_dirichlet(LABELS, 8, 1e6, np.random.default_rng(0)))
    assert sizes.max() - sizes.min() <= 8


def test_iid_sites_are_equally_large_and_alike() -> None:
    place = iid(2000, 8, np.random.default_rng(1))
    assert np.bincount(place).tolist() == [250] * 8
    assert away(place, LABELS, 8) < 0.07


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_site_sees_exactly_as_many_classes(count: int) -> None:
    place = by_classes(LABELS, 8, count, np.random.default_rng(2))
    assert [len(np.unique(LABELS[place == site])) for site in range(8)] == [count] * 8


def test_classes_that_nobody_would_see_are_refused() -> None:
    with pytest.raises(DataError, match="cannot share 4 classes out"):
        by_classes(LABELS, 3, 1, np.random.default_rng(0))
    with pytest.raises(DataError, match="cannot share"):
        by_classes(LABELS, 8, 5, np.random.default_rng(0))


def test_quantity_skew_moves_sizes_and_leaves_classes() -> None:
    skewed = by_quantity(2000, 8, 0.5, np.random.default_rng(3))
    even = by_quantity(2000, 8, 1e6, np.random.default_rng(3))
    assert np.ptp(np.bincount(even)) <= 8 < 400 < np.ptp(np.bincount(skewed))
    big = int(np.bincount(skewed).argmax())
    shares = np.bincount(LABELS[skewed == big], minlength=4) / (skewed == big).sum()
    assert np.abs(shares - np.bincount(LABELS) / len(LABELS)).max() < 0.05


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sites=st.integers(2, 12),
    rows=st.integers(60, 400),
    alpha=st.sampled_from([0.02, 0.5, 20.0]),
)
def test_no_site_is_left_with_too_few_rows_to_split(seed: int, sites: int, rows: int, alpha: float) -> None:
    labels = LABELS[:rows]
    least = min(LEAST_ROWS, rows // sites)
    for place in (
        by_dirichlet(labels, sites, alpha, np.random.default_rng(seed)),
        by_quantity(rows, sites, alpha, np.random.default_rng(seed)),
    ):
        assert len(place) == rows
        assert np.bincount(place, minlength=sites).min() >= least
        assert place.max() < sites


def test_a_partition_follows_from_its_seed_and_keeps_every_row() -> None:
    data = table(200)
    for text in ("iid", "dirichlet:0.3", "classes:1", "quantity:0.5"):
        partition = Partition.parse(text, sites=4)
        first, again, other = (partitioned(data, partition, seed) for seed in (5, 5, 6))
        assert str(partition) == text
        assert (first.site == again.site).all()
        assert (first.site != other.site).any()
        assert len(first.sites) == 4
        assert sorted(case.split(": ")[1] for case in first.case) == sorted(data.case.tolist())
        assert (first.outcome == data.outcome).all()
    assert partitioned(data, Partition.parse("natural"), 1) is data


def test_what_is_no_partition_is_refused_with_what_is_one() -> None:
    for text in ("dirichlet", "dirichlet:-1", "classes:many", "iid:3", "by hand"):
        with pytest.raises(DataError, match="dirichlet:ALPHA"):
            Partition.parse(text)


def test_numbers_are_cut_into_equally_large_parts() -> None:
    data = table(300)
    data = replace(
        data,
        outcome=data.columns["age"] + np.arange(300) / 1000,
        schema=replace(data.schema, outcome=numeric_outcome("value", "0", "120")),
    )
    counts = np.bincount(labels_of(data))
    assert counts.tolist() == [60] * 5
    skewed = partitioned(data, Partition.parse("dirichlet:0.1", sites=3), 0)
    means = [skewed.outcome[skewed.site == site].mean() for site in skewed.sites]
    assert np.ptp(means) > 0.5 * data.outcome.std()


def test_alpha_moves_what_follows_and_beta_moves_the_conditions() -> None:
    def spread(alpha: float, beta: float) -> float:
        data = synthetic(alpha, beta, sites=12, seed=1)
        x = np.stack(list(data.columns.values()), axis=1)
        means = np.stack([x[data.site == site].mean(axis=0) for site in data.sites])
        return float(means.mean(axis=1).std())  # of B: the centre of a site's conditions

    assert spread(0, 4) > 3 * spread(0, 0)
    assert spread(4, 0) < 2 * spread(0, 0)
    first, again = synthetic(1, 1, sites=5, seed=2), synthetic(1, 1, sites=5, seed=2)
    assert (first.columns["x00"] == again.columns["x00"]).all()
    assert (first.outcome == again.outcome).all()
    assert len(first.sites) == 5
    assert first.schema.outcome.classes == tuple("0123456789")
