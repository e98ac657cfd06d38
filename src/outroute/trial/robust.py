"""Federated learning of a linear model among clients some of whom lie, under rules that are meant to stand that.

The rules are those of `outroute.trial.robust_rules`. Clients, model and tuning are those of federated averaging here
(`outroute.trial.federated`), all clients in every round.

What is in favour of the rules: they are told how many attackers there are, means and deviations for standard scores
come from honest clients only, and settings are tuned without any attack, on held-out records of all honest sites
(a server with records of its own: on held-out ones of these).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.trial.estimators import Layout, Model, Moments, moments, standard
from outroute.trial.federated import LOCAL_STEPS, ROUNDS, linear_model
from outroute.trial.fold import Fold
from outroute.trial.parallel import single_threaded
from outroute.trial.recalibrate import recalibration
from outroute.trial.robust_rules import Liar, Rule, Weights
from outroute.trial.splits import inner_folds
from outroute.trial.tuning import INNER_FOLDS, SELECTION_ROWS, TUNING_TRIALS, cross_fit, join, loss, strengths

__all__ = ["DIVERGED", "ROOTED_ROUNDS", "Client", "Setting", "predictions", "robust", "tuned", "validated"]

ROOTED_ROUNDS = (5, 15, ROUNDS)
"""Rounds that a server with records of its own may choose from: with many, a convex model ends where these records
alone would take it, and its clients have said nothing."""
DIVERGED = 1e6
"""A weight above this, in deviations of the outcome: liars have driven the training away, and the last model before
that stands. For numbers only, whose squared errors have no bound; long before, all answers are out of any range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client; `liar` makes it an attacker on updates too, beside whatever its records say."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    hostile: bool = False
    liar: Liar | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the tuning chose: strength C, gradient steps per round, and rounds."""

    strength: float
    local_steps: int
    rounds: int = ROUNDS


def robust(
    clients: Sequence[Client],
    rule: Rule,
    *,
    layout: Layout,
    classes: int,
    setting: Setting,
    rng: np.random.Generator,
    root: Client | None = None,
) -> Model:
    """A linear model learnt by `clients` under `rule`.

    Args:
        clients: honest ones and attackers; those without records take no part.
        rule: puts weights together.
        layout: of the schema.
        classes: number of classes, 0 for numbers, whose mean and deviation come from honest clients too.
        setting: strength, local steps and rounds.
        rng: for liars who draw.
        root: the server's own records, for rules that have them.

    Raises:
        DataError: no honest client with records (`trial.robust`).
    """
    clients = [client for client in clients if len(client.y)]
    honest = np.array([not client.hostile for client in clients], dtype=bool)
    if not honest.any():
        raise DataError(
            "robust rules are compared with a client that is honest, and there is none", code="trial.robust"
        )
    sums: Moments = sum_of([moments(client.x) for client in clients if not client.hostile])
    scores = standard(layout, sums)
    everyone = [*clients, root] if root is not None and len(root.y) else clients
    centre, spread = 0.0, 1.0
    if not classes:
        seen = np.concatenate([client.y for client in clients if not client.hostile])
        centre, spread = float(seen.mean()), float(seen.std()) or 1.0
    targets = [(client.y - centre) / spread for client in everyone]
    stack = _Stack([scores(client.x) for client in everyone], targets, classes)
    rows, n = stack.rows[: len(clients)], len(clients)
    total = int(rows[honest].sum())
    penalty = 1 / (setting.strength * total)
    common = float((rows * stack.curvature[:n])[honest].sum()) / total
    rate = (1 / (np.maximum(common, stack.curvature) + penalty)).astype(np.float32)
    shared: Weights = np.zeros((stack.features, stack.outputs), dtype=np.float32)
    with single_threaded():
        for number in range(1, setting.rounds + 1):
            new = stack.step(shared, penalty, rate, setting.local_steps)
            sent = new[:n].copy()
            for i, client in enumerate(clients):
                if client.liar is not None:
                    sent[i] = client.liar(shared, new[i], new[:n][honest], rng)
            after = rule(number, shared, sent, rows, new[n] if len(everyone) > n else shared)
            if not classes and not np.abs(after).max() < DIVERGED:
                break
            shared = after
    return linear_model(scores, shared.astype(np.float64), classes, centre, spread)


def sum_of(parts: Sequence[Moments]) -> Moments:
    """Moments added up."""
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out


class _Stack:
    """All clients' records in one array, so that a round takes a few matrix products and no loop over clients."""

    def __init__(self, z: Sequence[NDArray[np.float64]], y: Sequence[NDArray[np.float64]], classes: int) -> None:
        self.rows = np.array([len(part) for part in y], dtype=np.int64)
        self.classes = classes
        self.features, self.outputs = z[0].shape[1] + 1, classes if classes > 2 else 1
        shape = (len(z), int(self.rows.max()))
        self.z = np.zeros((*shape, self.features), dtype=np.float32)
        self.target = np.zeros((*shape, self.outputs), dtype=np.float32)
        self.mask = np.zeros((*shape, 1), dtype=np.float32)
        for i, (part, seen) in enumerate(zip(z, y, strict=True)):
            n = len(seen)
            self.z[i, :n, 0], self.z[i, :n, 1:], self.mask[i, :n] = 1.0, part, 1.0
            self.target[i, :n] = np.eye(classes)[seen.astype(np.int64)] if classes > 2 else seen[:, None]
        self.turned = np.ascontiguousarray(self.z.transpose(0, 2, 1))
        grams = (self.turned @ self.z).astype(np.float64) / self.rows[:, None, None]
        self.curvature = {0: 1.0, 2: 0.25}.get(classes, 0.5) * np.linalg.eigvalsh(grams)[:, -1]

    def step(self, shared: Weights, penalty: float, rate: NDArray[np.float32], steps: int) -> Weights:
        """Each client's weights after `steps` gradient steps from `shared`, float32[n, features, outputs]."""
        weights = np.repeat(shared[None], len(self.rows), axis=0)
        scale = (1 / self.rows).astype(np.float32)[:, None, None]
        for _ in range(steps):
            said = self.z @ weights
            error = ((_link(said) if self.classes else said) - self.target) * self.mask
            slope = (self.turned @ error) * scale
            slope[:, 1:] += np.float32(penalty) * weights[:, 1:]
            weights -= rate[:, None, None] * slope
        return weights


