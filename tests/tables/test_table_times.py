from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outroute.errors import DataError
from outroute.tables.reading import read_table
from outroute.tables.times import Times, read_times


def times(values: object, **options: object) -> Times:
    return read_times(read_table({"t": values}), ["t"], **options)  # type: ignore[arg-type]


def test_texts_in_iso_8601() -> None:
    seen = times(["2024-03-01", "2024-03-01T14:30", "2024-03-01 14:30:00+01:00", "2024-03-01T14:30:00Z", None, "soon"])
    start = int(datetime(2024, 3, 1, tzinfo=UTC).timestamp())
    assert seen.seconds.tolist() == [start, start + 52_200, start + 48_600, start + 52_200, 0, 0]
    assert seen.missing.tolist() == [False] * 4 + [True, False]
    assert seen.bad.tolist() == [False] * 5 + [True]


def test_formats_epochs_and_nonsense() -> None:
    assert times(["01.03.2024"], form="%d.%m.%Y").seconds.tolist() == [1_709_251_200]
    assert times([1_709_251_200.7, None], form="epoch").seconds.tolist() == [1_709_251_200, 0]
    assert times([1_709_251_200_500], form="epoch_ms").seconds.tolist() == [1_709_251_200]
    assert times(["31.02.2024", "x"], form="%d.%m.%Y").bad.tolist() == [True, True]
    assert times(["1709251200", "9999-12-31"]).bad.tolist() == [True, True]


def test_stored_dates_and_times() -> None:
    stamp = pd.Timestamp("2024-03-01 12:00")
    assert times(pd.Series([stamp, pd.NaT])).seconds.tolist() == [1_709_294_400, 0]
    assert times(pd.Series([stamp.tz_localize("Asia/Tokyo")])).seconds.tolist() == [1_709_262_000]
    assert times(pa.array([19_783], pa.date32())).seconds.tolist() == [1_709_251_200]
    before = times(pa.array([-1_500], pa.timestamp("ms")))
    assert before.seconds.tolist() == [-2]
    with pytest.raises(DataError, match="times of day"):
        times(pa.array([5], pa.time32("s")))


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)))
def test_local_times_as_the_standard_library_reads_them(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    zone = ZoneInfo("Europe/Zurich")
    expected = int(moment.replace(tzinfo=zone).timestamp())
    assert times([moment.isoformat()], timezone="Europe/Zurich").seconds.tolist() == [expected]
    parts = {name: [getattr(moment, name)] for name in ("year", "month", "day", "hour", "minute", "second")}
    seen = read_times(read_table(parts), list(parts), timezone="Europe/Zurich")
    assert seen.seconds.tolist() == [expected]


def test_columns_for_year_month_and_day() -> None:
    table = read_table({"y": [2024, 2024, None, 2024], "m": [2, 2, 1, 13], "d": [29, 30, 1, 1]})
    seen = read_times(table, ["y", "m", "d"])
    assert seen.seconds.tolist() == [int(datetime(2024, 2, 29, tzinfo=UTC).timestamp()), 0, 0, 0]
    assert seen.bad.tolist() == [False, True, False, True]
    assert seen.missing.tolist() == [False, False, True, False]
    with pytest.raises(DataError, match="three to six"):
        read_times(table, ["y", "m"])


def test_an_unknown_zone() -> None:
    with pytest.raises(DataError, match="Europe/Zurich"):
        times(["2024-03-01"], timezone="Mars/Base")


def test_the_hours_of_beijing(data: Callable[[str], Path]) -> None:
    path = next(iter(sorted(data("beijing").glob("*.csv.gz"))))
    seen = read_times(read_table(path), ["year", "month", "day", "hour"], timezone="Asia/Shanghai")
    assert not seen.bad.any()
    assert (np.diff(seen.seconds) == 3600).all()
    assert seen.seconds[0] == int(datetime(2013, 2, 28, 16, tzinfo=UTC).timestamp())
