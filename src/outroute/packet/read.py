"""Reading packets: their outcomes in bulk, and one packet as people see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.identity import node_id
from outroute.packet.accept import accept
from outroute.packet.layout import (
    MAGIC,
    PACKET_BYTES,
    WEIGHT_ONE,
    Flag,
    PacketArray,
    Rejection,
    as_packets,
    identities,
)
from outroute.packet.make import CODE_ONE
from outroute.packet.noisy import SQUARE_HALF, STEPS, noisy_sums
from outroute.schema import Distiller, Schema, decode_field

__all__ = ["Packet", "agreeing", "class_counts", "moments"]


def class_counts(schema: Schema, packets: PacketArray) -> NDArray[np.float64]:
    """Class counts, float64 ``[n, classes]``; with noise, so perhaps negative, where the distiller is ``private``."""
    if schema.privacy.distiller is Distiller.PRIVATE:
        return noisy_sums(schema, packets).astype(np.float64)
    out: NDArray[np.float64] = packets["outcome"][:, : len(schema.outcome.classes)].astype(np.float64)
    return out


def agreeing(schema: Schema, packets: PacketArray) -> NDArray[np.bool_]:
    """Which packets condense several observations that all have the same outcome, bool ``[n]``; with noise, none."""
    if schema.privacy.distiller is Distiller.PRIVATE:
        return np.zeros(len(packets), dtype=np.bool_)
    several = packets["size"] > 1
    if schema.outcome.has_classes:
        return np.asarray(several & (packets["outcome"].max(axis=1) == packets["size"]))
    return np.asarray(several & (packets["outcome"][:, 1] == 0))


def moments(schema: Schema, packets: PacketArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population variance of numeric outcomes in the outcome's unit, float64 ``[n]`` each.

    Where the distiller is ``private`` they are what the noisy sums come to, cut to what is possible.
    """
    assert schema.outcome.low is not None
    assert schema.outcome.high is not None
    low, high = float(schema.outcome.low), float(schema.outcome.high)
    if schema.privacy.distiller is Distiller.PRIVATE:
        sums = noisy_sums(schema, packets).astype(np.float64)
        number = np.maximum(sums[:, 0], 1.0)
        middle = np.clip(sums[:, 1] / number / STEPS, -1.0, 1.0)
        square = (sums[:, 2] / number + SQUARE_HALF) / STEPS
        half = (high - low) / 2.0
        return low + (middle + 1.0) * half, np.clip(square - middle**2, 0.0, 1.0 - middle**2) * half**2
    unit = packets["outcome"][:, 0] / CODE_ONE
    spread = packets["outcome"][:, 1] / CODE_ONE
    return low + unit * (high - low), spread * (high - low) ** 2 / 4.0


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet.

    Attributes:
        data: its 512 bytes.
    """

    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) != PACKET_BYTES:
            raise DataError(f"a packet has {PACKET_BYTES} bytes, this has {len(self.data)}", code="packet.length")

    @property
    def _row(self) -> Any:
        return as_packets(self.data)[0]

    @property
    def identity(self) -> bytes:
        """SHA-256 of the first 448 bytes."""
        return identities(as_packets(self.data))[0]

    @property
    def author(self) -> bytes:
        """Public key of the author."""
        return bytes(self._row["author"])

    @property
    def is_withdrawal(self) -> bool:
        """Whether it takes back the packet in the same slot."""
        return bool(int(self._row["flags"]) & Flag.WITHDRAWAL)

    def verify(self, schema: Schema, now: int) -> Rejection:
        """Check it by every rule; ``Rejection.NONE`` when it is accepted."""
        return Rejection(int(accept(self.data, schema, now).reason[0]))

    def describe(self, schema: Schema | None = None) -> dict[str, Any]:
        """What it says, with names and units when the schema is given; ready for JSON.

        Raises:
            DataError: when it is not a packet of version 1.
        """
        row = self._row
        if int(row["magic"]) != MAGIC:
            raise DataError("this is not a packet of version 1", code="packet.magic")
        code = int(row["distiller"])
        known = code in {int(d) for d in Distiller}
        out: dict[str, Any] = {
            "identity": self.identity.hex(),
            "node": node_id(self.author).hex(),
            "author": self.author.hex(),
            "schema": bytes(row["schema"]).hex(),
            "withdrawal": self.is_withdrawal,
            "distiller": Distiller(code).name.lower() if known else code,
            "incarnation": int(row["sequence"]) >> 32,
            "sequence": int(row["sequence"]) & 0xFFFFFFFF,
            "bucket": int(row["bucket"]),
            "lifetime": int(row["lifetime"]),
            "size": int(row["size"]),
            "subjects": int(row["weight"]) / WEIGHT_ONE,
            "cell": int(row["cell"]),
            "fingerprint": bytes(row["fingerprint"]).hex(),
        }
        if schema is not None and bytes(row["schema"]) == schema.id and not self.is_withdrawal:
            one = as_packets(self.data)
            codes = one["conditions"][0]
            out["conditions"] = {f.name: decode_field(f, codes[schema.slots[f.name]]) for f in schema.fields}
            if schema.outcome.has_classes:
                counts = class_counts(schema, one)[0]
                out["outcome"] = {c: int(v) for c, v in zip(schema.outcome.classes, counts, strict=True)}
            else:
                mean, variance = moments(schema, one)
                out["outcome"] = {"mean": float(mean[0]), "variance": float(variance[0])}
        return out
