"""Membership inference on the updates of federated averaging: the same question, the same judge as for packets.

The attacker is the server: it knows the weights before every round, and sees each site's update, or, with secure
aggregation, only their sum. Half of the subjects of every site are drawn in, again and again.

Source: Carlini et al. 2022 for the likelihood ratio; Nasr, Shokri, Houmansadr, "Comprehensive Privacy Analysis of Deep
Learning" (IEEE S&P 2019), section II, and Li et al., "Effective Passive Membership Inference Attacks in Federated
Learning" (2022), for what an update is asked: how far it goes along a record's gradient, and how its loss falls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from outroute.audit.membership import Pairs, half_in, likelihood_ratio
from outroute.audit.nets import Net, Training, new_net, train

__all__ = ["Client", "WHOLE", "Federation", "average", "largest", "update_pairs"]

ROUNDS = 20
"""Rounds of a federation here."""
WHOLE = Training(batch=0, rate=0.5)
"""A round that is one step over all of a client's records."""
LEAST_ROWS = 8
"""Sites with fewer records are trained on but not attacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One site as its model sees it.

    Attributes:
        x: float64[n, D], finite (standard scores).
        y: int64[n], classes.
        subject: int64[n].
    """

    x: NDArray[np.float64]
    y: NDArray[np.int64]
    subject: NDArray[np.int64]

    def take(self, which: NDArray[np.bool_]) -> Client:
        """Only some rows."""
        return Client(x=self.x[which], y=self.y[which], subject=self.subject[which])


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """How a federation is run.

    Attributes:
        classes: of the outcome.
        hidden: units of the hidden layer; 0: logistic regression.
        rounds: of averaging.
        training: of a client in one round.
        top: share of the entries of an update that are sent, the largest; the rest is kept for the next round. 1: all.
    """

    classes: int
    hidden: int = 0
    rounds: int = ROUNDS
    training: Training = field(default_factory=Training)
    top: float = 1.0


def largest(update: Net, share: float) -> Net:
    """The largest entries of an update, others zero. Source: Lin, Han, Mao, Wang, Dally, "Deep Gradient Compression"
    (ICLR 2018), section 3.1 (what is not sent is added to the next update by :func:`average`)."""
    flat = update.flat()
    keep = max(1, round(share * flat.size))
    cut = np.partition(np.abs(flat), -keep)[-keep]
    return update.like(np.where(np.abs(flat) >= cut, flat, 0.0))


def average(
    clients: Mapping[str, Client],
    how: Federation,
    rng: np.random.Generator,
    *,
    start: Net | None = None,
    seen: Callable[[Net, Mapping[str, Net], Mapping[str, int]], None] | None = None,
) -> Net:
    """Federated averaging. Source: McMahan et al. 2017, algorithm 1.

    Args:
        clients: by site.
        how: rounds and training.
        rng: of batches and noise.
        start: weights before the first round; None: new ones.
        seen: told in every round the weights before, each site's update, and each site's records.
    """
    width = next(iter(clients.values())).x.shape[1]
    net = start or new_net(width, how.classes, rng, hidden=how.hidden)
    sizes = {name: len(client.y) for name, client in clients.items()}
    total = sum(sizes.values())
    kept: dict[str, Net] = {}
    for _ in range(how.rounds):
        updates = {name: train(net, c.x, c.y, how.training, rng) - net for name, c in clients.items() if len(c.y)}
        if how.top < 1.0:
            whole = {name: update + kept.get(name, net.times(0.0)) for name, update in updates.items()}
            updates = {name: largest(update, how.top) for name, update in whole.items()}
            kept = {name: update - updates[name] for name, update in whole.items()}
        if seen is not None:
            seen(net, updates, sizes)
        for name, update in updates.items():
            net = net + update.times(sizes[name] / total)
    return net


def update_pairs(
    clients: Mapping[str, Client],
    how: Federation,
    rng: np.random.Generator,
    *,
    shadows: int,
    aggregated: bool = False,
    step: Callable[[int, int], None] | None = None,
) -> list[Pairs]:
    """Attack all sites; judge with :func:`outroute.audit.membership.judge`.

    Args:
        clients: all candidates by site; half of each site's subjects train in each run.
        how: the federation under attack.
        rng: who is in, batches and noise.
        shadows: runs, an even number, at least 8.
        aggregated: only the sum of all updates is seen, as with secure aggregation.
        step: told how many runs are done.
    """
    names = [name for name, c in clients.items() if len(np.unique(c.subject)) >= LEAST_ROWS]
    number = {name: np.unique(clients[name].subject, return_inverse=True)[1].reshape(-1) for name in clients}
    coins = bool(how.training.noise)  # there is a bound to compare with
    inside = {name: half_in(int(number[name].max(initial=-1)) + 1, shadows, rng, coins=coins) for name in clients}
    start = new_net(next(iter(clients.values())).x.shape[1], how.classes, rng, hidden=how.hidden)
    values: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for run in range(shadows):
        chosen = {name: inside[name][run][number[name]] for name in clients}
        sums = {name: np.zeros((len(clients[name].y), 4)) for name in names}

        def seen(
            net: Net,
            updates: Mapping[str, Net],
            sizes: Mapping[str, int],
            sums: dict[str, NDArray[np.float64]] = sums,
        ) -> None:
            total = sum(sizes.values())
            together = sum((u.times(sizes[n] / total) for n, u in updates.items()), net.times(0.0))
            for name in names:
                if aggregated or name in updates:
                    sums[name] += _statistics(net, together if aggregated else updates[name], clients[name])

        end = average({n: c.take(chosen[n]) for n, c in clients.items()}, how, rng, start=start, seen=seen)
        for name in names:
            last = end.losses(clients[name].x, clients[name].y)[:, None]
            values[name].append(np.hstack([sums[name], np.log(last + 1e-6)]))
        if step is not None:
            step(run + 1, shadows)
    out = []
    for name in names:
        member = inside[name][:, number[name]]
        found = np.stack(values[name])
        out.append(_pairs(found, member, number[name], inside[name]))
    return out


def _statistics(net: Net, update: Net, client: Client) -> NDArray[np.float64]:
    """Of every record in one round, float64[n, 4]: how far the update follows its gradient (plain, and as a cosine),
    and how its loss falls (plain, and relative)."""
    along = -net.along(client.x, client.y, update)
    length = net.norms(client.x, client.y) * np.linalg.norm(update.flat())
    before, after = net.losses(client.x, client.y), (net + update).losses(client.x, client.y)
    return np.stack(
        [along, along / np.maximum(length, 1e-12), before - after, np.log(before + 1e-6) - np.log(after + 1e-6)], axis=1
    )


def _pairs(
    values: NDArray[np.float64], member: NDArray[np.bool_], number: NDArray[np.int64], inside: NDArray[np.bool_]
) -> Pairs:
    ratio = likelihood_ratio(values, member)
    order = np.argsort(number, kind="stable")
    start = np.flatnonzero(np.append(True, np.diff(number[order]) > 0))
    return Pairs(
        ratio=np.add.reduceat(ratio[:, order], start, axis=1),
        nearest=np.maximum.reduceat(-values[:, order, -1], start, axis=1),
        member=inside,
    )
