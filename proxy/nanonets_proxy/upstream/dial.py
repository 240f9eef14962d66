"""Opens connections to the upstream: addresses, egress proxy, TLS; maps each failure to an UpstreamError."""

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path
from typing import Final

import aiohappyeyeballs

from nanonets_proxy.core.http.head_writer import request_head
from nanonets_proxy.core.net.address_ranges import is_loopback_address, is_public_address
from nanonets_proxy.core.net.addresses import (
    EgressProxy,
    bracketed,
    is_host_name,
    is_loopback,
)
from nanonets_proxy.core.status.upstream_watch import Dialing
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.errors import (
    EgressProxyRefused,
    UpstreamConnectTimeout,
    UpstreamDnsFailed,
    UpstreamError,
    UpstreamForbiddenAddress,
    UpstreamRefused,
    UpstreamTlsCertificate,
    UpstreamTlsCut,
    UpstreamTlsProtocol,
    UpstreamUnreachable,
)
from nanonets_proxy.upstream.exchange import UpstreamConnectionState
from nanonets_proxy.upstream.policy import DialPolicy
from nanonets_proxy.upstream.transport import BeforeTls, TlsLastBytes

# RFC 8305 §5 recommends 250 ms before a parallel attempt with the next address.
_HAPPY_EYEBALLS_DELAY_S: Final = 0.25
_READ_BYTES: Final = 256 * 1024  # the most that uvloop reads from a TLS connection at once
_MAX_CONNECT_RESPONSE_BYTES: Final = 16 * 1024
_CONNECT_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")
_NO_TUNNEL: Final = "The egress proxy closed the connection or sent an invalid response."
_RESOLVER_ERRORS: Final = {getattr(socket, name): name for name in dir(socket) if name.startswith("EAI_")}
_WITHOUT_CONNECTION: Final = (
    UpstreamConnectTimeout,
    UpstreamDnsFailed,
    UpstreamRefused,
    UpstreamTlsCut,  # by a firewall that forbids the host's name
    UpstreamUnreachable,
)
_NO_HANDSHAKE: Final = "The TLS handshake with the upstream failed."
_UNROUTABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL})


def make_tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Returns a context for TLS 1.2 or newer; it verifies certificate and host name. Raises OSError."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(eq=False, slots=True)
class _Attempt:
    """A connection that is being made. `during` is the step that it waits for; `step` names it in a sentence."""

    began_s: float
    during: str = ""
    step: str = ""
    tried: list[str] = field(default_factory=list)
    """The addresses that it tries to connect to."""

    def begin(self, during: str, step: str) -> None:
        self.during, self.step = during, step


