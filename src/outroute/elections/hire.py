"""Hire: how far to draw on each node, anchored in outcomes that the asker observed itself.

A node is *proven* when both tests of :mod:`outroute.elections.alignment` pass: own outcomes confirm its profile, and
its packets follow the profile of own records beyond luck (:mod:`outroute.elections.luck`). All others are unproven.
Each of them weighs what a posterior says (an honest node of its size would show so much, a random one nothing, a liar
the opposite, and how many are honest is seen from all), and all of them together no more than a share of what is proven
and owned: a hundred Sybils weigh as much as one.

Own outcomes judge badly while they are few. Until then nodes that agree with most organisations are believed; how far,
falls exponentially with the number of own outcomes, and whom own outcomes contradict is never believed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from outroute.elections.alignment import (
    Alignment,
    Anchor,
    Floats,
    Ints,
    Summaries,
    Table,
    align,
    aligned,
    anchored,
    consensus,
    extended,
    scales,
)
from outroute.elections.luck import LEVEL, honest_share, needed

__all__ = ["Anchored", "Hired", "Prepared", "hire", "prepare"]

CONFIRMED = 0.67
"""Standard errors that a proven node's forward score exceeds. Own outcomes are the noise of all forward scores alike:
if they are few, those of honest nodes lie around one or two. A random profile's are wide either way, so a stricter
level keeps out few of these and many honest ones; what tells a random node is the reverse score."""
CONTRADICTED = -1.28
"""Standard errors below which own outcomes contradict a node (one honest node in ten is unlucky so far)."""
UNPROVEN = 0.25
"""What all unproven nodes together may weigh, as a share of proven nodes' and own observations."""
ORGANISATION = 0.5
"""Most that one organisation may weigh among those that weigh anything, once there are three."""
HONEST = 0.5
"""Prior probability that a node is honest where there are no own outcomes to see from how many are; the rest is shared
by random and lying ones."""
HONEST_SPREAD = 0.5
"""Standard deviation between honest nodes of the slope that they show, relative to its mean."""
FEW = 10.0
"""Own outcomes (effective, both classes counted) at which the consensus still counts by 1/e."""
SLOPE_FULL = 0.5
"""A proven node counts in full when the lower bound of its slope is at least this part of what is expected."""
OWN_LEAST = 4
"""Own records below which they are no anchor at all."""
FLOOR = 0.1
"""Weights below this are zero. Trees give a leaf to whoever is alone in it, however little he weighs, so many liars
with a weight of a hundredth each would still speak for every region where nobody else has a packet."""
NEGLIGIBLE = 1e-12
"""Share below which the consensus is not worked out at all."""


