"""structlog, set up once: one event a line, JSON or console, through the LineWriter."""

import json
import logging
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import orjson
import structlog
from structlog.typing import EventDict

from nanonets_proxy.telemetry.redaction import Redactor
from nanonets_proxy.telemetry.writer import LineWriter

# Compact, ASCII: control and foreign characters of a caller's come out escaped.
_encode_carefully = json.JSONEncoder(separators=(",", ":"), default=repr).encode


def configure(log_format: str, level: str, stream: BinaryIO, redactor: Redactor) -> LineWriter:
    """Sends structlog's events, and the standard library's warnings, to `stream`. Close the writer at the end.

    `log_format` is `auto` (console on a terminal), `json` or `console`; `level` a level's name in lower case.
    """
    writer = LineWriter(stream, redactor)
    console = log_format == "console" or (log_format == "auto" and stream.isatty())
    render: list[Any]  # what the last one gives, the logger below takes: for each, another type
    if console:
        render = [_escape, structlog.dev.ConsoleRenderer(colors=stream.isatty()), _encode_text]
    else:
        render = [_render_json]
    structlog.configure(
        processors=[_Header(), *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineLogger(writer),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)
    return writer


def whole_events(**context: str) -> Callable[[EventDict], None]:
    """Writes events of level info that are ready as a whole, `event` among their fields: the one that every request
    costs. structlog as it is configured now, but for its way of handing keywords from call to call."""
    log = structlog.get_logger(**context).bind()
    if not log.is_enabled_for(logging.INFO):
        return lambda _: None
    config = structlog.get_config()
    processors, write = config["processors"], config["logger_factory"]().info

    def emit(event: EventDict) -> None:
        line: Any = {**context, **event} if context else event
        for process in processors:
            line = process(None, "info", line)
        write(line)

    return emit


class _Header:
    """What every line has comes first, for those who read along: when, how grave, what."""

    def __init__(self) -> None:
        self._latest = (0, "")  # a second and its text: most events fall in the same one as their predecessor

    def __call__(self, _logger: Any, method: str, event: EventDict) -> EventDict:
        microseconds = time.time_ns() // 1000
        second = microseconds // 1_000_000
        known, text = self._latest
        if second != known:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._latest = second, text
        return {
            "timestamp": f"{text}.{microseconds % 1_000_000:06d}Z",
            "level": "error" if method == "exception" else method,
            "event": event.pop("event"),
            **event,
        }


def _render_json(logger: Any, method: str, event: EventDict) -> bytes:
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    try:
        line = orjson.dumps(event)
    except TypeError:  # not to be had in JSON, or text that is none
        return _encode_carefully(event).encode()
    return line if line.isascii() else _encode_carefully(event).encode()


def _encode_text(_logger: Any, _method: str, line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace")


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
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = self.exception = (
            writer.write
        )


class _Bridge(logging.Handler):
    """Libraries (aiohttp, asyncio) log through the standard library; their records become our events."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        event = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            event["exc_info"] = record.exc_info  # type: ignore[assignment]  # structlog renders it
        log.log(record.levelno, "library", **event)
