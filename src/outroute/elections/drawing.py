"""Drawing: whose packets to fetch for a question, and how many, when not all are to be fetched.

Fetching goes in rounds. The first (`scout`) takes a few packets of everybody near the questions. Every further one
(`draw`) judges nodes by what has come so far and asks for those packets that are expected to help most:

``reliability`` of a node in a cell: how far `hire` draws on it, moved by how much its profile lowers the squared error
    of own outcomes in that cell, more or less than elsewhere (slopes cross-fitted, shrunken). Both are uncertain, so
    one value is drawn from the posterior (Thompson sampling): who may be good is tried, as often as it may be.
``gain`` of a packet: by how much it lowers the variance of an estimate in its cell, which falls as the cell is covered,
    and as much of it comes from one node already (nodes differ, and more packets of one do not tell about the others).

A small share goes to nodes too new to be judged, by turns of organisations. Nothing is kept between fetches: all of it
follows from own records, what has come and `rng`, so a confirmed outcome counts from the next fetch on, and a node
that starts again draws the same.

Source: Thompson (1933); Russo et al., "A Tutorial on Thompson Sampling" (2018); the greedy choice is that of Nemhauser,
Wolsey and Fisher (1978), whose bound 1 - 1/e holds as gains fall.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from outroute.elections.alignment import PACKETS_LEAST, Floats, Ints, Table
from outroute.elections.hire import Hired, hire
from outroute.elections.reliance import reliability

__all__ = ["AUTHORS_MOST", "ROUNDS", "Ask", "Known", "demand_of", "draw", "fetch", "scout"]

ROUNDS = 5
"""Rounds of a fetch, scouting included; each costs a round trip. The last takes what those before it left over."""
SCOUTED = 0.4
"""Share of the budget that is scouted: so much tells nodes apart, the rest goes to the better ones."""
SCOUTED_EACH = 8
"""Packets of each cell that is scouted."""
PROBATION = 0.1
"""Share of each later round for nodes that are too new to be judged."""
ORGANISATION = 0.5
"""Most that one organisation may have of all packets fetched, once three are there."""
ACCEPTED = 0.5
"""Nodes drawn at least this far as good as the best of those wanted in a cell may step in for them."""
AUTHORS_MOST = 64
"""Nodes named in one question, as many as a frame takes."""
COVERED = 5.0
"""Observations that a cell counts as having before any: an estimate there starts from the whole table."""
SATURATED = 50.0
"""Observations of one node in one cell at which it tells half of what it can tell: nodes differ among each other."""
WORTH_LEAST = 0.01
"""A packet that adds less than this part to what covers its cell is not fetched."""
HOME = 1.0
"""How much the cells of own records together are wanted, relative to those of the questions: nodes are judged there,
and what calculations learn there holds elsewhere too."""
ELSEWHERE = 0.25
"""How probable it is that a node has packets in a cell where none was seen, relative to where one was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One cell to ask.

    Attributes:
        cell: its index.
        nodes: indices of the nodes whose packets are wanted, ascending; empty: of anybody.
        count: packets wanted at most.
    """

    cell: int
    nodes: tuple[int, ...]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What has come so far, and what is known to be left.

    Attributes:
        packets: those that are here, of N nodes.
        cell: int64[n], index of each packet's cell, -1 for one that came before, from elsewhere.
        fetched: packets that this fetch has cost so far.
        left: int64[C], packets that each cell has beside these.
        spent: bool[N, C], nodes that have nothing more in a cell.
        organisation: int64[N]; a node without one is an organisation of its own.
        pinned: indices of nodes that the operator trusts, or None.
    """

    packets: Table
    cell: Ints
    fetched: int
    left: Ints
    spent: npt.NDArray[np.bool_]
    organisation: Ints
    pinned: Ints | None = None

    def held(self) -> Floats:
        """Observations of each node in each cell, float64[N, C]."""
        return self._sums(self.packets.size)

    def seen(self) -> Floats:
        """Packets of each node in each cell, float64[N, C]."""
        return self._sums(np.ones(len(self.cell)))

    def of_each(self) -> Floats:
        """Packets of each node, wherever they come from, float64[N]."""
        return np.bincount(self.packets.node, minlength=self.packets.nodes).astype(np.float64)

    def _sums(self, what: Floats) -> Floats:
        cells, here = len(self.left), self.cell >= 0
        flat = np.bincount(self.packets.node[here] * cells + self.cell[here], what[here], self.packets.nodes * cells)
        return flat.astype(np.float64).reshape(self.packets.nodes, cells)


def demand_of(near: Ints, home: Ints, cells: int) -> Floats:
    """How much each of C cells is wanted, float64[C], 1 in total for the questions.

    Args:
        near: int64[m, P], indices of the P nearest cells of each question, the nearest first; -1 as below.
        home: int64[n], index of the cell of each own record, -1 for one that is not among them.
        cells: C.
    """
    weight = np.broadcast_to(1.0 / np.arange(1, near.shape[1] + 1), near.shape)
    asked = np.bincount(near[near >= 0], weight[near >= 0], cells)
    own = np.bincount(home[home >= 0], minlength=cells)
    out: Floats = asked / max(float(asked.sum()), 1e-12) + HOME * own / max(int(own.sum()), 1)
    return out


