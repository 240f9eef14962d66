"""Reference counting frees a request when it ends; no part of it waits for Python's garbage collector.

The proxy collects garbage rarely, so cycles would keep thousands of finished requests in memory, with their bodies.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, ScriptedUpstream, responding

COUNT = 3


@contextmanager
def garbage() -> Iterator[list[Any]]:
    """Collects what only the garbage collector would free after the block's beginning."""
    found: list[Any] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += [item for item in gc.garbage if type(item).__module__.startswith("nanonets_proxy.request.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    "settings",
    [{}, {"ledger": "usage.db"}, {"otlp_endpoint": "http://127.0.0.1:1", "otlp_share": "1"}],
    ids=["plain", "ledger", "traces"],
)
async def test_no_request_waits_for_the_garbage_collector(
    settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    streamed = request(b"POST", b"/x", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"
    async with (
        ScriptedUpstream(responding(*[OK] * 3 * (1 + COUNT))) as upstream,
        running_proxy(upstream.origin, **settings) as proxy,
        await proxy.caller() as caller,
    ):

        async def send(count: int) -> None:
            for _ in range(count):
                for message in (request(b"GET", b"/x"), request(b"POST", b"/x", body=b"document"), streamed):
                    await caller.send(message)
                    assert (await caller.response()).status == 200

        await send(1)
        with garbage() as found:
            await send(COUNT)
    assert found == []
