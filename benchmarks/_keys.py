"""What an attacker pays for the places of a cell: keys tried, processor time, members owned."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from nacl.signing import SigningKey
from numpy.typing import NDArray

from outroute.identity import node_id
from outroute.placement import DEFAULT_REPLICAS, ID_BYTES, Member, Members, majority, points, vouched

__all__ = ["costs", "table"]

SIZES = (20, 100, 1_000, 10_000, 100_000)
MEASURED_MOST = 10_000
"""Networks up to this size are attacked with real keys; beyond, the order statistics alone say what it takes."""
POOL = 300_000
"""Keys made; each cell is attacked with the same ones, in the same order."""
CELLS_TRIED = 301
DRAWN = 200_000
PLACES = {"one": 1, "majority": majority(DEFAULT_REPLICAS), "all": DEFAULT_REPLICAS}
ORGANISATIONS = 20
LIKELY = (0.01, 0.1, 0.5)
SHARE_CELLS, SHARE_LAYOUTS = 4_000, 25


def _make(count: int) -> tuple[list[bytes], float, float]:
    """Ids of new keys; CPU seconds of one key alone, and of one key with its id."""
    alone = time.process_time()
    for _ in range(count // 10):
        SigningKey.generate()
    alone = (time.process_time() - alone) / (count // 10)
    began = time.process_time()
    ids = [node_id(bytes(SigningKey.generate().verify_key)) for _ in range(count)]
    return ids, alone, (time.process_time() - began) / count


def _tries(near: NDArray[np.bool_], wanted: int) -> float:
    """How many keys were tried until so many were near enough; infinite when all were not enough."""
    at = np.flatnonzero(near)
    return float(at[wanted - 1] + 1) if len(at) >= wanted else float("inf")


def _quartiles(found: Sequence[float]) -> list[float | None]:
    low, middle, high = (float(np.quantile(found, q, method="lower")) for q in (0.25, 0.5, 0.75))
    return [None if np.isinf(one) else one for one in (low, middle, high)]


def _draw(size: int, places: int, rng: np.random.Generator) -> list[float | None]:
    """The same by order statistics: the distance to be beaten is that of an honest member."""
    rank = DEFAULT_REPLICAS - places + 1
    share = rng.beta(rank, size - rank + 1, DRAWN)
    return _quartiles((rng.negative_binomial(places, share) + places).astype(np.float64).tolist())


def _open(size: int, cells: list[bytes], pool: list[bytes], rng: np.random.Generator) -> dict[str, Any]:
    """Keys until an attacker has so many places of a cell, in a network of honest members of one organisation each."""
    found: dict[str, Any] = {name: {"order_statistics": _draw(size, places, rng)} for name, places in PLACES.items()}
    if size > MEASURED_MOST:
        return found
    honest = [Member(id=one, organisation=one) for one in _ids(size, rng)]
    view, keys = Members(honest), points(pool)[:, 0]
    tried: dict[str, list[float]] = {name: [] for name in PLACES}
    held = 0
    for cell, row in zip(cells, view.owners(cells), strict=True):
        point = points([cell])[0, 0]
        mine = keys ^ point
        for name, places in PLACES.items():
            beaten = points([view.members[row[DEFAULT_REPLICAS - places]].id])[0, 0] ^ point
            near = mine < beaten
            tried[name].append(_tries(near, places))
            won = [Member(id=pool[i], organisation=pool[i]) for i in np.flatnonzero(near)[:places].tolist()]
            owners = Members([*honest, *won]).owner_ids([cell])[0] if len(won) == places and size <= 1_000 else ()
            held += not owners or len({one.id for one in won} & set(owners)) >= places
    for name, one in tried.items():
        found[name]["tries"] = _quartiles(one)
    return found | {"cells": len(cells), "confirmed_by_placement": held == len(cells) * len(PLACES)}


def _ids(count: int, rng: np.random.Generator) -> list[bytes]:
    return [rng.bytes(ID_BYTES) for _ in range(count)]


def _certified(size: int, cells: list[bytes], pool: list[bytes], rng: np.random.Generator) -> dict[str, Any]:
    """The same where twenty organisations are named: without a certificate, and with one to three of them lying."""
    names = _ids(ORGANISATIONS, rng)
    honest_names = names[:-DEFAULT_REPLICAS]
    honest = [
        Member(id=one, organisation=honest_names[at % len(honest_names)]) for at, one in enumerate(_ids(size, rng))
    ]
    strangers = [Member(id=one, organisation=one) for one in pool[: 10 * size]]
    rows = vouched(Members([*honest, *strangers])).owner_ids(cells)
    outside = {one.id for one in strangers}
    found: dict[str, Any] = {
        "no certificate": {
            "keys": len(strangers),
            "most_places_of_a_cell": max(len(outside & set(row)) for row in rows),
        }
    }
    view, keys = Members(honest), points(pool)[:, 0]
    beaten = view.owners(cells)
    for lying in range(1, DEFAULT_REPLICAS + 1):
        tried: dict[str, list[float]] = {name: [] for name, places in PLACES.items() if places <= lying}
        for cell, row in zip(cells, beaten, strict=True):
            point = points([cell])[0, 0]
            mine = keys ^ point
            for name in tried:
                places = PLACES[name]
                limit = points([view.members[row[DEFAULT_REPLICAS - places]].id])[0, 0] ^ point
                tried[name].append(_tries(mine < limit, places))
        friends = [Member(id=one, organisation=names[-1 - at % lying]) for at, one in enumerate(pool[: 10 * size])]
        ours = {one.id for one in friends}
        found[f"{lying} of {ORGANISATIONS} organisations"] = {
            "keys": len(friends),
            "most_places_of_a_cell": max(
                len(ours & set(row)) for row in vouched(Members([*honest, *friends])).owner_ids(cells)
            ),
            "tries": {name: _quartiles(one) for name, one in tried.items()},
        }
    return found


def _shares(size: int, per_organisation: int, rng: np.random.Generator) -> dict[str, Any]:
    """Share of the members that must be the attacker's until a random cell is taken with some likelihood.

    His members are taken at random, organisation by organisation.
    """
    layouts = max(1, min(SHARE_LAYOUTS, 100_000 // size))
    need: dict[int, list[int]] = {places: [] for places in PLACES.values()}
    for _ in range(layouts):
        of = np.arange(size) // per_organisation
        order = rng.permutation(int(of[-1]) + 1)  # turn in which organisations become the attacker's
        names = _ids(len(order), rng)
        view = Members([Member(id=one, organisation=names[o]) for one, o in zip(_ids(size, rng), of, strict=True)])
        turn = {name: int(at) for name, at in zip(names, order, strict=True)}
        turns = np.array([turn[one.organisation] for one in view.members])
        rows = np.sort(turns[view.owners(_ids(SHARE_CELLS // layouts + 1, rng))], axis=1)
        for places in need:
            need[places] += (rows[:, places - 1] + 1).tolist()
    return {
        name: {
            f"{likely:.0%}": min(
                1.0, float(np.quantile(need[places], likely, method="higher")) * per_organisation / size
            )
            for likely in LIKELY
        }
        for name, places in PLACES.items()
    }


def costs(*, quick: bool = False, seed: int = 1) -> dict[str, Any]:
    """The whole table."""
    rng = np.random.default_rng(seed)
    pool, alone, made = _make(20_000 if quick else POOL)
    cells = _ids(51 if quick else CELLS_TRIED, rng)
    sizes = [size for size in SIZES if not quick or size <= 1_000]
    found: dict[str, Any] = {
        "keys_made": len(pool),
        "cpu_us_per_key": 1e6 * alone,
        "cpu_us_per_try": 1e6 * made,
        "try_to_key": made / alone,
        "open": {},
        "organisations": {},
        "share_of_members": {},
    }
    for size in sizes:
        row = _open(size, cells, pool, rng)
        for name in PLACES:
            median = (row[name].get("tries") or row[name]["order_statistics"])[1] or row[name]["order_statistics"][1]
            row[name]["cpu_s"] = median * made
            row[name]["cpu_to_one_key"] = median * made / alone
        found["open"][size] = row
        if size <= 1_000:
            found["organisations"][size] = _certified(size, cells, pool, rng)
            found["share_of_members"][size] = {
                "open": _shares(size, 1, rng),
                "organisations of a twentieth": _shares(size, max(1, size // ORGANISATIONS), rng),
            }
    return found


def table(found: dict[str, Any]) -> str:
    """The figures as rows for people: keys tried (quartiles), and processor time in keys made."""

    def quartiles(one: Sequence[float | None]) -> str:
        return " / ".join("more" if value is None else f"{value:,.0f}" for value in one)

    rows = ["open network | places | keys tried (quartiles) | by order statistics | CPU seconds | CPU in keys made"]
    for size, row in found["open"].items():
        for name in PLACES:
            one = row[name]
            rows.append(
                f"{size:,} | {name} | {quartiles(one['tries']) if 'tries' in one else '-'} | "
                f"{quartiles(one['order_statistics'])} | {one['cpu_s']:.2g} | {one['cpu_to_one_key']:,.0f}"
            )
    rows += ["", "organisations named | attacker | keys | places of a cell at most | keys tried (medians)"]
    for size, kinds in found["organisations"].items():
        for name, one in kinds.items():
            medians = ", ".join(f"{what} {value[1]:,.0f}" for what, value in one.get("tries", {}).items() if value[1])
            rows.append(f"{size:,} | {name} | {one['keys']:,} | {one['most_places_of_a_cell']} | {medians or '-'}")
    rows += ["", "share of the members | kind | places | " + " | ".join(f"{one:.0%} of cells" for one in LIKELY)]
    for size, kinds in found["share_of_members"].items():
        for kind, places in kinds.items():
            for name, shares in places.items():
                rows.append(f"{size:,} | {kind} | {name} | " + " | ".join(f"{one:.1%}" for one in shares.values()))
    return "\n".join(rows)
