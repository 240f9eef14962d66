"""Writes lines to standard output and never blocks the event loop.

A pipe with a slow reader blocks its writer, which would stall every caller. A thread therefore writes the lines in
batches. The buffer is bounded: the writer drops and counts further lines, and the next batch reports their number.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import BinaryIO, Final

_BATCH_DELAY_S: Final = 0.05
_MAX_BUFFERED_LINES: Final = 20_000
_CLOSE_TIMEOUT_S: Final = 2.0
_BLOCKED_S: Final = 5.0
_PART_BYTES: Final = 65536  # a pipe's usual capacity, so that a write ends soon if somebody reads
_LINE_END: Final = 0x0A


class LineWriter:
    """Applies `redact` to each batch before it writes the batch to `stream`."""

    def __init__(self, stream: BinaryIO, redact: Callable[[bytes], bytes]) -> None:
        """`stream` must have no buffer. Otherwise Python writes unwritten lines at its exit, and may fail."""
        self.stream = stream
        self._redact = redact
        self._lines: list[bytes] = []  # no lock: the loop appends, the thread removes from the front
        self._wake = threading.Event()
        self._is_asleep = True  # cheaper to check for each line than the event
        self._closing = threading.Event()
        self._overflowed = 0  # counted by `write`
        self._unwritten = 0  # counted by the thread
        self._dropped_reported = 0
        self._is_cut = False  # whether the last line was written in part
        self._fault: str | None = None
        self._writes_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """The number of lines that were not written."""
        return self._overflowed + self._unwritten

    def fault(self) -> str | None:
        """Returns why lines cannot be written, as the end of a sentence; None if they can."""
        since_s = self._writes_since_s
        waits_s = 0.0 if since_s is None else time.monotonic() - since_s
        return self._fault if waits_s < _BLOCKED_S else f"its reader has not read 64 KiB in {waits_s:.0f} s"

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
        data = memoryview(self._redact(b"\n".join([*([b""] if self._is_cut else []), *lines, *report, b""])))
        rest = data
        try:
            while rest:
                rest = rest[self._write(rest[:_PART_BYTES]) :]
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            text = error.strerror if isinstance(error, OSError) else None
            self._fault = (text or str(error)).lower()
            self._unwritten += min(len(lines), bytes(rest).count(b"\n") - len(report))
        else:
            self._fault, self._dropped_reported = None, dropped
        if len(rest) < len(data):
            self._is_cut = data[len(data) - len(rest) - 1] != _LINE_END

    def _write(self, data: memoryview) -> int:
        """Writes a part of the data, and returns its length."""
        self._writes_since_s = time.monotonic()
        try:
            written: int | None = self.stream.write(data)
        finally:
            self._writes_since_s = None
        if written is None:  # another process made the pipe non-blocking
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return written


def _report(dropped: int) -> bytes:
    now = datetime.now(UTC).isoformat().encode()
    return b'{"timestamp":"%b","level":"error","event":"log_lines_dropped","total":%d}' % (now, dropped)
