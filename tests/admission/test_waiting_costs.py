"""The memory that waiting requests and idle connections cost the real process, and hang-ups while waiting."""

import asyncio
import re
import resource
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from support.commands.process import Running, proxy_to, sandbox
from support.scripted_upstream import OK, ScriptedUpstream

KIB = 1024
UPLOAD_BYTES = 2 * 1024 * KIB
MODEL = "/api/v2/OCR/Model/m/LabelFile/"
_TIMEOUT_S = 60.0


def memory_bytes(proxy: Running) -> int:
    status = Path(f"/proc/{proxy.process.pid}/status").read_text(encoding="ascii")
    return int(re.findall(r"VmRSS:\s+([0-9]+) kB", status)[0]) * KIB


def gauge(proxy: Running, name: str) -> float:
    with urllib.request.urlopen(f"{proxy.admin_url}/metrics") as response:
        return float(re.findall(rf"^{name} (.+)$", response.read().decode(), re.MULTILINE)[0])


def until(proxy: Running, name: str, value: float) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while gauge(proxy, name) != value:
        assert time.monotonic() < deadline_s, f"{name} never became {value}: it is {gauge(proxy, name)}"


class Tls:
    """A certificate for the proxy in files, and the TLS context of its callers."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        cert, key = folder / "cert.pem", folder / "key.pem"
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        self.arguments = ("--tls-cert", str(cert), "--tls-key", str(key))
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)


@contextmanager
def closed_proxy(tls: Tls | None = None) -> Iterator[Running]:
    """Runs a sandbox, and a proxy whose scope for predictions a 429 has just closed."""
    with (
        sandbox("--limit", "1/200s", "--limit-kind", "sliding") as upstream,
        proxy_to(upstream, *(tls.arguments if tls else ())) as proxy,
        ExitStack() as callers,
    ):
        for _ in range(2):  # the second request is refused, and waits
            callers.enter_context(caller(proxy, 4, tls=tls))
        until(proxy, "nanonets_proxy_closed_scopes", 1)
        yield proxy


def caller(proxy: Running, length: int, *, sent: int | None = None, tls: Tls | None = None) -> socket.socket:
    """Connects a caller. It sends its head, and as much of its body (or of `sent` bytes) as the kernel takes."""
    host, port = proxy.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    if tls:
        sock = tls.context.wrap_socket(sock, server_hostname="localhost")
    head = f"POST {MODEL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    sock.settimeout(0)
    sock.send(head.encode())
    push(sock, length if sent is None else sent)
    return sock


def push(sock: socket.socket, count: int) -> None:
    """Sends as many of `count` bytes as the kernel takes at once."""
    left = memoryview(bytes(count))
    with suppress(BlockingIOError, ssl.SSLWantWriteError):
        while left:
            left = left[sock.send(left) :]


def served_caller(proxy: Running) -> socket.socket:
    """Connects a caller that gets a response and keeps its connection."""
    host, port = proxy.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)), timeout=_TIMEOUT_S)
    sock.sendall(b"GET /api/v4/workflows HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    return sock


@pytest.fixture(autouse=True)
def _enough_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("callers", "length"), [(300, UPLOAD_BYTES), (600, 0)])
def test_a_waiting_request_costs_little_memory_with_any_body(callers: int, length: int) -> None:
    with closed_proxy() as proxy, ExitStack() as stack:
        for _ in range(100):  # first fill pools and caches
            stack.enter_context(caller(proxy, length))
        until(proxy, "nanonets_proxy_waiting", 101)
        before = memory_bytes(proxy)
        for _ in range(callers):
            stack.enter_context(caller(proxy, length))
        until(proxy, "nanonets_proxy_waiting", callers + 101)
        each = (memory_bytes(proxy) - before) / callers
        # Measured: 10 to 13 KiB, mostly for the connection itself. aiohttp's buffers alone took 64 KiB and more.
        assert each <= 16 * KIB, f"{each / KIB:.1f} KiB"


def test_an_idle_connection_costs_little_memory() -> None:
    count = 600
    with sandbox("--limit", "none") as upstream, proxy_to(upstream) as proxy, ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(served_caller(proxy))
        before = memory_bytes(proxy)
        for _ in range(count):
            stack.enter_context(served_caller(proxy))
        each = (memory_bytes(proxy) - before) / count
        # Measured: about 7 KiB.
        assert each <= 12 * KIB, f"{each / KIB:.1f} KiB"


def test_the_body_of_a_waiting_request_stays_with_its_caller_over_tls_too(tmp_path: Path) -> None:
    tls, count = Tls(tmp_path), 100
    with closed_proxy(tls) as proxy, ExitStack() as stack:
        callers = [stack.enter_context(caller(proxy, UPLOAD_BYTES, sent=1, tls=tls)) for _ in range(count)]
        until(proxy, "nanonets_proxy_waiting", count + 1)
        before = memory_bytes(proxy)
        for sock in callers:
            push(sock, UPLOAD_BYTES)
        until(proxy, "nanonets_proxy_waiting", count + 1)
        each = (memory_bytes(proxy) - before) / count
        # Measured: almost nothing. A TLS transport that is merely paused takes 450 KiB.
        assert each <= 4 * KIB, f"{each / KIB:.1f} KiB"


@pytest.mark.parametrize("by_tls", [False, True])
async def test_a_hang_up_behind_an_unread_body_frees_the_place_and_its_request_is_never_sent(
    by_tls: bool, tmp_path: Path
) -> None:
    tls = Tls(tmp_path) if by_tls else None
    async with ScriptedUpstream() as upstream:
        # The only connection to the upstream is busy until this test responds, so all others wait for that long.
        arguments = ("--pool-size", "1", *(tls.arguments if tls else ()))
        with proxy_to(str(upstream.origin), *arguments) as proxy, ExitStack() as stack:
            stack.enter_context(caller(proxy, 4, tls=tls))
            first = await upstream.next_request()
            # The proxy's kernel buffers this many bytes. With more, the caller's kernel would keep the FIN back.
            gone = [stack.enter_context(caller(proxy, UPLOAD_BYTES, sent=16 * KIB, tls=tls)) for _ in range(20)]
            stays = stack.enter_context(caller(proxy, 4, tls=tls))
            until(proxy, "nanonets_proxy_waiting", 21)
            for sock in gone:
                sock.close()
            until(proxy, "nanonets_proxy_waiting", 1)
            await first.respond(OK)
            await (await upstream.next_request()).respond(OK)
            stays.settimeout(_TIMEOUT_S)
            assert (await asyncio.to_thread(stays.recv, 64)).startswith(b"HTTP/1.1 200 ")
            assert [exchange.body for exchange in upstream.requests] == [bytes(4)] * 2
