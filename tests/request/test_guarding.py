"""The peer guard: which Host, Origin and target a caller may use."""

import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.server.peers import UNKNOWN, peer_of
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller
from support.scripted_upstream import OK, ScriptedUpstream, responding


async def _status_and_code(caller: RawCaller, target: bytes, *lines: bytes) -> tuple[int, str]:
    await caller.send(b"\r\n".join([b"GET " + target + b" HTTP/1.1", *lines, b"", b""]))
    response = await caller.response()
    return response.status, response.json()["code"] if response.status != 200 else ""


@pytest.mark.parametrize(
    "host",
    [b"localhost:8080", b"127.0.0.1", b"[::1]:8080", b"proxy.localhost", b"HOST.docker.internal"],
)
async def test_a_local_host_passes(host: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert await _status_and_code(caller, b"/x", b"Host: " + host) == (200, "")


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"localhost.evil.example:8080",
        b"127.0.0.1.evil.example",
        b"proxy",
        b"evil.local",
        b"0.0.0.0",
    ],
)
async def test_a_foreign_host_is_rejected(host: bytes) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert await _status_and_code(caller, b"/x", b"Host: " + host) == (403, "forbidden_host")
        assert await caller.read_to_end() == b""
        assert upstream.connections == 0


async def test_the_connections_own_address_decides_which_hosts_pass(tmp_path: Path) -> None:
    """A listener on every interface is also on loopback, which a browser reaches. It reaches no unix socket."""
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, listen=f"0.0.0.0:0,unix:{tmp_path}/s", allow_from="10.0.0.0/8") as proxy,
        await RawCaller.connect(proxy.proxy.listening.addresses[0].replace("0.0.0.0", "127.0.0.1")) as caller,
        await RawCaller.connect(proxy.proxy.listening.addresses[1]) as unix_caller,
    ):
        for host in (b"Host: nanonets-proxy.default", b"Host: proxy"):
            assert await _status_and_code(unix_caller, b"/x", host) == (200, "")
        assert await _status_and_code(caller, b"/x", b"Host: nanonets-proxy.default") == (403, "forbidden_host")


async def test_a_host_of_the_settings_passes() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, allowed_hosts="api.example.com,*.team.example") as proxy,
        await proxy.caller() as caller,
    ):
        assert await _status_and_code(caller, b"/x", b"Host: API.example.com:80") == (200, "")
        assert await _status_and_code(caller, b"/x", b"Host: a.team.example") == (200, "")
        assert await _status_and_code(caller, b"/x", b"Host: team.example") == (403, "forbidden_host")


@pytest.mark.parametrize(
    "target",
    [
        b"http://evil.example/x",
        b"https://app.nanonets.com.evil.example/x",
        b"http://127.0.0.1.evil.example",
    ],
)
async def test_an_absolute_target_of_another_server_is_rejected(target: bytes) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert await _status_and_code(caller, target, b"Host: localhost") == (403, "forbidden_host")
        assert upstream.connections == 0


async def test_a_client_that_uses_the_proxy_as_a_forward_proxy_is_served() -> None:
    """Such a client names the upstream in target and Host. The scripted upstream plays the end of a tunnel."""
    async with (
        ScriptedUpstream() as egress,
        running_proxy(Origin("http", "upstream.example", 80), egress_proxy=str(egress.origin)) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(b"GET http://Upstream.example/a?b HTTP/1.1\r\nHost: Upstream.example\r\n\r\n")
        tunnel = await egress.next_request()
        assert tunnel.lines[0] == b"CONNECT upstream.example:80 HTTP/1.1"
        await tunnel.respond(b"HTTP/1.1 200 OK\r\n\r\n")
        exchange = await egress.next_request()
        assert exchange.lines[:2] == [b"GET /a?b HTTP/1.1", b"Host: upstream.example"]
        await exchange.respond(
            b"HTTP/1.1 302 Found\r\nLocation: http://upstream.example/c\r\nContent-Length: 0\r\n\r\n"
        )
        assert (await caller.response()).value(b"Location") == b"http://Upstream.example/c"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"Origin: http://localhost:8080"], (200, "")),
        ([b"Origin: http://localhost:8080", b"Sec-Fetch-Site: same-origin"], (200, "")),
        ([b"Sec-Fetch-Site: none"], (200, "")),
        ([b"Origin: http://localhost:9090"], (403, "forbidden_origin")),
        ([b"Origin: https://evil.example"], (403, "forbidden_origin")),
        ([b"Origin: null"], (403, "forbidden_origin")),
        ([b"Sec-Fetch-Site: cross-site"], (403, "forbidden_origin")),
        ([b"Sec-Fetch-Site: same-site"], (403, "forbidden_origin")),
    ],
    ids=str,
)
async def test_only_pages_of_the_same_origin_may_send_requests(
    lines: list[bytes], expected: tuple[int, str]
) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert await _status_and_code(caller, b"/x", b"Host: localhost:8080", *lines) == expected
        assert len(upstream.requests) == (1 if expected[0] == 200 else 0)


async def test_a_disconnected_tcp_peer_is_not_mistaken_for_a_peer_on_a_unix_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname())
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted, _ = server.accept()
        caller.close()
        with accepted, pytest.raises(OSError, match="not connected"):
            accepted.getpeername()

        class Transport:
            """The transport of a socket that has no peer name."""

            def get_extra_info(self, name: str) -> Any:
                return accepted if name == "socket" else None

        with accepted:
            assert peer_of(Transport()) == UNKNOWN  # `peer_of` calls nothing else
