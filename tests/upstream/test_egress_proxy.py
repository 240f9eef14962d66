"""CONNECT through a scripted egress proxy."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nanonets_proxy.app.environment.faults import report_dial_failure
from nanonets_proxy.core.net.addresses import EgressProxy, Origin
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.upstream.dial import Dialer
from nanonets_proxy.upstream.errors import (
    EgressProxyRefused,
    UpstreamConnectTimeout,
    UpstreamDnsFailed,
    UpstreamError,
    UpstreamRefused,
    UpstreamTlsCertificate,
    UpstreamUnreachable,
)
from nanonets_proxy.upstream.exchange import UpstreamRequest
from nanonets_proxy.upstream.policy import DialPolicy
from support.certificates import CertificateAuthority
from support.eventually import WAIT_S, until
from support.raw_upstream import Peer, RawUpstream, Script

ACCEPTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
USERINFO = b"egress-user:egress-password"
BASIC = b"Basic ZWdyZXNzLXVzZXI6ZWdyZXNzLXBhc3N3b3Jk"


class Tunnel:
    """A proxy that responds to CONNECT with `response` and then relays everything to `port`."""

    def __init__(self, port: int, response: bytes = ACCEPTED) -> None:
        self._port = port
        self._response = response
        self.head = b""

    async def __call__(self, peer: Peer) -> None:
        self.head = await peer.head()
        for octet in self._response:  # one byte at a time: a reader must not expect whole lines
            await peer.send(bytes([octet]))
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def upstream_to_peer() -> None:
            while data := await reader.read(65536):
                await peer.send(data)

        back = asyncio.create_task(upstream_to_peer())
        try:
            while data := await peer.read_some():
                writer.write(data)
        finally:
            back.cancel()
            writer.close()


def dialer(
    proxy: RawUpstream,
    host: str = "127.0.0.1",
    port: int = 443,
    *,
    userinfo: bytes | None = USERINFO,
    ca_file: Path | None = None,
    connect_timeout_s: float = WAIT_S,
) -> Dialer:
    return Dialer(
        DialPolicy(
            Origin("https", host, port),
            connect_timeout_s=connect_timeout_s,
            idle_timeout_s=WAIT_S,
            ca_file=ca_file,
            egress_proxy=EgressProxy("127.0.0.1", proxy.port, userinfo),
        )
    )


async def failure_of(made: Dialer) -> UpstreamError:
    """Returns the error of a dial; neither it nor its causes contain the proxy's credentials."""
    with pytest.raises(UpstreamError) as caught:
        await made.dial()
    error: BaseException | None = caught.value
    while error is not None:
        assert not any(secret in f"{error!r} {error} {vars(error)}" for secret in ("egress-", BASIC.decode()[6:]))
        error = error.__cause__ or error.__context__
    assert not caught.value.sent
    return caught.value


@pytest.mark.parametrize("response", [ACCEPTED, b"HTTP/1.0 200 OK\r\nVia: proxy\r\n\r\n", b"HTTP/1.1 299 \r\n\r\n"])
async def test_the_tunnel_carries_tls_to_the_upstream(response: bytes, authority: CertificateAuthority) -> None:
    seen = b""

    async def upstream_script(peer: Peer) -> None:
        nonlocal seen
        seen = await peer.head()
        await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await peer.read_to_end()

    async with RawUpstream(upstream_script, tls=authority.server()) as upstream:
        tunnel = Tunnel(upstream.port, response)
        async with RawUpstream(tunnel) as proxy:
            connection = await dialer(proxy, port=upstream.port, ca_file=authority.file).dial()
            assert connection.tls_version == "TLSv1.3"
            connection.start(UpstreamRequest("GET", b"", None))
            connection.write(b"GET / HTTP/1.1\r\nHost: upstream\r\n\r\n")
            connection.finish_request(WAIT_S)
            assert (await connection.head()).status == 204
            connection.close()
            await until(lambda: proxy.ended == upstream.ended == 1)
        where = b"127.0.0.1:%d" % upstream.port
    assert tunnel.head == b"\r\n".join(
        [b"CONNECT %b HTTP/1.1" % where, b"Host: " + where, b"Proxy-Authorization: " + BASIC, b"", b""]
    )
    assert seen == b"GET / HTTP/1.1\r\nHost: upstream\r\n\r\n"  # without the proxy's credentials


