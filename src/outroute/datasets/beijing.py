"""Fine dust at twelve stations in Beijing, hourly from March 2013 to February 2017 (420,768 rows)."""

from __future__ import annotations

import numpy as np

from outroute.datasets.base import Dataset, GroupKind, data_file
from outroute.datasets.declare import category, number, numbers, numeric_outcome, objects, read_csv, schema
from outroute.errors import DataError
from outroute.schema import Field

__all__ = ["STATIONS", "beijing", "beijing_fields"]

STATIONS = (
    "Aotizhongxin",
    "Changping",
    "Dingling",
    "Dongsi",
    "Guanyuan",
    "Gucheng",
    "Huairou",
    "Nongzhanguan",
    "Shunyi",
    "Tiantan",
    "Wanliu",
    "Wanshouxigong",
)
_WINDS = "N NNE NE ENE E ESE SE SSE S SSW SW WSW W WNW NW NNW".split()  # noqa: SIM905
_HOUR_SECONDS = 3_600
_DAY_SECONDS = 86_400
_WEEK_SECONDS = 7 * _DAY_SECONDS
_BEIJING_OFFSET_SECONDS = 8 * _HOUR_SECONDS
_MONDAY_OFFSET_SECONDS = 3 * _DAY_SECONDS
"""1970-01-01 was a Thursday: with three days added, whole weeks start on Mondays."""
_START = np.datetime64("2013-01-01", "s").astype(np.int64)


def beijing_fields(*, concurrent: bool = False) -> tuple[Field, ...]:
    """The conditions: season, hour and weather; with `concurrent` the date too, as the heaviest of all.

    The concurrent protocol asks what is in the air *now*, while other stations have measured the same hour: a
    question then says when, and packets of other hours are unlike it.
    """
    fields = (
        number("season_cos", "-1", "1", "cosine of the day of the year"),
        number("season_sin", "-1", "1", "sine of the day of the year"),
        number("hour_cos", "-1", "1", "cosine of the hour of the day"),
        number("hour_sin", "-1", "1", "sine of the hour of the day"),
        number("temperature", "-35", "50", "degrees Celsius"),
        number("dew_point", "-50", "40", "degrees Celsius"),
        number("pressure", "970", "1060", "hPa"),
        number("rain", "0", "120", "mm in the hour"),
        number("wind_speed", "0", "30", "m/s"),
        category("wind_direction", _WINDS),
    )
    if concurrent:
        return (number("date", "0", "3653", "days since 2013-01-01, with fractions", weight="10"), *fields)
    return fields


def beijing(*, k: int = 5, every: int = 1, concurrent: bool = False) -> Dataset:
    """Beijing air quality: PM2.5 from season, hour and weather; rows of one week (Monday to Sunday) share a group.

    Args:
        k: the schema's privacy floor; 1 is allowed, since stations observe no person.
        every: keep the hours whose number since the start is a multiple of this (1 keeps all).
        concurrent: add the date as a condition, for the concurrent protocol.

    Raises:
        DataError: ``OUTROUTE_DATA`` is not set, lacks ``beijing``, or `every` is below 1.
    """
    if every < 1:
        raise DataError("every must be at least 1 (1 keeps all hours)", code="data.every")
    parts = []
    for station in STATIONS:
        raw = read_csv(data_file("beijing", f"PRSA_Data_{station}_20130301-20170228.csv.gz"))
        part = {name: numbers(raw[name]) for name in "No PM2.5 TEMP PRES DEWP RAIN WSPM".split()}  # noqa: SIM905
        part |= {name: numbers(raw[name]) for name in ("year", "month", "day", "hour")}
        keep = (part["No"].astype(np.int64) - 1) % every == 0
        parts.append(({name: v[keep] for name, v in part.items()}, objects(raw["wd"])[keep]))
    data = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
    months = (data["year"] - 1970) * 12 + data["month"] - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + data["day"].astype(np.int64) - 1
    local = days * _DAY_SECONDS + data["hour"].astype(np.int64) * _HOUR_SECONDS
    new_year = (data["year"] - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    season = 2 * np.pi * (days - new_year + data["hour"] / 24) / 365.25
    hour = 2 * np.pi * data["hour"] / 24
    columns = {
        "date": (local - _START) / _DAY_SECONDS,
        "season_cos": np.cos(season),
        "season_sin": np.sin(season),
        "hour_cos": np.cos(hour),
        "hour_sin": np.sin(hour),
        "temperature": data["TEMP"],
        "dew_point": data["DEWP"],
        "pressure": data["PRES"],
        "rain": data["RAIN"],
        "wind_speed": data["WSPM"],
        "wind_direction": np.concatenate([wind for _, wind in parts]),
    }
    fields = beijing_fields(concurrent=concurrent)
    return Dataset(
        name="beijing",
        columns={f.name: columns[f.name] for f in fields},
        outcome=data["PM2.5"],
        site=np.repeat(np.array(STATIONS, dtype=object), [len(wind) for _, wind in parts]),
        case=np.array([f"hour-{int(number)}" for number in data["No"]], dtype=object),
        group=(local + _MONDAY_OFFSET_SECONDS) // _WEEK_SECONDS,
        group_kind=GroupKind.WEEK,
        time=local - _BEIJING_OFFSET_SECONDS,
        schema=schema(
            "fine dust, concurrent" if concurrent else "fine dust",
            fields,
            numeric_outcome("pm25", "0", "1500", "ug/m3"),
            k=k,
            subject="hour at a station",
            bucket_seconds=_WEEK_SECONDS,
        ),
        provenance="UCI Beijing Multi-Site Air Quality, id 501 (Song Xi Chen, 2019)",
        licence="CC BY 4.0 (as the repository's page states it)",
        notes=(
            "the other pollutants of the same hour are left out: whoever measures them measures PM2.5 too",
            *((f"every {every} hours",) if every > 1 else ()),
        ),
    )
