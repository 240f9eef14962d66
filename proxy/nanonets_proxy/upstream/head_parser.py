"""Reads the heads of upstream responses: status lines and fields, as httptools reports them."""

import re
from typing import Final

import httptools

from nanonets_proxy.core.http.header_plans import PlansByNames
from nanonets_proxy.upstream.errors import UpstreamError, UpstreamUpgraded, bad_response
from nanonets_proxy.upstream.response_head import NO_HEAD, HeadShape, ResponseHead, size_of

# The most bytes of heads, chunk extensions and trailers that may arrive without a byte of body between them.
MAX_HEAD_BYTES: Final = 64 * 1024
_SHAPES: Final = PlansByNames(HeadShape)
_PROTOCOL: Final = b"HTTP"
# RFC 9112 §4 allows a tab in a reason phrase, and no other control character. The parser allows all of them.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class HeadParser:
    """The part of ResponseParser that reads heads."""

    __slots__ = (
        *("_end_of_lines", "_interim_bytes", "_is_usual_start", "_names", "_parser", "_shape"),
        *("_protocol", "_reason", "_values", "_error", "head"),
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        # Otherwise httptools rejects all bytes after an interim response of HTTP/1.0 or with `Connection: close`.
        # After a final response, `feed` and `on_message_begin` check for surplus bytes instead.
        self._parser.set_dangerous_leniencies(lenient_keep_alive=True)
        self._is_usual_start = False  # whether the first bytes show HTTP/1.1 and no interim status
        self._protocol = b""  # the first bytes of the current status line
        self._reason = b""
        self._names: list[bytes] = []  # of the current header or trailer section
        self._values: list[bytes] = []
        self._shape = _SHAPES[()]
        self._interim_bytes = 0  # of the fields of interim responses
        self._end_of_lines = 0  # in the data of the last `_feed_lines`
        self._error: UpstreamError | None = None
        self.head = NO_HEAD

    def _feed_lines(self, data: bytes) -> None:
        """Feeds a head line by line, to note the protocol of each status line: httptools hides it.

        Only for interim responses, for heads that are not of HTTP/1.1, and for status lines that arrive in pieces.
        """
        at = 0
        while at < len(data) and self.head is NO_HEAD and self._error is None:
            end = data.find(b"\n", at) + 1 or len(data)
            line = data[at:end]
            if len(self._protocol) < len(_PROTOCOL):
                # The parser skips empty lines before a status line.
                self._protocol = (self._protocol + line.lstrip(b"\r\n"))[: len(_PROTOCOL)]
            self._parser.feed_data(line)
            at = end
        self._end_of_lines = at
        if at < len(data):
            self._parser.feed_data(data[at:])

    def _is_too_large(self) -> bool:
        """Counts reason, fields and trailers together, however they were split; False if no section is arriving."""
        if not self._names:
            return False
        counted = self._interim_bytes + len(self._reason) + size_of(self.head.names, self.head.values)
        return counted + size_of(self._names, self._values) > MAX_HEAD_BYTES

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self._names.append(name)
        self._values.append(value.rstrip())  # of spaces and tabs: httptools rejects other white space

    def _parse_head(self) -> ResponseHead | None:
        """Returns the head whose fields have arrived; None if it is invalid: `_error` says why."""
        status, reason = self._parser.get_status_code(), self._reason
        if status != 200 or reason != b"OK" or not self._is_usual_start:
            protocol = _PROTOCOL if self._is_usual_start else self._protocol
            self._error = _status_line_error(protocol, self._parser.get_http_version(), status, reason)
            if self._error is not None:
                return None
        names, values, shape = tuple(self._names), tuple(self._values), self._shape
        self._names.clear()
        self._values.clear()
        if names != shape.names:
            self._shape = shape = _SHAPES[names]
        shape.note_use()
        codings_at = shape.transfer_encodings_at
        if codings_at and [values[at].lower() for at in codings_at] != [b"chunked"]:
            # Any other coding belongs to this connection (RFC 9112 §6.1): it cannot be relayed as it is.
            self._error = bad_response("The upstream used an unknown transfer coding.")
            return None
        length_at, type_at = shape.content_length_at, shape.content_type_at
        head = ResponseHead()
        head.status, head.reason, head.names, head.values = status, reason, shape.names, values
        head.body_length = None if length_at is None else int(values[length_at])
        head.content_type = None if type_at is None else values[type_at]
        head.is_chunked, head.has_advice, head.lines = bool(codings_at), shape.has_advice, None
        return head


def _status_line_error(protocol: bytes, version: str, status: int, reason: bytes) -> UpstreamError | None:
    """Checks a status line that the parser accepted; returns None if it is valid.

    `protocol` is the name before the slash, which for the parser may also be RTSP or ICE.
    """
    if protocol != b"HTTP" or version not in ("1.1", "1.0"):
        return bad_response("The upstream's response is not HTTP/1.1 or HTTP/1.0.")
    if status == 101:
        return UpstreamUpgraded("The upstream switched protocols, which no request asked for.", sent=True)
    if status < 100:
        return bad_response("The upstream's response has no valid status code.")
    if _CONTROL.search(reason):
        return bad_response("The upstream's reason phrase contains control characters.")
    return None
