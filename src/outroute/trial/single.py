"""One site's own trial: its held-out cases alone, and with the packets that peers have sent."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from outroute.elections import elect
from outroute.node.evidence import evidence_of, verify_in_threads
from outroute.packet import PacketArray, accept
from outroute.schema import Schema
from outroute.synthesis import Evidence, Records, Settings, fit
from outroute.transports.replicas import in_force
from outroute.trial.fold import Answer, Fold

__all__ = ["PeerPackets"]


@dataclass(frozen=True, kw_only=True)
class PeerPackets:
    """Answers from own training rows and from packets that are here already; nothing leaves.

    Attributes:
        packets: what peers have sent; what is refused or withdrawn does not count. Leave your own packets out: they
            would bring the held-out cases back in.
        now: seconds since 1970-01-01 UTC at which packets must be in force; None: when the newest was made.
        name: under which its scores appear.
        settings: constants of the synthesis.
    """

    packets: PacketArray
    now: int | None = None
    name: str = "outroute"
    settings: Settings = field(default_factory=Settings)
    _checked: dict[bytes, Evidence] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, fold: Fold) -> Answer:
        """Fit once a site, answer its cases."""
        if fold.schema.id not in self._checked:  # the packets are the same in every repeat
            self._checked[fold.schema.id] = evidence_of(fold.schema, self._accepted(fold.schema))
        evidence = self._checked[fold.schema.id]
        predictions = {}
        for site, cases in fold.test.items():
            own = fold.train[site]
            fitted = fit(
                fold.schema,
                evidence,
                Records(x=own.x, y=own.y, group=own.group),
                settings=self.settings,
                rng=fold.rng("synthesis"),
                trust=lambda names, prior, objective: elect(objective, prior),
            )
            e = fitted.answer(cases.x).estimate
            predictions[site] = np.column_stack([1 - e, e]) if fold.classes == 2 else e
        return Answer(predictions=predictions)

    def _accepted(self, schema: Schema) -> PacketArray:
        newest = int(self.packets["bucket"].max()) if len(self.packets) else 0
        now = newest if self.now is None else self.now
        return in_force(self.packets[accept(self.packets, schema, now, verify=verify_in_threads).ok])
