"""The command, and an HTTP client, for tests of the real process."""

import http.client
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.commands.process import completed, environment

Get = Callable[..., tuple[int, dict[str, str], Any]]


@pytest.fixture
def run(tmp_path: Path):
    """Returns a function that runs the program in an empty directory, without this process's settings."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return completed(arguments, environment(**env or {}), tmp_path)

    return run


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
