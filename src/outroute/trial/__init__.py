"""The paired, grouped trial of outcome routing against its opponents (DESIGN section 10).

``run`` takes a data set and the methods that take part, and returns a ``Result`` with scores, paired differences with
their intervals, and what left every site.
"""

from __future__ import annotations

from outroute.trial.fold import Answer, Cases, Fold, Method, Rows, SiteOut
from outroute.trial.intervals import LEVEL, MARGINS, MIN_REPEATS, Difference, Verdict, counted, difference
from outroute.trial.metrics import MIN_PER_CLASS, score
from outroute.trial.opponents import (
    Named,
    demo_opponents,
    fedavg,
    fedavg_recal,
    local,
    majority,
    pooled,
    pooled_boosting,
    pooled_boosting_recal,
    pooled_recal,
    pooled_same_estimator,
    standard_opponents,
)
from outroute.trial.result import Result, SiteSize
from outroute.trial.run import Prepared, Progress, fold_of, prepare, run
from outroute.trial.splits import TEST_SHARE, Protocol, Split, inner_folds, split, splits
from outroute.trial.tuning import TUNING_TRIALS

__all__ = [
    "LEVEL",
    "MARGINS",
    "MIN_PER_CLASS",
    "MIN_REPEATS",
    "TEST_SHARE",
    "TUNING_TRIALS",
    "Answer",
    "Cases",
    "Difference",
    "Fold",
    "Method",
    "Named",
    "Prepared",
    "Progress",
    "Protocol",
    "Result",
    "Rows",
    "SiteOut",
    "SiteSize",
    "Split",
    "Verdict",
    "counted",
    "demo_opponents",
    "difference",
    "fedavg",
    "fedavg_recal",
    "fold_of",
    "inner_folds",
    "local",
    "majority",
    "pooled",
    "pooled_boosting",
    "pooled_boosting_recal",
    "pooled_recal",
    "pooled_same_estimator",
    "prepare",
    "run",
    "score",
    "split",
    "splits",
    "standard_opponents",
]
