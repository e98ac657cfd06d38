"""Addresses: can the cells in use be found by trying, and what do they tell?"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.fingerprint import address, cells
from outroute.schema import facet_index

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["Enumeration", "enumerate_addresses"]

MOST_GUESSES = 200_000
"""Addresses tried at most: a second or two. Beyond, the share found is that of the addresses tried."""
SECRET_BITS = 256
"""Of a network secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enumeration:
    """Trying every address that the public schema allows.

    Attributes:
        possible: addresses that the schema allows (landmarks times combinations of facets).
        used: addresses in use.
        tried: guesses made.
        found_open: share of those in use that were found in an open network.
        found_keyed: the same where addresses are keyed by a secret that the attacker lacks.
    """

    possible: int
    used: int
    tried: int
    found_open: float
    found_keyed: float

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "possible": self.possible,
            "used": self.used,
            "tried": self.tried,
            "found_open": self.found_open,
            "found_keyed": self.found_keyed,
            "secret_bits": SECRET_BITS,
        }


def enumerate_addresses(
    schema: Schema, codes: NDArray[np.uint16], rng: np.random.Generator, *, most: int = MOST_GUESSES
) -> Enumeration | None:
    """Try addresses against those of some packets; None without packets.

    Args:
        schema: public.
        codes: uint16[m, D], conditions of the packets in the network.
        rng: draws the secret that the network has, and the wrong ones that the attacker tries.
        most: guesses at most.
    """
    if not len(codes):
        return None
    secret = rng.bytes(SECRET_BITS // 8)
    facets = facet_index(schema, codes).tolist()
    pairs = set(zip(facets, cells(schema, codes)[:, 0].tolist(), strict=True))
    used = {kind: {address(schema, f, c, key) for f, c in pairs} for kind, key in (("open", b""), ("keyed", secret))}
    combinations = prod(field.width + 1 for field in schema.facets)
    tried = min(most, combinations * len(schema.landmarks))
    found = {"open": 0, "keyed": 0}
    for number in range(tried):
        facet, cell = divmod(number, len(schema.landmarks))
        found["open"] += address(schema, facet, cell) in used["open"]
        found["keyed"] += address(schema, facet, cell, rng.bytes(SECRET_BITS // 8)) in used["keyed"]
    return Enumeration(
        possible=combinations * len(schema.landmarks),
        used=len(pairs),
        tried=tried,
        found_open=found["open"] / len(pairs),
        found_keyed=found["keyed"] / len(pairs),
    )