def _link(value: NDArray[np.float32]) -> NDArray[np.float32]:
    if value.shape[-1] == 1:
        return 0.5 + 0.5 * np.tanh(0.5 * value)  # type: ignore[no-any-return]
    power = np.exp(value - value.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def tuned(fold: Fold, rule: Callable[[int], Rule], *, root: str | None = None) -> Setting:
    """The setting of `validated`."""
    return validated(fold, rule, root=root)[0]


def validated(
    fold: Fold, rule: Callable[[int], Rule], *, root: str | None = None
) -> tuple[Setting, Mapping[str, float]]:
    """A setting by inner validation, nobody lying, with everybody's budget.

    Without a root: strength and local steps, validated at all honest sites. With one: strength, local steps and
    rounds, validated at the root's site, which is the one that it serves.

    Args:
        fold: the split.
        rule: makes the rule for a number of clients.
        root: the site whose records the server has, if any.

    Returns:
        The setting, and its mean loss on held-out records at each site that was judged.
    """
    layout = Layout.of(fold.schema)
    grid = [
        Setting(strength=c, local_steps=steps)
        for c in strengths(TUNING_TRIALS // len(LOCAL_STEPS))
        for steps in LOCAL_STEPS
    ]
    if root is not None:
        middle = strengths(4)[1:3]
        grid = [
            Setting(strength=c, local_steps=steps, rounds=rounds)
            for c in middle
            for steps in LOCAL_STEPS[:2]
            for rounds in ROOTED_ROUNDS
        ]
    x, y, group = join(fold.train)
    sites = list(fold.train)
    of_site = np.repeat(np.arange(len(sites)), [len(rows) for rows in fold.train.values()])
    losses = np.zeros(len(grid))
    at_site, count = np.zeros((len(grid), len(sites))), np.zeros(len(sites))
    for train, valid in inner_folds(group, INNER_FOLDS, fold.rng("robust"), most_rows=SELECTION_ROWS):
        parts = {site: train[of_site[train] == i] for i, site in enumerate(sites)}
        clients = [Client(x=x[rows], y=y[rows]) for rows in parts.values() if len(rows)]
        own = None if root is None else Client(x=x[parts[root]], y=y[parts[root]])
        judged = valid if root is None else valid[of_site[valid] == sites.index(root)]
        if not len(judged):
            continue
        for i, setting in enumerate(grid):
            model = robust(
                clients,
                rule(len(clients)),
                layout=layout,
                classes=fold.classes,
                setting=setting,
                rng=fold.rng("robust, nobody lies"),
                root=own,
            )
            said = model(x[judged])
            losses[i] += len(judged) * loss(y[judged], said, fold.classes)
            for number in np.unique(of_site[judged]):
                mine = of_site[judged] == number
                at_site[i, number] += mine.sum() * loss(y[judged][mine], said[mine], fold.classes)
        count += np.bincount(of_site[judged], minlength=len(sites))
    best = int(np.argmin(losses))
    return grid[best], {site: float(at_site[best, i] / count[i]) for i, site in enumerate(sites) if count[i]}


def predictions(
    fold: Fold,
    attackers: Sequence[Client],
    rule: Rule,
    setting: Setting,
    *,
    sites: Sequence[str],
    root: str | None = None,
) -> Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Answers to the test cases of `sites`, as they are and recalibrated on each site's own records.

    Args:
        fold: the split; all its sites are honest clients.
        attackers: stand beside them, in the cross-fitting for recalibration too.
        rule: puts weights together.
        setting: of `tuned`.
        sites: who asks.
        root: the site whose records the server has, if any.
    """
    layout = Layout.of(fold.schema)

    def fit_on(mask: Mapping[str, NDArray[np.bool_]]) -> Model:
        honest = {s: Client(x=rows.x[mask[s]], y=rows.y[mask[s]]) for s, rows in fold.train.items()}
        return robust(
            [*honest.values(), *attackers],
            rule,
            layout=layout,
            classes=fold.classes,
            setting=setting,
            rng=fold.rng("liars"),
            root=None if root is None else honest[root],
        )

    model = fit_on({site: np.ones(len(rows), dtype=bool) for site, rows in fold.train.items()})
    before = cross_fit(fold.train, fit_on, fold.rng("robust, recalibrated"))
    out = {}
    for site in sites:
        plain = model(fold.test[site].x)
        out[site] = (plain, recalibration(before[site], fold.train[site].y, fold.classes)(plain))
    return out
