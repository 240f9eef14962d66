"""RESP2, the protocol of Redis: packs commands, and reads responses from the pieces in which they arrive.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

_END: Final = b"\r\n"
_MAX_LINE: Final = 64 * 1024
_MAX_ITEMS: Final = 1024  # a message on a channel has three
_MAX_BYTES: Final = 64 * 1024 * 1024  # Redis ends a subscription whose unread messages have 32 MB
_STRING, _INTEGER, _BULK, _ARRAY = b"+:$*"
_KINDS: Final = b"+-:$*"


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error, such as `NOPERM this user has no permissions …`."""

    text: str


Simple: TypeAlias = bytes | int | ErrorReply | None
Reply: TypeAlias = Simple | list[Simple]


class _Incomplete(Exception):
    """The response ends later. `size` is the least number of bytes with which it can be complete."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def pack(*words: bytes) -> bytes:
    """Returns the bytes of a command."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


class ReplyReader:
    """Reads replies one after the other."""

    __slots__ = ("_needed", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a reply that has not ended
        self._size = 0
        self._needed = 0  # with fewer bytes, that reply cannot end

    def feed(self, data: bytes) -> list[Reply]:
        """Returns the replies that end in `data`. Raises ValueError if it is not RESP2, or too large.

        A reply that arrives in many pieces is joined once: the pieces wait until they are long enough.
        """
        if self._pieces:
            self._pieces.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
        replies: list[Reply] = []
        at = 0
        try:
            while at < len(data):
                reply, at = _read(data, at)
                replies.append(reply)
        except _Incomplete as incomplete:
            self._pieces.append(data[at:])
            self._size, self._needed = len(data) - at, incomplete.size - at
        return replies


def _read(data: bytes, at: int) -> tuple[Reply, int]:
    """Returns the reply that begins at an index, and where the next one begins."""
    if data[at] != _ARRAY:
        return _read_simple(data, at)
    end = _end_of_line(data, at)
    count, at = int(data[at + 1 : end]), end + 2
    if count < 0:
        return None, at
    if count > _MAX_ITEMS:
        raise ValueError("a reply of many items")
    items = []
    for _ in range(count):
        item, at = _read_simple(data, at)
        items.append(item)
    return items, at


def _read_simple(data: bytes, at: int) -> tuple[Simple, int]:
    """Reads a reply that is no array."""
    end = _end_of_line(data, at)
    kind, text, begins = data[at], data[at + 1 : end], end + 2
    if kind == _BULK:
        length = int(text)
        if length < 0:
            return None, begins
        if length > _MAX_BYTES:
            raise ValueError("a reply of more than 64 MiB")
        end = begins + length
        if len(data) < end + 2:
            raise _Incomplete(end + 2)
        return data[begins:end], end + 2
    if kind == _INTEGER:
        return int(text), begins
    if kind == _ARRAY:
        raise ValueError("an array in an array")
    return (text if kind == _STRING else ErrorReply(text.decode(errors="replace"))), begins


def _end_of_line(data: bytes, at: int) -> int:
    end = data.find(_END, at)
    if at < len(data) and data[at] not in _KINDS:
        raise ValueError(f"{data[at : at + 1]!r} begins no reply")
    if end >= 0:
        return end
    if len(data) - at > _MAX_LINE:
        raise ValueError("a reply with a long line")
    raise _Incomplete(len(data) + 1)
