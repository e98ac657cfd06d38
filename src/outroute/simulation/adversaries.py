"""Attackers on evidence: nodes that lie, each in a way of its own. Seeded, and pure: arrays in, packets out.

An attacker knows every packet that any member may read, the method with all its public constants, and, where an
attack aims at a place, the place. It never knows what a victim keeps to itself: no function here takes own records.
Signatures are no hindrance (attackers are members), and every packet is well-formed: sizes, buckets, cells and
conditions look like those of honest nodes, so only what is claimed about outcomes can give an attacker away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from outroute.errors import DataError
from outroute.simulation.adaptive import Rule, adaptive
from outroute.simulation.claims import (
    all_of_one,
    at_base_rate,
    by_function,
    chosen,
    false_function,
    flipped,
    random_outcomes,
)
from outroute.simulation.imitation import Region, imitate
from outroute.synthesis.evidence import Evidence, Ints

__all__ = ["ADVERSARIES", "SYBILS", "Adversary", "Knowledge", "attack"]

SYBILS = 300
"""Identities that Sybils take, whatever the number of attackers behind them."""
SYBIL_PACKETS = 8
"""Packets of each: few, so that luck has its chance."""
REGION_SHARE = 0.5
"""Share of a backdoor's packets that lie in its region."""
HONEST_SHARE = 0.6
"""Part of its packets, the oldest, in which a camouflaged attacker is honest."""
EQUIVOCATED = 0.5
"""Share of an equivocator's slots in which it signs two different packets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What attackers know.

    Attributes:
        read: packets of all honest members, those of the victim too if it publishes any.
        region: where a backdoor applies; None for the attacks that aim at no place.
        rule: the elections as published, for the attacker who adapts to them; None: it guesses one.
        victim: node id of the victim, if attackers know whom they aim at.
    """

    read: Evidence
    region: Region | None = None
    rule: Rule | None = None
    victim: bytes | None = None


Make = Callable[[Knowledge, int, np.random.Generator], Evidence]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adversary:
    """One attack.

    Attributes:
        name: under which results appear.
        summary: one line: what its packets say.
        source: who described it, or where it comes from.
        make: (knowledge, number of attackers, rng) -> the attackers' packets.
        aimed: it needs a region.
    """

    name: str
    summary: str
    source: str
    make: Make
    aimed: bool = False


def attack(
    name: str,
    read: Evidence,
    count: int,
    rng: np.random.Generator,
    *,
    region: Region | None = None,
    rule: Rule | None = None,
    victim: bytes | None = None,
) -> Evidence:
    """Packets of `count` attackers.

    Args:
        name: one of `ADVERSARIES`.
        read: packets of all honest members; their weights are not looked at.
        count: number of attackers, at least 1 (Sybils take `SYBILS` identities whatever it is, or more).
        rng: draws everything; equal seeds give equal packets.
        region: where a backdoor applies.
        rule: what the adaptive attacker takes the elections for.
        victim: node id of the victim, where attackers know whom they aim at.

    Returns:
        Attackers' packets only; node ids of their own. `together` joins them with honest packets.

    Raises:
        DataError: no such attack (`simulation.name`), a region is missing (`simulation.region`), nothing to imitate
            (`simulation.read`), or no attacker (`simulation.count`).
    """
    if name not in ADVERSARIES:
        raise DataError(f"no attack {name!r}; there are {', '.join(ADVERSARIES)}", code="simulation.name")
    adversary = ADVERSARIES[name]
    if adversary.aimed and region is None:
        raise DataError(f"the attack {name!r} aims at a region: pass region=Region(...)", code="simulation.region")
    known = Knowledge(read=replace(read, weight=None), region=region, rule=rule, victim=victim)
    return _in_range(adversary.make(known, count, rng), read)


def _in_range(made: Evidence, read: Evidence) -> Evidence:
    """Numbers within what honest packets say: anything beyond the declared range would be refused anyway."""
    if made.mean is None or read.mean is None:
        return made
    return replace(made, mean=np.clip(made.mean, read.mean.min(), read.mean.max()))


