"""Handles one request: checks it, has it forwarded, turns an error into a response, logs and counts."""

import asyncio
import contextlib
from random import random
from typing import Final

import structlog

from nanonets_proxy.core.http.max_forwards import counted_down
from nanonets_proxy.core.http.path_pattern import any_path
from nanonets_proxy.core.http.request_head import RequestHeads
from nanonets_proxy.core.http.target import origin_form
from nanonets_proxy.core.ratelimit.scopes.page_costs import PageCosts
from nanonets_proxy.core.ratelimit.scopes.static_limits import PAGES
from nanonets_proxy.errors import BadRequest, InternalError, ProxyError, VersionNotSupported
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.request.coalescing.coalescing import Coalescing
from nanonets_proxy.request.context import Forward, RequestContext, Services
from nanonets_proxy.request.forward import Forwarder
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.request.response.relay import RelayedResponse
from nanonets_proxy.request.target_plans import TargetPlans
from nanonets_proxy.server.connection.caller_body import CallerBody
from nanonets_proxy.server.connection.caller_request import HTTP_1_0, HTTP_1_1, CallerRequest, Response
from nanonets_proxy.server.error_response import error_response, options_response, public_details
from nanonets_proxy.telemetry.log import event_writer
from nanonets_proxy.upstream.body import RequestBody

_VERSIONS: Final = (HTTP_1_1, HTTP_1_0)
_WARNING: Final = "warning"
_ERROR: Final = "error"


class LastRecipient(Exception):
    """An OPTIONS request must not be forwarded, because its Max-Forwards is 0."""


