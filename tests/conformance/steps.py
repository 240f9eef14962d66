"""The steps of a case: what the caller sends, what the upstream receives and sends, and what the caller sees.

The steps happen in order. Bytes are as on the wire; `@UP@` in them stands for the upstream's host and port.
A case fails if any other request reaches the upstream.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Send:
    """The caller sends `data`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class HalfClose:
    """The caller closes its sending side of the connection."""


@dataclass(frozen=True, slots=True)
class Receive:
    """A request reaches the upstream.

    It has the request line `line`, contains `fields` in this order, and no field with a name in `without`.
    `body` is its content without framing; None leaves the body unread for now.
    """

    line: bytes
    fields: tuple[bytes, ...] = ()
    without: tuple[bytes, ...] = ()
    body: bytes | None = b""


@dataclass(frozen=True, slots=True)
class ReceiveBody:
    """The body of a request whose head has arrived."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Respond:
    """The upstream sends `data` on the connection of the last request."""

    data: bytes


@dataclass(frozen=True, slots=True)
class UpstreamCloses:
    """The upstream closes the connection."""


@dataclass(frozen=True, slots=True)
class UpstreamResets:
    """The upstream resets the connection."""


@dataclass(frozen=True, slots=True)
class UpstreamEnded:
    """The proxy has ended the connection to the upstream."""


@dataclass(frozen=True, slots=True)
class See:
    """The caller gets a response.

    `statuses` are those that the standard allows, `ours` is the status of this proxy. The response contains
    `fields` in this order, one field with each name in `has`, and no field with a name in `without`. `trailers` are
    raw lines.
    """

    statuses: frozenset[int]
    ours: int | None = None
    line: bytes | None = None
    fields: tuple[bytes, ...] = ()
    has: tuple[bytes, ...] = ()
    without: tuple[bytes, ...] = ()
    body: bytes | None = None
    trailers: bytes = b""
    code: str | None = None
    to_head: bool = False


@dataclass(frozen=True, slots=True)
class SeeInterim:
    """The caller gets a 1xx with exactly these fields."""

    status: int
    fields: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class SeeStart:
    """The caller gets a response's head and these bytes, before the upstream sends the remaining bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SeeBytes:
    """The caller gets exactly these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SeeEnd:
    """The caller's connection is closed, without further bytes."""


@dataclass(frozen=True, slots=True)
class SeeBroken:
    """The caller can tell that the response is incomplete, by an error, a reset, or an early end."""

    status: int = 200


@dataclass(frozen=True, slots=True)
class Again:
    """Another request on the caller's connection gets its own response, so the framing is intact on both sides."""


Step = (
    Send
    | HalfClose
    | Receive
    | ReceiveBody
    | Respond
    | UpstreamCloses
    | UpstreamResets
    | UpstreamEnded
    | See
    | SeeInterim
    | SeeBytes
    | SeeStart
    | SeeEnd
    | SeeBroken
    | Again
)


@dataclass(frozen=True, slots=True)
class Case:
    """`fact` is what the case proves, `source` the rule's origin. A `comparable` case suits other proxies, too.

    `settings` override the tests' defaults for this proxy. A case that is not `repeatable` needs a fresh proxy.
    """

    fact: str
    source: str
    steps: tuple[Step, ...]
    comparable: bool = True
    settings: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    repeatable: bool = True


def get(target: bytes = b"/x", *fields: bytes, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    """Returns a request without a body."""
    return b"\r\n".join([b"%b %b %b" % (method, target, version), b"Host: localhost", *fields, b"", b""])


def post(body: bytes, *fields: bytes, method: bytes = b"POST", version: bytes = b"HTTP/1.1") -> bytes:
    """Returns a request with Content-Length."""
    return get(b"/x", *fields, b"Content-Length: %d" % len(body), method=method, version=version) + body


def chunked_post(body: bytes, *fields: bytes) -> bytes:
    """Returns a request with a chunked body. The framing is part of `body`."""
    return get(b"/x", *fields, b"Transfer-Encoding: chunked", method=b"POST") + body


def response(body: bytes = b"ok", *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """Returns a response with Content-Length."""
    return b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body), b"", body])


def raw_response(body: bytes, *fields: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """Returns a response with these fields only."""
    return b"\r\n".join([status, *fields, b"", body])


def status(*allowed: int, **expected: Any) -> See:
    """Returns the step for a response with one of these statuses; this proxy's is the first."""
    return See(frozenset(allowed), ours=allowed[0], **expected)


OK: Final = response()
SEE_OK: Final = status(200, body=b"ok")
GOT: Final = Receive(b"GET /x HTTP/1.1")
SMUGGLED: Final = get(b"/smuggled")
CHUNKED: Final = b"Transfer-Encoding: chunked"
LARGE: Final = bytes(range(256)) * 1024
BAD_REQUEST: Final = status(400, 405, 411, 413, 414, 431, 500, 501, 505, code="bad_request")


def rejected(
    what: str,
    source: str,
    data: bytes,
    see: See = BAD_REQUEST,
    subject: str = "a request with ",
    *,
    comparable: bool = True,
) -> Case:
    """Returns a case that sends `data` and a second request. Neither may reach the upstream."""
    return Case(f"{subject}{what} is rejected", source, (Send(data + SMUGGLED), see, SeeEnd()), comparable)


def passes(fact: str, source: str, sent: bytes, seen: See, *then: Step, **options: Any) -> Case:
    """Returns a case in which the upstream sends `sent` for a GET, and the caller sees `seen`."""
    return Case(fact, source, (Send(get()), GOT, Respond(sent), seen, *(then or (Again(),))), **options)
