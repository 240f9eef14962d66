"""Nanonets' error shape `{code, message, details}`, and every error that the sandbox answers with."""

import math
from typing import Any

from aiohttp import web

from nanonets_proxy.sandbox.policy import HintStyle

_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    417: "expectation_failed",
}


class Refusal(Exception):
    """Raised by a call that cannot be carried out; the middleware turns it into the answer."""

    def __init__(self, status: int, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


def bad_request(message: str, **details: Any) -> Refusal:
    """400: the request makes no sense; `message` says why."""
    return Refusal(400, message, **details)


def not_found(what: str, name: str) -> Refusal:
    """404: there is no such `what`."""
    return Refusal(404, f"{what} not found", error=f"no {what.lower()} has the id {name!r}")


def too_large(limit_bytes: int) -> Refusal:
    """413: the body is larger than the sandbox takes."""
    return Refusal(413, "Request body too large", limit_bytes=limit_bytes)


def error(
    status: int, code: str, message: str, details: dict[str, Any], headers: dict[str, str] | None = None
) -> web.Response:
    """Return an error in the shape that the vendor documents for v4."""
    body = {"code": code, "message": message, "details": details}
    return web.json_response(body, status=status, headers=headers)


def from_refusal(refusal: Refusal) -> web.Response:
    """Turn what a call raised into its answer."""
    return error(refusal.status, _CODES[refusal.status], refusal.message, refusal.details)


def from_http_exception(exc: web.HTTPException) -> web.Response:
    """Turn what aiohttp raises (no such path, no such method, body too large) into the same shape."""
    headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else None
    return error(exc.status, _CODES[exc.status], exc.reason, {}, headers)


def unauthorized() -> web.Response:
    """The 401 that the vendor documents, with the challenge that RFC 9110 §11.6.1 asks for."""
    details = {"error": "Authentication failed"}
    challenge = {"WWW-Authenticate": 'Basic realm="Nanonets sandbox"'}
    return error(401, "unauthorized", "Invalid API key", details, challenge)


def rate_limited(retry_after_s: float, hint: HintStyle) -> web.Response:
    """The 429 that the vendor documents, with the hint where `hint` says.

    The documented delay is in whole seconds, and so it is here, rounded up. Only a delay below a second
    keeps its milliseconds in the body: a whole second would be wrong by more than the delay.
    `Retry-After` knows whole seconds only (RFC 9110 §10.2.3).
    """
    whole_s = max(1, math.ceil(retry_after_s))
    body_s = whole_s if retry_after_s >= 1 else math.ceil(retry_after_s * 1000) / 1000
    details = {"retry_after": body_s} if hint in (HintStyle.BODY, HintStyle.BOTH) else {}
    headers = {"Retry-After": str(whole_s)} if hint in (HintStyle.HEADER, HintStyle.BOTH) else None
    return error(429, "rate_limit_exceeded", "Rate limit exceeded", details, headers)


def unavailable() -> web.Response:
    """An invented failure, as `failure_rate` asks."""
    return error(503, "service_unavailable", "Service unavailable", {"error": "failure made by the sandbox"})