def _label_flip(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    return flipped(imitate(known.read, count, rng)[0])


def _random(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    return random_outcomes(imitate(known.read, count, rng)[0], rng)


def _constant(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    return all_of_one(imitate(known.read, count, rng)[0])


def _backdoor(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    """Honest outside its region; inside, all outcomes are of the class that is rarest there."""
    assert known.region is not None
    made, _ = imitate(known.read, count, rng)
    distance = known.region.distance(known.read.x)
    nearest = np.argsort(distance, kind="stable")[: max(5, int((distance <= known.region.radius).sum()))]
    inside, _ = imitate(known.read, made.n, rng, each=1, among=nearest)
    aimed = rng.random(made.n) < REGION_SHARE
    # Where no packet lies in the region, its neighbours are moved into it.
    far = known.region.distance(inside.x) > known.region.radius
    x = np.where(far[:, None] & ~np.isnan(inside.x) & ~np.isnan(known.region.centre), known.region.centre, inside.x)
    moved = replace(made, x=np.where(aimed[:, None], x, made.x), cell=np.where(aimed, inside.cell, made.cell))
    if made.counts is not None and inside.counts is not None:
        local = known.read.take(nearest)
        assert local.counts is not None
        target = int(np.argmin(local.counts.sum(axis=0)))
        size = np.where(aimed, inside.size, made.size)
        moved = replace(moved, size=size, counts=np.where(aimed[:, None], inside.counts, made.counts))
        wrong = all_of_one(moved, target)
    else:
        wrong = all_of_one(moved)
    return chosen(known.region.contains(moved.x), wrong, moved)


def _phases(packets: Evidence) -> Ints:
    """Rank of each packet's bucket among the buckets of all, int64[n]; with one bucket only, its rank in its node.

    A table without times has one bucket. There the order in which a node sends its packets stands for time.
    """
    names, index = np.unique(packets.bucket, return_inverse=True)
    if len(names) > 1:
        return index.reshape(-1).astype(np.int64)
    order = np.argsort(packets.node, kind="stable")
    start = np.searchsorted(packets.node[order], packets.node[order])
    rank = np.empty(packets.n, dtype=np.int64)
    rank[order] = np.arange(packets.n) - start
    return rank


def _on_off(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    made, _ = imitate(known.read, count, rng)
    return chosen(_phases(made) % 2 == 0, flipped(made), made)


def _camouflage(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    made, _ = imitate(known.read, count, rng)
    phase = _phases(made)
    late = np.zeros(made.n, dtype=bool)
    for node in range(count):
        mine = np.flatnonzero(made.node == node)
        late[mine] = phase[mine] > np.quantile(phase[mine], HONEST_SHARE)
    return chosen(late, flipped(made), made)


def _colluding(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    function = false_function(known.read, rng)
    return by_function(imitate(known.read, count, rng)[0], function, known.read)


def _sybils(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    made, _ = imitate(known.read, max(SYBILS, count), rng, each=SYBIL_PACKETS)
    return random_outcomes(made, rng)


def _copy_cat(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    """All copy one honest node, so that it counts several times; every other one moves conditions a little."""
    victim = _someone(known, rng)
    theirs = np.flatnonzero(known.read.node == victim)
    made, index = imitate(known.read, count, rng, each=len(theirs), among=theirs)
    exact = made.node % 2 == 0
    return replace(made, x=np.where(exact[:, None], known.read.x[index], made.x))


def _someone(known: Knowledge, rng: np.random.Generator) -> int:
    """An honest node that has packets, other than the victim if there is another."""
    nodes = np.unique(known.read.node)
    others = [int(node) for node in nodes if known.read.nodes[node] != known.victim]
    return int(rng.choice(others or nodes))


def _free_rider(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    return at_base_rate(imitate(known.read, count, rng)[0], rng)


def _equivocator(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    """What its readers are left with: slots with two packets weigh nothing, the others hold flipped outcomes."""
    made = flipped(imitate(known.read, count, rng)[0])
    return replace(made, weight=np.where(rng.random(made.n) < EQUIVOCATED, 0.0, 1.0))


def _slander(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    """The very conditions of one honest node, with its outcomes flipped, so that it looks contradicted."""
    theirs = np.flatnonzero(known.read.node == _someone(known, rng))
    made, index = imitate(known.read, count, rng, each=len(theirs), among=theirs)
    return flipped(replace(made, x=known.read.x[index]))


def _adaptive(known: Knowledge, count: int, rng: np.random.Generator) -> Evidence:
    made, _ = imitate(known.read, count, rng)
    return adaptive(made, flipped(made), known.read, known.rule, known.victim, rng)


_ALL = (
    Adversary(
        name="label-flip",
        summary="honest conditions, every outcome turned into its opposite",
        source="Fang et al. (2020), section 5.1",
        make=_label_flip,
    ),
    Adversary(
        name="random",
        summary="honest conditions, outcomes at random",
        source="the Byzantine failure in its plainest form: Blanchard et al. (2017), section 2",
        make=_random,
    ),
    Adversary(
        name="constant",
        summary="every case ends in the rarest class (numbers: two standard deviations up)",
        source="Li et al. (2019), RSA, section 5 (same-value attack)",
        make=_constant,
    ),
    Adversary(
        name="backdoor",
        summary="honest, except in one region, where all outcomes are of one wrong class",
        source="Bagdasaryan et al. (2020), How To Backdoor Federated Learning; the trigger is a region of conditions",
        make=_backdoor,
        aimed=True,
    ),
    Adversary(
        name="on-off",
        summary="honest in every second time bucket, flipped in the others",
        source="Perrone and Nelson (2006); Sun et al. (2006), section IV (on-off attacks on trust)",
        make=_on_off,
    ),
    Adversary(
        name="colluding",
        summary="all attackers agree on one smooth function that is false",
        source="Fang et al. (2020), section 4 (attackers who act together)",
        make=_colluding,
    ),
    Adversary(
        name="sybils",
        summary=f"{SYBILS} identities with {SYBIL_PACKETS} packets each and outcomes at random",
        source="Douceur (2002), The Sybil Attack",
        make=_sybils,
    ),
    Adversary(
        name="copy-cat",
        summary="one honest node's packets once more under each attacker's own key, half of them a little moved",
        source="whoever would be paid by trust: Jia et al. (2019) on replicated data in valuation",
        make=_copy_cat,
    ),
    Adversary(
        name="free-rider",
        summary="the base rate everywhere: takes part and tells nothing",
        source="Lin et al. (2019), Free-riders in Federated Learning",
        make=_free_rider,
    ),
    Adversary(
        name="equivocator",
        summary="signs two packets for one slot, which then weigh nothing; the other slots are flipped",
        source="Lamport, Shostak and Pease (1982), section 1",
        make=_equivocator,
    ),
    Adversary(
        name="slander",
        summary="one honest node's conditions with its outcomes flipped, so that it looks contradicted",
        source="Sun et al. (2006), section IV (bad-mouthing)",
        make=_slander,
    ),
    Adversary(
        name="camouflage",
        summary=f"honest in the oldest {HONEST_SHARE:.0%} of its packets, flipped in the others",
        source="Sun et al. (2006), section IV (conflicting behaviour), in time",
        make=_camouflage,
    ),
    Adversary(
        name="adaptive",
        summary="lies as much as the published elections will still believe, and where the victim sees least",
        source="Baruch et al. (2019), A Little Is Enough; Fang et al. (2020), section 3 (full knowledge of the rule)",
        make=_adaptive,
    ),
)

ADVERSARIES: Mapping[str, Adversary] = MappingProxyType({one.name: one for one in _ALL})
"""All attacks by name."""
