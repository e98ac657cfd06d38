"""The same attacks on federated averaging, setting by setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from outroute.audit.accounting import noise_for
from outroute.audit.closed_form import record_of
from outroute.audit.inversion import Attack, Seen, available, invert
from outroute.audit.naming import Named
from outroute.audit.nets import HIDDEN, Net, Training, new_net, train
from outroute.audit.scores import FieldScale, decibel, psnr, ssim
from outroute.audit.updates import ROUNDS, Client, Federation, average

if TYPE_CHECKING:
    from outroute.audit.clients import Clients

__all__ = ["Inversion", "Plan", "federations", "inversions", "name_by_updates"]

EPOCHS = 5
"""Epochs of a realistic client in each round."""
REALISTIC_ROWS = 125
"""Records of the realistic client whose whole training is searched at most."""
CLIP = 1.0
"""Longest gradient of a record where clipping is on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is tried.

    Attributes:
        targets: single records.
        batches: batches of each size.
        iterations: of Geiping's search; None: its own number.
        restarts: of a search.
        realistic: steps of the search over a whole local training; 0: leave it out.
    """

    targets: int = 3
    batches: int = 2
    iterations: int | None = 400
    restarts: int = 1
    realistic: int = 60


def federations(classes: int, epsilon: float) -> dict[str, tuple[Federation, bool]]:
    """Settings of a federation that are attacked: how it is run, and whether only the sum of updates is seen.

    Args:
        classes: of the outcome.
        epsilon: of the setting with clipping and noise, for one subject over all rounds.
    """
    whole = Training(batch=0, rate=0.5)
    local = Training(epochs=EPOCHS)
    noisy = replace(whole, clip=CLIP, noise=noise_for(epsilon, ROUNDS))
    return {
        "one step": (Federation(classes=classes, rounds=1, training=whole), False),
        f"{ROUNDS} rounds": (Federation(classes=classes, training=whole), False),
        f"{ROUNDS} rounds, secure aggregation": (Federation(classes=classes, training=whole), True),
        f"{ROUNDS} rounds of {EPOCHS} epochs": (Federation(classes=classes, training=local), False),
        f"{ROUNDS} rounds of {EPOCHS} epochs, secure aggregation": (Federation(classes=classes, training=local), True),
        f"{ROUNDS} rounds of {EPOCHS} epochs, hidden layer": (
            Federation(classes=classes, hidden=HIDDEN, training=local),
            False,
        ),
        f"{ROUNDS} rounds, clipping and noise, epsilon {epsilon:g}": (
            Federation(classes=classes, training=noisy),
            False,
        ),
    }


def name_by_updates(clients: Clients, how: Federation, rng: np.random.Generator, *, aggregated: bool = False) -> Named:
    """An attacker with the list of all candidates solves for who trained: least squares over all rounds.

    A step over all records is the sum of their gradients, which the server can work out for every candidate: as many
    equations as weights, in every round. Several local steps make that approximate. As many are named as trained, which
    servers are told. Half of each site's subjects are in, so chance is one half.
    """
    inside = {n: rng.permutation(len(c.y)) < len(c.y) // 2 for n, c in clients.sites.items()}
    names = list(clients.sites)
    everybody = Client(
        x=np.vstack([clients.sites[n].x for n in names]),
        y=np.concatenate([clients.sites[n].y for n in names]),
        subject=np.zeros(0, dtype=np.int64),
    )
    gram: dict[str, NDArray[np.float64]] = {}
    sides: dict[str, NDArray[np.float64]] = {}

    def seen(net: Net, updates: Mapping[str, Net], sizes: Mapping[str, int]) -> None:
        total = sum(sizes.values())
        together = sum((u.times(sizes[n] / total) for n, u in updates.items()), net.times(0.0))
        parts = {"": (everybody, together)} if aggregated else {n: (clients.sites[n], u) for n, u in updates.items()}
        for name, (client, update) in parts.items():
            inputs, slopes = net.errors(client.x, client.y)
            # Inner products of gradients of linear layers are products of inner products.
            if name not in gram:
                gram[name], sides[name] = np.zeros((len(client.y), len(client.y))), np.zeros(len(client.y))
            for a, s in zip(inputs, slopes, strict=True):
                gram[name] += (a @ a.T + 1.0) * (s @ s.T)
            sides[name] -= net.along(client.x, client.y, update)

    average({n: c.take(inside[n]) for n, c in clients.sites.items()}, how, rng, seen=seen)
    right = wrong = members = number = 0
    for name, matrix in gram.items():
        truth = np.concatenate([inside[n] for n in names]) if aggregated else inside[name]
        ridge = 1e-9 * np.trace(matrix) / len(matrix)
        share = np.linalg.solve(matrix + ridge * np.eye(len(matrix)), sides[name])
        top = np.argsort(-share, kind="stable")[: int(truth.sum())]
        right, wrong = right + int(truth[top].sum()), wrong + int((~truth[top]).sum())
        members, number = members + int(truth.sum()), number + len(truth)
    return Named(
        named=right / max(members, 1),
        precision=right / max(right + wrong, 1),
        solved=1.0,
        candidates=number / max(len(gram), 1),
        chance=members / max(number, 1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inversion:
    """One attack in one setting, over several tries.

    Attributes:
        setting, attack: names.
        records: in one update.
        error: root of the mean squared error in standard deviations of a field; guesses are given to records as fits
            best.
        baseline: of the best guess that knows public statistics (class mean, or public rows given as fits best).
        advantage: decibel.
        psnr, baseline_psnr, ssim: for images; NaN for tables.
    """

    setting: str
    attack: str
    records: int
    error: float
    baseline: float
    advantage: float
    psnr: float
    baseline_psnr: float
    ssim: float

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        numbers = {"psnr": self.psnr, "baseline_psnr": self.baseline_psnr, "ssim": self.ssim}
        return {
            "setting": self.setting,
            "attack": self.attack,
            "records": self.records,
            "error": self.error,
            "baseline": self.baseline,
            "advantage_db": self.advantage,
        } | {name: None if np.isnan(value) else value for name, value in numbers.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """One update under attack: who is in it (site, rows), and how they trained."""

    rows: tuple[tuple[str, int], ...]
    how: Training
    alone: bool = False
    """Each record is a client of its own, and only the sum is seen."""


def inversions(
    clients: Clients,
    scale: FieldScale,
    rng: np.random.Generator,
    *,
    epsilon: float,
    plan: Plan | None = None,
    side: int = 0,
    step: Callable[[str, int, int], None] | None = None,
) -> list[Inversion]:
    """Search for records in updates of a network with one hidden layer.

    The closed form needs numpy only; DLG, iDLG and Geiping need torch, and are left out without it.

    Args:
        clients: all sites.
        scale: units of errors.
        rng: draws targets, weights, batches, noise.
        epsilon: of the setting with clipping and noise, over ``ROUNDS`` rounds.
        plan: how much is tried.
        side: points of an edge where records are square images; 0 for tables.
        step: told the setting, tries done and tries in all.
    """
    plan = plan or Plan()
    pairs = [(name, row) for name, client in clients.sites.items() for row in range(len(client.y))]

    def some(count: int, site: str | None = None) -> tuple[tuple[str, int], ...]:
        pool = [pair for pair in pairs if site is None or pair[0] == site]
        return tuple(pool[i] for i in rng.permutation(len(pool))[:count].tolist())

    one = Training(batch=0)
    noisy = replace(one, clip=CLIP, noise=noise_for(epsilon, ROUNDS))
    full = [name for name, client in clients.sites.items() if len(client.y) >= 8] or list(clients.sites)
    many = min(8, len(clients.sites)) if len(clients.sites) > 1 else 0
    searches: tuple[Attack | None, ...] = (None, *(tuple(Attack) if available() else ()))
    geiping: tuple[Attack | None, ...] = (Attack.GEIPING,) if available() else ()
    settings: list[tuple[str, list[_Try], tuple[Attack | None, ...]]] = [
        ("one record, one step", [_Try(rows=some(1), how=one) for _ in range(plan.targets)], searches),
        (
            f"one record, one step, clipping and noise, epsilon {epsilon:g}",
            [_Try(rows=some(1), how=noisy) for _ in range(plan.targets)],
            (None, *geiping),
        ),
    ]
    for size in (4, 8):
        tries = [_Try(rows=some(size, str(rng.choice(full))), how=one) for _ in range(plan.batches)]
        settings.append((f"{size} records, one step", tries, (*geiping, *((Attack.IDLG,) if available() else ()))))
    if many:
        tries = []
        for _ in range(plan.batches):
            chosen = rng.permutation(full)[:many].tolist()
            tries.append(_Try(rows=tuple(pair for name in chosen for pair in some(1, name)), how=one, alone=True))
        settings.append(("secure aggregation over sites with one record each", tries, geiping))
    if plan.realistic:
        rows = some(REALISTIC_ROWS, max(full, key=lambda name: len(clients.sites[name].y)))
        settings.append((f"a whole site, {EPOCHS} epochs", [_Try(rows=rows, how=Training(epochs=EPOCHS))], geiping))
    out = []
    total = sum(len(tries) * len(attacks) for _, tries, attacks in settings)
    done = 0
    for setting, tries, attacks in settings:
        for attack in attacks:
            found = []
            for number, this in enumerate(tries):
                if step is not None:
                    step(f"{setting}: {attack.value if attack else 'closed form'}", done, total)
                found.append(_attacked(clients, scale, this, attack, number, rng, plan, side))
                done += 1
            if found:
                out.append(_row(setting, attack.value if attack else "closed form", tries, found))
    return out


_Found = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Records, guesses given to them, class means, public rows given to them."""


