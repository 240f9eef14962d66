"""Writes lines to standard output and never blocks the event loop.

A pipe with a slow reader blocks its writer, which would stall every caller. A thread therefore writes the lines in
batches. The buffer is bounded: the writer drops and counts further lines, and the next batch reports their number.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import BinaryIO, Final

_BATCH_DELAY_S: Final = 0.05
_MAX_BUFFERED_LINES: Final = 20_000
_CLOSE_TIMEOUT_S: Final = 2.0


class LineWriter:
    """Applies `redact` to each batch before it writes the batch to `stream`."""

    def __init__(self, stream: BinaryIO, redact: Callable[[bytes], bytes]) -> None:
        self.stream = stream
        self._redact = redact
        self._lines: list[bytes] = []  # no lock: the loop appends, the thread removes from the front
        self._wake = threading.Event()
        self._is_asleep = True  # cheaper to check for each line than the event
        self._closing = threading.Event()
        self._overflowed = 0  # counted by `write`
        self._unwritten = 0  # counted by the thread
        self._dropped_reported = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """The number of lines that were not written."""
        return self._overflowed + self._unwritten

    def write(self, line: bytes) -> None:
        """Buffers a line, which has no line end."""
        lines = self._lines
        if len(lines) >= _MAX_BUFFERED_LINES:
            self._overflowed += 1
            return
        lines.append(line)
        if self._is_asleep:
            self._is_asleep = False
            self._wake.set()

    def close(self) -> None:
        """Writes the buffered lines; waits at most 2 s for a slow reader."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(_BATCH_DELAY_S)
            self._wake.clear()
            self._is_asleep = True  # before the flush, so that a line during the flush wakes the thread again
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = self._lines[:]
        del self._lines[: len(lines)]
        if not lines:
            return
        dropped = self.dropped
        report = [_report(dropped)] if dropped > self._dropped_reported else []
        try:
            self.stream.write(self._redact(b"\n".join([*lines, *report, b""])))
            self.stream.flush()
            self._dropped_reported = dropped
        except (OSError, ValueError):
            self._unwritten += len(lines)  # the reader is gone


def _report(dropped: int) -> bytes:
    now = datetime.now(UTC).isoformat().encode()
    return b'{"timestamp":"%b","level":"error","event":"log_lines_dropped","total":%d}' % (now, dropped)
