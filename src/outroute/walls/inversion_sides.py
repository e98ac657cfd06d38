"""Both sides of the inversion wall: what is attacked on a table, and the single measurements that the wall keeps."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit import cohorts, judge, membership_pairs, name_members, named, reconstruct, summarise
from outroute.audit.clients import clients_of
from outroute.audit.federated import EPOCHS, federations, name_by_updates
from outroute.audit.naming import Named
from outroute.audit.noisy import bounds, private
from outroute.audit.run import drawn
from outroute.audit.scores import FieldScale
from outroute.audit.searching import Plan as SearchPlan
from outroute.audit.searching import Search, search, searches_of
from outroute.audit.settings import ADVISED, Effort
from outroute.audit.updates import ROUNDS, Federation, update_pairs
from outroute.audit.utility import federated_utility, packet_utility, utility_splits
from outroute.datasets.declare import two_classes
from outroute.datasets.observations import observations_of
from outroute.schema import FieldKind, unit_scale

if TYPE_CHECKING:
    from outroute.audit import Emitter
    from outroute.audit.clients import Clients
    from outroute.distill import Observations
    from outroute.schema import Schema
    from outroute.walls.base import Plan, Tell

__all__ = ["BUDGETS", "TOP", "Bench", "Method", "strips"]

BUDGETS = (0.5, 1.0, 3.0, 10.0)
"""Multiples of the plan's epsilon along the curve of either side."""
WIDER = (1, 2, 4)
"""Multiples of the plan's k along the curve of cohorts."""
TOP = 0.1
"""Share of an update's entries that compressed federated learning sends."""
FULL = Effort(
    shadows=16,
    subjects=120,
    sites=4,
    packets=2,
    plan=SearchPlan(targets=6, batches=2, iterations=400, restarts=1, realistic=60),
)
QUICK = Effort(
    shadows=8,
    subjects=80,
    sites=4,
    packets=1,
    plan=SearchPlan(targets=3, batches=1, iterations=200, restarts=1, realistic=0),
)
EVERY = 1_000_000
"""All packets of a site."""
SHOWN_HEIGHT, SHOWN_WIDTH = 6, 2
"""Pixels of a field in the strip that stands for a record of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way of letting something leave.

    Attributes:
        key: of its steps.
        name: for people.
        line: methods of one line are one curve, in this order.
        emit: packets; None for a federation.
        federation: how it is run; None for packets.
        aggregated: only sums of updates are seen.
        k: subjects in a packet; 0 where there is no such thing.
        epsilon: lifetime budget of a subject; 0 for none.
        whole: whether a site would run it on all its records; others are shown, and cannot win.
        search: the search for values in updates that stands for it, "" for none.
    """

    key: str
    name: str
    line: str
    emit: Emitter | None = None
    federation: Federation | None = None
    aggregated: bool = False
    k: int = 0
    epsilon: float = 0.0
    whole: bool = True
    search: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is outcome routing's."""
        return self.emit is not None


