"""Asks a running proxy whether it is ready, or to read its keys again, with nothing but the standard library:
containers do the former often."""

import socket
from http.client import HTTPConnection, HTTPException

from nanonets_proxy.core.net.addresses import Listener, UnixListener

TIMEOUT_S = 3.0
_MAX_SHOWN_BYTES = 4096

# A server on every interface is on loopback too.
_ON_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def is_ready(address: Listener) -> tuple[bool, str]:
    """Whether GET /readyz on an admin address gives 200 within `TIMEOUT_S`, and one line that says so."""
    try:
        status, said = _ask(address, "GET", "/readyz", TIMEOUT_S)
    except _NoAnswer as error:
        return False, f"unhealthy: {error}"
    return (True, "healthy") if status == 200 else (False, f"unhealthy: {status} {said}")


def reload(address: Listener, timeout_s: float) -> tuple[bool, str]:
    """Whether POST /reload on an admin address succeeds, and one line that says so."""
    try:
        status, said = _ask(address, "POST", "/reload", timeout_s)
    except _NoAnswer as error:
        return False, f"not reloaded: {error}"
    return (True, f"reloaded: {said}") if status == 200 else (False, f"not reloaded: {status} {said}")


class _NoAnswer(Exception):
    """The message is the end of a sentence."""


def _ask(address: Listener, method: str, path: str, timeout_s: float) -> tuple[int, str]:
    """The status, and the body's first line."""
    if isinstance(address, UnixListener):
        connection: HTTPConnection = _UnixConnection(address.path, timeout_s)
    else:
        host = _ON_LOOPBACK.get(address.host, address.host)
        connection = HTTPConnection(host, address.port, timeout=timeout_s)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        first_line = response.read(_MAX_SHOWN_BYTES).decode("utf-8", "replace").strip().partition("\n")[0]
    except OSError as error:
        raise _NoAnswer(f"no answer from {address}: {(error.strerror or str(error)).lower()}") from None
    except HTTPException:
        raise _NoAnswer(f"what listens on {address} does not speak HTTP") from None
    finally:
        connection.close()
    return response.status, first_line or response.reason
