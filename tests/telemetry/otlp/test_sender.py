"""Why a collector did not take a batch, as the alerts say it."""

import asyncio
import socket
from pathlib import Path

import pytest

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.telemetry.otlp.sender import TEMPORARY, CollectorSender
from support.certificates import CertificateAuthority


async def fault_of_a_collector(response: bytes, authority: CertificateAuthority | None = None) -> str | None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        writer.close()

    tls = None if authority is None else authority.server()
    async with await asyncio.start_server(respond, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        collector = Origin("http" if tls is None else "https", "127.0.0.1", port)
        return await CollectorSender(collector, b"/v1/traces").send(b"")


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 403 No\r\n\r\n", "the collector responded with status 403"),
        (b"HTTP/1.1 429 Later\r\n\r\n", "the collector is busy"),
        (b"\x00\xff" * 100_000, "the collector sent no HTTP response"),
        (b"HTTP/1.1 fine\r\n\r\n", "the collector sent no HTTP response"),
        (b"", "the collector sent no HTTP response"),
    ],
)
async def test_a_fault_says_what_the_collector_did(response: bytes, fault: str | None) -> None:
    assert await fault_of_a_collector(response) == fault


async def test_a_certificate_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    fault = await fault_of_a_collector(b"", CertificateAuthority(tmp_path))
    assert fault == "the collector's certificate is not trusted"
    assert fault in TEMPORARY  # a certificate that is renewed a little late loses no batch


async def test_a_collector_that_is_gone_is_named() -> None:
    with socket.socket() as taken:  # bound but not listening, so that no other process takes the port
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        fault = await CollectorSender(Origin("http", "127.0.0.1", port), b"/v1/traces").send(b"")
    assert fault == "no connection to the collector"
