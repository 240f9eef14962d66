"""Splits the bytes of one connection into requests and their bodies. No I/O and no clock.

    HEAD    bytes are kept until they hold a whole head
      `next_request` finds one             -> BODY, or BEHIND if there is no body, or it arrived with the head
    BODY    bytes go to the request's body, up to its end (its length, or where `ChunkedReader` finds it)
      the last one                         -> BEHIND
      a chunk is malformed                 -> the body fails, later bytes are discarded
    BEHIND  bytes are kept unparsed: they belong to later requests
      `next_request`, after the response   -> HEAD

A head is parsed only after all bytes before it were used, so no byte of one message can become part of another.
"""

import re
from typing import Final

from nanonets_proxy.core.http.chunked_reader import ChunkedReader, MalformedChunks
from nanonets_proxy.errors import BadRequest, HeadTooLarge, ProxyError
from nanonets_proxy.server.connection.body_stream import BodyStream, WholeBody
from nanonets_proxy.server.connection.caller_request import CallerRequest, ParsedHead, unreadable_request
from nanonets_proxy.server.connection.flow_control import FlowControl
from nanonets_proxy.server.connection.head_reader import (
    END_OF_HEAD,
    MAX_HEAD_BYTES,
    HeadReader,
    check_beginning,
    method_and_target,
)

_MOST_KEPT_BYTES: Final = 64 * 1024  # of pipelined requests; then the connection stops reading
_USUAL_HEAD_BYTES: Final = 4096
_END_BYTES: Final = len(END_OF_HEAD)
_EMPTY_LINES: Final = re.compile(rb"\A(?:\r\n)+")


class RequestReader:
    """See the module's docstring. `heads` may be shared, since it keeps nothing between calls."""

    __slots__ = (
        "_body_left_bytes",
        "_checked_bytes",
        "_chunks",
        "_flow",
        "_heads",
        "_last_head",
        "_search_at",
        "body",
        "is_malformed",
        "kept",
    )

    def __init__(self, heads: HeadReader, flow: FlowControl) -> None:
        self._heads = heads
        self._flow = flow
        self.kept: bytes | bytearray = b""
        """The bytes of further requests, or of an incomplete head."""
        self._checked_bytes = 0  # of the incomplete head in `kept`
        self._body_left_bytes = 0
        self._chunks: ChunkedReader | None = None
        self._search_at = 0  # where the end of that head may begin
        self._last_head: ParsedHead | None = None  # of usual size: the next may be equal
        self.body: BodyStream | None = None
        """The body of the last request, while it is incomplete."""
        self.is_malformed = False
        """Whether a body was malformed: the bytes after it have no meaning."""

    def forget_head(self) -> None:
        """Forgets the last head, so that the next one is parsed even if it is equal."""
        self._last_head = None

    def receive(self, data: bytes) -> None:
        """Takes the next bytes of the connection, between two calls of `next_request`."""
        if self.body is not None:
            try:
                data = self._feed_body(self.body, data)
            except ProxyError as error:
                self.body.fail(error)
                self.body = None
                self.is_malformed = True
        if data and not self.is_malformed:
            self._keep(data)

    def next_request(self, data: bytes | memoryview = b"") -> CallerRequest | None:
        """Takes the next bytes of the connection, and returns the next request, with its body.

        Returns None if the head is incomplete. Copies a memoryview, and a large body in it only once. Raises
        BadRequest, TargetTooLong or HeadTooLarge; nothing more can be read then.
        """
        last = self._last_head
        if not self.kept and last is not None and data == last.raw and last.section.body_length == 0:
            return CallerRequest(last.method, last.target, last.section)  # a poll
        behind = b""
        if not isinstance(data, bytes):
            data, behind = _split_large(data)
        if self.kept:
            self._keep(data)
            self.kept += behind
            kept, behind = self.kept, b""
        else:
            kept = data
        if kept.startswith(b"\r\n"):
            kept += behind
            behind = b""
            kept = _EMPTY_LINES.sub(b"", kept, 1)  # RFC 9112 §2.2: ignored before a request line
        self.kept = kept
        end = kept.find(END_OF_HEAD, self._search_at) + _END_BYTES
        if end < _END_BYTES:
            if kept:
                check_beginning(kept, self._checked_bytes)
            self._checked_bytes = len(kept)
            self._search_at = max(0, len(kept) - _END_BYTES + 1)
            return None
        if end > MAX_HEAD_BYTES:
            raise HeadTooLarge("The request's header section is too large.")
        head = self._heads.read(bytes(kept[:end]), last)
        section = head.section
        self._last_head = head if end <= _USUAL_HEAD_BYTES else None
        request = CallerRequest(head.method, head.target, section)
        self._checked_bytes = self._search_at = 0
        rest = bytes(kept[end:]) + behind  # copied only if both have bytes
        length = section.body_length
        if length == 0:
            self.kept = rest
        elif length is not None and len(rest) >= length:
            request.body = WholeBody(rest[:length])
            self.kept = rest[length:]
        else:
            self.kept = self._begin_body(request, length, rest)
        if len(kept) > _MOST_KEPT_BYTES:
            self._flow.let_go()
        return request

    def _keep(self, data: bytes) -> None:
        if not self.kept:
            self.kept = data
        elif data:
            if isinstance(self.kept, bytes):
                self.kept = bytearray(self.kept)
            self.kept += data
        if len(self.kept) > _MOST_KEPT_BYTES:
            self._flow.hold_back()

    def discard(self) -> None:
        """Drops the bytes of further requests: the connection has ended, and its memory may be freed late."""
        self.kept = b""

    def rejected_request(self) -> CallerRequest:
        """Returns a stand-in for the request that `next_request` has rejected, or that arrived too slowly.

        It has the method and the target, as far as the request line shows them. RFC 9110 §9.3.2: the response to
        a rejected HEAD has no body either.
        """
        return unreadable_request(*method_and_target(self.kept))

    def _begin_body(self, request: CallerRequest, length: int | None, data: bytes) -> bytes:
        """Gives the request a body that is arriving, and starts with `data`. Returns the bytes after it.

        `length` is None for a chunked body. Raises BadRequest.
        """
        self.body = request.body = BodyStream(self._flow)
        self._body_left_bytes = length or 0
        self._chunks = ChunkedReader() if length is None else None
        return self._feed_body(self.body, data)

    def _feed_body(self, body: BodyStream, data: bytes) -> bytes:
        """Returns the bytes after the body. Raises BadRequest if a chunk is malformed."""
        if self._chunks is None:
            piece, rest = data[: self._body_left_bytes], data[self._body_left_bytes :]
            self._body_left_bytes -= len(piece)
            is_complete = not self._body_left_bytes
        else:
            try:
                piece, rest = self._chunks.feed(data)
            except MalformedChunks as error:
                raise BadRequest(f"The request's body is malformed. {error}") from None
            is_complete = self._chunks.is_complete
        body.feed(piece)
        if is_complete:
            self.body = None
            body.finish()
        return rest


def _split_large(data: memoryview) -> tuple[bytes, bytes]:
    """Copies `data` as a head and the bytes after it, or in one piece if no head of usual size ends in it."""
    beginning = bytes(data[:_USUAL_HEAD_BYTES])
    end = beginning.find(END_OF_HEAD) + len(END_OF_HEAD)
    return (data.tobytes(), b"") if end < len(END_OF_HEAD) else (beginning[:end], data[end:].tobytes())
