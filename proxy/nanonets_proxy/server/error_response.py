"""The one place that turns a ProxyError into a response: Nanonets' JSON shape, Proxy-Status, Retry-After."""

import json
import math
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from nanonets_proxy.errors import MethodNotAllowed, ProxyError, UnknownCaller

_ALLOW: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_CHALLENGE: Final = 'Bearer realm="nanonets-proxy"'


class ErrorResponse(web.StreamResponse):
    """An answer of the proxy's own, written by itself: the library's would repeat the version of the request.

    RFC 9110 §2.5, §6.2: a server answers with the version that it speaks, whatever the request's was.
    """

    # The base class's set-up (headers, cookies, state) is never used, so it is not paid for.
    def __init__(self, status: int, fields: dict[str, str], body: bytes, *, close: bool) -> None:
        self._status = status
        self._fields = fields
        self._closes = close
        self.sent = body

    @property
    def keep_alive(self) -> bool:
        """Asked by the server behind the answer."""
        return not self._closes

    def force_close(self) -> None:
        """Nothing follows this answer on its connection."""
        self._closes = True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes the whole answer. Raises ConnectionError where the caller has gone."""
        self._closes = self._closes or not request.keep_alive
        if self._closes:
            self._fields["Connection"] = "close"
        elif request.version < HttpVersion11:
            self._fields["Connection"] = "keep-alive"
        reason = HTTPStatus(self._status).phrase
        lines = [f"HTTP/1.1 {self._status} {reason}", *(f"{name}: {value}" for name, value in self._fields.items())]
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the caller has gone")
        if request.method == "HEAD":
            self.sent = b""
        transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + self.sent)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything was sent by `prepare`."""


def answer(error: ProxyError, request_id: str | None) -> ErrorResponse:
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
    if isinstance(error, UnknownCaller):
        headers["WWW-Authenticate"] = _CHALLENGE  # RFC 9110 §15.5.2
    body = json.dumps({"code": error.code, "message": error.message, "details": details}).encode()
    headers["Content-Type"] = "application/json; charset=utf-8"
    headers["Content-Length"] = str(len(body))
    headers["Date"] = formatdate(usegmt=True)  # RFC 9110 §6.6.1
    return ErrorResponse(error.status, headers, body, close=error.close)


def _proxy_status(error: ProxyError) -> str:
    """A structured field item: the proxy's name with the error's type and our code for it as `details`."""
    details = error.code
    if (reason := error.details.get("reason")) is not None:
        printable = "".join(char for char in str(reason) if " " <= char <= "~" and char not in '"\\')
        details = f"{details}: {printable}"
    return f'nanonets-proxy; error={error.proxy_error}; details="{details}"'
