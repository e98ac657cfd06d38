"""Reconstruction: what values did the records have that a packet condenses?

Every guess is judged against three that know only public statistics of the site: its mean, the mean of its class, the
mean of its cell, all without the record itself. The attacker knows the schema, the projection, which packet a record is
in, and how records are spread (reference rows).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.members import members
from outroute.audit.scores import FieldScale, decibel, decibel_bounds
from outroute.audit.sketches import from_sketches, prior_of
from outroute.fingerprint import cells
from outroute.schema import MISSING, SCALE, unit_scale

if TYPE_CHECKING:
    from outroute.audit.emission import Emission, Emitter
    from outroute.distill import Observations
    from outroute.schema import Schema

__all__ = ["BASELINES", "Guesses", "Reconstruction", "reconstruct", "summarise"]

BASELINES = ("site mean", "class mean", "cell mean")
"""Guesses that know only public statistics."""
PUBLIC_MEMBERS = ("public rows", "public mean taken apart")
"""Guesses that know only public statistics, given to the members of a packet as fits best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """Squared errors on one site, in field variances, one of each record that left.

    Attributes:
        errors: by guess, float64[r]. The baselines, and ``packet`` (its conditions), ``fingerprint`` (its sketch
            alone), ``members`` (a guess for each member, given to the members as fits best) beside
            ``PUBLIC_MEMBERS`` (the same without the packet), ``others known`` (all other members of
            the packet are known).
        rows: int64[r], which observations these are.
        packet: int64[r], which packet each is in.
        of: number of observations with a known outcome.
        guess: float64[r, D], the packet's conditions, for images.
    """

    errors: Mapping[str, NDArray[np.float64]]
    rows: NDArray[np.int64]
    packet: NDArray[np.int64]
    of: int
    guess: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """Errors over all sites.

    Attributes:
        error: by guess, root of the mean squared error in standard deviations of a field.
        advantage: by attack, decibel above the best baseline (for ``members``: above ``PUBLIC_MEMBERS`` too).
        bounds: of the advantage, its interval over the packets, where there are two or more.
        baseline: the best baseline.
        worst_decile: decibel above the best baseline for the tenth of records that the packet's conditions give away
            most (each record against its own baseline error).
        worst_decile_baseline: the same for a guess that knows nothing of the record beyond public statistics (the
            second best baseline against the best): what a worst tenth looks like without any leak.
        left: share of observations that are in a packet.
    """

    error: Mapping[str, float]
    advantage: Mapping[str, float]
    bounds: Mapping[str, tuple[float, float]]
    baseline: str
    worst_decile: float
    worst_decile_baseline: float
    left: float

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "error": dict(self.error),
            "advantage_db": dict(self.advantage),
            "advantage_db_bounds": {name: list(of) for name, of in self.bounds.items()},
            "baseline": self.baseline,
            "worst_decile_db": self.worst_decile,
            "worst_decile_baseline_db": self.worst_decile_baseline,
            "left": self.left,
        }


