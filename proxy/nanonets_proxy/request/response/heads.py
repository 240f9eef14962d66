"""Writes the head of a relayed response: the upstream's fields, and the proxy's own."""

import math
from collections.abc import Callable
from email.utils import formatdate
from time import perf_counter, time

from nanonets_proxy.core.http.headers import (
    LocationRewrite,
    caller_response_head,
    passing_lines,
    values_of,
    via_field,
)
from nanonets_proxy.core.http.prefer import wait_s
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.core.ratelimit.hints.retry_hint import Hint
from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.upstream.response_head import ResponseHead


class ResponseHeads:
    """Writes the heads of one environment. While `draining`, each head announces that its connection closes."""

    def __init__(self, policy: HandlerPolicy, origin: Origin, reason_of_401: Callable[[], str]) -> None:
        self._reason_of_401 = reason_of_401
        self._max_wait_s = policy.max_wait_s
        self._server_timing = policy.server_timing
        self._via_field = via_field(policy.via.encode())
        proxy_scheme = b"https://" if policy.tls else b"http://"
        self._location_rewrite = LocationRewrite(str(origin).encode(), proxy_scheme)
        self._date_s = 0.0  # the second of `_date_line`
        self._date_line = b""
        self.draining = False

    def write(
        self, context: RequestContext, head: ResponseHead, hint: Hint | None = None, proxy_status: bytes = b""
    ) -> bytes:
        """Returns the whole head, to the empty line.

        `hint` is that of a 429. `proxy_status` is the field that says why a kept 429 is the response.
        """
        record = context.record
        upstream_s = record.upstream_s
        lines = self._via_field
        if head.status == 429:
            lines += _retry_after(head, hint) + (proxy_status or _not_sent_again(context))
        elif head.status == 401:
            lines += _unauthorized(context, self._reason_of_401())
        if context.head.prefer:
            lines += self._preference_applied(context.head.prefer)
        may_stay_open = not self.draining and (
            context.body is None or _next_request_can_be_found(context, head.status)
        )
        lines += context.response.frame(head, may_stay_open)
        if not self._server_timing:
            lines += b"\r\n"
        elif record.wait_s or context.retries or record.is_coalesced or upstream_s is None:
            lines = b"Server-Timing: %b\r\n%b\r\n" % (_server_timing(context), lines)
        else:  # the usual case: formatting a float costs as much as all the other fields
            lines = b"Server-Timing: queue;dur=0.0, upstream;dur=%.1f\r\n%b\r\n" % (upstream_s * 1000, lines)
        now_s = time()
        if not 0.0 <= now_s - self._date_s < 1.0:
            self._date_s = float(math.floor(now_s))
            self._date_line = b"Date: %b\r\n" % formatdate(self._date_s, usegmt=True).encode()
        if (theirs := head.lines) is None:
            theirs = passing_lines(head.status, head.names, head.values, context.head.host, self._location_rewrite)
        # RFC 9110 §6.6.1: a recipient with a clock must add a Date.
        return caller_response_head(
            head.status, head.reason, head.names, theirs, lines, record.request_id, self._date_line
        )

    def _preference_applied(self, prefer: tuple[bytes, ...]) -> bytes:
        """Returns the confirmation that the caller's `wait` was the limit (RFC 7240 §3)."""
        preferred_s = wait_s(prefer)
        if preferred_s is None or preferred_s > self._max_wait_s:
            return b""
        return b"Preference-Applied: wait=%d\r\n" % preferred_s


def _retry_after(head: ResponseHead, hint: Hint | None) -> bytes:
    """Returns a 429's hint as a field, unless the upstream sent the field itself."""
    hint_s = None if hint is None else hint.retry_after_s
    if hint_s is None or values_of(b"retry-after", head.names, head.values):
        return b""
    return b"Retry-After: %d\r\n" % max(1, math.ceil(hint_s))


def _not_sent_again(context: RequestContext) -> bytes:
    """Returns the field that tells why a 429 reached the caller: the body could not be sent again (RFC 9209)."""
    if (cause := context.lost_copy) is None:
        return b""
    reason = f"body_copy_discarded: {cause}"
    context.record.details = {"reason": reason}
    return b'Proxy-Status: nanonets-proxy; received-status=429; details="%b"\r\n' % reason.encode()


def _unauthorized(context: RequestContext, reason: str) -> bytes:
    """Returns the field that says whether a 401 concerns the proxy's key or the request (RFC 9209)."""
    context.record.details = {"reason": reason}
    return b'Proxy-Status: nanonets-proxy; received-status=401; details="%b"\r\n' % reason.encode()


def _server_timing(context: RequestContext) -> bytes:
    record = context.record
    timing = b"queue;dur=%.1f" % (record.wait_s * 1000)
    if record.upstream_s is not None:
        timing += b", upstream;dur=%.1f" % (record.upstream_s * 1000)
    if context.retries:
        timing += b', retry;dur=%.1f;desc="%d"' % (context.retry_spent_s * 1000, context.retries)
    if record.is_coalesced:
        timing += b", coalesced;dur=%.1f" % ((perf_counter() - record.started_s) * 1000)
    return timing


def _next_request_can_be_found(context: RequestContext, status: int) -> bool:
    """Returns whether the caller's next request can be found after the body of this one.

    A caller may omit the remaining body after an error response, or if it got no 100 (RFC 9110 §10.1.1).
    """
    body = context.request.body
    if body.is_complete:
        return True
    waits_for_continue = context.head.expect_continue and not body.received_bytes
    return not waits_for_continue and status < 400
