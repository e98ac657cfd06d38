"""Packets as a privacy officer reads them: cohort, conditions, outcomes, expiry; and each byte beside its meaning."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from outroute.packet import (
    PACKET_BYTES,
    PACKET_DTYPE,
    WEIGHT_ONE,
    Flag,
    Packet,
    PacketArray,
    agreeing,
    class_counts,
    expiry,
    moments,
    noisy_sums,
)
from outroute.packet.layout import MAGIC
from outroute.schema import MISSING, SCALE, Distiller, Field, FieldKind, Schema, decode_field

if TYPE_CHECKING:
    from outroute.store import Queued

__all__ = ["Part", "date_text", "fields_of", "parts_of", "record", "subjects", "table_csv"]

_DIGITS = 3
"""Decimal places beyond the width of a range: four digits tell its values apart."""
_MOST_DECIMALS = 6
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""With these a spreadsheet takes a text for a formula."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some bytes of a packet, and what they say.

    Attributes:
        first: offset of the first byte.
        data: the bytes.
        says: in words.
    """

    first: int
    data: bytes
    says: str

    @property
    def place(self) -> str:
        """``"4-5"``, counted from 0."""
        last = self.first + len(self.data) - 1
        return str(self.first) if last == self.first else f"{self.first}-{last}"


def date_text(seconds: int) -> str:
    """A moment as a day, or with its time where it is not midnight, UTC."""
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return f"second {seconds}"
    whole = moment.hour == moment.minute == moment.second == 0
    return moment.strftime("%Y-%m-%d" if whole else "%Y-%m-%d %H:%M:%S")


def subjects(packets: PacketArray) -> NDArray[np.int64]:
    """How many subjects each packet condenses, int64 ``[n]``."""
    return packets["weight"].astype(np.int64) // WEIGHT_ONE


def _withdrawals(packets: PacketArray) -> NDArray[np.bool_]:
    return np.asarray((packets["flags"] & np.uint16(Flag.WITHDRAWAL)) != 0)


def _number(value: float, low: float, high: float, unit: str) -> str:
    decimals = min(max(_DIGITS - math.floor(math.log10(high - low)), 0), _MOST_DECIMALS)
    return f"{value:.{decimals}f} {unit}".rstrip()


def _of_field(field: Field, codes: NDArray[np.uint16]) -> str:
    """One field's codes in its unit, or as shares of its categories."""
    value = decode_field(field, codes)
    if value is None:
        return "missing"
    if isinstance(value, dict):
        return ", ".join(f"{name} {share:.0%}" for name, share in value.items())
    assert field.low is not None
    assert field.high is not None
    return _number(value, float(field.low), float(field.high), field.unit)


def fields_of(schema: Schema, packet: PacketArray) -> dict[str, str]:
    """Conditions of one packet ``[1]``, by field."""
    return {f.name: _of_field(f, packet["conditions"][0, schema.slots[f.name]]) for f in schema.fields}


def _outcome(schema: Schema, packet: PacketArray) -> str:
    outcome = schema.outcome
    if outcome.has_classes:
        counts = class_counts(schema, packet)[0].astype(np.int64).tolist()
        return ", ".join(f"{name} {count}" for name, count in zip(outcome.classes, counts, strict=True))
    mean, variance = moments(schema, packet)
    assert outcome.low is not None
    assert outcome.high is not None
    low, high = float(outcome.low), float(outcome.high)
    spread = _number(math.sqrt(float(variance[0])), low, high, outcome.unit)
    return f"mean {_number(float(mean[0]), low, high, outcome.unit)}, standard deviation {spread}"


_DISTILLERS: Final = {
    int(Distiller.COHORT): "a cohort, not one observation",
    int(Distiller.SINGLE): "one observation",
    int(Distiller.PRIVATE): "counts with noise, whether anybody was observed or not",
}


def _is_erased(packet: PacketArray) -> bool:
    noisy = int(packet["distiller"][0]) == Distiller.PRIVATE  # may say that there are none
    return not _withdrawals(packet)[0] and int(packet["size"][0]) == 0 and not noisy


