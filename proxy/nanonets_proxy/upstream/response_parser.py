"""Parses one upstream response at a time, as it arrives. Does no I/O.

States and transitions:

    HEAD      no final head yet; interim (1xx) responses are reported and skipped
      a final head                              -> BODY (COMPLETE for HEAD, 204, 304)
    BODY      the head is known, the body is arriving
      the last byte of the body, or the end of
      the connection if that delimits the body  -> COMPLETE
    COMPLETE  any further byte is a protocol error of the upstream: the response stays valid, but the connection
              cannot be used again

httptools (llhttp) reads heads. A pattern reads the heads whose field names have come many times before
(`HeadShape` in response_head.py), which costs half as much. It runs only on the first bytes of a response, and not
after HEAD. There, httptools has seen the end of the previous response and no byte since, so it holds nothing. The
pattern accepts only a whole head in the usual form: a Content-Length, no other framing, values of printable ASCII.
httptools then sees no byte of that response, so the next one finds it in the same state. Any other head goes to
httptools from its first byte.

`feed()` and `end_of_input()` raise an UpstreamError for a broken response. The parser must not be used after that.
RFC 9112 is the source of all framing rules here.
"""

import enum
from collections.abc import Callable
from typing import Final

import httptools

from nanonets_proxy.core.http.chunked_reader import ChunkedReader, ChunksTooLarge, MalformedChunks
from nanonets_proxy.upstream.errors import bad_response, closed_early, too_large
from nanonets_proxy.upstream.head_parser import MAX_HEAD_BYTES, HeadParser
from nanonets_proxy.upstream.response_head import NO_HEAD, ResponseHead, size_of