class Anchored(IntEnum):
    """What a hire rests on."""

    NOTHING = 0
    """Nobody to compare with: one organisation, and no own outcomes. Everybody weighs the same."""
    OWN_OUTCOMES = 1
    CONSENSUS = 2
    """Robust consensus over organisations."""
    PINNED = 3
    """Nodes that the operator pinned."""
    GROUPS = 4
    """Robust consensus over groups that the operator declared, within one organisation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hired:
    """How far each of N nodes is drawn on.

    Attributes:
        weight: float64[N] in [0, 1].
        proven: bool[N].
        contradicted: bool[N], own outcomes (or pinned nodes, or the consensus) speak against it.
        judged, pinned: bool[N], it has packets enough; the operator trusts it.
        forward, reverse, expected: float64[N], see `Alignment`.
        anchor: what it rests on mostly.
        consensus_share: how far the consensus of organisations still counts, 0 to 1.
        by_own: whether scores are those against own outcomes.
        clear: score that one random node reaches as rarely as `LEVEL`.
        needed: float64[N], reverse score that rules out luck; see `outroute.elections.luck`.
    """

    weight: Floats
    proven: npt.NDArray[np.bool_]
    contradicted: npt.NDArray[np.bool_]
    judged: npt.NDArray[np.bool_]
    pinned: npt.NDArray[np.bool_]
    forward: Floats
    reverse: Floats
    expected: Floats
    anchor: Anchored
    consensus_share: float
    by_own: bool
    clear: float
    needed: Floats


def hire(packets: Table, own: Table, group: Ints, organisation: Ints, pinned: Ints | None = None) -> Hired:
    """Decide how far to draw on each node.

    Args:
        packets: of N nodes.
        own: own records, every size 1; may be empty.
        group: int64[m], own rows that are not independent share a number.
        organisation: int64[N]; a node without one is an organisation of its own.
        pinned: indices of nodes that the operator trusts; they always weigh 1, and anchor an asker without outcomes.
    """
    return prepare(packets, own, organisation, pinned).hire(own, group)


def prepare(
    packets: Table, own: Table, organisation: Ints, pinned: Ints | None = None, *, grouped: bool = False
) -> Prepared:
    """Sum up what does not depend on outcomes that become known later; arguments as for `hire`.

    With `grouped` the numbers in `organisation` are those of declared groups.
    """
    believed = np.zeros(packets.nodes, dtype=np.bool_)
    if pinned is not None:
        believed[pinned] = True
    scale = scales(own.x) if len(own.x) >= OWN_LEAST else None
    return Prepared(packets, organisation, believed, scale, grouped=grouped)


class Prepared:
    """Packets made ready for hiring, once for all outcomes that become known while they stay the same.

    Conditions are standardised as own records were then.

    Args:
        packets: of N nodes.
        organisation: int64[N].
        believed: bool[N], pinned by the operator.
        scale: centre and spread of conditions in own records, None where these are too few.
        grouped: organisations are declared groups.
    """

    def __init__(
        self,
        packets: Table,
        organisation: Ints,
        believed: npt.NDArray[np.bool_],
        scale: tuple[Floats, Floats] | None,
        *,
        grouped: bool = False,
    ) -> None:
        self._common = Anchored.GROUPS if grouped else Anchored.CONSENSUS
        self._packets, self._organisation, self._believed, self._scale = packets, organisation, believed, scale
        self._several = len(np.unique(organisation)) >= 3
        self._mass = np.bincount(packets.node, packets.size, packets.nodes).astype(np.float64)
        self._summed: Summaries | None = None
        self._fallback: _Judgement | None = None

    @property
    def _ground(self) -> Anchored:
        """What hiring rests on where there are no own outcomes."""
        if self._believed.any():
            return Anchored.PINNED
        return self._common if self._several else Anchored.NOTHING

    def hire(self, own: Table, group: Ints) -> Hired:
        """Decide, with own records as they are now: cost linear in nodes.

        Args:
            own: own records.
            group: int64[m], own rows that are not independent share a number.
        """
        believed = self._believed
        able = len(own.x) >= OWN_LEAST and bool((own.target != own.target[0]).any())
        share = float(np.exp(-_independent(own, group) / FEW)) if able else 1.0
        if able:
            found = self._found(own, group)
            weight, proven = found.weight, found.proven
            if share > NEGLIGIBLE:
                heard = np.where(found.contradicted, 0.0, self._without().weight)
                weight = share * heard + (1.0 - share) * weight
        else:
            found = self._without()
            weight, proven = found.weight, believed
        weight = _capped(np.where(believed, 1.0, weight), self._mass, self._organisation, float(len(own.x)))
        ground = self._ground
        seen = found.alignment
        return Hired(
            weight=np.where(weight < FLOOR, 0.0, weight),
            proven=proven | believed,
            contradicted=found.contradicted & ~believed,
            judged=seen.judged,
            pinned=believed,
            forward=seen.forward,
            reverse=seen.reverse,
            expected=seen.expected,
            anchor=Anchored.OWN_OUTCOMES if able and share < 0.5 else ground,
            consensus_share=share if ground is self._common else 0.0,
            by_own=able,
            clear=_clear(),
            needed=needed(seen.reverse, seen.expected, seen.judged),
        )

    def _without(self) -> _Judgement:
        if self._fallback is None:
            self._fallback = _unanchored(self._packets, self._organisation, self._believed, self._ground)
        return self._fallback

    def _found(self, own: Table, group: Ints) -> _Judgement:
        if self._summed is None:
            centre, spread = scales(own.x) if self._scale is None else self._scale
            self._summed = Summaries(self._packets, centre, spread)
        anchor = anchored(own, group, (self._summed.centre, self._summed.spread))
        found = _judged(aligned(self._summed, anchor), float(len(own.x)), self._believed)
        if found.proven.any() and not found.proven.all():
            return _again(self._summed, own, anchor, found, self._believed)
        return found


def _again(
    packets: Summaries, own: Table, anchor: Anchor, found: _Judgement, believed: npt.NDArray[np.bool_]
) -> _Judgement:
    """Judge whom own outcomes alone could not prove, by own records and the packets of proven nodes together.

    Paths of length two: what own outcomes have confirmed helps to judge what they are too few for. The forward test
    stays with own outcomes alone, so nobody is believed whom they do not confirm.
    """
    seen = aligned(packets, extended(anchor, own, packets, np.where(found.proven, found.weight, 0.0)))
    first = found.alignment
    joint = Alignment(
        forward=first.forward,
        reverse=np.where(found.proven, first.reverse, seen.reverse),
        expected=np.where(found.proven, first.expected, seen.expected),
        mass=first.mass,
        judged=first.judged,
    )
    return _judged(joint, float(len(own.x)), believed | found.proven)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    weight: Floats
    proven: npt.NDArray[np.bool_]
    contradicted: npt.NDArray[np.bool_]
    alignment: Alignment


def _independent(own: Table, group: Ints) -> float:
    """Own outcomes that can tell something: groups, times how far the classes are balanced (1 when even)."""
    groups = len(np.unique(group))
    if own.numeric:
        return float(groups)
    rate = own.target.mean(0)
    columns = len(rate)
    even = 0.25 if columns == 1 else (1.0 / columns) * (1.0 - 1.0 / columns) * columns
    spread = float((rate * (1.0 - rate)).sum())
    return groups * min(1.0, spread / even)


def _clear() -> float:
    """Score above which one node is more than luck."""
    from scipy.special import ndtri

    return float(-ndtri(LEVEL))


def _judged(seen: Alignment, own: float, believed: npt.NDArray[np.bool_]) -> _Judgement:
    """Weights from own outcomes: proven nodes 1, all others their posterior under a common cap."""
    limit = needed(seen.reverse, seen.expected, seen.judged)
    proven = (seen.forward > CONFIRMED) & (seen.reverse > limit) & seen.judged | believed
    bound = np.clip((seen.reverse - limit) / (SLOPE_FULL * np.maximum(seen.expected, 0.5)), 0.0, 1.0)
    bound = np.where(believed, 1.0, bound)
    confirmed = np.clip((seen.forward - CONTRADICTED) / (-2.0 * CONTRADICTED), 0.0, 1.0)
    confirmed = np.where(seen.judged & (seen.forward != 0.0), confirmed, 1.0)
    posterior = _posterior(seen, honest_share(seen.reverse, seen.expected, seen.judged)) * confirmed
    contradicted = (seen.forward < CONTRADICTED) & ~believed
    sure = np.where(proven, bound, 0.0)
    unproven = (1.0 - sure) * posterior
    most = UNPROVEN * (float(sure @ seen.mass) + own)
    held = float(unproven @ seen.mass)
    if held > most:
        unproven *= most / held
    return _Judgement(weight=np.where(proven, 1.0, unproven), proven=proven, contradicted=contradicted, alignment=seen)


def _posterior(seen: Alignment, prior: Floats | float) -> Floats:
    """Probability that a node is honest, float64[N], given its reverse score; never falls as the score grows.

    Args:
        seen: scores.
        prior: probability before, float64[N] or one for all.
    """
    z, mean = seen.reverse, np.maximum(seen.expected, 0.5)
    wide = np.sqrt(1.0 + (HONEST_SPREAD * mean) ** 2)
    honest = np.exp(-0.5 * ((z - mean) / wide) ** 2) / wide
    liar = np.exp(-0.5 * ((z + mean) / wide) ** 2) / wide
    chance = np.exp(-0.5 * z**2)
    upper = prior * np.where(z >= mean, np.maximum(honest, 1.0 / wide), honest)
    out: Floats = upper / (upper + (1.0 - prior) * 0.5 * (np.where(z < -mean, 1.0 / wide, liar) + chance) + 1e-300)
    return np.where(seen.judged, out, prior)


def _unanchored(packets: Table, organisation: Ints, believed: npt.NDArray[np.bool_], ground: Anchored) -> _Judgement:
    """Weights without own outcomes: by pinned nodes, else by the consensus of organisations, else all alike."""
    if ground is Anchored.PINNED:
        rows = believed[packets.node]
        pins = Table(
            x=packets.x[rows],
            target=packets.target[rows],
            size=packets.size[rows],
            node=packets.node[rows],
            nodes=packets.nodes,
            numeric=packets.numeric,
        )
        return _by(packets, consensus(pins, np.arange(packets.nodes)))
    found = _by(packets, consensus(packets, organisation))
    if ground is Anchored.NOTHING:
        return replace(found, weight=np.ones(packets.nodes), contradicted=np.zeros(packets.nodes, dtype=np.bool_))
    return found


def _by(packets: Table, anchor: Anchor) -> _Judgement:
    """Weights by how far packets follow an anchor that is no own outcomes."""
    seen = align(packets, anchor)
    posterior = _posterior(seen, HONEST)
    best = float(posterior.max()) if len(posterior) else 1.0
    return _Judgement(
        weight=posterior / max(best, 1e-12),
        proven=np.zeros(packets.nodes, dtype=np.bool_),
        contradicted=seen.judged & (seen.reverse < CONTRADICTED),
        alignment=seen,
    )


def _capped(weight: Floats, mass: Floats, organisation: Ints, own: float) -> Floats:
    """No organisation above its share of everything, own observations included, once three weigh anything."""
    _, which = np.unique(organisation, return_inverse=True)
    which = which.reshape(-1)
    held = np.bincount(which, weight * mass)
    if (held > 0).sum() < 3:
        return weight
    top = int(held.argmax())
    others = float(held.sum() - held[top]) + own
    most = ORGANISATION / (1.0 - ORGANISATION) * others
    if held[top] <= most:
        return weight
    return np.where(which == top, weight * (most / held[top]), weight)