class Bench:
    """A plan's table made ready; everything is worked out when it is first needed, and again the same.

    Attributes:
        effort: how much is tried.
        methods: of both sides.
        notes: what a reader must know.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        base = QUICK if plan.quick else FULL
        self.effort = replace(base, repeats=min(plan.repeats, 5) if plan.quick else plan.repeats)
        self.notes: list[str] = []

    @cached_property
    def _table(self) -> tuple[Schema, dict[str, Observations], dict[str, Observations]]:
        data = self.plan.dataset
        schema, sites = data.schema, observations_of(data)
        if not schema.outcome.has_classes:
            middle = float(np.median(np.concatenate([rows.outcome for rows in sites.values()])))
            self.notes.append(
                f"the outcome is cut at its median, {middle:g}, for both sides: attacks on updates need classes"
            )
            schema = replace(schema, outcome=two_classes(schema.outcome.name, "up to the median", "above"))
            sites = {
                name: replace(rows, outcome=(rows.outcome > middle).astype(np.float64)) for name, rows in sites.items()
            }
        used, notes = drawn(sites, self.effort, self.plan.seed)
        self.notes += notes
        more = max(self.effort.worth, self.effort.subjects)
        worth = drawn(sites, replace(self.effort, subjects=more), self.plan.seed)[0]
        return schema, used, worth

    @property
    def schema(self) -> Schema:
        """With classes for an outcome."""
        return self._table[0]

    @property
    def used(self) -> dict[str, Observations]:
        """What is attacked."""
        return self._table[1]

    @cached_property
    def clients(self) -> Clients:
        """The same, as a federation sees it."""
        return clients_of(self.schema, self.used)

    @cached_property
    def scale(self) -> FieldScale:
        """Units of errors."""
        return FieldScale.of(
            self.schema, np.vstack([unit_scale(self.schema, rows.codes) for rows in self.used.values()])
        )

    @cached_property
    def side(self) -> int:
        """Points of an edge where records are square images; 0 for tables."""
        width = self.schema.width
        edge = int(np.sqrt(width))
        plain = all(f.kind is FieldKind.NUMERIC for f in self.schema.fields)
        return edge if plain and edge * edge == width and edge >= 7 else 0

    def rng(self, *purpose: str) -> np.random.Generator:
        """A generator for each purpose: no step depends on another."""
        return np.random.default_rng([self.plan.seed, zlib.crc32(" ".join(purpose).encode())])

    @cached_property
    def methods(self) -> list[Method]:
        """Both sides, ours first."""
        return [*self._packets(), *self._federated()]

    def _packets(self) -> list[Method]:
        k, epsilon, quick = max(self.plan.k, 2), self.plan.epsilon, self.plan.quick
        out = [Method(key="p-single", name="single records", line="cohorts", emit=cohorts(1), k=1, whole=False)]
        for size in [k] if quick else [k * times for times in WIDER]:
            out.append(Method(key=f"p-k{size}", name=f"cohorts of {size}", line="cohorts", emit=cohorts(size), k=size))
        out.append(Method(key="p-advised", name=ADVISED.name, line=ADVISED.name, emit=ADVISED.emit, k=ADVISED.k))
        for number, times in enumerate(BUDGETS):
            if quick and times != 1.0:
                continue
            budget = epsilon * times
            emit = private(Decimal(f"{min(budget, 100.0):.6f}"))
            name = f"private, epsilon {budget:g}"
            out.append(Method(key=f"p-private{number}", name=name, line="private", emit=emit, epsilon=budget))
        return out

    def _federated(self) -> list[Method]:
        classes, quick = len(self.schema.outcome.classes), self.plan.quick
        whole = f"a whole site, {EPOCHS} epochs"
        out: list[Method] = []
        for name, (how, aggregated) in federations(classes, self.plan.epsilon).items():
            if how.rounds == 1 or how.training.noise or (aggregated and len(self.used) < 2):
                continue
            if aggregated and how.training.epochs == 1:
                continue
            searched = whole if how.training.epochs > 1 else ""
            out.append(
                Method(
                    key=f"f-{len(out)}", name=f"FedAvg, {name}", line=name, federation=how, aggregated=aggregated,
                    search=searched,
                )
            )  # fmt: skip
        local = federations(classes, self.plan.epsilon)[f"{ROUNDS} rounds of {EPOCHS} epochs"][0]
        name = f"FedAvg, {ROUNDS} rounds of {EPOCHS} epochs, the largest {100 * TOP:g} % of each update"
        out.append(Method(key="f-top", name=name, line=name, federation=replace(local, top=TOP), search=whole))
        for number, times in enumerate(BUDGETS):
            if quick and times != 1.0:
                continue
            budget = self.plan.epsilon * times
            for how, _ in federations(classes, budget).values():
                if how.training.noise:
                    name = f"FedAvg, {ROUNDS} rounds, clipping and noise, epsilon {budget:g}"
                    searched = self._noisy if times == 1.0 else ""
                    out.append(
                        Method(
                            key=f"f-noise{number}", name=name, line="FedAvg, clipping and noise", federation=how,
                            epsilon=budget, search=searched,
                        )
                    )  # fmt: skip
        return out

    @property
    def _noisy(self) -> str:
        return f"one record, one step, clipping and noise, epsilon {self.plan.epsilon:g}"

    @cached_property
    def searches(self) -> list[Search]:
        """What is searched for values; clipping, noise and compression on the same records as without."""
        found = searches_of(
            self.clients,
            self.rng("searches"),
            epsilon=self.plan.epsilon,
            plan=self.effort.plan,
            top=TOP,
            side=self.side,
        )
        plain = found[0].tries
        how = found[1].tries[0].how
        found[1] = replace(found[1], tries=tuple(replace(this, how=how) for this in plain))
        return found

    # Steps.

    def leak(self, method: Method, tell: Tell) -> dict[str, Any]:
        """Membership, naming, and (of packets) values."""
        return (
            self._packet_leak(method, method.emit, tell) if method.emit is not None else self._update_leak(method, tell)
        )

    def _packet_leak(self, method: Method, emit: Emitter, tell: Tell) -> dict[str, Any]:
        coins = bool(method.epsilon)
        draw, each = self.rng(method.key, "membership"), list(self.used.items())
        pairs = [
            membership_pairs(
                self.schema, rows, emit, draw, shadows=self.effort.shadows, coins=coins, step=_step(tell, method, site)
            )
            for site, rows in each
        ]
        judged = judge([p for p in pairs if p is not None], self.rng(method.key, "judge"))
        draw = self.rng(method.key, "naming")
        tell(f"{method.name}: naming members")
        # Programmes take their time; drawing lots under `private` takes none.
        most = EVERY if method.epsilon else self.effort.packets
        found = [name_members(self.schema, rows, emit, draw, packets=most) for _, rows in each]
        solved = named([site for site in found if site is not None])
        draw = self.rng(method.key, "values")
        guesses = [reconstruct(self.schema, rows, emit, draw, scale=self.scale) for _, rows in each]
        values = summarise([g for g in guesses if g is not None])
        best = None if values is None else max(("packet", "members"), key=values.advantage.__getitem__)
        return _plain(judged, solved) | {
            "values_db": None if values is None or best is None else values.advantage[best],
            "values_bounds": None if values is None or best is None else values.bounds.get(best),
            "bound": bounds(method.epsilon) if method.epsilon else None,
        }

    def _update_leak(self, method: Method, tell: Tell) -> dict[str, Any]:
        assert method.federation is not None
        clients = clients_of(self.schema, self.used, public=True) if method.epsilon else self.clients
        pairs = update_pairs(
            clients.sites,
            method.federation,
            self.rng(method.key, "membership"),
            shadows=self.effort.shadows,
            aggregated=method.aggregated,
            step=_step(tell, method, "all sites"),
        )
        judged = judge(pairs, self.rng(method.key, "judge"))
        draw = self.rng(method.key, "naming")
        solved = name_by_updates(clients, method.federation, draw, aggregated=method.aggregated)
        return _plain(judged, solved) | {"values_db": None, "bound": bounds(method.epsilon) if method.epsilon else None}

    def worth(self, method: Method) -> dict[str, Any]:
        """AUC and log-loss of one linear model from what leaves, over the splits."""
        splits = utility_splits(self._table[2], self.rng("splits"), self.effort.repeats)
        rng = self.rng(method.key, "worth")
        if method.emit is not None:
            return packet_utility(self.schema, splits, method.emit, rng).to_json()
        assert method.federation is not None
        return federated_utility(self.schema, splits, method.federation, rng).to_json()

    def searched(self, number: int, tell: Tell) -> dict[str, Any]:
        """All attacks of one search, with the records and what they are taken for."""
        one = self.searches[number]
        rows, shown = [], {}
        truth: NDArray[np.float64] | None = None
        for attack in one.attacks:
            name = "closed form" if attack is None else attack.value
            tell(f"{one.setting}: {name}")
            found = search(
                self.clients, self.scale, one, attack, self.rng("search", one.setting, name), plan=self.effort.plan,
                side=self.side,
            )  # fmt: skip
            if found is not None:
                rows.append(found.found.to_json())
                truth = found.truth
                shown[name] = _rounded(found.guess[: self.effort.plan.targets])
        return {
            "setting": one.setting,
            "rows": rows,
            "truth": [] if truth is None else _rounded(truth[: self.effort.plan.targets]),
            "guesses": shown,
        }

    def pictured(self) -> dict[str, Any]:
        """What packets say of the records that are searched for in updates."""
        wanted = [this.rows[0] for this in self.searches[0].tries]
        out = {}
        for method in self.methods:
            if method.emit is None or (method.line == "private" and method.epsilon != self.plan.epsilon):
                continue
            draw = self.rng(method.key, "pictures")
            emitted = {site: method.emit(self.schema, rows, draw) for site, rows in self.used.items()}
            guess = []
            for site, row in wanted:
                packet = int(emitted[site].packet_of[row])
                guess.append(emitted[site].x[packet] if packet >= 0 else np.full(self.schema.width, np.nan))
            out[method.name] = _rounded(np.stack(guess))
        return {"guesses": out}


def _step(tell: Tell, method: Method, site: str) -> Callable[[int, int], None]:
    return lambda done, of: tell(f"{method.name}: membership, {site} ({done} of {of})")


def _plain(judged: Any, solved: Named | None) -> dict[str, Any]:
    return {
        "membership": None if judged is None else judged.to_json(),
        "naming": None if solved is None else solved.to_json() | {"advantage": solved.advantage},
    }


def _rounded(values: NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(v) else round(float(v), 3) for v in row] for row in values]


def strips(rows: Sequence[Sequence[float | None]], side: int) -> list[list[list[float]]]:
    """Records as pictures, 0 to 1: square images as they are, others as a strip with a bar of grey for each slot."""
    out = []
    for row in rows:
        filled = np.array([0.5 if v is None else min(max(v, 0.0), 1.0) for v in row])
        if side:
            image = filled.reshape(side, side)
        else:
            # A white gap at the end parts it from the next.
            image = np.pad(
                np.tile(np.repeat(filled, SHOWN_WIDTH), (SHOWN_HEIGHT, 1)), ((0, 0), (0, 2)), constant_values=1.0
            )
        out.append([[float(v) for v in line] for line in image])
    return out


def mapping_of(done: Mapping[str, Mapping[str, Any]], prefix: str) -> dict[str, Mapping[str, Any]]:
    """Finished steps of one kind, by what follows the prefix."""
    return {key.removeprefix(prefix): found for key, found in done.items() if key.startswith(prefix)}
