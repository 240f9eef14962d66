"""Lines to standard output without ever blocking the event loop.

A pipe whose reader is slow blocks its writer; in a proxy that would stall every caller. So lines are
collected here and written in batches by a thread of their own. The buffer is bounded: beyond it lines
are dropped and counted, and the next batch that can be written says how many.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import BinaryIO, Final

_BATCH_DELAY_S: Final = 0.05
_MAX_BUFFERED_LINES: Final = 20_000
_CLOSE_TIMEOUT_S: Final = 2.0


class LineWriter:
    """`redact` is applied to each batch before it is written: the last place that a secret could pass."""

    def __init__(self, stream: BinaryIO, redact: Callable[[bytes], bytes]) -> None:
        self._stream = stream
        self._redact = redact
        self._lines: list[bytes] = []  # one thread appends to it, another cuts off its front: safe without a lock
        self._wake = threading.Event()
        self._is_asleep = True  # asked for each line, more cheaply than the event
        self._closing = threading.Event()
        self._overflowed = 0  # counted by those who write lines
        self._unwritten = 0  # counted by the thread
        self._dropped_told = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that nobody will see."""
        return self._overflowed + self._unwritten

    def write(self, line: bytes) -> None:
        """Takes a line without its end."""
        lines = self._lines
        if len(lines) >= _MAX_BUFFERED_LINES:
            self._overflowed += 1
            return
        lines.append(line)
        if self._is_asleep:
            self._is_asleep = False
            self._wake.set()

    def close(self) -> None:
        """Writes what is left, waiting for a slow reader no longer than a moment."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(_BATCH_DELAY_S)
            self._wake.clear()
            self._is_asleep = True  # before the lines are taken: one that comes now wakes again
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = self._lines[:]
        del self._lines[: len(lines)]
        if not lines:
            return
        dropped = self.dropped
        report = [_report(dropped)] if dropped > self._dropped_told else []
        try:
            self._stream.write(self._redact(b"\n".join([*lines, *report, b""])))
            self._stream.flush()
            self._dropped_told = dropped
        except (OSError, ValueError):
            self._unwritten += len(lines)  # the reader has gone; there is nowhere left to say so


def _report(dropped: int) -> bytes:
    now = datetime.now(UTC).isoformat().encode()
    return b'{"timestamp":"%b","level":"error","event":"log_lines_dropped","total":%d}' % (now, dropped)