def scout(demand: Floats, budget: int, rng: np.random.Generator) -> tuple[Ask, ...]:
    """The first round: packets of anybody, from some of the cells, and of all others how much they hold.

    Holders take turns between organisations, in an order of theirs that never changes. So a few packets of many cells
    would be packets of the same few organisations: fewer cells are asked for more.

    Args:
        demand: float64[C] >= 0, how much each cell is wanted; so much more likely it is scouted.
        budget: packets of the whole fetch.
        rng: draws cells.

    Returns:
        One `Ask` for each cell, with a count of 0 where only numbers are wanted.
    """
    packets = min(budget, round(SCOUTED * budget) or 1)
    some = int(np.clip(packets // SCOUTED_EACH, 1, max(len(demand), 1)))
    # The least of exponential variables, each divided by its weight, are a draw without replacement (Efraimidis and
    # Spirakis 2006).
    keys = rng.exponential(size=len(demand)) / np.maximum(demand, 1e-12)
    each, more = divmod(max(packets, 0), some)
    count = np.zeros(len(demand), dtype=np.int64)
    for place, cell in enumerate(np.argsort(keys, kind="stable")[:some]):
        count[cell] = each + (place < more)
    return tuple(Ask(cell=cell, nodes=(), count=number) for cell, number in enumerate(count.tolist()))


def fetch(
    source: Callable[[Sequence[Ask]], Known],
    own: Table,
    group: Ints,
    region: Ints,
    demand: Floats,
    *,
    budget: int,
    rng: np.random.Generator,
) -> Known:
    """All rounds.

    Args:
        source: asks holders, and gives all that has come so far. The nodes of a question are numbered as in what it
            gave last.
        own, group, region: see `reliability`.
        demand: float64[C], how much each cell is wanted.
        budget: packets of all rounds, at most.
        rng: draws cells to scout and how reliable nodes are.
    """
    known = source(scout(demand, budget, rng))
    for later in range(ROUNDS - 1, 0, -1):
        left = budget - known.fetched
        if left <= 0 or not known.packets.nodes:
            break
        hired = hire(known.packets, own, group, known.organisation, known.pinned)
        asks = draw(
            known, own, group, region, hired, demand=demand, count=-(-left // max(later - 1, 1)), total=budget, rng=rng
        )
        if not asks:
            break
        known = source(asks)
    return known


def draw(
    known: Known,
    own: Table,
    group: Ints,
    region: Ints,
    hired: Hired,
    *,
    demand: Floats,
    count: int,
    total: int,
    rng: np.random.Generator,
) -> tuple[Ask, ...]:
    """A further round: whose packets to fetch from which cells.

    Args:
        known: what has come so far.
        own, group, region: see `reliability`.
        hired: how far nodes are drawn on.
        demand: float64[C], how much each cell is wanted.
        count: packets of this round, at most.
        total: packets of all rounds, at most; organisations are capped by it.
        rng: draws how reliable nodes are.

    Returns:
        At most one `Ask` for each cell; none when nothing is worth fetching.
    """
    if count <= 0 or not known.packets.nodes or not (known.left > 0).any():
        return ()
    mean, doubt = reliability(known, own, group, region, hired)
    drawn = np.clip(rng.normal(mean, doubt), 0.0, 1.0)
    supply = _supply(known)
    caps = _Caps(known.seen().sum(1), known.organisation, total)
    wanted: dict[tuple[int, int], int] = {}
    new = _newcomers(known, supply, demand, max(1, round(PROBATION * count)), caps, rng)
    for pair in new:
        wanted[pair] = wanted.get(pair, 0) + 1
    held = known.held()
    mine = np.bincount(region[region >= 0], minlength=len(demand)).astype(np.float64)
    _fill(wanted, count - len(new), drawn, held, supply, mine, demand, _packet_size(known), caps)
    return _asks(wanted, drawn, known, caps)


def _packet_size(known: Known) -> float:
    return float(known.packets.size.mean()) if len(known.cell) else 1.0


def _supply(known: Known) -> Floats:
    """Packets that each node is expected to have left in each cell, float64[N, C]."""
    seen, whole = known.seen(), known.of_each() / max(len(known.cell), 1)
    share = seen / np.maximum(seen.sum(0), 1.0) + ELSEWHERE * whole[:, None]
    share = np.where(known.spent, 0.0, share)
    out: Floats = share / np.maximum(share.sum(0), 1e-12) * known.left
    return np.where((out > 0) & (known.left > 0), np.maximum(out, 1.0), 0.0)


class _Caps:
    """How many packets more organisations may send: whom a question names may send all that it asks for."""

    def __init__(self, seen: Floats, organisation: Ints, total: int) -> None:
        _, which = np.unique(organisation, return_inverse=True)
        self.of: list[int] = which.reshape(-1).tolist()
        held = np.bincount(which.reshape(-1), seen)
        most = ORGANISATION * total if len(held) >= 3 else np.inf
        self.left: list[float] = (most - held).tolist()

    def open(self, node: int) -> bool:
        """Whether a node may send anything."""
        return self.left[self.of[node]] >= 1.0

    def named(self, nodes: Sequence[int], count: int) -> tuple[tuple[int, ...], int]:
        """Those of some nodes that may be named in a question, and how many packets it may ask for."""
        count = min(count, int(min(max((self.left[self.of[node]] for node in nodes), default=0.0), count)))
        kept = tuple(node for node in nodes if self.left[self.of[node]] >= count)[:AUTHORS_MOST] if count > 0 else ()
        for theirs in {self.of[node] for node in kept}:
            self.left[theirs] -= count
        return kept, count if kept else 0


def _newcomers(
    known: Known,
    supply: Floats,
    demand: Floats,
    count: int,
    caps: _Caps,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """Packets of nodes too new to be judged, by turns of organisations, each from where it is wanted most."""
    has = known.of_each()
    new = rng.permutation(np.flatnonzero((has < PACKETS_LEAST) & ((supply > 0) & (demand > 0)).any(1)))
    turn: dict[int, int] = {}
    queue: list[tuple[int, int, int]] = []
    for place, node in enumerate(new.tolist()):
        theirs = int(known.organisation[node])
        turn[theirs] = turn.get(theirs, -1) + 1
        queue.append((turn[theirs], place, node))
    found: list[tuple[int, int]] = []
    for _, _, node in sorted(queue):
        # As many as it takes to judge it: fewer would tell nothing.
        missing = int(PACKETS_LEAST - has[node])
        best = np.argsort(-(demand * (supply[node] > 0)), kind="stable")[:missing]
        for cell in best[(supply[node, best] > 0) & (demand[best] > 0)].tolist():
            if len(found) < count and caps.open(node):
                found.append((node, cell))
    return found


def _fill(
    wanted: dict[tuple[int, int], int],
    count: int,
    drawn: Floats,
    held: Floats,
    supply: Floats,
    mine: Floats,
    demand: Floats,
    size: float,
    caps: _Caps,
) -> None:
    """Greedily the packets that lower the variance of estimates most, each counted as what it is expected to be."""
    cover = COVERED + mine + (drawn * _told(held)).sum(0)
    amount = held.copy()
    for (node, cell), number in wanted.items():
        amount[node, cell] += number * size

    def gain(node: Any, cell: Any) -> tuple[Any, Any]:
        """Of one more packet: what it is worth, and what it adds to what covers the cell."""
        more = drawn[node, cell] * (_told(amount[node, cell] + size) - _told(amount[node, cell]))
        return demand[cell] * more / (cover[cell] * (cover[cell] + more)), more

    nodes, places = np.nonzero((supply > 0) & (demand > 0))
    queue = list(zip((-gain(nodes, places)[0]).tolist(), nodes.tolist(), places.tolist(), strict=True))
    heapq.heapify(queue)
    while queue and count > 0:
        _, node, cell = heapq.heappop(queue)
        value, more = gain(node, cell)
        if queue and value < -queue[0][0]:
            heapq.heappush(queue, (-value, node, cell))  # others have covered the cell meanwhile
            continue
        if more < WORTH_LEAST * cover[cell]:
            continue
        if wanted.get((node, cell), 0) >= supply[node, cell] or not caps.open(node):
            continue
        wanted[node, cell] = wanted.get((node, cell), 0) + 1
        amount[node, cell] += size
        cover[cell] += more
        count -= 1
        heapq.heappush(queue, (-gain(node, cell)[0], node, cell))


def _told(observations: Any) -> Any:
    """What so many observations of one node in one cell tell, as a number of independent ones."""
    return observations / (1.0 + observations / SATURATED)


def _asks(wanted: dict[tuple[int, int], int], drawn: Floats, known: Known, caps: _Caps) -> tuple[Ask, ...]:
    """One question for each cell, naming those who are wanted and others who are nearly as good.

    Who has packets in a cell is not known for certain: where those who are wanted have fewer, the others step in.
    """
    cells: dict[int, dict[int, int]] = {}
    for (node, cell), number in wanted.items():
        cells.setdefault(int(cell), {})[int(node)] = number
    out: list[Ask] = []
    for cell, rows in sorted(cells.items(), key=lambda one: (-sum(one[1].values()), one[0])):
        first = sorted(rows, key=lambda node: (-rows[node], node))
        bar = ACCEPTED * float(drawn[first, cell].max())
        good = np.flatnonzero((drawn[:, cell] >= max(bar, 1e-12)) & ~known.spent[:, cell])
        others = good[np.argsort(-drawn[good, cell], kind="stable")].tolist()
        nodes, count = caps.named(list(dict.fromkeys([*first, *others])), sum(rows.values()))
        if count:
            out.append(Ask(cell=cell, nodes=tuple(sorted(nodes)), count=count))
    return tuple(out)
