"""Whole answers read by one expression, where their like has come before.

An upstream sends the same fields in the same order and spelling again and again. A shape is what such answers have
in common: the status line, the names, the framing; its expression takes out the values.
Whatever is not surely well formed does not match, and is the parser's to judge: a shape takes a part of what the
parser takes, and gives the same for it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# Each takes 0.4 ms to make, 4 ms for the longest list of names, and is kept for good: a tenth of a second is the
# most that an upstream of ever new fields costs.
_MOST_SHAPES: Final = 32
_MOST_NAMES: Final = 64
_MOST_NAME_BYTES: Final = 2048
# Of so many it is remembered that they came once.
_MOST_SEEN: Final = 256

# They change what the rest means.
_NOT_USUAL: Final = frozenset({b"proxy-connection", b"transfer-encoding", b"upgrade"})
# RFC 9110 §5.5, without tabs; what stands around it is not part of a value, so none may begin or end in a space.
# `*+` and `++` never try a shorter one: nothing that follows could begin within it.
_VALUE: Final = rb"([!-~\x80-\xff][ -~\x80-\xff]*+)(?<! )"
_VALUES: Final = {b"content-length": rb"([0-9]{1,5}+)", b"connection": rb"([Kk]eep-[Aa]live)"}

_Key = tuple[int, bytes, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class Shape:
    """Answers of one status line and of fields of the same `names`, one of which is Content-Length, at `length_at`.
    They leave the connection open."""

    status: int
    reason: bytes
    names: tuple[bytes, ...]
    length_at: int
    match: Callable[[memoryview, int, int], re.Match[bytes] | None]
    """Of the expression for the head, to the end of its empty line; its groups are the values of all fields."""


class Shapes:
    """The shapes of answers that came more than once; `latest` has the last two of them, the very last first."""

    def __init__(self) -> None:
        self._shapes: dict[_Key, Shape | None] = {}
        self._seen: set[_Key] = set()
        self.latest: tuple[Shape, ...] = ()

    def find(self, status: int, reason: bytes, names: tuple[bytes, ...]) -> Shape | None:
        """That of an answer with a body which the parser took; None where it has none, or has come but once."""
        key = (status, reason, names)
        try:
            return self._shapes[key]
        except KeyError:
            return self._learn(key)

    def put_first(self, shape: Shape) -> None:
        latest = self.latest
        if not latest or latest[0] is not shape:
            self.latest = (shape, *latest[:1])

    def _learn(self, key: _Key) -> Shape | None:
        names = key[2]
        if key in self._seen:
            if len(self._shapes) < _MOST_SHAPES:
                self._shapes[key] = shape = _make(*key)
                return shape
        elif len(names) <= _MOST_NAMES and sum(map(len, names)) <= _MOST_NAME_BYTES:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen.add(key)
        return None


def _make(status: int, reason: bytes, names: tuple[bytes, ...]) -> Shape | None:
    lower = [name.lower() for name in names]
    if not reason.strip() or b"content-length" not in lower or not _NOT_USUAL.isdisjoint(lower):
        return None
    lines = [b"HTTP/1\\.1 %d %b" % (status, re.escape(reason))]
    for name, known in zip(names, lower, strict=True):
        lines.append(re.escape(name) + b": " + _VALUES.get(known, _VALUE))
    expression = re.compile(rb"\r\n".join([*lines, b"", b""]))
    return Shape(status, reason, names, lower.index(b"content-length"), expression.match)
