"""Asking: fetch cells, keep what came, fit once, answer many."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from outroute.elections import Objective, Trust, elect, leaning
from outroute.fingerprint import address, cells
from outroute.identity import node_id
from outroute.node.aged import aged, records_since
from outroute.node.comparing import Overlap, overlap
from outroute.node.discretion import Discretion, cover
from outroute.node.drawing import Who, draw_packets
from outroute.node.electing import Elected, Electing, elect_packets
from outroute.node.emitting import addresses_of
from outroute.node.evidence import evidence_of, keys_of
from outroute.node.explaining import Explanation
from outroute.node.fits import Cell, Fit
from outroute.node.insight import Insight, Insights, Reach
from outroute.node.pairing import Mine
from outroute.node.portal import run
from outroute.node.received import Received
from outroute.node.threads import single_threaded
from outroute.packet import PACKET_DTYPE, Flag, PacketArray, expiry
from outroute.placement import DEFAULT_REPLICAS, majority
from outroute.schema import Schema, facet_index, unit_scale
from outroute.store import ANSWER_CAP
from outroute.synthesis import Evidence, Fitted, Records, Settings, fit
from outroute.transports import Answer, Holder
from outroute.transports.replicas import in_force

__all__ = ["PROBES", "Asker"]

PROBES = 4
"""Cells that a question asks: 0.93 of the 64 nearest packets were found with 4 of 1,024 (DESIGN section 5)."""
CELL_SECONDS = 300
"""A cell that was fetched this recently is not fetched again."""
RETRY_SECONDS = 30
"""A cell that nobody answered for is not asked again for so long: each attempt waits for a time-out."""
CELLS_KEPT = 4096
"""Cells remembered; at most 256 packets each, 512 MiB if all are full."""
ADDRESSES_AT_ONCE = 64
"""Addresses in one question to the transport."""
BOOSTED_FROM = 200
"""Packets and own records together from which calculations may be boosted, which loads scikit-learn."""
REFIT_SHARE = 0.05
"""Calculations are fitted again when this share of the packets near a question, of all packets, or of the own records
is new."""


class Asker:
    """What a node remembers between questions: cells, and fitted calculations.

    Answers depend on the cells known, so questions asked together share them all.

    Args:
        schema: the schema.
        holder: the transport.
        received: packets that came in files.
        own_keys: the node's key and those that it had before: what they signed is its own.
        secret: the network's, for addresses.
        seed: of everything that draws.
        settings: constants of the synthesis.
        electing: how packets are elected.
        organisation: organisation of an author's key; the key itself where nobody certifies it.
        trust: gives the running trust, by outcomes that became known after questions had been answered.
        asked: told of every question that goes to the transport, before it is answered from.
        origin: the first key of a node that changed its key, under which it is one node.
        discretion: how much more than needed is asked for, so that holders learn less.
        private: secret of this node alone, by which dummies are drawn.
    """

    def __init__(
        self,
        schema: Schema,
        holder: Holder,
        received: Received,
        *,
        own_keys: Sequence[bytes],
        secret: bytes,
        seed: int,
        settings: Settings,
        electing: Electing,
        organisation: Callable[[bytes], bytes],
        trust: Callable[[], Trust],
        asked: Callable[[Sequence[Answer], int], None],
        origin: Callable[[bytes], bytes],
        discretion: Discretion,
        private: bytes,
    ) -> None:
        self._discretion, self._private = discretion, private
        self._where: dict[bytes, NDArray[np.uint16]] = {}
        self._schema, self._holder, self._received, self._secret = schema, holder, received, secret
        self._own_keys = [np.frombuffer(key, dtype=np.uint8) for key in own_keys]
        self._trust, self._asked, self._origin = trust, asked, origin
        self._electing, self._organisation = electing, organisation
        self._forgotten: deque[bytes] = deque()
        self._seed, self._settings = seed, settings
        self._cells: dict[bytes, Cell] = {}
        self._fit: Fit | None = None
        self._reach: Reach | None = None

    def addresses(self, codes: NDArray[np.uint16], probes: int) -> list[bytes]:
        """Addresses to ask for cases, each once, in a fixed order: their nearest cells, and what covers these."""
        wanted = cover(
            self._schema,
            codes,
            facet_index(self._schema, codes),
            probes=probes,
            discretion=self._discretion,
            secret=self._private,
        )
        return sorted({address(self._schema, facet, cell, self._secret) for facet, cell in wanted})

    def homes(self, codes: NDArray[np.uint16]) -> tuple[bytes, ...]:
        """Address of the cell of each case."""
        out = addresses_of(self._schema, codes, cells(self._schema, codes, 1)[:, 0], self._secret)
        self._where = dict(zip(out, codes, strict=True))
        return out

    def _covered(self, home: Sequence[bytes]) -> list[bytes]:
        """Addresses to ask for the cells of own records: these say where own records lie, as a question would."""
        if self._discretion == Discretion():
            return sorted(set(home))
        rows = [self._where[name] for name in sorted(set(home))]
        return self.addresses(np.array(rows, dtype=np.uint16), 1) if rows else []

    def refit(self) -> None:
        """Fit anew before the next answer: something was corrected, withdrawn, or came in a file."""
        self._fit = None

    def forget(self, addresses: Iterable[bytes]) -> None:
        """Fetch these cells again before the next answer: something in them was withdrawn. From any thread."""
        self._forgotten.extend(addresses)

    def known(self) -> PacketArray:
        """All packets of others that are remembered, some of them expired perhaps."""
        return np.concatenate([np.empty(0, dtype=PACKET_DTYPE), *(cell.packets for cell in self._cells.values())])

    def _foreign(self, packets: PacketArray) -> NDArray[np.bool_]:
        """Packets that are not this node's own, bool ``[n]``."""
        out = np.ones(len(packets), dtype=np.bool_)
        for key in self._own_keys:
            out &= (packets["author"] != key).any(axis=1)
        return out

    def fetch(self, addresses: Sequence[bytes], now: int) -> None:
        """Fetch the cells that are not known or old."""
        known, stale = self._cells, self._stale(addresses, now)
        if not stale:
            return
        self._reach = None
        for at in range(0, len(stale), ADDRESSES_AT_ONCE):
            part = stale[at : at + ADDRESSES_AT_ONCE]
            answers = run(self._holder.fetch(self._schema.id, part, cap=ANSWER_CAP))
            self._asked(answers, now)
            for answer in answers:
                old = known.pop(answer.address, None)  # the latest fetched stand last
                if not answer.complete:
                    none = answer.packets[:0]
                    kept = Cell(0, none, 0, 0, answered=False) if old is None else old
                    kept.due, kept.answered = now + RETRY_SECONDS, False
                    known[answer.address] = kept
                    continue
                packets = answer.packets[self._foreign(answer.packets)]
                if old is not None and not _holds_all(packets, old.packets):
                    self.refit()  # something was withdrawn: nothing may rest on it any more
                short = answer.silent >= majority(DEFAULT_REPLICAS)
                due = now + (RETRY_SECONDS if short else CELL_SECONDS)  # holders that fell silent may come back
                known[answer.address] = Cell(due, packets, answer.left_out, answer.refused, True, short)
        self._keep_few(addresses)

    def _stale(self, addresses: Iterable[bytes], now: int) -> list[bytes]:
        """The cells among these that are not known or old."""
        known = self._cells
        while self._forgotten:
            if known.pop(self._forgotten.popleft(), None) is not None:
                self.refit()
        return [a for a in dict.fromkeys(addresses) if a not in known or known[a].due <= now]

    def _keep_few(self, addresses: Iterable[bytes]) -> None:
        """Forget the oldest cells, but none of these."""
        known = self._cells
        if len(known) > CELLS_KEPT:
            wanted = set(addresses)
            for name in [a for a in known if a not in wanted][: len(known) - CELLS_KEPT]:
                del known[name]

    def draw(
        self, codes: NDArray[np.uint16], own: Records, home: Sequence[bytes], probes: int, budget: int, now: int
    ) -> None:
        """Fetch, of the cells that are not known or old, the packets that are expected to help most.

        Args:
            codes: the questions.
            own, home: own records, and the address of each one's cell.
            probes: nearest cells to ask for each question.
            budget: packets to fetch, at most.
            now: seconds since 1970-01-01 UTC.
        """
        found = cells(self._schema, codes, probes)
        flat = addresses_of(self._schema, np.repeat(codes, found.shape[1], axis=0), found.reshape(-1), self._secret)
        near = [flat[at : at + found.shape[1]] for at in range(0, len(flat), found.shape[1])]
        stale = self._stale([*sorted(set(flat)), *sorted(set(home))], now)
        if not stale:
            return
        self._reach = None
        known = self._cells
        old_ones = set(stale)
        others = [cell.packets for name, cell in known.items() if name not in old_ones]
        before = in_force(np.concatenate([np.empty(0, dtype=PACKET_DTYPE), *others, self._received.everything(now)]))
        before = before[self._foreign(before) & (expiry(self._schema, before) > now)]
        drawn = draw_packets(
            self._schema,
            self._holder,
            own,
            near=near,
            home=home,
            names=stale,
            before=before,
            budget=budget,
            seed=self._seed,
            who=Who(
                origin=self._origin,
                organisation=self._organisation,
                foreign=self._foreign,
                pinned=self._electing.pinned,
            ),
            noted=lambda answers: self._asked(answers, now),
        )
        for name, came in drawn.items():
            old = known.pop(name, None)
            short = came.silent >= majority(DEFAULT_REPLICAS)
            due = now + (RETRY_SECONDS if short or not came.answered else CELL_SECONDS)
            if not came.answered and old is not None:
                old.due, old.answered = due, False
                known[name] = old
                continue
            if old is not None and not _holds_all(came.packets, old.packets):
                self.refit()  # withdrawn, or others were chosen: nothing may rest on what is not here any more
            known[name] = Cell(due, came.packets, came.left, came.refused, came.answered, short)
        self._keep_few([*flat, *home])

    def packets(self, now: int) -> PacketArray:
        """Everything known of others and not expired, each packet once."""
        given = self._received.everything(now)
        packets = np.concatenate([*(c.packets for c in self._cells.values()), given])
        if len(given):
            packets = in_force(packets)
            packets = packets[self._foreign(packets)]
        return packets[expiry(self._schema, packets) > now]

    def _still_good(self, near: Iterable[bytes], own: Records, now: int) -> Fitted | None:
        """The calculations as they are fitted, if they know most of what is known now and lies near a question."""
        fit_, known = self._fit, self._cells
        if fit_ is None or now >= fit_.until or abs(own.n - fit_.records) > REFIT_SHARE * fit_.records:
            return None
        here = then = 0
        for name in near:
            here += len(known[name].packets)
            then += fit_.cells.get(name, 0)
        everything = self.reach.packets - fit_.given
        if here > (1 + REFIT_SHARE) * then or everything > (1 + REFIT_SHARE) * fit_.packets:
            return None
        return fit_.fitted

    def _fitted(self, near: Iterable[bytes], own: Records, when: NDArray[np.int64], now: int) -> Fitted:
        recent = self._recent(own, when)
        if self._still_good(near, recent, now) is not None and self._believed(recent):
            return self._elected_again()
        packets, trust = self.packets(now), self._trust()
        packets = packets[(packets["flags"] & int(Flag.WITHDRAWAL)) == 0]
        kept: list[Callable[[Trust], NDArray[np.float64]]] = []
        before: list[NDArray[np.float64]] = []

        def mixed(names: tuple[str, ...], weights: NDArray[np.float64], objective: Objective) -> NDArray[np.float64]:
            return leaning(names, weights, objective, own.n, 0.0 if elected is None else elected.dropped)

        def believe(names: tuple[str, ...], default: NDArray[np.float64], objective: Objective) -> NDArray[np.float64]:
            before.append(default)
            kept.append(lambda state: mixed(names, elect(objective, state.prior(names, default)), objective))
            return kept[0](trust)

        evidence = evidence_of(self._schema, packets, self._origin)
        speed, age = None, None
        if self._electing.ageing:
            speed, age, own = aged(evidence, own, when, now)
            evidence = evidence if self._electing.packets else replace(evidence, weight=age)
        elected = self._elected(packets, evidence, own, age)
        if elected is not None:
            evidence = elected.evidence
        with single_threaded(boosting=len(packets) + own.n >= BOOSTED_FROM):
            made = fit(
                self._schema,
                evidence,
                own,
                settings=self._settings,
                rng=np.random.default_rng([self._seed, int.from_bytes(self._schema.id[:8], "little")]),
                trust=believe,
            )
        sizes = {name: len(c.packets) for name, c in self._cells.items()}
        first = int(expiry(self._schema, packets).min()) if len(packets) else 2**62
        self._fit = Fit(
            fitted=made,
            until=max(first, now + CELL_SECONDS),
            records=own.n,
            own=own,
            packets=sum(sizes.values()),
            cells=sizes,
            given=len(self._received.everything(now)),
            trust=trust,
            election=kept[0] if kept else None,
            before=before[0] if before else made.weights,
            said=packets,
            evidence=evidence,
            weighed=elected,
            elected=elected,
            aged=speed,
        )
        self._reach = None
        return made

    def _recent(self, own: Records, when: NDArray[np.int64]) -> Records:
        """Own records that are not too old for the calculations as they are fitted."""
        since = None if self._fit is None or self._fit.aged is None else self._fit.aged.since
        return records_since(own, when, since)

    def _elected(
        self, packets: PacketArray, evidence: Evidence, own: Records, age: NDArray[np.float64] | None
    ) -> Elected | None:
        """How far each packet counts; None when everybody counts the same, or there is nobody."""
        if not self._electing.packets or not evidence.n:
            return None
        found = {key: self._organisation(key) for key in keys_of(packets)}
        certified = {node_id(self._origin(key)): by for key, by in found.items() if by != key}
        return elect_packets(
            self._schema,
            evidence,
            own,
            rng=np.random.default_rng([self._seed, int.from_bytes(self._schema.id[8:16], "little")]),
            certified=certified,
            pinned=self._electing.pinned,
            groups=self._electing.groups,
            age=age,
        )

    def pin(self, nodes: frozenset[bytes]) -> None:
        """Believe these nodes whatever they say, from the next answer on."""
        if nodes != self._electing.pinned:
            self._electing = replace(self._electing, pinned=nodes)
            self.refit()

    def _believed(self, own: Records) -> bool:
        """Let outcomes that became known speak; whether the calculations may stand nevertheless."""
        assert self._fit is not None
        return self._fit.confirmed(self._schema, own) <= REFIT_SHARE

    def _elected_again(self) -> Fitted:
        """The calculations as they are fitted, weighed by what has become known since."""
        fit_ = self._fit
        assert fit_ is not None
        trust = self._trust()
        if fit_.election is not None and not trust.says_as(fit_.trust):
            fit_.fitted, fit_.trust = replace(fit_.fitted, weights=fit_.election(trust)), trust
        return fit_.fitted

    @property
    def fitted(self) -> Fitted | None:
        """What answered last, if anything is fitted."""
        return None if self._fit is None else self._fit.fitted

    @property
    def reach(self) -> Reach:
        """How much is known."""
        if self._reach is None:
            known = self._cells.values()
            self._reach = Reach(
                cells=len(known),
                packets=sum(len(c.packets) for c in known) + (self._fit.given if self._fit else 0),
                refused=sum(c.refused for c in known),
                left_out=sum(c.left_out for c in known),
                unanswered=sum(not c.answered for c in known),
                short=sum(c.short for c in known),
            )
        return self._reach

    def answer(
        self,
        codes: NDArray[np.uint16],
        own: Records,
        *,
        when: NDArray[np.int64],
        home: Sequence[bytes],
        probes: int,
        now: int,
    ) -> Insights:
        """Answer questions.

        Args:
            codes: uint16 ``[m, width]``.
            own: own records.
            when: int64 ``[n]``, the time bucket of each own record.
            home: address of the cell of each own record.
            probes: nearest cells to ask for each question.
            now: seconds since 1970-01-01 UTC.
        """
        near = self.addresses(codes, probes)
        if self._electing.budget is None:
            self.fetch([*near, *self._covered(home)], now)
        else:
            self.draw(codes, own, home, probes, self._electing.budget, now)
        fitted = self._fitted(near, own, when, now)
        elected = None if self._fit is None else self._fit.elected
        return Insights(
            schema=self._schema,
            answers=fitted.answer(unit_scale(self._schema, codes)),
            nodes=tuple(n.hex() for n in fitted.nodes),
            level=self._settings.level,
            reach=self.reach,
            judged_by=None if elected is None else elected.hired.anchor,
        )

    def explain(self, codes: NDArray[np.uint16], insight: Insight, mine: Mine) -> Explanation:
        """Why the last answer, to this question, uint16 ``[1, width]``, says what it says."""
        assert self._fit is not None
        return self._fit.explain(self._schema, unit_scale(self._schema, codes)[0], insight, mine)

    def support(self, codes: NDArray[np.uint16], field: str, shares: NDArray[np.float64], mine: Mine) -> list[Overlap]:
        """Who knows cases like a question, uint16 ``[1, width]``, with each value of a field; see `overlap`."""
        fit_ = self._fit
        assert fit_ is not None
        certified = {} if fit_.elected is None else fit_.elected.certified
        question = unit_scale(self._schema, codes)[0]
        return overlap(self._schema, question, field, shares, fit_.believed, mine, certified)


def _holds_all(new: PacketArray, old: PacketArray) -> bool:
    """Whether every packet of ``old`` is in ``new``."""
    return bool(np.isin(_signatures(old), _signatures(new)).all())


def _signatures(packets: PacketArray) -> NDArray[np.bytes_]:
    """One comparable value a packet."""
    return np.ascontiguousarray(packets["signature"]).view("S64")[:, 0]
