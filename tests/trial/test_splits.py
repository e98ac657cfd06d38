from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import DataError
from outroute.trial import Protocol, inner_folds, split, splits

tables = st.integers(0, 10_000).map(
    lambda seed: (
        np.array([f"s{i}" for i in np.random.default_rng(seed).integers(4, size=200)], dtype=object),
        np.random.default_rng(seed + 1).integers(2 + seed % 40, size=200),
    )
)


@given(table=tables, seed=st.integers(0, 50), repeat=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_grouped_holds_out_the_same_groups_at_every_site(table, seed, repeat) -> None:
    site, group = table
    parts = split(site, group, protocol=Protocol.GROUPED, repeat=repeat, seed=seed)
    train = set(group[np.concatenate(list(parts.train.values()))].tolist())
    test = set(group[np.concatenate(list(parts.test.values()))].tolist())
    assert train
    assert test
    assert not train & test
    assert train | test == set(group.tolist())


@given(table=tables, seed=st.integers(0, 50), protocol=st.sampled_from(list(Protocol)))
@settings(max_examples=60, deadline=None)
def test_every_row_is_on_exactly_one_side_of_its_own_site(table, seed, protocol) -> None:
    site, group = table
    parts = split(site, group, protocol=protocol, repeat=0, seed=seed)
    for name in parts.train:
        both = np.concatenate([parts.train[name], parts.test[name]])
        assert sorted(both.tolist()) == np.flatnonzero(site == name).tolist()


def test_concurrent_holds_out_other_groups_at_each_site_but_whole_ones() -> None:
    site = np.repeat(np.array(["a", "b", "c"], dtype=object), 100)
    group = np.tile(np.arange(20), 15)
    parts = split(site, group, protocol=Protocol.CONCURRENT, repeat=0, seed=1)
    held = {name: set(group[rows].tolist()) for name, rows in parts.test.items()}
    assert len({frozenset(groups) for groups in held.values()}) == 3
    for name, rows in parts.train.items():
        assert not held[name] & set(group[rows].tolist())
    assert all(len(groups) == 6 for groups in held.values())


def test_splits_follow_from_the_seed_and_differ_between_repeats() -> None:
    site, group = np.repeat(np.array(["a", "b"], dtype=object), 50), np.arange(100)
    first = list(splits(site, group, protocol=Protocol.GROUPED, repeats=3, seed=9))
    again = list(splits(site, group, protocol=Protocol.GROUPED, repeats=3, seed=9))
    other = list(splits(site, group, protocol=Protocol.GROUPED, repeats=3, seed=10))
    for x, y, z in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(x.test["a"], y.test["a"])
        assert x.test["a"].tolist() != z.test["a"].tolist()
    assert first[0].test["a"].tolist() != first[1].test["a"].tolist()


def test_share_is_kept_per_site_for_rows_and_over_all_for_groups() -> None:
    site, group = np.repeat(np.array(["a", "b"], dtype=object), [100, 40]), np.arange(140) % 10
    rows = split(site, None, protocol=Protocol.ROWS, repeat=0, seed=0)
    assert (len(rows.test["a"]), len(rows.test["b"])) == (30, 12)
    grouped = split(site, group, protocol=Protocol.GROUPED, repeat=0, seed=0)
    assert len(set(group[grouped.test["a"]].tolist())) == 3


def test_misuse_says_what_to_do() -> None:
    site = np.array(["a", "b"], dtype=object)
    with pytest.raises(DataError, match="time or subject column"):
        split(site, None, protocol=Protocol.GROUPED, repeat=0, seed=0)
    with pytest.raises(DataError, match="share one group"):
        split(site, np.zeros(2, dtype=np.int64), protocol=Protocol.GROUPED, repeat=0, seed=0)
    with pytest.raises(DataError, match="between 0 and 1"):
        split(site, None, protocol=Protocol.ROWS, repeat=0, seed=0, test_share=1.0)


@given(seed=st.integers(0, 1000), groups=st.integers(1, 30), most=st.one_of(st.none(), st.integers(20, 150)))
@settings(max_examples=60, deadline=None)
def test_inner_folds_keep_groups_whole_and_cover_what_they_use(seed, groups, most) -> None:
    rng = np.random.default_rng(seed)
    group = rng.integers(groups, size=150)
    folds = inner_folds(group, 3, rng, most_rows=most)
    if len(np.unique(group)) < 2:
        assert folds == []
        return
    used = set()
    for train, valid in folds:
        assert len(train)
        assert len(valid)
        assert not set(group[train].tolist()) & set(group[valid].tolist())
        assert not used & set(valid.tolist())
        used |= set(valid.tolist())
    assert all(set(train.tolist()) | set(valid.tolist()) == used for train, valid in folds)
    assert len(used) == (150 if most is None else min(most, 150))