class Handler:
    """The handler of one environment: call it with each request."""

    def __init__(self, policy: HandlerPolicy, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self._policy = policy
        self._services = services
        self._log = structlog.get_logger(**policy.log_fields)
        self._log_request = {
            level: event_writer("request", level or "info", **policy.log_fields) for level in ("", _WARNING, _ERROR)
        }
        self._log_share = share = policy.log_successes
        self._log_sampled = event_writer("request", "info", **policy.log_fields, log_successes=share)
        self.heads = RequestHeads(
            caller_header=policy.caller_header.lower().encode(),
            token_header=policy.credentials_header.lower().encode(),
            cost_header=policy.cost_header.lower().encode(),
        )
        self._authorities = services.origin.authorities
        self._plans = TargetPlans(services.scopes, any_path(policy.coalesce))
        self._forwarder = Forwarder(policy, services, loop)
        self._forward: Forward = self._forwarder.forward
        if policy.coalesce or policy.revalidate:
            self._coalescing = Coalescing(policy, services, self._forward, self._forwarder.response_heads)
            self._forward = self._coalescing.forward
        if not policy.revalidate:
            services.coalescing_groups.kept = None  # a reload may have emptied the setting
        self.draining = False

    def drain(self) -> None:
        """From now on each response announces that its connection closes."""
        self.draining = True
        self._forwarder.drain()

    async def __call__(self, request: CallerRequest) -> Response:
        """Returns the response when it is sent or broken off. Raises CancelledError if the caller hangs up."""
        record = AccessRecord(request, request.peer.name)
        response = RelayedResponse(request, self._policy.idle_timeout_s)
        kept_bytes = 0
        try:
            if request.connection.writing.is_full:
                await response.drain()  # responses must not pile up for a caller that pipelines without reading
            context = self._admit(request, record, response)
            if self._services.jobs is not None and await self._services.jobs.take(context):
                return response
            if context.head.body_length == 0 or (kept_bytes := self._take_whole_body(context)):
                if context.page_count is not None:
                    context.cost = await context.page_count.count_whole(context.payload, context.cost)
                forward = self._forward
                await forward(context)
            else:
                await self._forward_with_body(context)
        except ProxyError as error:
            return self._send_error(error, request, record, response)
        except LastRecipient:
            return self._send_options(request, record, response)
        except asyncio.CancelledError:
            record.code, record.error = "caller_gone", "The caller hung up."
            if response.began:
                response.abort()
            raise
        except ConnectionError:
            record.code, record.error = "caller_gone", "The caller hung up."
            response.abort()  # otherwise a caller that reads nothing would keep its connection half closed
            return response
        except Exception:  # noqa: BLE001 - after any defect, the caller gets a response
            self._log.exception("request_failed", request_id=record.request_id)
            return self._send_error(InternalError("The proxy failed."), request, record, response)
        else:
            return response
        finally:
            if kept_bytes:
                self._services.body_budget.memory_bytes -= kept_bytes
            record.sent_bytes += response.sent_bytes
            level = record.level
            if record.status >= 500 and not level:  # a failure of the upstream
                level = _WARNING
            log = self._log_request[level]
            if self._log_share < 1.0 and record.is_success and not record.retried_after:
                log = self._log_sampled if random() < self._log_share else None  # noqa: S311 - no secret
            record.finish(log, self._services.observers)
            if record.spans is not None and self._services.tracer is not None:
                self._services.tracer.observe(record)

    def reject_malformed(self, request: CallerRequest, error: ProxyError) -> None:
        """Sends the error response to malformed bytes; logs and counts them like a request."""
        record = AccessRecord(request, request.peer.name)
        self._send_error(error, request, record, RelayedResponse(request, self._policy.idle_timeout_s))
        record.finish(self._log_request[record.level], self._services.observers)

    def _send_error(
        self, error: ProxyError, request: CallerRequest, record: AccessRecord, response: RelayedResponse
    ) -> Response:
        """Sends the response to an error. Resets the connection instead if `response` has begun."""
        record.code, record.error = error.code, error.message
        record.details = public_details(error) | error.log_details
        if error.status >= 500:
            record.level = _ERROR if isinstance(error, InternalError) else _WARNING
        if response.began:
            response.abort()
            return response
        record.status = error.status
        # A caller that waits for 100 Continue now omits its body, so the next request could not be found.
        may_stay = request.body.is_complete and not (error.close or self.draining)
        response.keep_alive = request.keep_alive and may_stay
        with contextlib.suppress(ConnectionError):  # the caller has gone
            own = error_response(error, record.request_id)
            record.sent_bytes = own.send(request, keep_alive=response.keep_alive)
        return response

    def _send_options(self, request: CallerRequest, record: AccessRecord, response: RelayedResponse) -> Response:
        record.status = 200
        response.keep_alive = request.keep_alive and request.body.is_complete and not self.draining
        with contextlib.suppress(ConnectionError):  # the caller has gone
            options_response(record.request_id).send(request, keep_alive=response.keep_alive)
        return response

    def _admit(self, request: CallerRequest, record: AccessRecord, response: RelayedResponse) -> RequestContext:
        """Checks the request and classifies it. Raises a ProxyError for a request that must not be forwarded.

        Raises LastRecipient for an OPTIONS request that ends here.
        """
        services, peer = self._services, request.peer
        if request.version not in _VERSIONS:
            raise VersionNotSupported("The proxy supports HTTP/1.1 and HTTP/1.0 only.")
        head, is_last_recipient = request.section.read_head, False
        if record.method == "OPTIONS":
            values = counted_down(request.names, request.values)
            is_last_recipient = values is None
            head = self.heads.read(request.names, values or request.values)
        elif head is None:
            head = request.section.read_head = self.heads.read(request.names, request.values)
        if not head.host and request.version >= HTTP_1_1:
            raise BadRequest("The request has no Host.")  # RFC 9112 §3.2
        if head.request_id is not None or head.caller is not None:
            record.identify(head.request_id, head.caller, services.redact)
        if head.trace is not None:
            record.continue_trace(head.trace)
        if services.tracer is not None and services.tracer.samples(head.trace):
            if head.trace is None:
                record.begin_trace()
            record.spans = []
        target, authority = record.path, None
        if not target.startswith("/"):
            services.guard.check_method(record.method, preflight=head.is_preflight)
            target, authority = origin_form(record.method, target, self._authorities)
            record.path = target
        plan = self._plans[record.method, target]
        record.route, record.loggable_target = plan.route, plan.loggable
        services.guard.check_request(record.method, head, authority, peer.own_address)
        if services.authorizer is not None:
            record.caller = services.authorizer.identify(peer, head.credentials) or record.caller
            if services.jobs is None or not services.jobs.owns(target):
                record.is_counted = services.authorizer.check(record.caller, record.method, target, request.names)
        if is_last_recipient:
            raise LastRecipient
        record.scope = plan.scope
        if services.retries.enabled:
            services.retries.note_request()
        context = RequestContext(request, record, response, head, target, plan.start)
        context.may_be_coalesced = plan.may_be_coalesced
        if services.page_costs is not None:
            self._set_cost(context, services.page_costs)
        return context

    def _set_cost(self, context: RequestContext, costs: PageCosts) -> None:
        """Sets the request's units of its scope's limit: as the caller states them, or until they are counted."""
        head, record, uploads = context.head, context.record, self._services.upload_pages
        context.cost = costs.cost_of(record.scope, head.cost)
        if costs.unit_of(record.scope) != PAGES:
            return
        if head.cost is not None:
            record.pages = int(context.cost)
        elif uploads is not None and head.body_length != 0:
            context.page_count = uploads.of(context.request, record)

    def _take_whole_body(self, context: RequestContext) -> int:
        """Reads a body of known length if all of it is here, as most small bodies are.

        Such a body is sent in one piece with the head. Returns the bytes taken from the memory of the body budget;
        0: the body must be streamed.
        """
        body, length, budget = context.request.body, context.head.body_length, self._services.body_budget
        if length is None or not body.is_complete or not budget.reserve_whole(length):
            return 0
        context.payload = body.read_nowait()
        flow = context.request.connection.flow
        if flow.ahead_bytes:
            context.read_ahead = flow
        context.record.received_bytes = length
        return length

    async def _forward_with_body(self, context: RequestContext) -> None:
        """Forwards a request whose body is streamed."""
        request, head = context.request, context.head
        expect_continue = head.expect_continue and request.version >= HTTP_1_1
        source = CallerBody(request, self._policy.body_times, expect_continue=expect_continue)
        # A caller that sends nothing must not keep a permit from others.
        await source.wait_for_start()
        with RequestBody(source, head.body_length, self._services.body_budget) as body:
            context.body, context.body_source = body, source
            if context.page_count is not None:
                context.page_count.follow(body)
            try:
                await self._forward(context)
            finally:
                context.record.received_bytes = body.received_bytes
