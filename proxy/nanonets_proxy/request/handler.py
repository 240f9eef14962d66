"""Handles one request: checks it, has it forwarded, turns an error into a response, logs and counts."""

import asyncio
from typing import TYPE_CHECKING, Final, cast

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web

from nanonets_proxy.core.http.request_head import RequestHeads
from nanonets_proxy.core.http.target import origin_form
from nanonets_proxy.errors import InternalError, ProxyError, VersionNotSupported
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.request.context import RequestContext, Services
from nanonets_proxy.request.forward import Forwarder
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.request.relay import RelayedResponse
from nanonets_proxy.server.caller_body import CallerBody
from nanonets_proxy.server.error_response import answer
from nanonets_proxy.server.peers import Peer
from nanonets_proxy.telemetry.log import event_writer
from nanonets_proxy.upstream.body import RequestBody

if TYPE_CHECKING:
    from nanonets_proxy.server.caller_connection import CallerConnection
    from nanonets_proxy.server.request_loop import CallerRequest

_VERSIONS: Final = (HttpVersion11, HttpVersion10)


class Handler:
    """The handler of one environment: call it with each request."""

    def __init__(self, policy: HandlerPolicy, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self._policy = policy
        self._services = services
        self._log = structlog.get_logger(**policy.log_fields)
        self._log_request = event_writer("request", **policy.log_fields)
        self.heads = RequestHeads(
            caller_header=policy.caller_header.lower().encode(),
            token_header=policy.credentials_header.lower().encode(),
        )
        self._authorities = services.origin.authorities
        self._forwarder = Forwarder(policy, services, loop)
        self.draining = False

    def drain(self) -> None:
        """From now on each response announces that its connection closes."""
        self.draining = True
        self._forwarder.drain()

    async def __call__(self, request: "CallerRequest", peer: Peer) -> web.StreamResponse:
        """Returns the response, already sent or still to be sent. Raises CancelledError if the caller hangs up."""
        record = AccessRecord(request, peer.name)
        response = RelayedResponse(request, self._policy.idle_timeout_s)
        kept_bytes = 0
        try:
            if request.protocol.writing_paused:
                await response.drain()  # responses must not pile up for a caller that pipelines without reading
            context = self._admit(request, peer, record, response)
            if context.head.body_length == 0 or (kept_bytes := self._take_whole_body(context)):
                await self._forwarder.forward(context)
            else:
                await self._forward_with_body(context)
        except ProxyError as error:
            return self._error_response(error, request, record, response)
        except asyncio.CancelledError:
            record.code, record.error = "caller_gone", "The caller hung up."
            if response.began:
                response.abort()
            raise
        except ConnectionError:
            record.code, record.error = "caller_gone", "The caller hung up."
            response.abort()  # else the connection of a caller that reads nothing would stay half closed for ever
            return response  # if it were raised, aiohttp would respond, and the request would be logged twice
        except Exception:  # noqa: BLE001 - whatever the defect, the caller gets a response
            self._log.exception("request_failed", request_id=record.request_id)
            return self._error_response(InternalError("The proxy failed."), request, record, response)
        else:
            return response
        finally:
            if kept_bytes:
                self._services.body_budget.memory_bytes -= kept_bytes
            record.sent_bytes += response.sent_bytes
            record.finish(self._log_request, self._services.metrics.requests)

    def refuse_malformed(self, request: web.BaseRequest, peer: Peer, error: ProxyError) -> web.StreamResponse:
        """Returns the error response to a request that the parser rejected; logs and counts the request."""
        record = AccessRecord(request, peer.name)
        not_begun = RelayedResponse(request, self._policy.idle_timeout_s)
        response = self._error_response(error, request, record, not_begun)
        record.finish(self._log_request, self._services.metrics.requests)
        return response

    def _error_response(
        self, error: ProxyError, request: web.BaseRequest, record: AccessRecord, response: RelayedResponse
    ) -> web.StreamResponse:
        """Returns the response to an error. Resets the connection instead if `response` has begun."""
        record.code, record.error = error.code, error.message
        if response.began:
            response.abort()
            return response
        record.status = error.status
        error_response = answer(error, record.request_id)
        if not request.content.is_eof():
            # A caller that waits for 100 Continue now omits its body, so the next request could not be found.
            error_response.force_close()
        record.sent_bytes = 0 if request.method == "HEAD" else len(error_response.sent)
        return error_response

    def _admit(
        self, request: "CallerRequest", peer: Peer, record: AccessRecord, response: RelayedResponse
    ) -> RequestContext:
        """Checks the request and classifies it. Raises a ProxyError for a request that must not be forwarded."""
        services = self._services
        services.guard.check_peer(peer.address, peer.uid)
        if request.version not in _VERSIONS:
            raise VersionNotSupported("The proxy supports HTTP/1.1 and HTTP/1.0 only.")
        if request.shape is None:
            head = self.heads.read(request.field_names, request.parts)
        else:
            head = self.heads.read_known(request.shape, request.parts)
        if head.request_id is not None or head.caller is not None:
            record.identify(head.request_id, head.caller)
        target, authority = record.path, None
        if not target.startswith("/"):
            services.guard.check_method(record.method, upgrade=head.upgrade, preflight=head.is_preflight)
            target, authority = origin_form(record.method, target, self._authorities)
        services.guard.check_request(record.method, head, authority)
        if services.authorizer is not None:
            record.caller = services.authorizer.identify(peer, head.credentials) or record.caller
            services.authorizer.check(record.caller, record.method, target, request.field_names)
        record.scope = services.scopes.classify(record.method, target)
        if services.retries.enabled:
            services.retries.note_request()
        return RequestContext(request, record, response, head, target)

    def _take_whole_body(self, context: RequestContext) -> int:
        """Reads a body of known length if all of it is here, as most small bodies are.

        Such a body is sent in one piece with the head. Returns the bytes taken from the store's memory budget; 0:
        the body must be streamed.
        """
        content, length, budget = context.request.content, context.head.body_length, self._services.body_budget
        if (
            length is None
            or not content.is_eof()
            or content.exception() is not None
            or not budget.reserve_whole(length)
        ):
            return 0
        context.payload = content.read_nowait()
        context.read_ahead = cast("CallerConnection", context.request.protocol).valve
        context.record.received_bytes = length
        return length

    async def _forward_with_body(self, context: RequestContext) -> None:
        """Forwards a request whose body is streamed."""
        request, head, policy = context.request, context.head, self._policy
        source = CallerBody(
            request,
            expect_continue=head.expect_continue and request.version >= HttpVersion11,
            idle_timeout_s=policy.idle_timeout_s,
            timeout_s=policy.body_timeout_s,
        )
        with RequestBody(source, head.body_length, self._services.body_budget) as body:
            context.body, context.body_source = body, source
            try:
                await self._forwarder.forward(context)
            finally:
                context.record.received_bytes = body.received_bytes
