"""Write docs/cli.md from the commands themselves: ``python docs/generate_cli.py`` (``--check`` only compares)."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, get_args, get_type_hints

import typer.main

PAGE = Path(__file__).parent / "cli.md"

HEAD = """\
# Commands

Written by `python docs/generate_cli.py` from the commands' own help; do not edit it by hand.

Every command says what it found on standard output and everything else (progress, warnings, notes) on standard
error. With `--json` standard output is one JSON object, `{"error": {"code", "message"}}` if the command could not run.
Exit codes: 0 all is well, 1 the command ran and something was refused, 2 it could not run, 130 stopped with Ctrl-C.
"""


def page() -> str:
    """The whole page."""
    from outroute.cli.app import app

    parts = [HEAD]
    _walk(typer.main.get_command(app), "outroute", parts)
    return "\n".join(parts)


def _walk(command: Any, name: str, parts: list[str]) -> None:
    children = getattr(command, "commands", {})
    if name != "outroute":
        parts.append(f"## {name}\n")
    if children:
        if name != "outroute":
            parts.append(f"{_text(command.help)}\n")
        for child, what in children.items():
            _walk(what, f"{name} {child}", parts)
        return
    text, *examples = _text(command.help).split("\n\nExample", 1)
    parts.append(f"{text}\n")
    taken = [p for p in command.params if p.name != "help"]
    kinds = get_type_hints(command.callback)
    arguments = [p for p in taken if p.param_type_name == "argument"]
    options = [p for p in taken if p.param_type_name == "option"]
    usage = " ".join(
        [name, *map(_argument, arguments), *(f"{p.opts[0]} {_value(kinds[p.name])}" for p in options if p.required)]
    )
    parts.append(f"```\n{usage}{' [OPTIONS]' if options else ''}\n```\n")
    if taken:
        parts += ["| | | |", "|---|---|---|"]
        parts += [f"| `{_argument(p)}` | {_cell(p.help)} | {'required' if p.required else ''} |" for p in arguments]
        parts += [f"| `{_option(p, kinds[p.name])}` | {_cell(p.help)} | {_default(p)} |" for p in options]
        parts.append("")
    for block in examples:
        lines = block.removeprefix("s:").removeprefix(":").split("\n\n")
        shown = [line.strip() for line in lines if line.strip().startswith("outroute") or " | outroute" in line]
        rest = [line.strip() for line in lines if line.strip() and line.strip() not in shown]
        parts.append("```bash\n" + "\n".join(shown) + "\n```\n")
        parts += [f"{line}\n" for line in rest]


def _text(help_text: str | None) -> str:
    first, _, rest = (help_text or "").partition("\n")
    text = first.strip() + "\n" + dedent(rest)
    return text.replace("[bold]", "**").replace("[/bold]", "**").strip()


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _argument(param: Any) -> str:
    name = str(param.name).upper() + ("..." if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"


def _value(kind: Any) -> str:
    inner = [item for item in get_args(kind) if item is not type(None)]
    return _value(inner[0]) if inner else {int: "N", Path: "PATH"}.get(kind, "TEXT")


def _option(param: Any, kind: Any) -> str:
    names = ", ".join([*param.opts, *param.secondary_opts])
    return names if param.is_flag else f"{names} {_value(kind)}"


def _default(param: Any) -> str:
    if param.required:
        return "required"
    default = param.default
    several = "may be repeated" if param.multiple else ""
    if default is None or param.is_flag or callable(default) or default in ((), []):
        return several
    return f"default `{default}`"


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == made else f"{PAGE} is out of date: run this without --check")
    PAGE.write_text(made, encoding="utf-8")
