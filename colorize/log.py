"""The log: one line an event, for programs as JSON, and on every line the run that it belongs to.

    COLORIZE_LOG=json colorize archive scans colour
    {"time": "2026-03-01T22:00:07.412Z", "level": "info", "run": "20260301T220003-1f0c2b4e", "stage": "archive", "message": "run begins", …}

Knows nothing of Ray. A driver tells people what happens in words of its own, so without COLORIZE_LOG its log has warnings only. Processes
that Ray starts have no other voice: their lines, on standard error and so in Ray's log files, name the run either way.
Ray's own `LoggingConfig(encoding="JSON")` was not taken: it is one setting for a whole connection, made before a run has its id, and it
turns everything that any library logs in the driver into lines on the terminal.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from colorize.errors import ConfigError, printable

VARIABLE = "COLORIZE_LOG"
ROOT = "colorize"

_context: dict[str, str | None] = {"run": None, "stage": None}


def is_json() -> bool:
    """Whether COLORIZE_LOG asks for JSON. Raises ConfigError for a value that means nothing."""
    wanted = os.environ.get(VARIABLE) or "text"
    if wanted not in ("json", "text"):
        raise ConfigError(f"{VARIABLE}={wanted}: must be json or text")
    return wanted == "json"


def wants_lines() -> bool:
    """Whether a driver speaks here, in JSON, and not to people."""
    return os.environ.get(VARIABLE) == "json"


def begin() -> None:
    """For a program at its start: JSON lines on standard error where they are asked for. Raises ConfigError."""
    if is_json():
        _install(_Json())


def bind(*, run: str | None = None, stage: str) -> None:
    """From now on every line of this process belongs to this run."""
    _context.update(run=run, stage=stage)


def begin_worker(*, run: str, stage: str, as_json: bool) -> None:
    """For a process that Ray started. as_json: as the driver's environment has it; that of a worker on a cluster is another."""
    bind(run=run, stage=stage)
    _install(_Json() if as_json else _Text())


def event(message: str, *, level: int = logging.INFO, **values: Any) -> None:
    """A line for programs, with `values` as further keys. A driver that speaks to people has other words for it, and no line here."""
    logger = logging.getLogger(ROOT)
    if logger.handlers:
        logger.log(level, message, extra={"fields": values})


def words(values: Mapping[str, object]) -> str:
    """`name=value …` on one line: what has a space, a quote or a `=` in it is quoted, what cannot be printed is `?`."""
    return " ".join(f"{name}={_word(printable(value))}" for name, value in values.items())


def _word(text: str) -> str:
    if text and not any(character in text for character in ' "='):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _install(formatter: logging.Formatter) -> None:
    logger = logging.getLogger(ROOT)
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(formatter)
    logger.handlers = [handler]  # a worker that is used again has one already
    logger.setLevel(logging.INFO)


class _Stderr:
    """Standard error as it is when a line is written, not as it was when the handler was made."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": _time(record), "level": record.levelname.lower(), **_context, "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        line["logger"] = record.name
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = f"{record.getMessage()} {words(getattr(record, 'fields', {}))}".rstrip()
        line = f"{_time(record)} {record.levelname} [{_context['stage']} {_context['run']}] {said}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
