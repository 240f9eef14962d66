"""Sandboxes on free ports, and clients that hold their key."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from nanonets_proxy.sandbox.app import create_app
from nanonets_proxy.sandbox.policy import SandboxPolicy

KEY = "sandbox-key"


@pytest.fixture
def sandbox(aiohttp_client: AiohttpClient) -> Callable[..., Awaitable[TestClient[Any, Any]]]:
    """`await sandbox(limit=…, …)` starts a sandbox and returns a client that sends the key `sandbox-key`."""

    def start(**settings: Any) -> Awaitable[TestClient[Any, Any]]:
        app = create_app(SandboxPolicy(**{"api_keys": (KEY,), **settings}))
        return aiohttp_client(app, headers={"Authorization": aiohttp.encode_basic_auth(KEY, "")})

    return start
