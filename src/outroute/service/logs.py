"""Logs as JSON, one object a line on standard error.

Each line has ``time``, ``level``, ``source`` and ``event``; ``cause`` is the same on all nodes from observe to
acknowledgement. No conditions, outcomes, case or subject ids stand in any of them.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import IO, Any

__all__ = ["JsonLines", "log_to"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A log record as one line of JSON; what ``extra`` gives stands beside it."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter.format``."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "source": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_to(stream: IO[str] | None = None, level: int = logging.INFO) -> logging.Handler:
    """Write outroute's logs to a stream (default standard error); the handler, for whoever wants to remove it."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("outroute", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level if name == "outroute" else logging.WARNING)
        logger.propagate = False
    return handler
