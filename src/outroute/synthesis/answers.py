"""Answers: estimate, interval, support, who contributed, what disagreed, or an abstention with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from outroute.synthesis.evidence import Floats, Ints

__all__ = ["Abstention", "Answers", "Basis", "Heterogeneity"]


class Abstention(IntEnum):
    """Why there is no answer; 0 means there is one."""

    NONE = 0
    NO_EVIDENCE = 1
    THIN_SUPPORT = 2


class Heterogeneity(IntEnum):
    """Whether the spread between nodes could be estimated (it takes three nodes)."""

    UNKNOWN = 0
    KNOWN = 1


class Basis(IntEnum):
    """What the weights of the calculations rest on."""

    DEFAULT = 0
    """No own outcomes: the calculations weigh what they weigh by default; nothing anchors them."""
    OWN_OUTCOMES = 1
    """A trust election on own outcomes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Answers to m questions.

    Attributes:
        estimate: float64[m] probability of the positive class (binary) or mean in outcome units (numeric);
            float64[m, C] for categorical outcomes. Given even under abstention, for those who insist.
        low, high: like `estimate`; interval at the site asking. Class outcomes: for the rate that the site
            would see over many such cases. Numeric outcomes: for the outcome of one case.
        support: float64[m], effective number of independent observations near the question, own included.
        nodes: int64[m], peers that contributed at least half an observation.
        abstained: uint8[m], `Abstention`.
        heterogeneity: `Heterogeneity`, the same for all answers of a fit.
        basis: `Basis`.
        calculations: names of the calculations.
        weights: float64[J], what each weighs.
        by_calculation: float64[m, J] (categorical: [m, J, C]), each calculation's recalibrated estimate.
        contributors: int64[m, T], indices into the fit's `nodes`, largest contribution first, -1 = none.
        contributions: float64[m, T], effective observations of each contributor.
        own: float64[m], effective observations of own records.
        disagreeing: int64[m, T], nodes whose own outcomes near the question lie outside, -1 = none.
        disagreeing_estimate: float64[m, T] (categorical: of the class furthest off), NaN = none.
    """

    estimate: Floats
    low: Floats
    high: Floats
    support: Floats
    nodes: Ints
    abstained: npt.NDArray[np.uint8]
    heterogeneity: Heterogeneity
    basis: Basis
    calculations: tuple[str, ...]
    weights: Floats
    by_calculation: Floats
    contributors: Ints
    contributions: Floats
    own: Floats
    disagreeing: Ints
    disagreeing_estimate: Floats
