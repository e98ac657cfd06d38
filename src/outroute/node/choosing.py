"""Choosing whom to believe whatever they say, and comparing what was chosen: two things that people decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.identity import node_id
from outroute.node.asking import PROBES
from outroute.node.comparing import LEAST, Action, Comparison, action_of, actions_of, wanted
from outroute.node.electing import Electing
from outroute.node.evidence import keys_of
from outroute.node.governed import NO_REASON
from outroute.node.insight import Insights
from outroute.node.local import origin_of
from outroute.node.observing import Observing
from outroute.node.pairing import Mine
from outroute.node.questions import codes_of_cases
from outroute.store import Event, Journal, Which

__all__ = ["PINS_MOST", "Choosing", "Pin", "kept_pins"]

PINS_MOST = 100
"""Nodes that may be pinned: whoever trusts more of them by hand does not trust, but lists."""
PREFIX_LEAST = 8
"""Hex digits that name a node at least."""
ID_DIGITS = 64
"""Hex digits of a whole id."""
WHY_MOST = 300
"""Characters of a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A node that the operator believes whatever it says.

    Attributes:
        node: its id in hex.
        by, why: who decided it, and the reason.
        since: when, seconds since 1970.
    """

    node: str
    by: str
    why: str
    since: int


def kept_pins(journal: Journal) -> tuple[Pin, ...]:
    """What is kept in a node's journal, oldest first."""
    data = journal.elections.pins()
    return () if data is None else tuple(Pin(**one) for one in json.loads(data))


class Choosing(Observing):
    """Pins, and comparisons by action: a part of ``Node``."""

    electing: Electing
    _ask: Callable[[NDArray[np.uint16], int], Insights]

    def pins(self) -> tuple[Pin, ...]:
        """Nodes that the operator pinned, oldest first; those given to the node when it was made are not among them."""
        self._alive()
        return kept_pins(self._journal)

    def pin(self, node: str, *, by: str, why: str = NO_REASON) -> Pin:
        """Believe a node whatever it says, from the next answer on: for nodes whose outcomes somebody has checked.

        Args:
            node: its id in hex, or an unambiguous start of one that is known here.
            by: who decides this, for the log.
            why: the reason, for the log.

        Raises:
            DataError: ``pin.node``, no node or several are called so; ``pin.many``, ``pin.text``.
        """
        self._alive()
        known, id_ = self.pins(), self._named(node, [])
        if not by.strip() or max(len(by), len(why)) > WHY_MOST:
            raise DataError(f"say who pins the node, and why, in {WHY_MOST} characters", code="pin.text")
        kept = [one for one in known if one.node != id_]
        if len(kept) >= PINS_MOST:
            raise DataError(f"{PINS_MOST} nodes are pinned already: unpin one first", code="pin.many")
        made = Pin(node=id_, by=by, why=why, since=self._now())
        self._keep((*kept, made), Event.PINNED, made)
        return made

    def unpin(self, node: str, *, by: str, why: str = NO_REASON) -> Pin:
        """Judge a node by what it says again.

        Raises:
            DataError: ``pin.node``, no node that is pinned is called so.
        """
        self._alive()
        known = self.pins()
        id_ = self._named(node, [one.node for one in known])
        gone = next((one for one in known if one.node == id_), None)
        if gone is None:
            raise DataError(f"node {id_[:16]} is not pinned", code="pin.node")
        self._keep(tuple(one for one in known if one is not gone), Event.UNPINNED, replace(gone, by=by, why=why))
        return gone

    def _keep(self, pins: tuple[Pin, ...], event: Event, about: Pin) -> None:
        with self._journal.together():
            self._journal.elections.keep_pins(json.dumps([asdict(one) for one in pins]).encode())
            self.log.append(event, now=self._now(), node=bytes.fromhex(about.node), by=about.by, reason=about.why)
        self._believe(pins)

    def _believe(self, pins: Sequence[Pin]) -> None:
        self._asker.pin(self.electing.pinned | {bytes.fromhex(one.node) for one in pins})

    def _named(self, text: str, among: list[str]) -> str:
        """The id of a node in hex, among some or else all that are known."""
        text = text.strip().lower()
        if len(text) > ID_DIGITS or len(text) < PREFIX_LEAST or set(text) - set("0123456789abcdef"):
            raise DataError(
                f"'{text[:80]}' names no node: give its id in hex, or the first {PREFIX_LEAST} digits or more of it; "
                "outroute paths lists those that are known",
                code="pin.node",
            )
        if len(text) == ID_DIGITS:
            return text
        if not among:
            origin = origin_of(self._holder)
            among = sorted({node_id(origin(key)).hex() for key in keys_of(self._asker.packets(self._now()))})
        found = [one for one in among if one.startswith(text)]
        if len(found) != 1:
            what = "no node that is known here is called so" if not found else f"{len(found)} nodes are called so"
            raise DataError(f"'{text}': {what}; give all {ID_DIGITS} digits", code="pin.node")
        return found[0]

    def _mine(self) -> Mine:
        """Own records whose outcome is known."""
        seen = self._journal.observations(Which.KNOWN)
        return Mine(codes=seen.codes, outcome=seen.outcome, bucket=seen.bucket)

    def compare(
        self, case: Mapping[str, Any], by: str, values: Sequence[Any] | None = None, *, probes: int = PROBES
    ) -> Comparison:
        """What happened to cases like this one, by what was done: an association, not an effect.

        Args:
            case: conditions; what it says of the action itself does not count.
            by: a field that the schema calls an action.
            values: of it to compare; default every category.
            probes: nearest cells to ask for each.

        Raises:
            SchemaError: ``schema.action``, `by` is none; or a name is no field.
            DataError: a value is not the field's, or there are too many.
        """
        names, cases = actions_of(self.schema, case, by, values)
        codes = codes_of_cases(self.schema, cases)
        shares = wanted(self.schema, by, codes)
        insights = self._ask(codes, probes)
        overlaps = self._asker.support(codes[:1], by, shares, self._mine())
        actions = []
        for i, (name, overlap) in enumerate(zip(names, overlaps, strict=True)):
            thin = f"hardly anybody knows such a case with {by} = {name}" if overlap.observations < LEAST else None
            insight = insights[i]
            actions.append(
                Action(
                    value=name,
                    estimate=insight.estimate,
                    low=insight.low,
                    high=insight.high,
                    level=insight.level,
                    overlap=overlap,
                    abstained=insight.abstained or thin,
                )
            )
        return Comparison(
            field=by,
            unit=action_of(self.schema, by).unit,
            outcome=self.schema.outcome.name,
            actions=tuple(actions),
        )