def _attacked(
    clients: Clients,
    scale: FieldScale,
    this: _Try,
    attack: Attack | None,
    number: int,
    rng: np.random.Generator,
    plan: Plan,
    side: int,
) -> tuple[_Found, tuple[NDArray[np.float64], ...]]:
    x = np.vstack([clients.sites[name].x[row] for name, row in this.rows])
    y = np.array([clients.sites[name].y[row] for name, row in this.rows])
    truth = np.vstack([clients.x[name][row] for name, row in this.rows])
    net = new_net(x.shape[1], clients.classes, np.random.default_rng([number, len(y)]))
    order = np.random.default_rng([number, len(y), 1])
    if this.alone:
        updates = [train(net, x[i : i + 1], y[i : i + 1], this.how, order) - net for i in range(len(y))]
        update = sum(updates, net.times(0.0)).times(1 / len(y))
    else:
        update = train(net, x, y, this.how, order) - net
    if attack is None:
        seen = record_of(update.times(-1 / this.how.rate))[None, :]
        seen = np.clip(seen, clients.low, clients.high)
    else:
        whole = len(y) > 16
        seen = invert(
            Seen(
                net=net,
                update=update,
                training=replace(this.how, clip=0.0, noise=0.0),
                labels=y,
                low=clients.low,
                high=clients.high,
                side=side,
            ),
            attack,
            number,
            iterations=plan.realistic if whole else plan.iterations if attack is Attack.GEIPING else None,
            restarts=1 if whole else plan.restarts,
        )
    guess = clients.back(seen)
    means, rows = _public(clients, y, this.rows, rng)
    parts: _Found = (truth, _given(scale, truth, guess), means, _given(scale, truth, rows))
    return parts, tuple(scale.errors(truth, part) for part in parts[1:])


