"""A caller's request as its connection read it, and the contract between connection and handler."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

from nanonets_proxy.server.connection.body_stream import NO_BODY, Body
from nanonets_proxy.server.peers import UNKNOWN, Peer

if TYPE_CHECKING:
    from nanonets_proxy.core.http.request_head import RequestHead
    from nanonets_proxy.errors import ProxyError
    from nanonets_proxy.server.connection.caller_connection import CallerConnection

Version = tuple[int, int]
HTTP_1_0: Final[Version] = (1, 0)
HTTP_1_1: Final[Version] = (1, 1)


class HeaderSection:
    """The fields of a request, in order: `names` has a name for each of `values`.

    `version` is that of the request line. `body_length` is in bytes, None for a chunked body. `keep_alive`: whether
    another request may follow.
    """

    __slots__ = ("body_length", "compared_fields", "keep_alive", "names", "read_head", "values", "version")

    def __init__(
        self,
        version: Version,
        names: tuple[bytes, ...],
        values: tuple[bytes, ...],
        body_length: int | None,
        keep_alive: bool,
    ) -> None:
        self.version = version
        self.names = names
        self.values = values
        self.body_length = body_length
        self.keep_alive = keep_alive
        self.read_head: RequestHead | None = None
        """What the handler has read from the fields. It is kept, as the next request may have the same section."""
        self.compared_fields: bytes | None = None
        """What the coalescing of GETs compares, once it is written. It is kept for the same reason."""


class ParsedHead:
    """A parsed head. `raw` is the head as received; its header section begins at `section_at`."""

    __slots__ = ("method", "raw", "section", "section_at", "target")

    def __init__(self, raw: bytes, method: str, target: str, section: HeaderSection, section_at: int) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self.section = section
        self.section_at = section_at


class CallerRequest:
    """One request. `target` is the request target as sent. The connection sets `connection`, `peer` and `body`."""

    __slots__ = (
        "body",
        "connection",
        "is_wanted",
        "keep_alive",
        "method",
        "peer",
        "section",
        "target",
        "version",
    )

    connection: "CallerConnection"

    def __init__(self, method: str, target: str, section: HeaderSection) -> None:
        self.method = method
        self.target = target
        self.section = section
        self.version = section.version
        self.keep_alive = section.keep_alive
        self.peer: Peer = UNKNOWN
        self.body: Body = NO_BODY
        self.is_wanted: Callable[[], bool] | None = None
        """Returns whether other callers wait for the response. None: they do not."""

    @property
    def names(self) -> tuple[bytes, ...]:
        return self.section.names

    @property
    def values(self) -> tuple[bytes, ...]:
        return self.section.values

    def outlives_caller(self) -> bool:
        """Returns whether the request goes on although its caller has hung up."""
        return self.is_wanted is not None and self.is_wanted()


_UNREADABLE: Final = HeaderSection(HTTP_1_0, (), (), 0, keep_alive=False)


def unreadable_request(method: str | None = None, target: str | None = None) -> CallerRequest:
    """Returns the stand-in for a request whose head is malformed, so that it gets a response and is logged."""
    return CallerRequest(method or "UNKNOWN", target or "/", _UNREADABLE)


class Response(Protocol):
    """A response that was sent, or broken off."""

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow."""


class Handler(Protocol):
    """Handles requests: one coroutine takes a request and sends its response."""

    def __call__(self, request: CallerRequest) -> Awaitable[Response]: ...

    def reject_malformed(self, request: CallerRequest, error: "ProxyError") -> None:
        """Sends an error response to malformed bytes."""
