"""Naming the members: an attacker who has the list of everybody who may be in solves for who is in.

A mean of k records at 16 bits a slot is a set of exact equations in who is in: with a few hundred candidates and a
dozen fields, one subset fits and no other. Least squares (:mod:`outroute.audit.solving`) blur that; an integer
programme does not. Half of a site's subjects are drawn in; all of them are candidates.

Source: Dinur and Nissim (PODS 2003) for reconstruction from exact sums; integer programming with HiGHS through SciPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from outroute.audit.emission import outcome_numbers
from outroute.audit.traces import NOISE_REACH, could_hold
from outroute.packet import region_of
from outroute.schema import unit_scale

if TYPE_CHECKING:
    from outroute.audit.emission import Emission, Emitter
    from outroute.distill import Observations
    from outroute.schema import Schema

__all__ = ["Named", "Naming", "name_members", "named"]

PACKETS = 12
"""Packets of a site that are solved."""
NODES = 2_000
"""Branches of one integer programme at most: about a second; what is not solved by then counts as not named."""
LOOSE_NODES = 200
"""The same where noise or coarse numbers leave many subsets that fit, and the nearest is searched for."""
LOOSE = 1e-3
"""Tolerance above which the nearest subset is searched for, and not just one that fits."""
TOLERANCE = 1.0 / 65534
"""How far a packet's number may lie from the mean of its members: rounding, by largest remainder for shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """One site: counts over the packets that were attacked.

    Attributes:
        members: records that are in them.
        named: of these, how many the attack names as members of just this packet.
        wrong: how many it names that are not in the packet.
        strangers: of those, how many are in no packet of the site.
        solved, packets: programmes with a solution, and tried.
        candidates: records to choose from, mean over packets (after arithmetic excluded those that cannot be in).
    """

    members: int
    named: int
    wrong: int
    strangers: int
    solved: int
    packets: int
    candidates: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Over all sites.

    Attributes:
        named: share of the members of attacked packets that are named.
        precision: share of the names that are right; NaN where none was given.
        solved: share of packets with a solution.
        candidates: records to choose from, mean over packets.
        chance: share that would be named at this number of names by drawing from the candidates.
        members: of the attacked packets, all sites together.
    """

    named: float
    precision: float
    solved: float
    candidates: float
    chance: float
    members: int

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "named": self.named,
            "precision": None if np.isnan(self.precision) else self.precision,
            "solved": self.solved,
            "candidates": self.candidates,
            "chance": self.chance,
            "members": self.members,
        }

    @property
    def advantage(self) -> float:
        """Share of the members named beyond chance, 0 to 1; 0 where lots name as many in one of 40 cases."""
        spread = np.sqrt(max(self.chance * (1 - self.chance), 0.0) / max(self.members, 1))
        beyond = self.named - self.chance
        return float(beyond / (1 - self.chance)) if beyond > 1.96 * spread and self.chance < 1 else 0.0


