"""Reads the head of a caller's request. No other module does.

The connection finds the end of a head and passes exactly its bytes. A regular expression reads the request line,
because llhttp also accepts other protocols, and only the methods of its own list (RFC 9110 §9.1 has no list).
httptools (llhttp) reads the fields and rejects ambiguous framing. Each head has its own parser, so nothing of one
message can reach the next.
"""

import re
from typing import Final

import httptools

from nanonets_proxy.errors import BadRequest, HeadTooLarge, ProxyError, TargetTooLong
from nanonets_proxy.server.connection.caller_request import HTTP_1_0, HTTP_1_1, HeaderSection, ParsedHead, Version

# RFC 9112 §3 recommends at least 8000 octets for the request line. The other bounds are those of common servers.
MAX_TARGET_BYTES: Final = 12 * 1024
MAX_FIELD_BYTES: Final = 16 * 1024
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_FIELDS: Final = 128
MAX_METHOD_BYTES: Final = 64
_LENGTH_NAME_BYTES: Final = len(b"content-length")
_CODING_NAME_BYTES: Final = len(b"transfer-encoding")
END_OF_HEAD: Final = b"\r\n\r\n"

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110 §5.6.2
# PRI is the method of the HTTP/2 connection preface (RFC 9113 §3.4).
_REQUEST_LINE: Final = re.compile(rb"(?!PRI )(%b{1,64}) ([!-~\x80-\xff]+) HTTP/(0\.9|1\.[01]|2\.0)\r\n" % _TOKEN)
_METHOD: Final = re.compile(rb"(%b{1,64}) " % _TOKEN)
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")
_CANNOT_BEGIN: Final = re.compile(rb"(?!%b)[^\r]|\r[^\n]" % _TOKEN)
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
# The version in numbers, and a request line for the parser, which needs only the version of the real one. The
# handler rejects 0.9 and 2.0 with 505.
_VERSIONS: Final[dict[bytes, tuple[Version, bytes]]] = {
    b"1.1": (HTTP_1_1, b"POST / HTTP/1.1\r\n"),
    b"1.0": (HTTP_1_0, b"POST / HTTP/1.0\r\n"),
    b"0.9": ((0, 9), b"POST / HTTP/1.0\r\n"),
    b"2.0": ((2, 0), b"POST / HTTP/1.0\r\n"),
}


class HeadReader:
    """Reads heads. One instance serves any number of connections, since no call affects the next."""

    __slots__ = ("_is_complete", "_keep_alive", "_names", "_parser", "_values")

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._values: list[bytes] = []
        self._is_complete = False
        self._keep_alive = False
        self._parser: httptools.HttpRequestParser | None = None

    def read(self, raw: bytes, last: ParsedHead | None = None) -> ParsedHead:
        """Parses one whole head, ending in its empty line.

        `last` is an earlier head of the same connection. Most clients repeat their header section byte for byte,
        and some the whole head. Equal bytes are not parsed again. Raises BadRequest, TargetTooLong or HeadTooLarge.
        """
        if last is not None and last.raw == raw:
            return last
        line = _REQUEST_LINE.match(raw)
        if line is None:
            raise _bad_line(raw)
        method, target, protocol = line.groups()
        if len(target) > MAX_TARGET_BYTES:
            raise TargetTooLong("The request target is too long.")
        if not target.isascii():
            target = _NOT_ASCII.sub(_escape, target)
        at = line.end()
        version, parsed_line = _VERSIONS[protocol]
        if last is not None and last.raw[last.section_at :] == raw[at:] and last.section.version == version:
            section = last.section
        else:
            section = self._read_section(raw[at:], version, parsed_line)
        return ParsedHead(raw, method.decode(), target.decode(), section, at)

    def _read_section(self, raw: bytes, version: Version, parsed_line: bytes) -> HeaderSection:
        self._names, self._values, self._is_complete, self._keep_alive = [], [], False, False
        parser = self._parser = httptools.HttpRequestParser(self)
        body_length: int | None = 0
        try:
            parser.feed_data(parsed_line + raw)
            if not self._is_complete:
                body_length = self._body_length()
                self._keep_alive = parser.should_keep_alive()
        except httptools.HttpParserUpgrade:  # the parser ends here, whether a body follows or not
            body_length = self._body_length()
        except httptools.HttpParserError as error:
            raise BadRequest(f"The request's header section is malformed: {error}.") from None
        names, values = tuple(self._names), tuple(self._values)
        if len(raw) > MAX_FIELD_BYTES or len(names) > MAX_FIELDS:
            _check_sizes(names, values)
        # RFC 9112 §6.1: an HTTP/1.0 request with Transfer-Encoding has faulty framing.
        keep_alive = self._keep_alive and not (body_length is None and version < HTTP_1_1)
        return HeaderSection(version, names, values, body_length, keep_alive)

    def _body_length(self) -> int | None:
        """Returns the length by the framing fields; None if chunked. The parser has rejected contradictions."""
        length = 0
        for name, value in zip(self._names, self._values, strict=True):
            if len(name) == _LENGTH_NAME_BYTES and name.lower() == b"content-length":
                length = int(value)
            elif len(name) == _CODING_NAME_BYTES and name.lower() == b"transfer-encoding":
                return None
        return length

    # --- httptools calls these ---------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._names.append(name)
        self._values.append(value.rstrip())  # of spaces and tabs: httptools rejects other white space

    def on_message_complete(self) -> None:
        assert self._parser is not None
        self._is_complete = True
        self._keep_alive = self._parser.should_keep_alive()  # the parser forgets it after this call


