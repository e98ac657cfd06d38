"""One node, composed of all the rest: observe, distil, publish, ask, confirm.

=============  ==================================================================
``node``       the node
``observing``  a table into the journal
``emitting``   own observations -> cohorts -> signed packets
``questions``  what somebody asks -> codes
``asking``     cells fetched and remembered, calculations fitted once
``received``   packets that came in files
``evidence``   packets and own observations as the synthesis wants them
``insight``    the answer
``reports``    what a node says about what it has done
``local``      joining a network of this process
``threads``    numerical libraries on one thread
``portal``     from ordinary calls to asynchronous transports
=============  ==================================================================
"""

from __future__ import annotations

from outroute.node.insight import Insight, Insights, Reach, Source
from outroute.node.node import Node
from outroute.node.reports import Distillation, ObserveReport, Published

__all__ = ["Distillation", "Insight", "Insights", "Node", "ObserveReport", "Published", "Reach", "Source"]
