"""The writer of log lines never blocks, and reports every line that it drops."""

import base64
import errno
import io
import json
import os
import threading
from typing import BinaryIO, cast

import pytest
import structlog

from nanonets_proxy.core.access.token_text import make_token
from nanonets_proxy.telemetry import writer as writer_module
from nanonets_proxy.telemetry.redaction import Redactor
from nanonets_proxy.telemetry.writer import LineWriter
from support.eventually import WAIT_S, wait_until
from support.log_capture import captured_log


class _Gone(io.BytesIO):
    """A pipe without a reader."""

    attempts = 0

    def write(self, _data: object, /) -> int:
        self.attempts += 1
        raise BrokenPipeError


class _Disk(io.BytesIO):
    """A file on a disk with room for `room` further bytes."""

    room = 0

    def write(self, data: object, /) -> int:
        part = bytes(data)[: self.room]  # type: ignore[call-overload]  # as `BytesIO.write` takes it
        if not part:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(part)
        return super().write(part)


def _keep(data: bytes) -> bytes:
    return data


def test_a_blocked_pipe_does_not_block_writers_and_drops_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_MAX_BUFFERED_LINES", 2000)
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as source, os.fdopen(write_end, "wb", buffering=0) as sink:
        writer = LineWriter(cast("BinaryIO", sink), _keep)
        for number in range(10_000):  # a write that blocks would block for ever, since nothing reads yet
            writer.write(b'{"event":"x","number":%d,"padding":"%b"}' % (number, b"p" * 100))
        assert writer.dropped > 0
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.extend(source))
        reader.start()
        writer.close()
        sink.close()
        reader.join(WAIT_S)
    events = [json.loads(line) for line in lines]
    numbers = [event["number"] for event in events if event["event"] == "x"]
    reported = [event["total"] for event in events if event["event"] == "log_lines_dropped"]
    assert numbers == sorted(numbers)
    assert len(numbers) + writer.dropped == 10_000
    assert reported[-1] == writer.dropped


def test_closing_waits_a_limited_time_for_a_blocked_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_CLOSE_TIMEOUT_S", 0.1)
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb", buffering=0) as sink:
        writer = LineWriter(cast("BinaryIO", sink), _keep)
        for _ in range(3000):
            writer.write(b"x" * 100)
        writer.close()  # without a limit it would block for ever
        assert writer._thread.is_alive()
        os.close(read_end)  # ends the thread
        writer._thread.join(WAIT_S)
        assert not writer._thread.is_alive()


def test_without_a_reader_each_batch_is_attempted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_BATCH_DELAY_S", 0.0)
    gone = _Gone()
    writer = LineWriter(gone, _keep)
    for attempts in (1, 2):
        writer.write(b"line")
        wait_until(lambda seen=attempts: gone.attempts == seen)  # a default binds the value
    writer.close()
    assert (gone.attempts, writer.dropped) == (2, 2)


def test_a_full_disk_is_a_fault_until_it_has_room_and_a_cut_line_stays_alone() -> None:
    disk = _Disk()
    disk.room = 20
    writer = LineWriter(disk, _keep)
    for number in range(5):
        writer.write(b'{"event":"%d"}' % number)
    wait_until(lambda: writer.dropped == 4)
    assert writer.fault() == "no space left on device"
    writer.write(b'{"event":"5"}')
    wait_until(lambda: writer.dropped == 5)
    disk.room = 1000
    writer.write(b'{"event":"6"}')
    wait_until(lambda: writer.fault() is None)
    writer.close()
    *lines, report = disk.getvalue().splitlines()
    assert lines == [b'{"event":"0"}', b'{"even', b'{"event":"6"}']
    assert json.loads(report)["total"] == writer.dropped == 5


def test_a_reader_that_reads_too_little_is_a_fault_before_a_line_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_BLOCKED_S", 0.01)
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as source, os.fdopen(write_end, "wb", buffering=0) as sink:
        writer = LineWriter(cast("BinaryIO", sink), _keep)
        for _ in range(3000):
            writer.write(b"x" * 100)
        wait_until(lambda: writer.fault() is not None)
        assert (writer.fault(), writer.dropped) == ("its reader has not read 64 KiB in 0 s", 0)
        reader = threading.Thread(target=source.read)
        reader.start()
        wait_until(lambda: writer.fault() is None)
        writer.close()
        sink.close()
        reader.join(WAIT_S)


def test_redaction_finds_each_spelling_of_a_secret() -> None:
    redactor = Redactor()
    redactor.add([b'a"b/c', "pässword".encode(), b"\xff\xfe"])
    lines = b"\n".join(
        [
            b'a"b/c',
            b'{"path":"a\\"b/c"}',
            b"a%22b%2Fc",
            b"p\\u00e4ssword",
            "pässword".encode(),
            b"p%C3%A4ssword",
            b"%FF%FE",
        ]
    )
    assert redactor(lines).count(b"[REDACTED]") == 7
    assert b"c" not in redactor(lines)


@pytest.mark.parametrize("randomness", [bytes(32), bytes(range(32)), b"\xff" * 32])
def test_every_token_of_a_caller_is_masked(randomness: bytes) -> None:
    """The program has only the hashes of tokens, and a token may stand in a wrong place, such as the path."""
    token = make_token(randomness).encode()
    for form in (token, base64.b64encode(token + b":"), base64.b64encode(token)):
        line = b'{"path":"/x/' + form + b'","other":"nnp_short bm5wX"}'
        masked = Redactor()(line)
        assert token not in masked
        assert form.rstrip(b"=") not in masked
        assert b'"/x/[REDACTED]' in masked
        assert masked.endswith(b'"other":"nnp_short bm5wX"}')


def test_a_traceback_on_the_console_shows_no_values_of_variables() -> None:
    with captured_log(log_format="console") as log:
        renderer = next(
            p for p in structlog.get_config()["processors"] if isinstance(p, structlog.dev.ConsoleRenderer)
        )
        assert renderer._exception_formatter is structlog.dev.plain_traceback
        secret = "a-local-" + "secret"
        try:
            int(secret[:1])
        except ValueError:
            structlog.get_logger().exception("failed")
    assert "ValueError: invalid literal" in log.text()
    assert "a-local-secret" not in log.text()
