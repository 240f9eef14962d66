"""structlog, set up once: one event a line, JSON or console, through the LineWriter."""

import json
import logging
from typing import Any, BinaryIO

import structlog
from structlog.typing import EventDict, Processor

from nanonets_proxy.telemetry.redaction import Redactor
from nanonets_proxy.telemetry.writer import LineWriter

# Compact, ASCII: control and foreign characters of a caller's come out escaped.
_encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode


def configure(log_format: str, level: str, stream: BinaryIO, redactor: Redactor) -> LineWriter:
    """Sends structlog's events, and the standard library's warnings, to `stream`. Close the writer at the end.

    `log_format` is `auto` (console on a terminal), `json` or `console`; `level` a level's name in lower case.
    """
    writer = LineWriter(stream, redactor)
    console = log_format == "console" or (log_format == "auto" and stream.isatty())
    render: list[Processor]
    if console:
        render = [_escape, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    else:
        render = [structlog.processors.format_exc_info, _render_json]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineLogger(writer),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)
    return writer


def _render_json(_logger: Any, _method: str, event: EventDict) -> str:
    # What every line has comes first, for those who read along.
    first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    return _encode({**first, **event})


def _escape(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A terminal obeys control characters, and callers choose paths and names."""
    return {
        name: value.encode("unicode_escape").decode()
        if isinstance(value, str) and not value.isprintable()
        else value
        for name, value in event.items()
    }


class _LineLogger:
    """What structlog calls with the rendered line; every level is the same to it."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def msg(self, line: str) -> None:
        self._writer.write(line.encode("utf-8", "backslashreplace"))

    debug = info = warning = error = critical = exception = msg


class _Bridge(logging.Handler):
    """Libraries (aiohttp, asyncio) log through the standard library; their records become our events."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        event = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            event["exc_info"] = record.exc_info  # type: ignore[assignment]  # structlog renders it
        log.log(record.levelno, "library", **event)
