"""An HTTP client for tests of the real process."""

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

Get = Callable[..., tuple[int, dict[str, str], Any]]


@pytest.fixture
def call() -> Get:
    """Returns `call(url, method="GET", body=None, **headers)`: status, lower-case headers, decoded body.

    A POST has the field that the admin listener requires.
    """

    def call(url: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            if method == "POST":
                fields = {"X-Requested-With": "test"} | fields
            connection.request(method, target, body, fields)
            response = connection.getresponse()
            data = response.read()
            fields = {name.lower(): value for name, value in response.getheaders()}
            is_json = fields.get("content-type", "").startswith("application/json")
            return response.status, fields, json.loads(data) if is_json and data else data
        finally:
            connection.close()

    return call
