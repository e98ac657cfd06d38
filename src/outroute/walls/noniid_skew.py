"""How different the sites of a table are: in what happens, in what they see, and in sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.trial import Prepared, inner_folds
from outroute.trial.metrics import auc
from outroute.trial.parallel import single_threaded
from outroute.walls.noniid_partitions import labels_of

__all__ = ["SHUFFLES", "label_distance", "site_auc", "skew"]

SHUFFLES = 20
"""Times that rows are dealt to the sites at random, to see what distance chance alone gives."""
CLASSIFIER_ROWS = 4_000
"""Rows at most from which the site is guessed; it fixes an AUC to about 0.01."""
CLASSIFIER_FOLDS = 3
"""Parts of the cross-validation of that guess."""


def label_distance(labels: NDArray[np.int64], site: NDArray[np.int64]) -> float:
    """Mean over sites of the total variation distance between a site's shares of classes and those of all rows, 0 to 1.

    Args:
        labels: int64[n], classes.
        site: int64[n].
    """
    counts = np.zeros((int(site.max()) + 1, int(labels.max()) + 1))
    np.add.at(counts, (site, labels), 1.0)
    counts = counts[counts.sum(axis=1) > 0]
    shares = counts / counts.sum(axis=1, keepdims=True)
    everybody = counts.sum(axis=0) / counts.sum()
    return float(np.abs(shares - everybody).sum(axis=1).mean() / 2)


def site_auc(x: NDArray[np.float64], site: NDArray[np.int64], group: NDArray[np.int64], seed: int) -> float | None:
    """How well a row's conditions tell its site: mean AUC of one site against the others, cross-validated.

    0.5: not at all; 1: entirely. Missing values count as conditions, since a model sees them too. None with one site,
    or where rows cannot be held out.

    Args:
        x: float64[n, D], unit scale, NaN where missing.
        site: int64[n].
        group: int64[n], rows of one group stay together.
        seed: draws the rows and folds.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng([seed, 0x517E])
    kept = rng.permutation(len(x))[:CLASSIFIER_ROWS]
    x, site, group = x[kept].copy(), site[kept], group[kept]
    x[:, np.isnan(x).all(axis=0)] = 0.0
    names, site = np.unique(site, return_inverse=True)
    folds = inner_folds(group, CLASSIFIER_FOLDS, rng)
    if len(names) < 2 or not folds:
        return None
    said = np.zeros((len(x), len(names)))
    with single_threaded():
        for train, valid in folds:
            fitted = HistGradientBoostingClassifier(
                max_iter=30, max_leaf_nodes=8, early_stopping=False, random_state=seed % 2**31
            ).fit(x[train], site[train])
            said[np.ix_(valid, fitted.classes_)] = fitted.predict_proba(x[valid])
    return auc(site.astype(np.float64), said)


def skew(prepared: Prepared, seed: int) -> dict[str, Any]:
    """All measures of one table, as JSON."""
    data = prepared.dataset
    names, site = np.unique(data.site.astype(str), return_inverse=True)
    labels = labels_of(data)
    rng = np.random.default_rng([seed, 0x5C3])
    by_chance = [label_distance(labels, rng.permutation(site)) for _ in range(SHUFFLES)]
    values = labels if not prepared.classes else prepared.y
    level = {}
    for number, name in enumerate(names.tolist()):
        mine = site == number
        level[name] = float((values[mine] == 1).mean() if prepared.classes == 2 else prepared.y[mine].mean())
    sizes = np.bincount(site)
    return {
        "sites": len(names),
        "rows": {name: int(size) for name, size in zip(names.tolist(), sizes.tolist(), strict=True)},
        "label": label_distance(labels, site),
        "label_chance": float(np.mean(by_chance)),
        "feature_auc": site_auc(prepared.x, site, prepared.group, seed),
        "level": level if prepared.classes in (0, 2) else {},
    }
