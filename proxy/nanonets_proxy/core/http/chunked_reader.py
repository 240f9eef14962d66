"""Reads a chunked body (RFC 9112 §7.1) and finds the byte at which it ends.

    SIZE      a chunk's size line is arriving; extensions are ignored
      a size above 0               -> DATA
      the size 0                   -> TRAILERS
    DATA      bytes of the chunk are arriving
      the last one                 -> DATA_END
    DATA_END  the CR LF after the chunk is arriving
      it is complete               -> SIZE
    TRAILERS  trailer fields are arriving
      the empty line               -> COMPLETE

httptools cannot do this. It does not tell where a message ends, and rejects white space in chunk extensions.
"""

import enum
import re
from typing import Final

from nanonets_proxy.core.http.grammar import TOKEN_PATTERN

MAX_SIZE_LINE_BYTES: Final = 16 * 1024
MAX_TRAILER_BYTES: Final = 64 * 1024

_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t -~\x80-\xff])*"'  # RFC 9110 §5.6.4
# RFC 9112 §7.1.1: an extension may have white space around ";" and "=". 16 digits count more than any body has.
# The repeated groups are not possessive, since Python 3.11.2 then accepts what a group did not match (CPython issue
# 106052). They need not be, since each repetition begins with a byte that the one before cannot end with.
_EXTENSIONS: Final = rb"(?:[\t ]*+;[\t ]*+%b(?:[\t ]*+=[\t ]*+(?:%b|%b))?)*" % (
    TOKEN_PATTERN,
    TOKEN_PATTERN,
    _QUOTED,
)
# Of most small chunks: looking a size up costs a fraction of parsing its line.
_SMALL_SIZES: Final = {
    digits.encode(): size for size in range(1, 256) for digits in (f"{size:x}", f"{size:X}", f"{size:02x}")
}
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})%b\r\n" % _EXTENSIONS)
_TRAILER_SECTION: Final = re.compile(rb"(?:%b:[\t -~\x80-\xff]*+\r\n)*\r\n" % TOKEN_PATTERN)


class MalformedChunks(ValueError):
    """The body is malformed; the message says why. Each side maps this error to its own."""

    body: bytes = b""
    """The valid bytes that the same data held before the fault."""


class ChunksTooLarge(MalformedChunks):
    """A chunk size line or the trailer section exceeds its limit."""


class ChunkedState(enum.Enum):
    """See the module's docstring."""

    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()
    COMPLETE = enum.auto()


# Python 3.11 makes a call for each look-up of an enum's member.
_SIZE, _DATA, _DATA_END, _TRAILING, _COMPLETE = ChunkedState


class ChunkedReader:
    """Decodes one body. Once `feed` has raised, the body is malformed and must not be fed again."""

    __slots__ = ("_chunk_left_bytes", "_held", "_state", "trailers")

    def __init__(self) -> None:
        self._state = _SIZE
        self._chunk_left_bytes = 0
        self._held = b""  # the beginning of a size line, of a chunk's end, or of the trailers
        self.trailers: list[tuple[bytes, bytes]] = []
        """Names and values, once the body is complete."""

    @property
    def is_complete(self) -> bool:
        return self._state is _COMPLETE

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Returns the bytes of the body in `data`, and those after its end. Raises MalformedChunks."""
        if self._state is _DATA and len(data) < self._chunk_left_bytes:  # often so in a large chunk
            self._chunk_left_bytes -= len(data)
            return data, b""
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        try:
            after = self._feed(data, pieces)
        except MalformedChunks as error:
            error.body = b"".join(pieces)
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), after

    def _feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        at, end = 0, len(data)
        while at < end and self._state is not _COMPLETE:
            if self._state is _DATA:
                piece = data[at : at + self._chunk_left_bytes]
                pieces.append(piece)
                at += len(piece)
                self._chunk_left_bytes -= len(piece)
                if self._chunk_left_bytes:
                    break
                if data[at : at + 2] == b"\r\n":
                    self._state = _SIZE
                    at = _end_of_small_chunks(data, at + 2, pieces)
                else:
                    self._state = _DATA_END
            elif next_at := self._end_of_framing(data, at):
                at = next_at
            else:
                self._held, at = data[at:], end
        return data[at:]

    def _end_of_framing(self, data: bytes, at: int) -> int:
        """Returns the end of the size line, the chunk's end or the trailers at `at`; 0 if it is incomplete."""
        if self._state is _SIZE:
            return self._read_size(data, at)
        if self._state is _TRAILING:
            return self._read_trailers(data, at)
        if not b"\r\n".startswith(data[at : at + 2]):
            raise MalformedChunks("A chunk is longer than its size.")
        if len(data) < at + 2:
            return 0
        self._state = _SIZE
        return at + 2

    def _read_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at, at + MAX_SIZE_LINE_BYTES) + 1
        if not end:  # matching an incomplete line again with each of its bytes would be slow
            if len(data) - at >= MAX_SIZE_LINE_BYTES:
                raise ChunksTooLarge("A chunk size line is too long.")
            return 0
        line = _SIZE_LINE.fullmatch(data, at, end)
        if line is None:
            raise MalformedChunks("A chunk size line is malformed.")
        self._chunk_left_bytes = int(line[1], 16)
        self._state = _DATA if self._chunk_left_bytes else _TRAILING
        return end

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._state = _COMPLETE
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + MAX_TRAILER_BYTES) + 4
        if end < 4:
            if len(data) - at >= MAX_TRAILER_BYTES:
                raise ChunksTooLarge("The trailer section is too large.")
            return 0
        if _TRAILER_SECTION.fullmatch(data, at, end) is None:
            raise MalformedChunks("The trailer section is malformed.")
        lines = data[at : end - 4].split(b"\r\n")
        fields = (line.partition(b":") for line in lines)
        self.trailers = [(name, value.strip(b" \t")) for name, _, value in fields]
        self._state = _COMPLETE
        return end


def _end_of_small_chunks(data: bytes, at: int, pieces: list[bytes]) -> int:
    """Appends to `pieces` the content of the whole small chunks at `at`. Returns where they end.

    A sender may cut its body into the smallest chunks, and all other connections wait while they are read.
    """
    while True:
        start = data.find(b"\r\n", at, at + 4) + 2
        size = _SMALL_SIZES.get(data[at : start - 2]) if start > 1 else None
        if size is None or data[start + size : start + size + 2] != b"\r\n":
            return at
        pieces.append(data[start : start + size])
        at = start + size + 2