def record(schema: Schema, queued: Queued, at: int) -> dict[str, Any]:
    """Everything that one packet of an outbox says, ready for JSON and for the screen.

    Args:
        schema: gives names and units.
        queued: packets of the outbox.
        at: which of them.
    """
    from outroute.store import State

    packet = queued.packets[at : at + 1]
    row = packet[0]
    state = State(int(queued.states[at]))
    start = int(row["bucket"])
    out: dict[str, Any] = {
        "number": int(queued.ids[at]),
        "digest": queued.digests[at].hex(),
        "identity": queued.identities[at].hex(),
        "state": "approved" if state is State.QUEUED else state.name.lower(),
        "kind": "withdrawal" if bool(_withdrawals(packet)[0]) else "packet",
        "bytes": PACKET_BYTES,
    }
    if _is_erased(packet):
        return out | {"kind": "erased"}
    out |= {
        "cell": int(row["cell"]),
        "observed_from": date_text(start),
        "observed_before": date_text(start + schema.time.bucket_seconds),
        "expires": date_text(int(expiry(schema, packet)[0])),
    }
    if out["kind"] == "withdrawal":
        return out | {"withdraws": int(queued.withdraws[at])}
    said = Packet(packet.tobytes()).describe(schema)
    return out | {
        "observations": said["size"],
        # With noise nothing is told of how many subjects there are.
        "subjects": None if int(row["distiller"]) == Distiller.PRIVATE else int(subjects(packet)[0]),
        "outcomes_agree": bool(agreeing(schema, packet)[0]),
        "conditions": said["conditions"],
        "outcome": said["outcome"],
        "readable": fields_of(schema, packet) | {schema.outcome.name: _outcome(schema, packet)},
    }


def parts_of(schema: Schema, packet: PacketArray) -> list[Part]:
    """One packet ``[1]``, taken apart: all 512 bytes in order, and what each says."""
    data = packet.tobytes()
    if len(data) != PACKET_BYTES:
        raise ValueError("parts_of takes one packet")
    said = list(_said(schema, packet))
    ends = [first for first, _ in said[1:]] + [PACKET_BYTES]
    return [Part(first=first, data=data[first:end], says=text) for (first, text), end in zip(said, ends, strict=True)]


def _said(schema: Schema, packet: PacketArray) -> Iterator[tuple[int, str]]:
    """Where each part begins, and what it says."""
    row = packet[0]
    at = {name: offset for name, (_, offset, *_rest) in (PACKET_DTYPE.fields or {}).items()}
    back = bool(_withdrawals(packet)[0])
    erased = _is_erased(packet)
    empty = "taken back: zero" if back else "erased: zero" if erased else ""
    start = int(row["bucket"])
    yield at["magic"], "a packet, version 1" if int(row["magic"]) == MAGIC else "not a packet of version 1"
    yield at["flags"], "a withdrawal: takes back the packet in the same slot" if back else "not a withdrawal"
    yield at["kind"], f"the outcome is {schema.outcome.kind.name.lower()}"
    kind = int(row["distiller"])
    yield at["distiller"], _DISTILLERS.get(kind, "no distiller that there is")
    yield at["schema"], f"which schema: {schema.name}"
    yield at["author"], "which node made it: its public key"
    yield at["sequence"], f"number {int(row['sequence']) & 0xFFFFFFFF} of this node's packets"
    yield at["bucket"], f"observed from {date_text(start)} to before {date_text(start + schema.time.bucket_seconds)}"
    yield at["lifetime"], f"nobody answers with it after {date_text(int(expiry(schema, packet)[0]))}"
    noisy = kind == Distiller.PRIVATE
    yield at["size"], empty or f"condenses {int(row['size'])} observations" + " by the noisy sums below" * noisy
    yield at["weight"], empty or ("zero: of how many subjects, is not told" if noisy else _of_subjects(packet))
    yield at["fingerprint"], empty or "a sketch computed from the conditions below; adds nothing to them"
    yield at["cell"], f"which part of the network keeps it: cell {int(row['cell'])}"
    yield from _said_outcome(schema, packet, at["outcome"], empty)
    for field in schema.fields:
        codes = schema.slots[field.name]
        text = empty or _of_field(field, packet["conditions"][0, codes])
        yield at["conditions"] + 2 * codes.start, f"{field.name}: {text}"
    if schema.width < row["conditions"].shape[0]:
        yield at["conditions"] + 2 * schema.width, "not used: zero"
    seal = "zero: no seal, for it could be guessed at" if noisy else "seal of the condensed observations; opens only"
    yield at["commitment"], empty or seal + " with a secret kept here" * (not noisy)
    yield at["reserved"], "not used: zero"
    yield at["signature"], "signature of this node over all bytes above"


