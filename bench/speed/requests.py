"""What is asked: the same request of every peer."""

import http.client
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "bench/1.0",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is repeated. `headers` are those besides HEADERS and Host."""

    path: str
    method: str = "GET"
    body_bytes: int = 0
    headers: tuple[tuple[str, str], ...] = ()

    def all_headers(self) -> dict[str, str]:
        return {**HEADERS, **dict(self.headers)}


SMALL: Final = Request("/api/v4/workflows")


def answers(origin: str, request: Request) -> bool:
    """Whether `origin`, which speaks plain HTTP, answers with 200."""
    connection = http.client.HTTPConnection(urlsplit(origin).netloc, timeout=5)
    try:
        connection.request(request.method, request.path, b"x" * request.body_bytes, request.all_headers())
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
