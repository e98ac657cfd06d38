"""Observations -> the contents of packets: what may leave, what stays, and why.

``distil`` condenses everything known by now, ``distil_waiting`` what arrives over time, ``distil_single`` one
observation at a time where the schema allows it. All three are pure, take only observations that are in no packet
in force, and put each of them into one cohort at most. What left before, in a packet that was withdrawn since, leaves
again only among k subjects that are new. ``distil_private`` adds noise to the sums of public regions instead.
"""

from __future__ import annotations

from outroute.distill.blurring import blurred
from outroute.distill.cohort import Grouping, default_window, distil
from outroute.distill.model import (
    ROWS_PER_SUBJECT,
    Agreement,
    Cohort,
    Cohorts,
    Distilled,
    Observations,
    Reason,
    Withheld,
)
from outroute.distill.private import Noise, Plan, Release, distil_private, plan_of
from outroute.distill.single import distil_single
from outroute.distill.streaming import Waiting, distil_waiting

__all__ = [
    "ROWS_PER_SUBJECT",
    "Agreement",
    "Cohort",
    "Cohorts",
    "Distilled",
    "Grouping",
    "Noise",
    "Observations",
    "Plan",
    "Reason",
    "Release",
    "Waiting",
    "Withheld",
    "blurred",
    "default_window",
    "distil",
    "distil_private",
    "distil_single",
    "distil_waiting",
    "plan_of",
]