async def test_the_upstreams_certificate_is_verified_inside_the_tunnel(authority: CertificateAuthority) -> None:
    async with (
        RawUpstream(never_responds, tls=authority.server("127.0.0.9")) as upstream,
        RawUpstream(Tunnel(upstream.port)) as proxy,
    ):
        error = await failure_of(dialer(proxy, port=upstream.port, ca_file=authority.file))
        await until(lambda: proxy.ended == 1)
    assert type(error) is UpstreamTlsCertificate


async def never_responds(peer: Peer) -> None:
    await peer.read_to_end()


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("api.example", b"CONNECT api.example:443 HTTP/1.1\r\n"),  # resolved by the egress proxy
        ("2001:db8::1", b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n"),
    ],
)
async def test_without_a_user_no_credentials_are_sent(host: str, line: bytes) -> None:
    heads: list[bytes] = []

    async def refuse(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.send(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    async with RawUpstream(refuse) as proxy:
        await failure_of(dialer(proxy, host, userinfo=None))
    assert heads == [line + b"Host: " + line[8:-11] + b"\r\n\r\n"]


@pytest.mark.parametrize("status", [407, 403, 502, 100, 301])
async def test_a_refused_tunnel_reports_the_proxys_status(status: int) -> None:
    async def refuse(peer: Peer) -> None:
        request = await peer.head()
        await peer.send(b"HTTP/1.1 %d Sorry\r\nX-Echo: %b\r\n\r\n" % (status, request.split(b"\r\n")[2]))

    async with RawUpstream(refuse) as proxy:
        error = await failure_of(dialer(proxy))
    assert type(error) is EgressProxyRefused
    assert error.details == {"received_status": status}
    assert error.message == f"The egress proxy refused the tunnel to the upstream with {status}."
    alerts = Alerts(CollectorRegistry())
    report_dial_failure(alerts, "https://upstream.example", error)
    (alert,) = alerts.to_json()
    assert ("check the user and the password" in alert["advice"]) == (status == 407)


def says(response: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response)

    return script


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 \n\r \r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
    ],
)
async def test_an_invalid_response_of_the_egress_proxy_is_an_error(response: bytes) -> None:
    async with RawUpstream(says(response)) as proxy:
        error = await failure_of(dialer(proxy))
    assert type(error) is EgressProxyRefused
    assert "invalid response" in error.message
    assert error.details == {}


async def test_an_endless_head_is_an_invalid_response() -> None:
    async def endless(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 20_000)
        await peer.read_to_end()

    async with RawUpstream(endless) as proxy:
        assert type(await failure_of(dialer(proxy))) is EgressProxyRefused


async def test_a_proxy_that_resets_is_a_failed_connection() -> None:
    async def resetting(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    async with RawUpstream(resetting) as proxy:
        assert type(await failure_of(dialer(proxy))) is UpstreamUnreachable


async def test_an_unresponsive_proxy_is_a_timeout() -> None:
    async with RawUpstream(never_responds) as proxy:
        assert type(await failure_of(dialer(proxy, connect_timeout_s=0.1))) is UpstreamConnectTimeout
        await until(lambda: proxy.ended == proxy.accepted)  # on a busy machine, it may end before it is accepted


async def test_a_proxy_at_a_closed_port_is_a_refused_connection() -> None:
    async with RawUpstream(never_responds) as proxy:
        pass
    assert type(await failure_of(dialer(proxy))) is UpstreamRefused


async def test_a_proxy_name_that_does_not_resolve_is_a_dns_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> None:
        raise OSError("not known")

    async with RawUpstream(never_responds) as proxy:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        assert type(await failure_of(dialer(proxy))) is UpstreamDnsFailed
