"""Writes the requests for the upstream, one for each attempt, with the key of the attempt."""

from nanonets_proxy.core.http.request_head import CallersHostHeads, UpstreamHeads
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_scrubber import NO_FORMS, KeyForms
from nanonets_proxy.request.context import RequestContext, Services
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.upstream.exchange import UpstreamRequest


class UpstreamRequests:
    """Writes the upstream requests of one environment."""

    def __init__(self, policy: HandlerPolicy, services: Services) -> None:
        self._metrics = services.metrics
        self._trace_upstream = policy.trace_upstream
        self._via = policy.via.encode()
        self._origin = services.origin
        self._host = services.origin.authority.encode()
        self._key_in_use: ApiKey | None = None
        self._key_forms = NO_FORMS
        self._heads_type = CallersHostHeads if policy.keeps_host else UpstreamHeads
        self._heads = self._heads_type(host=self._host, authorization=b"")

    def write(self, context: RequestContext, key: ApiKey) -> UpstreamRequest:
        """Returns the request of the next attempt, and notes the attempt and its key in the access record."""
        record, response = context.record, context.response
        if self._key_in_use is not key:
            self._key_in_use, self._key_forms = key, KeyForms(key.secrets())
            authorization = key.authorization(self._origin)
            self._heads = self._heads_type(host=self._host, authorization=authorization, via=self._via)
        record.key, response.forms = key.name, self._key_forms
        if record.attempts:
            record.retried_after = context.failure
            if context.replay_reason:
                self._metrics.replays.labels(context.replay_reason).inc()
                context.replay_reason = ""
        record.attempts += 1
        trace = b""
        if record.ids and self._trace_upstream:
            trace = record.trace_fields()
        data = self._heads.write(context.line_start, context.head, trace) + context.payload
        return UpstreamRequest(
            record.method,
            data,
            context.body,
            context.head.expect_continue,
            response.send_interim,
            record.caller,
            None if context.usage is None else context.usage.begin,
            record.route,
        )