_STATUSES_WITHOUT_BODY: Final = (204, 304)
_USUAL_STARTS: Final = (b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 5", b"HTTP/1.1 3")
_START_BYTES: Final = len(_USUAL_STARTS[0])
# Each costs the event loop time, and the caller gets it. Servers send one each 20 s at most (RFC 2518 §10.1).
MOST_INTERIM_RESPONSES: Final = 100
MOST_FIELDS: Final = 1000
_NOT_HTTP: Final = "The upstream's response is not valid HTTP."


class ResponseState(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    COMPLETE = enum.auto()


# Python 3.11 makes a call for each look-up of an enum's member.
_HEAD, _BODY, _COMPLETE = ResponseState


class ResponseParser(HeadParser):
    """See the module's docstring.

    `is_head`: a response to a HEAD request has no body, whatever its fields say. `on_interim` is called with each
    interim response other than 100, which only `interim_count` reports. `keep_alive` is final once the response is
    complete.
    """

    __slots__ = (
        *("_awaited_bytes", "_body", "_chunks", "_end_of_head", "_interim_keeps_alive", "_is_head", "_later_body"),
        *("_overhead_bytes", "buffered_bytes", "has_begun", "has_surplus", "interim_count", "keep_alive"),
        *("on_interim", "state", "trailers"),
    )

    def __init__(self, *, is_head: bool, on_interim: Callable[[ResponseHead], None] | None = None) -> None:
        super().__init__()
        self._is_head = is_head
        self._awaited_bytes = 0  # of a body that httptools does not read
        self._interim_keeps_alive = True
        self._overhead_bytes = 0  # since the last byte of body
        self._chunks: ChunkedReader | None = None
        self._end_of_head = b""  # the last bytes of the head's beginning
        self._body = b""  # received and not taken
        self._later_body: list[bytes] = []  # received after `_body`
        self.buffered_bytes = 0
        self.has_begun = False
        self.has_surplus = False
        self.interim_count = 0
        self.keep_alive = False
        self.on_interim = on_interim
        self.state = _HEAD
        self.trailers: list[tuple[bytes, bytes]] = []

    def restart(self, is_head: bool, on_interim: Callable[[ResponseHead], None] | None) -> bool:
        """Prepares this parser for the next response of its connection, which costs less than a new parser.

        Returns False if the last response left anything behind: the connection then needs a new parser.
        """
        if self.has_begun:
            # After a response to HEAD, httptools waits for the body.
            if self._is_head or not self.keep_alive or self.state is not _COMPLETE:
                return False
            if self._chunks is not None or self.interim_count or self.trailers or self.buffered_bytes:
                return False
        self._is_head = is_head
        self.has_begun = False
        self.head = NO_HEAD
        self.keep_alive = False
        self.on_interim = on_interim
        self.state = _HEAD
        return True

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Parses the next bytes. Raises UpstreamBadReply, UpstreamUpgraded or UpstreamReplyTooLarge."""
        if self.state is _COMPLETE:
            self._note_surplus()
            return
        if not self.has_begun:
            self.has_begun = True
            if not self._is_head and (read := self._shape.read(data)) is not None:
                head, body = read
                self.head, self.keep_alive = head, True
                if len(body) == head.body_length:
                    self._body, self.buffered_bytes, self.state = body, len(body), _COMPLETE
                else:
                    self._awaited_bytes, self.state = head.body_length, _BODY
                    self._read_body(body)
                return
            self._is_usual_start = data[:_START_BYTES] in _USUAL_STARTS
            self._protocol = self._reason = self._end_of_head = b""
            self._overhead_bytes = 0
        elif self._awaited_bytes:
            self._read_body(bytes(data))
            return
        self._overhead_bytes += len(data)
        if self._chunks is not None:
            self._read_chunks(self._chunks, bytes(data))
            return
        try:
            if self._is_usual_start or self.state is _BODY:
                self._parser.feed_data(data)
            else:
                self._feed_lines(bytes(data))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._on_parser_error()
        if self.state is not _COMPLETE:
            if self.head.is_chunked:
                self._read_chunks(self._take_over(), self._behind_head(bytes(data)))
                return
            if self.state is _HEAD:
                self._end_of_head = self._end_of_head[-2:] + bytes(data[-3:])
            if self._error is not None:
                raise self._error
            # While the head arrives, its fields cannot be larger than all its bytes.
            if self._overhead_bytes > MAX_HEAD_BYTES or (self.state is not _HEAD and self._is_too_large()):
                raise too_large()

    def _read_body(self, data: bytes) -> None:
        """Reads the next bytes of a body whose head a pattern has read."""
        missing = self._awaited_bytes - len(data)
        if missing < 0:
            if data[missing:].strip(b"\r\n"):  # httptools ignores line ends between responses
                self._note_surplus()
            data, missing = data[:missing], 0
        self._awaited_bytes = missing
        if data:
            self.on_body(data)
        if not missing:
            self.state = _COMPLETE

    def _take_over(self) -> ChunkedReader:
        """Starts a reader for a chunked body, and discards the part of the body that httptools has read.

        httptools rejects white space in chunk extensions (RFC 9112 §7.1.1). It reads a body only if the whole body
        arrives together with its head, as most do.
        """
        self._error = None
        self.take_body()
        self._names.clear()
        self._values.clear()
        self._chunks = ChunkedReader()
        return self._chunks

    def _behind_head(self, data: bytes) -> bytes:
        """Returns the bytes behind the head, which ends in `data`."""
        if not self._is_usual_start:
            return data[self._end_of_lines :]
        before = self._end_of_head[-3:]
        return data[(before + data).index(b"\r\n\r\n") + 4 - len(before) :]

    def _read_chunks(self, chunks: ChunkedReader, data: bytes) -> None:
        try:
            body, surplus = chunks.feed(data)
        except MalformedChunks as error:
            self.on_body(error.body)
            raise (too_large() if isinstance(error, ChunksTooLarge) else bad_response(_NOT_HTTP)) from None
        if body:
            self.on_body(body)
        if chunks.is_complete:
            self.trailers = chunks.trailers
            self.state = _COMPLETE
            if surplus:
                self._note_surplus()
        elif self._overhead_bytes > MAX_HEAD_BYTES:
            raise too_large()

    def _note_surplus(self) -> None:
        """Notes bytes behind the response: they belong to no request."""
        self.keep_alive = False
        self.has_surplus = True

    def _on_parser_error(self) -> None:
        if self.state is _COMPLETE:
            self._note_surplus()
        elif self._error is None:
            self._error = bad_response(_NOT_HTTP)

    def end_of_input(self) -> None:
        """Handles a clean end of the connection. Raises UpstreamClosed if the response is incomplete."""
        self.keep_alive = False
        # RFC 9112 §6.3 rule 8: without Content-Length and chunked coding, the end of the connection ends the body.
        if self.state is _BODY and self.head.body_length is None and not self.head.is_chunked:
            self.state = _COMPLETE
        if self.state is not _COMPLETE:
            raise closed_early()

    def take_body(self) -> bytes:
        """Returns the body bytes received since the last call."""
        data, self._body = self._body, b""
        if self._later_body:
            data = b"".join((data, *self._later_body))
            self._later_body.clear()
        self.buffered_bytes = 0
        return data

    # --- called by httptools --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.state is _COMPLETE:
            self._note_surplus()

    def on_headers_complete(self) -> None:
        if self.state is not _HEAD or self._error is not None:
            return
        # The fields cannot be larger than all bytes since the start of the response.
        if len(self._names) > MOST_FIELDS or (self._overhead_bytes > MAX_HEAD_BYTES and self._is_too_large()):
            self._error = too_large()
            return
        if (head := self._parse_head()) is None:
            return
        if head.status < 200:
            self._skip_interim(head)
            return
        self.head = head
        self.keep_alive = self._parser.should_keep_alive() and self._interim_keeps_alive
        self.state = _BODY
        if head.is_chunked and not self._is_usual_start and self._parser.get_http_version() == "1.0":
            self.keep_alive = False  # RFC 9112 §6.1: HTTP/1.0 has no transfer codings, so the framing is faulty
        if self._is_head:
            # The parser would wait for a body of Content-Length, and would read the start of a chunked body.
            self.keep_alive = self.keep_alive and not head.is_chunked
            head.body_length = 0
            self.state = _COMPLETE
        elif head.status in _STATUSES_WITHOUT_BODY:
            head.body_length = 0

    def _skip_interim(self, interim: ResponseHead) -> None:
        self.interim_count += 1
        if self.interim_count > MOST_INTERIM_RESPONSES:
            self._error = too_large()
            return
        self._interim_bytes += size_of(interim.names, interim.values)
        self._interim_keeps_alive = self._interim_keeps_alive and self._parser.should_keep_alive()
        self._is_usual_start = False
        self._protocol = self._reason = b""
        if interim.status > 101 and self.on_interim is not None:
            self.on_interim(interim)

    def on_body(self, body: bytes) -> None:
        if self.state is _BODY:
            self._overhead_bytes = 0
            if self.buffered_bytes:
                self._later_body.append(body)
            else:
                self._body = body
            self.buffered_bytes += len(body)
        else:
            self._note_surplus()

    def on_message_complete(self) -> None:
        if self.state is not _BODY or self._error is not None:
            return
        if self._names:
            if self._is_too_large():
                self._error = too_large()
                return
            self.trailers = list(zip(self._names, self._values, strict=True))
        self.state = _COMPLETE
