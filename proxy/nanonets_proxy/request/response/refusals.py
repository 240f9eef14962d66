"""The upstream's 429s: reads them, and relays the latest one to a caller that waited in vain."""

from typing import Any, Final

from nanonets_proxy.core.ratelimit.hints.retry_hint import Hint
from nanonets_proxy.core.ratelimit.tickets import Reason
from nanonets_proxy.errors import RateLimited
from nanonets_proxy.request.context import RequestContext, Services
from nanonets_proxy.request.received import Received
from nanonets_proxy.request.response.body_start import hint_of, read_body_start
from nanonets_proxy.request.response.heads import ResponseHeads
from nanonets_proxy.request.response.last_refusals import LastRefusals
from nanonets_proxy.server.error_response import public_details
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.response_head import ResponseHead

_OWN_REASONS: Final = frozenset({Reason.QUEUE_FULL.value, Reason.LANE_FULL.value})
"""The proxy's own limits: the upstream's 429 would mislead."""

# Callers choose model ids, and so names of scopes.
_MAX_DISAGREEING_SCOPES: Final = 100


class Refusals:
    """Keeps the latest 429s of one environment."""

    def __init__(self, services: Services, response_heads: ResponseHeads, log: Any) -> None:
        self._client = services.client
        self._metrics = services.metrics
        self._response_heads = response_heads
        self._log = log
        self._last_refusals = LastRefusals()
        self._disagreeing_scopes: set[str] = set()

    async def read(self, context: RequestContext, connection: UpstreamConnection, head: ResponseHead) -> Received:
        """Reads the beginning of a 429's body, and the hint in it. Keeps a whole 429.

        The connection must be finished afterwards, unless this raises.
        """
        record = context.record
        try:
            body_start = await read_body_start(connection)
        except BaseException:
            self._client.release(connection)
            raise
        hint = hint_of(head, body_start)
        if connection.is_complete and record.method != "HEAD":
            forms = context.response.forms
            context.last_refusal = self._last_refusals.note(record.scope, head, body_start, forms)
        self._metrics.throttled.inc()
        known = self._disagreeing_scopes
        if hint.sources_disagree and record.scope not in known and len(known) < _MAX_DISAGREEING_SCOPES:
            known.add(record.scope)
            self._log.info("hints_disagree", scope=record.scope, retry_after_s=hint.retry_after_s)
        return Received(connection, head, body_start=body_start, hint=hint)

    def relay(self, context: RequestContext, error: RateLimited) -> bool:
        """Relays the upstream's latest 429 to a caller that waited in vain. Returns False if there is none."""
        record = context.record
        reason = error.details.get("reason", "")
        if reason in _OWN_REASONS:
            return False
        kept = context.last_refusal or self._last_refusals.of(record.scope)
        if kept is None:
            return False
        if record.method == "HEAD":
            kept = kept.without_body()
        record.status, record.code, record.error = kept.head.status, error.code, error.message
        record.details = public_details(error)
        # RFC 9209 §2.3: http_request_error is for a response on the origin's behalf.
        how = b"received-status=429" if kept.is_own else b"error=http_request_error"
        status = b'Proxy-Status: nanonets-proxy; %b; details="%b: %b"\r\n'
        proxy_status = status % (how, error.code.encode(), reason.encode())
        hint = Hint(error.retry_after_s, sources_disagree=False)
        lines = self._response_heads.write(context, kept.head, hint, proxy_status)
        context.response.begin(kept, kept.head, lines, kept.body)
        return True
