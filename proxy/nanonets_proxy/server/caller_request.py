"""A caller's request as its connection read it, and the contract between connection and handler."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final, Protocol

from nanonets_proxy.server.body_stream import NO_BODY, Body
from nanonets_proxy.server.peers import UNKNOWN, Peer

if TYPE_CHECKING:
    from nanonets_proxy.errors import ProxyError
    from nanonets_proxy.server.caller_connection import CallerConnection

Version = tuple[int, int]
HTTP_1_0: Final[Version] = (1, 0)
HTTP_1_1: Final[Version] = (1, 1)


class CallerRequest:
    """One request. `target` is the request target as sent; `names` and `values` are the fields, in order.

    `body_length` is in bytes, None for a chunked body. The connection sets `connection`, `peer` and `body`.
    """

    __slots__ = (
        *("body", "body_length", "connection", "keep_alive", "method"),
        *("names", "peer", "target", "values", "version"),
    )

    connection: "CallerConnection"

    def __init__(
        self,
        method: str,
        target: str,
        version: Version,
        names: tuple[bytes, ...],
        values: tuple[bytes, ...],
        body_length: int | None,
        keep_alive: bool,
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.names = names
        self.values = values
        self.body_length = body_length
        self.keep_alive = keep_alive
        self.peer: Peer = UNKNOWN
        self.body: Body = NO_BODY


def unreadable_request(method: str = "UNKNOWN", target: str = "/") -> CallerRequest:
    """Returns the stand-in for a request whose head is malformed, so that it gets a response and is logged."""
    return CallerRequest(method, target, HTTP_1_0, (), (), 0, keep_alive=False)


class Response(Protocol):
    """A response that was sent, or broken off."""

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow."""


class Handler(Protocol):
    """Answers requests: one coroutine from a request to its response, which it sends itself."""

    def __call__(self, request: CallerRequest) -> Awaitable[Response]: ...

    def reject_malformed(self, request: CallerRequest, error: "ProxyError") -> None:
        """Sends an error response for bytes that are no request."""
