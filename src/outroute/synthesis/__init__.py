"""Packets to insight: calculations, recalibration, intervals, support and abstention.

`fit` reads packets and own records once; `Fitted.answer` then answers many questions.
"""

from outroute.synthesis.answers import Abstention, Answers, Basis, Heterogeneity
from outroute.synthesis.coverage import Coverage, coverage, places
from outroute.synthesis.evidence import Evidence, Records, SchemaLike
from outroute.synthesis.fitting import Fitted, Mixing, fit
from outroute.synthesis.noisy import Steady, steady_counts, steady_moments
from outroute.synthesis.settings import NAMES, Settings

__all__ = [
    "NAMES",
    "Abstention",
    "Answers",
    "Basis",
    "Coverage",
    "Evidence",
    "Fitted",
    "Heterogeneity",
    "Mixing",
    "Records",
    "SchemaLike",
    "Settings",
    "Steady",
    "coverage",
    "fit",
    "places",
    "steady_counts",
    "steady_moments",
]
