"""Requests of a shape that was seen before: one expression reads such a head at once.

A *shape* is a method and the names of a header section, in their order and spelling: a client has few, and sends
each again and again. The server's parser reads the first requests of a shape; from then on the shape's expression
does, for a fraction of the cost, and a body that came along is left in one piece.

A shape takes less than the parser: HTTP/1.1, a path of RFC 3986's characters, no name twice, one space behind each
colon, values of visible ASCII. What it takes, it reads as the parser would; all else is left to the parser.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

METHOD_BYTES: Final = 4
"""So many of a request line tell the methods apart that shapes are made for."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TARGET: Final = rb"(/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)"  # RFC 9112 §3.2.1, RFC 3986 §3.3 and §3.4
_VALUE: Final = rb"([!-~][ -~]*)(?<! )"
_SPECIAL_VALUES: Final = {
    b"connection": rb"([Kk]eep-[Aa]live)",  # which is so anyway (RFC 9112 §9.3)
    b"content-length": rb"([0-9]{1,15})",
}
# They decide how a message ends, or what becomes of its connection.
_LEFT_TO_THE_PARSER: Final = frozenset(
    {b"proxy-connection", b"sec-websocket-key1", b"transfer-encoding", b"upgrade"}
)
# Callers choose the names, and an expression costs a millisecond: so many are made, and no more.
_MOST_SHAPES: Final = 128
_MOST_NAMES: Final = 64


@dataclass(frozen=True, slots=True)
class Shape:
    """`match` has a whole head's target and values, one group for each; Content-Length's is at `length_at`.
    `beginning`: the first `METHOD_BYTES` of its request line."""

    beginning: bytes
    method: str
    names: tuple[bytes, ...]
    length_at: int | None
    match: Callable[[bytes], re.Match[bytes] | None]


class Shapes:
    """Those of one listener. `usual` has the shapes that a connection looks for, by the beginning of their request
    lines: the connection that learned last has set it, and a new one begins with it."""

    def __init__(self) -> None:
        self.usual: Mapping[bytes, Shape] = {}
        self._seen: dict[tuple[str, tuple[bytes, ...]], Shape | None] = {}

    def learn(self, method: str, names: tuple[bytes, ...]) -> Shape | None:
        """The shape of a request that the parser has read; None where it is the first of its kind, or of none."""
        kind = method, names
        if kind in self._seen:
            shape = self._seen[kind]
            if shape is None:
                shape = self._seen[kind] = _shape_of(method, names)
            return shape
        if len(self._seen) < _MOST_SHAPES and _may_be_shape(method, names):
            self._seen[kind] = None
        return None


def _may_be_shape(method: str, names: tuple[bytes, ...]) -> bool:
    lower = {name.lower() for name in names}
    return (
        method in _METHODS
        and len(lower) == len(names) <= _MOST_NAMES
        and b"host" in lower
        and lower.isdisjoint(_LEFT_TO_THE_PARSER)
    )


def _shape_of(method: str, names: tuple[bytes, ...]) -> Shape:
    lower = [name.lower() for name in names]
    lines = [
        b"%b: %b\r\n" % (re.escape(name), _SPECIAL_VALUES.get(key, _VALUE))
        for name, key in zip(names, lower, strict=True)
    ]
    pattern = re.compile(b"%b %b HTTP/1\\.1\r\n%b\r\n" % (method.encode(), _TARGET, b"".join(lines)))
    length_at = 1 + lower.index(b"content-length") if b"content-length" in lower else None
    return Shape((method.encode() + b" ")[:METHOD_BYTES], method, names, length_at, pattern.match)
