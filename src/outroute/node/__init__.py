"""One node, composed of all the rest: observe, distil, publish, ask, confirm."""

from __future__ import annotations

from outroute.node.insight import Insight, Insights, Reach, Source
from outroute.node.node import Distillation, Node, ObserveReport, Published

__all__ = ["Distillation", "Insight", "Insights", "Node", "ObserveReport", "Published", "Reach", "Source"]
