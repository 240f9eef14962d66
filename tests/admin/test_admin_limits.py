"""The admin listener under attack: its connections have the same limits as callers' connections."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest

from nanonets_proxy.admin import server as admin_server
from nanonets_proxy.app import program
from nanonets_proxy.server.connection import caller_transport
from nanonets_proxy.server.connection.caller_connection import CallerConnection
from support.eventually import until
from support.log_capture import captured_log
from support.proxy_harness import RunningProxy, running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import ScriptedUpstream


async def test_the_head_of_an_admin_request_is_limited() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        for flood in (b"X: " + b"a" * 20_000, b"\r\n".join(b"X-%d: a" % i for i in range(200))):
            async with await RawCaller.connect(proxy.admin_address) as caller:
                await caller.send(request(b"GET", b"/livez", flood))
                response = await caller.response()
                assert (response.status, response.json()["code"]) == (431, "head_too_large")


async def test_a_slow_head_of_an_admin_request_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_server, "_HEAD_TIMEOUT_S", 0.1)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await RawCaller.connect(proxy.admin_address) as caller,
    ):
        await caller.send(b"GET /livez HTTP/1.1\r\n")
        response = await caller.response()
        assert (response.status, response.json()["code"]) == (408, "request_timeout")


async def test_half_open_admin_connections_make_room_for_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "most_admin_connections", lambda _: 4)
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy, AsyncExitStack() as stack:
        for _ in range(20):
            caller = await stack.enter_async_context(await RawCaller.connect(proxy.admin_address))
            await caller.send(b"GET /livez HTTP/1.1\r\n")
        scrape = await stack.enter_async_context(await RawCaller.connect(proxy.admin_address))
        response = await scrape.get(b"/metrics")
        assert response.status == 200
        assert b'nanonets_proxy_admin_connections_shed_total{what="idle"}' in response.body
        assert proxy.program._admin.open_connections <= 4


async def _ask_without_reading(proxy: RunningProxy, sock: socket.socket, *, until_full: bool) -> CallerConnection:
    """Asks for metrics until responses wait in the server for the peer to read them."""
    loop = asyncio.get_running_loop()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    sock.settimeout(0)
    host, _, port = proxy.admin_address.rpartition(":")
    count = len(proxy.program._admin.connections)
    await loop.sock_connect(sock, (host, int(port)))
    await until(lambda: len(proxy.program._admin.connections) > count)
    connection = cast("CallerConnection", proxy.program._admin.connections[-1])
    while True:
        await loop.sock_sendall(sock, request(b"GET", b"/metrics"))
        await asyncio.sleep(0.01)
        await until(lambda: connection.is_idle or connection.writing.is_full)
        assert connection.transport is not None
        if connection.writing.is_full if until_full else connection.transport.get_write_buffer_size():
            return connection


async def test_unread_responses_cannot_hold_an_admin_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes wait for a peer that reads nothing, so an orderly close would last for ever."""
    monkeypatch.setattr(program, "most_admin_connections", lambda _: 2)
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy, AsyncExitStack() as stack:
        for _ in range(2):
            await _ask_without_reading(proxy, stack.enter_context(socket.socket()), until_full=False)
        async with await RawCaller.connect(proxy.admin_address) as caller:
            assert (await caller.get(b"/livez")).status == 200
            assert proxy.program._admin.open_connections <= 2


async def test_a_peer_that_only_asks_loses_its_admin_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_server, "_READ_TIMEOUT_S", 0.1)
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        with socket.socket() as sock:
            await _ask_without_reading(proxy, sock, until_full=True)
            await asyncio.get_running_loop().sock_sendall(sock, request(b"GET", b"/metrics"))
            await until(lambda: proxy.program._admin.open_connections == 0)


async def test_a_close_does_not_wait_for_ever_for_a_peer_that_reads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caller_transport, "CLOSE_S", 0.1)
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        with socket.socket() as sock:
            connection = await _ask_without_reading(proxy, sock, until_full=False)
            connection.close_when_sent()
            await until(lambda: proxy.program._admin.open_connections == 0)


async def test_a_peer_that_may_not_call_is_rejected_before_it_sends_a_request(tmp_path: Path) -> None:
    sockets = {"listen": f"unix:{tmp_path}/calls", "admin_listen": f"unix:{tmp_path}/admin"}
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, allow_uids="4242", **sockets) as proxy,
        AsyncExitStack() as stack,
    ):
        for address in (proxy.address, proxy.admin_address):
            stranger = await stack.enter_async_context(await RawCaller.connect(address))
            response = await stranger.response()
            assert (response.status, response.json()["code"]) == (403, "forbidden_peer")
            assert await stranger.read_to_end() == b""
            others = [await stack.enter_async_context(await RawCaller.connect(address)) for _ in range(40)]
            assert await asyncio.wait_for(others[-1].read_to_end(), 5) == b"", "their number is limited"


async def test_the_log_names_a_peer_that_may_not_use_the_admin_listener(tmp_path: Path) -> None:
    sockets = {"listen": f"unix:{tmp_path}/calls", "admin_listen": f"unix:{tmp_path}/admin"}
    with captured_log() as log:
        async with (
            ScriptedUpstream() as upstream,
            running_proxy(upstream.origin, allow_uids="4242", **sockets) as proxy,
        ):
            for _ in range(2):
                async with await RawCaller.connect(proxy.admin_address) as stranger:
                    assert (await stranger.response()).status == 403
        (event,) = log.events("peer_rejected")
    assert event["peer"].startswith("unix:uid=")
    assert "admin_allow_from" in event["advice"]