def _of_subjects(packet: PacketArray) -> str:
    return f"of {int(subjects(packet)[0])} subjects"


def _said_outcome(schema: Schema, packet: PacketArray, first: int, empty: str) -> Iterator[tuple[int, str]]:
    name, classes = schema.outcome.name, schema.outcome.classes
    counts, size = packet["outcome"][0], int(packet["size"][0])
    if empty:
        yield first, f"{name}: {empty}"
        return
    if int(packet["distiller"][0]) == Distiller.PRIVATE:
        sums = noisy_sums(schema, packet)[0].tolist()
        for i, (label, value) in enumerate(zip(classes or ("count", "sum", "sum of squares"), sums, strict=True)):
            yield first + 4 * i, f"{name}: {label}, {value} with noise"
        if len(sums) < len(counts):
            yield first + 4 * len(sums), "not used: zero"
        return
    if not classes:
        yield first, f"{name}: {_outcome(schema, packet)}"
        yield first + 8, "not used: zero"
        return
    for i, label in enumerate(classes):
        yield first + 4 * i, f"{name}: {label}, {int(counts[i])} of {size} observations"
    if len(classes) < len(counts):
        yield first + 4 * len(classes), "not used: zero"


def table_csv(schema: Schema, queued: Queued) -> str:
    """Packets as a table for a spreadsheet: a line each, a column for each field. 100,000 in seconds.

    Args:
        schema: gives names and units.
        queued: packets of the outbox, no withdrawals.
    """
    packets = queued.packets
    columns: list[tuple[str, Sequence[Any]]] = [
        ("packet", queued.ids.tolist()),
        ("digest", [digest.hex() for digest in queued.digests]),
        ("bytes", [PACKET_BYTES] * len(packets)),
        ("subjects", subjects(packets).tolist()),
        ("observations", packets["size"].tolist()),
        ("outcomes_agree", np.where(agreeing(schema, packets), "yes", "no").tolist()),
        ("observed_from", _dates(packets["bucket"])),
        ("observed_before", _dates(packets["bucket"] + schema.time.bucket_seconds)),
        ("expires", _dates(expiry(schema, packets))),
    ]
    for field in schema.fields:
        codes = packets["conditions"][:, schema.slots[field.name]]
        columns.append((_heading(field.name, field.unit), _column(field, codes)))
    columns += _outcome_columns(schema, packets)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_safe(name) for name, _ in columns])
    writer.writerows(zip(*(column for _, column in columns), strict=True))
    return out.getvalue()


def _heading(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _safe(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _dates(seconds: NDArray[Any]) -> list[str]:
    known, place = np.unique(seconds, return_inverse=True)
    texts = [date_text(int(second)) for second in known]
    return [texts[i] for i in place.tolist()]


def _column(field: Field, codes: NDArray[np.uint16]) -> list[str]:
    """One field of many packets, each different value written once."""
    if field.kind is FieldKind.NUMERIC:
        assert field.low is not None
        assert field.high is not None
        low, high = float(field.low), float(field.high)
        values = low + codes[:, 0] / SCALE * (high - low)
        missing = codes[:, 0] == MISSING
        return [
            "missing" if no else _number(value, low, high, "")
            for value, no in zip(values.tolist(), missing.tolist(), strict=True)
        ]
    known, place = np.unique(np.ascontiguousarray(codes), axis=0, return_inverse=True)
    texts = [_safe(_of_field(field, row)) for row in known]
    return [texts[i] for i in place.reshape(-1).tolist()]


def _outcome_columns(schema: Schema, packets: PacketArray) -> list[tuple[str, Sequence[Any]]]:
    outcome = schema.outcome
    if outcome.has_classes:
        counts = class_counts(schema, packets).astype(np.int64)
        return [(f"{outcome.name} = {name}", counts[:, i].tolist()) for i, name in enumerate(outcome.classes)]
    mean, variance = moments(schema, packets)
    assert outcome.low is not None
    assert outcome.high is not None
    low, high = float(outcome.low), float(outcome.high)
    return [
        (_heading(f"{outcome.name} mean", outcome.unit), [_number(v, low, high, "") for v in mean.tolist()]),
        (
            _heading(f"{outcome.name} standard deviation", outcome.unit),
            [_number(math.sqrt(v), low, high, "") for v in variance.tolist()],
        ),
    ]