def _public(
    clients: Clients, y: NDArray[np.int64], inside: Sequence[tuple[str, int]], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Class means, and as many rows of the same classes, of everybody who is not in the update."""
    out = {name: np.ones(len(part), dtype=bool) for name, part in clients.x.items()}
    for name, row in inside:
        out[name][row] = False
    x = np.vstack([part[out[name]] for name, part in clients.x.items()])
    label = np.concatenate([client.y[out[name]] for name, client in clients.sites.items()])
    if not len(x):  # everybody is in it
        x, label = np.vstack(list(clients.x.values())), np.concatenate([c.y for c in clients.sites.values()])
    filled = np.where(np.isnan(x), np.nan_to_num(np.nanmean(x, axis=0)) if len(x) else 0.0, x)
    means = np.vstack([filled[label == c].mean(axis=0) if (label == c).any() else filled.mean(axis=0) for c in y])
    rows = [int(rng.choice(np.flatnonzero(label == c))) if (label == c).any() else int(rng.integers(len(x))) for c in y]
    return means, filled[rows]


def _given(scale: FieldScale, truth: NDArray[np.float64], guess: NDArray[np.float64]) -> NDArray[np.float64]:
    """Guesses in the order of the records that they fit best; one guess for all stays as it is."""
    if len(guess) == 1:
        return np.repeat(guess, len(truth), axis=0)
    cost = np.stack([scale.errors(truth, np.tile(one, (len(truth), 1))) for one in guess], axis=1)
    rows, columns = linear_sum_assignment(np.nan_to_num(cost))
    out = np.empty_like(guess)
    out[rows] = guess[columns]
    return out


def _row(
    setting: str, attack: str, tries: Sequence[_Try], found: Sequence[tuple[_Found, tuple[NDArray[np.float64], ...]]]
) -> Inversion:
    error, means, rows = (float(np.nanmean(np.concatenate([e[i] for _, e in found]))) for i in range(3))
    base = min(means, rows)
    which = 2 if means <= rows else 3
    truth, guess = (np.vstack([parts[i] for parts, _ in found]) for i in (0, 1))
    public = np.vstack([parts[which] for parts, _ in found])
    width = truth.shape[1]
    side = int(np.sqrt(width))
    image = side * side == width and side >= 7 and not np.isnan(truth).any()
    nan = float("nan")
    return Inversion(
        setting=setting,
        attack=attack,
        records=len(tries[0].rows),
        error=float(np.sqrt(error)),
        baseline=float(np.sqrt(base)),
        advantage=decibel(base, error),
        psnr=float(psnr(truth, guess).mean()) if image else nan,
        baseline_psnr=float(psnr(truth, public).mean()) if image else nan,
        ssim=float(ssim(truth, guess, side).mean()) if image else nan,
    )
