"""structlog, set up once: one event a line, JSON or console, through the LineWriter."""

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
        processors=[_head, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineLogger(writer),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)
    return writer


def event_writer(name: str, **context: str) -> EventWriter | None:
    """Writes events of level info, given all their fields but name and context: one for each request. As structlog
    is configured now, without its way of handing keywords from call to call; None if it drops the level."""
    log = structlog.get_logger(**context).bind()
    if not log.is_enabled_for(logging.INFO):
        return None
    config = structlog.get_config()
    processors, write = config["processors"], config["logger_factory"]().info
    always = {"event": name, **context}

    def emit(fields: EventDict) -> None:
        line: Any = {**always, **fields}
        for process in processors:
            line = process(None, "info", line)
        write(line)

    return _JsonEvents(always, write, emit).emit if processors[-1] is _render_json else emit


class _JsonEvents:
    """Lines in JSON that begin alike but for the time, of which only the microseconds are rendered for each.
    `emit_carefully` takes what has to be escaped."""

    def __init__(self, always: EventDict, write: Callable[[bytes], None], emit_carefully: EventWriter) -> None:
        self._write = write
        self._emit_carefully = emit_carefully
        self._behind_time = b'Z","level":"info",%b,' % orjson.dumps(always)[1:-1]
        self._second = 0
        self._beginning = b""  # of all lines in that second, for `%`

    def emit(self, fields: EventDict) -> None:
        try:
            line = orjson.dumps(fields)
        except TypeError:  # text that is none
            self._emit_carefully(fields)
            return
        if not line.isascii():
            self._emit_carefully(fields)
            return
        now_s = time()
        microseconds = int((now_s - self._second) * 1e6)
        if not 0 <= microseconds < _SECOND_US:
            self._turn_to(int(now_s))
            microseconds = int((now_s - self._second) * 1e6)
        self._write(self._beginning % microseconds + line[1:])

    def _turn_to(self, second: int) -> None:
        self._second = second
        text = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second)).encode()
        self._beginning = b'{"timestamp":"%b.%%06d%b' % (text, self._behind_time.replace(b"%", b"%%"))


def _head(_logger: Any, method: str, event: EventDict) -> EventDict:
    """What every line has comes first, for those who read along: when, how grave, what."""
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
