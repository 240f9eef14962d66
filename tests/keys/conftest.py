"""Starts a real OpenBao and a simulated AWS Secrets Manager on loopback, once for each test run.

`make test-stores` installs them. No test is skipped: a missing tool is a failure.
"""

import base64
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from support.commands.ports import free_port

ROOT_TOKEN = "the-root-token"
SERVICE_ACCOUNT = "the-service-account"
_START_S = 30.0


@pytest.fixture(scope="session")
def free_address() -> str:
    """A URL at which nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


@dataclass(frozen=True)
class Bao:
    address: str

    def ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.address}/v1/{path}",
            json.dumps(body).encode() if body else None,
            {"X-Vault-Token": ROOT_TOKEN, "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            data = response.read()
        return json.loads(data) if data else {}

    def write(self, path: str, **fields: str) -> None:
        """Writes a new version of the secret."""
        self.ask("POST", f"secret/data/{path}", data=fields)


def _tool(name: str) -> str:
    path = Path(sys.executable).with_name(name)
    assert path.exists(), f"{name} is missing: run `make test-stores`"
    return str(path)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            assert process.poll() is None, "the server ended at once"
            assert time.monotonic() < deadline_s, "the server does not respond"
            time.sleep(0.05)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _bao() -> Iterator[Bao]:
    port = free_port()
    process = subprocess.Popen(
        [
            _tool("bao"),
            "server",
            "-dev",
            "-dev-no-store-token",
            f"-dev-root-token-id={ROOT_TOKEN}",
            f"-dev-listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Bao(f"http://127.0.0.1:{port}")
        _wait_until_ready(f"{server.address}/v1/sys/health", process)
        policy = 'path "secret/data/nanonets/*" { capabilities = ["read"] }'
        server.ask("PUT", "sys/policies/acl/reader", policy=policy)
        server.ask("POST", "sys/auth/approle", type="approle")
        server.ask("POST", "sys/auth/kubernetes", type="kubernetes")
        yield server
    finally:
        _end(process)


@pytest.fixture(scope="session")
def bao() -> Iterator[Bao]:
    with _bao() as server:
        yield server


@pytest.fixture
def own_bao() -> Iterator[Bao]:
    """A separate server, for a test that stops or damages it."""
    with _bao() as server:
        yield server


class _TokenReview(BaseHTTPRequestHandler):
    """Serves the TokenReview of the Kubernetes API, by which OpenBao checks a token."""

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = review["spec"]["token"] == service_account_token()
        user = {"username": f"system:serviceaccount:default:{SERVICE_ACCOUNT}", "uid": "1", "groups": []}
        review["status"] = {"authenticated": good, "user": user if good else {}}
        body = json.dumps(review).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


def service_account_token(name: str = SERVICE_ACCOUNT) -> str:
    """Returns a token as Kubernetes makes them. The signature is not valid; only TokenReview would check it."""
    claims = {
        "iss": "kubernetes/serviceaccount",
        "sub": f"system:serviceaccount:default:{name}",
        "iat": 1700000000,
        "nbf": 1700000000,
        "exp": 4102444800,
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": name, "uid": "1"}},
    }
    parts = [{"alg": "RS256", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, base64.urlsafe_b64encode(b"signature").decode().rstrip("=")])


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _TokenReview) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def aws_endpoint() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [_tool("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/moto-api/", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        _end(process)


@pytest.fixture
def service_token() -> Callable[..., str]:
    return service_account_token
