"""The walls: five failure modes of federated learning, measured on the user's own table.

Each wall is one question that an engineer asks before choosing. It is answered by real federated learning and by
outcome routing on the same data, with a verdict rule that was written down before any run, and federated learning
wins where it does.
"""

from outroute.walls.base import CannotRunError, Curve, Figure, Found, Part, Plan, Score, Step, Tell, Wall, Winner
from outroute.walls.deployment import Deployment

__all__ = [
    "CannotRunError",
    "Curve",
    "Deployment",
    "Figure",
    "Found",
    "Part",
    "Plan",
    "Score",
    "Step",
    "Tell",
    "Wall",
    "Winner",
]
