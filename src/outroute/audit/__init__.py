"""Attacks on what would leave a node, each beside a guess that knows only public statistics.

Attacks take an *emitter* (:data:`~outroute.audit.emission.Emitter`): a function of schema, one site's observations and
randomness that returns what an attacker would see. So every distiller is attacked by the same code.
"""

from __future__ import annotations

from outroute.audit.emission import Emission, Emitter, cohorts, floor_of, of_cohorts
from outroute.audit.membership import Membership, Pairs, judge, membership_pairs
from outroute.audit.naming import Named, Naming, name_members, named
from outroute.audit.reconstruction import Guesses, Reconstruction, reconstruct, summarise
from outroute.audit.scores import Detection, FieldScale, Interval

__all__ = [
    "Detection",
    "Emission",
    "Emitter",
    "FieldScale",
    "Guesses",
    "Interval",
    "Membership",
    "Named",
    "Naming",
    "Pairs",
    "Reconstruction",
    "cohorts",
    "floor_of",
    "judge",
    "membership_pairs",
    "name_members",
    "named",
    "of_cohorts",
    "reconstruct",
    "summarise",
]
