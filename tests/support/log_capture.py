"""Captures the program's log as parsed events."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from nanonets_proxy.telemetry.log import configure
from nanonets_proxy.telemetry.redaction import Redactor
from nanonets_proxy.telemetry.writer import LineWriter
from reference.documented_events import EVENTS, undocumented


class LogCapture:
    """Reads the log. The first read closes the writer, so that all lines have been written."""

    def __init__(self, stream: io.BytesIO, writer: LineWriter) -> None:
        self._stream = stream
        self._writer = writer

    def text(self) -> str:
        self._writer.close()
        return self._stream.getvalue().decode()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Returns the events called `name` from a JSON log.

        Raises AssertionError if docs/reference/log-events.md does not list their fields and levels.
        """
        events = [event for line in self.text().splitlines() if (event := json.loads(line))["event"] == name]
        if name in EVENTS:
            assert [fields for event in events if (fields := undocumented(event))] == []
        return events


@contextmanager
def captured_log(*secrets: bytes, log_format: str = "json", level: str = "info") -> Iterator[LogCapture]:
    """Configures logging as the program does, and restores it after the block."""
    root = logging.getLogger()
    handlers, root_level = root.handlers[:], root.level
    root.handlers.clear()  # configuring would close these handlers, which belong to pytest
    redactor = Redactor()
    redactor.add(secrets)
    stream = io.BytesIO()
    writer = configure(log_format, level, stream, redactor)
    try:
        yield LogCapture(stream, writer)
    finally:
        writer.close()
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(root_level)
