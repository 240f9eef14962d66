"""The one place that turns a ProxyError into a response: Nanonets' JSON shape, Proxy-Status, Retry-After."""

import json
import math
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from nanonets_proxy.errors import MethodNotAllowed, ProxyError, UnknownCaller
from nanonets_proxy.server.connection.caller_request import HTTP_1_1, CallerRequest
from nanonets_proxy.server.peers import caller_gone

_CHALLENGE: Final = 'Bearer realm="nanonets-proxy"'


@dataclass(frozen=True, slots=True)
class OwnResponse:
    """A response of the proxy's own. `fields` lacks Connection, which depends on the request."""

    status: int
    fields: dict[str, str]
    body: bytes

    def send(self, request: CallerRequest, *, keep_alive: bool) -> int:
        """Writes the whole response. Returns how many bytes of body it has.

        Raises ConnectionError if the caller has gone. RFC 9110 §2.5, §6.2: a server responds with the version that
        it speaks, not with the request's.
        """
        fields = self.fields
        if not keep_alive:
            fields = fields | {"Connection": "close"}
        elif request.version < HTTP_1_1:
            fields = fields | {"Connection": "keep-alive"}
        reason = HTTPStatus(self.status).phrase
        lines = [f"HTTP/1.1 {self.status} {reason}", *(f"{name}: {value}" for name, value in fields.items())]
        transport = request.connection.transport
        if transport is None or transport.is_closing():
            raise caller_gone()
        body = b"" if request.method == "HEAD" else self.body
        transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return len(body)


def error_response(error: ProxyError, request_id: str | None) -> OwnResponse:
    """Returns the response with the error's status and `{"code", "message", "details"}`. RFC 9209: Proxy-Status."""
    details = public_details(error)
    fields = {"Server": "nanonets-proxy", "Proxy-Status": _proxy_status(error)}
    if request_id is not None:
        details["request_id"] = fields["X-Request-Id"] = request_id
    if error.retry_after_s is not None:
        fields["Retry-After"] = str(details["retry_after"])
    if isinstance(error, MethodNotAllowed):
        fields["Allow"] = error.allow  # RFC 9110 §15.5.6
    if isinstance(error, UnknownCaller):
        fields["WWW-Authenticate"] = _CHALLENGE  # RFC 9110 §15.5.2
    body = json.dumps({"code": error.code, "message": error.message, "details": details}).encode()
    fields["Content-Type"] = "application/json; charset=utf-8"
    fields["Content-Length"] = str(len(body))
    fields["Date"] = formatdate(usegmt=True)  # RFC 9110 §6.6.1
    return OwnResponse(error.status, fields, body)


def public_details(error: ProxyError) -> dict[str, Any]:
    """Returns the details for the caller, without the request's id."""
    if error.retry_after_s is None:
        return dict(error.details)
    # Whole seconds, rounded up: a retry that comes a moment too early fails again.
    return error.details | {"retry_after": max(1, math.ceil(error.retry_after_s))}


def options_response(request_id: str | None) -> OwnResponse:
    """Returns the response to an OPTIONS request that is not forwarded (RFC 9110 §7.6.2, §9.3.7)."""
    fields = {
        "Server": "nanonets-proxy",
        "Allow": MethodNotAllowed.allow,
        "Content-Length": "0",
        "Date": formatdate(usegmt=True),
    }
    if request_id is not None:
        fields["X-Request-Id"] = request_id
    return OwnResponse(200, fields, b"")


def _proxy_status(error: ProxyError) -> str:
    """Returns a structured field item: the proxy's name, the error's type, and our code as `details`."""
    details = error.code
    if (reason := error.details.get("reason")) is not None:
        printable = "".join(char for char in str(reason) if " " <= char <= "~" and char not in '"\\')
        details = f"{details}: {printable}"
    return f'nanonets-proxy; error={error.proxy_error}; details="{details}"'
