"""Write the walls' rules into docs/walls.md from the walls themselves: ``python docs/generate_walls.py`` (``--check``)."""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path

PAGE = Path(__file__).parent / "walls.md"
BEGIN = "<!-- rules: written by docs/generate_walls.py -->\n"
END = "<!-- end of rules -->"
WIDTH = 120


def section() -> str:
    """A heading, the question and the rule of each wall."""
    from outroute.walls.report import TITLES
    from outroute.walls.runner import NAMES

    parts = [BEGIN]
    for name in NAMES:
        wall = importlib.import_module(f"outroute.walls.{name}").WALL
        sites = "One site's own table is enough." if wall.one_site else "It needs several sites."
        text = f"*{wall.question}* {sites}"
        parts += [f"### {TITLES[name]} (`{name}`)\n", _wrapped(text), _wrapped(wall.rule)]
    return "\n".join(parts) + END


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def page() -> str:
    """The whole page, with the rules as they are now."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + section() + tail


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == made else f"{PAGE} is out of date: run this without --check")
    PAGE.write_text(made, encoding="utf-8")
