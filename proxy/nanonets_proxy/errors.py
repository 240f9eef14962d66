"""The answers that the proxy makes itself: each error carries its own.

A `ProxyError` is raised where the reason is known and turned into a response in one place
(`server/error_response.py`). It holds what a caller may see and nothing else: no address, no key,
no text of a foreign exception.
"""

from typing import Any, ClassVar


class ProxyError(Exception):
    """An answer of the proxy's own.

    `status` is the HTTP status, `code` the machine's word for it in Nanonets' error shape
    `{"code", "message", "details"}`, `proxy_error` the error type of RFC 9209 §2.3 for `Proxy-Status`.
    `retry_after_s` becomes `Retry-After`; `close` ends the caller's connection behind the answer.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    proxy_error: ClassVar[str] = "proxy_internal_error"
    close: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_s: float | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.details = details


class InternalError(ProxyError):
    """A defect of the proxy; the log has the traceback, the caller has the request's id."""


# --- what the caller sent ---------------------------------------------------------------------


class BadRequest(ProxyError):
    """Malformed; the connection's framing can no longer be trusted."""

    status = 400
    code = "bad_request"
    proxy_error = "http_request_error"
    close = True


class CallerTooSlow(ProxyError):
    status = 408
    code = "request_timeout"
    proxy_error = "http_request_error"
    close = True


class TargetTooLong(ProxyError):
    status = 414
    code = "target_too_long"
    proxy_error = "http_request_error"
    close = True


class HeadTooLarge(ProxyError):
    """RFC 6585 §5: one field, their number, or the header section as a whole."""

    status = 431
    code = "head_too_large"
    proxy_error = "http_request_error"
    close = True


class Forbidden(ProxyError):
    """Refused by the guard. `code` says by which rule."""

    status = 403
    code = "forbidden"
    proxy_error = "http_request_denied"
    close = True


class ForbiddenPeer(Forbidden):
    code = "forbidden_peer"


class ForbiddenHost(Forbidden):
    code = "forbidden_host"


class ForbiddenOrigin(Forbidden):
    code = "forbidden_origin"


class ForbiddenByPolicy(Forbidden):
    """The caller may go on with other calls, on this connection too."""

    code = "forbidden_by_policy"
    close = False


class UnknownCaller(ProxyError):
    """No token, or one that nobody has."""

    status = 401
    code = "unknown_caller"
    proxy_error = "http_request_denied"
    close = True


class MethodNotAllowed(ProxyError):
    status = 405
    code = "method_not_allowed"
    proxy_error = "http_request_denied"
    close = True


class NotImplementedHere(ProxyError):
    status = 501
    code = "not_implemented"
    proxy_error = "http_request_denied"
    close = True


class VersionNotSupported(ProxyError):
    status = 505
    code = "http_version_not_supported"
    proxy_error = "http_request_error"
    close = True


# --- waiting ----------------------------------------------------------------------------------


class RateLimited(ProxyError):
    """The wait does not fit: the queue is full, or a deadline is (or would be) passed."""

    status = 429
    code = "rate_limit_exceeded"
    proxy_error = "connection_limit_reached"


class BudgetUsedUp(ProxyError):
    """The caller has made as many requests today as the settings give it."""

    status = 429
    code = "daily_budget_used_up"
    proxy_error = "http_request_denied"


class ShuttingDown(ProxyError):
    status = 503
    code = "shutting_down"
    proxy_error = "connection_terminated"
    close = True


# --- the upstream's side ----------------------------------------------------------------------


class UpstreamError(ProxyError):
    """The upstream gave no answer that could be relayed.

    `sent` says whether a byte of the request may have reached it: only what was not sent may be
    repeated for every method.
    """

    status = 502
    code = "upstream_error"
    proxy_error = "destination_unavailable"

    def __init__(self, message: str, *, sent: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.sent = sent


class UpstreamDnsFailed(UpstreamError):
    code = "upstream_dns_failed"
    proxy_error = "dns_error"


class UpstreamRefused(UpstreamError):
    code = "upstream_refused"
    proxy_error = "connection_refused"


class UpstreamUnreachable(UpstreamError):
    code = "upstream_unreachable"
    proxy_error = "destination_ip_unroutable"


class UpstreamForbiddenAddress(UpstreamError):
    """The upstream's name leads into a private network, and the settings do not say that it should."""

    code = "upstream_forbidden_address"
    proxy_error = "destination_ip_prohibited"


class UpstreamConnectTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    proxy_error = "connection_timeout"


class UpstreamTlsCertificate(UpstreamError):
    code = "upstream_tls_certificate"
    proxy_error = "tls_certificate_error"


class UpstreamTlsProtocol(UpstreamError):
    code = "upstream_tls_failed"
    proxy_error = "tls_protocol_error"


class EgressProxyRefused(UpstreamError):
    code = "upstream_egress_proxy"
    proxy_error = "destination_unavailable"


class UpstreamClosed(UpstreamError):
    """The connection ended before a whole answer had come."""

    code = "upstream_closed"
    proxy_error = "connection_terminated"


class UpstreamBadReply(UpstreamError):
    code = "upstream_bad_reply"
    proxy_error = "http_protocol_error"


class UpstreamReplyTooLarge(UpstreamError):
    code = "upstream_head_too_large"
    proxy_error = "http_response_header_section_size"


class UpstreamUpgraded(UpstreamError):
    """An unasked 101."""

    code = "upstream_upgraded"
    proxy_error = "http_upgrade_failed"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    proxy_error = "http_response_timeout"
