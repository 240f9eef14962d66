"""A request's way in and its end: guard, identify, hand on to the attempts; refuse, log, count."""

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
from nanonets_proxy.telemetry.log import whole_events
from nanonets_proxy.upstream.body import RequestBody

if TYPE_CHECKING:
    from nanonets_proxy.server.caller_connection import CallerConnection
    from nanonets_proxy.server.request_loop import CallerRequest

_SPOKEN: Final = (HttpVersion11, HttpVersion10)


class Handler:
    """AccessRecord it with each request."""

    def __init__(self, policy: HandlerPolicy, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self._policy = policy
        self._services = services
        self._log = structlog.get_logger(**policy.log_fields)
        self._log_request = whole_events("request", **policy.log_fields)
        self.heads = RequestHeads(
            caller_header=policy.caller_header.lower().encode(),
            token_header=policy.credentials_header.lower().encode(),
        )
        self._authorities = services.origin.authorities
        self._attempts = Forwarder(policy, services, loop)
        self.draining = False

    def drain(self) -> None:
        """From now on answers announce that their connection ends."""
        self.draining = self._attempts.draining = True

    async def __call__(self, request: "CallerRequest", peer: Peer) -> web.StreamResponse:
        """Never raises but for a lost caller: every ProxyError becomes its answer here."""
        call = AccessRecord(request, peer.name)
        response = RelayedResponse(request, self._policy.idle_timeout_s)
        kept_bytes = 0
        try:
            if request.protocol.writing_paused:
                await response.drain()  # who pipelines without reading must not have its answers pile up here
            passage = self._enter(request, peer, call, response)
            if passage.head.body_length == 0 or (kept_bytes := self._take_whole(passage)):
                await self._attempts.until_relayed(passage)
            else:
                await self._relay_with_body(passage)
        except ProxyError as error:
            return self._refuse(error, request, call, response)
        except asyncio.CancelledError:
            call.code, call.error = "caller_gone", "The caller hung up."
            if response.began:
                response.abort()
            raise
        except ConnectionError:
            call.code, call.error = "caller_gone", "The caller hung up."
            response.abort()  # one that takes nothing any more would keep its connection half closed for ever
            return response  # raised, it would make aiohttp answer, and tell of the request again
        except Exception:  # noqa: BLE001 - the border: whatever went wrong, the caller gets an answer
            self._log.exception("request_failed", request_id=call.request_id)
            return self._refuse(InternalError("The proxy failed."), request, call, response)
        else:
            return response
        finally:
            if kept_bytes:
                self._services.store.memory_bytes -= kept_bytes
            call.sent_bytes += response.sent_bytes
            call.finish(self._log_request, self._services.metrics.requests)

    def refuse_malformed(self, request: web.BaseRequest, peer: Peer, error: ProxyError) -> web.StreamResponse:
        """For what the server's parser would not take: answered, logged and counted like any other refusal."""
        call = AccessRecord(request, peer.name)
        nothing_sent = RelayedResponse(request, self._policy.idle_timeout_s)
        response = self._refuse(error, request, call, nothing_sent)
        call.finish(self._log_request, self._services.metrics.requests)
        return response

    def _refuse(
        self, error: ProxyError, request: web.BaseRequest, call: AccessRecord, response: RelayedResponse
    ) -> web.StreamResponse:
        call.code, call.error = error.code, error.message
        if response.began:
            response.abort()
            return response
        call.status = error.status
        own = answer(error, call.request_id)
        if not request.content.is_eof():
            own.force_close()  # who waits for 100-continue sends no body now, whose end could not be found
        call.sent_bytes = 0 if request.method == "HEAD" else len(own.sent)
        return own

    def _enter(
        self, request: "CallerRequest", peer: Peer, call: AccessRecord, response: RelayedResponse
    ) -> RequestContext:
        """Lets a request in. Raises the ProxyError that keeps it out."""
        services = self._services
        services.guard.check_peer(peer.address, peer.uid)
        if request.version not in _SPOKEN:
            raise VersionNotSupported("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if request.shape is None:
            head = self.heads.read(request.field_names, request.parts)
        else:
            head = self.heads.read_known(request.shape, request.parts)
        call.identify(head.request_id, head.caller)
        target, authority = call.path, None
        if not target.startswith("/"):
            services.guard.check_method(call.method, upgrade=head.upgrade, preflight=head.is_preflight)
            target, authority = origin_form(call.method, target, self._authorities)
        services.guard.check_request(call.method, head, authority)
        if services.door is not None:
            call.caller = services.door.identify(peer, head.credentials) or call.caller
            services.door.check(call.caller, call.method, target, request.field_names)
        call.scope = services.scopes.classify(call.method, target)
        if services.retries.are_on:
            services.retries.note_request()
        return RequestContext(request, call, response, head, target)

    def _take_whole(self, passage: RequestContext) -> int:
        """Reads a body that has a length and is here to its end, as a small one mostly is: it goes with its head,
        each time. How much of the store's memory it takes; 0: it has to be streamed."""
        content, length, store = passage.request.content, passage.head.body_length, self._services.store
        if length is None or not content.is_eof() or content.exception() is not None or not store.take(length):
            return 0
        passage.payload = content.read_nowait()
        passage.on_permit = cast("CallerConnection", passage.request.protocol).valve.release
        passage.call.received_bytes = length
        return length

    async def _relay_with_body(self, passage: RequestContext) -> None:
        request, head, policy = passage.request, passage.head, self._policy
        source = CallerBody(
            request,
            expect_continue=head.expect_continue and request.version >= HttpVersion11,
            idle_timeout_s=policy.idle_timeout_s,
            timeout_s=policy.body_timeout_s,
        )
        with RequestBody(source, head.body_length, self._services.store) as body:
            passage.body = body
            passage.leave_unread = source.leave_unread
            try:
                await self._attempts.until_relayed(passage)
            finally:
                passage.call.received_bytes = body.received_bytes
