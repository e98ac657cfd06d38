"""The audit's other attacks on packets, shown beside those that decide: linkage, attributes, a second look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from outroute.audit.attributes import attribute_gains, attributes
from outroute.audit.differencing import difference, differences
from outroute.audit.linkage import link, linked
from outroute.trial.intervals import counted
from outroute.walls.base import Part, Score, Tell
from outroute.walls.inversion_sides import Bench, Method

__all__ = ["more", "part_of"]

TEXT = (
    "The attacker has read all packets. Linked: it has somebody's conditions and looks for the packet that holds them; "
    "the note says how many lots would find. A field: it knows all but one field of somebody; decibel by which packets "
    "lower its error about people in packets, and in the note about people in none (what packets tell of everybody). A "
    "second look: a record is taken back, what is left leaves again, and it compares. These decide nothing; outroute "
    "audit has more of them."
)


def more(bench: Bench, method: Method, tell: Tell) -> dict[str, Any]:
    """All of them on one way of emitting; null where there is nothing to attack."""
    emit = method.emit
    assert emit is not None
    sites, scale, schema = bench.used.values(), bench.scale, bench.schema
    tell(f"{method.name}: linkage")
    draw = bench.rng(method.key, "linkage")
    links = linked([of for of in (link(schema, rows, emit, draw, scale) for rows in sites) if of is not None])
    tell(f"{method.name}: fields that an attacker does not know")
    draw = bench.rng(method.key, "attributes")
    gains = attributes(
        [of for of in (attribute_gains(schema, rows, emit, draw, scale=scale) for rows in sites) if of is not None]
    )
    second = None
    if method.k > 1:
        tell(f"{method.name}: a second look after a withdrawal")
        draw = bench.rng(method.key, "differencing")
        looks = (difference(schema, rows, method.k, draw, emit=emit, scale=scale) for rows in sites)
        second = differences([of for of in looks if of is not None])
    found = {"linkage": links, "attributes": gains, "differencing": second}
    return {name: None if of is None else of.to_json() for name, of in found.items()}


def part_of(methods: Sequence[Method], done: Mapping[str, Mapping[str, Any]]) -> list[Part]:
    """The section, if any of them was run."""
    scores: list[Score] = []
    for method in methods:
        found = done.get(f"more/{method.key}")
        if found is None:
            continue

        def score(
            metric: str,
            value: float | None,
            note: str,
            bounds: tuple[float, float] | None = None,
            of: Method = method,
        ) -> None:
            low, high = bounds or (None, None)
            known = value is not None and np.isfinite(value)
            scores.append(
                Score(
                    method=of.name, metric=metric, value=value if known else None, low=low, high=high, ours=True,
                    higher_is_better=False, baseline=not of.whole, note=note,
                )
            )  # fmt: skip

        if (links := found["linkage"]) is not None:
            bounds = counted(round(links["top1"] * links["records"]), links["records"])
            score("linked to their packet", links["top1"], f"lots: {links['chance']:.0%}", bounds)
        if (gains := found["attributes"]) is not None:
            others = gains["gain_others_db"]
            note = "" if others is None else f"people in none: {others:+.1f} dB"
            score("a field of a member, dB", gains["gain_db"], note)
        if (second := found["differencing"]) is not None:
            score("a second look adds, dB", second["gain_reemitted_db"], "")
    return [Part(title="Other attacks on packets", text=TEXT, scores=scores)] if scores else []
