"""What a caller sends, on its way to aiohttp's parser: what that does not judge, or not well, is judged here.

no head   idle, or a body is coming, or the parser holds what it has enough of
  a byte of a request line      -> held      until the line is there as a whole: the parser takes other
                                             protocols for HTTP, and knows no methods but its own
  the line's end                -> head      fed up to the head's end and no further: an error of the
                                             parser's takes along whatever was fed in the same call
  the head's end                -> no head   the request is queued
  too slow, too large, invalid  -> refused   answered behind what is under way; nothing more is read
"""

import re
from typing import TYPE_CHECKING, Any, Final

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import _ErrInfo  # private; nothing else tells a refusal of the parser from a request

from nanonets_proxy.errors import (
    BadRequest,
    CallerTooSlow,
    HeadTooLarge,
    ProxyError,
    TargetTooLong,
)
from nanonets_proxy.server.flow_control import ReadAhead
from nanonets_proxy.server.parser_errors import forget_frames
from nanonets_proxy.server.request_loop import RequestHandler, RequestLoop

if TYPE_CHECKING:
    import asyncio

# RFC 9112 §3 wants at least 8000 octets of request line; the two limits differ, since the parser's error
# names nothing but the limit. All fields together have as much room as common servers give.
MAX_TARGET_BYTES: Final = 12 * 1024
MAX_FIELD_BYTES: Final = 16 * 1024
_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_METHOD_BYTES: Final = 64
_END_OF_HEAD: Final = b"\r\n\r\n"
# These the parser knows or has to see as they are, the usual ones first; any other passes it as `_STAND_IN`.
_KNOWN_METHODS: Final = (
    *(b"GET", b"POST", b"PUT", b"PATCH", b"DELETE"),
    *(b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE", b"PRI"),
)
_STAND_IN: Final = b"POST"
_TOKEN_BYTES: Final = frozenset(b"!#$%&'*+.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-")
_USUAL_END_OF_LINE: Final = b" HTTP/1.1\r\n"
_END_OF_LINE: Final = re.compile(rb" HTTP/[0-9]\.[0-9]\r?\n\Z")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2

_FEED_PARSER: Final = web.RequestHandler.data_received  # without super()'s way there


class ParserFeed(RequestLoop):
    """A connection's way to the parser. A head that began has to be complete within `head_timeout_s`, and within
    `_MAX_HEAD_BYTES`."""

    __slots__ = (
        "_body_left",
        "_head_bytes",
        "_head_is_known",
        "_head_tail",
        "_head_timeout_s",
        "_head_timer",
        "_held",
        "_is_at_line",
        "_payload",
        "_real_method",
        "_refused",
    )

    def __init__(
        self, server: web.Server, handler: RequestHandler, ahead: ReadAhead, head_timeout_s: float, **options: Any
    ) -> None:
        super().__init__(server, handler, ahead, **options)
        self._head_timeout_s = head_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # fed of a head that is not complete
        self._head_is_known = True  # whether its beginning was seen
        self._head_tail = b""  # its last bytes: its end may come in two pieces
        self._held = b""  # the beginning of a request line
        self._is_at_line = True  # whether the next byte begins a request line; False where that is not known
        self._body_left: int | None = None  # of a body with a length; None where only the parser knows
        self._payload: StreamReader = EMPTY_PAYLOAD  # of the request that came last
        self._real_method: str | None = None
        self._refused = False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Heads are fed one by one: an error of the parser's takes along whatever was fed in the same call. `data`
        may be a view of a buffer that others will use."""
        if self._body_left and self._feed_if_body(data):
            return
        data = bytes(data)
        if self._held:
            data, self._held = self._held + data, b""
        start = 0
        while start < len(data) and not self._refused:
            if self._buffer_paused or not self._payload.is_eof():
                end = self._feed_body(data, start)
            elif self._is_at_line and (skipped := self._skip_empty_line(data, start)):
                end = skipped
            elif self._is_at_line and not self._may_begin(data, start):
                return
            else:
                end = self._feed_head(data, start)
            start = end
        if not data and not self._refused:
            self._feed(data)  # aiohttp has the parser go on with what it holds
            self._body_left = None
            self._is_at_line = False

    def on_head(self, message: RawRequestMessage) -> None:
        """Told of each request whose head was fed whole, and alone, and taken."""

    def _feed_if_body(self, data: bytes) -> bool:
        """Feeds what is of a body alone, among which no message can begin; the parser copies it."""
        if self._body_left is None or len(data) > self._body_left or self._buffer_paused:
            return False
        self._body_left -= len(data)
        _FEED_PARSER(self, data)
        self._is_at_line = True
        return True

    def _feed_body(self, data: bytes, start: int) -> int:
        """Up to the body's end where that is known, so that a request line begins behind it; else all there is."""
        if self._body_left and not self._buffer_paused:
            end = min(len(data), start + self._body_left)
            self._body_left -= end - start
            _FEED_PARSER(self, memoryview(data)[start:end])  # type: ignore[arg-type]  # which the parser takes too
            self._is_at_line = True
            return end
        self._body_left = None
        self._feed(data[start:])
        self._is_at_line = not self._buffer_paused and self._payload.is_eof() and data.endswith(_END_OF_HEAD)
        return len(data)

    def _skip_empty_line(self, data: bytes, start: int) -> int:
        """RFC 9112 §2.2: an empty line before a request is passed over. Where it ends, or 0."""
        if data[start : start + 2] != b"\r\n":
            return 0
        self._end_head()  # its first byte may have come alone, and been taken for a line's beginning
        return start + 2

    def _may_begin(self, data: bytes, start: int) -> bool:
        """Whether a request line is here as a whole, and its protocol is HTTP: the parser takes others for it."""
        end = data.find(b"\n", start) + 1
        if not end and (data[start] in _TOKEN_BYTES or data[start:] == b"\r"):
            self._hold(data[start:])
            return False
        if data[end - 11 : end] == _USUAL_END_OF_LINE or _END_OF_LINE.search(data, start, end) is not None:
            return True
        self._refuse(BadRequest("The request line is malformed."))
        return False

    def _feed_head(self, data: bytes, start: int) -> int:
        end = self._end_of_head(data, start)
        is_end = end > 0
        end = end or len(data)
        piece = data if end - start == len(data) else data[start:end]
        if not self._head_bytes:
            self._head_is_known = self._is_at_line
        if self._is_at_line:
            piece = self._with_known_method(piece)
        before = self._request_count
        self._feed(piece)
        if self._request_count != before:
            is_exact = is_end and self._head_is_known  # else the end found may be one in the body
            message = self._messages[-1][0]
            self._body_left = _length_of(message) if is_exact else None
            if is_exact and not isinstance(message, _ErrInfo):
                self.on_head(message)
            self._is_at_line = is_exact or (self._payload.is_eof() and piece.endswith(_END_OF_HEAD))
        else:
            self._note_partial_head(piece)
        return end

    def _note_partial_head(self, piece: bytes) -> None:
        self._is_at_line = False
        self._head_began()
        self._head_bytes += len(piece)
        self._head_tail = (self._head_tail + piece[-3:])[-3:]
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse(HeadTooLarge("The request's header section is too large."))

    def _end_of_head(self, data: bytes, start: int) -> int:
        """Where the head ends whose last bytes so far are `_head_tail`; 0 where it does not."""
        tail = self._head_tail
        if tail and (found := (tail + data[start : start + 3]).find(_END_OF_HEAD)) >= 0:
            return start + found + len(_END_OF_HEAD) - len(tail)
        found = data.find(_END_OF_HEAD, start)
        return found + len(_END_OF_HEAD) if found >= 0 else 0

    def _hold(self, line: bytes) -> None:
        """A request line is judged as a whole, so the parser gets it as a whole."""
        self._held = line
        self._head_began()
        if len(line) > _MAX_METHOD_BYTES + MAX_TARGET_BYTES:
            self._refuse(TargetTooLong("The request target is too long."))

    def _feed(self, data: bytes) -> None:
        seen = self._request_count
        _FEED_PARSER(self, data)
        if self._request_count != seen:
            if isinstance(message := self._messages[-1][0], _ErrInfo):
                forget_frames(message.exc)
            self._on_messages(self._request_count - seen, self._head_bytes + len(data))

    def _head_began(self) -> None:
        if self._head_timer is None:
            late = CallerTooSlow("The request's header section did not come in time.")
            self._head_timer = self._loop.call_later(self._head_timeout_s, self._refuse, late)

    def _with_known_method(self, data: bytes) -> bytes:
        """The parser has a list of methods and refuses all others; RFC 9110 §9.1 has none. The real one is put back
        behind its back."""
        space = data.find(b" ", 0, _MAX_METHOD_BYTES + 1)
        method = data[:space]
        if space <= 0 or method in _KNOWN_METHODS or not _TOKEN.fullmatch(method):
            return data
        self._real_method = method.decode()
        return _STAND_IN + data[space:]

    def _on_messages(self, count: int, size: int) -> None:
        self._end_head()
        if self._real_method is not None:
            message, payload = self._messages[-count]
            if not isinstance(message, _ErrInfo):
                self._messages[-count] = message._replace(method=self._real_method), payload
            self._real_method = None
        body = self._payload
        message, self._payload = self._messages[-1]
        if isinstance(message, _ErrInfo):
            self._refused = True
            if not body.is_eof():
                self._break_body(body)
        elif size > _MAX_HEAD_BYTES:
            while count and _size_of(self._messages[-count][0]) <= _MAX_HEAD_BYTES:
                count -= 1
            if count:
                for _ in range(count):
                    self._messages.pop()
                self._refuse(HeadTooLarge("The request's header section is too large."))

    def _end_head(self) -> None:
        self._head_bytes = 0
        self._head_tail = b""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: ProxyError) -> None:
        """Answers with `error` behind what is under way, and takes nothing more from this connection."""
        self._refused = True
        self._end_head()
        self._messages.append((_ErrInfo(error.status, error, error.message), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break_body(self, body: StreamReader) -> None:
        """aiohttp queues a malformed chunk as the next request, while its own one's body goes on without an end."""
        if len(self._messages) > 1 and self._messages[-2][1] is body:
            del self._messages[-2]  # nobody has begun with it: the refusal stands for both
            return
        body.set_exception(web.RequestPayloadError("malformed"))
        body.feed_eof()  # nothing of it is left to be skipped behind the answer


def _length_of(message: Any) -> int | None:
    """Octets of its body, where it says so."""
    length = None if isinstance(message, _ErrInfo) else message.headers.get("Content-Length")
    return None if length is None else int(length)


def _size_of(message: Any) -> int:
    """Octets of a request line and its fields, as they were sent but for optional space."""
    fields = sum(len(name) + len(value) + 4 for name, value in message.raw_headers)
    return len(message.method) + len(message.path) + 12 + fields
