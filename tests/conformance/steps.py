"""A case is a conversation: what the caller sends, what the upstream gets and says, what the caller sees.

The steps happen in their order. A caller's bytes and an upstream's are given as they stand on the wire, `@UP@` in
them standing for the upstream's host and port. Whatever else reaches the upstream as a request fails the case.
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
    """The caller ends its side of the connection."""


@dataclass(frozen=True, slots=True)
class Receive:
    """A request reaches the upstream. `line` is its request line; `fields` stand in it in this order, and `without`
    are the names of fields that don't; `body` is its content without framing, None if it is not to be read yet."""

    line: bytes
    fields: tuple[bytes, ...] = ()
    without: tuple[bytes, ...] = ()
    body: bytes | None = b""


@dataclass(frozen=True, slots=True)
class ReceiveBody:
    """The rest of a request whose head has come."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The upstream says `data` on the connection of the last request."""

    data: bytes


@dataclass(frozen=True, slots=True)
class UpstreamCloses:
    """The upstream ends the connection in order."""


@dataclass(frozen=True, slots=True)
class UpstreamResets:
    """The upstream breaks the connection off."""


@dataclass(frozen=True, slots=True)
class UpstreamEnded:
    """The proxy has ended the connection to the upstream."""


@dataclass(frozen=True, slots=True)
class See:
    """The caller gets an answer. `statuses` are those that the standard allows, `ours` is the one that this proxy
    gives; `fields` stand in it in this order, `without` name fields that don't. `trailers` as raw lines."""

    statuses: frozenset[int]
    ours: int | None = None
    line: bytes | None = None
    fields: tuple[bytes, ...] = ()
    without: tuple[bytes, ...] = ()
    body: bytes | None = None
    trailers: bytes = b""
    code: str | None = None
    to_head: bool = False


@dataclass(frozen=True, slots=True)
class SeeInterim:
    """The caller gets a 1xx with exactly these lines behind its status."""

    status: int
    fields: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class SeeStart:
    """The caller gets an answer's head and these bytes behind it, while the rest was not sent yet."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SeeBytes:
    """The caller gets exactly these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SeeEnd:
    """The connection ends in order behind what the caller has seen."""


@dataclass(frozen=True, slots=True)
class SeeBroken:
    """The answer that began breaks off so that nobody can take it for whole: after its first bytes, an error, or an
    end before the framing allows one."""

    status: int = 200


@dataclass(frozen=True, slots=True)
class Again:
    """One more request on the caller's connection gets its own answer: framing is in step on both sides."""


Step = (
    Send
    | HalfClose
    | Receive
    | ReceiveBody
    | Reply
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
    """`fact` is what the case proves, `source` where it is written. `comparable`: other proxies can be asked the
    same. `settings` are this one's where the tests' defaults don't do."""

    fact: str
    source: str
    steps: tuple[Step, ...]
    comparable: bool = True
    settings: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


def get(target: bytes = b"/x", *fields: bytes, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    """A request without a body."""
    return b"\r\n".join([b"%b %b %b" % (method, target, version), b"Host: localhost", *fields, b"", b""])


def post(body: bytes, *fields: bytes, method: bytes = b"POST", version: bytes = b"HTTP/1.1") -> bytes:
    """A request with Content-Length."""
    return get(b"/x", *fields, b"Content-Length: %d" % len(body), method=method, version=version) + body


def chunked_post(body: bytes, *fields: bytes) -> bytes:
    """A request with a chunked body, whose framing is part of `body`."""
    return get(b"/x", *fields, b"Transfer-Encoding: chunked", method=b"POST") + body


def reply(body: bytes = b"ok", *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer with Content-Length."""
    return b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body), b"", body])


def raw_reply(body: bytes, *fields: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """An answer of these fields alone."""
    return b"\r\n".join([status, *fields, b"", body])


def status(*allowed: int, **more: Any) -> See:
    """An answer with one of these statuses; ours is the first."""
    return See(frozenset(allowed), ours=allowed[0], **more)


OK: Final = reply()
SEE_OK: Final = status(200, body=b"ok")
GOT: Final = Receive(b"GET /x HTTP/1.1")
SMUGGLED: Final = get(b"/smuggled")
