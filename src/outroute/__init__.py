"""outroute: outcome routing for people who hold data that may not move."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
