"""TLS handshakes count as connections, and their number is bounded."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from nanonets_proxy.server import server, tls_handshake
from support.eventually import WAIT_S, until
from support.log_capture import captured_log
from support.proxy_harness import RunningProxy, running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream, responding


class Tls:
    """A proxy that listens with TLS, and its callers."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._stack = stack
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        (folder / "key.pem").chmod(0o600)
        self._settings = {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)

    async def start(self, **settings: Any) -> RunningProxy:
        upstream = await self._stack.enter_async_context(ScriptedUpstream(responding(OK)))
        return await self._stack.enter_async_context(running_proxy(upstream.origin, **self._settings, **settings))

    async def silent(self, proxy: RunningProxy) -> RawCaller:
        """Opens a connection that sends no byte of its handshake."""
        return await self._stack.enter_async_context(await RawCaller.connect(proxy.address))

    async def caller(self, proxy: RunningProxy) -> RawCaller:
        caller = await RawCaller.connect(proxy.address, self.context)
        return await self._stack.enter_async_context(caller)


@pytest_asyncio.fixture
async def tls(tmp_path: Path) -> AsyncIterator[Tls]:
    async with AsyncExitStack() as stack:
        yield Tls(tmp_path, stack)


def handshakes(proxy: RunningProxy) -> int:
    return len(proxy.proxy._server._handshakes)


async def test_a_silent_handshake_counts_as_a_connection_and_makes_room(tls: Tls) -> None:
    proxy = await tls.start(max_connections=16)
    silent = [await tls.silent(proxy) for _ in range(40)]
    caller = await tls.caller(proxy)
    assert (await caller.get(b"/x")).status == 200
    assert handshakes(proxy) <= 16
    assert await silent[0].read_to_end() == b""


@pytest.mark.parametrize(("most_connections", "most_handshakes"), [(16, 1000), (1000, 16)])
async def test_handshakes_that_arrive_together_are_bounded_and_all_of_them_are_given_back(
    tls: Tls, monkeypatch: pytest.MonkeyPatch, most_connections: int, most_handshakes: int
) -> None:
    monkeypatch.setattr(server, "MOST_HANDSHAKES", most_handshakes)
    proxy = await tls.start(max_connections=most_connections)
    host, _, port = proxy.address.rpartition(":")
    together = [socket.create_connection((host, int(port))) for _ in range(60)]  # the event loop does not run
    caller = await tls.caller(proxy)
    assert handshakes(proxy) <= 16
    assert (await caller.get(b"/x")).status == 200
    for silent in together:
        silent.close()
    await until(lambda: handshakes(proxy) == 0)
    assert proxy.proxy._server._limits._open == 1


async def test_the_number_of_handshakes_is_bounded(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_HANDSHAKES", 4)
    proxy = await tls.start()
    first = await tls.caller(proxy)
    silent = [await tls.silent(proxy) for _ in range(10)]
    await until(lambda: handshakes(proxy) == 4)
    assert await silent[0].read_to_end() == b""
    assert (await (await tls.caller(proxy)).get(b"/x")).status == 200
    assert (await first.get(b"/x")).status == 200, "a connection is displaced by no handshake"


async def test_a_handshake_has_a_time_limit(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_handshake, "HANDSHAKE_TIMEOUT_S", 0.1)
    proxy = await tls.start()
    silent = await tls.silent(proxy)
    assert await silent.read_to_end() == b""
    await until(lambda: handshakes(proxy) == 0)
    assert proxy.proxy._server._limits._open == 0


async def test_a_peer_that_may_not_call_gets_no_handshake(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    with captured_log() as log:
        proxy = await tls.start()
        monkeypatch.setattr(proxy.proxy._server._guard, "_accepted_peers", set())
        monkeypatch.setattr("nanonets_proxy.core.access.peer_guard.peer_address", lambda _: None)
        with pytest.raises((ConnectionError, EOFError)):
            await RawCaller.connect(proxy.address, tls.context)
        assert handshakes(proxy) == 0
        await proxy.stop(1.0)
        (event,) = log.events("peer_rejected")
    assert (event["level"], event["peer"]) == ("warning", "127.0.0.1")


async def test_bytes_that_are_no_handshake_end_the_connection_without_a_trace(tls: Tls) -> None:
    with captured_log() as log:
        proxy = await tls.start()
        for data in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 200, b"\0" * 5000):
            caller = await tls.silent(proxy)
            await caller.send(data)
            assert b"HTTP" not in await caller.read_to_end()
        await until(lambda: handshakes(proxy) == 0)
        await proxy.stop(1.0)
        assert log.events("library") == []


async def test_a_server_name_that_is_not_ascii_leaves_no_trace(tls: Tls, capfd: pytest.CaptureFixture[str]) -> None:
    with captured_log() as log:
        proxy = await tls.start()
        hello = ssl.MemoryBIO()
        client = tls.context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="aaaaaaaa.example")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        caller = await tls.silent(proxy)
        await caller.send(hello.read().replace(b"aaaaaaaa.example", b"\xff\n\x1b[31m.example\xe9"))
        await until(lambda: handshakes(proxy) == 1)
        caller.writer.close()
        await until(lambda: handshakes(proxy) == 0)
        await proxy.stop(1.0)
        assert log.events("library") == []
    assert "Traceback" not in capfd.readouterr().err


async def test_a_caller_cannot_renegotiate(tls: Tls) -> None:
    proxy = await tls.start()
    listener_tls = proxy.proxy._access.tls
    assert listener_tls is not None
    assert listener_tls.context.options & ssl.OP_NO_RENEGOTIATION


async def test_a_request_in_one_segment_with_the_end_of_the_handshake_is_read(tls: Tls) -> None:
    """A client of TLS 1.3 may send its request together with its Finished."""
    proxy = await tls.start()
    host, _, port = proxy.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls.context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await reader.read(65536))
    client.write(request(b"GET", b"/x") * 2)
    writer.write(outgoing.read())  # Finished and the requests
    received = b""
    while received.count(b"HTTP/1.1 200 OK") < 2:
        incoming.write(await reader.read(65536))
        while True:
            try:
                received += client.read(65536)
            except ssl.SSLWantReadError:
                break
    writer.transport.abort()


async def test_a_drain_lets_handshakes_end_and_waits_for_no_silent_one(tls: Tls) -> None:
    proxy = await tls.start()
    silent = await tls.silent(proxy)
    await until(lambda: handshakes(proxy) == 1)
    host, _, port = proxy.address.rpartition(":")
    queued = socket.create_connection((host, int(port)))  # the event loop does not run
    stopping = proxy.stop(10 * WAIT_S)
    queued.setblocking(False)  # noqa: FBT003 - the name says what it is
    streams = await asyncio.open_connection(sock=queued, ssl=tls.context, server_hostname="localhost")
    async with RawCaller(*streams) as caller:
        assert (await caller.get(b"/x")).status == 200
    assert await silent.read_to_end() == b""
    async with asyncio.timeout(WAIT_S):
        await stopping
