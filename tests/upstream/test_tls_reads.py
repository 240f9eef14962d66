"""Reads over TLS, into the buffer that all connections of a dialer share."""

import asyncio
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.dial import Dialer
from nanonets_proxy.upstream.errors import UpstreamClosed
from nanonets_proxy.upstream.exchange import UpstreamRequest
from nanonets_proxy.upstream.policy import DialPolicy
from nanonets_proxy.upstream.response_head import ResponseHead
from support.certificates import CertificateAuthority
from support.eventually import WAIT_S, stable
from support.raw_upstream import Peer, RawUpstream, Script, ok, responding

MIB = 1024 * 1024
Dialling = Callable[..., Awaitable[Dialer]]


@pytest.fixture
async def dialling(authority: CertificateAuthority) -> AsyncIterator[Dialling]:
    """`await dialling(*scripts)` returns a dialer to an upstream that runs the scripts over TLS, or `plain`."""
    async with AsyncExitStack() as stack:

        async def start(*scripts: Script, version: ssl.TLSVersion | None = None, plain: bool = False) -> Dialer:
            tls = None if plain else authority.server()
            if tls is not None and version is not None:
                tls.maximum_version = version
            upstream = await stack.enter_async_context(RawUpstream(*scripts, tls=tls))
            origin = Origin("http" if plain else "https", "127.0.0.1", upstream.port)
            ca_file = None if plain else authority.file
            return Dialer(DialPolicy(origin, connect_timeout_s=WAIT_S, idle_timeout_s=WAIT_S, ca_file=ca_file))

        yield start


def send_get(connection: UpstreamConnection) -> asyncio.Future[ResponseHead]:
    request = b"GET / HTTP/1.1\r\nHost: upstream\r\n\r\n"
    return connection.send(UpstreamRequest("GET", request, None), WAIT_S)


async def ask(dialer: Dialer) -> UpstreamConnection:
    connection = await dialer.dial()
    await send_get(connection)
    return connection


async def rest_of(connection: UpstreamConnection) -> bytes:
    body = b""
    while piece := await connection.read():
        body += piece
    return body


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_large_response_arrives_whole(dialling: Dialling, version: ssl.TLSVersion) -> None:
    body = b"".join(at.to_bytes(4) for at in range(MIB))
    connection = await ask(await dialling(responding(ok(body), ok(b"the next")), version=version))
    assert connection.tls_version == version.name.replace("_", ".")
    assert await rest_of(connection) == body
    assert connection.release()
    await send_get(connection)
    assert await rest_of(connection) == b"the next"
    connection.close()


@pytest.mark.parametrize("plain", [False, True])
async def test_simultaneous_responses_stay_separate(dialling: Dialling, plain: bool) -> None:
    count, pieces = 8, 50
    together = asyncio.Barrier(count)

    def responding_with(mark: bytes) -> Script:
        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 200 OK\r\nX-Mark: %b\r\nContent-Length: %d\r\n\r\n" % (mark, pieces * 1000))
            for _ in range(pieces):
                await together.wait()
                await peer.send(mark * 1000)
            await peer.read_to_end()

        return script

    dialer = await dialling(*(responding_with(b"%d" % number) for number in range(count)), plain=plain)
    connections = [await dialer.dial() for _ in range(count)]
    heads = [send_get(connection) for connection in connections]
    bodies = await asyncio.gather(*map(rest_of, connections))
    for head, body, connection in zip(heads, bodies, connections, strict=True):
        mark = head.result().values[0]
        assert body == mark * 1000 * pieces
        connection.close()
    assert len(set(bodies)) == count


async def test_backpressure_reaches_the_upstream_over_tls(dialling: Dialling) -> None:
    total, sent = 32 * MIB, 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await peer.send(bytes(64 * 1024))
            sent += 64 * 1024
        await peer.read_to_end()

    connection = await ask(await dialling(script))
    assert await stable(lambda: sent) < 16 * MIB  # most of it in the kernel's socket buffers
    received = 0
    while piece := await connection.read():
        assert len(piece) < MIB
        received += len(piece)
    assert received == total
    assert connection.release()
    connection.close()


@pytest.mark.parametrize("rest", [b"", b"\x17\x03\x03\x00\x20" + bytes(32), b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_a_response_over_broken_tls_is_incomplete(dialling: Dialling, rest: bytes) -> None:
    """An end without a closing alert, an unencrypted record, no record at all."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await goes_on.wait()
        peer.send_without_tls(rest)
        peer.send_fin()
        await peer.read_to_end()

    goes_on = asyncio.Event()
    connection = await ask(await dialling(script))
    assert await connection.read() == b"hello"
    goes_on.set()
    with pytest.raises(UpstreamClosed):
        await connection.read()
    assert not connection.release()


@pytest.mark.asyncio(loop_factories=["uvloop"])  # asyncio's own loop does not tell the two ends apart
@pytest.mark.parametrize("closing_alert", [True, False])
async def test_only_a_tls_closing_alert_ends_a_response_without_framing(
    dialling: Dialling, closing_alert: bool
) -> None:
    """RFC 9112 §9.8: an attacker who cuts the connection could cut the response short."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await goes_on.wait()
        if not closing_alert:
            peer.send_fin()
            await peer.read_to_end()

    goes_on = asyncio.Event()
    connection = await ask(await dialling(script))
    assert await connection.read() == b"hello"
    goes_on.set()
    if closing_alert:
        assert await connection.read() == b""
    else:
        with pytest.raises(UpstreamClosed):
            await connection.read()
    assert not connection.release()


async def test_a_read_over_tls_allocates_no_more_than_the_received_bytes(dialling: Dialling) -> None:
    before, peak = 0, 0

    async def script(peer: Peer) -> None:
        nonlocal before
        await peer.head()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        await peer.send(ok(b"x" * 1000))
        await peer.read_to_end()

    dialer = await dialling(script)
    tracemalloc.start()
    try:
        connection = await ask(dialer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert before < peak < before + 64 * 1024
    connection.close()