class Dialer:
    """Opens connections as one DialPolicy says, on one event loop."""

    def __init__(
        self, policy: DialPolicy, on_failure: Callable[[UpstreamError], None] = lambda _error: None
    ) -> None:
        """`on_failure` is called with each error before it is raised."""
        self._policy = policy
        self._on_failure = on_failure
        # An upstream given as an address or localhost may be private. An egress proxy resolves the name itself, and
        # may have a private address.
        is_named = is_host_name(policy.origin.host) and not is_loopback(policy.origin.host)
        self._must_be_public = is_named and policy.egress_proxy is None and not policy.may_be_private
        self._tls = make_tls_context(policy.ca_file) if policy.origin.tls else None
        # The system gives it a page only when a read first fills that page.
        self._read_buffer = mmap(-1, _READ_BYTES, MAP_PRIVATE | MAP_ANONYMOUS)
        self._attempts: set[_Attempt] = set()

    def dialing(self) -> list[Dialing]:
        """Returns the connections that are being made."""
        return [Dialing(attempt.began_s, attempt.step) for attempt in self._attempts]

    async def dial(self) -> UpstreamConnection:
        """Returns a new connection. Raises an UpstreamError; no byte of a request was sent then."""
        attempt, timeout_s = _Attempt(asyncio.get_running_loop().time()), self._policy.connect_timeout_s
        self._attempts.add(attempt)
        try:
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._dial(attempt)
            except TimeoutError:
                why = f"{attempt.step} took longer than {timeout_s:g} s"
                raise UpstreamConnectTimeout(
                    f"Timed out connecting to the upstream: {why}.", during=attempt.during
                ) from None
        except UpstreamError as error:
            self._explain(error, attempt.tried)
            raise
        finally:
            self._attempts.discard(attempt)

    def _explain(self, error: UpstreamError, tried: list[str]) -> None:
        """Adds the addresses that were tried, for the log, and a hint at an ignored variable."""
        policy = self._policy
        peer = policy.egress_proxy or policy.origin
        error.log_details = {"tried": tried or [f"{bracketed(peer.host)}:{peer.port}"]}
        if policy.egress_proxy is not None:
            error.log_details["egress_proxy"] = f"{bracketed(peer.host)}:{peer.port}"
        elif policy.ignored_variable and isinstance(error, _WITHOUT_CONNECTION):
            error.message += f" {policy.ignored_variable} is set, but only the setting egress_proxy has an effect."
        self._on_failure(error)

    async def _dial(self, attempt: _Attempt) -> UpstreamConnection:
        policy = self._policy
        loop = asyncio.get_running_loop()
        sock = await self._open_socket(loop, attempt)
        try:
            if policy.egress_proxy is not None:
                attempt.begin("tunnel", "the egress proxy's response to CONNECT")
                await self._tunnel(loop, sock, policy.egress_proxy)
            connection = UpstreamConnection(loop, self._read_buffer, idle_timeout_s=policy.idle_timeout_s)
            if self._tls is None:
                await loop.create_connection(lambda: connection, sock=sock)
            else:
                attempt.begin("tls", "the TLS handshake")
                await self._start_tls(loop, sock, connection, self._tls)
        except (OSError, asyncio.CancelledError) as error:
            sock.close()
            if isinstance(error, OSError):
                raise _mapped(error) from error
            raise
        except UpstreamError:
            sock.close()
            raise
        if policy.pins and connection.public_key_digest() not in policy.pins:
            connection.close()
            raise UpstreamTlsCertificate("The upstream's public key is not pinned.", reason="pin")
        return connection

    async def _start_tls(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        connection: UpstreamConnection,
        context: ssl.SSLContext,
    ) -> None:
        below, before_tls = await loop.create_connection(BeforeTls, sock=sock)
        if before_tls.has_received:
            below.abort()
            raise UpstreamTlsProtocol(_NO_HANDSHAKE, reason="bytes before the handshake")
        try:
            tls = await loop.start_tls(
                below,
                connection,
                context,
                server_hostname=self._policy.origin.host,
                # The event loop's own limit of 60 s would look like the upstream's end of the connection.
                ssl_handshake_timeout=self._policy.connect_timeout_s,
            )
        except ConnectionError as error:
            below.abort()
            cut = UpstreamTlsCut("The upstream ended the connection during the TLS handshake.", reason="closed")
            cut.details |= _reason(error)
            raise cut from error
        except BaseException:
            below.abort()
            raise
        assert tls is not None  # typeshed allows None, asyncio never returns it
        if below.is_closing() or connection.state is UpstreamConnectionState.CLOSED:
            connection.close()
            tls.abort()
        else:
            connection.connection_made(tls)
            below.set_protocol(TlsLastBytes(connection, below, tls))

    async def _open_socket(self, loop: asyncio.AbstractEventLoop, attempt: _Attempt) -> socket.socket:
        peer = self._policy.egress_proxy or self._policy.origin
        name = "upstream" if self._policy.egress_proxy is None else "egress proxy"
        attempt.begin("dns", f"the look-up of the {name}'s name")
        try:
            addresses = await loop.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
        except OSError as error:
            failed = UpstreamDnsFailed(f"The {name}'s host name could not be resolved.", host=peer.host)
            failed.details |= _reason(error)
            raise failed from error
        if self._must_be_public:
            addresses = [info for info in addresses if is_public_address(str(info[4][0]))]
            if not addresses:
                raise UpstreamForbiddenAddress(
                    "The upstream's name resolves to a private address; to allow it, set upstream_private.",
                    host=peer.host,
                )
        elif peer.host == "localhost" and self._policy.egress_proxy is None:
            addresses = [info for info in addresses if is_loopback_address(str(info[4][0]))]
            if not addresses:  # the key goes to localhost in clear text
                raise UpstreamForbiddenAddress(
                    "localhost resolves to an address of another machine.", host=peer.host
                )
        attempt.tried = [f"{bracketed(str(info[4][0]))}:{peer.port}" for info in addresses]
        attempt.begin("connect", f"the connection to {' and '.join(attempt.tried)}")
        try:
            sock = await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY_S, interleave=1, loop=loop
            )
        except (OSError, RuntimeError) as error:  # uvloop raises RuntimeError for some socket errors
            raise _mapped(error, name) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock

    async def _tunnel(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, proxy: EgressProxy) -> None:
        """Asks `proxy` for a tunnel (RFC 9110 §9.3.6).

        The upstream sends nothing before the TLS handshake, so no byte follows the head of the proxy's response.
        """
        origin = self._policy.origin
        authority = f"{bracketed(origin.host)}:{origin.port}".encode()
        authorization = proxy.authorization()
        fields = [] if authorization is None else [(b"Proxy-Authorization", authorization)]
        await loop.sock_sendall(sock, request_head(b"CONNECT", authority, authority, *fields))
        response = b""
        while b"\r\n\r\n" not in response:
            data = await loop.sock_recv(sock, _MAX_CONNECT_RESPONSE_BYTES)
            response += data
            if not data or len(response) > _MAX_CONNECT_RESPONSE_BYTES:
                raise EgressProxyRefused(_NO_TUNNEL)
        status = _CONNECT_STATUS.match(response)
        if status is None:
            raise EgressProxyRefused(_NO_TUNNEL)
        if not status[1].startswith(b"2"):
            received = int(status[1])
            raise EgressProxyRefused(
                f"The egress proxy refused the tunnel to the upstream with {received}.", received_status=received
            )


def _mapped(error: OSError | RuntimeError, peer: str = "upstream") -> UpstreamError:
    """Maps an error of the operating system or OpenSSL; the only place that does.

    `peer` is the party that could not be reached: the upstream or the egress proxy.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message or "not valid"
        return UpstreamTlsCertificate("The upstream's certificate could not be verified.", reason=reason)
    if isinstance(error, ssl.SSLError):
        return UpstreamTlsProtocol(_NO_HANDSHAKE, reason=error.reason or "unknown")
    mapped: UpstreamError
    if isinstance(error, ConnectionRefusedError):
        mapped = UpstreamRefused(f"The {peer} refused the connection.")
    elif isinstance(error, OSError) and error.errno in _UNROUTABLE:
        mapped = UpstreamUnreachable(f"The {peer}'s address cannot be reached from here.")
    else:
        mapped = UpstreamUnreachable(f"The connection to the {peer} failed.")
    mapped.details |= _reason(error)
    return mapped


def _reason(error: OSError | RuntimeError) -> dict[str, str]:
    """Returns the name of the system's error code, such as ECONNREFUSED, as the details of an error."""
    if not isinstance(error, OSError) or error.errno is None:
        return {}
    names = _RESOLVER_ERRORS if isinstance(error, socket.gaierror) else errno.errorcode
    return {"reason": names[error.errno]} if error.errno in names else {}
