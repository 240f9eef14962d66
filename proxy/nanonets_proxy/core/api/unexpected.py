"""Recognises responses that the API does not send: HTML, other types, and JSON that is broken.

Such responses come from a captive portal, a CDN or a firewall in the API's place. Callers still get them unaltered.
The API sends JSON everywhere, except for the original of a document and the event stream of an extraction.
"""

import re
from typing import Final

from nanonets_proxy.core.access.caller_tokens import mask_tokens
from nanonets_proxy.core.api.routes import OTHER_ROUTE, STREAM, TEMPLATES

HTML: Final = "html"
OTHER_TYPE: Final = "other_type"
BROKEN_JSON: Final = "broken_json"
NOT_HTTP: Final = "not_http"

USUAL_TYPES: Final = frozenset(
    {
        b"application/json",
        b"application/json; charset=utf-8",
        b"application/json; charset=UTF-8",
        b"application/json;charset=utf-8",
    }
)
"""The spellings of JSON's type that need no further look."""

SAMPLE_CHARS: Final = 200
SEARCHED_BYTES: Final = 512
"""More than a sample shows: a secret whose end is cut off would not be recognised."""
_JSON_ROUTES: Final = frozenset(
    template for template in TEMPLATES if template != STREAM and not template.endswith("/original")
)
_STATUSES_WITHOUT_BODY: Final = frozenset({204, 304})
_JSON_STARTS: Final = (b"{", b"[")
# A word of this length is no word: it may be a token, a signature or a document's content in Base64.
_LONG_WORD: Final = re.compile(r"[A-Za-z0-9_+=-]{24,}")
_QUERY_VALUE: Final = re.compile(r"([?&;][\w.%-]{1,64}=)[^&\s\"'<>;]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def may_have_unexpected_body(route: str, method: str, status: int) -> bool:
    """Returns whether a response may have a body, and whether that body should be one of the API's."""
    return route != OTHER_ROUTE and method != "HEAD" and status not in _STATUSES_WITHOUT_BODY


def unexpected_type(route: str, content_type: bytes | None, start: bytes) -> str | None:
    """Returns the kind of a body of an unexpected type, HTML or OTHER_TYPE; None if the type is no surprise.

    `start` is the start of the body as far as it is known.
    """
    if claims_json(content_type, start):
        return None
    media_type = _media_type(content_type)
    if media_type in (b"text/html", b"application/xhtml+xml"):
        return HTML
    if not media_type:
        return HTML if start.lstrip().startswith(b"<") else None
    return OTHER_TYPE if route in _JSON_ROUTES else None


def claims_json(content_type: bytes | None, start: bytes) -> bool:
    """Returns whether a body should be JSON, by its type or by its start.

    Clients also parse JSON of another type.
    """
    return _media_type(content_type).endswith((b"/json", b"+json")) or start.lstrip().startswith(_JSON_STARTS)


def _media_type(content_type: bytes | None) -> bytes:
    return (content_type or b"").partition(b";")[0].strip().lower()


def sample(data: bytes) -> str:
    """Returns the first `SAMPLE_CHARS` characters in a printable form, without values of queries and long words."""
    text = mask_tokens(data[:SEARCHED_BYTES], b"").decode("utf-8", "replace")
    text = _LONG_WORD.sub("…", _QUERY_VALUE.sub(r"\1…", _CONTROL.sub(" ", text)))
    return text[:SAMPLE_CHARS].strip()
