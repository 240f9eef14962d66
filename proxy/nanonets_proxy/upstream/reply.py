"""One answer of the upstream, parsed as it arrives. No input or output: bytes are fed, the state is read.

States and transitions:

    HEAD   no final head yet; a 1xx is told and passed over
      final head                                      -> BODY (DONE for HEAD, 204, 304)
    BODY   the body is coming
      last byte, or the connection's end if that      -> DONE
      is what delimits the body
    DONE   complete; whatever follows is a protocol error of the peer and spoils the connection, not the answer

A 100 is told to nobody: whoever waits for it asks for `informational`.
`feed()` and `end_of_input()` raise an UpstreamError where the answer is broken; it must not be fed again.
"""

import enum
import re
from collections import deque
from collections.abc import Callable
from typing import Final

import httptools

from nanonets_proxy.errors import (
    UpstreamBadReply,
    UpstreamClosed,
    UpstreamError,
    UpstreamReplyTooLarge,
    UpstreamUpgraded,
)

# What may come without a byte of body among it: heads, chunk extensions, trailers.
MAX_HEAD_BYTES: Final = 64 * 1024
# RFC 9112 §4: only a tab is allowed of them; the parser takes them all.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


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
        "_is_head",
        "_overhead_bytes",
        "_parser",
        "_section_bytes",
        "began",
        "buffered_bytes",
        "head",
        "informational",
        "keep_alive",
        "on_interim",
        "stage",
        "trailers",
    )

    def __init__(self, *, is_head: bool, on_interim: Callable[[ResponseHead], None] | None = None) -> None:
        self._is_head = is_head
        self._parser = httptools.HttpResponseParser(self)
        self._overhead_bytes = 0  # since the last byte of body
        self._section_bytes = 0  # of fields, heads and trailers together, however they were cut in pieces
        self._chunks: deque[bytes] = deque()
        self._broken: UpstreamError | None = None
        self.buffered_bytes = 0
        self.began = False
        self.head = ResponseHead()
        self.informational = 0
        self.keep_alive = False
        self.on_interim = on_interim
        self.stage = Stage.HEAD
        self.trailers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> None:
        """Raises UpstreamBadReply, UpstreamUpgraded or UpstreamReplyTooLarge."""
        self.began = True
        if self.stage is Stage.DONE:
            self.keep_alive = False
            return
        self._overhead_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._on_parser_error()
        if self._broken is not None:
            raise self._broken
        if self._overhead_bytes > MAX_HEAD_BYTES and self.stage in (Stage.HEAD, Stage.BODY):
            raise _too_large()

    def _on_parser_error(self) -> None:
        if self.stage is Stage.DONE:
            self.keep_alive = False
        elif self._broken is None:
            self._broken = _bad_reply("The upstream's answer is not valid HTTP.")

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
        self._section_bytes += len(name) + len(value)
        if self._section_bytes > MAX_HEAD_BYTES and self._broken is None:
            self._broken = _too_large()
        if self.stage is Stage.HEAD:
            self.head.headers.append((name, value.rstrip(b" \t")))
        elif self.stage is Stage.BODY:
            self.trailers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.stage is not Stage.HEAD or self._broken is not None:
            return
        status = self._parser.get_status_code()
        self._broken = self._read_framing(status)
        if self._broken is not None:
            return  # still in HEAD: a head that cannot be trusted is not shown
        if status < 200:
            self.informational += 1
            head, self.head = self.head, ResponseHead()
            head.status = status
            if status > 101 and self.on_interim is not None:
                self.on_interim(head)
            return
        head = self.head
        head.status = status
        if self._is_head or status in (204, 304):
            head.body_length = 0
        # Behind a HEAD's answer the parser would take the start of a chunk for granted, unseen by us.
        self.keep_alive = self._parser.should_keep_alive() and not (self._is_head and head.is_chunked)
        # After HEAD the parser would wait for the body that Content-Length announces.
        self.stage = Stage.DONE if self._is_head else Stage.BODY

    def on_body(self, body: bytes) -> None:
        if self.stage is Stage.BODY:
            self._overhead_bytes = 0
            self._chunks.append(body)
            self.buffered_bytes += len(body)
        else:
            self.keep_alive = False

    def on_message_complete(self) -> None:
        if self.stage is Stage.BODY and self._broken is None:
            self.stage = Stage.DONE

    def _read_framing(self, status: int) -> UpstreamError | None:
        """Fills in the head's framing, or says what makes it useless."""
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            return _bad_reply("The upstream answered in another version of HTTP.")
        if status == 101:
            return UpstreamUpgraded("The upstream switched protocols unasked.", sent=True)
        if status < 100:
            return _bad_reply("The upstream's answer has no valid status.")
        head = self.head
        if _CONTROL.search(head.reason):
            return _bad_reply("The upstream's reason phrase has control characters in it.")
        for name, value in head.headers:
            lower = name.lower()
            if lower == b"content-length":
                head.body_length = int(value)
            elif lower == b"transfer-encoding":
                if value.lower() != b"chunked" or head.is_chunked:
                    # Any other coding is the connection's own (RFC 9112 §6.1) and can't be relayed as it is.
                    return _bad_reply("The upstream used an unknown transfer coding.")
                head.is_chunked = True
        return None


def _too_large() -> UpstreamReplyTooLarge:
    return UpstreamReplyTooLarge("The upstream's header or trailer section is too large.", sent=True)


def _bad_reply(message: str) -> UpstreamBadReply:
    return UpstreamBadReply(message, sent=True)


def closed_early() -> UpstreamClosed:
    return UpstreamClosed("The upstream closed the connection before its answer was complete.", sent=True)