def method_and_target(beginning: bytes | bytearray) -> tuple[str | None, str | None]:
    """Returns the method and target of a rejected request; None for what its request line does not show.

    A line that is malformed or has no end shows the method, if it begins with one.
    """
    if (line := _REQUEST_LINE.match(beginning)) is not None:
        return line[1].decode(), line[2].decode("latin-1")
    method = _METHOD.match(beginning)
    return (None if method is None else method[1].decode()), None


def _escape(byte: re.Match[bytes]) -> bytes:
    """Percent-encodes a byte beyond ASCII (RFC 3986 §2.1), as browsers do. curl sends it raw."""
    return b"%%%02X" % byte[0][0]


def check_beginning(beginning: bytes | bytearray, checked_bytes: int) -> None:
    """Rejects bytes that cannot become a head, before the time limit for a head has passed.

    `checked_bytes` of `beginning` have passed an earlier call. Raises BadRequest, TargetTooLong or HeadTooLarge.
    """
    if _CANNOT_BEGIN.match(beginning) or _BARE_LF.search(beginning, max(0, checked_bytes - 1)):
        raise _bad_line(beginning)
    line_bytes = beginning.find(b"\n", 0, MAX_METHOD_BYTES + MAX_TARGET_BYTES + 16) + 1
    if line_bytes > checked_bytes and not _REQUEST_LINE.match(beginning):
        raise _bad_line(beginning)
    if not line_bytes and len(beginning) > MAX_METHOD_BYTES + MAX_TARGET_BYTES:
        raise TargetTooLong("The request target is too long.")
    if len(beginning) > MAX_HEAD_BYTES:
        raise HeadTooLarge("The request's header section is too large.")


def _bad_line(head: bytes | bytearray) -> ProxyError:
    if head.startswith(b"PRI * HTTP/2"):
        return BadRequest("The request is an HTTP/2 connection preface. Use HTTP/1.1.")
    if head.startswith(b"\x16\x03"):  # RFC 8446 §5.1: a handshake record
        return BadRequest("The request is a TLS handshake. Use http://, or set tls_cert and tls_key.")
    return BadRequest("The request line is malformed.")


def _check_sizes(names: tuple[bytes, ...], values: tuple[bytes, ...]) -> None:
    if len(names) > MAX_FIELDS:
        raise HeadTooLarge("The request has too many header fields.")
    for name, value in zip(names, values, strict=True):
        if len(name) + len(value) > MAX_FIELD_BYTES:
            raise HeadTooLarge("A header field of the request is too large.")
