"""A sandbox on a real socket."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from nanonets_proxy.sandbox.app import create_app
from nanonets_proxy.sandbox.policy import SandboxPolicy

KEY = "sandbox-key"


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """`await start(limit=…, …)` serves a sandbox with the key `sandbox-key`; returns its address."""
    runners: list[web.AppRunner] = []

    async def serve(**settings: Any) -> str:
        app = create_app(SandboxPolicy(**{"api_keys": (KEY,), **settings}))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield serve
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that sends the sandbox's key."""
    async with aiohttp.ClientSession(headers={"Authorization": aiohttp.encode_basic_auth(KEY, "")}) as session:
        yield session
