"""The upstream's answer on its way to the caller: head and body straight to the transport, nothing rebuilt.

aiohttp's ordinary response would assemble headers of its own. This one has sent everything before the
server sees it, so that the server's steps have nothing left to do.
"""

import asyncio

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from nanonets_proxy.core.http.headers import caller_response_head, chunked_body_end
from nanonets_proxy.core.keys.key_scrubber import ERROR_FROM_STATUS, NO_FORMS, KeyScrubber, is_unencoded
from nanonets_proxy.server.peers import CallerStalled, reset
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.response_head import ResponseHead


class RelayedResponse(web.StreamResponse):
    """An answer that is already on the wire, or was broken off there. `sent_bytes` counts its body."""

    # The base class's set-up (headers, cookies, state) is never used, so it is not paid for.
    def __init__(self, request: web.BaseRequest, idle_timeout_s: float) -> None:
        self._request = request
        self._idle_timeout_s = idle_timeout_s
        self._stays_open = False
        self._chunked = False
        self._echo: KeyScrubber | None = None
        self.began = False
        self.echoed = False
        self.forms = NO_FORMS
        """What to look for: those of the key that the request was sent with."""
        self.sent_bytes = 0

    @property
    def keep_alive(self) -> bool:
        """Asked by the server behind the answer."""
        return self._stays_open

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 - aiohttp's signature
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything was sent by `begin` and `follow`."""

    def frame(self, head: ResponseHead, may_stay: bool) -> bytes:
        """Settles how the answer `head` is told from the next; `may_stay` False closes behind it. Our own
        Transfer-Encoding and Connection lines for it (RFC 9112 §6.1, §9.3)."""
        request = self._request
        is_modern = request.version >= HttpVersion11
        self._chunked = head.body_length is None and is_modern
        # Of an old caller's answer without a length the end of the connection is the end of the body.
        self._stays_open = request.keep_alive and may_stay and (is_modern or head.body_length is not None)
        lines = b"Transfer-Encoding: chunked\r\n" if self._chunked else b""
        if not self._stays_open:
            lines += b"Connection: close\r\n"
        elif not is_modern:
            lines += b"Connection: keep-alive\r\n"
        return lines

    def begin(self, connection: UpstreamConnection, head: ResponseHead, lines: bytes, begun: bytes) -> bool:
        """Relays an answer that is framed: `lines`, which are its head, and what is here of the body; True if that
        was all, else `follow` has to be awaited.

        `begun` is what was read of the body before. The key is blanked in head, trailers and an error's body;
        `echoed` tells whether it was there. Raises ConnectionError where the caller is lost.
        """
        blanked = self.forms.blank(lines)
        if blanked is not lines:
            lines, self.echoed = blanked, True
        if head.status >= ERROR_FROM_STATUS and is_unencoded(head.headers):
            self._echo = KeyScrubber(self.forms)
        is_whole = connection.is_complete
        data = begun + connection.read_nowait()
        self.began = True
        if is_whole and not self._chunked and self._echo is None:
            self.sent_bytes = len(data)
        else:
            if self._echo is not None:
                data = self._echo.feed(data)
            data = self._framed(data) + (self._end(connection) if is_whole else b"")
        self._write(lines + data)
        return is_whole

    async def follow(self, connection: UpstreamConnection) -> None:
        """Relays the rest of a body to its end.

        Raises an UpstreamError where the answer breaks off, ConnectionError where the caller is lost or takes
        nothing any more; `abort` has to follow on either.
        """
        protocol = self._request.protocol
        while data := await connection.read():
            if self._echo is not None:
                data = self._echo.feed(data)
            self._write(self._framed(data))
            if protocol.writing_paused:
                await self.drain()
        self._write(self._end(connection))

    def send_interim(self, head: ResponseHead) -> None:
        """A 1xx on its way (RFC 9110 §15.2); an HTTP/1.0 caller would take it for the answer."""
        transport = self._request.transport
        if self.began or self._request.version < HttpVersion11 or transport is None or transport.is_closing():
            return
        built = caller_response_head(head.status, head.reason, head.names, head.values, b"\r\n")
        lines = self.forms.blank(built)
        self.echoed = self.echoed or lines is not built
        transport.write(lines)

    def force_close(self) -> None:
        """Nothing follows this answer on its connection."""
        self._stays_open = False

    def abort(self) -> None:
        """A short body must never look complete: the connection is reset instead of ended."""
        self.force_close()
        if self._request.transport is not None:
            reset(self._request.transport)

    def _framed(self, data: bytes) -> bytes:
        self.sent_bytes += len(data)
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data

    def _end(self, connection: UpstreamConnection) -> bytes:
        """What the filter held back, and what ends a chunked body."""
        end = b""
        if self._echo is not None:
            end = self._framed(self._echo.end())
            self.echoed = self.echoed or self._echo.found
        return end + self.forms.blank(chunked_body_end(connection.trailers)) if self._chunked else end

    def _write(self, data: bytes) -> None:
        transport = self._request.protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the caller has gone")
        if data:
            transport.write(data)

    async def drain(self) -> None:
        """Waits until the caller has taken most of it. Raises CallerStalled; `abort` has to follow."""
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                await self._request.writer.drain()
        except TimeoutError:
            raise CallerStalled("the caller takes nothing any more") from None
