"""The command ``outroute``."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command."""
    from outroute.cli.app import app

    app(prog_name="outroute")
