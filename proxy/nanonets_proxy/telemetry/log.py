"""Configures structlog: one event per line, as JSON or console text, through the LineWriter."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from time import gmtime, strftime, time
from typing import Any, BinaryIO, Final

import orjson
import structlog
from structlog.typing import EventDict

from nanonets_proxy.telemetry.redaction import Redactor
from nanonets_proxy.telemetry.writer import LineWriter

EventWriter = Callable[[EventDict], None]

_SECOND_US: Final = 1_000_000

# Compact ASCII, in which control characters and characters beyond ASCII are escaped: callers choose some of them.
_encode_escaped = json.JSONEncoder(separators=(",", ":"), default=repr).encode


def configure(log_format: str, level: str, stream: BinaryIO, redactor: Redactor) -> LineWriter:
    """Sends structlog's events and the standard library's warnings to `stream`. Close the returned writer at exit.

    `log_format` is `auto` (console on a terminal), `json` or `console`; `level` is a level's name in lower case.
    """
    writer = LineWriter(stream, redactor)
    use(log_format, level, writer)
    logging.basicConfig(handlers=[_LibraryLogHandler()], level=logging.WARNING, force=True)
    return writer


def use(log_format: str, level: str, writer: LineWriter) -> None:
    """Logs in this format, from this level on. An `event_writer` made before keeps its own."""
    stream = writer.stream
    console = log_format == "console" or (log_format == "auto" and stream.isatty())
    render: list[Any]
    if console:
        # If rich is installed, structlog's default shows the values of local variables, which may be secrets.
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        render = [_escape, renderer, _encode_text]
    else:
        render = [_render_json]
    structlog.configure(
        processors=[_order_fields, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineLogger(writer),
        cache_logger_on_first_use=False,
    )


def event_writer(name: str, level: str = "info", **context: str | float) -> EventWriter | None:
    """Returns a function that writes an event `name` from the event's fields; None if `level` is dropped.

    For one event per request: it uses structlog's present configuration, but skips structlog's slow calls.
    """
    log = structlog.get_logger(**context).bind()
    if not log.is_enabled_for(logging.getLevelNamesMapping()[level.upper()]):
        return None
    config = structlog.get_config()
    processors, write = config["processors"], config["logger_factory"]().info
    constant_fields = {"event": name, **context}

    def emit(fields: EventDict) -> None:
        line: Any = {**constant_fields, **fields}
        for process in processors:
            line = process(None, level, line)
        write(line)

    return _JsonEventWriter(level, constant_fields, write, emit).emit if processors[-1] is _render_json else emit


class _JsonEventWriter:
    """Writes JSON lines that share their start. Only the microseconds of the time are rendered for each line.

    `emit_escaped` writes the events that need escapes.
    """

    def __init__(
        self, level: str, constant_fields: EventDict, write: Callable[[bytes], None], emit_escaped: EventWriter
    ) -> None:
        self._write = write
        self._emit_escaped = emit_escaped
        self._after_time = b'Z","level":"%b",%b,' % (level.encode(), orjson.dumps(constant_fields)[1:-1])
        self._second = 0
        self._line_start = b""  # a `%` template for all lines of that second

    def emit(self, fields: EventDict) -> None:
        try:
            line = orjson.dumps(fields)
        except TypeError:  # text with lone surrogates
            self._emit_escaped(fields)
            return
        if not line.isascii():
            self._emit_escaped(fields)
            return
        now_s = time()
        microseconds = int((now_s - self._second) * 1e6)
        if not 0 <= microseconds < _SECOND_US:
            self._start_second(int(now_s))
            microseconds = int((now_s - self._second) * 1e6)
        write = self._write
        write(self._line_start % microseconds + line[1:])

    def _start_second(self, second: int) -> None:
        self._second = second
        text = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second)).encode()
        self._line_start = b'{"timestamp":"%b.%%06d%b' % (text, self._after_time.replace(b"%", b"%%"))


def _order_fields(_logger: Any, method: str, event: EventDict) -> EventDict:
    """Puts timestamp, level and event first."""
    return {
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "level": "error" if method == "exception" else method,
        "event": event.pop("event"),
        **event,
    }


def _render_json(logger: Any, method: str, event: EventDict) -> bytes:
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    try:
        line = orjson.dumps(event)
    except TypeError:  # a value of another type, or text with lone surrogates
        return _encode_escaped(event).encode()
    return line if line.isascii() else _encode_escaped(event).encode()


def _encode_text(_logger: Any, _method: str, line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace")


def _escape(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Escapes control characters: a terminal obeys them, and callers choose paths and names."""
    return {
        name: value.encode("unicode_escape").decode()
        if isinstance(value, str) and not value.isprintable()
        else value
        for name, value in event.items()
    }


class _LineLogger:
    """Passes rendered lines from structlog to the writer. All levels are treated alike."""

    def __init__(self, writer: LineWriter) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = self.exception = (
            writer.write
        )


class _LibraryLogHandler(logging.Handler):
    """Turns log records of libraries (aiohttp, asyncio) into our events."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        event = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            event["exc_info"] = record.exc_info  # type: ignore[assignment]  # structlog renders it
        log.log(record.levelno, "library", **event)
