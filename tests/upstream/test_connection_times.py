"""The time limits of one connection, in virtual time."""

import asyncio
from collections.abc import Coroutine
from mmap import mmap
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.errors import UpstreamClosed, UpstreamTimeout
from nanonets_proxy.upstream.exchange import UpstreamConnectionState, UpstreamRequest
from support.gate.virtual_loop import run_virtually
from support.raw_upstream import ok

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"1\r\nx\r\n"


class Scene:
    """A connection to an upstream that sends what the test says. Nothing else happens while time passes."""

    def __init__(self, *, idle_timeout_s: float = 60.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = mmap(-1, 4096)
        self.connection = UpstreamConnection(self._loop, self._buffer, idle_timeout_s=idle_timeout_s)
        transport = SimpleNamespace(write=lambda _: None, abort=lambda: None, is_closing=lambda: False)
        self.connection.connection_made(cast("asyncio.Transport", transport))

    def send(self, timeout_s: float = 60.0) -> None:
        self.connection.start(UpstreamRequest("GET", b"", None))
        self.connection.write(b"GET / HTTP/1.1\r\nHost: upstream\r\n\r\n")
        self.connection.finish_request(timeout_s)

    def receive(self, data: bytes) -> None:
        self._buffer[: len(data)] = data
        self.connection.buffer_updated(len(data))

    async def lasted_s(self, wait: Coroutine[Any, Any, Any], match: str) -> float:
        """Returns after how long the wait ends with the timeout that `match` names."""
        began_s = self._loop.time()
        with pytest.raises(UpstreamTimeout, match=match):
            await wait
        return self._loop.time() - began_s


def test_a_head_that_takes_too_long_is_a_timeout() -> None:
    async def main() -> float:
        scene = Scene()
        scene.send(timeout_s=5.0)
        scene.receive(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200")
        return await scene.lasted_s(scene.connection.head(), "begin its response")

    assert run_virtually(main()) == pytest.approx(5.0)


def test_a_closed_connection_has_no_time_limit() -> None:
    async def main() -> None:
        scene = Scene()
        scene.send(timeout_s=5.0)
        scene.connection.close()
        await asyncio.sleep(6.0)
        with pytest.raises(UpstreamClosed):
            await scene.connection.head()

    run_virtually(main())


def test_each_request_has_a_time_limit_of_its_own() -> None:
    async def main() -> float:
        scene = Scene()
        for _ in range(3):  # 12 s in all
            scene.send(timeout_s=5.0)
            await asyncio.sleep(4.0)
            scene.receive(ok())
            assert (await scene.connection.head()).status == 200
            assert scene.connection.release()
        scene.send(timeout_s=5.0)
        return await scene.lasted_s(scene.connection.head(), "begin its response")

    assert run_virtually(main()) == pytest.approx(5.0)


def test_the_time_limit_of_a_completed_request_does_not_close_an_idle_connection() -> None:
    async def main() -> UpstreamConnectionState:
        scene = Scene()
        scene.send(timeout_s=5.0)
        scene.receive(ok())
        await scene.connection.head()
        assert scene.connection.release()
        await asyncio.sleep(6.0)
        return scene.connection.state

    assert run_virtually(main()) is UpstreamConnectionState.IDLE


def test_after_the_head_the_first_byte_timeout_does_not_apply() -> None:
    async def main() -> bytes:
        scene = Scene()
        scene.send(timeout_s=5.0)
        scene.receive(HEAD)
        await scene.connection.head()
        reading = asyncio.create_task(scene.connection.read())
        await asyncio.sleep(6.0)
        scene.receive(CHUNK)
        return await reading

    assert run_virtually(main()) == b"x"


def test_each_wait_for_the_body_has_the_whole_idle_timeout() -> None:
    async def main() -> float:
        scene = Scene(idle_timeout_s=5.0)
        scene.send()
        scene.receive(HEAD)
        await scene.connection.head()
        for _ in range(3):  # 12 s in all
            reading = asyncio.create_task(scene.connection.read())
            await asyncio.sleep(4.0)
            scene.receive(CHUNK)
            assert await reading == b"x"
        return await scene.lasted_s(scene.connection.read(), "stopped sending")

    assert run_virtually(main()) == pytest.approx(5.0)
