"""Why a node is believed, or not, in a sentence that a clinician or an operator follows."""

from __future__ import annotations

from enum import Enum

from outroute.elections.hire import CONFIRMED, CONTRADICTED, UNPROVEN, Anchored, Hired

__all__ = ["Verdict", "verdict_of", "why"]

SHARES = (
    f"so it stays unproven: all unproven nodes together weigh at most {UNPROVEN:.0%} of what proven nodes and your own "
    "records do"
)
"""What follows for a node that is neither proven nor contradicted."""

AGAINST = {Anchored.PINNED: "the nodes that you pinned", Anchored.GROUPS: "what most declared groups say"}
WITH = {Anchored.PINNED: "the nodes that you pinned say", Anchored.GROUPS: "most declared groups say"}


class Verdict(Enum):
    """What hiring says of a node."""

    PINNED = "pinned"
    """The operator trusts it."""
    PROVEN = "proven"
    """By own outcomes."""
    AGREES = "agrees"
    """With most organisations, or with pinned nodes; nothing is proven."""
    UNPROVEN = "unproven"
    CONTRADICTED = "contradicted"
    UNKNOWN = "unknown"
    """Too few packets, or nobody to compare with."""


def verdict_of(hired: Hired, i: int) -> Verdict:
    """What hiring says of node `i`."""
    if hired.pinned[i]:
        return Verdict.PINNED
    if hired.contradicted[i]:
        return Verdict.CONTRADICTED
    if hired.proven[i]:
        return Verdict.PROVEN
    if not hired.judged[i] or hired.anchor is Anchored.NOTHING:
        return Verdict.UNKNOWN
    if hired.by_own:
        return Verdict.UNPROVEN
    return Verdict.AGREES if hired.reverse[i] > 0 else Verdict.UNPROVEN


def why(hired: Hired, i: int, own: int) -> str:
    """Why node `i` weighs what it weighs.

    Scores are in standard errors ("z"): `forward` says how far its packets predict own outcomes, `reverse` how far the
    anchor's outcomes predict its packets.

    Args:
        hired: what was decided about nodes.
        i: the node.
        own: own outcomes.
    """
    verdict, forward, reverse = verdict_of(hired, i), float(hired.forward[i]), float(hired.reverse[i])
    many = f"{int(hired.judged.sum()):,} nodes"
    if verdict is Verdict.PINNED:
        against = hired.by_own and forward < CONTRADICTED
        but = f"; but your own {own:,} outcomes contradict it (z {forward:.1f})" if against else ""
        return f"you pinned it: it counts in full, whatever it says{but}"
    if not hired.judged[i]:
        return f"it has too few packets here to be told from chance; {SHARES}"
    by_own = hired.by_own
    if verdict is Verdict.PROVEN:
        return (
            f"its packets predict your own {own:,} outcomes (z {forward:.1f}), and these predict its packets (z "
            f"{reverse:.1f}; {float(hired.needed[i]):.1f} rules out luck among {many})"
        )
    if verdict is Verdict.CONTRADICTED:
        if by_own:
            return (
                f"your own {own:,} outcomes contradict it: where it says more, you saw less (z {forward:.1f}; below "
                f"{CONTRADICTED:.1f} nothing of it counts)"
            )
        whom = AGAINST.get(hired.anchor, "what most organisations say")
        return f"it contradicts {whom} (z {reverse:.1f}; below {CONTRADICTED:.1f} nothing of it counts)"
    if hired.anchor is Anchored.NOTHING:
        few = f"your own {own:,} outcomes are too few to judge it, and " if own else ""
        return f"{few}there is nobody to compare it with: everybody counts the same"
    whom = WITH.get(hired.anchor, "most organisations say")
    if by_own and hired.anchor is not Anchored.OWN_OUTCOMES:
        return f"your own {own:,} outcomes are too few to judge it: it counts as far as it agrees with what {whom}"
    if hired.anchor is Anchored.OWN_OUTCOMES:
        reasons = []
        if forward <= CONFIRMED:
            reasons.append(f"its packets do not clearly predict your own {own:,} outcomes (z {forward:.1f})")
        if reverse <= hired.needed[i]:
            reasons.append(
                f"your own {own:,} outcomes predict its packets no better than luck might (z {reverse:.1f}; "
                f"{float(hired.needed[i]):.1f} would rule it out among {many})"
            )
        return f"{' and '.join(reasons)}, {SHARES}"
    few = f"; your own {own:,} outcomes are too few to tell" if own else ""
    if reverse <= 0:
        return f"it does not agree with what {whom} (z {reverse:.1f}){few}"
    clearly = "clearly " if reverse > hired.clear else ""
    return f"it {clearly}agrees with what {whom} (z {reverse:.1f}){few}"
