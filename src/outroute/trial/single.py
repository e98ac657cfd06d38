"""One site's own trial: its held-out cases alone, and with the packets that peers have sent."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from outroute.elections import elect
from outroute.node.evidence import evidence_of
from outroute.packet import PacketArray, accept
from outroute.synthesis import Records, Settings, fit
from outroute.trial.fold import Answer, Fold

__all__ = ["PeerPackets"]


@dataclass(frozen=True, kw_only=True)
class PeerPackets:
    """Answers from own training rows and from packets that are here already; nothing leaves.

    Attributes:
        packets: what peers have sent; those that are refused do not count.
        now: seconds since 1970-01-01 UTC at which packets must be in force; None: when the newest was made.
        name: under which its scores appear.
        settings: constants of the synthesis.
    """

    packets: PacketArray
    now: int | None = None
    name: str = "outroute"
    settings: Settings = field(default_factory=Settings)

    def __call__(self, fold: Fold) -> Answer:
        """Fit once a site, answer its cases."""
        evidence = fold.shared("evidence of peers", lambda: evidence_of(fold.schema, self._accepted(fold)))
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

    def _accepted(self, fold: Fold) -> PacketArray:
        newest = int(self.packets["bucket"].max()) if len(self.packets) else 0
        now = newest if self.now is None else self.now
        return self.packets[accept(self.packets, fold.schema, now).ok]
