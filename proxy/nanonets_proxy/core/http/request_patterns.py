"""Requests of a shape that was seen before: one expression reads such a head at once.

A *shape* is a method and the names of a header section, in their order and spelling: a client has few, and sends
each again and again. The server's parser reads the first requests of a shape; from then on the shape's expression
does, for a fraction of the cost, and a body that came along is left in one piece.

Of the fields, the expression captures the values that the proxy looks at, and in blocks the lines that go on; most
values are never a thing of their own.

A shape takes less than the parser: HTTP/1.1, a path of RFC 3986's characters, no name twice, one space behind each
colon, values of visible octets. What it takes, it reads as the parser would; all else is left to the parser.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.http.head_patterns import PatternTable, are_readable, line
from nanonets_proxy.core.http.header_plans import HeaderPlan

BEGINNING_BYTES: Final = 4
"""So many of a request line tell the methods apart that shapes are made for."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TARGET: Final = rb"(/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*+)"  # RFC 9112 §3.2.1, RFC 3986 §3.3 and §3.4
_OLD_WEB_SOCKET: Final = b"sec-websocket-key1"  # which the parser refuses


@dataclass(frozen=True, slots=True)
class RequestPattern:
    """`match` has a whole head. The first of its groups is the target. `places` and `special` tell which of them
    are looked at, as those of a `HeaderPlan` do for all fields; `blocks` tells which lines pass.
    Content-Length is at `length_at`. `beginning`: the first octets of the request line."""

    beginning: bytes
    method: str
    names: tuple[bytes, ...]
    match: Callable[[bytes], re.Match[bytes] | None]
    places: tuple[int | None, ...]
    special: tuple[tuple[int, bytes], ...]
    blocks: tuple[int, ...]
    length_at: int | None


def may_have_shape(method: str, names: tuple[bytes, ...]) -> bool:
    lower = {name.lower() for name in names}
    return (
        method in _METHODS
        and b"host" in lower
        and _OLD_WEB_SOCKET not in lower
        and len(lower) == len(names)
        and are_readable(lower)
    )


def shape_of(method: str, names: tuple[bytes, ...], plan: HeaderPlan) -> RequestPattern:
    """`plan` is that of the names."""
    captured = {at for at in plan.places if at is not None} | {at for at, _ in plan.special}
    expression = b"%b %b HTTP/1\\.1\r\n" % (method.encode(), _TARGET)
    groups, blocks, groups_at = 1, [], {}
    is_in_block = False
    for at, name in enumerate(names):
        if plan.passing[at] != is_in_block:
            is_in_block = plan.passing[at]
            if is_in_block:
                blocks.append(groups)
                groups += 1
            expression += b"(" if is_in_block else b")"
        if at in captured:
            groups_at[at] = groups
            groups += 1
        expression += line(name, captured=at in captured)
    expression += b")\r\n" if is_in_block else b"\r\n"
    places = tuple(None if at is None else groups_at[at] for at in plan.places)
    length_at = next((groups_at[at] for at, name in enumerate(names) if name.lower() == b"content-length"), None)
    return RequestPattern(
        (method.encode() + b" ")[:BEGINNING_BYTES],
        method,
        names,
        re.compile(expression).match,
        places,
        tuple((groups_at[at], name) for at, name in plan.special),
        tuple(blocks),
        length_at,
    )


class RequestPatterns:
    """The shapes of one listener. `usual` has those that a connection looks for, by their beginnings: whichever
    learned last has set it, and a new one begins with it."""

    def __init__(self, make: Callable[[str, tuple[bytes, ...]], RequestPattern]) -> None:
        self.usual: Mapping[bytes, RequestPattern] = {}
        self._table: PatternTable[tuple[str, tuple[bytes, ...]], RequestPattern] = PatternTable(
            lambda key: may_have_shape(*key), lambda key: make(*key)
        )

    def find(self, method: str, names: tuple[bytes, ...]) -> RequestPattern | None:
        """The shape of a request that the parser took; None where it came for the first time, or has none."""
        return self._table.find((method, names))
