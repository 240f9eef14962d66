"""The error responses that the proxy makes itself.

`server/error_response.py` turns a `ProxyError` into a response. An error holds only what a caller may see: no
address, no key, and no text of another exception.

A class with its own `code` is an error that callers see. The first line of its docstring is the cause that README's
table of errors shows; a test compares the two.
"""

from typing import Any, ClassVar


class ProxyError(Exception):
    """The base of all error responses.

    `status` is the HTTP status. `code` is the name in Nanonets' JSON shape `{"code", "message", "details"}`.
    `proxy_error` is the error type of RFC 9209 §2.3 for `Proxy-Status`. `retry_after_s` becomes `Retry-After`. With
    `close`, the server closes the caller's connection after the response. `log_details` are for the log alone.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    proxy_error: ClassVar[str]
    close: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_s: float | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.details = details
        self.log_details: dict[str, Any] = {}


class InternalError(ProxyError):
    """A defect of the proxy or of its disk.

    The log has the traceback of a defect under the request's id.
    """

    status = 500
    code = "internal_error"
    proxy_error = "proxy_internal_error"


# --- invalid or rejected requests -------------------------------------------------------------


class BadRequest(ProxyError):
    """The request is malformed.

    The connection closes, because the start of the next request is unknown.
    """

    status = 400
    code = "bad_request"
    proxy_error = "http_request_error"
    close = True


class CallerTooSlow(ProxyError):
    """The request's head or body did not arrive in time."""

    status = 408
    code = "request_timeout"
    proxy_error = "http_request_error"
    close = True


class TargetTooLong(ProxyError):
    """The request target is too long."""

    status = 414
    code = "target_too_long"
    proxy_error = "http_request_error"
    close = True


class HeadTooLarge(ProxyError):
    """A header field or the header section is too large, or there are too many fields.

    RFC 6585 §5.
    """

    status = 431
    code = "head_too_large"
    proxy_error = "http_request_error"
    close = True


class _Forbidden(ProxyError):
    """The base of 403 responses."""

    status = 403
    proxy_error = "http_request_denied"
    close = True


class ForbiddenPeer(_Forbidden):
    """The caller's address or user may not call."""

    code = "forbidden_peer"


class ForbiddenHost(_Forbidden):
    """Host is not a name of the proxy."""

    code = "forbidden_host"


class ForbiddenOrigin(_Forbidden):
    """A web page of another origin sent the request."""

    code = "forbidden_origin"


class ForbiddenByPolicy(_Forbidden):
    """The access rules or read-only mode do not allow the request.

    The connection stays open, because the caller's other requests may be allowed.
    """

    code = "forbidden_by_policy"
    close = False


class PathNotFound(ProxyError):
    """The admin listener has no such path, or the caller has no such job."""

    status = 404
    code = "not_found"
    proxy_error = "http_request_error"


class UnknownCaller(ProxyError):
    """The caller's token is missing or unknown."""

    status = 401
    code = "unknown_caller"
    proxy_error = "http_request_denied"
    close = True


class MethodNotAllowed(ProxyError):
    """The method is CONNECT, TRACE or TRACK."""

    status = 405
    code = "method_not_allowed"
    proxy_error = "http_request_denied"
    close = True
    allow: ClassVar[str] = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    """The value of `Allow` (RFC 9110 §15.5.6)."""


class NotImplementedHere(ProxyError):
    """The request has an unsupported transfer coding."""

    status = 501
    code = "not_implemented"
    proxy_error = "http_request_denied"
    close = True


class VersionNotSupported(ProxyError):
    """The request's HTTP version is neither 1.0 nor 1.1."""

    status = 505
    code = "http_version_not_supported"
    proxy_error = "http_request_error"
    close = True


# --- limits -----------------------------------------------------------------------------------


class RateLimited(ProxyError):
    """The queue is full, or the wait exceeds the limit of the caller or of the settings."""

    status = 429
    code = "rate_limit_exceeded"
    proxy_error = "connection_limit_reached"


class BudgetUsedUp(ProxyError):
    """The caller's daily budget is used up."""

    status = 429
    code = "daily_budget_used_up"
    proxy_error = "http_request_denied"


class LargerThanLimit(ProxyError):
    """The request has more pages than the upstream's whole rate limit allows."""

    status = 413
    code = "larger_than_limit"
    proxy_error = "http_request_error"


class TooManyConnections(ProxyError):
    """The maximum number of connections is open, and none is idle.

    `server/connection_limits.py` sends this response before it reads a request.
    """

    status = 503
    code = "too_many_connections"
    proxy_error = "connection_limit_reached"
    close = True


class ShuttingDown(ProxyError):
    """The proxy is shutting down."""

    status = 503
    code = "shutting_down"
    proxy_error = "connection_terminated"
    close = True


# --- durable jobs -----------------------------------------------------------------------------


class JobsFull(ProxyError):
    """As many jobs as `max_jobs` allows are queued or being sent."""

    status = 503
    code = "jobs_full"
    proxy_error = "connection_limit_reached"


class JobsStorageFull(ProxyError):
    """The disk is full, or jobs use the space that `jobs_total` allows."""

    status = 507
    code = "jobs_storage_full"
    proxy_error = "proxy_internal_error"


class JobsUnavailable(ProxyError):
    """The store of the jobs cannot be used."""

    status = 503
    code = "jobs_unavailable"
    proxy_error = "proxy_internal_error"


class IdempotencyKeyReused(ProxyError):
    """The `Idempotency-Key` belongs to a job with another method, target or body."""

    status = 422
    code = "idempotency_key_reused"
    proxy_error = "http_request_error"


class JobWithoutResponse(ProxyError):
    """The job has no response, yet or at all; `details.state` says which."""

    status = 409
    code = "job_without_response"
    proxy_error = "http_request_error"


class JobNotCancellable(ProxyError):
    """The job is being sent, or has ended."""

    status = 409
    code = "job_not_cancellable"
    proxy_error = "http_request_error"


class JobMethodNotAllowed(MethodNotAllowed):
    """A job knows only GET, HEAD and DELETE."""

    close = False
    allow = "GET, HEAD, DELETE"


class JobResponseMethodNotAllowed(JobMethodNotAllowed):
    """The response of a job knows only GET and HEAD."""

    allow = "GET, HEAD"
