"""Times of a table, whatever they look like, as seconds since 1970-01-01 UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from outroute.errors import DataError
from outroute.tables.table import Flags, Floats, Table

__all__ = ["TIME_PARTS", "Times", "read_times"]

#: What several time columns mean, in this order; the first three are needed.
TIME_PARTS: Final = ("year", "month", "day", "hour", "minute", "second")

#: Years taken as dates; anything else is a typing error or a sentinel.
_FIRST_YEAR: Final = 1800
_LAST_YEAR: Final = 2200
_EPOCHS: Final = {"epoch": 1.0, "epoch_ms": 1e-3, "epoch_us": 1e-6}
#: Zones change their offset at full quarters of an hour.
_QUARTER: Final = 900
_EARLIEST: Final = int(datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp())
_LATEST: Final = int(datetime(_LAST_YEAR, 1, 1, tzinfo=UTC).timestamp())

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Times:
    """Times read from a table.

    Attributes:
        seconds: int64[n], since 1970-01-01 UTC; 0 where not known.
        missing: bool[n], nothing there.
        bad: bool[n], something there that is no time.
    """

    seconds: Ints
    missing: Flags
    bad: Flags


def read_times(table: Table, columns: Sequence[str], *, form: str | None = None, timezone: str = "UTC") -> Times:
    """Read one time column, or several that hold year, month, day (, hour, minute, second).

    Args:
        table: the table.
        columns: one name, or three to six names in the order of ``TIME_PARTS``.
        form: None for ISO 8601 ("2024-03-01", "2024-03-01T14:30:00+01:00"), a ``strptime`` format, or "epoch",
            "epoch_ms", "epoch_us".
        timezone: the zone of times that do not name theirs, for example "Europe/Zurich".

    Raises:
        DataError: ``data.column`` or ``data.time``.
    """
    if len(columns) > 1:
        return _finish(*_from_parts(table, columns), timezone, naive=True)
    name = columns[0]
    if table.is_temporal(name):
        return _from_arrow(table, name, timezone)
    if form in _EPOCHS:
        number = table.numbers(name)
        local = np.nan_to_num(np.floor(number.values * _EPOCHS[form]))
        return _finish(local, np.isnan(number.values) & ~number.bad, number.bad, "UTC", naive=True)
    return _from_text(table, name, form, timezone)


def _from_parts(table: Table, columns: Sequence[str]) -> tuple[Floats, Flags, Flags]:
    if not 3 <= len(columns) <= len(TIME_PARTS):
        raise DataError(
            "A time is one column, or three to six columns in this order: " + ", ".join(TIME_PARTS),
            code="data.time",
        )
    read = [table.numbers(name) for name in columns]
    values = [part.values for part in read]
    missing = np.logical_or.reduce([np.isnan(part.values) & ~part.bad for part in read])
    bad = np.logical_or.reduce([part.bad for part in read])
    limits = ((_FIRST_YEAR, _LAST_YEAR), (1, 12), (1, 31), (0, 24), (0, 59), (0, 60))
    for value, (low, high) in zip(values, limits, strict=False):
        with np.errstate(invalid="ignore"):
            bad = bad | (value < low) | (value > high)
    usable = ~(missing | bad)
    clean = [np.where(usable, value, low).astype(np.int64) for value, (low, _) in zip(values, limits, strict=False)]
    months = ((clean[0] - 1970) * 12 + clean[1] - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (clean[2] - 1).astype("timedelta64[D]")
    bad = bad | (usable & (days.astype("datetime64[M]") != months))  # 31 April
    seconds = days.astype("datetime64[s]").astype(np.int64)
    for part, width in zip(clean[3:], (3600, 60, 1), strict=False):
        seconds = seconds + part * width
    return np.asarray(seconds, dtype=np.float64), missing & ~bad, bad


def _from_arrow(table: Table, name: str, timezone: str) -> Times:
    import pyarrow as pa
    import pyarrow.compute as pc

    column: Any = table.data.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    zone = getattr(column.type, "tz", None)
    if pa.types.is_time(column.type) or pa.types.is_duration(column.type):
        raise DataError(f"{table.source}: column '{name}' holds times of day without a date", code="data.time")
    missing = np.asarray(pc.is_null(column), dtype=np.bool_)
    stamps = column.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    seconds = np.floor_divide(np.asarray(pc.fill_null(stamps, 0), dtype=np.int64), 1_000_000)
    return _finish(seconds.astype(np.float64), missing, np.zeros_like(missing), timezone, naive=zone is None)


def _from_text(table: Table, name: str, form: str | None, timezone: str) -> Times:
    found = table.categories(name)
    seconds = np.zeros(len(found.labels) + 1)
    naive = np.zeros(len(found.labels) + 1, dtype=np.bool_)
    bad = np.zeros(len(found.labels) + 1, dtype=np.bool_)
    for index, label in enumerate(found.labels):
        moment = _parse(label, form)
        if moment is None:
            bad[index] = True
        else:
            naive[index] = moment.tzinfo is None
            seconds[index] = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    local = _finish(seconds, np.zeros_like(bad), bad, timezone, naive=naive)
    codes = found.codes
    return Times(seconds=local.seconds[codes], missing=codes < 0, bad=local.bad[codes] & (codes >= 0))


def _parse(label: str, form: str | None) -> datetime | None:
    try:
        if form is not None:
            return datetime.strptime(label, form)
        if label.isdigit() and len(label) != 8:
            return None  # a bare number is no ISO date; "epoch" must be asked for
        return datetime.fromisoformat(label)
    except ValueError:
        return None


def _finish(local: Floats, missing: Flags, bad: Flags, timezone: str, *, naive: bool | Flags) -> Times:
    outside = (local < _EARLIEST) | (local > _LATEST)
    bad = bad | (outside & ~missing)
    seconds = np.where(missing | bad, 0, local).astype(np.int64)
    if np.any(naive):
        shifted = seconds - _offsets(seconds, timezone)
        seconds = np.where(np.asarray(naive) & ~(missing | bad), shifted, seconds)
    return Times(seconds=seconds, missing=missing, bad=bad)


def _offsets(local: Ints, timezone: str) -> Ints:
    """Seconds east of UTC for local wall times (the earlier one where the clock is set back)."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if timezone.upper() in ("UTC", "Z", "ETC/UTC"):
        return np.zeros_like(local)
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DataError(
            f'There is no time zone \'{timezone}\'; write a name such as "Europe/Zurich" or "UTC"', code="data.time"
        ) from error
    quarters, inverse = np.unique(local // _QUARTER, return_inverse=True)
    start = datetime(1970, 1, 1)
    offsets = [
        int(((start + timedelta(seconds=int(quarter) * _QUARTER)).replace(tzinfo=zone).utcoffset() or timedelta())
            .total_seconds())
        for quarter in quarters
    ]  # fmt: skip
    return np.array(offsets, dtype=np.int64)[inverse]
