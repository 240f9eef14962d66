"""aiohttp's server registers our connections. A release of aiohttp that cannot is reported at start."""

import pytest
from aiohttp import web

from nanonets_proxy.server.server import AiohttpMismatch
from support.proxy_harness import running_proxy
from support.scripted_upstream import ScriptedUpstream


async def test_a_release_of_aiohttp_that_needs_more_of_a_connection_is_reported_at_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web.Server, "connection_lost", lambda _, connection, __=None: connection._new_private_name)
    async with ScriptedUpstream() as upstream:
        with pytest.raises(AiohttpMismatch, match=r"^aiohttp [0-9.]+ does not fit .*_new_private_name"):
            async with running_proxy(upstream.origin):
                pass


async def test_a_release_of_aiohttp_that_keeps_lost_connections_is_reported_at_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web.Server, "connection_lost", lambda *_: None)
    async with ScriptedUpstream() as upstream:
        with pytest.raises(AiohttpMismatch, match="keeps a lost connection"):
            async with running_proxy(upstream.origin):
                pass
