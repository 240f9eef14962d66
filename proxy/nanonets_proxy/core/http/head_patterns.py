"""What heads have in common that one expression may read instead of a parser, where their like has come before.

A peer sends the same fields in the same order and spelling again and again. A shape is what such heads have in
common: the first line, the names, the framing. Its expression is made here, line by line; who makes it chooses
what it captures. Whatever is not surely well formed does not match, and is the parser's to judge: a shape takes a
part of what the parser takes, and gives the same for it.
"""

import re
from collections.abc import Callable, Collection, Hashable
from typing import Final, Generic, TypeVar

# They change what the rest means, or what becomes of the connection.
_LEFT_TO_THE_PARSER: Final = frozenset({b"proxy-connection", b"transfer-encoding", b"upgrade"})

# The peer chooses the names. An expression takes 0.2 ms to make, 3 ms for the longest list of names, and is kept
# for good: a fifth of a second is the most that ever new fields cost.
_MAX_SHAPES: Final = 64
_MAX_NAMES: Final = 64
_MAX_NAME_BYTES: Final = 2048
# Of so many it is remembered that they came once.
_MAX_ONCE: Final = 256

# RFC 9110 §5.5, without tabs. What stands around a value is not part of it, so none may begin or end in a space.
# `*+` and `}+` never try a shorter one: nothing that follows could begin within it.
_VALUE: Final = rb"[!-~\x80-\xff][ -~\x80-\xff]*+(?<! )"
_VALUES: Final = {
    b"connection": rb"[Kk]eep-[Aa]live",  # which is so anyway (RFC 9112 §9.3)
    b"content-length": rb"[0-9]{1,15}+",
}


def line(name: bytes, *, captured: bool) -> bytes:
    """The expression of a field's line, with the line's end; its value is a group of its own if `captured`. Lines
    follow one another as they are, so parentheses around a few make one group of these."""
    value = _VALUES.get(name.lower(), _VALUE)
    if captured:
        value = b"(%b)" % value
    return rb"%b: %b\r\n" % (re.escape(name), value)


def are_readable(lower_names: Collection[bytes]) -> bool:
    """Whether a shape may have fields of these names, in small letters: neither too many nor the parser's own."""
    return (
        len(lower_names) <= _MAX_NAMES
        and sum(map(len, lower_names)) <= _MAX_NAME_BYTES
        and _LEFT_TO_THE_PARSER.isdisjoint(lower_names)
    )


_Key = TypeVar("_Key", bound=Hashable)
_Shape = TypeVar("_Shape")


class PatternTable(Generic[_Key, _Shape]):
    """A shape for each key that comes twice; only for so many keys, and for those that `may_have` one. That must
    bound the size of a key, since some are kept. `make` makes the shape."""

    def __init__(self, may_have: Callable[[_Key], bool], make: Callable[[_Key], _Shape]) -> None:
        self._may_have = may_have
        self._make = make
        self._shapes: dict[_Key, _Shape] = {}
        self._once: set[_Key] = set()

    def find(self, key: _Key) -> _Shape | None:
        """That of a head which the parser took; None where it came for the first time, or has none."""
        shape = self._shapes.get(key)
        if shape is not None or len(self._shapes) >= _MAX_SHAPES:
            return shape
        if key in self._once:
            self._once.discard(key)
            shape = self._shapes[key] = self._make(key)
        elif self._may_have(key):
            if len(self._once) >= _MAX_ONCE:
                self._once.clear()
            self._once.add(key)
        return shape
