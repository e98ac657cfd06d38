"""Worlds to test a method in: so far nodes that lie, each in a way of its own (`outroute.simulation.adversaries`)."""

from __future__ import annotations

from outroute.simulation.adaptive import Rule
from outroute.simulation.adversaries import ADVERSARIES, SYBILS, Adversary, Knowledge, attack
from outroute.simulation.imitation import Region, imitate, outcomes, standardised, together

__all__ = [
    "ADVERSARIES",
    "SYBILS",
    "Adversary",
    "Knowledge",
    "Region",
    "Rule",
    "attack",
    "imitate",
    "outcomes",
    "standardised",
    "together",
]
