"""The sandbox's error responses, in Nanonets' shape `{code, message, details}`."""

import hashlib
import http
import math
import re
from typing import Any, Final

from aiohttp import web

from nanonets_proxy.sandbox.policy import HintStyle

_FAULT_RETRY_S: Final = 1.0

_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    417: "expectation_failed",
}


class ApiError(Exception):
    """Raised by a handler; the middleware turns it into an error response."""

    def __init__(self, status: int, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


def bad_request(message: str, **details: Any) -> ApiError:
    """Returns a 400; `message` gives the reason."""
    return ApiError(400, message, **details)


def not_found(what: str, name: str) -> ApiError:
    """Returns a 404 for a missing workflow, document, page or other `what`."""
    return ApiError(404, f"{what} not found", error=f"no {what.lower()} has the id {name!r}")


def too_large(limit_bytes: int) -> ApiError:
    """Returns a 413 for a body above the limit."""
    return ApiError(413, "Request body too large", limit_bytes=limit_bytes)


def error(
    status: int, code: str, message: str, details: dict[str, Any], headers: dict[str, str] | None = None
) -> web.Response:
    """Returns an error in the shape that Nanonets documents for v4."""
    body = {"code": code, "message": message, "details": details}
    return web.json_response(body, status=status, headers=headers)


def from_api_error(raised: ApiError) -> web.Response:
    """Converts a handler's exception."""
    return error(raised.status, _CODES[raised.status], raised.message, raised.details)


def from_http_exception(exc: web.HTTPException) -> web.Response:
    """Converts an exception of aiohttp: unknown path, wrong method, or too large a body."""
    headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else None
    return error(exc.status, _CODES[exc.status], exc.reason, {}, headers)


def with_etag(response: web.StreamResponse, request: web.Request) -> web.StreamResponse:
    """Returns a 200 with its ETag, or a 304 if the request names that ETag (RFC 9110 §13.1.2)."""
    if response.status != http.HTTPStatus.OK or not isinstance(response, web.Response):
        return response
    body = response.body
    if not isinstance(body, bytes):
        return response
    value = hashlib.sha256(body).hexdigest()[:16]
    response.etag = value
    if any(tag.value in ("*", value) for tag in request.if_none_match or ()):
        return web.Response(status=http.HTTPStatus.NOT_MODIFIED, headers={"ETag": response.headers["ETag"]})
    return response


def unauthorized() -> web.Response:
    """Returns the 401 that Nanonets documents, with the challenge that RFC 9110 §11.6.1 requires."""
    details = {"error": "Authentication failed"}
    challenge = {"WWW-Authenticate": 'Basic realm="Nanonets sandbox"'}
    return error(401, "unauthorized", "Invalid API key", details, challenge)


def rate_limited(retry_after_s: float, hint: HintStyle) -> web.Response:
    """Returns the 429 that Nanonets documents, with the retry delay in the places that `hint` names.

    Nanonets documents a delay in whole seconds, so the delay is rounded up. Only a delay below one second keeps
    its milliseconds in the body. `Retry-After` allows whole seconds only (RFC 9110 §10.2.3).
    """
    whole_s = max(1, math.ceil(retry_after_s))
    body_s = whole_s if retry_after_s >= 1 else math.ceil(retry_after_s * 1000) / 1000
    details = {"retry_after": body_s} if hint in (HintStyle.BODY, HintStyle.BOTH) else {}
    headers = {"Retry-After": str(whole_s)} if hint in (HintStyle.HEADER, HintStyle.BOTH) else None
    return error(429, "rate_limit_exceeded", "Rate limit exceeded", details, headers)


def simulated_fault(status: int, hint: HintStyle) -> web.Response:
    """Returns the response of a simulated failure (`SandboxPolicy.failure_rate`, `SandboxPolicy.faults`)."""
    if status == http.HTTPStatus.UNAUTHORIZED:
        return unauthorized()
    if status == http.HTTPStatus.TOO_MANY_REQUESTS:
        return rate_limited(_FAULT_RETRY_S, hint)
    known = {item.value: item for item in http.HTTPStatus}
    message = known[status].phrase.capitalize() if status in known else "Simulated fault"
    code = re.sub(r"[^a-z]+", "_", message.lower())
    return error(status, code, message, {"error": "failure simulated by the sandbox"})


def docstrange_unauthorized() -> web.Response:
    challenge = {"WWW-Authenticate": 'Bearer realm="Nanonets sandbox"'}
    return web.json_response({"detail": "Invalid API key"}, status=401, headers=challenge)


def docstrange_rate_limited() -> web.Response:
    """Returns the 429 of DocStrange, whose text alone says when to come back."""
    return web.json_response({"detail": "Daily rate limit exceeded. Please try again tomorrow."}, status=429)
