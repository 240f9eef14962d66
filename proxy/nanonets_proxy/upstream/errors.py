"""The error responses to failures of the upstream.

They follow the rules of `nanonets_proxy/errors.py`, and README's table shows them too.
"""

from typing import Any

from nanonets_proxy.errors import ProxyError


class UpstreamError(ProxyError):
    """The base of failures of the upstream: it sent no response that could be relayed.

    `sent` is whether the upstream may have received a byte of the request. If not, a request of any method may be
    sent again.
    """

    status = 502

    def __init__(self, message: str, *, sent: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.sent = sent


class UpstreamDnsFailed(UpstreamError):
    """The upstream's name could not be resolved."""

    code = "upstream_dns_failed"
    proxy_error = "dns_error"


class UpstreamRefused(UpstreamError):
    """The upstream refused the connection."""

    code = "upstream_refused"
    proxy_error = "connection_refused"


class UpstreamUnreachable(UpstreamError):
    """The upstream is unreachable."""

    code = "upstream_unreachable"
    proxy_error = "destination_ip_unroutable"


class UpstreamForbiddenAddress(UpstreamError):
    """The upstream's name resolves only to private addresses, or `localhost` to another machine."""

    code = "upstream_forbidden_address"
    proxy_error = "destination_ip_prohibited"


class UpstreamTlsCertificate(UpstreamError):
    """The upstream's certificate is not trusted, or its key is not pinned."""

    code = "upstream_tls_certificate"
    proxy_error = "tls_certificate_error"


class UpstreamTlsProtocol(UpstreamError):
    """The TLS handshake with the upstream failed."""

    code = "upstream_tls_failed"
    proxy_error = "tls_protocol_error"


class UpstreamTlsCut(UpstreamTlsProtocol):
    """The connection ended during the TLS handshake: some servers without TLS 1.2 send no alert."""


class EgressProxyRefused(UpstreamError):
    """The egress proxy refused the tunnel, or failed."""

    code = "upstream_egress_proxy"
    proxy_error = "destination_unavailable"


class UpstreamClosed(UpstreamError):
    """The upstream closed the connection before its response was complete."""

    code = "upstream_closed"
    proxy_error = "connection_terminated"


class UpstreamBadReply(UpstreamError):
    """The upstream's response is malformed.

    `start` is the start of the bytes that are no HTTP, for an alert; callers never see it. It may hold the key, so
    it has a slot, which no dump of the error's attributes shows.
    """

    __slots__ = ("start",)
    code = "upstream_bad_reply"
    proxy_error = "http_protocol_error"

    def __init__(self, message: str, *, sent: bool = False, **details: Any) -> None:
        super().__init__(message, sent=sent, **details)
        self.start = b""


class UpstreamReplyTooLarge(UpstreamError):
    """The header section of the upstream's response is too large."""

    code = "upstream_head_too_large"
    proxy_error = "http_response_header_section_size"


class UpstreamUpgraded(UpstreamError):
    """The upstream switched protocols without a request to do so."""

    code = "upstream_upgraded"
    proxy_error = "http_upgrade_failed"


class UpstreamTimeout(UpstreamError):
    """The upstream did not connect or respond in time."""

    status = 504
    code = "upstream_timeout"
    proxy_error = "http_response_timeout"


class UpstreamConnectTimeout(UpstreamTimeout):
    """The connection to the upstream could not be made in time."""

    proxy_error = "connection_timeout"


def too_large() -> UpstreamReplyTooLarge:
    return UpstreamReplyTooLarge("The upstream's header or trailer section is too large.", sent=True)


def bad_response(message: str) -> UpstreamBadReply:
    return UpstreamBadReply(message, sent=True)


def closed_early() -> UpstreamClosed:
    return UpstreamClosed("The upstream closed the connection before its response was complete.", sent=True)
