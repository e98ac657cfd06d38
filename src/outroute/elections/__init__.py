"""Elections: so far *trust*, which calculation to believe."""

from outroute.elections.trust import Trust, elect

__all__ = ["Trust", "elect"]
