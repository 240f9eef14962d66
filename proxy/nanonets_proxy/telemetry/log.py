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


def whole_events(name: str, **context: str) -> Callable[[EventDict], None]:
    """Writes events of level info, given all their fields but name and context: the one that every request costs.
    As structlog is configured now, without its way of handing keywords from call to call."""
    log = structlog.get_logger(**context).bind()
    if not log.is_enabled_for(logging.INFO):
        return lambda _: None
    config = structlog.get_config()
    processors, write = config["processors"], config["logger_factory"]().info
    always = {"event": name, **context}

    def emit(fields: EventDict) -> None:
        line: Any = {**always, **fields}
        for process in processors:
            line = process(None, "info", line)
        write(line)

    if processors[-1] is not _render_json:
        return emit
    clock = _Clock()
    beginning = b',"level":"info",%b,' % orjson.dumps(always)[1:-1]

    def emit_json(fields: EventDict) -> None:
        try:
            line = orjson.dumps(fields)
        except TypeError:
            emit(fields)
            return
        if line.isascii():
            write(b'{"timestamp":"%b"%b%b' % (clock.now(), beginning, line[1:]))
        else:
            emit(fields)

    return emit_json


class _Clock:
    """The time as lines show it: UTC, to the microsecond."""

    def __init__(self) -> None:
        self._second = 0
        self._text = b""  # of that second: most events fall in the same one as their predecessor

    def now(self) -> bytes:
        now_s = time.time()
        second = int(now_s)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return b"%b.%06dZ" % (self._text, int((now_s - second) * 1e6))


class _Header:
    """What every line has comes first, for those who read along: when, how grave, what."""

    def __init__(self) -> None:
        self._clock = _Clock()

    def __call__(self, _logger: Any, method: str, event: EventDict) -> EventDict:
        return {
            "timestamp": self._clock.now().decode(),
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
