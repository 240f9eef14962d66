"""A headless Chromium, and a foreign web site for it to visit."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from aiohttp import web

NAMES = ("evil.example", "rebind.example", "evil.local", "rebind.local", "rebind")
"""Foreign host names that resolve to this machine, as after DNS rebinding."""

WAIT_S = 60.0


@asynccontextmanager
async def chromium(url: str, profile: Path) -> AsyncIterator[None]:
    """Runs Chromium on `url` during the block."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is missing; tests/system/setup.sh installs it"
    rules = ",".join(f"MAP {name} 127.0.0.1" for name in NAMES)
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless=new",
        "--no-sandbox",  # the tests run as root
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--no-proxy-server",
        f"--user-data-dir={profile}",
        f"--host-resolver-rules={rules}",
        url,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


class Site:
    """Serves `page` under every path, and receives the JSON that the page posts to `/report`."""

    def __init__(self, page: str, port: int = 0) -> None:
        self._page = page
        self._port = port
        self._reports: asyncio.Queue[Any] = asyncio.Queue()
        self.visited = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes([web.post("/report", self._report), web.route("*", "/{path:.*}", self._show)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._runner.cleanup()

    async def report(self) -> Any:
        """Waits for the page's report."""
        async with asyncio.timeout(WAIT_S):
            return await self._reports.get()

    async def _show(self, _: web.Request) -> web.Response:
        self.visited.set()
        return web.Response(text=self._page, content_type="text/html")

    async def _report(self, request: web.Request) -> web.Response:
        self._reports.put_nowait(json.loads(await request.text()))
        return web.Response(headers={"Access-Control-Allow-Origin": "*"})
