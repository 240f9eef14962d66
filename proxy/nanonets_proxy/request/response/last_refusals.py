"""Keeps the upstream's latest 429s: a caller that waits in vain gets one of them as its response.

It is the latest 429 of the same request if its body was small, otherwise the latest one of the scope. The latter
was the response to another request, perhaps of another caller, so its cookies and its CORS fields do not pass.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.http.headers import without_fields
from nanonets_proxy.core.keys.key_scrubber import KeyForms
from nanonets_proxy.request.response.body_start import MAX_BODY_BYTES, decoded_body
from nanonets_proxy.upstream.response_head import ResponseHead

_MAX_SCOPES: Final = 16  # together at most 1 MiB of bodies
_MAX_OWN_BYTES: Final = 4096  # each of 10,000 waiting requests may keep this much

# The proxy frames the body anew, and Retry-After is its own forecast.
_REPLACED: Final = frozenset(
    {b"content-length", b"content-encoding", b"transfer-encoding", b"trailer", b"retry-after", b"connection"}
)
_OF_ONE_REQUEST: Final = frozenset(
    {b"set-cookie", b"x-request-id", b"date", b"age", b"vary", b"access-control-allow-origin"}
    | {b"access-control-allow-credentials", b"access-control-expose-headers", b"proxy-status", b"server-timing"}
)


@dataclass(frozen=True, slots=True)
class LastRefusal:
    """A whole 429, without the key and without compression, to be sent as the response to a request."""

    head: ResponseHead
    body: bytes
    is_own: bool = True
    """Whether it was the response to the same request."""
    is_complete = True
    trailers = ()

    def read_nowait(self) -> bytes:
        """Returns nothing: `body` is the whole body."""
        return b""

    def without_body(self) -> "LastRefusal":
        """Returns it as the response to a HEAD request."""
        head = self.head.with_fields(self.head.names, self.head.values)
        head.body_length = 0
        return LastRefusal(head, b"", self.is_own)


class LastRefusals:
    """The latest 429 of each scope, for the `_MAX_SCOPES` scopes that were refused last."""

    def __init__(self) -> None:
        self._by_scope: OrderedDict[str, LastRefusal] = OrderedDict()

    def note(self, scope: str, head: ResponseHead, body: bytes, forms: KeyForms) -> LastRefusal | None:
        """Keeps a whole 429 for its scope. Returns it for its request; None if it is too large or unreadable."""
        plain = decoded_body(head, body)
        if plain is None or len(plain) > MAX_BODY_BYTES:
            return None
        names, values = without_fields(_REPLACED, head.names, head.values)
        values = (*map(forms.blank, values), b"%d" % len(plain))
        head = head.with_fields((*names, b"Content-Length"), values)
        head.body_length = len(plain)
        own = LastRefusal(head, forms.blank(plain))
        names, values = without_fields(_OF_ONE_REQUEST, head.names, head.values)
        self._by_scope[scope] = LastRefusal(head.with_fields(names, values), own.body, is_own=False)
        self._by_scope.move_to_end(scope)
        if len(self._by_scope) > _MAX_SCOPES:
            self._by_scope.popitem(last=False)
        return own if len(plain) <= _MAX_OWN_BYTES else None

    def of(self, scope: str) -> LastRefusal | None:
        """Returns the latest 429 of a scope."""
        return self._by_scope.get(scope)
