"""Asks a running proxy whether it is ready, with nothing but the standard library: containers do it often."""

import socket
from http.client import HTTPConnection, HTTPException

from nanonets_proxy.core.addresses import Listener, UnixListener

TIMEOUT_S = 3.0

# A server on every interface is on loopback too.
_ON_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def is_ready(address: Listener) -> tuple[bool, str]:
    """Whether GET /readyz on an admin address gives 200 within `TIMEOUT_S`, and one line that says so."""
    if isinstance(address, UnixListener):
        connection: HTTPConnection = _UnixConnection(address.path)
    else:
        host = _ON_LOOPBACK.get(address.host, address.host)
        connection = HTTPConnection(host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        first_line = response.read(1024).decode("utf-8", "replace").strip().partition("\n")[0]
    except OSError as error:
        return False, f"unhealthy: no answer from {address}: {(error.strerror or str(error)).lower()}"
    except HTTPException:
        return False, f"unhealthy: what listens on {address} does not speak HTTP"
    finally:
        connection.close()
    if response.status == 200:
        return True, "healthy"
    return False, f"unhealthy: {response.status} {first_line or response.reason}"
