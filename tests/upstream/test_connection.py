"""One connection, one exchange at a time, with a scripted upstream."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from typing import Protocol

import pytest

from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.dial import Dialer
from nanonets_proxy.upstream.errors import (
    UpstreamBadReply,
    UpstreamClosed,
    UpstreamError,
    UpstreamReplyTooLarge,
    UpstreamTimeout,
    UpstreamUpgraded,
)
from nanonets_proxy.upstream.exchange import UpstreamConnectionState, UpstreamRequest
from nanonets_proxy.upstream.policy import DialPolicy
from nanonets_proxy.upstream.response_parser import ResponseParser
from support.eventually import WAIT_S, stable, until
from support.raw_upstream import Peer, RawUpstream, Script, ok, responding, responding_then_closing

MIB = 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Connect(Protocol):
    def __call__(self, script: Script, *, idle_timeout_s: float = ...) -> Awaitable[UpstreamConnection]: ...


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """`await connect(script)` returns a connection to an upstream that runs `script`."""
    async with AsyncExitStack() as stack:

        async def dial(script: Script, *, idle_timeout_s: float = WAIT_S) -> UpstreamConnection:
            upstream = await stack.enter_async_context(RawUpstream(script))
            policy = DialPolicy(upstream.origin, connect_timeout_s=WAIT_S, idle_timeout_s=idle_timeout_s)
            connection = await Dialer(policy).dial()
            stack.callback(connection.close)
            return connection

        yield dial


def send_get(connection: UpstreamConnection, *, is_head: bool = False) -> None:
    connection.start(UpstreamRequest("HEAD" if is_head else "GET", b"", None))
    connection.write(b"GET / HTTP/1.1\r\nHost: upstream\r\n\r\n")
    connection.finish_request(WAIT_S)


async def rest_of(connection: UpstreamConnection) -> bytes:
    body = b""
    while piece := await connection.read():
        body += piece
    return body


async def silent(peer: Peer) -> None:
    await peer.read_to_end()


# --- bodies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "body", "reusable"),
    [
        (ok(b"hello"), b"hello", True),
        (ok(b""), b"", True),
        (CHUNKED + b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + ok(b"hello"), b"hello", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
        (ok(b"", status=b"205 Reset Content"), b"", True),
        (ok(b"hello", b"Connection: close"), b"hello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (ok(b"hello") + b"surplus", b"hello", False),
    ],
)
async def test_a_response_is_read_to_its_end(
    connect: Connect, response: bytes, body: bytes, reusable: bool
) -> None:
    connection = await connect(responding(response))
    send_get(connection)
    await connection.head()
    assert await rest_of(connection) == body
    assert connection.is_complete
    assert connection.release() is reusable
    assert connection.state is (UpstreamConnectionState.IDLE if reusable else UpstreamConnectionState.CLOSED)


async def test_without_framing_the_end_of_the_connection_ends_the_body(connect: Connect) -> None:
    connection = await connect(responding_then_closing(b"HTTP/1.1 200 OK\r\n\r\nhello"))
    send_get(connection)
    assert (await connection.head()).body_length is None
    assert await rest_of(connection) == b"hello"
    assert not connection.release()


async def test_a_head_request_leaves_the_connection_ready_for_the_next(connect: Connect) -> None:
    no_body = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    connection = await connect(responding(no_body, ok(b"next")))
    send_get(connection, is_head=True)
    assert (b"Content-Length", b"5") in (await connection.head()).headers
    assert await connection.read() == b""
    assert connection.release()
    send_get(connection)
    await connection.head()
    assert await rest_of(connection) == b"next"


async def test_trailers_are_available_at_the_end(connect: Connect) -> None:
    connection = await connect(responding(CHUNKED + b"1\r\nx\r\n0\r\nDigest: abc\r\n\r\n"))
    send_get(connection)
    assert (await connection.head()).is_chunked
    await rest_of(connection)
    assert connection.trailers == [(b"Digest", b"abc")]


@pytest.mark.parametrize("length", [6, 256 * 1024 + 1])  # the last byte of the longer body pauses reading
async def test_release_discards_an_unread_body(connect: Connect, length: int) -> None:
    connection = await connect(responding(ok(bytes(length)), ok(b"next")))
    send_get(connection)
    await connection.head()
    await until(lambda: connection.is_complete)
    assert connection.release()
    send_get(connection)
    await connection.head()
    assert await rest_of(connection) == b"next"


# --- incomplete and invalid responses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"", UpstreamClosed),
        (b"HTTP/1.1 200 OK\r\nContent-", UpstreamClosed),
        (b"HTTP/1.1 100 Continue\r\n\r\n", UpstreamClosed),
        (b"220 smtp.example ESMTP\r\n", UpstreamBadReply),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", UpstreamBadReply),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", UpstreamBadReply),
        (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", UpstreamBadReply),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", UpstreamUpgraded),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, UpstreamReplyTooLarge),
    ],
)
async def test_an_incomplete_or_invalid_head_is_a_named_error(
    connect: Connect, response: bytes, error: type[UpstreamError]
) -> None:
    connection = await connect(responding_then_closing(response))
    send_get(connection)
    for _ in range(2):
        with pytest.raises(error) as caught:
            await connection.head()
        assert caught.value.sent
    assert connection.state is UpstreamConnectionState.CLOSED
    assert not connection.release()


@pytest.mark.parametrize(
    "response",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", CHUNKED + b"5\r\nhello\r\n", CHUNKED + b"9\r\nhello"],
)
@pytest.mark.parametrize("by_reset", [True, False])
async def test_a_body_that_is_cut_short_is_readable_up_to_its_end(
    connect: Connect, response: bytes, by_reset: bool
) -> None:
    may_end = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response)
        await may_end.wait()
        if by_reset:
            peer.reset()

    connection = await connect(script)
    send_get(connection)
    await connection.head()
    assert await connection.read() == b"hello"
    may_end.set()
    for _ in range(2):
        with pytest.raises(UpstreamClosed):
            await connection.read()


async def test_a_broken_chunk_is_an_error_after_the_valid_ones(connect: Connect) -> None:
    connection = await connect(responding(CHUNKED + b"2\r\nok\r\nzz\r\n"))
    send_get(connection)
    await connection.head()
    assert await connection.read() == b"ok"
    with pytest.raises(UpstreamBadReply):
        await connection.read()


async def test_the_first_error_is_raised(connect: Connect) -> None:
    connection = await connect(silent)
    send_get(connection)
    waiting = asyncio.create_task(connection.head())
    await asyncio.sleep(0)
    connection.fail(ValueError("first"))
    connection.fail(ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        await waiting


@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"])
async def test_closing_a_connection_ends_every_wait(connect: Connect, response: bytes) -> None:
    connection = await connect(responding(response))
    send_get(connection)
    if response:
        await connection.head()
    waiting = asyncio.create_task(connection.read())
    await asyncio.sleep(0)
    connection.close()
    with pytest.raises(UpstreamClosed):
        await waiting
    connection.write(b"goes nowhere")
    await connection.drain()
    send_get(connection)
    with pytest.raises(UpstreamClosed):
        await connection.head()


# --- backpressure -----------------------------------------------------------------------------------


async def test_an_upstream_that_stops_reading_is_a_timeout(connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.Event().wait()

    connection = await connect(script, idle_timeout_s=0.1)
    connection.start(UpstreamRequest("GET", b"", None))
    connection.write(b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + bytes(16 * MIB))
    await connection.drain()  # the timeout ends this wait
    with pytest.raises(UpstreamTimeout, match="stopped reading"):
        await connection.head()


async def test_backpressure_reaches_the_upstream(connect: Connect) -> None:
    total, sent = 50 * MIB, 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await peer.send(bytes(64 * 1024))
            sent += 64 * 1024
        await peer.read_to_end()

    connection = await connect(script)
    send_get(connection)
    await connection.head()
    assert await stable(lambda: sent) < 16 * MIB  # most of it in the kernel's socket buffers
    held = connection.read_nowait()
    assert len(held) < MIB
    received = len(held)
    while piece := await connection.read():
        assert len(piece) < MIB
        received += len(piece)
    assert received == total
    assert connection.release()


# --- between two exchanges --------------------------------------------------------------------------


@pytest.mark.parametrize("unexpected", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"", None])
async def test_unexpected_bytes_an_end_or_a_reset_close_an_idle_connection(
    connect: Connect, unexpected: bytes | None
) -> None:
    idle = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok())
        await idle.wait()
        if unexpected is None:
            peer.reset()
        elif unexpected:
            await peer.send(unexpected)
            await peer.read_to_end()

    connection = await connect(script)
    send_get(connection)
    await connection.head()
    assert connection.release()
    idle.set()
    await until(lambda: connection.state is UpstreamConnectionState.CLOSED)
    assert connection.is_readable()


async def test_exchanges_leave_no_parser_for_the_garbage_collector(connect: Connect) -> None:
    def parsers() -> int:
        return sum(type(kept) is ResponseParser for kept in gc.get_objects())

    gc.collect()
    before = parsers()
    gc.disable()
    try:
        connection = await connect(responding(*[ok()] * 5))
        for _ in range(5):
            send_get(connection)
            await connection.head()
            assert await rest_of(connection) == b"ok"
            assert connection.release()
        assert parsers() - before == 1  # the parser of the connection
    finally:
        gc.enable()


async def test_a_connection_with_an_unfinished_response_is_not_reused(connect: Connect) -> None:
    connection = await connect(responding(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"))
    send_get(connection)
    await connection.head()
    assert not connection.release()


async def test_a_connection_with_an_unfinished_request_is_not_reused(connect: Connect) -> None:
    connection = await connect(responding(ok(), ok()))
    send_get(connection)
    await connection.head()
    await until(lambda: connection.is_complete)
    assert connection.release()
    connection.start(UpstreamRequest("GET", b"", None))
    connection.write(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe")
    await connection.head()
    await until(lambda: connection.is_complete)
    assert not connection.release()


async def test_is_readable_asks_the_socket_itself(connect: Connect) -> None:
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        await peer.read_to_end()

    connection = await connect(script)
    await until(lambda: bool(peers))
    assert not connection.is_readable()
    assert not connection.is_readable()
    peers[0].send_fin()
    assert connection.state is UpstreamConnectionState.IDLE  # the loop has not run since
    assert connection.is_readable()


async def test_a_connections_repr_shows_only_its_states(connect: Connect) -> None:
    connection = await connect(silent)
    assert repr(connection) == "<UpstreamConnection IDLE HEAD>"
    assert connection.tls_version is None
    connection.close()
    assert repr(connection) == "<UpstreamConnection CLOSED HEAD>"
    assert connection.tls_version is None
