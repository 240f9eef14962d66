"""One answer of the upstream, parsed as it arrives. No input or output: bytes are fed, the state is read.

States and transitions:

    HEAD   no final head yet; a 1xx is told and passed over
      all of an answer like one before, at once       -> COMPLETE, past the parser (reply_shapes.py)
      final head                                      -> BODY (COMPLETE for HEAD, 204, 304)
    BODY   the body is coming
      last byte, or the connection's end if that      -> COMPLETE
      is what delimits the body
    COMPLETE   complete; whatever follows is a protocol error of the peer and spoils the connection, not the answer

The parser sees an answer from its first byte on or not at all, so it is as the last one that it saw left it.
A 100 is told to nobody: whoever waits for it asks for `interim_count`.
`feed()` and `end_of_input()` raise an UpstreamError where the answer is broken; it must not be fed again.
"""

import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import httptools

from nanonets_proxy.upstream.response_faults import bad_reply, closed_early, status_line_fault, too_large
from nanonets_proxy.upstream.response_head import NO_HEAD, ResponseHead
from nanonets_proxy.upstream.response_patterns import ResponsePatterns

if TYPE_CHECKING:
    from nanonets_proxy.errors import UpstreamError

# What may come without a byte of body among it: heads, chunk extensions, trailers.
MAX_HEAD_BYTES: Final = 64 * 1024
_NO_BODY: Final = (204, 304)
# Behind so many answers in a row of no known shape, the next is not tried either.
_MOST_MISSES: Final = 2


