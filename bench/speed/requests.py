"""The requests, which are the same for every peer."""

import http.client
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "bench/1.0",
}
LARGE_BYTES: Final = 64 * 1024
HUGE_BYTES: Final = 1024**3

SMALL_RESPONSE: Final = (
    '{"workflows": [{"id": "5f2c9d1e", "description": "Invoices of suppliers", "workflow_type": "", '
    '"created_at": "2025-01-31T12:00:00Z", "settings": {"table_capture": true, "status": "ready"}}], "next": null}'
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is repeated. `headers` come after HEADERS and Host."""

    path: str
    method: str = "GET"
    body_bytes: int = 0
    headers: tuple[tuple[str, str], ...] = ()

    def all_headers(self) -> dict[str, str]:
        return {**HEADERS, **dict(self.headers)}

    def head(self, host: str) -> bytes:
        """Returns the request head as on the wire."""
        length = {"Content-Length": str(self.body_bytes)} if self.body_bytes else {}
        fields = {"Host": host, **self.all_headers(), **length}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode()


SMALL: Final = Request("/api/v4/workflows")
LARGE: Final = Request("/api/v4/large")
HUGE: Final = Request("/api/v4/huge")
PREDICT: Final = Request("/api/v2/OCR/Model/busy/LabelUrls", "POST", 2)
"""A request with its own scope."""


def post(body_bytes: int) -> Request:
    return Request("/api/v4/documents", "POST", body_bytes)


def succeeds(origin: str, request: Request) -> bool:
    """Returns whether `origin` responds with 200 over plain HTTP."""
    connection = http.client.HTTPConnection(urlsplit(origin).netloc, timeout=5)
    try:
        connection.request(request.method, request.path, b"x" * request.body_bytes, request.all_headers())
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def requests_served(upstream: str) -> int:
    """Returns the number of requests that the benchmark's upstream has counted."""
    connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=30)
    connection.request("GET", "/requests")
    text = connection.getresponse().read()
    connection.close()
    return int(text.splitlines()[2].split()[2])
