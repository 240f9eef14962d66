"""The one place that turns a ProxyError into a response: Nanonets' JSON shape, Proxy-Status, Retry-After."""

import json
import math

from aiohttp import web

from nanonets_proxy.errors import MethodNotAllowed, ProxyError

_ALLOW = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


def answer(error: ProxyError, request_id: str | None) -> web.Response:
    """`{"code", "message", "details"}` with the error's status. RFC 9209 for Proxy-Status."""
    details = dict(error.details)
    headers = {"Server": "nanonets-proxy", "Proxy-Status": _proxy_status(error)}
    if request_id is not None:
        details["request_id"] = headers["X-Request-Id"] = request_id
    if error.retry_after_s is not None:
        # Whole seconds, rounded up: who comes back a moment too early waits in vain.
        retry_after = max(1, math.ceil(error.retry_after_s))
        headers["Retry-After"] = str(retry_after)
        details["retry_after"] = retry_after
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = _ALLOW  # RFC 9110 §15.5.6
    body = json.dumps({"code": error.code, "message": error.message, "details": details}).encode()
    response = web.Response(
        status=error.status, body=body, headers=headers, content_type="application/json", charset="utf-8"
    )
    if error.close:
        response.force_close()
        # aiohttp leaves the field out for what it could not parse, and takes for HTTP/1.0.
        response.headers["Connection"] = "close"
    return response


def _proxy_status(error: ProxyError) -> str:
    """A structured field item: the proxy's name with the error's type and our code for it as `details`."""
    details = error.code
    if (reason := error.details.get("reason")) is not None:
        printable = "".join(char for char in str(reason) if " " <= char <= "~" and char not in '"\\')
        details = f"{details}: {printable}"
    return f'nanonets-proxy; error={error.proxy_error}; details="{details}"'
