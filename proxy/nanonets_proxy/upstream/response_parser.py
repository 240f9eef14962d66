"""Parses one upstream response at a time, as it arrives. Does no I/O.

States and transitions:

    HEAD      no final head yet; interim (1xx) responses are reported and skipped
      a final head                              -> BODY (COMPLETE for HEAD, 204, 304)
    BODY      the head is known, the body is arriving
      the last byte of the body, or the end of
      the connection if that delimits the body  -> COMPLETE
    COMPLETE  any further byte is a protocol error of the upstream: the response stays valid, but the connection
              cannot be used again

`feed()` and `end_of_input()` raise an UpstreamError for a broken response. The parser must not be used after that.
RFC 9112 is the source of all framing rules here.
"""

import enum
from collections.abc import Callable
from typing import Final

import httptools

from nanonets_proxy.errors import UpstreamError
from nanonets_proxy.upstream.response_errors import bad_response, closed_early, status_line_error, too_large
from nanonets_proxy.upstream.response_head import NO_HEAD, FramingFields, ResponseHead, size_of

# The most bytes of heads, chunk extensions and trailers that may arrive without a byte of body between them.
MAX_HEAD_BYTES: Final = 64 * 1024
_STATUSES_WITHOUT_BODY: Final = (204, 304)
_STATUS_AT: Final = len(b"HTTP/1.1 ")
_INTERIM_DIGIT: Final = ord("1")
_PROTOCOL: Final = b"HTTP"