class ResponseState(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    COMPLETE = enum.auto()


# As attributes of their class they cost a call at each look, in Python 3.11.
_HEAD, _BODY, _COMPLETE = ResponseState


class ResponseParser:
    """See the module's docstring. `is_head`: an answer to HEAD has no body, whatever its fields announce. `shapes`
    are those of the upstream's answers, on all its connections."""

    __slots__ = (
        "_body",
        "_broken",
        "_codings_at",
        "_interim_bytes",
        "_is_head",
        "_is_usual_version",
        "_known_names",
        "_length_at",
        "_misses",
        "_more",
        "_names",
        "_overhead_bytes",
        "_parser",
        "_reason",
        "_shapes",
        "_values",
        "buffered_bytes",
        "has_begun",
        "head",
        "interim_count",
        "keep_alive",
        "on_interim",
        "state",
        "trailers",
    )

    def __init__(
        self,
        *,
        is_head: bool,
        on_interim: Callable[[ResponseHead], None] | None = None,
        shapes: ResponsePatterns | None = None,
    ) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._is_head = is_head
        self._is_usual_version = False
        self._broken: UpstreamError | None = None
        self._body = b""  # not taken yet
        self._more: list[bytes] = []  # behind it
        self._interim_bytes = 0  # of fields
        self._misses = 0
        self._know(())
        self._overhead_bytes = 0  # since the last byte of body
        self._reason = b""
        self._shapes = shapes or ResponsePatterns()
        self._names: list[bytes] = []  # of the section that is coming
        self._values: list[bytes] = []
        self.buffered_bytes = 0
        self.has_begun = False
        self.head = NO_HEAD
        self.interim_count = 0
        self.keep_alive = False
        self.on_interim = on_interim
        self.state = _HEAD
        self.trailers: list[tuple[bytes, bytes]] = []

    def restart(self, is_head: bool, on_interim: Callable[[ResponseHead], None] | None) -> bool:
        """Makes this one ready for the connection's next answer, for less than a new one costs. False where the
        last answer left anything but the usual behind: a new one is needed then."""
        if self.has_begun:
            # Behind a HEAD's answer the parser waits for the body.
            if self._is_head or not self.keep_alive or self.state is not _COMPLETE:
                return False
            if self.interim_count or self.trailers or self.buffered_bytes:
                return False
        self._is_head = is_head
        self.has_begun = False
        self.head = NO_HEAD
        self.keep_alive = False
        self.on_interim = on_interim
        self.state = _HEAD
        return True

    def feed_whole(self, buffer: memoryview, length: int) -> bool:
        """Takes the first `length` bytes if they are all of an answer like one of the last; else they are for
        `feed`. Only while no byte of the answer has come."""
        # What is no longer than a head may be, has no fields that are too large.
        if self._misses >= _MOST_MISSES or self._is_head or length > MAX_HEAD_BYTES:
            return False
        head = self._shapes.read(buffer, length)
        if head is None:
            self._misses += 1
            return False
        body_length = head.body_length or 0
        self._misses = 0
        self._body = buffer[length - body_length : length].tobytes()
        self.has_begun = True
        self.buffered_bytes = body_length
        self.head = head
        self.keep_alive = True
        self.state = _COMPLETE
        return True

    def feed(self, data: bytes | memoryview) -> None:
        """Raises UpstreamBadReply, UpstreamUpgraded or UpstreamReplyTooLarge."""
        if self.state is _COMPLETE:
            self.keep_alive = False
            return
        is_first = not self.has_begun
        if is_first:
            self.has_begun = True
            self._is_usual_version = data[:8] == b"HTTP/1.1"
            self._overhead_bytes = 0
            self._reason = b""
        self._overhead_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._on_parser_error()
        if self.state is not _COMPLETE:
            if self._broken is not None:
                raise self._broken
            if self._overhead_bytes > MAX_HEAD_BYTES or self._fields_are_too_large():
                raise too_large()
        elif (
            is_first
            and self.head.body_length
            and self.keep_alive
            and len(data) <= MAX_HEAD_BYTES
            and self._shapes.learn(self.head)
        ):
            self._misses = 0

    def _on_parser_error(self) -> None:
        if self.state is _COMPLETE:
            self.keep_alive = False
        elif self._broken is None:
            self._broken = bad_reply("The upstream's answer is not valid HTTP.")

    def _fields_are_too_large(self) -> bool:
        """Of heads and trailers together, however they were cut in pieces; asked where fields are still coming."""
        if not self._names:
            return False
        head = self.head
        return (
            self._interim_bytes + _size(head.names, head.values) + _size(self._names, self._values) > MAX_HEAD_BYTES
        )

    def end_of_input(self) -> None:
        """The connection ended cleanly. Raises UpstreamClosed if the answer is not complete by that."""
        self.keep_alive = False
        # RFC 9112 §6.3 rule 8: without Content-Length and chunked, the connection's end is the body's.
        if self.state is _BODY and self.head.body_length is None and not self.head.is_chunked:
            self.state = _COMPLETE
        if self.state is not _COMPLETE:
            raise closed_early()

    def take_body(self) -> bytes:
        """The body bytes that came and were not taken yet."""
        data, self._body = self._body, b""
        if self._more:
            data = b"".join((data, *self._more))
            self._more.clear()
        self.buffered_bytes = 0
        return data

    # --- httptools calls these ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.state is _COMPLETE:
            self.keep_alive = False

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self._names.append(name)
        self._values.append(value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        if self.state is not _HEAD or self._broken is not None:
            return  # a head that cannot be trusted is not shown
        # Fields that are no more than all the bytes since the start of the answer need no counting.
        if self._overhead_bytes > MAX_HEAD_BYTES and self._fields_are_too_large():
            self._broken = too_large()
            return
        status = self._parser.get_status_code()
        if status != 200 or self._reason != b"OK" or not self._is_usual_version:
            self._broken = status_line_fault(self._parser.get_http_version(), status, self._reason)
        head = ResponseHead()
        head.status = status
        head.reason = self._reason
        head.values = values = tuple(self._values)
        names = tuple(self._names)
        if names != self._known_names:
            self._know(names)
        head.names = self._known_names
        head.body_length = None if self._length_at is None else int(values[self._length_at])
        head.is_chunked = False
        if self._codings_at:
            head.is_chunked = True
            if [values[at].lower() for at in self._codings_at] != [b"chunked"]:
                # Any other coding is the connection's own (RFC 9112 §6.1) and can't be relayed as it is.
                self._broken = self._broken or bad_reply("The upstream used an unknown transfer coding.")
        if self._broken is not None:
            return
        self._names.clear()
        self._values.clear()
        if status < 200:
            self._pass_over(head)
            return
        self.head = head
        self.keep_alive = self._parser.should_keep_alive()
        self.state = _BODY
        if self._is_head:
            # The parser would wait for the body that Content-Length announces, and in a chunked one would take the
            # start of a chunk for granted, unseen by us.
            self.keep_alive = self.keep_alive and not head.is_chunked
            head.body_length = 0
            self.state = _COMPLETE
        elif status in _NO_BODY:
            head.body_length = 0

    def on_body(self, body: bytes) -> None:
        if self.state is _BODY:
            self._overhead_bytes = 0
            if self.buffered_bytes:
                self._more.append(body)
            else:
                self._body = body
            self.buffered_bytes += len(body)
        else:
            self.keep_alive = False

    def on_message_complete(self) -> None:
        if self.state is not _BODY or self._broken is not None:
            return
        if self._names:
            if self._fields_are_too_large():
                self._broken = too_large()
                return
            self.trailers = list(zip(self._names, self._values, strict=True))
        self.state = _COMPLETE

    def _know(self, names: tuple[bytes, ...]) -> None:
        """Where among fields of such names Content-Length is, which the parser lets pass only once, and each
        Transfer-Encoding. Kept, since the next answer on a connection mostly has the same fields."""
        self._known_names = names
        lower = [name.lower() for name in names]
        self._length_at = lower.index(b"content-length") if b"content-length" in lower else None
        self._codings_at = [at for at, name in enumerate(lower) if name == b"transfer-encoding"]

    def _pass_over(self, interim: ResponseHead) -> None:
        self.interim_count += 1
        self._interim_bytes += _size(interim.names, interim.values)
        self._is_usual_version = False  # what was seen is the first one's
        self._reason = b""
        if interim.status > 101 and self.on_interim is not None:
            self.on_interim(interim)


def _size(names: Iterable[bytes], values: Iterable[bytes]) -> int:
    return sum(map(len, names)) + sum(map(len, values))