def reconstruct(
    schema: Schema,
    observations: Observations,
    emit: Emitter,
    rng: np.random.Generator,
    *,
    scale: FieldScale | None = None,
    reference: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> Guesses | None:
    """Attack one site; join several with :func:`summarise`.

    Args:
        schema: the schema.
        observations: the site's.
        emit: the distiller under attack.
        rng: of the emitter and of guesses.
        scale: units of errors; None: from these observations.
        reference: rows that the attacker has, conditions float64[n, D] in unit scale and outcomes float64[n]; None:
            the site's own rows, of which an attack never uses those in the packet that it attacks.

    Returns:
        None where nothing left.
    """
    emission = emit(schema, observations, rng)
    rows = np.flatnonzero(emission.packet_of >= 0)
    if not len(rows) or not len(emission):
        return None
    whole = unit_scale(schema, observations.codes)
    scale = scale or FieldScale.of(schema, whole)
    x, y, packet = whole[rows], observations.outcome[rows], emission.packet_of[rows]
    own = reference is None
    pool = (x, y) if reference is None else reference
    errors = {name: scale.errors(x, guess) for name, guess in baselines(schema, observations, rows, whole).items()}
    errors["packet"] = scale.errors(x, emission.x[packet])
    mean, covariance = prior_of(pool[0])
    sketched = from_sketches(schema, codes_of(schema, emission.x), (mean, covariance))
    errors["fingerprint"] = scale.errors(x, sketched[packet])
    found = members(schema, scale, x, y, packet, emission, pool, own=own, rng=rng)
    errors.update(zip(("members", *PUBLIC_MEMBERS), found, strict=True))
    errors["others known"] = scale.errors(x, _rest(x, packet, emission))
    known = int((~np.isnan(observations.outcome)).sum())
    return Guesses(errors=errors, rows=rows, packet=packet, of=known, guess=emission.x[packet])


def codes_of(schema: Schema, x: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Conditions in unit scale back as codes, uint16[m, D]."""
    return np.where(np.isnan(x), MISSING, np.rint(x * SCALE)).astype(np.uint16)


def baselines(
    schema: Schema, observations: Observations, rows: NDArray[np.int64], whole: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Guesses of public statistics for some rows, float64[r, D] each; every mean is without the row itself."""
    usual = np.where(np.isnan(observations.outcome), -1.0, observations.outcome)
    if not schema.outcome.has_classes:
        # Quarters of the outcome stand for its classes.
        known = usual[~np.isnan(observations.outcome)]
        usual = np.searchsorted(np.quantile(known, [0.25, 0.5, 0.75]), usual).astype(np.float64)
    label = np.unique(usual, return_inverse=True)[1].reshape(-1)
    cell = cells(schema, observations.codes)[:, 0]
    everybody = _means_without(whole, np.zeros(len(whole), dtype=np.int64), None)
    return {
        "site mean": everybody[rows],
        "class mean": _means_without(whole, label, everybody)[rows],
        "cell mean": _means_without(whole, cell, everybody)[rows],
    }


def _means_without(
    x: NDArray[np.float64], group: NDArray[np.int64], otherwise: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Mean of each row's group without the row, float64[n, D]; ``otherwise`` where that leaves nobody."""
    known = ~np.isnan(x)
    filled = np.where(known, x, 0.0)
    number = int(group.max(initial=0)) + 1
    total, count = np.zeros((number, x.shape[1])), np.zeros((number, x.shape[1]))
    np.add.at(total, group, filled)
    np.add.at(count, group, known)
    rest = count[group] - known
    mean = np.where(rest > 0, (total[group] - filled) / np.maximum(rest, 1), np.nan)
    return mean if otherwise is None else np.where(np.isnan(mean), otherwise, mean)


def _rest(x: NDArray[np.float64], packet: NDArray[np.int64], emission: Emission) -> NDArray[np.float64]:
    """What is left of a packet's sum when all other members are known, float64[r, D]."""
    known = ~np.isnan(x)
    filled = np.where(known, x, 0.0)
    total, count = (np.zeros((len(emission), x.shape[1])) for _ in range(2))
    np.add.at(total, packet, filled)
    np.add.at(count, packet, known)
    return np.clip(emission.x[packet] * np.maximum(count[packet], 1) - (total[packet] - filled), 0.0, 1.0)


def summarise(sites: list[Guesses]) -> Reconstruction | None:
    """One summary over the sites that were attacked; None where there is none."""
    if not sites:
        return None
    names = list(sites[0].errors)
    errors = {name: np.concatenate([site.errors[name] for site in sites]) for name in names}
    known = ~np.isnan(errors["packet"])
    mean = {name: float(errors[name][known].mean()) for name in names}
    ordered = sorted(BASELINES, key=lambda name: mean[name])
    best = ordered[0]
    against = {name: best for name in names if name not in (*BASELINES, *PUBLIC_MEMBERS)}
    against["members"] = min((best, *PUBLIC_MEMBERS), key=lambda name: mean[name])

    packets, first = [], 0
    for site in sites:
        packets.append(site.packet + first)
        first += int(site.packet.max(initial=-1)) + 1
    of_packet = np.concatenate(packets)[known]
    bounds = {
        name: decibel_bounds(errors[other][known], errors[name][known], of_packet) for name, other in against.items()
    }

    def tenth(attack: str) -> float:
        gain = np.log10(np.maximum(errors[best][known], 1e-9)) - np.log10(np.maximum(errors[attack][known], 1e-9))
        most = np.argsort(-gain, kind="stable")[: max(1, len(gain) // 10)]
        return decibel(float(errors[best][known][most].mean()), float(errors[attack][known][most].mean()))

    return Reconstruction(
        error={name: float(np.sqrt(value)) for name, value in mean.items()},
        advantage={name: decibel(mean[other], mean[name]) for name, other in against.items()},
        bounds={name: of for name, of in bounds.items() if of is not None},
        baseline=best,
        worst_decile=tenth("packet"),
        worst_decile_baseline=tenth(ordered[1]),
        left=sum(len(site.rows) for site in sites) / max(sum(site.of for site in sites), 1),
    )
