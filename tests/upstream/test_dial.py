"""Opening a connection: addresses, TLS, and the error of each failure."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohappyeyeballs
import pytest
from prometheus_client import CollectorRegistry

from nanonets_proxy.app.environment.faults import report_dial_failure
from nanonets_proxy.core.net.addresses import Origin, is_ip_address
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.dial import Dialer, make_tls_context
from nanonets_proxy.upstream.errors import (
    UpstreamConnectTimeout,
    UpstreamDnsFailed,
    UpstreamError,
    UpstreamRefused,
    UpstreamTlsCertificate,
    UpstreamTlsCut,
    UpstreamTlsProtocol,
    UpstreamUnreachable,
)
from nanonets_proxy.upstream.exchange import UpstreamRequest
from nanonets_proxy.upstream.policy import DialPolicy
from support.certificates import CertificateAuthority
from support.eventually import WAIT_S, until
from support.raw_upstream import Peer, RawUpstream, ok, responding

SAYS_OK = responding(ok())


def dialer(
    origin: Origin,
    ca_file: Path | None = None,
    *,
    connect_timeout_s: float = WAIT_S,
    may_be_private: bool = True,
    pins: tuple[bytes, ...] = (),
) -> Dialer:
    return Dialer(
        DialPolicy(
            origin,
            connect_timeout_s=connect_timeout_s,
            idle_timeout_s=WAIT_S,
            ca_file=ca_file,
            may_be_private=may_be_private,
            pins=pins,
        )
    )


def https(upstream: RawUpstream, host: str = "127.0.0.1") -> Origin:
    return Origin("https", host, upstream.port)


async def asked(connection: UpstreamConnection) -> int:
    """Sends a request to show that the connection works; returns the status."""
    connection.start(UpstreamRequest("GET", b"", None))
    connection.write(b"GET / HTTP/1.1\r\nHost: upstream\r\n\r\n")
    connection.finish_request(WAIT_S)
    try:
        return (await connection.head()).status
    finally:
        connection.close()


async def failure_of(made: Dialer) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await made.dial()
    assert not caught.value.sent
    return caught.value


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Returns a port that is closed on 127.0.0.1 and 127.0.0.2."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


# --- addresses --------------------------------------------------------------------------------------------


async def test_a_plain_connection_is_made_and_works() -> None:
    async with RawUpstream(SAYS_OK) as upstream:
        connection = await dialer(upstream.origin).dial()
        assert connection.tls_version is None
        sock = connection._transport.get_extra_info("socket") if connection._transport else None
        assert sock is not None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert await asked(connection) == 200


async def test_a_closed_port_is_a_refused_connection(dead_port: int) -> None:
    error = await failure_of(dialer(Origin("http", "127.0.0.1", dead_port)))
    assert type(error) is UpstreamRefused
    assert error.details == {"reason": "ECONNREFUSED"}
    assert error.log_details == {"tried": [f"127.0.0.1:{dead_port}"]}


class Resolver:
    """Replaces the loop's name resolution: returns these addresses for every name, or raises an error."""

    def __init__(self, *addresses: str, error: OSError | None = None) -> None:
        self._addresses = addresses
        self._error = error

    async def __call__(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if self._error is not None:
            raise self._error
        kind = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        # uvloop resolves addresses with this function too.
        addresses = [host] if is_ip_address(host) else self._addresses
        return [(*kind, (address, port)) for address in addresses]


def resolve_by(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolver)


@contextmanager
def silent_listener(address: str, port: int = 0) -> Iterator[int]:
    """A port on which every new connection waits forever, since its accept queue is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((address, port))
        listener.listen(0)
        for filler in (first, second):
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("addresses", [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.3", "127.0.0.1"]])
async def test_one_working_address_among_several_is_enough(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RawUpstream(SAYS_OK) as upstream:
        resolve_by(Resolver(*addresses), monkeypatch)
        assert await asked(await dialer(Origin("http", "api.example", upstream.port)).dial()) == 200


async def test_an_unresponsive_address_delays_only_its_own_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawUpstream(SAYS_OK) as upstream:
        with silent_listener("127.0.0.2", upstream.port):
            resolve_by(Resolver("127.0.0.2", "127.0.0.1"), monkeypatch)
            connection = await dialer(Origin("http", "api.example", upstream.port)).dial()
            assert await asked(connection) == 200


async def test_if_no_address_works_the_error_says_why(dead_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_by(Resolver("127.0.0.1", "127.0.0.2"), monkeypatch)
    error = await failure_of(dialer(Origin("http", "api.example", dead_port)))
    assert type(error) is UpstreamRefused
    assert error.log_details == {"tried": [f"127.0.0.1:{dead_port}", f"127.0.0.2:{dead_port}"]}


async def test_connecting_has_a_timeout() -> None:
    with silent_listener("127.0.0.1") as port:
        error = await failure_of(dialer(Origin("http", "127.0.0.1", port), connect_timeout_s=0.1))
    assert type(error) is UpstreamConnectTimeout
    assert error.log_details == {"tried": [f"127.0.0.1:{port}"]}


async def test_a_name_that_does_not_resolve_is_a_dns_error(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_by(Resolver(error=socket.gaierror(socket.EAI_NONAME, "Name or service not known")), monkeypatch)
    error = await failure_of(dialer(Origin("http", "api.example", 80)))
    assert type(error) is UpstreamDnsFailed
    assert error.details == {"host": "api.example", "reason": "EAI_NONAME"}
    assert error.log_details == {"tried": ["api.example:80"]}


async def test_a_failed_connection_names_a_proxy_variable_that_has_no_effect(dead_port: int) -> None:
    failures: list[UpstreamError] = []
    policy = DialPolicy(Origin("http", "127.0.0.1", dead_port), WAIT_S, WAIT_S, ignored_variable="HTTPS_PROXY")
    error = await failure_of(Dialer(policy, failures.append))
    assert error.message == (
        "The upstream refused the connection. HTTPS_PROXY is set, but only the setting egress_proxy has an effect."
    )
    assert failures == [error]


@pytest.mark.parametrize(
    ("foreign", "message"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), "address cannot be reached"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "address cannot be reached"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "address cannot be reached"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "connection to the upstream failed"),
        (OSError(errno.EMFILE, "Too many open files"), "connection to the upstream failed"),
        (RuntimeError("File descriptor 9 is used by transport"), "connection to the upstream failed"),
    ],
)
async def test_other_errors_of_the_system_are_mapped(
    foreign: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start_connection(*_: object, **__: object) -> None:
        raise foreign

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", start_connection)
    error = await failure_of(dialer(Origin("http", "127.0.0.1", 80)))
    assert type(error) is UpstreamUnreachable
    assert message in error.message
    assert str(foreign) not in f"{error} {error.details}"


# --- TLS --------------------------------------------------------------------------------------------------


async def test_a_certificate_of_a_trusted_authority_is_accepted(authority: CertificateAuthority) -> None:
    async with RawUpstream(SAYS_OK, tls=authority.server()) as upstream:
        connection = await dialer(https(upstream), authority.file).dial()
        assert connection.tls_version == "TLSv1.3"
        assert not connection.is_readable()
        assert await asked(connection) == 200


async def test_the_certificate_must_have_the_origins_name(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RawUpstream(SAYS_OK, tls=authority.server("api.example")) as upstream:
        resolve_by(Resolver("127.0.0.1"), monkeypatch)
        assert await asked(await dialer(https(upstream, "api.example"), authority.file).dial()) == 200
        error = await failure_of(dialer(https(upstream, "other.example"), authority.file))
        assert type(error) is UpstreamTlsCertificate
        assert "Hostname mismatch" in error.details["reason"]


async def test_a_certificate_for_another_address_is_not_accepted(authority: CertificateAuthority) -> None:
    async with RawUpstream(SAYS_OK, tls=authority.server("127.0.0.9")) as upstream:
        error = await failure_of(dialer(https(upstream), authority.file))
    assert type(error) is UpstreamTlsCertificate
    assert "IP address mismatch" in error.details["reason"]


async def test_a_certificate_of_an_unknown_authority_is_not_accepted(authority: CertificateAuthority) -> None:
    async with RawUpstream(SAYS_OK, tls=authority.server()) as upstream:
        error = await failure_of(dialer(https(upstream)))
    assert type(error) is UpstreamTlsCertificate
    assert "unable to get local issuer certificate" in error.details["reason"]


async def test_an_expired_certificate_is_not_accepted(authority: CertificateAuthority) -> None:
    async with RawUpstream(SAYS_OK, tls=authority.server(expired=True)) as upstream:
        error = await failure_of(dialer(https(upstream), authority.file))
    assert type(error) is UpstreamTlsCertificate
    assert "expired" in error.details["reason"]


async def test_a_server_with_old_tls_only_is_an_error(authority: CertificateAuthority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        # In a thread, since asyncio's server does not send the TLS alert.
        serving = asyncio.create_task(asyncio.to_thread(authority.accept_with_tls_1_1, listener))
        error = await failure_of(dialer(Origin("https", "127.0.0.1", listener.getsockname()[1]), authority.file))
        await serving
    assert type(error) is UpstreamTlsProtocol
    assert "PROTOCOL_VERSION" in error.details["reason"]


async def test_a_server_without_tls_is_an_error(authority: CertificateAuthority) -> None:
    async def plain(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.read_to_end()

    async with RawUpstream(plain) as upstream:
        assert type(await failure_of(dialer(https(upstream), authority.file))) is UpstreamTlsProtocol
        await until(lambda: upstream.ended == 1)


async def test_a_connection_that_ends_during_the_handshake_is_a_failed_handshake(
    authority: CertificateAuthority,
) -> None:
    async def resetting(peer: Peer) -> None:
        await peer.read_exactly(1)
        peer.reset()

    async def closing(peer: Peer) -> None:
        await peer.read_some()  # as some servers that know no TLS 1.2: they send no alert

    for behave, reason in ((resetting, "ECONNRESET"), (closing, "closed")):
        async with RawUpstream(behave) as upstream:
            error = await failure_of(dialer(https(upstream), authority.file))
        assert type(error) is UpstreamTlsCut
        assert (error.code, error.details["reason"]) == ("upstream_tls_failed", reason)
        alerts = Alerts(CollectorRegistry())
        report_dial_failure(alerts, "https://upstream.example", error)
        (alert,) = alerts.to_json()
        assert "check whether a firewall" in alert["advice"]


async def test_the_connect_timeout_includes_the_handshake(authority: CertificateAuthority) -> None:
    async with RawUpstream(SAYS_OK) as upstream:  # waits for a request, and gets a TLS hello
        error = await failure_of(dialer(https(upstream), authority.file, connect_timeout_s=0.1))
        assert type(error) is UpstreamConnectTimeout
        await until(lambda: upstream.ended == 1)


@pytest.mark.asyncio(loop_factories=["asyncio"])  # uvloop's own limit is 60 s, and cannot be changed
async def test_only_the_connect_timeout_limits_the_handshake(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncio.constants.SSL_HANDSHAKE_TIMEOUT", 0.01)
    async with RawUpstream(SAYS_OK) as upstream:
        error = await failure_of(dialer(https(upstream), authority.file, connect_timeout_s=0.1))
        assert type(error) is UpstreamConnectTimeout


async def test_a_dial_that_is_cancelled_leaves_nothing_open(authority: CertificateAuthority) -> None:
    async with RawUpstream(SAYS_OK) as upstream:
        dialling = asyncio.create_task(dialer(https(upstream), authority.file).dial())
        await until(lambda: upstream.accepted == 1)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await until(lambda: upstream.ended == 1)


def test_verification_cannot_be_weakened(authority: CertificateAuthority) -> None:
    for context in (make_tls_context(None), make_tls_context(authority.file)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname


def test_a_ca_file_without_a_certificate_is_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for ca_file in (empty, tmp_path / "missing.pem"):
        with pytest.raises(OSError):  # noqa: PT011 - an ssl.SSLError or a FileNotFoundError, as promised
            make_tls_context(ca_file)


# --- where the key may go -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "::7f00:1", "64:ff9b:1::1"]
)
async def test_a_name_that_resolves_to_a_private_address_is_an_error(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_by(Resolver(address), monkeypatch)
    failure = await failure_of(dialer(Origin("https", "api.example", 443), may_be_private=False))
    assert (failure.code, failure.status) == ("upstream_forbidden_address", 502)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_address_that_the_settings_name_may_be_private(host: str) -> None:
    async with RawUpstream(SAYS_OK) as upstream:
        assert await asked(await dialer(Origin("http", host, upstream.port), may_be_private=False).dial()) == 200


async def test_localhost_must_resolve_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_by(Resolver("203.0.113.9"), monkeypatch)
    failure = await failure_of(dialer(Origin("http", "localhost", 80)))
    assert (failure.code, failure.details["host"]) == ("upstream_forbidden_address", "localhost")


async def test_only_a_pinned_public_key_is_accepted(authority: CertificateAuthority) -> None:
    async with RawUpstream(SAYS_OK, tls=authority.server()) as upstream:
        made = await dialer(https(upstream), authority.file).dial()
        digest = made.public_key_digest()
        made.close()
        assert digest is not None
        pinned = dialer(https(upstream), authority.file, pins=(b"\0" * 32, digest))
        assert await asked(await pinned.dial()) == 200
        failure = await failure_of(dialer(https(upstream), authority.file, pins=(b"\0" * 32,)))
        assert failure.details["reason"] == "pin"