def name_members(
    schema: Schema,
    observations: Observations,
    emit: Emitter,
    rng: np.random.Generator,
    *,
    packets: int = PACKETS,
    tolerance: float = TOLERANCE,
    step: Callable[[int, int], None] | None = None,
) -> Naming | None:
    """Attack one site; join several with :func:`named`. None where nothing left.

    Args:
        schema: the schema.
        observations: all candidates; half of their subjects are in.
        emit: the distiller under attack.
        rng: draws who is in, and the packets that are attacked.
        packets: packets attacked at most.
        tolerance: see ``TOLERANCE``; where numbers are coarser, give how much. Noise is allowed for by itself.
        step: told how many packets are done.
    """
    rows = observations.take(np.flatnonzero(~np.isnan(observations.outcome)))
    people, subject = np.unique(rows.subject, return_inverse=True)
    inside = np.flatnonzero((rng.permutation(len(people)) < len(people) // 2)[subject.reshape(-1)])
    emission = emit(schema, rows.take(inside), rng)
    if not len(emission) or not (emission.packet_of >= 0).any():
        return None
    truth = np.full(len(rows), -1, dtype=np.int64)
    truth[inside] = emission.packet_of
    x, y = unit_scale(schema, rows.codes), outcome_numbers(schema, rows.outcome)
    possible = could_hold(x, y, emission)
    possible &= rows.facet[:, None] == emission.facet[None, :]
    possible &= emission.bucket[None, :] >= rows.bucket[:, None]
    if emission.noisy is not None:
        return _by_lot(schema, emission, truth, rows, packets, rng)
    values, means = np.hstack([x, y]), np.hstack([emission.x, emission.outcome])
    allowed = np.full(values.shape[1], tolerance + NOISE_REACH * emission.noise)
    allowed[x.shape[1] :] = 1.0 if emission.flip else tolerance
    chosen = rng.permutation(len(emission))[:packets]
    members = right = wrong = strangers = solved = 0
    for number, packet in enumerate(chosen.tolist()):
        held = np.flatnonzero(possible[:, packet])
        found = _solve(np.nan_to_num(values[held] - means[packet]), float(emission.size[packet]), allowed)
        real = truth == packet
        members += int(real.sum())
        if found is not None:
            solved += 1
            right += int(real[held[found]].sum())
            wrong += int((~real[held[found]]).sum())
            strangers += int((truth[held[found]] < 0).sum())
        if step is not None:
            step(number + 1, len(chosen))
    return Naming(
        members=members,
        named=right,
        wrong=wrong,
        strangers=strangers,
        solved=solved,
        packets=len(chosen),
        candidates=float(possible[:, chosen].sum(axis=0).mean()),
    )


def _by_lot(
    schema: Schema,
    emission: Emission,
    truth: NDArray[np.int64],
    rows: Observations,
    packets: int,
    rng: np.random.Generator,
) -> Naming:
    """Noisy sums leave nothing to solve: of a region's candidates of each class (of all, for a numeric outcome), as
    many are named by lot as the packet counts."""
    assert emission.noisy is not None
    region = region_of(emission.noisy.schema, rows.codes)
    kind = rows.outcome.astype(np.int64) if schema.outcome.has_classes else np.zeros(len(rows), dtype=np.int64)
    counts = np.rint(np.maximum(emission.noisy.sums.sum(axis=0), 0.0)).astype(np.int64)
    inside = truth >= 0
    chosen = rng.permutation(np.unique(region))[:packets]
    right = wrong = members = 0
    for number in chosen.tolist():
        for one in np.unique(kind).tolist():
            held = np.flatnonzero((region == number) & (kind == one))
            picked = rng.permutation(held)[: int(counts[number, one])]
            members += int(inside[held].sum())
            right, wrong = right + int(inside[picked].sum()), wrong + int((~inside[picked]).sum())
    return Naming(
        members=members,
        named=right,
        wrong=wrong,
        strangers=wrong,
        solved=0,
        packets=len(chosen),
        candidates=float(np.mean([int((region == number).sum()) for number in chosen.tolist()])),
    )


def _solve(apart: NDArray[np.float64], size: float, tolerance: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """A subset of so many rows whose deviations sum to zero in every column, bool[n]; None where none was found.

    Where more than rounding is allowed for, the subset whose sums lie nearest to zero (in units of what is allowed,
    summed over columns) among those that the search comes by.

    Args:
        apart: float64[n, E], deviations of candidates from the packet; 0 where the candidate has no value.
        size: rows of the subset, as the packet says.
        tolerance: float64[E], of the mean.
    """
    count, n = round(size), len(apart)
    if not 0 < count <= n:
        return None
    use = np.abs(apart).max(axis=0) > tolerance
    m = int(use.sum())
    slack = tolerance[use] * count
    loose = bool((tolerance > LOOSE).any())
    # With slack to spend, one more variable a column says how far its sum lies from zero.
    blocks = [apart.T[use] / slack[:, None], *([-np.eye(m)] if loose else [])]
    rows = [LinearConstraint(np.hstack(blocks), -np.inf, 0.0 if loose else 1.0)]
    blocks = [-apart.T[use] / slack[:, None], *([-np.eye(m)] if loose else [])]
    rows.append(LinearConstraint(np.hstack(blocks), -np.inf, 0.0 if loose else 1.0))
    extra = m if loose else 0
    rows.append(LinearConstraint(np.append(np.ones(n), np.zeros(extra))[None, :], count - 0.25, count + 0.25))
    result = milp(
        np.append(np.zeros(n), np.ones(extra)),
        constraints=rows,
        integrality=np.append(np.ones(n, dtype=np.int64), np.zeros(extra, dtype=np.int64)),
        bounds=Bounds(0, 1),
        options={"node_limit": LOOSE_NODES if loose else NODES},
    )
    return None if result.x is None else np.asarray(result.x[:n] > 0.5)


def named(sites: list[Naming]) -> Named | None:
    """One summary over the sites that were attacked; None where there is none."""
    if not sites:
        return None
    members, right, wrong, solved, packets = (
        sum(getattr(site, name) for site in sites) for name in ("members", "named", "wrong", "solved", "packets")
    )
    candidates = sum(site.candidates * site.packets for site in sites) / packets
    return Named(
        named=right / max(members, 1),
        precision=right / (right + wrong) if right + wrong else float("nan"),
        solved=solved / packets,
        candidates=candidates,
        chance=min(1.0, (right + wrong) / max(candidates * packets, 1.0)),
        members=members,
    )
