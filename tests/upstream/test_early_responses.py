"""Responses that come during an upload, from an upstream that closes at once (RFC 9112 §9.6)."""

import asyncio
import socket
import ssl
import struct
import time
from pathlib import Path

import pytest

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.upstream.body import RequestBody
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.dial import Dialer
from nanonets_proxy.upstream.errors import UpstreamClosed
from nanonets_proxy.upstream.exchange import UpstreamRequest
from nanonets_proxy.upstream.policy import DialPolicy
from support.certificates import CertificateAuthority
from support.client_harness import body_budget, request, running_client
from support.early_responder import early_responder
from support.eventually import WAIT_S
from support.proxy_harness import running_proxy
from support.raw_caller import request as raw_request

MIB = 1024 * 1024
CLOSE = b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"
TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\n" + CLOSE
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n" + CLOSE
OK = b"HTTP/1.1 200 OK\r\n" + CLOSE


class Zeros:
    """A body of `count` bytes that comes in pieces."""

    def __init__(self, count: int, piece_bytes: int) -> None:
        self._left = count
        self._piece_bytes = piece_bytes

    def read_nowait(self) -> bytes:
        count = min(self._left, self._piece_bytes)
        self._left -= count
        return bytes(count)

    async def readany(self) -> bytes:
        await asyncio.sleep(0)
        return self.read_nowait()


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, authority: CertificateAuthority) -> ssl.SSLContext | None:
    return None if request.param == "plain" else authority.server()


@pytest.mark.parametrize("reads_bytes", [0, 300_000])
@pytest.mark.parametrize("mib", [1, 8])
async def test_no_early_response_is_lost(
    tls: ssl.SSLContext | None, authority: CertificateAuthority, tmp_path: Path, mib: int, reads_bytes: int
) -> None:
    with early_responder(TOO_LARGE, tls=tls, reads_bytes=reads_bytes) as origin:
        async with running_client(origin, ca_file=authority.file) as running:
            for number in range(25):
                source = Zeros(mib * MIB, 256 * 1024 if number % 2 else 64 * 1024)
                with RequestBody(source, mib * MIB, body_budget(tmp_path)) as body:
                    response = await running.fetch(request("POST", body))
                assert (response.status, response.body) == (413, b"hello")


async def test_a_response_that_precedes_a_failed_write_is_read(
    tls: ssl.SSLContext | None, authority: CertificateAuthority
) -> None:
    with early_responder(TOO_LARGE, tls=tls) as origin:
        connection = await dialed(origin, authority)
        connection.is_upload = True
        connection.start(UpstreamRequest("GET", b"", None))
        connection.write(b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + bytes(64 * 1024))
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251 - the event loop must read nothing meanwhile
        for _ in range(64):
            connection.write(bytes(64 * 1024))
        assert (await connection.head()).status == 413
        assert await connection.read() == b"hello"
        assert not connection.release()


@pytest.mark.parametrize("is_upload", [True, False])
async def test_bytes_that_are_older_than_the_request_are_not_its_response(
    authority: CertificateAuthority, is_upload: bool
) -> None:
    """If the upstream responds and resets before a small request is written, that response is to no request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = await dialed(Origin("http", "127.0.0.1", listener.getsockname()[1]), authority)
        upstream, _ = listener.accept()
        upstream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # socket(7): close resets
        upstream.sendall(TOO_LARGE)
        upstream.close()
        connection.is_upload = is_upload
        head = connection.send(UpstreamRequest("GET", b"GET / HTTP/1.1\r\n\r\n", None), WAIT_S)
        if is_upload:
            assert (await head).status == 413
        else:
            with pytest.raises(UpstreamClosed):
                await head
        assert not connection.release()


@pytest.mark.parametrize("mib", [1, 8])
async def test_an_upload_waits_after_an_early_429(mib: int) -> None:
    with early_responder(REFUSED, OK) as origin:
        async with running_proxy(origin) as proxy, await proxy.caller() as caller:
            await caller.send(raw_request(b"POST", b"/x", body=bytes(mib * MIB)))
            response = await caller.response()
            assert (response.status, response.body) == (200, b"hello")


async def dialed(origin: Origin, authority: CertificateAuthority) -> UpstreamConnection:
    ca_file = authority.file if origin.tls else None
    return await Dialer(DialPolicy(origin, WAIT_S, WAIT_S, ca_file=ca_file)).dial()
