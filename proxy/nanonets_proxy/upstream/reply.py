"""One answer of the upstream, parsed as it arrives. No input or output: bytes are fed, the state is read.

States and transitions:

    HEAD   no final head yet; 1xx are passed over
      final head                                      -> BODY (DONE for HEAD, 204, 304)
    BODY   the body is coming
      last byte, or the connection's end if that      -> DONE
      is what delimits the body
    DONE   complete; whatever follows is a protocol error of the peer and spoils the connection, not the answer

`feed()` and `end_of_input()` raise an UpstreamError where the answer is broken; it must not be fed again.
"""

import enum
from collections import deque
from typing import Final

import httptools

from nanonets_proxy.errors import UpstreamBadReply, UpstreamClosed, UpstreamReplyTooLarge, UpstreamUpgraded

MAX_HEAD_BYTES: Final = 64 * 1024


class Stage(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    DONE = enum.auto()


class ResponseHead:
    """Status line and fields of a final answer, as they came. `body_length` is None where only chunked coding or
    the connection's end delimits the body; `is_chunked` tells which."""

    __slots__ = ("body_length", "headers", "is_chunked", "reason", "status")

    def __init__(self) -> None:
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body_length: int | None = None
        self.is_chunked = False


class Reply:
    """See the module's docstring. `is_head`: an answer to HEAD has no body, whatever its fields announce."""

    __slots__ = (
        "_broken",
        "_chunks",
        "_head_bytes",
        "_is_head",
        "_parser",
        "began",
        "buffered_bytes",
        "head",
        "informational",
        "keep_alive",
        "stage",
        "trailers",
    )

    def __init__(self, *, is_head: bool) -> None:
        self._is_head = is_head
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._chunks: deque[bytes] = deque()
        self._broken: str | None = None
        self.buffered_bytes = 0
        self.began = False
        self.head = ResponseHead()
        self.informational = 0
        self.keep_alive = False
        self.stage = Stage.HEAD
        self.trailers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> None:
        """Raises UpstreamBadReply, UpstreamUpgraded or UpstreamReplyTooLarge."""
        self.began = True
        if self.stage is Stage.DONE:
            self.keep_alive = False
            return
        if self.stage is Stage.HEAD:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise UpstreamUpgraded("The upstream switched protocols unasked.", sent=True) from None
        except httptools.HttpParserError:
            self._on_parser_error()
        if self._broken is not None:
            raise UpstreamBadReply(self._broken, sent=True)
        if self.stage is Stage.HEAD and self._head_bytes > MAX_HEAD_BYTES:
            raise UpstreamReplyTooLarge("The upstream's header section is too large.", sent=True)

    def _on_parser_error(self) -> None:
        if self.stage is Stage.DONE:
            self.keep_alive = False
        elif self._broken is None:
            self._broken = "The upstream's answer is not valid HTTP."

    def end_of_input(self) -> None:
        """The connection ended cleanly. Raises UpstreamClosed if the answer is not complete by that."""
        self.keep_alive = False
        # RFC 9112 §6.3 rule 8: without Content-Length and chunked, the connection's end is the body's.
        if self.stage is Stage.BODY and self.head.body_length is None and not self.head.is_chunked:
            self.stage = Stage.DONE
        if self.stage is not Stage.DONE:
            raise closed_early()

    def take(self) -> bytes:
        """The body bytes that came and were not taken yet."""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.buffered_bytes = 0
        return data

    # --- httptools calls these ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.stage is Stage.DONE:
            self.keep_alive = False

    def on_status(self, status: bytes) -> None:
        if self.stage is Stage.HEAD:
            self.head.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.stage is Stage.HEAD:
            self.head.headers.append((name, value.rstrip(b" \t")))
        elif self.stage is Stage.BODY:
            self.trailers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.stage is not Stage.HEAD:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.informational += 1
            if status != 101:  # an unasked 101 raises HttpParserUpgrade right behind this
                self.head = ResponseHead()
                self._head_bytes = 0
            return
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            self._broken = "The upstream answered in another version of HTTP."
        self.head.status = status
        self._read_framing()
        self.keep_alive = self._parser.should_keep_alive()
        # After HEAD the parser would wait for the body that Content-Length announces.
        self.stage = Stage.DONE if self._is_head else Stage.BODY

    def on_body(self, body: bytes) -> None:
        if self.stage is Stage.BODY:
            self._chunks.append(body)
            self.buffered_bytes += len(body)
        else:
            self.keep_alive = False

    def on_message_complete(self) -> None:
        if self.stage is Stage.BODY:
            self.stage = Stage.DONE

    def _read_framing(self) -> None:
        head = self.head
        for name, value in head.headers:
            lower = name.lower()
            if lower == b"content-length":
                head.body_length = int(value)
            elif lower == b"transfer-encoding":
                head.is_chunked = True
                if value.lower() != b"chunked":
                    # Any other coding is the connection's own (RFC 9112 §6.1) and can't be relayed as it is.
                    self._broken = "The upstream used an unknown transfer coding."
        if self._is_head or head.status in (204, 304):
            head.body_length = 0


def closed_early() -> UpstreamClosed:
    return UpstreamClosed("The upstream closed the connection before its answer was complete.", sent=True)
