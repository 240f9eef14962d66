"""Reads a chunked request body (RFC 9112 §7.1) and finds the byte at which it ends. No I/O.

    SIZE      a chunk's size line comes, with extensions that are ignored
      a size above 0               -> DATA
      the size 0                   -> TRAILERS
    DATA      bytes of the chunk come
      the last one                 -> DATA_END
    DATA_END  the CR LF behind the chunk
      it is there                  -> SIZE
    TRAILERS  trailer fields come; they are checked and dropped
      the empty line               -> COMPLETE

httptools is not used here: it does not tell where a message ends, and reads on into the next one.
"""

import enum
import re
from typing import Final

from nanonets_proxy.core.http.grammar import TOKEN_PATTERN
from nanonets_proxy.errors import BadRequest

MAX_SIZE_LINE_BYTES: Final = 16 * 1024
MAX_TRAILER_BYTES: Final = 64 * 1024

_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t -~\x80-\xff])*+"'  # RFC 9110 §5.6.4
# RFC 9112 §7.1.1: an extension may have white space around ";" and "=". 16 digits count more than any body has.
_EXTENSIONS: Final = rb"(?:[\t ]*+;[\t ]*+%b(?:[\t ]*+=[\t ]*+(?:%b|%b))?)*+" % (
    TOKEN_PATTERN,
    TOKEN_PATTERN,
    _QUOTED,
)
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})%b\r\n" % _EXTENSIONS)
_TRAILERS: Final = re.compile(rb"(?:%b:[\t -~\x80-\xff]*+\r\n)*+\r\n" % TOKEN_PATTERN)


class ChunkedState(enum.Enum):
    """See the module's docstring."""

    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()
    COMPLETE = enum.auto()


class ChunkedReader:
    """Decodes one body. Once `feed` has raised, the body is malformed and must not be fed again."""

    __slots__ = ("_chunk_left_bytes", "_held", "_state")

    def __init__(self) -> None:
        self._state = ChunkedState.SIZE
        self._chunk_left_bytes = 0
        self._held = b""  # the beginning of a size line, of a chunk's end, or of the trailers

    @property
    def is_complete(self) -> bool:
        return self._state is ChunkedState.COMPLETE

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Returns the bytes of the body in `data`, and those behind its end. Raises BadRequest."""
        pieces = []
        data, self._held = self._held + data, b""
        at = 0
        while at < len(data) and self._state is not ChunkedState.COMPLETE:
            if self._state is ChunkedState.DATA:
                piece = data[at : at + self._chunk_left_bytes]
                pieces.append(piece)
                at += len(piece)
                self._chunk_left_bytes -= len(piece)
                if not self._chunk_left_bytes:
                    self._state = ChunkedState.DATA_END
            elif end := self._end_of_framing(data, at):
                at = end
            else:
                self._held, at = data[at:], len(data)
        return b"".join(pieces), data[at:]

    def _end_of_framing(self, data: bytes, at: int) -> int:
        """Returns where the size line, the chunk's end or the trailers at `at` end; 0 if more bytes must come."""
        match self._state:
            case ChunkedState.SIZE:
                return self._read_size(data, at)
            case ChunkedState.DATA_END:
                if not b"\r\n".startswith(data[at : at + 2]):
                    raise BadRequest("A chunk of the request's body is longer than its size.")
                if len(data) < at + 2:
                    return 0
                self._state = ChunkedState.SIZE
                return at + 2
            case _:
                return self._read_trailers(data, at)

    def _read_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at, at + MAX_SIZE_LINE_BYTES) + 1
        if not end:
            if len(data) - at >= MAX_SIZE_LINE_BYTES:
                raise BadRequest("A chunk size line of the request's body is too long.")
            return 0
        line = _SIZE_LINE.fullmatch(data, at, end)
        if line is None:
            raise BadRequest("A chunk size line of the request's body is malformed.")
        self._chunk_left_bytes = int(line[1], 16)
        self._state = ChunkedState.DATA if self._chunk_left_bytes else ChunkedState.TRAILERS
        return end

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            end = at + 2
        else:
            end = data.find(b"\r\n\r\n", at, at + MAX_TRAILER_BYTES) + 4
            if end < 4:
                if len(data) - at >= MAX_TRAILER_BYTES:
                    raise BadRequest("The trailer section of the request's body is too large.")
                return 0
        if _TRAILERS.fullmatch(data, at, end) is None:
            raise BadRequest("The trailer section of the request's body is malformed.")
        self._state = ChunkedState.COMPLETE
        return end
