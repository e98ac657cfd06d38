"""Every constant of the synthesis, with its reason. One configuration serves all tables."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NAMES", "Settings"]


NAMES = ("kernel", "regression", "boosting", "adjusted", "adjusted-boosting", "local", "local-boosting")
"""All calculations; see `outroute.synthesis.calculations`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Constants of `outroute.synthesis.fit`; the defaults are what every figure quoted was measured with.

    Attributes:
        level: probability that an interval claims to cover.
        calculations: names of the calculations that take part; the kernel always does, it gives the support.
        folds: parts that own records are cut into (whole groups) for cross-fitting; 4 keeps three
            quarters of a small site for fitting and costs five fits.
        folds_large: the same above `large_site` records; there one part alone judges what the other parts
            are fitted on, and nothing is fitted a second time: a fit costs seconds, and four fifths of
            such a site say as much as all of it.
        large_site: records; see `folds_large`.
        scored_rows: most own rows that the trust election and recalibration look at; 6,000 rows fix an
            intercept to within 0.03 on the logit scale.
        support_least: effective number of independent observations near a question below which the
            synthesis abstains; five is the smallest cohort of the default privacy floor.
        ridge_start, ridge_least, ridge_most: variance of a coefficient on standardised conditions that
            empirical Bayes starts from and is kept within.
        spread_guess, spread_nodes: what the variance between nodes of the intercept is taken to be before
            any node is seen, as a share of the variance of one outcome on the scale of the score (logit:
            pi^2/3, so 0.15 is a standard deviation of 0.7 between sites), and the number of nodes that
            this guess weighs as much as.
        spread_least, spread_most: bounds of that variance.
        regression_rows: most packets that a regression reads; beyond it the standard error of a
            coefficient is far below the differences between nodes.
        boost_rows: most packets that boosting reads, for time.
        boost_trees, boost_rounds, boost_rate, boost_leaves, boost_leaf_rows, boost_bins: size of the
            boosted correction; each round re-linearises the loss.
        boost_trees_large: int = 50
    boost_own_least: own records from which boosting on own records is worth trying.
        neighbours: bandwidth grid of the kernel, in effective observations within reach.
        kernel_candidates: packets that one question looks at; a full cell holds 4,096.
        kernel_tuning_rows: packets used to choose among `neighbours`.
        kernel_prior: pseudo-observations of the overall rate that the kernel starts from.
        slope_sd: prior standard deviation of a recalibration slope around 1.
        tilt_sd: the same for the slope of what peers say before own records correct it; wider, since a wrong
            slope here costs only one calculation.
        contributors: nodes listed per answer.
        disagree_z: standardised distance beyond which a node's own outcomes near the question are
            said to disagree (1.96: one honest node in twenty by chance).
        disagree_least: effective observations a node needs near the question before that is said.
    """

    level: float = 0.90
    calculations: tuple[str, ...] = NAMES
    folds: int = 4
    folds_large: int = 5
    large_site: int = 8_000
    scored_rows: int = 6_000
    support_least: float = 5.0
    ridge_start: float = 0.1
    ridge_least: float = 1e-4
    ridge_most: float = 4.0
    spread_guess: float = 0.15
    spread_nodes: float = 4.0
    spread_least: float = 0.01
    spread_most: float = 4.0
    regression_rows: int = 40_000
    boost_rows: int = 40_000
    boost_trees: int = 30
    boost_rounds: int = 2
    boost_rate: float = 0.15
    boost_leaves: int = 31
    boost_leaf_rows: int = 20
    boost_bins: int = 64
    boost_trees_large: int = 50
    boost_own_least: int = 600
    neighbours: tuple[float, ...] = (20.0, 50.0, 120.0, 300.0)
    kernel_candidates: int = 2_048
    kernel_tuning_rows: int = 400
    kernel_prior: float = 2.0
    slope_sd: float = 0.3
    tilt_sd: float = 0.6
    contributors: int = 5
    disagree_z: float = 1.96
    disagree_least: float = 10.0
