"""Nanonets' published client, through the proxy, against the sandbox."""

import asyncio
from collections.abc import Callable

import pytest

from support.commands.process import proxy_to, sandbox


@pytest.mark.parametrize("clients_key", ["", "a-wrong-key"])
async def test_every_nanonetsclient_method_works_with_any_client_key(
    clients_key: str, run_every_client_call: Callable[[str, str], list[str]]
) -> None:
    with sandbox("--limit", "none") as upstream, proxy_to(upstream) as proxy:
        done = await asyncio.to_thread(run_every_client_call, f"{proxy.url}/api/v4", clients_key)
    assert len(done) >= 29
    assert {event["status"] for event in proxy.requests()} <= {200, 201, 204, 400, 404}
