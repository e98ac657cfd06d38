"""The command ``outroute``."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command."""
    try:
        from outroute.cli.app import app
    except KeyboardInterrupt:  # while modules load, which takes longest on a busy machine
        raise SystemExit(130) from None
    app(prog_name="outroute")
