"""The status as server-sent events: one reading a second for all viewers, and a bound on everything."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from nanonets_proxy.admin import events
from nanonets_proxy.admin.events import StatusEvents
from nanonets_proxy.admin.server import AdminHandler
from nanonets_proxy.app import program
from nanonets_proxy.app.reloading import ChangedSetting, NewSettings
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.token_text import TOKEN_BYTES, make_token
from support.eventually import WAIT_S, until
from support.proxy_harness import RunningProxy, running_proxy, serve_config
from support.raw_caller import RawCaller, request
from support.scripted_upstream import ScriptedUpstream, responding

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Viewer:
    """Reads the events of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), WAIT_S)

    async def block(self) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(b"\n\n"), WAIT_S)

    async def status(self) -> dict[str, Any]:
        """Returns the next status."""
        block = await self.block()
        document: dict[str, Any] = json.loads(block.removeprefix(b"data: "))
        return document

    async def ends(self) -> None:
        """Waits for the end of the stream."""
        async with asyncio.timeout(WAIT_S):
            while await self._reader.read(65536):
                pass


@asynccontextmanager
async def viewer(proxy: RunningProxy) -> AsyncIterator[Viewer]:
    host, _, port = proxy.admin_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
    writer.write(request(b"GET", b"/events"))
    try:
        yield Viewer(reader, writer)
    finally:
        writer.close()


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Makes events come fast, and records the readings of the status."""
    monkeypatch.setattr(events, "_INTERVAL_S", 0.05)
    seen: list[float] = []
    read = AdminHandler.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        read(self, *args, **options)
        original = self.events._read

        def counted() -> bytes:
            seen.append(0.0)
            return bytes(original())

        self.events._read = counted

    monkeypatch.setattr(AdminHandler, "__init__", init)
    return seen


async def test_a_viewer_gets_the_status_at_once_and_each_change_after_it(readings: list[float]) -> None:
    async with (
        ScriptedUpstream(responding(_OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        viewer(proxy) as one,
        await proxy.caller() as caller,
    ):
        head = await one.head()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nContent-Type: text/event-stream\r\n" in head
        assert await one.block() == b"retry: 1000\n\n"
        assert (await one.status())["environments"][0]["requests"]["served"][-1] == 0
        await caller.get(b"/api/v4/workflows")
        async with asyncio.timeout(WAIT_S):
            while not (await one.status())["environments"][0]["requests"]["served"][-1]:
                pass
        assert readings


async def test_all_viewers_share_one_reading(monkeypatch: pytest.MonkeyPatch, readings: list[float]) -> None:
    monkeypatch.setattr(events, "_INTERVAL_S", 3600.0)
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy, AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(viewer(proxy)) for _ in range(20)]
        for each in viewers:
            await each.head()
            await each.block()
        assert len({(await each.status())["time"] for each in viewers}) == 1
        assert len(readings) == 1
        proxy.program._admin_handler.events._tick()
        assert len({(await each.status())["time"] for each in viewers}) == 1
        assert len(readings) == 2


async def test_without_viewers_nothing_is_read(readings: list[float]) -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        async with viewer(proxy) as one:
            await one.head()
        hub = proxy.program._admin_handler.events
        await until(lambda: not hub._viewers and hub._timer is None)
        count = len(readings)
        for _ in range(10):
            await asyncio.sleep(0)
        assert (len(readings), hub._timer) == (count, None)


async def test_further_viewers_get_a_503_and_health_checks_a_200(
    monkeypatch: pytest.MonkeyPatch, readings: list[float]
) -> None:
    monkeypatch.setattr(program, "most_viewers", lambda _: 2)
    monkeypatch.setattr(program, "most_admin_connections", lambda _: 4)
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy, AsyncExitStack() as stack:
        for _ in range(2):
            await (await stack.enter_async_context(viewer(proxy))).head()
        async with await RawCaller.connect(proxy.admin_address) as third:
            await third.send(request(b"GET", b"/events"))
            response = await third.response()
            assert (response.status, response.json()["code"]) == (503, "too_many_connections")
        async with await RawCaller.connect(proxy.admin_address) as check:
            assert (await check.get(b"/livez")).status == 200
    assert readings


async def test_a_viewer_that_reads_nothing_is_dropped(
    monkeypatch: pytest.MonkeyPatch, readings: list[float]
) -> None:
    monkeypatch.setattr(events, "_INTERVAL_S", 0.002)
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            host, _, port = proxy.admin_address.rpartition(":")
            sock.settimeout(0)
            await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
            await asyncio.get_running_loop().sock_sendall(sock, request(b"GET", b"/events"))
            hub = proxy.program._admin_handler.events
            await until(lambda: len(hub._viewers) == 1)
            (own,) = hub._viewers
            own.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await until(lambda: not hub._viewers)
    assert readings


async def test_viewers_see_the_drain_and_then_the_end(readings: list[float]) -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy, viewer(proxy) as one:
        await one.head()
        await one.block()
        await one.status()
        async with await proxy.caller() as caller:
            await caller.send(request(b"GET", b"/"))
            exchange = await upstream.next_request()
            stopping = proxy.stop()
            async with asyncio.timeout(WAIT_S):
                while (status := await one.status())["state"]["code"] != "draining":
                    pass
            assert status["state"]["sentence"] == "Draining: 1 request in flight, no new connections."
            await exchange.respond(_OK)
            assert (await caller.response()).status == 200
        await one.ends()
        await stopping
    assert readings


async def test_a_change_of_the_admin_access_ends_the_viewers_and_other_changes_do_not(
    readings: list[float],
) -> None:
    def reload(proxy: RunningProxy, **overrides: Any) -> None:
        changed = (ChangedSetting("of_the_test", 0, 1),)
        proxy.program._apply(NewSettings(serve_config(**overrides), changed, ()), lambda _: None)

    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        viewer(proxy) as one,
        viewer(proxy) as two,
    ):
        for each in (one, two):
            await each.head()
            await each.block()
            await each.status()
        reload(proxy, max_wait="7s")
        count = len(readings)
        await until(lambda: len(readings) > count + 1)
        await one.status()
        reload(proxy, max_wait="7s", admin_tokens=str(CallerToken.of("prometheus", make_token(b"t" * TOKEN_BYTES))))
        await one.ends()
        await two.ends()
        reload(proxy, max_wait="7s")
        async with viewer(proxy) as three:  # connects again, and the present settings apply
            assert b" 200 " in await three.head()
            await three.block()
            await three.status()
            reload(proxy, max_wait="7s", admin_allow_from="10.0.0.0/8")
            await three.ends()


async def test_a_head_request_gets_no_events() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await RawCaller.connect(proxy.admin_address) as admin,
    ):
        await admin.send(request(b"HEAD", b"/events"))
        text = await admin.read_to_end()
        assert text.startswith(b"HTTP/1.1 200 OK\r\n")
        assert text.endswith(b"\r\n\r\n")


async def test_no_turn_of_the_loop_writes_to_more_than_a_few_viewers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Transport:
        def is_closing(self) -> bool:
            return False

        def get_write_buffer_size(self) -> int:
            return 0

        def write(self, data: bytes) -> None:
            if data.startswith(b"data: "):
                written.append(turn)

    monkeypatch.setattr(events, "_INTERVAL_S", 0.05)
    written: list[int] = []
    turn = 0
    sender = StatusEvents(lambda: b"{}", 100)
    request: Any = SimpleNamespace(connection=SimpleNamespace(transport=Transport()), method="GET")
    viewers = [asyncio.create_task(sender.send_to(request)) for _ in range(33)]
    async with asyncio.timeout(WAIT_S):
        while len(written) < 2 * 33:
            await asyncio.sleep(0)
            turn += 1
    sender.close()
    await asyncio.gather(*viewers)
    assert max(Counter(written[: 2 * 33]).values()) <= 10  # two events may meet in a turn of a busy machine
