"""Searching for records in the updates of a federation: what is searched, how hard, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from outroute.audit.accounting import noise_for
from outroute.audit.closed_form import record_of, record_of_largest
from outroute.audit.convolution import convolutional, trained
from outroute.audit.federated import CLIP, EPOCHS
from outroute.audit.inversion import Attack, Seen, available, invert
from outroute.audit.nets import Training, new_net, train
from outroute.audit.scores import FieldScale, decibel, decibel_bounds, psnr, ssim
from outroute.audit.updates import ROUNDS, largest

if TYPE_CHECKING:
    from outroute.audit.clients import Clients

__all__ = [
    "CONVOLUTION",
    "Inversion",
    "Plan",
    "Search",
    "Tried",
    "Try",
    "inversions",
    "search",
    "searches_of",
]

CONVOLUTION = "one record, one step, a convolutional network"
"""Name of that setting."""
REALISTIC_ROWS = 125
"""Records of the realistic client whose whole training is searched at most."""


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
        bounds: its interval, over the updates (over the records of a single one); None where there is none.
        psnr, baseline_psnr, ssim: for images; NaN for tables.
    """

    setting: str
    attack: str
    records: int
    error: float
    baseline: float
    advantage: float
    bounds: tuple[float, float] | None
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
            "advantage_db_bounds": None if self.bounds is None else list(self.bounds),
        } | {name: None if np.isnan(value) else value for name, value in numbers.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One update under attack.

    Attributes:
        rows: who is in it, as site and row.
        how: how they trained.
        alone: each record is a client of its own, and only the sum is seen.
        top: share of the update's entries that is sent, the largest.
        convolution: the model is a small convolutional network; for images only.
    """

    rows: tuple[tuple[str, int], ...]
    how: Training
    alone: bool = False
    top: float = 1.0
    convolution: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One setting: updates under attack, and the attacks; None is the closed form."""

    setting: str
    tries: tuple[Try, ...]
    attacks: tuple[Attack | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One attack in one setting, with what a picture shows.

    Attributes:
        found: figures.
        truth: float64[n, D], the records of all tries, conditions in unit scale.
        guess: float64[n, D], what the attack takes them for.
        gain: float64[n], decibel of each record above its own public guess.
    """

    found: Inversion
    truth: NDArray[np.float64]
    guess: NDArray[np.float64]
    gain: NDArray[np.float64]


def searches_of(
    clients: Clients, rng: np.random.Generator, *, epsilon: float, plan: Plan, top: float = 1.0, side: int = 0
) -> list[Search]:
    """What is searched: one record, batches, sums of single records, a whole site, with clipping and noise.

    Where records are images, the same single records are also searched for in updates of a convolutional network.

    Args:
        clients: all sites.
        rng: draws who is in.
        epsilon: of the setting with clipping and noise, over ``ROUNDS`` rounds.
        plan: how much is tried.
        top: below 1, also updates of which only this share of the entries is sent.
        side: points of an edge where records are square images; 0 for tables.
    """
    pairs = [(name, row) for name, client in clients.sites.items() for row in range(len(client.y))]

    def some(count: int, site: str | None = None) -> tuple[tuple[str, int], ...]:
        pool = [pair for pair in pairs if site is None or pair[0] == site]
        return tuple(pool[i] for i in rng.permutation(len(pool))[:count].tolist())

    one = Training(batch=0)
    noisy = replace(one, clip=CLIP, noise=noise_for(epsilon, ROUNDS))
    full = [name for name, client in clients.sites.items() if len(client.y) >= 8] or list(clients.sites)
    many = min(8, len(clients.sites)) if len(clients.sites) > 1 else 0
    every: tuple[Attack | None, ...] = (None, *(tuple(Attack) if available() else ()))
    geiping: tuple[Attack | None, ...] = (Attack.GEIPING,) if available() else ()
    single = tuple(Try(rows=some(1), how=one) for _ in range(plan.targets))
    out = [
        Search(setting="one record, one step", tries=single, attacks=every),
        Search(
            setting=f"one record, one step, clipping and noise, epsilon {epsilon:g}",
            tries=tuple(Try(rows=some(1), how=noisy) for _ in range(plan.targets)),
            attacks=(None, *geiping),
        ),
    ]
    for size in (4, 8):
        tries = tuple(Try(rows=some(size, str(rng.choice(full))), how=one) for _ in range(plan.batches))
        found: tuple[Attack | None, ...] = (*geiping, *((Attack.IDLG,) if available() else ()))
        out.append(Search(setting=f"{size} records, one step", tries=tries, attacks=found))
    if many:
        together = []
        for _ in range(plan.batches):
            chosen = rng.permutation(full)[:many].tolist()
            rows = tuple(pair for name in chosen for pair in some(1, name))
            together.append(Try(rows=rows, how=one, alone=True))
        name = "secure aggregation over sites with one record each"
        out.append(Search(setting=name, tries=tuple(together), attacks=geiping))
    if plan.realistic:
        rows = some(REALISTIC_ROWS, max(full, key=lambda name: len(clients.sites[name].y)))
        whole = Try(rows=rows, how=Training(epochs=EPOCHS))
        out.append(Search(setting=f"a whole site, {EPOCHS} epochs", tries=(whole,), attacks=geiping))
    if top < 1.0:
        cut = tuple(replace(this, top=top) for this in single)
        name = f"one record, one step, the largest {100 * top:g} % of the update"
        out.append(Search(setting=name, tries=cut, attacks=(None, *geiping)))
    if side and available():
        seen = tuple(replace(this, convolution=True) for this in single)
        out.append(Search(setting=CONVOLUTION, tries=seen, attacks=tuple(Attack)))
    return out


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
    searches = searches_of(clients, rng, epsilon=epsilon, plan=plan)
    total = sum(len(one.tries) * len(one.attacks) for one in searches)
    done = 0
    out = []
    for one in searches:
        for attack in one.attacks:
            if step is not None:
                step(f"{one.setting}: {attack.value if attack else 'closed form'}", done, total)
            found = search(clients, scale, one, attack, rng, plan=plan, side=side)
            done += len(one.tries)
            if found is not None:
                out.append(found.found)
    return out


def search(
    clients: Clients,
    scale: FieldScale,
    one: Search,
    attack: Attack | None,
    rng: np.random.Generator,
    *,
    plan: Plan,
    side: int = 0,
) -> Tried | None:
    """One attack in one setting; None where there is nothing to try. Arguments as for :func:`inversions`."""
    found = [_attacked(clients, scale, this, attack, number, rng, plan, side) for number, this in enumerate(one.tries)]
    if not found:
        return None
    truth, guess = (np.vstack([parts[i] for parts, _ in found]) for i in (0, 1))
    error, means, rows = (np.concatenate([errors[i] for _, errors in found]) for i in range(3))
    public = means if np.nanmean(means) <= np.nanmean(rows) else rows
    return Tried(
        found=_row(one.setting, attack.value if attack else "closed form", one.tries, found),
        truth=truth,
        guess=guess,
        gain=np.asarray(10 * np.log10(np.maximum(public, 1e-12) / np.maximum(error, 1e-12))),
    )


_Found = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Records, guesses given to them, class means, public rows given to them."""


def _attacked(
    clients: Clients,
    scale: FieldScale,
    this: Try,
    attack: Attack | None,
    number: int,
    rng: np.random.Generator,
    plan: Plan,
    side: int,
) -> tuple[_Found, tuple[NDArray[np.float64], ...]]:
    x = np.vstack([clients.sites[name].x[row] for name, row in this.rows])
    y = np.array([clients.sites[name].y[row] for name, row in this.rows])
    truth = np.vstack([clients.x[name][row] for name, row in this.rows])
    draw = np.random.default_rng([number, len(y)])
    net = convolutional(side, clients.classes, draw) if this.convolution else new_net(x.shape[1], clients.classes, draw)
    order = np.random.default_rng([number, len(y), 1])
    if this.convolution:
        update = trained(net, x, y, this.how)
    elif this.alone:
        updates = [train(net, x[i : i + 1], y[i : i + 1], this.how, order) - net for i in range(len(y))]
        update = sum(updates, net.times(0.0)).times(1 / len(y))
    else:
        update = train(net, x, y, this.how, order) - net
    if this.top < 1.0:
        update = largest(update, this.top)
    if attack is None:
        gradient = update.times(-1 / this.how.rate)
        seen = (record_of(gradient) if this.top >= 1.0 else record_of_largest(gradient))[None, :]
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
                sparse=this.top < 1.0,
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
    setting: str, attack: str, tries: Sequence[Try], found: Sequence[tuple[_Found, tuple[NDArray[np.float64], ...]]]
) -> Inversion:
    errors = [np.concatenate([e[i] for _, e in found]) for i in range(3)]
    error, means, rows = (float(np.nanmean(of)) for of in errors)
    base = min(means, rows)
    update = np.repeat(np.arange(len(found)), [len(e[0]) for _, e in found])
    if len(found) == 1:
        update = np.arange(len(errors[0]))
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
        bounds=decibel_bounds(errors[1 if means <= rows else 2], errors[0], update),
        psnr=float(psnr(truth, guess).mean()) if image else nan,
        baseline_psnr=float(psnr(truth, public).mean()) if image else nan,
        ssim=float(ssim(truth, guess, side).mean()) if image else nan,
    )