class ResponseState(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    COMPLETE = enum.auto()


# Python 3.11 makes a call for each look-up of an enum's member.
_HEAD, _BODY, _COMPLETE = ResponseState


class ResponseParser:
    """See the module's docstring.

    `is_head`: a response to a HEAD request has no body, whatever its fields say. `on_interim` is called with each
    interim response other than 100, which only `interim_count` reports. `keep_alive` is final once the response is
    complete.
    """

    __slots__ = (
        "_body",
        "_error",
        "_framing",
        "_interim_bytes",
        "_interim_keeps_alive",
        "_is_head",
        "_is_usual_start",
        "_later_body",
        "_names",
        "_overhead_bytes",
        "_parser",
        "_protocol",
        "_reason",
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

    def __init__(self, *, is_head: bool, on_interim: Callable[[ResponseHead], None] | None = None) -> None:
        self._parser = httptools.HttpResponseParser(self)
        # Otherwise httptools rejects all bytes after an interim response of HTTP/1.0 or with `Connection: close`.
        # After a final response, `feed` and `on_message_begin` check for surplus bytes instead.
        self._parser.set_dangerous_leniencies(lenient_keep_alive=True)
        self._is_head = is_head
        self._is_usual_start = False  # whether the first bytes show HTTP/1.1 and no interim status
        self._protocol = b""  # the first bytes of the current status line
        self._reason = b""
        self._names: list[bytes] = []  # of the current header or trailer section
        self._values: list[bytes] = []
        self._framing = FramingFields(())
        self._interim_bytes = 0  # of the fields of interim responses
        self._interim_keeps_alive = True
        self._overhead_bytes = 0  # since the last byte of body
        self._body = b""  # received and not taken
        self._later_body: list[bytes] = []  # received after `_body`
        self._error: UpstreamError | None = None
        self.buffered_bytes = 0
        self.has_begun = False
        self.head = NO_HEAD
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
            if self.interim_count or self.trailers or self.buffered_bytes:
                return False
        self._is_head = is_head
        self.has_begun = False
        self.head = NO_HEAD
        self.keep_alive = False
        self.on_interim = on_interim
        self.state = _HEAD
        return True

    def feed(self, data: bytes | memoryview) -> None:
        """Parses the next bytes. Raises UpstreamBadReply, UpstreamUpgraded or UpstreamReplyTooLarge."""
        if self.state is _COMPLETE:
            self.keep_alive = False
            return
        if not self.has_begun:
            self.has_begun = True
            self._is_usual_start = (
                len(data) > _STATUS_AT and data[_STATUS_AT] != _INTERIM_DIGIT and data[:8] == b"HTTP/1.1"
            )
            self._protocol = self._reason = b""
            self._overhead_bytes = 0
        self._overhead_bytes += len(data)
        try:
            if self._is_usual_start or self.state is _BODY:
                self._parser.feed_data(data)
            else:
                self._feed_lines(bytes(data))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._on_parser_error()
        if self.state is not _COMPLETE:
            if self._error is not None:
                raise self._error
            if self._overhead_bytes > MAX_HEAD_BYTES or self._fields_are_too_large():
                raise too_large()

    def _feed_lines(self, data: bytes) -> None:
        """Feeds a head line by line, to note the protocol of each status line: httptools hides it.

        Only for interim responses, for heads that are not of HTTP/1.1, and for status lines that arrive in pieces.
        """
        at = 0
        while at < len(data) and self.state is _HEAD:
            end = data.find(b"\n", at) + 1 or len(data)
            line = data[at:end]
            if len(self._protocol) < len(_PROTOCOL):
                # The parser skips empty lines before a status line.
                self._protocol = (self._protocol + line.lstrip(b"\r\n"))[: len(_PROTOCOL)]
            self._parser.feed_data(line)
            at = end
        if at < len(data):
            self._parser.feed_data(data[at:])

    def _on_parser_error(self) -> None:
        if self.state is _COMPLETE:
            self.keep_alive = False
        elif self._error is None:
            self._error = bad_response("The upstream's response is not valid HTTP.")

    def _fields_are_too_large(self) -> bool:
        """Counts heads and trailers together, however they were split; False if no section is arriving."""
        if not self._names:
            return False
        counted = self._interim_bytes + size_of(self.head.names, self.head.values)
        return counted + size_of(self._names, self._values) > MAX_HEAD_BYTES

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
            self.keep_alive = False

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self._names.append(name)
        self._values.append(value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        if self.state is not _HEAD or self._error is not None:
            return
        # The fields cannot be larger than all bytes since the start of the response.
        if self._overhead_bytes > MAX_HEAD_BYTES and self._fields_are_too_large():
            self._error = too_large()
            return
        head = self._parse_head()
        if isinstance(head, UpstreamError):
            self._error = head
            return
        self._names.clear()
        self._values.clear()
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

    def _parse_head(self) -> ResponseHead | UpstreamError:
        """Returns the head whose fields have arrived, or why it is invalid."""
        head = ResponseHead()
        head.status = status = self._parser.get_status_code()
        head.reason = reason = self._reason
        if status != 200 or reason != b"OK" or not self._is_usual_start:
            protocol = _PROTOCOL if self._is_usual_start else self._protocol
            error = status_line_error(protocol, self._parser.get_http_version(), status, reason)
            if error is not None:
                return error
        names = tuple(self._names)
        framing = self._framing
        if names != framing.names:
            self._framing = framing = FramingFields(names)
        head.names = framing.names
        head.values = values = tuple(self._values)
        length_at, codings_at = framing.content_length_at, framing.transfer_encodings_at
        head.body_length = None if length_at is None else int(values[length_at])
        head.is_chunked = bool(codings_at)
        if codings_at and [values[at].lower() for at in codings_at] != [b"chunked"]:
            # Any other coding belongs to this connection (RFC 9112 §6.1): it cannot be relayed as it is.
            return bad_response("The upstream used an unknown transfer coding.")
        return head

    def _skip_interim(self, interim: ResponseHead) -> None:
        self.interim_count += 1
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
            self.keep_alive = False

    def on_message_complete(self) -> None:
        if self.state is not _BODY or self._error is not None:
            return
        if self._names:
            if self._fields_are_too_large():
                self._error = too_large()
                return
            self.trailers = list(zip(self._names, self._values, strict=True))
        self.state = _COMPLETE
