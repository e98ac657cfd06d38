"""Comparing outcomes by an action: what was done, in otherwise equal conditions.

What comes out is an association. Somebody decided who got which action, for reasons that conditions may not hold, so a
difference between actions is not the effect of an action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError, SchemaError
from outroute.node.nearby import near_of, nearest
from outroute.node.pairing import Mine
from outroute.schema import MISSING, SCALE, Field, FieldKind, Schema, unit_scale
from outroute.synthesis import Evidence

__all__ = [
    "LEAST",
    "VALUES_MOST",
    "WARNING",
    "Action",
    "Comparison",
    "Overlap",
    "action_of",
    "actions_of",
    "overlap",
    "wanted",
]

WARNING = (
    "This compares outcomes by what was done; it does not say what doing it would change. Somebody decided who got "
    "which action, often for reasons that no condition here holds (sicker patients get the stronger drug), and that "
    "alone can make all of the difference shown."
)
"""What stands beside every comparison."""
LEAST = 5.0
"""Observations with an action near the question below which nothing is said of it."""
VALUES_MOST = 20
"""Values compared at once."""
NODE_LEAST = 0.5
"""Observations below which a node is not said to know such cases."""
WITHIN = 0.1
"""Share of its range within which a number counts as the same action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Who knows cases like this one with an action.

    Attributes:
        observations: that count, own ones included.
        nodes: others that they come from, and
        organisations: that certify these; a node that none certifies stands for itself.
        own: own ones among them.
        first, until: start of the first and end of the last time bucket, seconds since 1970; None where nobody does.
    """

    observations: float
    nodes: int
    organisations: int
    own: float
    first: int | None
    until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One row of a comparison.

    Attributes:
        value: the action: a category, or a number as text.
        estimate, low, high, level: the answer for the case with this action, see `Insight`.
        overlap: who knows such cases with it.
        abstained: why there is no answer; None when there is one.
    """

    value: str
    estimate: float | dict[str, float]
    low: float | dict[str, float]
    high: float | dict[str, float]
    level: float
    overlap: Overlap
    abstained: str | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "value": self.value,
            "estimate": self.estimate,
            "interval": {"low": self.low, "high": self.high, "level": self.level},
            **asdict(self.overlap),
            "abstained": self.abstained,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Action:
        """What ``to_dict`` gave."""
        return cls(
            value=content["value"],
            estimate=content["estimate"],
            **content["interval"],
            overlap=Overlap(**{one.name: content[one.name] for one in fields(Overlap)}),
            abstained=content["abstained"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Outcomes by action.

    Attributes:
        field, unit: the action's name, and its unit or "".
        outcome: the outcome's name.
        actions: in the order of the schema, or as asked for.
        warning: what this is not.
    """

    field: str
    unit: str
    outcome: str
    actions: tuple[Action, ...]
    warning: str = WARNING

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "field": self.field,
            "unit": self.unit,
            "outcome": self.outcome,
            "actions": [one.to_dict() for one in self.actions],
            "warning": self.warning,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Comparison:
        """What ``to_dict`` gave."""
        plain = {name: content[name] for name in ("field", "unit", "outcome", "warning")}
        return cls(**plain, actions=tuple(map(Action.from_dict, content["actions"])))


def action_of(schema: Schema, name: str) -> Field:
    """The field of this name.

    Raises:
        SchemaError: ``schema.action``, there is none, or it is no action.
    """
    actions = [f.name for f in schema.fields if f.action]
    for f in schema.fields:
        if f.name == name and f.action:
            return f
    known = f"actions are {', '.join(actions)}" if actions else 'none is: a schema says so with role = "action"'
    raise SchemaError(f"'{name}' is no field that the schema calls an action; {known}", code="schema.action")


def actions_of(
    schema: Schema, case: Mapping[str, Any], by: str, values: Sequence[Any] | None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of the actions to compare, and the case with each.

    Args:
        schema: the schema.
        case: conditions; what it says of the action itself does not count.
        by: name of an action.
        values: of it; needed where it is a number, else default every category.

    Raises:
        SchemaError: as ``action_of``.
        DataError: there are no values, too many, or one is not the field's.
    """
    field = action_of(schema, by)
    if values is None:
        if field.kind is FieldKind.NUMERIC:
            raise DataError(
                f"'{by}' is a number from {field.low} to {field.high}: say which values to compare", code="data.values"
            )
        values = field.categories
    if not 1 <= len(values) <= VALUES_MOST:
        values_text = f"between 1 and {VALUES_MOST} values can be compared, not {len(values)}"
        raise DataError(f"{values_text}: name those that matter", code="data.values")
    if len({str(value) for value in values}) < len(values):
        raise DataError("a value is given twice", code="data.values")
    return [str(value) for value in values], [dict(case) | {by: value} for value in values]


def wanted(schema: Schema, by: str, codes: NDArray[np.uint16]) -> NDArray[np.float64]:
    """The action of V cases, uint16[V, width], on the unit scale, float64[V, slots of the field]."""
    own = codes[:, schema.slots[by]]
    if (own == MISSING).any():
        raise DataError(f"a value of '{by}' is empty: name one", code="data.values")
    return own.astype(np.float64) / SCALE


def overlap(
    schema: Schema,
    question: NDArray[np.float64],
    by: str,
    shares: NDArray[np.float64],
    evidence: Evidence,
    mine: Mine,
    certified: Mapping[bytes, bytes],
) -> list[Overlap]:
    """Who knows cases like this one with each action.

    Looked at are the nearest packets, and the own records as near as these, in all conditions but the action. Of a
    packet its observations count by the share that had the action.

    Args:
        schema: the schema.
        question: float64[D].
        by: name of the action.
        shares: float64[V, slots of the field], the actions on the unit scale.
        evidence: packets with weights.
        mine: own records.
        certified: organisation by node id.
    """
    at = schema.slots[by]
    near, distance = nearest(schema, evidence.x, question, near_of(evidence.n), at)
    weight = np.ones(evidence.n) if evidence.weight is None else evidence.weight
    x = unit_scale(schema, mine.codes)
    own, apart = nearest(schema, x, question, len(x) if len(near) else near_of(len(x)), at)
    if len(near):
        own = own[apart <= distance[-1]]
    out = []
    for share in shares:
        kept = _having(x[own][:, at], share)
        amount = _having(evidence.x[near][:, at], share) * (evidence.size * weight)[near]
        nodes = [evidence.nodes[i] for i in np.flatnonzero(np.bincount(evidence.node[near], amount) >= NODE_LEAST)]
        bucket = np.concatenate([evidence.bucket[near][amount > 0], mine.bucket[own][kept > 0]])
        out.append(
            Overlap(
                observations=float(amount.sum() + kept.sum()),
                nodes=len(nodes),
                organisations=len({certified.get(node, node) for node in nodes}),
                own=float(kept.sum()),
                first=int(bucket.min()) if len(bucket) else None,
                until=int(bucket.max()) + schema.time.bucket_seconds if len(bucket) else None,
            )
        )
    return out


def _having(x: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each row float64[n, slots] that had an action: its category's, or 1 for numbers close to it."""
    if len(share) == 1:
        return np.asarray(np.abs(x[:, 0] - share[0]) <= WITHIN, dtype=np.float64)
    return np.asarray(np.nan_to_num(x[:, int(share.argmax())]), dtype=np.float64)
