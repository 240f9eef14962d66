"""A whole response for several callers: its body is in memory once, and each caller reads it at its own pace."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from nanonets_proxy.core.keys.key_scrubber import KeyForms
from nanonets_proxy.core.ratelimit.hints.retry_hint import Hint
from nanonets_proxy.upstream.body import BodyBudget
from nanonets_proxy.upstream.response_head import ResponseHead

PIECE_BYTES: Final = 64 * 1024
"""A caller that reads slowly has about this much of the body in its connection's buffer."""


@dataclass(slots=True)
class SharedResponse:
    """The response, and the forms of the key that it may echo. `request_id` is the one that its request sent.

    Its body takes memory of the budget until `release` was called once for each of `readers`.
    """

    head: ResponseHead
    body: bytes
    trailers: Sequence[tuple[bytes, bytes]]
    hint: Hint | None
    forms: KeyForms
    request_id: bytes | None
    budget: BodyBudget = field(repr=False)
    readers: int = 0

    def release(self) -> None:
        self.readers -= 1
        if not self.readers:
            self.budget.memory_bytes -= len(self.body)

    def head_for(self, request_id: str) -> ResponseHead:
        """Returns the head for another request. An echo of the first request's id becomes the other's id."""
        first = self.request_id
        if first is None or first not in self.head.values:
            return self.head
        own = request_id.encode("ascii")
        names, pairs = self.head.names, self.head.headers
        values = tuple(own if v == first and n.lower() == b"x-request-id" else v for n, v in pairs)
        return self.head.with_fields(names, values)


class SharedBody:
    """Reads the body for one caller, as from a connection."""

    __slots__ = ("_at", "_body", "trailers")

    def __init__(self, response: SharedResponse) -> None:
        self._body = response.body
        self._at = 0
        self.trailers = response.trailers

    @property
    def is_complete(self) -> bool:
        """Whether the next piece is the last one."""
        return len(self._body) - self._at <= PIECE_BYTES

    def read_nowait(self) -> bytes:
        """Returns the next piece; b"" at the end."""
        piece = self._body if self._at == 0 and self.is_complete else self._body[self._at : self._at + PIECE_BYTES]
        self._at += len(piece)
        return piece

    async def read(self) -> bytes:
        return self.read_nowait()
