"""One node, composed of all the rest: observe, distil, approve, publish, ask, confirm, take back.

================  ===============================================================
``node``          the node
``governed``      its outbox, log and withdrawals: the half of it that governs
``approval``      who lets packets leave: somebody by hand, rules, the schema
``handing_over``  what is approved leaves: to holders, or as a file
``taking_back``   withdrawals, here and in the schema's successors
``migrating``     a directory under a schema -> one under its successor
``answering``     which questions of others were answered, for the log
``notices``       what the operator should know
``observing``     a table into the journal
``emitting``      own observations -> cohorts -> signed packets
``questions``     what somebody asks -> codes
``asking``        cells fetched and remembered, calculations fitted once
``fits``          what is remembered of both
``received``      packets that came in files
``evidence``      packets and own observations as the synthesis wants them
``insight``       the answer
``explaining``    why it says so: who was believed, what lost, what it rests on
``behind``        paths between the nodes that an answer comes from
``resting``       how much it rests on: nodes, organisations, time
``believed``      why a node is believed, in a sentence
``comparing``     outcomes by what was done
``choosing``      nodes that the operator pins
``nearby``        what lies near a question
``pairing``       single paths between nodes, and own records as one
``pathways``      who corroborates or contradicts whom
``reports``       what a node says about what it has done
``local``         joining a network of this process
``threads``       numerical libraries on one thread
``portal``        from ordinary calls to asynchronous transports
================  ===============================================================
"""

from __future__ import annotations

from outroute.node.approval import HAND, Approval, Automatic, Rules, load_rules
from outroute.node.insight import Insight, Insights, Reach, Source
from outroute.node.node import Node
from outroute.node.reports import Distillation, Erasure, HandedOver, ObserveReport, Published, TakenBack

__all__ = [
    "HAND",
    "Approval",
    "Automatic",
    "Distillation",
    "Erasure",
    "HandedOver",
    "Insight",
    "Insights",
    "Node",
    "ObserveReport",
    "Published",
    "Reach",
    "Rules",
    "Source",
    "TakenBack",
    "load_rules",
]
