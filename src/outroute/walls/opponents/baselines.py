"""What is always shown beside federated learning, and cannot win: pooled with site id, and one-shot averaging.

The other baselines (site majority, each site alone, pooled) are those of `outroute.trial`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from outroute.trial import Answer, Fold, Method, Named, SiteOut
from outroute.trial.estimators import Layout, Model
from outroute.trial.federated import Federated, federated
from outroute.trial.tuning import TUNING_TRIALS, choose, join, linear_family, strengths
from outroute.walls.opponents.sites import inner, inner_masks, site_loss

__all__ = ["ONE_SHOT_STEPS", "one_shot", "pooled_site"]

ONE_SHOT_STEPS = 300
"""Gradient steps of a site on its own before the one average: its logistic regression has converged by then."""

Arrays = NDArray[np.float64]


def pooled_site() -> Method:
    """All records in one place, the site as one more condition: linear."""

    def answer(fold: Fold) -> Answer:
        sites = list(fold.train)
        plain = Layout.of(fold.schema)
        width = len(plain.numeric)
        layout = Layout(
            first=np.concatenate([plain.first, [width]]).astype(np.int64),
            numeric=np.concatenate([plain.numeric, np.zeros(len(sites), dtype=bool)]),
        )

        def named(x: Arrays, at: NDArray[np.int64]) -> Arrays:
            return np.concatenate([x, np.eye(len(sites))[at]], axis=1)

        x, y, group = join(fold.train)
        x = named(x, np.repeat(np.arange(len(sites)), [len(rows) for rows in fold.train.values()]))
        best = choose(linear_family(layout), x, y, group, fold.classes, fold.rng("walls: pooled with site"))
        model = best.refit(x, y, fold.classes)
        predictions = {
            site: model(named(cases.x, np.full(len(cases), sites.index(site)))) for site, cases in fold.test.items()
        }
        out = {site: SiteOut(records_out=len(rows)) for site, rows in fold.train.items()}
        return Answer(predictions=predictions, out=out, details={"chosen": best.name})

    return Named("pooled_site", answer)


def one_shot() -> Method:
    """Every site fits a linear model until it has converged; the server averages once."""

    def answer(fold: Fold) -> Answer:
        train, _ = inner_masks(fold)
        part = inner(fold)
        layout = Layout.of(fold.schema)

        def fit(strength: float, keep: Mapping[str, NDArray[np.bool_]] | None) -> Federated:
            rows = {
                site: (r.x, r.y) if keep is None else (r.x[keep[site]], r.y[keep[site]])
                for site, r in fold.train.items()
            }
            return federated(
                rows, layout=layout, classes=fold.classes, strength=strength, local_steps=ONE_SHOT_STEPS, rounds=1
            )

        def judged(model: Model) -> float:
            return site_loss({site: model(x) for site, x in part.x.items()}, part.y, fold.classes)

        losses = [judged(fit(strength, train).model) for strength in strengths(TUNING_TRIALS)]
        best = int(np.argmin(losses))
        fitted = fit(strengths(TUNING_TRIALS)[best], None)
        return Answer(
            predictions={site: fitted.model(cases.x) for site, cases in fold.test.items()},
            out={site: SiteOut(bytes_out=fitted.bytes_up) for site, rows in fold.train.items() if len(rows)},
            details={"chosen": f"linear, C {strengths(TUNING_TRIALS)[best]:.3g}", "validation": losses[best]},
        )

    return Named("one_shot", answer)
