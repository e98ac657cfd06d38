"""outroute: outcome routing for people who hold data that may not move.

The names below load what they need when they are first used::

    from outroute import Node, load_schema

    schema = load_schema("heart.toml")
    with Node(schema, data_dir="north") as node:
        node.observe("patients.csv", case="id")
        print(node.ask({"age": 54, "sex": "male"}).estimate)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outroute.errors import OutrouteError
    from outroute.estimator import OutcomeRouter
    from outroute.node import Insight, Node
    from outroute.packet import Packet
    from outroute.schema import Schema
    from outroute.schema import load as load_schema

__version__ = "0.1.0"
__all__ = [
    "Insight",
    "Node",
    "OutcomeRouter",
    "OutrouteError",
    "Packet",
    "Schema",
    "__version__",
    "load_schema",
]

_HOMES = {
    "Insight": ("outroute.node", "Insight"),
    "Node": ("outroute.node", "Node"),
    "OutcomeRouter": ("outroute.estimator", "OutcomeRouter"),
    "OutrouteError": ("outroute.errors", "OutrouteError"),
    "Packet": ("outroute.packet", "Packet"),
    "Schema": ("outroute.schema", "Schema"),
    "load_schema": ("outroute.schema", "load"),
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'outroute' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
