"""Relays the upstream's response to the caller: head and body go straight to the transport, nothing is rebuilt."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from nanonets_proxy.core.http.headers import caller_response_head, chunked_body_end, passing_lines
from nanonets_proxy.core.keys.key_scrubber import NO_FORMS, SEARCHED_FROM_STATUS, KeyScrubber
from nanonets_proxy.request.response.body_start import MAX_BODY_BYTES
from nanonets_proxy.server.connection.caller_request import HTTP_1_1, CallerRequest
from nanonets_proxy.server.peers import CallerStalled, caller_gone, reset
from nanonets_proxy.upstream.response_head import ResponseHead

_COPIED_BYTES: Final = 4096  # up to this size, a copy costs less than a second piece of a write
STALL_S: Final = 1.0  # any reader that is still there empties some of its buffers in that time


class ResponseBody(Protocol):
    """The source of a body: a connection, or a response that was kept."""

    @property
    def is_complete(self) -> bool: ...
    @property
    def trailers(self) -> Sequence[tuple[bytes, bytes]]: ...
    def read_nowait(self) -> bytes: ...


class ReadableBody(ResponseBody, Protocol):
    """A body of which a part may have to be waited for."""

    async def read(self) -> bytes:
        """Returns the next bytes; b"" at the end."""


class RelayedResponse:
    """The response to one request, relayed as it arrives."""

    __slots__ = (
        *("_connection", "_idle_timeout_s", "_is_chunked", "_request", "_scrubber"),
        *("began", "copied", "echoed", "forms", "keep_alive", "sent_bytes"),
    )

    def __init__(self, request: CallerRequest, idle_timeout_s: float) -> None:
        self._request = request
        self._connection = request.connection
        self._idle_timeout_s = idle_timeout_s
        self._is_chunked = False
        self._scrubber: KeyScrubber | None = None
        self.began = False
        """Whether the caller has been sent the response's head."""
        self.copied: bytearray | None = None
        """If set, collects the start of the body of an error, without the key."""
        self.echoed = False
        """Whether the response contained the key."""
        self.forms = NO_FORMS
        """The forms in which the key of the request may be echoed."""
        self.keep_alive = False
        """Whether another request may follow on the caller's connection."""
        self.sent_bytes = 0
        """Bytes of the body."""

    def frame(self, head: ResponseHead, may_stay: bool) -> bytes:
        """Decides how the response ends; with `may_stay` False, the connection closes behind it.

        Returns our own Transfer-Encoding and Connection lines (RFC 9112 §6.1, §9.3).
        """
        request = self._request
        is_modern = request.version >= HTTP_1_1
        self._is_chunked = head.body_length is None and is_modern
        # To HTTP/1.0, a body without a length ends with the connection.
        self.keep_alive = request.keep_alive and may_stay and (is_modern or head.body_length is not None)
        lines = b"Transfer-Encoding: chunked\r\n" if self._is_chunked else b""
        if not self.keep_alive:
            lines += b"Connection: close\r\n"
        elif not is_modern:
            lines += b"Connection: keep-alive\r\n"
        return lines

    def begin(self, connection: ResponseBody, head: ResponseHead, lines: bytes, body_start: bytes) -> bool:
        """Relays `lines` (the framed head), `body_start`, and the part of the body that has arrived since.

        Returns whether the response is complete; if not, `follow` must be awaited. Blanks the key in the head, the
        trailers, and the body of a response other than 2xx. Raises ConnectionError if the caller is lost.
        """
        blanked = self.forms.blank(lines)
        if blanked is not lines:
            lines, self.echoed = blanked, True
        # Content-Encoding is ignored here, since a wrong value must not hide the key.
        if head.status >= SEARCHED_FROM_STATUS:
            self._scrubber = KeyScrubber(self.forms)
        data = body_start + connection.read_nowait()
        is_whole = len(data) == head.body_length or connection.is_complete
        self.began = True
        if is_whole and not self._is_chunked and self._scrubber is None:
            self.sent_bytes = len(data)
        else:
            if self._scrubber is not None:
                data = self._scrub(self._scrubber, data)
            data = self._framed(data) + (self._end(connection) if is_whole else b"")
        self._write(lines, data)
        return is_whole

    async def follow(self, connection: ReadableBody, on_stall: Callable[[], None]) -> None:
        """Relays the body to its end. Calls `on_stall` the first time that the caller reads nothing for STALL_S.

        Raises an UpstreamError if the response breaks off, and ConnectionError if the caller is lost or reads
        nothing any more. `abort` must follow then.
        """
        has_stalled = False
        while data := await connection.read():
            if self._scrubber is not None:
                data = self._scrub(self._scrubber, data)
            self._write(self._framed(data))
            if self._connection.writing.is_full:
                if not has_stalled and not await self._drain_within(STALL_S):
                    has_stalled = True
                    on_stall()
                await self.drain()
        self._write(self._end(connection))

    def send_interim(self, head: ResponseHead) -> None:
        """Relays a 1xx (RFC 9110 §15.2), but not to HTTP/1.0, which would take it for the response."""
        transport = self._connection.transport
        if self.began or self._request.version < HTTP_1_1 or transport is None or transport.is_closing():
            return
        fields = passing_lines(head.status, head.names, head.values)
        built = caller_response_head(head.status, head.reason, head.names, fields, b"\r\n")
        lines = self.forms.blank(built)
        self.echoed = self.echoed or lines is not built
        transport.write(lines)

    def abort(self) -> None:
        """Resets the connection instead of closing it: a short body must never look complete."""
        self.keep_alive = False
        if self._connection.transport is not None:
            reset(self._connection.transport)

    def _scrub(self, scrubber: KeyScrubber, data: bytes) -> bytes:
        data = scrubber.feed(data)
        if self.copied is not None and len(self.copied) <= MAX_BODY_BYTES:
            self.copied += data
        return data

    def _framed(self, data: bytes) -> bytes:
        self.sent_bytes += len(data)
        return b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked and data else data

    def _end(self, connection: ResponseBody) -> bytes:
        """Returns the bytes that the scrubber held back, and the end of a chunked body."""
        end = b""
        if self._scrubber is not None:
            held = self._scrubber.end()
            if self.copied is not None:
                self.copied += held
            end = self._framed(held)
            self.echoed = self.echoed or self._scrubber.found
        return end + self.forms.blank(chunked_body_end(connection.trailers)) if self._is_chunked else end

    def _write(self, data: bytes, behind: bytes = b"") -> None:
        """Writes both with one system call. Raises ConnectionError if the caller is lost."""
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            raise caller_gone()
        if len(behind) <= _COPIED_BYTES:
            transport.write(data + behind)
        else:
            transport.writelines((data, behind))

    async def drain(self) -> None:
        """Waits until the caller has read most of what was sent.

        Raises CallerStalled after the idle timeout, and ConnectionError if the caller is lost; `abort` must follow.
        """
        if not await self._drain_within(self._idle_timeout_s):
            raise CallerStalled("the caller no longer reads its response")

    async def _drain_within(self, timeout_s: float) -> bool:
        """Waits as `drain` does; returns False after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._connection.drain()
        except TimeoutError:
            return False
        return True
